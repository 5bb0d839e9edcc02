"""The bundle as an MLflow model: kept by script 5, loaded again, and served by the real MLflow server."""

import base64
import contextlib
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from libraries.base.errors import ServiceError
from libraries.base.layout import Layout
from libraries.classifier.bundle import Classifier, Prediction
from libraries.history import tracking
from libraries.history.mlflow_model import installed
from libraries.service.base64_json import COLUMN
from libraries.service.calling.client import Client
from PARAMETERS import Parameters
from tests.conftest import files, run_main, small_run
from tests.service.processes import ServerProcess

pytestmark = pytest.mark.filterwarnings("ignore")  # warnings of MLflow's own dependencies


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> Parameters:
    """Parameters of a run whose evaluation is in the run history, twice."""
    root = tmp_path_factory.mktemp("mlflow") / "data"
    shutil.copytree(bundle.parents[2], root, symlinks=True)
    parameters = small_run(root, svm_CVals=(0.01,), svm_boL2Normalize=True, runHistory=True)
    run_main("5_evaluate", parameters)
    run_main("5_evaluate", parameters)
    assert not (root / "mlflow.db").exists(), "it waits"
    assert tracking.enter_waiting(root) == 2
    return parameters


@pytest.fixture(scope="module")
def stored(evaluated: Parameters) -> Path:
    """The folder of the model that MLflow has stored."""
    (found,) = (evaluated.rootDir / "mlruns" / "models").glob("*/artifacts")
    return found


@pytest.fixture(scope="module")
def expected(evaluated: Parameters) -> dict[Path, Prediction]:
    """The bundle's own predictions for a few images of every class."""
    layout = Layout(evaluated)
    paths = [path for label in layout.images.iterdir() for path in sorted(label.iterdir())[:3]]
    predictions = dict(Classifier(layout.bundle.folder).predict_files(paths))
    assert len({p.label for p in predictions.values() if isinstance(p, Prediction)}) == 3
    return predictions  # type: ignore[return-value]


def encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def assert_equal(answer: dict[str, Any], prediction: Prediction) -> None:
    assert answer["label"] == prediction.label == answer["Id2Labels"][str(int(np.argmax(answer["allScores"])))]
    assert answer["score"] == max(answer["allScores"])
    np.testing.assert_allclose(answer["allScores"], prediction.probabilities, rtol=0, atol=1e-6)
    assert answer["executionTimeMs"] > 0


def test_script_5_stores_the_bundle_once_and_both_runs_name_it(evaluated: Parameters, stored: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking.local_store(evaluated.rootDir))
    experiment = client.get_experiment_by_name("textures")
    (model,) = client.search_logged_models([experiment.experiment_id])
    assert model.name == "textures_svm"
    assert str(model.status) == "READY"
    runs = client.search_runs([experiment.experiment_id])
    assert [[m.model_id for m in run.outputs.model_outputs] for run in runs] == [[model.model_id]] * 2
    assert {m.key: m.value for m in model.metrics}.keys() == runs[0].data.metrics.keys()


def test_stored_model_holds_bundle_code_and_packages_but_no_pickle(evaluated: Parameters, stored: Path) -> None:
    names = files(stored)
    assert {"artifacts/bundle/model.onnx", "artifacts/bundle/model.json", "pyfunc.py", "MLmodel"} <= names
    assert "code/libraries/service/base64_json.py" in names
    assert not [n for n in names if n.endswith((".pkl", ".pickle", ".pyc"))]
    packages = (stored / "requirements.txt").read_text().splitlines()
    assert f"numpy=={np.__version__}" in packages
    assert not [p for p in packages if p.startswith(("torch", "timm", "scikit-learn"))]


def test_loaded_model_answers_as_the_bundle_does(
    stored: Path, expected: dict[Path, Prediction], monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow.pyfunc
    import pandas as pd

    monkeypatch.setattr(sys, "path", list(sys.path))  # loading a model puts its code in front
    model = mlflow.pyfunc.load_model(stored.as_uri())
    rows = [encoded(path) for path in expected] + ["aGVsbG8=", "#", ""]
    *answers, no_image, no_base64, empty = model.predict(pd.DataFrame({COLUMN: rows}))
    for answer, prediction in zip(answers, expected.values(), strict=True):
        assert_equal(answer, prediction)
    assert "begins with b'hello'" in no_image["error"]["detail"]
    assert "is not base64" in no_base64["error"]["detail"]
    assert empty["error"]["title"] == "Not an image"


def test_real_server_answers_as_the_bundle_does(stored: Path, expected: dict[Path, Prediction]) -> None:
    images = [encoded(path) for path in expected]
    bodies = [
        {"dataframe_records": [{COLUMN: image} for image in images]},
        {"dataframe_split": {"columns": [COLUMN], "data": [[image] for image in images]}},
        {"inputs": [{COLUMN: image} for image in images]},
        {"inputs": {COLUMN: images}},
    ]
    with serving(stored) as url:
        for body in bodies:
            answers = requests.post(url, json=body, timeout=30).json()["predictions"]
            for answer, prediction in zip(answers, expected.values(), strict=True):
                assert_equal(answer, prediction)
        mixed = {"dataframe_records": [{COLUMN: "aGVsbG8="}, {COLUMN: None}, {COLUMN: images[0]}]}
        no_image, no_text, good = requests.post(url, json=mixed, timeout=30).json()["predictions"]
        assert "error" in no_image
        assert "error" in no_text
        assert_equal(good, next(iter(expected.values())))
        assert requests.post(url, json={"dataframe_records": [{"picture": ""}]}, timeout=30).status_code == 400
        with Client(url) as client:
            for path, prediction in expected.items():
                assert client.score(path.read_bytes()).label == prediction.label
            with pytest.raises(ServiceError, match=r"the image is refused: .*hello"):
                client.score(b"hello")


@contextlib.contextmanager
def serving(model: Path) -> Iterator[str]:
    """`mlflow models serve` as a process on a free port during the block; gives its scoring URI."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mlflow = Path(sys.executable).with_name("mlflow")
    options = [*("--env-manager", "local"), *("--host", "127.0.0.1"), *("--port", str(port))]
    environment = {
        **os.environ,
        "PATH": f"{mlflow.parent}{os.pathsep}{os.environ['PATH']}",  # MLflow looks for uvicorn there
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    command = [str(mlflow), "models", "serve", "-m", model.as_uri(), *options]
    with ServerProcess(command, ready="Uvicorn running", env=environment):
        yield f"http://127.0.0.1:{port}/invocations"


def test_packages_are_pinned_as_installed(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text(
        "# a comment\n\nnumpy>=1.26  # why\nuvicorn[standard]>=0.1 ; sys_platform != 'win32'\nno-such-package>=2\n"
    )
    numpy, uvicorn, unknown = installed(tmp_path / "requirements.txt")
    assert numpy == f"numpy=={np.__version__}"
    assert uvicorn.startswith("uvicorn[standard]==")
    assert uvicorn.endswith('; sys_platform != "win32"')
    assert unknown == "no-such-package>=2"
