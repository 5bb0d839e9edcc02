"""showImages.ipynb and showResults.ipynb, run from top to bottom on the small data set; what all notebooks keep to."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from PARAMETERS import Parameters
from tests.conftest import ROOT, small_run
from tests.notebooks.running import outputs, read, run, text

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
WIDGET = "application/vnd.jupyter.widget-view+json"

Put = Callable[[Parameters], Parameters]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_hold_no_outputs(path: Path) -> None:
    notebook = read(path)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert not any(cell.outputs or cell.execution_count for cell in code)
    assert notebook.metadata.kernelspec.name == "python3"


@pytest.mark.filterwarnings("ignore")  # what Jupyter and MLflow warn of is not ours to mend
@pytest.mark.parametrize("name", ["showImages", "showResults"])
def test_notebook_runs_from_top_to_bottom(name: str, evaluated: Path, tmp_path: Path, in_environment: Put) -> None:
    shutil.copytree(evaluated, tmp_path / "data")
    in_environment(small_run(tmp_path / "data", svm_CVals=(0.01,), svm_boL2Normalize=True))
    notebook = read(ROOT / "notebooks" / f"{name}.ipynb")
    run(notebook)
    assert len([output for output in outputs(notebook) if WIDGET in output.get("data", {})]) == 1
    assert not [output for output in outputs(notebook) if output.get("name") == "stderr"]
    if name == "showResults":
        assert [output for output in outputs(notebook) if "image/png" in output.get("data", {})]
        assert "training images" in text(notebook)
        assert "There is no evaluation of 'textures' in the run history yet" in text(notebook)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "message"),
    [("showImages", r"run scripts/0_downloadData.py"), ("showResults", r"run scripts/5_evaluate.py first")],
)
def test_notebook_says_which_script_to_run(name: str, message: str, tmp_path: Path, in_environment: Put) -> None:
    in_environment(small_run(tmp_path))
    notebook = read(ROOT / "notebooks" / f"{name}.ipynb")
    with pytest.raises(Exception, match=message):
        run(notebook)
