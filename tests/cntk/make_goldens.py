"""Writes tests/cntk/networks: small models saved by real CNTK, with what CNTK computes from each of them.

It needs CNTK itself, which runs on Python 2.7 to 3.6 only, hence the old-fashioned Python here; importing this module
needs nothing but NumPy. The goldens were written with cntk 2.7.post2 (the cp27 wheel of PyPI, on the CPU, with a stub
in place of OpenMPI's libraries), Python 2.7.18, NumPy 1.16.6 and the backport pathlib 1.0.1, by

    python2.7 tests/cntk/make_goldens.py tests/cntk/networks [NAME ...]

Each model becomes NAME.model.gz and NAME.npz, and an entry of goldens.json:

    inputs    of the model in its order: uid, name, shape (without the batch; -3 where it is free), dtype, key
    outputs   of the model in its order: name of the node, uid, shape, key
    nodes     every named node outside of blocks, large ones of whole networks excepted: its name (`name.k` for the
              k-th of several outputs) is its key
    refused   instead of the three above and of the archive: what there is in the model that no image classifier has

All is computed in evaluation mode by the model loaded back from the file. The first axis of an array is the batch.
Where CNTK cannot compute a model on the CPU, another one computes it that has the same names (see `twin` in the cases).
The models themselves are in golden_cases.py (operations) and golden_networks.py (whole networks).
"""

import gzip
import io
import json
import pathlib
import sys
import tempfile
import zipfile
import zlib

import numpy as np

LARGEST = 1000  # numbers in a node's array that is kept


def batch_for(argument, rng):
    """Two samples. `features` are images of 0 to 255, in patches, which take little room in a file."""
    shape = [17 if size < 0 else size for size in argument.shape]
    if argument.name == "features":
        coarse = rng.randint(0, 256, (2, shape[0], -(-shape[1] // 4), -(-shape[2] // 4)))
        fine = np.repeat(np.repeat(coarse, 4, axis=2), 4, axis=3)
        return fine[:, :, : shape[1], : shape[2]].astype(argument.dtype)
    return rng.uniform(-2.0, 2.0, [2] + shape).astype(argument.dtype)  # noqa: RUF005


def named_nodes(cntk, root):
    """Named functions outside of blocks, by name."""
    found = cntk.logging.graph.depth_first_search(root, lambda node: hasattr(node, "root_function"), depth=0)
    nodes = {}
    for node in found:
        if node.name and node.op_name != "Combine":
            if node.name in nodes and nodes[node.name].uid != node.root_function.uid:
                raise ValueError("two nodes are called " + node.name)
            nodes[node.name] = node.root_function
    return nodes


class Computer:
    """Gives the values of a loaded model's nodes: computed by it, or by a twin of it with the same names."""

    def __init__(self, cntk, loaded, twin, feeds):
        self.combine = cntk.combine
        self.twins = named_nodes(cntk, twin) if twin else {}
        source = twin or loaded
        self.feeds = {}
        for argument, new in zip(loaded.arguments, source.arguments):  # noqa: B905
            self.feeds[new] = feeds[argument].astype(new.dtype)

    def value(self, node, position):
        # One variable at a time: CNTK itself fails when asked for some together, and unused inputs are an error.
        variable = self.twins.get(node.name, node).outputs[position]
        wanted = self.combine([variable])
        value = np.asarray(wanted.eval({argument: self.feeds[argument] for argument in wanted.arguments}))
        if not np.isfinite(value).all():
            raise ValueError("not finite: " + node.name)
        return value


def described(variable, key):
    return {"uid": variable.uid, "name": variable.name, "shape": [int(n) for n in variable.shape], "key": key}


def save(root, path):
    """Writes the model packed: the format repeats itself so much that a tenth is left."""
    with tempfile.NamedTemporaryFile(suffix=".model") as plain:
        root.save(plain.name)
        plain.seek(0)
        data = plain.read()
    with path.open("wb") as file:
        archive = gzip.GzipFile("", "wb", 9, file, 0)
        archive.write(data)
        archive.close()


def load(cntk, path):
    with path.open("rb") as file, tempfile.NamedTemporaryFile(suffix=".model") as plain:
        plain.write(gzip.GzipFile("", "rb", 9, file).read())
        plain.flush()
        return cntk.Function.load(plain.name)


def save_arrays(path, arrays):
    """An .npz like that of numpy.savez_compressed, but without the time of day in it."""
    with zipfile.ZipFile(str(path), "w") as archive:
        for key in sorted(arrays):
            array = io.BytesIO()
            np.save(array, arrays[key])
            member = zipfile.ZipInfo(key + ".npy", (1980, 1, 1, 0, 0, 0))
            archive.writestr(member, array.getvalue(), zipfile.ZIP_DEFLATED)


def record(cntk, folder, name, build, fill):
    """Builds, saves, loads back and computes one model; returns its entry."""
    rng = np.random.RandomState(zlib.crc32(name.encode("ascii")) & 0x7FFFFFFF)
    cntk.cntk_py.set_fixed_random_seed(1)
    root, more = build(cntk), None
    if isinstance(root, tuple):  # what else there is to it: why to refuse it, or how to make a twin
        root, more = root
    fill(root, rng)
    path = folder / (name + ".model.gz")
    save(root, path)
    if more and not callable(more):
        return {"refused": more}
    loaded = load(cntk, path)
    feeds = {argument: batch_for(argument, rng) for argument in loaded.arguments}
    computer = Computer(cntk, loaded, more and more(loaded), feeds)
    arrays, keys = {}, {}
    entry = {"inputs": [], "outputs": [], "nodes": []}
    for position, argument in enumerate(loaded.arguments):
        key = "in" if len(feeds) == 1 else "in." + (argument.name or str(position))
        arrays[key] = feeds[argument]
        entry["inputs"].append(dict(described(argument, key), dtype=np.dtype(argument.dtype).name))
    for title, node in sorted(named_nodes(cntk, loaded).items()):
        for position, variable in enumerate(node.outputs):
            key = title if len(node.outputs) == 1 else title + "." + str(position)
            value = computer.value(node, position)
            if value.size <= LARGEST:
                arrays[key] = value
                keys[variable.uid] = key
                entry["nodes"].append(key)
    for position, variable in enumerate(loaded.outputs):
        if variable.uid not in keys:
            keys[variable.uid] = "out" if len(loaded.outputs) == 1 else "out." + str(position)
            owner = variable.owner
            place = [output.uid for output in owner.outputs].index(variable.uid)
            arrays[keys[variable.uid]] = computer.value(owner, place)
        entry["outputs"].append(dict(described(variable, keys[variable.uid]), name=variable.owner.name))
    save_arrays(folder / (name + ".npz"), arrays)
    return entry


def main():
    import cntk
    import golden_cases
    import golden_networks

    folder = pathlib.Path(sys.argv[1])
    cases = dict(golden_cases.CASES)
    cases.update(golden_networks.CASES)
    manifest = folder / "goldens.json"
    models = json.loads(manifest.open("rb").read().decode("ascii")) if manifest.exists() else {}
    for name in sys.argv[2:] or sorted(cases):
        models[name] = record(cntk, folder, name, cases[name], golden_networks.fill)
        sys.stdout.write(name + "\n")
        sys.stdout.flush()
    lines = [json.dumps(name) + ": " + json.dumps(models[name], sort_keys=True) for name in sorted(models)]
    with manifest.open("wb") as file:
        file.write(("{\n" + ",\n".join(lines) + "\n}\n").encode("ascii"))


if __name__ == "__main__":
    main()
