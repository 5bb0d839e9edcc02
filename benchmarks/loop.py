"""The first run of scripts 0 to 5, and the runs after it: what it costs to mend labels, to add images, to split anew.

    python benchmarks/loop.py [--code CHECKOUT ...] [--json results.json]     the solar cells
    python benchmarks/loop.py --images 50000 --new 100                        photographs, of two classes

Each script is a process, as a user starts it, with all parameters at their defaults. --code names other checkouts of
the project to be measured in the same run, such as one of an earlier version.
"""

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from common import circumstances, photographs, user_environment, write_results

from libraries.base.console import table

ROOT = Path(__file__).parents[1]
SCRIPTS = ("0_downloadData", "1_prepareData", "2_refineDNN", "3_runDNN", "4_trainSVM", "5_evaluate")
RELABELLED = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--code", type=Path, nargs="+", default=[], metavar="CHECKOUT", help="other versions")
    parser.add_argument("--images", type=int, help="this many photographs instead of the solar cells")
    parser.add_argument("--new", type=int, default=100, help="photographs that are added (default: 100)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    figures = {}
    for code in [*options.code, ROOT]:
        with tempfile.TemporaryDirectory() as folder:
            name = code.name if code != ROOT else "this version"
            figures[name] = measure(code.resolve(), Path(folder), photos=options.images, new=options.new)
        print(report(f"{name}: seconds of each script", figures[name]))
    about = circumstances()
    print(f"{about['machine']}; {about['date']}")
    write_results(options.json, {"seconds": figures})


def measure(code: Path, root: Path, *, photos: int | None, new: int) -> dict[str, list[float | None]]:
    """Seconds of each script [6] in each run; None for a script that the run does not need."""
    dataset = "photographs" if photos else "solarCells"
    images = root / "images" / dataset
    if photos:
        photographs(images, photos)
    runs: dict[str, Callable[[], object]] = {
        "first run": lambda: None,
        "again, unchanged": lambda: None,
        f"{RELABELLED} labels mended": lambda: relabel(images),
    }
    if photos:
        runs[f"{new} images added"] = lambda: add(images, new)
    else:
        runs["split anew"] = lambda: None
    seconds: dict[str, list[float | None]] = {}
    for run, change in runs.items():
        change()
        first = 0 if run == "first run" and not photos else 1
        options = ["--randomSeed", "1"] if run == "split anew" else []
        timed = [script_seconds(code, script, root, dataset, options) for script in SCRIPTS[first:]]
        seconds[run] = [None] * first + timed
    return seconds


def script_seconds(code: Path, script: str, root: Path, dataset: str, options: Sequence[str]) -> float:
    command = [sys.executable, f"scripts/{script}.py", "--rootDir", str(root), "--datasetName", dataset, *options]
    start = time.perf_counter()
    done = subprocess.run(
        command, cwd=code, env=user_environment(PYTHONPATH=str(code)), capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{script} failed: {done.stderr[-500:]}")
    return time.perf_counter() - start


def relabel(images: Path) -> None:
    """Move a few images from one class to the other, as the viewer does."""
    one, other = sorted(folder for folder in images.iterdir() if folder.is_dir())
    for path in random.Random(0).sample(sorted(one.iterdir()), RELABELLED):
        path.rename(other / path.name)


def add(images: Path, count: int) -> None:
    """Add new photographs to each class."""
    with tempfile.TemporaryDirectory() as folder:
        for path in photographs(Path(folder), count, seed=1):
            shutil.move(path, images / path.parent.name / f"new {path.name}")


def report(title: str, seconds: Mapping[str, Sequence[float | None]]) -> str:
    rows = [
        [run, *("" if s is None else f"{s:.1f}" for s in of_run), f"{sum(s or 0.0 for s in of_run):.1f}"]
        for run, of_run in seconds.items()
    ]
    return table(title, ["run", *SCRIPTS, "all"], rows)


if __name__ == "__main__":
    main()
