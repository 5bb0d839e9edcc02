"""The scripts with networks of CNTK and ONNX: for embeddings, as they are, and trained on."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from libraries.base.errors import NetworkError, StaleInput
from libraries.base.layout import Layout
from libraries.classifier.bundle import Classifier
from libraries.data.images import ResizeRule, load
from libraries.network.pretrained import load_as_it_is
from PARAMETERS import Parameters
from tests.cntk.goldens import unpacked
from tests.conftest import STEPS
from tests.network.graphs.networks import write
from tests.network.test_pretrained import widened
from tests.scripts.test_pipeline import shows_results

Make = Callable[..., Parameters]
Main = Callable[..., None]

ORDER = ("stripes", "blobs", "checks")  # of the old network's classes; theirs in the alphabet is another


@pytest.fixture
def refined(tmp_path: Path) -> Path:
    """A network that the tutorial has refined, for three classes."""
    return unpacked("transfer_refined.model", tmp_path).rename(tmp_path / "cntk_refined.model")


def test_old_network_gives_embeddings_for_an_svm(
    parameters: Make, main: Main, refined: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    p = parameters(rf_pretrainedModelFilename=str(refined), rf_inputResolution=96)
    for step in STEPS:
        main(step, p)
        assert capfd.readouterr().err == "", step
    proc = p.rootDir / "proc" / "textures"
    network = json.loads((proc / "dnn_fixed" / "model.json").read_text())
    assert (network["architecture"], list(network["files"])) == ("cntk_refined.model", ["model.onnx"])
    assert network["resize"]["fill"] == [114, 114, 114]
    stored = pq.read_table(proc / "features_svm" / "part-00000.parquet").to_pydict()
    graph = load_as_it_is(p.network_options())
    rule = ResizeRule.from_json(network["resize"])
    images = np.stack([load(p.rootDir / "images" / "textures" / path, rule) for path in stored["path"][:5]])
    np.testing.assert_allclose(stored["embedding"][:5], graph.run(images)["embedding"], rtol=1e-4)
    shows_results(p)


def test_refined_network_is_evaluated_and_served_as_it_is(
    parameters: Make, main: Main, refined: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = {"rf_pretrainedModelFilename": str(refined), "rf_inputResolution": 96, "rf_maxEpochs": 0}
    p = parameters(classifier="dnn", rf_labels=ORDER, **settings)
    for step in STEPS:
        main(step, p)
        assert capfd.readouterr().err == "", step
    proc = p.rootDir / "proc" / "textures"
    classifier = Classifier(proc / "model_dnn")
    assert classifier.labels == list(ORDER)
    with (proc / "evaluation_dnn" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    graph = load_as_it_is(p.network_options())
    images = np.stack([load(p.rootDir / "images" / "textures" / row["path"], classifier.rule) for row in rows])
    scores = graph.run(images)["scores"]
    for row, image, expected in zip(rows, images, scores, strict=True):
        prediction = classifier.classify(image)
        np.testing.assert_allclose(prediction.scores, expected, rtol=1e-4, atol=1e-4)
        assert prediction.label == row["predicted"]
    metrics = json.loads((proc / "evaluation_dnn" / "metrics.json").read_text())
    assert metrics["overall_accuracy"] == sum(row["label"] == row["predicted"] for row in rows) / len(rows)
    shows_results(p)
    with pytest.raises(StaleInput, match=r"rf_labels.*run scripts/2_refineDNN\.py again"):
        main("3_runDNN", parameters(classifier="dnn", rf_labels=sorted(ORDER), **settings))


@pytest.mark.parametrize("labels", [("stripes", "blobs"), ("stripes", "blobs", "dots")])
def test_other_classes_than_the_data_sets_are_refused(
    parameters: Make, main: Main, refined: Path, labels: tuple[str, ...]
) -> None:
    settings = {"rf_pretrainedModelFilename": str(refined), "rf_inputResolution": 96, "rf_maxEpochs": 0}
    p = parameters(classifier="dnn", rf_labels=labels, **settings)
    main("1_prepareData", p)
    message = r"cntk_refined\.model has 3 classes, .*\(blobs, checks, stripes\).*set rf_labels"
    with pytest.raises(NetworkError, match=message):
        main("2_refineDNN", p)
    assert not Layout(p).network.is_current()


def test_old_resnet_is_trained_on(parameters: Make, main: Main, tmp_path: Path) -> None:
    path = widened("resnet_18", tmp_path / "ResNet_18.model", base=2)
    p = parameters(classifier="dnn", rf_pretrainedModelFilename=str(path), rf_maxEpochs=1)
    for step in STEPS:
        main(step, p)
    proc = p.rootDir / "proc" / "textures"
    network = json.loads((proc / "dnn_refined" / "model.json").read_text())
    assert network["architecture"] == "resnet18"
    assert network["mean"] == pytest.approx([114 / 255] * 3)
    assert {"model.onnx", "weights.safetensors", "training.csv"} <= set(network["files"])
    again = parameters(
        classifier="svm",
        rf_pretrainedModelFilename=str(proc / "dnn_refined" / "weights.safetensors"),
    )
    main("2_refineDNN", again)
    fixed = json.loads((proc / "dnn_fixed" / "model.json").read_text())
    assert fixed["mean"] == pytest.approx([114 / 255] * 3)  # what the weights were trained with, kept beside them


def test_onnx_network_gives_embeddings_for_an_svm(parameters: Make, main: Main, tmp_path: Path) -> None:
    path = write(tmp_path / "net.onnx", end="matmul", opset=13)
    p = parameters(rf_pretrainedModelFilename=str(path), rf_channelOrder="bgr")
    for step in STEPS:
        main(step, p)
    shows_results(p)
    with pytest.raises(StaleInput, match='rf_channelOrder = "bgr", but now it is none'):
        main("3_runDNN", parameters(rf_pretrainedModelFilename=str(path)))
    with pytest.raises(NetworkError, match=r"net\.onnx cannot be trained: it is an ONNX network"):
        main("2_refineDNN", parameters(classifier="dnn", rf_pretrainedModelFilename=str(path)))
