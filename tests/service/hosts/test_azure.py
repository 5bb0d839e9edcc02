"""The scoring script under Azure ML's own server, started as Azure ML starts it: code, model and packages, no more."""

import base64
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import requests

from libraries.base.errors import ParameterError, ServiceError, StorageError
from libraries.classifier.bundle import Classifier, Prediction, find_bundle
from libraries.service.calling.client import Client
from libraries.service.hosts.azure import scorer
from libraries.service.hosts.staging import stage
from libraries.service.tutorial import COLUMN, TABLE
from tests.conftest import ROOT, small_run
from tests.service.conftest import encoded
from tests.service.processes import ServerProcess, free_port

ENVIRONMENT = ROOT / ".venv" / "azure"
real_server = pytest.mark.skipif(not (ENVIRONMENT / ".setup").exists(), reason="needs make .venv/azure/.setup")


@pytest.fixture(scope="module")
def staged(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("staged") / "deployment"
    stage(bundle, target, project=ROOT)
    return target


def azure_server(staged: Path, models: Path, port: int) -> ServerProcess:
    """Azure ML's server as its images start it: AML_APP_ROOT is the folder of the code, and nothing else is known."""
    shutil.copytree(staged / "model", models / "model", dirs_exist_ok=True)
    code = staged / "code"
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(models),
        "AML_APP_ROOT": str(code),
        "AZUREML_MODEL_DIR": str(models),
        "WORKER_COUNT": "1",
        "OMP_NUM_THREADS": "1",
        "PARAMETERS_serve_maxMegapixels": "1",
    }
    server = [ENVIRONMENT / "bin" / "python", ENVIRONMENT / "bin" / "azmlinfsrv"]
    command = [*server, "--entry_script", code / "deploymain.py", "--port", str(port)]
    return ServerProcess(command, ready="ready for serving traffic", env=environment)


@pytest.fixture(scope="module")
def url(staged: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base address of the server, with the model mounted as Azure ML does: <name>/<version>/model/."""
    models = tmp_path_factory.mktemp("azureml-models") / "cells" / "1"
    port = free_port()
    with azure_server(staged, models, port):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def expected(bundle: Path, image_files: list[Path]) -> dict[Path, Prediction]:
    """What the bundle itself says of some images of every class."""
    predictions = {p: r for p, r in Classifier(bundle).predict_files(image_files[::5]) if isinstance(r, Prediction)}
    assert len({p.label for p in predictions.values()}) == 3
    return predictions


def table(*images: bytes) -> dict[str, list[dict[str, str]]]:
    return {TABLE: [{COLUMN: base64.b64encode(image).decode()} for image in images]}


@real_server
def test_client_gets_the_bundles_answers(url: str, expected: dict[Path, Prediction]) -> None:
    with Client(f"{url}/score", key="a-key-that-azure-checks") as client:
        for path, prediction in expected.items():
            score = client.score(path.read_bytes())
            assert score.label == prediction.label
            np.testing.assert_allclose(
                sorted(score.probabilities.values()), sorted(prediction.probabilities), atol=1e-5
            )
            assert 0 < score.server_milliseconds < score.milliseconds


@real_server
def test_script_6_calls_it(
    url: str, tmp_path: Path, process: Callable[..., subprocess.CompletedProcess[str]], expected: dict[Path, Prediction]
) -> None:
    path, prediction = next(iter(expected.items()))
    done = process("6_callWebservice", small_run(tmp_path, url=f"{url}/score", imagePath=path, calls=2))
    assert done.returncode == 0, done.stderr
    assert f"Label: {prediction.label}" in done.stdout


@real_server
def test_several_images_are_answered_together_the_bad_ones_with_their_errors(
    url: str, expected: dict[Path, Prediction]
) -> None:
    good = [path.read_bytes() for path in expected]
    rows = requests.post(f"{url}/score", json=table(*good, b"hello"), timeout=60).json()
    assert [row["label"] for row in rows[:-1]] == [p.label for p in expected.values()]
    assert rows[-1]["error"]["status"] == 422


@real_server
@pytest.mark.parametrize(
    ("request_", "status", "said"),
    [
        ({"data": "xx"}, 400, "is not JSON"),
        ({"data": "[" * 100_000}, 400, "is not JSON"),
        ({"json": {}}, 400, "has no input_df"),
        ({"json": {TABLE: []}}, 400, "is not a list of images"),
        ({"data": {"input_df": "a form"}}, 400, "of another type than application/json"),
        ({"json": table(b"hello")}, 422, "begins with b'hello'"),
        ({"json": {TABLE: [{COLUMN: "#"}]}}, 422, "is not base64"),
        ({"json": table(encoded((1100, 1000)))}, 413, "more than the 1,000,000 allowed"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_the_caller_did_wrong_is_told_with_its_status(
    url: str, request_: dict[str, object], status: int, said: str
) -> None:
    answer = requests.post(f"{url}/score", timeout=60, **request_)  # type: ignore[arg-type]
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json")
    assert answer.headers["x-ms-run-function-failed"] == "False", "the script is well"
    problem = answer.json()
    assert (problem["type"], problem["status"]) == ("about:blank", status)
    assert said in problem["detail"]
    assert str(ROOT) not in answer.text


@real_server
def test_get_says_it_is_healthy_and_what_score_expects(url: str) -> None:
    assert requests.get(url, timeout=60).text == "Healthy"
    answer = requests.get(f"{url}/score", timeout=60)
    assert answer.status_code == 400
    assert "expected {" in answer.json()["detail"]
    assert requests.put(f"{url}/score", timeout=60).status_code == 405


@real_server
def test_text_that_is_no_utf_8_is_refused(url: str) -> None:
    answer = requests.post(f"{url}/score", data=b"\xff\xfe", timeout=60)
    assert answer.status_code == 400


@real_server
def test_client_understands_the_refusal(url: str) -> None:
    with Client(f"{url}/score") as client, pytest.raises(ServiceError, match=r"the image is refused: .*hello"):
        client.score(b"hello")


@real_server
def test_server_ends_where_the_model_is_damaged(staged: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "deployment"
    shutil.copytree(staged, damaged)
    with (damaged / "model" / "model.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(
        AssertionError, match=r"(?s)ended with 3: .*model.onnx is not the file that model.json describes"
    ):
        azure_server(damaged, tmp_path / "models", free_port())


# Without the server


def test_scorer_outside_azure_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZUREML_MODEL_DIR", raising=False)
    with pytest.raises(ParameterError, match="AZUREML_MODEL_DIR is not set"):
        scorer(precision="f32", max_pixels=10**6)


def test_scorer_answers(bundle: Path, monkeypatch: pytest.MonkeyPatch, expected: dict[Path, Prediction]) -> None:
    monkeypatch.setenv("AZUREML_MODEL_DIR", str(bundle.parent / bundle.name))
    score = scorer(precision="f32", max_pixels=10**6)
    for path, prediction in expected.items():
        assert score(json.dumps(table(path.read_bytes())))["label"] == prediction.label


def test_bundle_is_found_where_it_is_mounted(tmp_path: Path) -> None:
    for below in ("", "model", "cells/1/model"):
        folder = tmp_path / f"mounted_{len(below)}"
        (folder / below).mkdir(parents=True)
        (folder / below / "model.json").touch()
        assert find_bundle(folder) == folder / below


@pytest.mark.parametrize(
    ("there", "said"),
    [
        ([], "holds no bundle, a folder with model.json, but: nothing at all"),
        (["notes.txt", "pictures/a.jpg"], "holds no bundle, a folder with model.json, but: notes.txt, pictures"),
        (["a/b/c/d/model.json"], "holds no bundle, a folder with model.json, but: a"),
        (["1/model.json", "2/model/model.json"], "holds 2 bundles: 1, 2/model"),
        ([f"{i}/model.json" for i in range(9)], "holds 9 bundles: 0, 1, 2, 3, 4"),
    ],
    ids=str,
)
def test_no_bundle_or_several_are_told(tmp_path: Path, there: list[str], said: str) -> None:
    for name in there:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(StorageError) as caught:
        find_bundle(tmp_path)
    assert str(caught.value) == f"{tmp_path} {said}"
