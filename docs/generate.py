"""Write the pages that are made from the code: make docs."""

import runpy
from pathlib import Path

from libraries.base.command import reference
from PARAMETERS import Parameters

HERE = Path(__file__).parent
INTRODUCTION = """\
# Command reference

<!-- Written by `make docs` from PARAMETERS.py and the scripts: change it there. -->

What `--help` says, for all scripts. Set a parameter in `PARAMETERS.py`; for one run on the command line
(`--name value`), or as an environment variable (`PARAMETERS_name=value`). The command line wins over the environment,
and both over the file.

Each parameter stands under the script that reads it first; later scripts know it too. Separate the values of a list by
commas. Every script also takes `--help`, and `--verbose`, which shows where an error came from.

"""


def generated() -> dict[Path, str]:
    """The text of each page."""
    scripts = sorted((HERE.parent / "scripts").glob("*.py"))
    mains = {path.stem: runpy.run_path(str(path))["main"] for path in scripts}
    return {HERE / "reference.md": INTRODUCTION + reference(Parameters, mains)}


if __name__ == "__main__":
    for path, text in generated().items():
        path.write_text(text, encoding="utf-8", newline="\n")
