"""Run history in MLflow, and what happens when its server cannot be reached."""

import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from libraries.base.errors import StorageError
from libraries.base.storage import atomic, write_text
from libraries.history import mlflow_model, reading, tracking
from PARAMETERS import Parameters

pytestmark = pytest.mark.filterwarnings("ignore")  # warnings of MLflow's own dependencies are not ours to fix


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However short a run is, it does not wait."""
    monkeypatch.setattr(tracking, "QUICK", 0.0)


@pytest.fixture(scope="module")
def empty_history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database that MLflow has made, which takes it seconds."""
    folder = tmp_path_factory.mktemp("history")
    assert reading.newest_models(tracking.local_store(folder)) == {}
    return folder / "mlflow.db"


@pytest.fixture
def with_history(parameters: Callable[..., Parameters], empty_history: Path) -> Callable[..., Parameters]:
    """Parameters of a small run whose DATA_DIR has an empty run history."""
    shutil.copyfile(empty_history, parameters().rootDir / "mlflow.db")
    return parameters


@pytest.mark.usefixtures("at_once")
def test_a_run_is_logged_with_parameters_metrics_tags_and_files(
    with_history: Callable[..., Parameters], tmp_path: Path
) -> None:
    picture = tmp_path / "roc.png"
    picture.write_bytes(b"picture")
    p = with_history(runHistory=True, trackingUri=None)
    with tracking.run("5_evaluate", p) as record:
        record.metrics.update({"overall_accuracy": 0.875, "accuracy_per_class.größe & co": 0.5})
        record.tags["data"] = "abc"
        record.files.append(picture)
    (found,) = reading.recent_runs(tracking.local_store(p.rootDir), experiment="textures", step="5_evaluate", count=5)
    assert found["metrics"] == {"overall_accuracy": 0.875, "accuracy_per_class.gr__e _ co": 0.5}
    assert found["params"]["classifier"] == "svm"
    assert "trackingUri" not in found["params"]
    assert found["tags"]["data"] == "abc"
    assert found["tags"]["code"] not in ("", "unknown")
    assert [f.read_bytes() for f in (p.rootDir / "mlruns").rglob("roc.png")] == [b"picture"]
    assert reading.recent_runs(tracking.local_store(p.rootDir), experiment="textures", step="4_trainSVM", count=5) == []


@pytest.mark.usefixtures("models")
def test_unreachable_server_is_a_warning_and_the_run_goes_to_the_file(
    with_history: Callable[..., Parameters], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    p = with_history(runHistory=True, trackingUri="http://user:secret@127.0.0.1:9/")
    with caplog.at_level(logging.WARNING), tracking.run("1_prepareData", p) as record:
        record.metrics["images"] = 3
        record.bundle = a_bundle(tmp_path)
    (warning,) = [r.getMessage() for r in caplog.records if r.name == "libraries.history.tracking"]
    assert "run history: the server cannot be reached" in warning
    assert "secret" not in warning
    store = tracking.local_store(p.rootDir)
    assert len(reading.recent_runs(store, experiment="textures", step="1_prepareData", count=5)) == 1
    assert reading.newest_models(store) == {"textures_svm": record.model_uri}


def test_earlier_runs_are_those_of_the_data_set_the_newest_first(
    with_history: Callable[..., Parameters], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Entered or waiting."""
    p = with_history(runHistory=True)
    for accuracy, quick in ((0.5, 0.0), (0.75, 60.0)):
        monkeypatch.setattr(tracking, "QUICK", quick)
        with tracking.run("5_evaluate", p) as record:
            record.metrics["overall_accuracy"] = accuracy
    assert len(list((p.rootDir / "runs.waiting").iterdir())) == 1
    found = reading.earlier_runs("5_evaluate", p, count=5)
    assert [run["metrics"]["overall_accuracy"] for run in found] == [0.75, 0.5]
    assert len(reading.earlier_runs("5_evaluate", p, count=1)) == 1
    assert reading.earlier_runs("5_evaluate", with_history(runHistory=True, datasetName="other"), count=5) == []
    assert reading.earlier_runs("5_evaluate", with_history(runHistory=False), count=5) == []


def test_earlier_runs_of_an_unreachable_server_are_none(
    parameters: Callable[..., Parameters], caplog: pytest.LogCaptureFixture
) -> None:
    p = parameters(runHistory=True, trackingUri="http://user:secret@127.0.0.1:9/")
    assert reading.earlier_runs("5_evaluate", p, count=5) == []
    (warning,) = [r.getMessage() for r in caplog.records if r.name == "libraries.history.reading"]
    assert "earlier runs cannot be read" in warning and "secret" not in warning


def test_nothing_is_logged_when_switched_off_or_when_the_step_fails(parameters: Callable[..., Parameters]) -> None:
    p = parameters()
    with tracking.run("1_prepareData", p):
        pass
    with pytest.raises(ValueError, match="boom"), tracking.run("1_prepareData", parameters(runHistory=True)):
        raise ValueError("boom")
    assert not (p.rootDir / "mlflow.db").exists()


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models without code, which would take a second each."""

    def save(path: Path, bundle: Path, *, mlflow_model: Any) -> None:
        path.mkdir()
        mlflow_model.save(path / "MLmodel")

    monkeypatch.setattr(mlflow_model, "save", save)


def a_bundle(folder: Path, content: str = "1") -> Path:
    bundle = folder / "model_svm"
    bundle.mkdir(exist_ok=True)
    write_text(bundle / "model.json", content)  # as bundles are written: the file is replaced, never changed
    return bundle


@pytest.mark.usefixtures("at_once", "models")
def test_model_is_stored_once_and_again_when_it_changes_or_its_files_are_gone(
    with_history: Callable[..., Parameters], tmp_path: Path
) -> None:
    p = with_history(runHistory=True, datasetName="textures 1.0")

    def uri_of(content: str) -> str | None:
        with tracking.run("5_evaluate", p) as record:
            record.bundle = a_bundle(tmp_path, content)
        return record.model_uri

    first, second, third, changed = (uri_of(content) for content in ("1", "1", "1", "2"))
    assert first == second == third != changed
    store = tracking.local_store(p.rootDir)
    assert reading.newest_models(store) == {"textures_1_0_svm": changed}
    shutil.rmtree(p.rootDir / "mlruns")
    assert reading.newest_models(store) == {}
    assert uri_of("1") not in (first, changed, None)


@pytest.mark.usefixtures("models")
def test_waiting_runs_keep_the_bundle_that_they_had(with_history: Callable[..., Parameters], tmp_path: Path) -> None:
    p = with_history(runHistory=True)
    for content in ("1", "1", "2"):
        with tracking.run("5_evaluate", p) as record:
            record.bundle = a_bundle(tmp_path, content)
    shutil.rmtree(tmp_path / "model_svm")
    kept = sorted((p.rootDir / "runs.waiting").glob("*/bundle/model.json"))
    assert [path.read_text() for path in kept] == ["1", "1", "2"]
    assert tracking.enter_waiting(p.rootDir) == 3
    assert len(list((p.rootDir / "mlruns").glob("models/*"))) == 2, "the same bundle is kept once"


@pytest.mark.usefixtures("at_once")
def test_model_that_cannot_be_stored_is_a_warning_and_is_tried_again(
    with_history: Callable[..., Parameters],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    p = with_history(runHistory=True)
    full = Mock(side_effect=OSError("No space left on device"))
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(mlflow_model, "save", full)
        with tracking.run("5_evaluate", p) as record:
            record.metrics["overall_accuracy"] = 0.5
            record.bundle = a_bundle(tmp_path)
    (warning,) = [r.getMessage() for r in caplog.records if r.name == "libraries.history.tracking"]
    assert warning == "run history: the model could not be stored (OSError)"
    assert record.model_uri is None
    (found,) = reading.recent_runs(tracking.local_store(p.rootDir), experiment="textures", step="5_evaluate", count=5)
    assert found["metrics"] == {"overall_accuracy": 0.5}
    with tracking.run("5_evaluate", p) as record:
        record.bundle = a_bundle(tmp_path)
    assert record.model_uri is not None


def test_code_version_falls_back_to_the_installed_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_git(*args: object, **options: object) -> None:
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", no_git)
    assert tracking.code_version()[0].isdigit()


@pytest.mark.usefixtures("at_once")
def test_a_history_that_is_no_file_is_told_without_mlflow_which_would_retry_for_minutes(
    parameters: Callable[..., Parameters], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlflow.MlflowClient", None)
    p = parameters(runHistory=True)
    (p.rootDir / "mlflow.db").mkdir()
    with tracking.run("3_runDNN", p):
        pass
    assert "this run is not in the history (OperationalError" in caplog.text
    with pytest.raises(StorageError, match=r"mlflow\.db, cannot be read \(OperationalError\): move it away"):
        reading.recent_runs(tracking.local_store(p.rootDir), experiment="textures", step="3_runDNN", count=3)


@pytest.mark.usefixtures("at_once")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # within MLflow
def test_a_damaged_history_is_a_warning_and_named_where_it_is_asked_for(
    parameters: Callable[..., Parameters], caplog: pytest.LogCaptureFixture
) -> None:
    p = parameters(runHistory=True)
    garbage = b"\xff" * 5000
    (p.rootDir / "mlflow.db").write_bytes(garbage)
    with tracking.run("3_runDNN", p):
        pass
    assert "mlflow.db in DATA_DIR cannot be written, this run is not in the history" in caplog.text
    assert reading.earlier_runs("3_runDNN", p, count=3) == []
    with pytest.raises(StorageError, match=r"the run history, .*/mlflow\.db, cannot be read \(.*\): move it away"):
        reading.recent_runs(tracking.local_store(p.rootDir), experiment="textures", step="3_runDNN", count=3)
    assert (p.rootDir / "mlflow.db").read_bytes() == garbage


def runs_of(p: Parameters, step: str) -> list[dict[str, Any]]:
    return reading.recent_runs(tracking.local_store(p.rootDir), experiment="textures", step=step, count=99)


def leave_one(p: Parameters, tmp_path: Path, content: bytes = b"first") -> None:
    table = tmp_path / "sweep.csv"
    with atomic(table) as file:  # as all files are written: it is replaced, never changed
        file.write(content)
    with tracking.run("4_trainSVM", p) as record:
        record.metrics["validation_accuracy"] = 0.5
        record.tags["data"] = "abc"
        record.files.append(table)


def test_a_short_run_waits_without_mlflow(parameters: Callable[..., Parameters], tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from PARAMETERS import Parameters\n"
        "from libraries.history import tracking\n"
        "with tracking.run('1_prepareData', Parameters.load({'rootDir': Path(sys.argv[1])})): pass\n"
        "assert 'mlflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert len(list((tmp_path / "runs.waiting").iterdir())) == 1 and not (tmp_path / "mlflow.db").exists()


def test_waiting_runs_are_entered_whole_with_what_their_files_were(
    parameters: Callable[..., Parameters], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = parameters(runHistory=True)
    leave_one(p, tmp_path, b"first")
    leave_one(p, tmp_path, b"second")
    monkeypatch.setattr(tracking, "QUICK", 0.0)
    with tracking.run("5_evaluate", p):
        pass
    found = runs_of(p, "4_trainSVM")
    assert len(found) == 2 and len(runs_of(p, "5_evaluate")) == 1
    assert found[0]["start"] >= found[1]["start"] and found[0]["metrics"] == {"validation_accuracy": 0.5}
    assert found[0]["tags"]["data"] == "abc" and found[0]["params"]["svm_folds"] == "5"
    assert sorted(f.read_bytes() for f in (p.rootDir / "mlruns").rglob("sweep.csv")) == [b"first", b"second"]
    assert list((p.rootDir / "runs.waiting").iterdir()) == []


def test_whoever_reads_the_history_finds_the_waiting_runs(
    parameters: Callable[..., Parameters], tmp_path: Path
) -> None:
    p = parameters(runHistory=True)
    leave_one(p, tmp_path)
    assert len(runs_of(p, "4_trainSVM")) == 1
    leave_one(p, tmp_path)
    assert len(reading.earlier_runs("4_trainSVM", p, count=9)) == 2
    assert len(list((p.rootDir / "runs.waiting").iterdir())) == 1, "it goes on waiting"
    leave_one(p, tmp_path)
    subprocess.run([sys.executable, "-m", "libraries.history", str(p.rootDir)], check=True)
    assert list((p.rootDir / "runs.waiting").iterdir()) == []
    assert len(runs_of(p, "4_trainSVM")) == 3


def test_a_run_whose_entering_was_killed_is_entered_once(
    parameters: Callable[..., Parameters], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = parameters(runHistory=True)
    waiting = p.rootDir / "runs.waiting"
    for killed_at in ("log_batch", "log_artifact", "set_terminated", "after the end"):
        leave_one(p, tmp_path)
        (folder,) = waiting.iterdir()
        name = folder.name
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            at_end = killed_at == "after the end"
            target = "libraries.history.tracking.address_of" if at_end else f"mlflow.MlflowClient.{killed_at}"
            patch.setattr(target, Mock(side_effect=KeyboardInterrupt))
            if at_end:
                patch.setattr("libraries.history.records.shutil.rmtree", Mock(side_effect=KeyboardInterrupt))
            tracking.enter_waiting(p.rootDir)
        (folder,) = waiting.iterdir()
        assert tracking.enter_waiting(p.rootDir) == 0, "another process may be entering it"
        folder.rename(waiting / f"{name}.taken-1")  # long ago
        tracking.enter_waiting(p.rootDir)
        assert list(waiting.iterdir()) == []
    found = runs_of(p, "4_trainSVM")
    assert len(found) == len({run["tags"]["id"] for run in found}) == 4


@pytest.mark.parametrize("damage", ["no file", "cut off", "a list", "another type", "foreign file"])
def test_a_damaged_waiting_run_stops_nothing(
    parameters: Callable[..., Parameters], tmp_path: Path, damage: str
) -> None:
    p = parameters(runHistory=True)
    leave_one(p, tmp_path)
    (folder,) = (p.rootDir / "runs.waiting").iterdir()
    stored = folder / "run.json"
    match damage:
        case "no file":
            stored.unlink()
        case "cut off":
            stored.write_text(stored.read_text()[:40])
        case "a list":
            stored.write_text("[]")
        case "another type":
            stored.write_text(stored.read_text().replace('"started": ', '"started": "x", "was": '))
        case "foreign file":
            (folder.parent / "0 my notes").write_text("mine")
    leave_one(p, tmp_path)
    assert tracking.enter_waiting(p.rootDir) == (2 if damage == "foreign file" else 1)
    assert len(list(folder.parent.iterdir())) == 1, "what cannot be read is not deleted"


def test_a_run_that_cannot_wait_is_a_warning(
    parameters: Callable[..., Parameters], caplog: pytest.LogCaptureFixture
) -> None:
    p = parameters(runHistory=True)
    (p.rootDir / "runs.waiting").write_text("a file")
    with tracking.run("1_prepareData", p):
        pass
    assert "this run is not in the history" in caplog.text


def test_a_run_whose_files_cannot_be_kept_leaves_nothing(parameters: Callable[..., Parameters], tmp_path: Path) -> None:
    p = parameters(runHistory=True)
    with tracking.run("4_trainSVM", p) as record:
        record.files.append(tmp_path / "is missing")
    assert list((p.rootDir / "runs.waiting").iterdir()) == []


def test_the_file_is_read_as_mlflow_reads_it(with_history: Callable[..., Parameters]) -> None:
    """Its tables are MLflow's; a version that changes them must be noticed here."""
    p = with_history(runHistory=True)
    for step in ("4_trainSVM", "5_evaluate", "5_evaluate", "5_evaluate"):
        with tracking.run(step, p) as record:
            record.metrics.update(accuracy=0.5, nothing=float("inf"))
            record.tags["data"] = "abc"
    tracking.enter_waiting(p.rootDir)
    store = tracking.local_store(p.rootDir)
    which: dict[str, Any] = {"experiment": "textures", "step": "5_evaluate", "count": 2}
    ours, theirs = reading._entered(p.rootDir, **which), reading._on_server(store, **which)
    assert len(ours) == 2 and ours == theirs


def test_many_waiting_runs_are_entered(
    with_history: Callable[..., Parameters], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "MOST_WAITING", 2)
    p = with_history(runHistory=True)
    for expected in (1, 2, 0):
        leave_one(p, tmp_path)
        assert len(list((p.rootDir / "runs.waiting").iterdir())) == expected
    assert len(runs_of(p, "4_trainSVM")) == 3


@pytest.mark.parametrize("at_once", [True, False])
def test_mlflow_is_imported_without_its_telemetry(tmp_path: Path, at_once: bool) -> None:
    code = (
        "import sys, os; from pathlib import Path; from PARAMETERS import Parameters\n"
        "from libraries.history import tracking; found = []; tracking.QUICK = float(sys.argv[2])\n"
        "class Watch:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'mlflow': found.append(os.environ.get('MLFLOW_DISABLE_TELEMETRY'))\n"
        "sys.meta_path.insert(0, Watch()); p = Parameters.load({'rootDir': Path(sys.argv[1])})\n"
        "with tracking.run('5_evaluate', p): pass\n"
        "tracking.enter_waiting(p.rootDir)\n"
        "assert found == ['true'], found"
    )
    command = [sys.executable, "-c", code, str(tmp_path), "0" if at_once else "60"]
    subprocess.run(command, check=True, capture_output=True)
