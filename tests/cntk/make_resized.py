"""Writes tests/cntk/networks/resized.npz: what real CNTK computes from goldens on images of another size.

As the tutorial does it: the network up to `z.x.x.r` is cloned onto an input of the new size. Run like make_goldens.py,
which see, by `python2.7 make_resized.py FOLDER`. Keys: `NAME.in` [2, 3, H, W] and `NAME.map` [2, C, h, w].
"""

import gzip
import pathlib
import sys
import tempfile

import numpy as np

SIZES = {"resnet_basic_base": (48, 64), "resnet_18": (128, 96), "legacy": (32, 40)}


def main():
    import cntk

    folder = pathlib.Path(sys.argv[1])
    arrays = {}
    for name, size in sorted(SIZES.items()):
        with tempfile.NamedTemporaryFile(suffix=".model") as plain:
            with gzip.open(str(folder / (name + ".model.gz"))) as packed:
                plain.write(packed.read())
            plain.flush()
            model = cntk.Function.load(plain.name)
        node = cntk.logging.graph.find_by_name(model, "z.x.x.r")
        features = cntk.input_variable((3,) + size, name="features")  # noqa: RUF005
        frozen = cntk.combine([node]).clone(cntk.CloneMethod.freeze, {model.arguments[0]: features})
        patches = np.random.RandomState(0).randint(0, 256, (2, 3, size[0] // 8, size[1] // 8))
        images = patches.repeat(8, axis=2).repeat(8, axis=3).astype(np.float32)
        arrays[name + ".in"] = images.astype(np.uint8)
        arrays[name + ".map"] = frozen.eval({frozen.arguments[0]: images})
    np.savez_compressed(str(folder / "resized.npz"), **arrays)


if __name__ == "__main__":
    main()
