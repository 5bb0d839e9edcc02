"""The folder that an evaluation leaves."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from libraries.base import storage
from libraries.base.layout import Layout
from libraries.base.tables import csv_records
from libraries.data.dataset import Example
from libraries.data.images import ResizeRule
from libraries.evaluation import outputs
from libraries.evaluation.metrics import metrics
from libraries.evaluation.testing import Tested as Answers
from libraries.network.embedding_store import Features
from PARAMETERS import Parameters

KNOWN = Features(["class 0/known.png"], ["known"], ["train"], np.ones((1, 4), np.float32), None)
FILES = [
    "metrics.json",
    "predictions.csv",
    "roc_and_confusion.png",
    "precision_recall.png",
    "reliability.png",
    "trust.png",
]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A DATA_DIR in which everything that an evaluation is made from has been made."""
    layout = Layout(Parameters.load({"rootDir": tmp_path, "datasetName": "cells"}))
    facts = {"architecture": "tiny", "input_size": 64, "versions": {"numpy": "2"}}
    for artefact in (layout.examples, layout.network, layout.features, layout.svm, layout.bundle):
        file = artefact.folder / f"{artefact.name}.bin"
        storage.write_text(file, artefact.name)
        artefact.commit([file], **facts)
    return layout


@pytest.fixture(autouse=True)
def known(layout: Layout) -> str:
    """The one training image in the feature store."""
    path = KNOWN.path[0]
    (layout.images / path).parent.mkdir(parents=True)
    Image.new("RGB", (20, 30)).save(layout.images / path)
    return path


def answers(layout: Layout, names: list[str], *, without: int | None = None, mistakes: int = 4) -> Answers:
    """The answers for 12 images of each class, save those of class `without`; the first few are wrong."""
    generator = np.random.default_rng(0)
    truth = np.array([i for i in np.arange(12 * len(names)) % len(names) if i != without])
    scores = generator.normal(size=(len(truth), len(names)))
    scores[np.arange(len(truth)), truth] += 6
    scores[:mistakes] *= -1
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    folders = [f"class {i}" for i in range(len(names))]  # not the labels: some here could not be folders
    examples = [
        Example(f"{folders[t]}/{i}.png", names[t], "test", str(i), 30, 20, 1, str(i)) for i, t in enumerate(truth)
    ]
    for i, e in enumerate(examples):
        path = layout.images / e.path
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 20), (200, 100, 50)).save(path)
        examples[i] = replace(e, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    return Answers(
        names=names,
        examples=examples,
        labels=truth,
        embeddings=np.zeros((len(truth), 4), np.float32),
        scores=scores.astype(np.float32),
        probabilities=probabilities.astype(np.float32),
        left_out=[],
    )


def evaluated(layout: Layout, tested: Answers) -> tuple[dict[str, Any], list[Path]]:
    measured = metrics(tested.labels, tested.probabilities, names=tested.names)
    classifier: Any = Explainer(tested.names)
    return measured, outputs.write(
        tested, measured, classifier=classifier, layout=layout, features=KNOWN, settings={"classifier": "svm"}
    )


class Explainer:
    """A classifier that sees evidence for every class in the left half of an image, against it in the right."""

    has_evidence = True
    rule = ResizeRule(32, "pad", "bicubic", (0, 0, 0))

    def __init__(self, labels: list[str]) -> None:
        self.labels = labels

    def evidence(self, fitted: np.ndarray) -> np.ndarray:
        assert fitted.shape == (32, 32, 3)
        one = np.array([[1.0, -1.0], [1.0, -1.0]], np.float32)
        return np.stack([one * (i + 1) for i in range(len(self.labels))])


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv_records(file))


def test_folder_of_two_classes(layout: Layout, known: str) -> None:
    tested = answers(layout, ["defective", "functional"])
    measured, written = evaluated(layout, tested)
    folder = layout.evaluation.folder
    assert written == [folder / name for name in (*FILES, "report.html")]
    assert {p.name for p in folder.iterdir()} == {*FILES, "report.html", "manifest.json"}
    assert layout.evaluation.is_current()
    assert json.loads((folder / "metrics.json").read_text(encoding="utf-8")) == measured

    predictions = rows(folder / "predictions.csv")
    wrong = [row for row in predictions if row["label"] != row["predicted"]]
    assert len(predictions) == 24
    assert 0 < len(wrong) == round(24 * (1 - measured["overall_accuracy"]))
    report = (folder / "report.html").read_text(encoding="utf-8")
    for row in wrong:
        assert f'alt="{row["path"]}"' in report, "every mistake is shown"
    assert report.count("data:image/png") == 4 + len(wrong), "with four pictures and the evidence of each mistake"
    assert report.count(f'alt="{known}"') == len(wrong), "the training image most like it"
    for name in FILES[2:]:
        with Image.open(folder / name) as picture:
            assert picture.format == "PNG"
            assert len(picture.convert("L").getcolors(256) or []) > 10, "there is something to see"


def test_pictures_of_earlier_steps_are_in_the_report(layout: Layout) -> None:
    Image.new("RGB", (60, 40)).save(layout.svm.folder / "sweep.png")
    _, written = evaluated(layout, answers(layout, ["a", "b"]))
    report = written[-1].read_text(encoding="utf-8")
    assert "Choosing C" in report
    assert layout.svm.folder / "sweep.png" not in written, "it belongs to another artefact"


def test_class_without_test_images_is_unknown_not_zero(layout: Layout) -> None:
    measured, written = evaluated(layout, answers(layout, ["a", "b", "none here"], without=2))
    saved = json.loads((layout.evaluation.folder / "metrics.json").read_text(encoding="utf-8"))
    assert saved == measured
    assert saved["accuracy_per_class"]["none here"] is None
    assert saved["auc_per_class"]["none here"] is None
    assert saved["number_of_test_images_per_class"]["none here"] == 0
    assert saved["class_averaged_accuracy"] == np.mean([saved["accuracy_per_class"][c] for c in "ab"])
    assert "Without test images, so left out: ‘none here’" in written[-1].read_text(encoding="utf-8")
    assert "probability of none here" in rows(layout.evaluation.folder / "predictions.csv")[0]
    assert not {"accuracy_per_class.none here", "auc_per_class.none here"} & set(outputs.scalars(measured))


LABELS = {
    "markup": ["<b>bold</b>", "R&D"],
    "mathematics": ["$x_1$", "100% \\alpha"],
    "commas and quotes": ['a, "b"', "c'd;e"],
    "other writing": ["日本 語", "עברית"],
    "underscore first": ["_hidden", "-minus"],
}


@pytest.mark.parametrize("names", LABELS.values(), ids=LABELS)
def test_labels_that_need_escaping(layout: Layout, names: list[str]) -> None:
    tested = answers(layout, names)
    _, written = evaluated(layout, tested)
    predictions = rows(layout.evaluation.folder / "predictions.csv")
    assert {row["label"] for row in predictions} == set(names)
    for row in predictions:
        shares = [float(row[f"probability of {name}"]) for name in names]
        assert sum(shares) == pytest.approx(1, abs=2e-6)
        assert row["predicted"] == names[int(np.argmax(shares))]
    report = written[-1].read_text(encoding="utf-8")
    assert "<b>bold</b>" not in report
    assert all(written[i].stat().st_size > 5000 for i in (2, 3)), "the pictures were drawn"


def test_damaged_image_leaves_a_gap_in_the_report(layout: Layout) -> None:
    tested = answers(layout, ["a", "b"], mistakes=1)
    (layout.images / tested.examples[0].path).unlink()
    _, written = evaluated(layout, tested)
    assert "does not exist" in written[-1].read_text(encoding="utf-8")


def test_stopped_evaluation_is_not_taken_for_finished(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    tested = answers(layout, ["a", "b"])
    evaluated(layout, tested)

    def stop(*_: object, **__: object) -> Callable[..., None]:
        raise KeyboardInterrupt

    monkeypatch.setattr(outputs.report, "write_report", stop)
    with pytest.raises(KeyboardInterrupt):
        evaluated(layout, tested)
    assert not layout.evaluation.is_current()


def test_scalars_are_the_single_numbers(layout: Layout) -> None:
    measured, _ = evaluated(layout, answers(layout, ["a", "b.c"], without=0))
    found = outputs.scalars(measured)
    assert found["overall_accuracy"] == measured["overall_accuracy"]
    assert found["accuracy_per_class.b.c"] == measured["accuracy_per_class"]["b.c"]
    assert found["number_of_test_images_per_class.a"] == 0
    assert "accuracy_per_class.a" not in found, "what is unknown is no number"
    assert not any(name.startswith(("intervals", "interval_method", "reliability")) for name in found)
    assert not any("confusion" in name or "labels" in name for name in found)
    assert {type(value) for value in found.values()} == {float}
    assert np.isfinite(list(found.values())).all()
