"""The scoring script under Azure ML's own server, started as Azure ML starts it: code, model and packages, no more."""

import base64
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import yaml

from libraries.base.errors import MissingInput, ParameterError, ServiceError, StorageError
from libraries.classifier.bundle import Classifier, Prediction, find_bundle
from libraries.service.base64_json import COLUMN, TABLE
from libraries.service.calling.client import Client
from libraries.service.hosts import azure
from libraries.service.hosts.azure import commands, endpoint_name, scorer, stage
from PARAMETERS import Parameters
from tests.conftest import ROOT, files, run_main, small_run
from tests.service.conftest import encoded
from tests.service.processes import ServerProcess, free_port

AZURE = ROOT / "resources" / "azure"


def described(name: str, folder: Path = AZURE) -> Any:
    return yaml.safe_load((folder / name).read_text(encoding="utf-8"))


def packages(name: str) -> list[str]:
    """The lines of a requirements file, including those of the files it names."""
    found: list[str] = []
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        line = line.split("#")[0].strip()
        found += packages(line.split()[1]) if line.startswith("-r") else [line] if line else []
    return found


@pytest.fixture(scope="module")
def staged(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("staged") / "deployment_svm"
    stage(bundle, target, project=ROOT)
    return target


def test_staged_folder_is_all_that_is_needed(staged: Path, bundle: Path) -> None:
    names = files(staged)
    assert {n for n in names if not n.startswith("code/libraries/")} == {
        *("endpoint.yml", "deployment.yml", "conda.yaml", "staged.json"),
        *("code/deploymain.py", "code/PARAMETERS.py"),
        *("model/model.json", "model/model.onnx"),
    }
    assert {n for n in names if n.startswith("code/libraries/")} == {
        f"code/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "libraries").rglob("*.py")
    }
    assert (staged / "model" / "model.onnx").read_bytes() == (bundle / "model.onnx").read_bytes()
    assert files(staged.parent) == {f"{staged.name}/{n}" for n in names}, "nothing is left beside it"


def test_endpoint_is_described_as_azure_ml_wants_it() -> None:
    assert described("endpoint.yml") == {
        "$schema": "https://azuremlschemas.azureedge.net/latest/managedOnlineEndpoint.schema.json",
        "name": "image-classification",
        "auth_mode": "key",
    }


def test_deployment_is_described_as_azure_ml_wants_it(staged: Path) -> None:
    deployment = described("deployment.yml", staged)
    assert deployment.keys() == {
        *("$schema", "name", "endpoint_name", "model", "code_configuration", "environment"),
        *("instance_type", "instance_count", "environment_variables", "request_settings"),
    }
    assert deployment["$schema"].endswith("/latest/managedOnlineDeployment.schema.json")
    assert deployment["endpoint_name"] == described("endpoint.yml", staged)["name"]
    code = deployment["code_configuration"]
    assert (staged / code["code"] / code["scoring_script"]).is_file()
    assert (staged / deployment["model"]["path"] / "model.json").is_file()
    assert (staged / deployment["environment"]["conda_file"]).is_file()
    assert re.fullmatch(r"mcr\.microsoft\.com/azureml/[\w.-]+:\w+", deployment["environment"]["image"])
    # variables must be strings in YAML, and there is one worker per request that is accepted
    requests_at_once = deployment["request_settings"]["max_concurrent_requests_per_instance"]
    assert deployment["environment_variables"] == {"WORKER_COUNT": str(requests_at_once)}
    assert deployment["request_settings"]["request_timeout_ms"] <= 180_000, "the most that Azure ML allows"


def test_conda_file_names_the_packages_that_were_tested() -> None:
    *others, pip = described("conda.yaml")["dependencies"]
    assert others == ["python=3.12", "pip"]
    assert pip == {"pip": packages("requirements-azure.txt")}


def test_service_needs_no_package_of_training() -> None:
    served, all_packages = packages("requirements-serve.txt"), packages("requirements.txt")
    assert set(served) <= set(all_packages), "requirements.txt includes it"
    names = {re.split(r"[>=;]", line)[0] for line in served}
    assert not names & {"torch", "torchvision", "timm", "onnx", "pyarrow", "mlflow", "matplotlib", "requests"}


def test_staging_again_replaces_everything(staged: Path, bundle: Path, tmp_path: Path) -> None:
    target = tmp_path / "deployment"
    (target / "code" / "former").mkdir(parents=True)
    (target / "code" / "former" / "module.py").touch()
    for _ in range(2):
        stage(bundle, target, project=ROOT)
        assert files(target) == files(staged)
    assert [path.name for path in tmp_path.iterdir()] == ["deployment"]


def test_damaged_bundle_is_refused_and_the_former_folder_stays(bundle: Path, tmp_path: Path) -> None:
    damaged, target = tmp_path / "model", tmp_path / "deployment"
    shutil.copytree(bundle, damaged)
    stage(damaged, target, project=ROOT)
    before = files(target)
    with (damaged / "model.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(StorageError, match=r"model.onnx is not the file that model.json describes"):
        stage(damaged, target, project=ROOT)
    assert files(target) == before
    assert {path.name for path in tmp_path.iterdir()} == {"model", "deployment"}


def test_full_disk_leaves_the_former_folder(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "deployment"
    stage(bundle, target, project=ROOT)
    before = files(target)

    def full(source: Path, target: Path) -> None:
        if source.name == "deployment.yml":
            raise OSError(28, "No space left on device")
        target.write_bytes(source.read_bytes())

    monkeypatch.setattr(azure.shutil, "copyfile", full)
    with pytest.raises(StorageError, match="the disk is full"):
        stage(bundle, target, project=ROOT)
    assert files(target) == before
    assert [path.name for path in tmp_path.iterdir()] == ["deployment"]


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("solarCells", "svm"), "solarcells-svm"),
        (("my leaves (2024)", "svmDnnRefined"), "my-leaves-2024-svmdnnrefined"),
        (("2024_cells", "dnn"), "cells-dnn"),
        (("Blätter", "dnn"), "bl-tter-dnn"),
        (("日本", "svm"), "svm"),
        (("1", "2"), "xxx"),
        (("x" * 31 + " yz", "svm"), "x" * 31),
    ],
)
def test_endpoint_names_are_allowed_by_azure_ml(words: tuple[str, ...], name: str) -> None:
    assert endpoint_name(*words) == name
    assert re.fullmatch(r"[a-z][a-z0-9-]{1,30}[a-z0-9]", name)


def test_commands_name_the_files_and_the_endpoint(staged: Path) -> None:
    for command in commands("my-cells"):
        words = command.split()
        assert words[:2] == ["az", "ml"]
        assert "my-cells" in words
        if "--file" in words:
            assert (staged / words[words.index("--file") + 1]).is_file()


def test_script_stages_and_says_what_to_type(
    bundle: Path, tmp_path: Path, process: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = process("deploymain", small_run(tmp_path), f"--bundle={bundle}", "--stage")
    assert done.returncode == 0, done.stderr
    target = tmp_path / "proc" / "textures" / "deployment_svm"
    assert f"cd '{target}'" in done.stdout
    assert [line.strip() for line in done.stdout.splitlines() if "az ml " in line] == commands("textures-svm")
    assert (target / "code" / "deploymain.py").is_file()


def test_script_without_a_bundle_names_the_step_to_run(tmp_path: Path) -> None:
    parameters: Parameters = small_run(tmp_path)
    with pytest.raises(MissingInput, match=r"run scripts/\w+\.py first"):
        run_main("deploymain", parameters, stage=True)


@pytest.mark.parametrize("has_record", [True, False], ids=["with its record", "of an earlier version"])
@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "deployment.yml").write_text("instance_type: mine"),
        lambda folder: (folder / "notes.txt").write_text("mine"),
        lambda folder: (folder / "model" / "notes.txt").write_text("mine"),
    ],
)
def test_files_changed_by_hand_are_not_overwritten(
    staged: Path, bundle: Path, tmp_path: Path, change: Callable[[Path], object], has_record: bool
) -> None:
    target = Path(shutil.copytree(staged, tmp_path / "deployment_svm"))
    (target / "code" / "__pycache__").mkdir()
    (target / "code" / "__pycache__" / "deploymain.cpython-311.pyc").write_bytes(b"")
    if not has_record:
        (target / "staged.json").unlink()
    stage(bundle, target, project=ROOT)
    if not has_record:
        (target / "staged.json").unlink()
    change(target)
    before = {name: (target / name).read_bytes() for name in files(target)}
    with pytest.raises(StorageError, match=r"was not written by this script, or was changed since: move .* away"):
        stage(bundle, target, project=ROOT)
    assert {name: (target / name).read_bytes() for name in files(target)} == before
    assert files(tmp_path) == {f"deployment_svm/{name}" for name in before}


ENVIRONMENT = ROOT / ".venv" / "azure"
real_server = pytest.mark.skipif(not (ENVIRONMENT / ".setup").exists(), reason="needs make .venv/azure/.setup")


@pytest.fixture(scope="module")
def deployment(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("staged") / "deployment"
    stage(bundle, target, project=ROOT)
    return target


def azure_server(deployment: Path, models: Path, port: int) -> ServerProcess:
    """Azure ML's server as its images start it: AML_APP_ROOT is the folder of the code, and nothing else is known."""
    shutil.copytree(deployment / "model", models / "model", dirs_exist_ok=True)
    code = deployment / "code"
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
def url(deployment: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base address of the server, with the model mounted as Azure ML does: <name>/<version>/model/."""
    models = tmp_path_factory.mktemp("azureml-models") / "cells" / "1"
    port = free_port()
    with azure_server(deployment, models, port):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def expected(bundle: Path, image_files: list[Path]) -> dict[Path, Prediction]:
    """The bundle's own predictions for some images of every class."""
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
        ({"data": {"input_df": "a form"}}, 400, "the request is empty, or not application/json"),
        ({"json": table(b"hello")}, 422, "begins with b'hello'"),
        ({"json": {TABLE: [{COLUMN: "#"}]}}, 422, "is not base64"),
        ({"json": table(encoded((1100, 1000)))}, 413, "more than the 1,000,000 allowed"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_the_caller_did_wrong_is_answered_with_its_status(
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
def test_text_that_is_not_utf_8_is_refused(url: str) -> None:
    answer = requests.post(f"{url}/score", data=b"\xff\xfe", timeout=60)
    assert answer.status_code == 400


@real_server
def test_client_understands_the_refusal(url: str) -> None:
    with Client(f"{url}/score") as client, pytest.raises(ServiceError, match=r"the image is refused: .*hello"):
        client.score(b"hello")


@real_server
def test_server_ends_where_the_model_is_damaged(deployment: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "deployment"
    shutil.copytree(deployment, damaged)
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
def test_no_bundle_and_several_bundles_are_reported(tmp_path: Path, there: list[str], said: str) -> None:
    for name in there:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(StorageError) as caught:
        find_bundle(tmp_path)
    assert str(caught.value) == f"{tmp_path} {said}"
