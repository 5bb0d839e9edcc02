"""The scripts in order, as a user runs them: every classifier, every file, interruptions."""

import csv
import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from libraries.base.errors import MissingInput, StaleInput
from libraries.base.layout import Layout
from libraries.base.storage import write_json
from libraries.classifier.bundle import Classifier
from libraries.data.images import load
from libraries.network.embedding_store import read_features
from libraries.widgets.results import ResultsViewer
from PARAMETERS import Parameters
from tests.conftest import STEPS, command_line, files, hashes, run_main, small_run
from tests.scripts.conftest import FINISHED

Make = Callable[..., Parameters]
Stage = Callable[[str], Make]
Main = Callable[..., None]
Process = Callable[..., subprocess.CompletedProcess[str]]

SMALL = {"rf_pretrainedModelFilename": "random:resnet10t"}  # written in a third of the time

FILES = {
    "svm": [
        *("examples.csv", "examples.json", "duplicates.csv", "quality.csv"),
        *(f"dnn_fixed/{name}" for name in ("model.json", "model.onnx", "weights.safetensors")),
        *(f"features_svm/{name}" for name in ("manifest.json", "part-00000.parquet")),
        *(f"svm_svm/{name}" for name in ("manifest.json", "svm.npz", "sweep.csv", "sweep.png")),
        *("svm_svm/learning_curve.csv", "svm_svm/learning_curve.png"),
        *(f"model_svm/{name}" for name in ("model.json", "model.onnx")),
    ],
    "dnn": [
        *("examples.csv", "examples.json", "duplicates.csv", "quality.csv"),
        *(
            f"dnn_refined/{name}"
            for name in ("model.json", "model.onnx", "weights.safetensors", "training.csv", "training.png")
        ),
        *(f"features_dnn/{name}" for name in ("manifest.json", "part-00000.parquet")),
        *(f"model_dnn/{name}" for name in ("model.json", "model.onnx")),
    ],
}
EVALUATION = [
    *("manifest.json", "metrics.json", "predictions.csv", "report.html"),
    *("roc_and_confusion.png", "precision_recall.png", "reliability.png", "trust.png"),
]


def shows_results(parameters: Parameters) -> None:
    """The viewer of results shows a test image with scores, training images like it, and evidence."""
    viewer = ResultsViewer.of(Layout(parameters))
    sent: list[dict[str, Any]] = []
    viewer.send = lambda content, buffers=None: sent.append(content)
    viewer.act({"do": "look", "image": 0})
    viewer.act({"do": "evidence", "image": 0, "label": 1})
    viewer._pool.close()
    viewer.close()
    told = {key: value for message in sent for key, value in message.items()}
    assert viewer.state["stale"] == told["problem"] == ""
    assert (told["look"], told["evidence"], len(told["bars"]), len(told["alike"])) == (0, 0, 3, 5)
    assert told["method"] in ("class activation map", "occlusion")


@pytest.mark.parametrize("classifier", ["svm", "dnn"])
def test_from_images_to_report(parameters: Make, process: Process, classifier: str) -> None:
    p = parameters(classifier=classifier)
    for step in STEPS:
        done = process(step, p)
        assert done.returncode == 0, done.stderr
        assert done.stderr == "", f"{step} is quiet on standard error"
        assert "Traceback" not in done.stdout
    proc = p.rootDir / "proc" / "textures"
    evaluated = {f"evaluation_{classifier}/{name}" for name in EVALUATION} | {f"model_{classifier}/metrics.json"}
    assert files(proc) == {*FILES[classifier], *evaluated, "review.csv"}

    metrics = json.loads((proc / f"evaluation_{classifier}" / "metrics.json").read_text())
    with (proc / f"evaluation_{classifier}" / "predictions.csv").open(newline="") as file:
        predictions = list(csv.DictReader(file))
    right = sum(row["label"] == row["predicted"] for row in predictions)
    assert len(predictions) == metrics["number_of_test_images"] == 12
    assert metrics["overall_accuracy"] == right / 12
    if classifier == "svm":
        assert metrics["overall_accuracy"] >= 0.9  # textures are easy
        with (proc / "svm_svm" / "sweep.csv").open(newline="") as file:
            accuracies = {row["test_accuracy"] for row in csv.DictReader(file)}
        assert str(metrics["overall_accuracy"]) in accuracies, "the accuracy printed in step 4 is that of step 5"
        with (proc / "svm_svm" / "learning_curve.csv").open(newline="") as file:
            points = list(csv.DictReader(file))
        assert points[-1]["images"] == "36"
        assert float(points[-1]["accuracy"]) == pytest.approx(metrics["overall_accuracy"]), "ends at the classifier"
        advice = json.loads((proc / "svm_svm" / "manifest.json").read_text())["advice"]
        report = (proc / "evaluation_svm" / "report.html").read_text(encoding="utf-8")
        assert advice and all(sentence in report for sentence in advice)
    assert Classifier(proc / f"model_{classifier}").model["metrics"] == metrics

    shows_results(p)

    # the bundle is all that is needed to classify an image of any size
    moved = p.rootDir / "elsewhere"
    (proc / f"model_{classifier}").rename(moved)
    image = np.asarray(Image.open(p.rootDir / "images" / "textures" / predictions[0]["path"]).convert("RGB"))
    (prediction,) = Classifier(moved).predict([image])
    assert prediction.label == predictions[0]["predicted"]
    assert prediction.probabilities.sum() == pytest.approx(1, abs=1e-5)


def test_second_run_changes_nothing_and_tells_of_new_images(
    stage: Stage, main: Main, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    p = stage(FINISHED)()
    before = hashes(p.rootDir)
    changes = "what has changed since script 1"
    monkeypatch.setattr("libraries.data.dataset.changes_since_prepared", lambda layout: changes)
    for step in STEPS:
        capsys.readouterr()
        main(step, p)
        has_told = changes in capsys.readouterr().out
        assert has_told == (step in ("3_runDNN", "4_trainSVM", "5_evaluate")), step
    assert hashes(p.rootDir) == before


def test_classifiers_live_side_by_side(stage: Stage, main: Main) -> None:
    parameters = stage(FINISHED)
    svm, refined = parameters(rf_maxEpochs=1), parameters(classifier="svmDnnRefined", rf_maxEpochs=1, **SMALL)
    proc = svm.rootDir / "proc" / "textures"
    before = hashes(proc)
    for step in STEPS:
        main(step, refined)
    after = hashes(proc)
    before.pop("review.csv")  # one queue for all, by the classifier evaluated last
    assert {name: after[name] for name in before} == before
    assert {name.split("/")[0] for name in after if name not in before} == {
        *(
            "review.csv",
            "dnn_refined",
            "features_svmDnnRefined",
            "svm_svmDnnRefined",
            "model_svmDnnRefined",
            "evaluation_svmDnnRefined",
        )
    }
    main("5_evaluate", svm)  # still whole
    shows_results(svm)
    shows_results(refined)


@pytest.mark.parametrize("step", STEPS[1:])
def test_a_step_without_its_input_names_the_script_to_run(parameters: Make, process: Process, step: str) -> None:
    done = process(step, parameters(classifier="svmDnnRefined"))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "examples.json does not exist: run scripts/1_prepareData.py first" in done.stderr


def test_stale_inputs_are_refused_by_name(stage: Stage, main: Main) -> None:
    parameters = stage(FINISHED)
    with pytest.raises(
        StaleInput, match=r"dnn_fixed was made with rf_inputResolution = 64, .* run scripts/2_refineDNN\.py"
    ):
        main("3_runDNN", parameters(rf_inputResolution=96))
    with pytest.raises(
        StaleInput, match=r"examples.csv was made with ratioTrainTest = 0\.75, .*1_prepareData\.py again"
    ):
        main("4_trainSVM", parameters(ratioTrainTest=0.5))
    with pytest.raises(
        StaleInput, match=r"svm_svm was made with svm_folds = 5, but now it is 4: run scripts/4_trainSVM\.py"
    ):
        main("5_evaluate", parameters(svm_folds=4))
    with pytest.raises(MissingInput, match=r"dnn_refined.*2_refineDNN\.py first"):
        main("5_evaluate", parameters(classifier="dnn"))
    main("1_prepareData", parameters(randomSeed=1))
    with pytest.raises(StaleInput, match=r"examples\.csv has changed since features_svm was made .*3_runDNN\.py again"):
        main("4_trainSVM", parameters(randomSeed=1))


def test_changed_added_and_removed_images_are_noticed(
    parameters: Make, main: Main, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    p = parameters()
    (p.rootDir / "images" / "textures").unlink()
    subprocess.run(["cp", "-r", str(pictures), str(p.rootDir / "images" / "textures")], check=True)
    main("1_prepareData", p)
    main("2_refineDNN", p)
    victim = p.rootDir / "images" / "textures" / "blobs" / "01.jpg"
    original = victim.read_bytes()
    victim.write_bytes((victim.parent / "02.jpg").read_bytes())
    with pytest.raises(StaleInput, match=r"blobs/01\.jpg has changed .*run scripts/1_prepareData\.py again"):
        main("3_runDNN", p)
    victim.unlink()
    with pytest.raises(StaleInput, match=r"blobs/01\.jpg cannot be read any more"):
        main("3_runDNN", p)
    victim.write_bytes(original)
    (victim.parent / "later.jpg").write_bytes(original)
    capsys.readouterr()
    main("3_runDNN", p)
    assert (
        "Warning: 1 image is new (such as blobs/later.jpg) since the data set was prepared" in capsys.readouterr().out
    )


def signalled(command: list[str], how: signal.Signals, *, when: Callable[[], bool]) -> tuple[int, str]:
    """Run a script, send it a signal as soon as `when()`; give back its exit status and standard error."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not when():
            time.sleep(0.01)
        process.send_signal(how)  # nothing happens if it has ended
        _, error = process.communicate(timeout=120)
        return process.returncode, error


# Each step of 'svm', as soon as it writes its first file; and the training of 'dnn' after its first epoch.
INTERRUPTIONS = [*((step, "svm", "") for step in STEPS), ("2_refineDNN", "dnn", "dnn_refined/checkpoint.safetensors")]


TRAINED: dict[str, object] = {"classifier": "dnn", "rf_maxEpochs": 3, **SMALL}


@pytest.fixture(scope="session")
def undisturbed(stages: Path, shared_folder: Path, quick_export: None) -> Callable[[str, str], Path]:
    """What a DATA_DIR holds after a step that nothing interrupted; made once for all processes of the test run."""

    def made(step: str, classifier: str) -> Path:
        if classifier == "svm":
            return stages / [*STEPS, FINISHED][STEPS.index(step) + 1]
        folder = shared_folder / "undisturbed"
        with FileLock(f"{folder}.lock"):
            if not folder.exists():
                part = shutil.copytree(stages / step, f"{folder}.part", symlinks=True)
                run_main(step, small_run(Path(part), **TRAINED))
                Path(part).rename(folder)
        return folder

    return made


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
@pytest.mark.parametrize(("step", "classifier", "sign"), INTERRUPTIONS)
def test_interrupted_steps_go_on_to_the_same_result(
    stage: Stage,
    main: Main,
    undisturbed: Callable[[str, str], Path],
    step: str,
    classifier: str,
    sign: str,
    how: signal.Signals,
) -> None:
    p = stage(step)(**TRAINED if classifier == "dnn" else {})
    proc = p.rootDir / "proc" / "textures"
    before = files(proc)
    status, error = signalled(command_line(step, p), how, when=lambda: any(sign in f for f in files(proc) - before))
    assert status in (-how, 130, 0), error
    if status == 130:
        assert "Run it again to continue" in error
        assert "Traceback" not in error
    main(step, p)
    expected = results(undisturbed(step, classifier) / "proc" / "textures")
    assert {name: value for name, value in results(proc).items() if ".tmp-" not in name} == expected


def results(proc: Path) -> dict[str, object]:
    """What is in the files of a run, without the seconds that its epochs took."""
    found: dict[str, object] = {name: value for name, value in hashes(proc).items() if "training.png" not in name}
    for name in found:
        if name.endswith("training.csv"):
            with (proc / name).open(newline="") as file:
                found[name] = [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]
    return found


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # within MLflow
def test_comparison_of_runs(stage: Stage, main: Main, capsys: pytest.CaptureFixture[str]) -> None:
    parameters = stage("5_evaluate")
    with_history = parameters(runHistory=True)
    main("5_evaluate", with_history, compare=True)
    assert "There is no evaluation of 'textures' in the run history yet" in capsys.readouterr().out
    main("5_evaluate", with_history)
    main("4_trainSVM", parameters(svm_CVals=(1e-4,), svm_boL2Normalize=True))
    main("5_evaluate", parameters(runHistory=True, svm_CVals=(1e-4,), svm_boL2Normalize=True))
    capsys.readouterr()
    main("5_evaluate", with_history, compare=True)
    shown = capsys.readouterr().out
    assert "svm_CVals" in shown
    assert "rf_mbSize" not in shown  # only what differs
    assert "overall_accuracy" in shown
    assert "McNemar" in shown


@pytest.mark.parametrize("classifier", ["svm", "dnn"])
def test_embeddings_of_three_feature_maps(parameters: Make, main: Main, classifier: str) -> None:
    p = parameters(classifier=classifier, rf_featureMaps=3, rf_maxEpochs=1)
    for step in STEPS:
        main(step, p)
    layout = Layout(p)
    embeddings = read_features(layout.features.folder).embedding
    assert embeddings.shape == (48, 3104)
    bundle = Classifier(layout.bundle.folder)
    assert bundle.has_evidence, "heatmaps need no occlusion"
    image = load(next(iter(sorted(layout.images.rglob("*.jpg")))), bundle.rule)
    heatmap = bundle.evidence(image)
    assert heatmap.shape[1:] == (4, 4), "as fine as the largest map"
    share = np.exp(heatmap.mean(axis=(1, 2)))
    np.testing.assert_allclose(share / share.sum(), bundle.classify(image).probabilities, atol=1e-4)


def test_a_network_that_was_made_before_there_was_a_choice_of_maps(stage: Stage) -> None:
    p = stage(FINISHED)()
    network = Layout(p).network
    manifest = network.read()
    assert manifest["parameters"].pop("rf_featureMaps") is None and manifest.pop("maps") == 1
    write_json(network.manifest, manifest)
    assert Layout(p).evaluation.is_current()
    assert not Layout(p.model_copy(update={"rf_featureMaps": 3})).network.is_current()
