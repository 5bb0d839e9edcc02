"""notebooks/deploy.ipynb, run from top to bottom as a user runs it, on the small data set."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from PARAMETERS import Parameters
from tests.conftest import ROOT, run_main, small_run
from tests.notebooks.running import read, run, text

NOTEBOOK = ROOT / "notebooks" / "deploy.ipynb"


@pytest.fixture
def evaluated(tmp_path: Path, bundle: Path, in_environment: Callable[[Parameters], Parameters]) -> Parameters:
    """The parameters of a whole run, in the environment too, where the notebook finds them."""
    shutil.copytree(bundle.parents[2], tmp_path / "data", symlinks=True)
    parameters = small_run(tmp_path / "data", svm_CVals=(0.01,), svm_boL2Normalize=True, runHistory=True)
    run_main("5_evaluate", parameters)
    return in_environment(parameters)


@pytest.mark.filterwarnings("ignore")  # what Jupyter and MLflow warn of is not ours to mend
def test_notebook_runs_from_top_to_bottom(evaluated: Parameters) -> None:
    notebook = read(NOTEBOOK)
    run(notebook)
    said = text(notebook)
    assert f"{evaluated.rootDir}/proc/textures/model_svm" in said
    assert "blobs, checks, stripes" in said
    assert "the image is refused: is not a whole JPEG" in said
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
    notebook = read(NOTEBOOK)
    with pytest.raises(Exception, match=r"run scripts/\w+\.py first"):
        run(notebook)
