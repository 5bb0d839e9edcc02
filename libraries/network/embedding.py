"""Embeddings of a data set by the network in a folder: on the device there is, and kept for the next time."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union

import numpy as np

from libraries.base.layout import Layout
from libraries.base.storage import Artefact
from libraries.data.dataset import Example, load_example
from libraries.data.images import ResizeRule
from libraries.network.devices import find_device
from libraries.network.engine import Engine, Precision
from libraries.network.features import Floats, read_features, write_features

if TYPE_CHECKING:
    from libraries.network.torch_engine import TorchEngine


def open_engine(
    folder: Path, *, device: Literal["auto", "cpu", "cuda", "mps"], precision: Precision, batch_size: int
) -> Union[Engine, "TorchEngine"]:
    """The network in a folder, ready to run: OpenVINO on a CPU, PyTorch on a GPU."""
    found = find_device(device)
    if found == "cpu":
        return Engine(folder / "model.onnx", precision=precision)
    from libraries.network.export import load_network
    from libraries.network.torch_engine import TorchEngine

    return TorchEngine(load_network(folder), device=found, precision=precision, batch_size=batch_size)


def embed_pretrained(
    examples: Sequence[Example],
    layout: Layout,
    values: Mapping[str, Any],
    *,
    progress: Callable[[int], object] = lambda count: None,
) -> Floats:
    """The embedding of every example by the pretrained network as it is, which is made where there is none yet.

    Args:
        values: the run's parameters.
    """
    network = layout.pretrained
    if not network.is_current():
        from libraries.network.backbones import load_pretrained
        from libraries.network.folder import resize_rule, write_network

        pretrained = load_pretrained(values["rf_pretrainedModelFilename"], input_size=values["rf_inputResolution"])
        pretrained.views = values["rf_views"]
        write_network(network, pretrained, rule=resize_rule(pretrained, values["rf_resizeMode"]))
    return embed(
        examples,
        images=layout.images,
        network=network,
        store=layout.proc / "features_duplicates",
        engine=lambda: open_engine(
            network.folder,
            device=values["device"],
            precision=values["run_precision"],
            batch_size=values["run_mbSize"],
        ),
        progress=progress,
    )


def embed(
    examples: Sequence[Example],
    *,
    images: Path,
    network: Artefact,
    store: Path,
    engine: Callable[[], Union[Engine, "TorchEngine"]],
    progress: Callable[[int], object] = lambda count: None,
) -> Floats:
    """The embedding of every example, float32 [N, D]; NaN for those that cannot be read.

    Args:
        images: the folder that the examples' paths start from.
        network: its folder, finished.
        store: a folder, of nothing else, in which embeddings are kept for the next time.
        engine: opens `network`; called only if something is missing from the store.
        progress: called with the number of examples just done.
    """
    rule = ResizeRule.from_json(network.read()["resize"])
    load = partial(load_example, folder=images, rule=rule)
    made_from = [network.identity(), [[example.path, example.sha256] for example in examples]]
    write_features(
        store,
        examples,
        key=hashlib.sha256(json.dumps(made_from).encode()).hexdigest(),
        run=lambda wanted: engine().stream(wanted, load),
        progress=progress,
    )
    stored = read_features(store)
    row = {path: i for i, path in enumerate(stored.path)}
    embeddings = np.full((len(examples), stored.embedding.shape[1]), np.nan, np.float32)
    known = [i for i, example in enumerate(examples) if example.path in row]
    embeddings[known] = stored.embedding[[row[examples[i].path] for i in known]]
    return embeddings
