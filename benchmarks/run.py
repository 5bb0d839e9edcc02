"""Run the benchmarks one after the other and put what they print into BENCHMARKS.md.

    python benchmarks/run.py [name ...]        all of: featurize memory training svm svm_step loop viewing
                                               duplicates;
                                               by name also: accuracy training_accuracy serve download first_run
                                               scale training_together

Each benchmark is a section of its own, replaced when it is run again, with its command, machine, versions and date.
Run it on a machine that does nothing else.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
TARGET = HERE.parent / "BENCHMARKS.md"
QUICK = ("featurize", "memory", "training", "svm", "svm_step", "loop", "viewing", "duplicates")  # minutes each
ARGUMENTS = {
    "memory": ["--precision", "bf16"],  # 100,000 images in half the time
    "svm": ["--folds", "2"],  # LIBLINEAR takes minutes for a fold
}
TITLES = {
    "featurize": "Featurizing image files",
    "memory": "Memory while featurizing",
    "training": "Refining a network",
    "training_accuracy": "Refining a network, at equal accuracy",
    "training_together": "Refining a network in several processes",
    "svm": "The path of linear SVMs",
    "svm_step": "All of step 4",
    "scale": "Many images",
    "first_run": "The first run on a new machine",
    "loop": "The first run and the next ones",
    "accuracy": "Accuracy on the solar cells",
    "viewing": "The notebooks on large data sets",
    "duplicates": "Duplicates",
    "download": "Downloading",
    "serve": "The service under load",
}
INTRODUCTION = """# Benchmarks

Measured by `make bench`, `make bench-accuracy` and `make bench-serve`. Machines vary: compare figures of one table
only, and ratios rather than seconds.
"""


def main(names: list[str]) -> None:
    for name in names:
        print(f"== {name}", flush=True)
        replace_section(TITLES[name], measure(name))
    print(f"Written: {TARGET}")


def measure(name: str) -> str:
    """Run a benchmark, showing what it prints; give back its section."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.json"
        arguments = ARGUMENTS.get(name, [])
        command = [sys.executable, str(HERE / f"{name}.py"), *arguments, "--json", str(results)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "120"})
        lines = []
        for line in process.stdout or ():
            print(line, end="", flush=True)
            lines.append(line.rstrip())
        if process.wait():
            sys.exit(f"benchmarks/{name}.py failed")
        facts = json.loads(results.read_text())
    versions = ", ".join(f"{package} {version}" for package, version in facts["versions"].items())
    about = f"{facts['date']}, {facts['machine']}, Python {facts['python']}, {versions}."
    text = "\n".join(lines).strip("\n")
    return f"{about}\n\n`{shlex.join(['python', f'benchmarks/{name}.py', *arguments])}`\n\n```\n{text}\n```\n"


def replace_section(title: str, body: str) -> None:
    """Put a section into BENCHMARKS.md, in place of the one with the same title."""
    text = TARGET.read_text(encoding="utf-8") if TARGET.exists() else INTRODUCTION
    section = f"## {title}\n\n{body}"
    pattern = re.compile(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)
    others = pattern.sub("", text).rstrip()
    TARGET.write_text(f"{others}\n\n{section}", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:] or list(QUICK))
