"""Runs the network in a folder: opens it on the available device, and embeds a data set, keeping the embeddings."""

import hashlib
import json
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Union

import numpy as np

from libraries.base.arrays import Float32, Pixels
from libraries.base.errors import ImageError
from libraries.base.layout import Layout
from libraries.data.dataset import Checked, Example, load_example, read_example
from libraries.data.depth import FULL_RANGE
from libraries.data.images import ResizeRule, decode, fit
from libraries.network.devices import find_device
from libraries.network.embedding_store import read_features, write_features
from libraries.network.engine import Engine, Precision

if TYPE_CHECKING:
    from libraries.network.pretrained import NetworkOptions
    from libraries.network.torch_engine import TorchEngine

INNER_MARGIN = 0.05  # of the width and height, on each side


def open_engine(
    folder: Path, *, device: Literal["auto", "cpu", "cuda", "mps"], precision: Precision, batch_size: int
) -> Union[Engine, "TorchEngine"]:
    """The network in a folder, ready to run: OpenVINO on a CPU; PyTorch on a GPU if the network has PyTorch weights.

    Raises:
        ParameterError: there is no such device.
        NetworkError, StorageError: the network cannot be read.
    """
    available = find_device(device)
    if available == "cpu" or not (folder / "weights.safetensors").exists():
        return Engine(folder / "model.onnx", precision=precision)
    from libraries.network.export import load_network
    from libraries.network.torch_engine import TorchEngine

    return TorchEngine(load_network(folder), device=available, precision=precision, batch_size=batch_size)


def embed_pretrained(
    checked: Checked,
    layout: Layout,
    options: "NetworkOptions",
    *,
    open_network: Callable[[Path], Union[Engine, "TorchEngine"]],
    progress: Callable[[int], object] = lambda count: None,
) -> list[Float32]:
    """Embeddings for finding duplicates, float32 [N, D] each: of the whole pictures, and of their inner parts.

    They come from the unchanged pretrained network, whose folder is written first if needed.

    Args:
        checked: N examples.
        options: which network.
        open_network: folder → network ready to run; see `open_engine`.
        progress: called with the number of embeddings just done, of 2 N.
    """
    network = layout.scene_network
    if not network.is_current():
        from libraries.network.artefact import resize_rule, write_network
        from libraries.network.pretrained import load_network_for

        pretrained = load_network_for(options, refine=False)
        write_network(network, pretrained, rule=resize_rule(pretrained, options.mode))
    white = checked.white.level
    rule = replace(ResizeRule.from_json(network.read()["resize"]), white_level=white)
    key = network.identity() if white == FULL_RANGE else f"{network.identity()} {white}"
    engine = cache(lambda: open_network(network.folder))
    views = {
        "whole": partial(load_example, folder=layout.images, rule=rule),
        "inner": partial(load_inner, folder=layout.images, rule=rule),
    }
    return [
        embed(
            checked.examples,
            key=f"{name} {key}",
            store=layout.proc / "features_duplicates" / name,
            run=lambda wanted, load=load: engine().stream(wanted, load),  # type: ignore[misc]
            progress=progress,
        )
        for name, load in views.items()
    ]


def load_inner(example: Example, *, folder: Path, rule: ResizeRule) -> Pixels:
    """An example's picture without a twentieth on each side, uint8 [S, S, 3]; see `load_example`."""
    picture = decode(
        read_example(example, folder=folder),
        path=folder / example.path,
        at_least=2 * rule.size,
        white_level=rule.white_level,
        max_pixels=example.max_pixels,
    )
    y, x = (round(INNER_MARGIN * length) for length in picture.shape[:2])
    return fit(np.ascontiguousarray(picture[y : len(picture) - y, x : picture.shape[1] - x]), rule)


def embed(
    examples: Sequence[Example],
    *,
    key: str,
    store: Path,
    run: Callable[[Iterable[Example]], Generator[tuple[Example, Mapping[str, Float32] | ImageError]]],
    progress: Callable[[int], object] = lambda count: None,
) -> Float32:
    """The embedding of every example, float32 [N, D]; NaN for those that cannot be read.

    Args:
        key: identifies what the embeddings depend on besides the examples.
        store: a folder for them alone, in which they are kept for the next run.
        run: examples → outputs, as in `write_features`.
        progress: called with the number of examples just done.
    """
    made_from = [key, [[example.path, example.sha256] for example in examples]]
    identity = hashlib.sha256(json.dumps(made_from).encode()).hexdigest()
    write_features(store, examples, key=identity, run=run, progress=progress)
    stored = read_features(store)
    row = {path: i for i, path in enumerate(stored.path)}
    embeddings = np.full((len(examples), stored.embedding.shape[1]), np.nan, np.float32)
    known = [i for i, example in enumerate(examples) if example.path in row]
    embeddings[known] = stored.embedding[[row[examples[i].path] for i in known]]
    return embeddings
