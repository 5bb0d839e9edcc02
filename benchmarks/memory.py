"""Peak memory of featurizing very many images: the same few hundred photographs, listed over and over.

    python benchmarks/memory.py [--images 100000] [--json results.json]

The work is done in a process of its own, which reports its largest resident size at its end. Target: under 2 GB.
"""

import argparse
import itertools
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import circumstances, photographs, write_results
from tqdm import tqdm

TARGET_GB = 2.0
FILES = 256
SIZE = 224


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--precision", choices=("f32", "bf16"), default="f32")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)  # given to the child process
    options = parser.parse_args()
    if options.folder:
        featurize(options.folder, options.images, options.precision)
        print(peak_bytes())
        return
    with tempfile.TemporaryDirectory() as folder:
        photographs(Path(folder) / "images", FILES)
        export(Path(folder) / "model.onnx")
        start = time.perf_counter()
        count = ["--images", str(options.images), "--precision", options.precision, "--folder", folder]
        child = subprocess.run([sys.executable, __file__, *count], check=True, stdout=subprocess.PIPE, text=True)
        seconds = time.perf_counter() - start
    figures = {"images": options.images, "seconds": seconds, "peak_gb": int(child.stdout) / 1e9}
    print(
        f"{options.images:,} images in {seconds:.0f} s; peak memory {figures['peak_gb']:.2f} GB (target {TARGET_GB} GB)"
    )
    print(f"{circumstances()['machine']}")
    write_results(options.json, figures)


def export(path: Path) -> None:
    """Write EfficientNet-Lite0, in a process of its own: PyTorch's memory is not what is measured."""
    code = (
        "import sys, pathlib; from libraries.network.backbones import load_pretrained;"
        "from libraries.network.export import export_onnx;"
        f"export_onnx(load_pretrained('EfficientNet_Lite0', input_size={SIZE}), pathlib.Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)


def featurize(folder: Path, count: int, precision: str) -> None:
    """What scripts/3_runDNN.py does with `count` images."""
    from libraries.data.dataset import Example
    from libraries.data.images import ResizeRule, load
    from libraries.network.embedding_store import write_features
    from libraries.network.engine import Engine

    files = sorted((folder / "images").rglob("*.jpg"))
    examples = [
        Example(str(path), path.parent.name, "train", group="", width=533, height=400, bytes=0, sha256="0" * 64)
        for path in itertools.islice(itertools.cycle(files), count)
    ]
    engine = Engine(folder / "model.onnx", precision="bf16" if precision == "bf16" else "f32")
    rule = ResizeRule(engine.size)
    with tqdm(total=count, unit=" images", disable=not sys.stderr.isatty()) as bar:
        write_features(
            folder / "features",
            examples,
            key="0" * 64,
            run=lambda wanted: engine.stream(wanted, lambda example: load(example.path, rule)),
            progress=bar.update,
        )


def peak_bytes() -> int:
    """The largest resident size this process has had."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    main()
