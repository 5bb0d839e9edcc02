"""The network folder: the resize rule that belongs to a network, and what its model.json says."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from libraries.base.errors import NetworkError
from libraries.base.storage import Artefact, write_json
from libraries.data.images import ResizeRule, fit
from libraries.network.artefact import resize_rule, write_network

IMAGENET: Any = SimpleNamespace(input_size=64, interpolation="bicubic", mean=(0.485, 0.456, 0.406))


@pytest.fixture
def artefact(tmp_path: Path) -> Artefact:
    return Artefact("dnn", tmp_path / "dnn" / "model.json", "scripts/2_refineDNN.py", {"rf_views": 1})


@pytest.fixture
def export(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces the export, which takes seconds and has its own tests."""

    def save_network(network: Any, target: Path) -> dict[str, Any]:
        target.mkdir(exist_ok=True)
        for name in ("model.onnx", "weights.safetensors"):
            (target / name).write_text(f"{name} of {network.input_size}")
        return {"architecture": "tiny", "embedding_size": 8}

    monkeypatch.setattr("libraries.network.export.save_network", save_network)


@pytest.mark.parametrize("mode", ["pad", "crop", "stretch"])
def test_rule_is_of_the_networks_size_and_survives_json(mode: str) -> None:
    rule = resize_rule(IMAGENET, mode)
    assert (rule.size, rule.mode, rule.interpolation) == (64, mode, "bicubic")
    assert ResizeRule.from_json(json.loads(json.dumps(rule.to_json()))) == rule


def test_padding_is_what_normalisation_turns_into_zero() -> None:
    padded = fit(np.zeros((10, 64, 3), np.uint8), resize_rule(IMAGENET, "pad"))
    np.testing.assert_allclose(padded[0, 0] / 255, IMAGENET.mean, atol=0.5 / 255)
    assert (padded[32, 32] == 0).all()


@pytest.mark.usefixtures("export")
def test_folder_is_current_and_knows_its_files(artefact: Artefact) -> None:
    rule = resize_rule(IMAGENET, "pad")
    write_network(artefact, IMAGENET, rule=rule)
    assert artefact.is_current()
    model = artefact.read()
    assert model["labels"] is None
    assert model["resize"] == rule.to_json()
    assert model["architecture"] == "tiny"
    assert set(model["files"]) == {"model.onnx", "weights.safetensors"}


@pytest.mark.usefixtures("export")
def test_refined_network_has_labels_further_files_and_facts(artefact: Artefact) -> None:
    artefact.folder.mkdir()
    training = artefact.folder / "training.csv"
    training.write_text("epoch\n")
    facts = {"files": [training], "labels": ("Straße", "b"), "best_epoch": 3}
    write_network(artefact, IMAGENET, rule=resize_rule(IMAGENET, "crop"), **facts)
    model = artefact.read()
    assert model["labels"] == ["Straße", "b"]
    assert model["best_epoch"] == 3
    assert set(model["files"]) == {"model.onnx", "weights.safetensors", "training.csv"}


@pytest.mark.usefixtures("export")
def test_export_that_fails_leaves_the_folder_unfinished(artefact: Artefact, monkeypatch: pytest.MonkeyPatch) -> None:
    write_network(artefact, IMAGENET, rule=resize_rule(IMAGENET, "pad"))

    def fail(network: Any, target: Path) -> dict[str, Any]:
        raise NetworkError("cannot be written as ONNX")

    monkeypatch.setattr("libraries.network.export.save_network", fail)
    with pytest.raises(NetworkError):
        write_network(artefact, IMAGENET, rule=resize_rule(IMAGENET, "pad"))
    assert not artefact.is_current()


@pytest.mark.usefixtures("export")
def test_another_way_of_fitting_images_is_another_network(artefact: Artefact) -> None:
    """The rule of earlier versions does not count, so that what was made with it stays up to date."""

    def identity(rule: ResizeRule) -> str:
        write_network(artefact, IMAGENET, rule=rule)
        return artefact.identity()

    rule = resize_rule(IMAGENET, "pad")
    earlier = identity(replace(rule, detail=1.75))
    write_json(artefact.manifest, {name: value for name, value in artefact.read().items() if name != "resize"})
    assert artefact.identity() == earlier
    assert len({earlier, identity(rule), identity(replace(rule, mode="crop"))}) == 3
