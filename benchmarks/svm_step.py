"""All of step 4 on stored embeddings: seconds, processor time and peak memory, against a grid of LinearSVC.

    python benchmarks/svm_step.py
    python benchmarks/svm_step.py --sizes 3409x10
    python benchmarks/svm_step.py --features DATA_DIR/proc/solarCells/features_svm
    python benchmarks/svm_step.py --every-c         what is chosen when no path of C ends early (hours)

A size is training examples x classes, of 1,280 numbers. Step 4 is the sweep and the learning curve, as in
scripts/4_trainSVM.py, in a process of its own. The grid, beside the first, is LinearSVC(dual=False,
class_weight='balanced') on embeddings of length 1, for 7 C x 5 folds and a refit each, on one core: LIBLINEAR has no
more. The ratio is of processor time.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from common import write_results
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import LinearSVC
from svm import Float, Int, synthetic

from libraries.base.console import table
from libraries.classifier.cross_validation import assign_folds

DIMENSION = 1280
C_VALUES = [10.0**e for e in range(-4, 3)]
FOLDS = 5


def generated(size: str) -> dict[str, Any]:
    """So many training examples, as many of each class where they are few, and a quarter as many to test."""
    count, classes = map(int, size.split("x"))
    if count >= 100 * classes:
        x, y = synthetic(count + count // 4, DIMENSION, classes)
        return {"x": x, "y": y, "is_train": np.arange(len(y)) < count}
    each = count // classes
    x, y = synthetic(3 * count, DIMENSION, classes, separation=1.0)
    place = np.zeros(len(y), int)  # of an example in its class
    for label in range(classes):
        place[y == label] = np.arange((y == label).sum())
    kept = place <= each
    return {"x": x[kept], "y": y[kept], "is_train": place[kept] < each}


def stored(folder: Path) -> dict[str, Any]:
    """A feature store and the examples.csv beside it."""
    from libraries.classifier.labelled import LabelledEmbeddings

    data = LabelledEmbeddings.read(folder, folder.parent / "examples.csv")
    return {"x": data.embeddings, "y": data.labels, "is_train": data.is_train, "groups": np.array(data.groups)}


def step(path: Path, *, every_c: bool) -> dict[str, Any]:
    """Step 4 on an .npz file, and what it took."""
    from libraries.classifier import sweep as sweep_module
    from libraries.classifier.learning_curve import learning_curve
    from libraries.classifier.sweep import sweep

    if every_c:
        sweep_module.has_turned = lambda *path, **about: False

    data = dict(np.load(path))
    x, y, is_train = data["x"], data["y"], data["is_train"]
    groups = data["groups"].tolist() if "groups" in data else [str(i) for i in range(len(y))]
    names = [str(i) for i in range(int(y.max()) + 1)]
    start, processor = time.perf_counter(), time.process_time()
    training_groups = [group for group, train in zip(groups, is_train, strict=True) if train]
    result = sweep(
        x[is_train],
        y[is_train],
        number_of_classes=len(names),
        c_values=C_VALUES,
        folds=FOLDS,
        groups=training_groups,
    )
    swept = time.process_time()
    row, model, calibration = (each[result.best] for each in (result.rows, result.models, result.calibrations))
    learning_curve(x, y, is_train=is_train, groups=groups, names=names, model=model, c=row.C, calibration=calibration)
    return {
        "seconds": time.perf_counter() - start,
        "processor": time.process_time() - processor,
        "of the curve": time.process_time() - swept,
        "peak GB": peak_gb(),
        "tried": len(result.rows),
        "chosen": f"{row.normalisation}, C = {row.C:g}: {row.validation_accuracy:.2%}",
    }


def peak_gb() -> float:
    """Of this process; getrusage would count the parent's memory, too. Linux only: elsewhere NaN."""
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 / 1e9 for line in lines if line.startswith("VmHWM")), float("nan"))


def grid(x: Float, y: Int, groups: list[str] | None) -> float:
    """Processor time of the grid of LinearSVC."""
    fold_of = assign_folds(y, folds=FOLDS, groups=groups)
    z = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float64)
    start = time.process_time()
    for chosen in [fold_of != fold for fold in range(FOLDS)] + [np.ones(len(y), bool)]:
        for c in C_VALUES:
            LinearSVC(C=c, class_weight="balanced", dual=False).fit(z[chosen], y[chosen])
    return time.process_time() - start


def measure(name: str, data: dict[str, Any], *, with_grid: bool, every_c: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.npz"
        np.savez(path, **data)
        command = [sys.executable, __file__, "--step", str(path), *(["--every-c"] if every_c else [])]
        child = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    found: dict[str, Any] = {"data": name, **json.loads(child.stdout)}
    if with_grid:
        train = data["is_train"]
        groups = data["groups"][train].tolist() if "groups" in data else None
        found["grid"] = grid(data["x"][train], data["y"][train], groups)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="*", default=["3409x10", "60000x10", "3000x1000"])
    parser.add_argument("--features", type=Path, help="a feature store, with examples.csv beside it, instead")
    parser.add_argument("--every-c", action="store_true", help="try all 7 C for each normalisation; no LinearSVC")
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--step", type=Path, help=argparse.SUPPRESS)  # given to the child process
    arguments = parser.parse_args()
    if arguments.step:
        print(json.dumps(step(arguments.step, every_c=arguments.every_c)))
        return
    warnings.simplefilter("ignore", ConvergenceWarning)
    rows, every_c = [], arguments.every_c
    if arguments.features:
        rows.append(measure("stored", stored(arguments.features), with_grid=not every_c, every_c=every_c))
    for size in [] if arguments.features else arguments.sizes:
        rows.append(measure(size, generated(size), with_grid=not rows and not every_c, every_c=every_c))
    header = ["data", "step 4 [s]", "processor [s]", "of the curve", "peak [GB]", "LinearSVC's grid", "ratio"]
    header += ["tried", "chosen"]
    cells = []
    for row in rows:
        grid_cells = (f"{row['grid']:.1f}", f"{row['grid'] / row['processor']:.1f}x") if "grid" in row else ("", "")
        times = (f"{row[key]:.1f}" for key in ("seconds", "processor", "of the curve"))
        cells.append([row["data"], *times, f"{row['peak GB']:.2f}", *grid_cells, row["tried"], row["chosen"]])
    print(table("All of step 4", header, cells))
    write_results(arguments.json, {"rows": rows})


if __name__ == "__main__":
    main()
