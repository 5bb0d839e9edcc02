"""Notebooks run from top to bottom, without a browser.

Jupyter's modules are imported where they are used: that takes seconds, in each process of a test run.
"""

from pathlib import Path
from typing import Any

SECONDS_PER_CELL = 120


def read(path: Path) -> Any:
    """A notebook, in its present format."""
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def run(notebook: Any) -> None:
    """Run all cells; raises what a cell raises."""
    from nbclient import NotebookClient

    NotebookClient(notebook, timeout=SECONDS_PER_CELL, kernel_name="python3").execute()


def outputs(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def text(notebook: Any) -> str:
    """All that the cells have printed."""
    return "".join(output.get("text", "") for output in outputs(notebook))
