"""Write the pages, and parts of pages, that are made from the code: make docs."""

import ast
import re
import runpy
from pathlib import Path

from libraries.base import stages
from libraries.base.command import reference
from libraries.base.tables import described
from libraries.classifier.learning_curve import CurveRow
from libraries.classifier.outputs import MeasuredRow
from libraries.data.dataset import Example
from libraries.data.duplicates import DuplicateRow
from libraries.data.quality import QualityRow
from libraries.data.removal import Removal
from libraries.evaluation.folds import CrossRow, FoldRow
from libraries.evaluation.testing import PredictionRow
from libraries.evaluation.tuning import TrialRow
from libraries.network.training.refine import Epoch
from libraries.review.queue import QueueRow
from libraries.service.calling.journal import ClassifiedRow
from libraries.web.download.outcomes import UrlOutcome
from libraries.web.search.search import SearchRow
from libraries.web.store.record import StoredImage
from PARAMETERS import Parameters

HERE = Path(__file__).parent
ROOT = HERE.parent
INTRODUCTION = """\
# Command reference

<!-- Written by `make docs` from PARAMETERS.py and the scripts: change it there. -->

What `--help` says, for all scripts. Set a parameter in `PARAMETERS.py`; for one run on the command line
(`--name value`), or as an environment variable (`PARAMETERS_name=value`). The command line wins over the environment,
and both over the file.

Each parameter stands under the script that reads it first; later scripts know it too. Separate the values of a list by
commas. Every script also takes `--help`, and `--verbose`, which shows where an error came from.

"""
TABLES = {
    "downloads.csv": UrlOutcome,
    "stored_images.csv": StoredImage,
    "search.csv": SearchRow,
    "examples.csv": Example,
    "duplicates.csv": DuplicateRow,
    "quality.csv": QualityRow,
    "dnn_refined/training.csv": Epoch,
    "svm_<classifier>/sweep.csv": MeasuredRow,
    "svm_<classifier>/learning_curve.csv": CurveRow,
    "evaluation_<classifier>/predictions.csv": PredictionRow,
    "crossvalidation_<classifier>/predictions.csv": CrossRow,
    "crossvalidation_<classifier>/folds.csv": FoldRow,
    "tune.csv": TrialRow,
    "review.csv": QueueRow,
    "predictions/<folder>.csv": ClassifiedRow,
    "images/<datasetName>/.duplicates/removed.csv": Removal,
}
ABOUT_TABLES = """\
# Tables on disk

<!-- Written by `make docs` from the dataclasses that declare the tables: change them there. -->

The tables in `proc/<datasetName>/`, and one beside the images, and what their columns hold. They are CSV in UTF-8, with
a header, and open in any spreadsheet: text that a spreadsheet would take for a formula begins with an apostrophe. A
name that ends with … stands for one column per class. An empty cell means unknown, or that there is none.
"""


def generated() -> dict[Path, str]:
    """The text of each page."""
    scripts = sorted((ROOT / "scripts").glob("*.py"))
    mains = {path.stem: runpy.run_path(str(path))["main"] for path in scripts}
    flow = f"```mermaid\n{stages.flowchart()}\n```"
    return {
        HERE / "reference.md": INTRODUCTION + reference(Parameters, mains),
        HERE / "tables.md": ABOUT_TABLES + "".join(columns(name, kind) for name, kind in TABLES.items()),
        HERE / "ARCHITECTURE.md": filled(HERE / "ARCHITECTURE.md", flow=flow, floors=floors()),
        ROOT / "README.md": filled(ROOT / "README.md", stages=stages.table()),
    }


def columns(name: str, kind: type) -> str:
    """A section with the columns of a table."""
    rows = "\n".join(f"| `{column}` | {about} |" for column, about in described(kind))
    return f"\n## {name}\n\n| column | what it holds |\n|---|---|\n{rows}\n"


def filled(page: Path, **parts: str) -> str:
    """A page with its parts written anew: what stands between <!-- name --> and <!-- /name -->."""
    text = page.read_text(encoding="utf-8")
    for name, part in parts.items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        head, _, rest = text.partition(begin)
        text = f"{head}{begin}\n{part}\n{end}{rest.partition(end)[2]}"
    return text


def floors() -> str:
    """The rooms of libraries/ as a table, the highest first: what each is, and which others it imports."""
    rooms = {path.parent.name: path.parent for path in sorted((ROOT / "libraries").glob("*/__init__.py"))}
    below = {room: imported(folder, rooms.keys() - {room}) for room, folder in rooms.items()}
    lines = ["| room | what it is | modules | stands on |", "|---|---|---|---|"]
    while below:
        top = min(room for room in below if not any(room in others for others in below.values()))
        docstring = ast.get_docstring(ast.parse((rooms[top] / "__init__.py").read_text(encoding="utf-8"))) or ""
        count = sum(1 for path in rooms[top].rglob("*.py") if path.name != "__init__.py")
        lines.append(f"| `{top}/` | {docstring.splitlines()[0]} | {count} | {', '.join(sorted(below.pop(top)))} |")
    return "\n".join(lines)


def imported(folder: Path, rooms: set[str]) -> set[str]:
    """Which of these rooms the modules of one import."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in folder.rglob("*.py"))
    return rooms & set(re.findall(r"^\s*(?:from|import) libraries\.(\w+)", text, re.MULTILINE))


if __name__ == "__main__":
    for path, text in generated().items():
        path.write_text(text, encoding="utf-8", newline="\n")
