"""Networks in files become timm's where they are ResNets of CNTK, with the same embeddings; others stay graphs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from libraries.base.errors import NetworkError
from libraries.base.storage import Artefact, sha256
from libraries.cntk.wire import parse
from libraries.network.artefact import resize_rule, write_network
from libraries.network.backbones import EmbeddingNetwork, load_pretrained
from libraries.network.export import load_network, save_weights
from libraries.network.graphs.graph_network import WEIGHTS, GraphNetwork
from libraries.network.pretrained import NetworkOptions, load_as_it_is, load_network_for
from PARAMETERS import Parameters
from tests.cntk.goldens import golden, unpacked
from tests.cntk.wire_writer import encode
from tests.network.graphs.networks import write

SIZE = 64
CLASSES = 5  # of the goldens
TOLERANCE = 1e-4  # of the largest value, after up to 50 layers in float32


def values(path: str | Path, **changed: Any) -> NetworkOptions:
    settings: dict[str, Any] = {"rf_pretrainedModelFilename": str(path), "rf_inputResolution": SIZE, **changed}
    return Parameters(**settings).network_options()


def artefact(folder: Path) -> Artefact:
    return Artefact(folder.name, folder / "model.json", "scripts/2_refineDNN.py", {})


def widened(name: str, path: Path, *, base: int) -> Path:
    """A golden ResNet with as many channels as the real one has: 64 where it has `base`, and other weights."""
    contents = parse(memoryview(golden(f"{name}.model")))
    rng, factor = np.random.default_rng(0), 64 // base
    for entry in contents["inputs"]:
        value = entry.get("value")
        if value is None or value.ndim == 0 or entry["name"] == "b":
            continue
        channels = 1 if value.shape[-1] == CLASSES else 2  # of the last layer's weights, or a convolution's
        shape = [size if size == 3 else size * factor for size in value.shape[:channels]] + list(value.shape[channels:])
        if entry["name"] == "aggregate_variance":
            new = rng.uniform(0.5, 1.5, shape)
        elif value.ndim == 4:
            new = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)  # He's: nothing grows or fades on the way
        else:
            new = rng.uniform(0.2, 0.8, shape) if entry["name"] == "scale" else rng.normal(0, 0.1, shape)
        entry["value"] = new.astype(np.float32)
        entry["shape"] = type(entry["shape"])(shape[::-1])
    path.write_bytes(encode(contents))
    return path


@pytest.mark.parametrize(
    ("name", "base", "architecture"),
    [
        ("resnet_18", 2, "resnet18"),
        ("resnet_20", 1, "cntk_resnet20"),
        ("resnet_34", 1, "resnet34"),
        ("resnet_50_stride_3x3", 1, "resnet50"),
        ("resnet_50", 1, "caffe_resnet50"),
    ],
)
def test_resnet_of_cntk_is_timms_with_the_embeddings_of_the_graph(
    tmp_path: Path, name: str, base: int, architecture: str
) -> None:
    path = widened(name, tmp_path / "old.model", base=base)
    network = load_network_for(values(path), refine=True)
    assert isinstance(network, EmbeddingNetwork)
    assert network.architecture == architecture
    graph = load_as_it_is(values(path))
    images = np.random.default_rng(1).integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)
    expected = graph.run(images)["embedding"]
    with torch.inference_mode():
        found = network(torch.from_numpy(images))[0].numpy()
    assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()
    assert np.abs(expected[0] - expected[1]).max() > 0.01 * np.abs(expected).max()  # the images make a difference
    assert resize_rule(network, "pad").fill == (114, 114, 114)


def test_a_network_written_and_read_again_keeps_cntks_normalisation(tmp_path: Path) -> None:
    network = load_network_for(values(widened("resnet_18", tmp_path / "old.model", base=2)), refine=True)
    assert isinstance(network, EmbeddingNetwork)
    written = artefact(tmp_path / "dnn_fixed")
    write_network(written, network, rule=resize_rule(network, "pad"))
    images = torch.randint(0, 256, (2, SIZE, SIZE, 3), generator=torch.Generator().manual_seed(0)).byte()
    save_weights(network, tmp_path / WEIGHTS)
    with torch.inference_mode():
        expected = network(images)[0]
        for again in (load_network(written.folder), load_pretrained(str(tmp_path / WEIGHTS), input_size=SIZE)):
            assert torch.allclose(again(images)[0], expected, rtol=1e-5)


def test_the_resnet_18_of_cntks_examples_has_a_block_more(tmp_path: Path) -> None:
    network = load_pretrained("random:cntk_resnet20", input_size=SIZE)
    assert len(network.backbone.get_submodule("layer4")) == 3  # type: ignore[arg-type]
    save_weights(network, tmp_path / WEIGHTS)
    again = load_pretrained(str(tmp_path / WEIGHTS), input_size=SIZE)
    assert again.architecture == "cntk_resnet20"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("resnet_18", "the widths of its layers are not those of resnet18"),
        ("legacy", "no residual blocks"),
    ],
)
def test_other_networks_stay_graphs_and_cannot_be_trained_on(tmp_path: Path, name: str, why: str) -> None:
    path = unpacked(f"{name}.model", tmp_path).rename(tmp_path / "old.model")
    assert isinstance(load_network_for(values(path), refine=False), GraphNetwork)
    with pytest.raises(NetworkError, match=rf"old\.model cannot be trained: {why}.*; set classifier to 'svm'"):
        load_network_for(values(path), refine=True)
    with pytest.raises(NetworkError, match=rf"old\.model can only be used unchanged \({why}.*\): set rf_views to 1"):
        load_network_for(values(path, rf_views=8), refine=False)


def test_onnx_network_stays_a_graph(tmp_path: Path) -> None:
    path = write(tmp_path / "net.onnx")
    network = load_network_for(values(path), refine=False)
    assert isinstance(network, GraphNetwork)
    written = artefact(tmp_path / "dnn_fixed")
    written.folder.mkdir()
    (written.folder / WEIGHTS).write_bytes(b"of the network that was here before")
    write_network(written, network, rule=resize_rule(network, "pad"))
    assert list(written.read()["files"]) == ["model.onnx"]
    assert not (written.folder / WEIGHTS).exists()
    with pytest.raises(NetworkError, match="it is an ONNX network; set classifier to 'svm'"):
        load_network_for(values(path), refine=True)


def test_what_is_said_about_graphs_is_refused_for_other_networks(tmp_path: Path) -> None:
    for changed in ({"rf_channelOrder": "bgr"}, {"rf_channelMeans": (1, 2, 3)}, {"rf_embeddingNode": "pool"}):
        with pytest.raises(NetworkError, match=r"random:resnet18 brings its own normalisation and cut"):
            load_network_for(values("random:resnet18", **changed), refine=False)
    with pytest.raises(
        NetworkError,
        match=r"rf_maxEpochs = 0 uses a network with its own classes: set",
    ):
        load_as_it_is(values("random:resnet18"))
    (tmp_path / "any.onnx").touch()
    with pytest.raises(NetworkError, match="rf_featureMaps to none"):
        load_as_it_is(values(tmp_path / "any.onnx", rf_featureMaps=3))
    with pytest.raises(NetworkError, match=r"gone\.model does not exist: check rf_pretrainedModelFilename"):
        load_network_for(values(tmp_path / "gone.model"), refine=False)
    for nobody in ("~nosuchuser/gone.model", "resnet18@~nosuchuser/gone.pth"):
        with pytest.raises(NetworkError, match=r"~nosuchuser/gone\.\w+ does not exist"):
            load_network_for(values(nobody), refine=False)


def test_damaged_normalisation_of_weights_is_one_clear_error(tmp_path: Path) -> None:
    save_weights(load_pretrained("random:resnet18", input_size=SIZE), tmp_path / WEIGHTS)
    state = load_file(tmp_path / WEIGHTS)
    good = {"architecture": "resnet18", "mean": [0, 0, 0], "std": [1, 1, 1]}
    bad = [{"mean": [0, 0]}, {"std": [0, 0, 0]}, {"mean": 1}, {"std": ["a", 1, 1]}, {"mean": None}]
    for text in ("no JSON", "[]", "{}", *(json.dumps(good | changes) for changes in bad)):
        save_file(state, tmp_path / WEIGHTS, metadata={"network": text})
        with pytest.raises(NetworkError, match="the metadata about its network is damaged"):
            load_pretrained(str(tmp_path / WEIGHTS), input_size=SIZE)


def test_weights_are_the_same_bytes_every_time(tmp_path: Path) -> None:
    network = load_pretrained("random:resnet18", input_size=SIZE)
    written = set()
    for _ in range(8):
        save_weights(network, tmp_path / WEIGHTS)
        written.add(sha256(tmp_path / WEIGHTS))
    assert len(written) == 1


def test_weights_that_name_their_architecture_alone_are_read(tmp_path: Path) -> None:
    save_weights(load_pretrained("random:resnet18", input_size=SIZE), tmp_path / WEIGHTS)
    save_file(load_file(tmp_path / WEIGHTS), tmp_path / WEIGHTS, metadata={"architecture": "resnet18"})
    assert load_pretrained(str(tmp_path / WEIGHTS), input_size=SIZE).architecture == "resnet18"
