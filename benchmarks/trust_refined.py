"""Are the promises of refined networks kept? Scripts 1 to 5 as they are, on one split after the other.

    python benchmarks/trust_refined.py [--splits 20] [--size 64] [--epochs 4] [--json results.json]

On scikit-learn's handwritten digits (1,797 images of ten classes): for each seed a split, a network that is refined on
it, and both of its classifiers, dnn and svmDnnRefined. Of the test images, how many are called unknown (5% at most were
promised), and how often the true label is among the likely ones (90% at least). The thresholds come from the tenth of
the training images that chooses the epoch: about 130.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from common import circumstances, write_results
from review import digits

from libraries.base.console import table

SCRIPTS = Path(__file__).parents[1] / "scripts"
CLASSIFIERS = ("dnn", "svmDnnRefined")


def run(step: str, root: Path, **parameters: object) -> None:
    given = {"datasetName": "digits", "rootDir": root, "runHistory": False, **parameters}
    flags = [text for name, value in given.items() for text in (f"--{name}", str(value))]
    done = subprocess.run([sys.executable, SCRIPTS / f"{step}.py", *flags], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)


def kept(root: Path, *, seed: int, size: int, epochs: int) -> dict[str, dict[str, float]]:
    """What metrics.json says of each classifier on a split."""
    options = {"randomSeed": seed, "rf_inputResolution": size, "rf_maxEpochs": epochs}
    found = {}
    for classifier in CLASSIFIERS:
        for step in ("1_prepareData", "2_refineDNN", "3_runDNN", "4_trainSVM", "5_evaluate"):
            run(step, root, classifier=classifier, **options)
        metrics = json.loads((root / f"proc/digits/evaluation_{classifier}/metrics.json").read_text())
        trust = metrics["trust"]
        of_classes = trust["sets"]["measured_per_class"].values()
        found[classifier] = {
            "accuracy": metrics["overall_accuracy"],
            "unknown": trust["unknown"]["measured"],
            "in the set": trust["sets"]["measured"],
            "least class": min(of_classes),
            "labels": trust["sets"]["labels_on_average"],
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--size", type=int, default=64, help="of the network's input (default: %(default)s pixels)")
    parser.add_argument("--epochs", type=int, default=4, help="default: %(default)s")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as root:
        digits(Path(root) / "images" / "digits")
        for seed in range(options.splits):
            found.append(kept(Path(root), seed=seed, size=options.size, epochs=options.epochs))
            print(seed, json.dumps(found[-1]), file=sys.stderr, flush=True)
    rows = []
    for classifier in CLASSIFIERS:
        values = {name: [each[classifier][name] for each in found] for name in found[0][classifier]}
        told = {name: f"{np.mean(v):.1%} ({min(v):.1%} to {max(v):.1%})" for name, v in values.items()}
        rows.append([classifier, *(told[name] for name in ("accuracy", "unknown", "in the set"))])
        rows[-1].append(f"{np.mean(values['labels']):.2f}")
    header = ["", "accuracy", "unknown", "true label in the set", "labels"]
    print(table(f"Promised: unknown 5% at most, in the set 90% at least; {len(found)} splits", header, rows))
    about = circumstances()
    print(f"{about['machine']}; {about['date']}")
    write_results(options.json, {str(seed): each for seed, each in enumerate(found)})


if __name__ == "__main__":
    main()
