"""`5_evaluate --folds`: every image is tested once; a stopped training of a fold's network goes on."""

import csv
import json
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libraries.base.layout import Layout
from libraries.network.embedding_store import read_features
from libraries.review import making
from PARAMETERS import Parameters
from tests.conftest import command_line, files, hashes
from tests.scripts.conftest import FINISHED
from tests.scripts.test_pipeline import EVALUATION, SMALL, signalled

Stage = Callable[[str], Callable[..., Parameters]]
FILES = {*EVALUATION, "folds.csv"}


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def check(p: Parameters, *, folds: int) -> None:
    """The folder holds the answers for all images, and its figures are theirs."""
    layout = Layout(p)
    folder = layout.crossvalidation.folder
    assert files(folder) == FILES and layout.crossvalidation.is_current()
    rows = table(folder / "predictions.csv")
    images = {row["path"]: row["label"] for row in table(layout.examples.folder / "examples.csv")}
    assert {row["path"]: row["label"] for row in rows} == images and len(rows) == 48
    metrics = json.loads((folder / "metrics.json").read_text())
    right = sum(row["label"] == row["predicted"] for row in rows)
    assert metrics["overall_accuracy"] == right / 48 and metrics["number_of_test_images"] == 48
    assert metrics["folds"]["number"] == folds == len(table(folder / "folds.csv"))
    by_fold = Counter(row["fold"] for row in rows if row["label"] == row["predicted"])
    for row in table(folder / "folds.csv"):
        assert float(row["accuracy"]) == pytest.approx(by_fold[row["fold"]] / int(row["images"]))
    report = (folder / "report.html").read_text(encoding="utf-8")
    assert f"tested once, by one of {folds} classifiers that had not seen it" in report


def test_every_image_is_tested_by_an_svm(stage: Stage, process: Callable[..., Any]) -> None:
    p = stage(FINISHED)()
    before = hashes(p.rootDir)
    done = process("5_evaluate", p, "--folds", "4")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert "Each image was tested once, by one of 4 classifiers that had not seen it" in " ".join(done.stdout.split())
    check(p, folds=4)
    after = hashes(p.rootDir)
    assert {name: after[name] for name in before} == before, "nothing else has changed"
    wrong = process("5_evaluate", p, "--folds", "1")
    assert wrong.returncode == 1 and wrong.stderr == "5_evaluate.py: --folds 1: 2 to 50 are possible\n"


@pytest.mark.parametrize("classifier", ["dnn", "svmDnnRefined"])
def test_a_network_is_refined_for_each_fold(stage: Stage, main: Callable[..., None], classifier: str) -> None:
    p = stage(FINISHED)(classifier=classifier, rf_maxEpochs=2, **SMALL)
    for step in ("2_refineDNN", "3_runDNN"):
        main(step, p)
    folder = Layout(p).crossvalidation.folder

    def second_fold_is_trained() -> bool:
        return (folder / "fold-2" / "checkpoint.safetensors").exists()

    command = [*command_line("5_evaluate", p), "--folds", "2"]
    status, error = signalled(command, signal.SIGKILL, when=second_fold_is_trained)
    assert status == -signal.SIGKILL, error
    first = (folder / "fold-1" / "model.json").stat().st_mtime_ns
    seen: list[str] = []
    original = Path.unlink

    def watched(path: Path, missing_ok: bool = False) -> None:
        seen.append(str(path))
        original(path, missing_ok=missing_ok)

    judged: list[np.ndarray] = []
    evidence = making.evidence

    def heard(*given: Any, **options: Any) -> Any:
        judged.append(options["judged"])
        return evidence(*given, **options)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Path, "unlink", watched)
        patched.setattr(making, "evidence", heard)
        main("5_evaluate", p, folds=2)
    assert first and not any(path.endswith("fold-1/model.json") for path in seen), "the first is not trained again"
    (found,) = judged
    answered = {row["path"]: row for row in table(folder / "predictions.csv")}
    for path, row in zip(read_features(Layout(p).features.folder).path, found, strict=True):
        expected = [answered[path][f"probability of {name}"] for name in ("blobs", "checks", "stripes")]
        np.testing.assert_allclose(row, np.array(expected, float), atol=1e-6)
    check(p, folds=2)
