"""`5_evaluate --release` and `--against`, as processes: nothing is overwritten, and worse ends with the status 3."""

import csv
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from libraries.base.errors import InputError, StorageError
from libraries.base.layout import Layout
from libraries.classifier.bundle import Classifier
from libraries.evaluation.release import find_release, keep_release
from libraries.history.tracking import local_store
from PARAMETERS import Parameters
from tests.conftest import files, hashes
from tests.scripts.conftest import FINISHED
from tests.scripts.test_disk_full import disk

Stage = Callable[[str], Callable[..., Parameters]]
Process = Callable[..., Any]


def test_a_release_is_kept_and_compared_with(stage: Stage, main: Callable[..., None], process: Process) -> None:
    parameters = stage(FINISHED)
    p = parameters()
    assert process("5_evaluate", p, "--release", "spring").returncode == 0
    layout = Layout(p)
    kept = p.rootDir / "releases" / "textures" / "spring"
    assert files(kept) == {
        *(f"model/{name}" for name in files(layout.bundle.folder)),
        *("predictions.csv", "report.html", "release.json", "training_images.txt"),
    }
    assert Classifier(kept / "model").labels == ["blobs", "checks", "stripes"]
    with (layout.examples.folder / "examples.csv").open(encoding="utf-8", newline="") as file:
        training = {row["sha256"] for row in csv.DictReader(file) if row["split"] == "train"}
    assert {*(kept / "training_images.txt").read_text().split()} == training
    before = hashes(kept)

    same = process("5_evaluate", p, "--against", "spring")
    assert same.returncode == 0 and same.stderr == "", same.stderr
    assert "0 answers are different" in same.stdout
    again = process("5_evaluate", p, "--release", "spring")
    assert again.returncode == 0, "the same classifier may be released again"

    other = parameters(svm_CVals=(1e-4,))
    main("4_trainSVM", other)
    refused = process("5_evaluate", other, "--release", "spring")
    assert refused.returncode == 1 and "is another bundle" in refused.stderr
    assert hashes(kept) == before
    wrong = process("5_evaluate", other, "--release", "v1")
    assert wrong.returncode == 2 and "cannot be the name of a release" in wrong.stderr
    missing = process("5_evaluate", other, "--against", "summer")
    assert missing.returncode == 1 and "there are spring" in missing.stderr


def test_worse_is_an_exit_status(stage: Stage, main: Callable[..., None], process: Process) -> None:
    """Of a release whose answers are right, against a classifier whose labels are shuffled."""
    parameters = stage("1_prepareData")
    p = parameters(ratioTrainTest=0.3)  # enough test images
    for step in ("1_prepareData", "2_refineDNN", "3_runDNN", "4_trainSVM"):
        main(step, p)
    assert process("5_evaluate", p, "--release", "right").returncode == 0
    images = p.rootDir / "images" / "textures"
    mixed = p.rootDir / "mixed"
    shutil.copytree(images, mixed)
    images.unlink()
    mixed.rename(images)
    training = [row for row in rows(p) if row["split"] == "train"]
    for row in training:  # the labels of training images go round
        label = {"blobs": "checks", "checks": "stripes", "stripes": "blobs"}[row["label"]]
        target = images / label / f"moved-{row['path'].replace('/', '-')}"
        (images / row["path"]).rename(target)
    tested = [row["path"] for row in rows(p) if row["split"] == "test"]
    (images / "dedicatedTestImages.tsv").write_text("".join(f"{path}\n" for path in tested))
    for step in ("1_prepareData", "2_refineDNN", "3_runDNN", "4_trainSVM"):
        main(step, p)
    done = process("5_evaluate", p, "--against", "right", "--release", "wrong")
    assert done.returncode == 3 and done.stderr == "", done.stderr
    assert "Not released as 'wrong', as it is worse than 'right'" in done.stdout
    assert not (p.rootDir / "releases" / "textures" / "wrong").exists() and Layout(p).evaluation.is_current()
    done = process("5_evaluate", p, "--against", "right")
    assert done.returncode == 3 and done.stderr == "", done.stderr
    assert "Worse than ‘right’." in done.stdout
    with (Layout(p).proc / "against_right.csv").open(encoding="utf-8", newline="") as file:
        flips = list(csv.DictReader(file))
    assert {"broken"} <= {flip["change"] for flip in flips}
    page = (Layout(p).proc / "against_right.html").read_text(encoding="utf-8")
    assert "<h1>Worse</h1>" in page and flips[0]["path"] in page and "data:image/jpeg" in page


def test_a_full_disk_and_a_kill_leave_no_half_release(stage: Stage, main: Callable[..., None]) -> None:
    p = stage(FINISHED)()
    layout, releases = Layout(p), p.rootDir / "releases" / "textures"
    with disk() as flushed:
        keep_release(layout, "whole", [])
    assert len(flushed) > 5, "all its files"
    for room in (0, 3, len(flushed) - 1):
        with disk(room_for=room), pytest.raises(StorageError, match="the disk is full"):
            keep_release(layout, "spring", [])
        assert [path.name for path in releases.iterdir()] == ["whole"]
    killed = subprocess.run([sys.executable, "-c", KILLED, str(p.rootDir)], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(list(releases.iterdir())) == 2, "what it had copied"
    with pytest.raises(InputError, match=r"there is no release 'spring' in .*: there are whole$"):
        find_release(layout, "spring")
    keep_release(layout, "spring", [])
    assert sorted(path.name for path in releases.iterdir()) == ["spring", "whole"]
    assert hashes(releases / "spring" / "model") == hashes(releases / "whole" / "model")


KILLED = """
import os, shutil, signal, sys
from pathlib import Path
from libraries.base.layout import Layout
from libraries.evaluation import release
from tests.conftest import small_run

copy, copied = release._copy, []

def killed(source, target):
    copy(source, target)
    copied.append(target)
    if len(copied) == 3:
        os.kill(os.getpid(), signal.SIGKILL)

release._copy = killed
release.keep_release(Layout(small_run(Path(sys.argv[1]))), "spring", [])
"""


def rows(p: Parameters) -> list[dict[str, str]]:
    with (Layout(p).examples.folder / "examples.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.filterwarnings("ignore")  # of MLflow
def test_a_release_has_an_alias_in_the_registry(stage: Stage, main: Callable[..., None]) -> None:
    from mlflow import MlflowClient

    from libraries.history.reading import recent_runs

    p = stage(FINISHED)(runHistory=True)
    main("5_evaluate", p, release="spring")
    store = local_store(p.rootDir)
    recent_runs(store, experiment="textures", step="5_evaluate", count=1)  # enters what waits
    version = MlflowClient(tracking_uri=store).get_model_version_by_alias("textures_svm", "spring")
    assert (Path(version.source.removeprefix("file://")) / "artifacts" / "bundle" / "model.json").exists()
