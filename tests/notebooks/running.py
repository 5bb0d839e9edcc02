"""Notebooks run from top to bottom, without a browser."""

from typing import Any

from nbclient import NotebookClient

SECONDS_PER_CELL = 120


def run(notebook: Any) -> None:
    """Run all cells; raises what a cell raises."""
    NotebookClient(notebook, timeout=SECONDS_PER_CELL, kernel_name="python3").execute()


def outputs(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def text(notebook: Any) -> str:
    """All that the cells have printed."""
    return "".join(output.get("text", "") for output in outputs(notebook))
