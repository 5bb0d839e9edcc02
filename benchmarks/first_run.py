"""`make demo` on a machine that has nothing of it yet: the set-up, the space it takes, and scripts 0 to 5.

    python benchmarks/first_run.py [--python python3.12] [--json results.json]

The last commit of this checkout is cloned to a folder that is removed at the end. How long the downloads take depends
on the network, and on what uv has kept from earlier ones: say so beside the figures.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import circumstances, user_environment, write_results
from loop import SCRIPTS

from libraries.base.console import table

ROOT = Path(__file__).parents[1]
BASE_PYTHON = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=str(BASE_PYTHON), help="that the environment is made with")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        seconds = {"set-up": seconds_of(["make", ".venv/.demo", f"PYTHON={options.python}"], clone)}
        python = clone / ".venv" / "bin" / "python"
        for script in SCRIPTS:
            command = [str(python), f"scripts/{script}.py", "--rootDir", str(Path(folder) / "data")]
            seconds[script] = seconds_of(command, clone)
        gigabytes = size(clone / ".venv") / 1e9
    rows = [(name, f"{value:.1f}") for name, value in seconds.items()]
    print(table("make demo on a new machine", ["", "seconds"], rows, footer=["all", f"{sum(seconds.values()):.1f}"]))
    print(f"The environment takes {gigabytes:.2f} GB (goal: 1.3); goal for all: 120 seconds")
    about = circumstances()
    print(f"{about['machine']}; {about['date']}")
    write_results(options.json, {"seconds": seconds, "gigabytes": gigabytes})


def seconds_of(command: list[str], folder: Path) -> float:
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=user_environment(PYTHONPATH=""), capture_output=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed: {done.stderr.decode()[-500:]}")
    return time.perf_counter() - start


def size(folder: Path) -> int:
    """Bytes on disk of all files in a folder."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))


if __name__ == "__main__":
    main()
