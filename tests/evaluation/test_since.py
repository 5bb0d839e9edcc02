"""What has changed since the evaluation before: mended labels and a better classifier, told apart."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from libraries.base.layout import Layout
from libraries.data.annotations import Annotations
from libraries.data.dataset import Example
from libraries.evaluation import testing
from libraries.evaluation.since import Since, compare
from tests.conftest import run_main, small_run
from tests.widgets.conftest import evaluated

__all__ = ["evaluated"]

NAMES = ["cat", "dog"]


def answered(labels: list[int], answers: list[int], *, groups: list[str] | None = None) -> testing.Tested:
    paths = [f"{NAMES[label]}/{i}.jpg" for i, label in enumerate(labels)]
    of = groups or paths
    examples = [Example(p, p.split("/")[0], "test", g, 1, 1, 1, p) for p, g in zip(paths, of, strict=True)]
    probabilities = np.eye(2, dtype=np.float32)[answers]
    empty = np.zeros((len(labels), 1), np.float32)
    return testing.Tested(NAMES, examples, np.array(labels), list(empty), probabilities, probabilities, [])


def test_labels_and_classifier_are_told_apart() -> None:
    labels = [0] * 50 + [1] * 50
    now = answered(labels, [0] * 45 + [1] * 55)  # five cats are taken for dogs
    then = {e.path: (e.label, "cat" if i < 40 else "dog") for i, e in enumerate(now.examples)}
    for i in (60, 61):  # two dogs were called cats
        then[f"dog/{i}.jpg"] = ("cat", "dog")
    found = compare(then, now)
    assert found is not None
    assert (found.images, found.relabelled) == (100, 2)
    # then 40 cats and 48 dogs were right; by today's labels 40 and 50; now 45 and 50 are
    assert found.before == pytest.approx(0.88)
    assert found.by_labels == pytest.approx(0.02)
    assert found.by_classifier == pytest.approx(0.05)
    assert found.after == pytest.approx(0.95)
    gain = np.zeros(100)
    gain[40:45] = 1
    assert found.margin == pytest.approx(1.96 * gain.std() / 10)
    assert found.sentence() == (
        "On the 100 test images of this and the previous evaluation, the accuracy was 88.0%, and is 95.0%: "
        "+2.0 points by 2 new labels among them, +5.0 by the classifier (+0.7 to +9.3)."
    )
    told = replace(found, relabelled=0, by_labels=0.0).sentence(of="", subject="that of an SVM")
    assert told == (
        "On the 100 test images, that of an SVM was 88.0%, and is 93.0%: +5.0 points by the classifier (+0.7 to +9.3)."
    )
    assert replace(found, by_classifier=0.0, margin=0.0).sentence().endswith("among them, nothing by the classifier.")


def test_a_class_that_lost_is_named_with_what_it_is_taken_for() -> None:
    labels = [0] * 60 + [1] * 60
    now = answered(labels, [0] * 40 + [1] * 20 + [1] * 60)  # twenty cats are taken for dogs
    then = {e.path: (e.label, e.label) for e in now.examples}
    found = compare(then, now)
    assert found is not None
    assert [(loss.label, loss.then, loss.taken_for) for loss in found.losses] == [("cat", 1.0, "dog")]
    assert found.sentence().endswith(
        " ‘cat’ lost: 100.0% of its images were right then, 66.7% are now; most of the others are taken for ‘dog’."
    )
    few = answered(labels, [0] * 58 + [1] * 2 + [1] * 60)  # two may be chance
    found = compare({e.path: (e.label, e.label) for e in few.examples}, few)
    assert found is not None and found.losses == ()


def test_images_of_a_group_count_as_one() -> None:
    labels = [0] * 50 + [1] * 50
    now = answered(labels, [0] * 45 + [1] * 55, groups=["g"] * 10 + [str(i) for i in range(90)])
    then = {e.path: (e.label, "dog" if i < 10 else e.label) for i, e in enumerate(now.examples)}
    alone = compare(then, answered(labels, [0] * 45 + [1] * 55))
    together = compare(then, now)
    assert alone is not None and together is not None
    assert together.by_classifier == alone.by_classifier
    assert together.margin > 2 * alone.margin


def test_where_there_is_nothing_to_tell_nothing_is_said() -> None:
    now = answered([0] * 30 + [1] * 30, [0] * 60)
    same = {e.path: (e.label, "cat") for e in now.examples}
    assert compare(same, now) is None
    few = {e.path: (e.label, "dog") for e in now.examples[:20]}
    assert compare(few, now) is None
    assert "which may be chance" in Since(100, 0, 0.9, 0.0, 0.01, 0.02).sentence()


def test_script_5_says_it(
    evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libraries.evaluation.since.FEWEST", 5)
    shutil.copytree(evaluated, tmp_path / "data")
    parameters = small_run(tmp_path / "data", svm_CVals=(0.01,), svm_boL2Normalize=True)
    layout = Layout(parameters)
    run_main("5_evaluate", parameters)
    assert "previous evaluation" not in capsys.readouterr().out, "nothing has changed"
    lines = (layout.evaluation.folder / "predictions.csv").read_text(encoding="utf-8").splitlines()
    path, label = lines[1].split(",")[:2]
    Annotations(layout.images).relabel([path], next(name for name in ("blobs", "checks") if name != label))
    for step in ("1_prepareData", "3_runDNN", "4_trainSVM", "5_evaluate"):
        run_main(step, parameters)
    assert "points by a new label among them" in " ".join(capsys.readouterr().out.split())
    assert "points by a new label among them" in (layout.evaluation.folder / "report.html").read_text(encoding="utf-8")
    (layout.evaluation.folder / "predictions.csv").write_bytes(b"\xff\x00")
    run_main("5_evaluate", parameters)
    assert "previous evaluation" not in capsys.readouterr().out, "what is damaged is not compared with"
