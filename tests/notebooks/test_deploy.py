"""notebooks/deploy.ipynb, run from top to bottom as a user runs it, on the small data set."""

import os
import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from PARAMETERS import Parameters
from tests.conftest import ROOT, run_main, small_run

NOTEBOOK = ROOT / "notebooks" / "deploy.ipynb"
SECONDS_PER_CELL = 120


def run(notebook: Any) -> None:
    NotebookClient(notebook, timeout=SECONDS_PER_CELL, kernel_name="python3").execute()


def text(notebook: Any) -> str:
    """All that the cells have printed."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output.get("text", "") for output in outputs)


@pytest.fixture
def evaluated(tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Parameters:
    """The parameters of a whole run, in the environment too, where the notebook finds them."""
    shutil.copytree(bundle.parents[2], tmp_path / "data", symlinks=True)
    parameters = small_run(tmp_path / "data", svm_CVals=(0.01,), svm_boL2Normalize=True, runHistory=True)
    run_main("5_evaluate", parameters)
    defaults = Parameters.load()
    for name, value in parameters.model_dump().items():
        if value != getattr(defaults, name):
            monkeypatch.setenv(f"PARAMETERS_{name}", str(value).strip("(),"))
    for name in list(os.environ):
        if name.startswith(("SERVICE_", "AZURE")):
            monkeypatch.delenv(name)
    return parameters


def test_notebook_holds_no_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert not any(cell.outputs or cell.execution_count for cell in code)
    assert notebook.metadata.kernelspec.name == "python3"


@pytest.mark.filterwarnings("ignore")  # what Jupyter and MLflow warn of is not ours to mend
def test_notebook_runs_from_top_to_bottom(evaluated: Parameters) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    run(notebook)
    said = text(notebook)
    assert f"{evaluated.rootDir}/proc/textures/model_svm" in said
    assert "blobs, checks, stripes" in said
    assert "the image is refused: is no whole JPEG" in said
    assert "503 Service Unavailable, Retry-After: " in said
    assert 'predictions_total{label="' in said
    assert "skipped; missing:\n  AZURE_SUBSCRIPTION_ID" in said
    assert "the same labels as the service's: True" in said
    pictures = [o for cell in notebook.cells for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
    assert len(pictures) == 2
    assert not [o for cell in notebook.cells for o in cell.get("outputs", []) if o.get("name") == "stderr"]


@pytest.mark.filterwarnings("ignore")
def test_notebook_says_which_script_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARAMETERS_rootDir", str(tmp_path))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with pytest.raises(Exception, match=r"run scripts/\w+\.py first"):
        run(notebook)
