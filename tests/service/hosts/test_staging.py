"""The folder that is deployed to Azure ML: whole, described as Azure ML wants it, and needing what is installed."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from libraries.base.errors import MissingInput, StorageError
from libraries.service.hosts import staging
from libraries.service.hosts.staging import commands, endpoint_name, stage
from PARAMETERS import Parameters
from tests.conftest import ROOT, files, run_main, small_run

AZURE = ROOT / "resources" / "azure"


def described(name: str, folder: Path = AZURE) -> Any:
    return yaml.safe_load((folder / name).read_text(encoding="utf-8"))


def packages(name: str) -> list[str]:
    """The lines of a requirements file, those of the files it names included."""
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
    # variables are text in YAML, too, and there is one worker for each request that is let in
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

    monkeypatch.setattr(staging.shutil, "copyfile", full)
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
def test_endpoint_names_are_such_as_azure_ml_allows(words: tuple[str, ...], name: str) -> None:
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
def test_what_people_have_put_there_is_not_overwritten(
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
