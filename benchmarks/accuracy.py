"""Accuracy on the solar cells over several random splits, through the scripts themselves.

    python benchmarks/accuracy.py [--svm_seeds 5] [--dnn_seeds 3] [--only svm ...] [--json results.json]

The data set is split anew for every seed, 75/25 and stratified; everything is chosen within the training part. The
splits are plain random ones, as in the paper that the figures are compared with: of cells that were photographed twice
one picture may be in training and the other in the test set, which is worth nothing, as
`python scripts/5_evaluate.py --leakReport` shows. The column 'certain' counts only the cells whose defect
probability is 0 or 1: the others are uncertain by construction. A refined network takes about twenty minutes on two
cores, less on a GPU.
"""

import argparse
import contextlib
import csv
import importlib.util
import re
import runpy
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any, Literal

from common import write_results

from libraries.base.console import table
from libraries.base.layout import Layout
from libraries.classifier.bundle import Classifier
from libraries.data.dataset import read_examples
from libraries.evaluation import testing
from PARAMETERS import Parameters

SCRIPTS = Path(__file__).parents[1] / "scripts"
PLAIN = {"duplicates": "exact"}
STEPS = ("0_downloadData", "1_prepareData", "2_refineDNN", "3_runDNN", "4_trainSVM", "5_evaluate")
SVM: dict[str, dict[str, Any]] = {
    "svm": {},
    "svm, bf16": {"run_precision": "bf16"},
    "svm, 8 views": {"rf_views": 8},
}
DNN: dict[str, dict[str, Any]] = {
    "dnn, 20 epochs, 8 views": {
        "classifier": "dnn",
        "rf_maxEpochs": 20,
        "rf_augmentation": "anyOrientation",
        "rf_views": 8,
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--svm_seeds", type=int, default=5)
    parser.add_argument("--dnn_seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=[*SVM, *DNN], default=[*SVM, *DNN], help="rows of the table")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()

    certain = certain_cells()
    runs = [(name, settings, options.svm_seeds) for name, settings in SVM.items()]
    runs += [(name, settings, options.dnn_seeds) for name, settings in DNN.items()]
    runs = [run for run in runs if run[0] in options.only]
    results: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as root:
        for name, settings, seeds in runs:
            for seed in range(seeds):
                results.setdefault(name, []).append(measure(Path(root), settings, seed=seed, certain=certain))
    print("\n" + describe(results))
    write_results(options.json, {"results": results})


def measure(root: Path, settings: dict[str, Any], *, seed: int, certain: set[str]) -> dict[str, float]:
    """Run all scripts and read what the evaluation wrote."""
    parameters = Parameters.load({"rootDir": root, "randomSeed": seed, "runHistory": False, **PLAIN, **settings})
    with contextlib.redirect_stdout(sys.stderr):  # the table alone goes to standard output
        for step in STEPS:
            runpy.run_path(str(SCRIPTS / f"{step}.py"))["main"](parameters)
    folder = root / "proc" / "solarCells" / f"evaluation_{parameters.classifier}"
    with (folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    right = [row["label"] == row["predicted"] for row in rows]
    right_certain = [r for r, row in zip(right, rows, strict=True) if Path(row["path"]).name in certain]
    return {
        "accuracy": statistics.mean(right),
        "certain": statistics.mean(right_certain),
        "in bf16": accuracy_of_bundle(parameters, precision="bf16"),
    }


def accuracy_of_bundle(parameters: Parameters, *, precision: Literal["f32", "bf16"]) -> float:
    """What the bundle, as it was trained, reaches on the test images when it computes in another precision."""
    layout = Layout(parameters)
    examples = [e for e in read_examples(layout.examples.folder / "examples.csv") if e.split == "test"]
    tested = testing.classify(Classifier(layout.bundle.folder, precision=precision), examples, images=layout.images)
    return float((tested.predictions == tested.labels).mean())


def certain_cells() -> set[str]:
    """File names of the cells whose defect probability is 0 or 1."""
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None or spec.origin is None:
        raise SystemExit("pip install elpv-dataset")
    lines = (Path(spec.origin).parent / "data" / "labels.csv").read_text().splitlines()
    rows = [re.split(r"\s+", line.strip()) for line in lines]
    return {Path(row[0]).name for row in rows if float(row[1]) in (0.0, 1.0)}


def describe(results: dict[str, list[dict[str, float]]]) -> str:
    def spread(values: list[float]) -> str:
        return f"{statistics.mean(values):.1%} ({min(values):.1%} to {max(values):.1%})"

    rows = [
        (name, len(found), *(spread([run[key] for run in found]) for key in ("accuracy", "certain", "in bf16")))
        for name, found in results.items()
        if found
    ]
    header = ["", "splits", "test accuracy: mean (range)", "certain cells only", "same bundle in bf16"]
    return table("Solar cells, EfficientNet-Lite0 at 224 pixels", header, rows)


if __name__ == "__main__":
    main()
