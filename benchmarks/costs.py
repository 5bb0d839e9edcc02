"""What is gained by costs: the class-averaged accuracy, and the costs of a table, against the most probable label.

    python benchmarks/costs.py [--images FOLDER ...] [--splits 20] [--json results.json]

On random splits, three quarters for training, for each of the sets of review.py: the accuracy and the class-averaged
accuracy of the test images, with equal costs and with costs = classAveraged; and, where to mistake the rarest class for
another costs ten times as much as other mistakes and asking a person as much as half a mistake, what is paid for 100
images: by the most probable labels of an SVM chosen for accuracy, by the answers that cost least, and if a person may
be asked.
"""

import argparse
from pathlib import Path

import numpy as np
from common import circumstances, write_results
from review import labelled_sets

from libraries.base.console import table
from libraries.classifier.costs import Costs
from libraries.classifier.sweep import sweep

C_VALUES = (0.01, 0.1, 1.0, 10.0)


def measured(x: np.ndarray, y: np.ndarray, *, seed: int) -> dict[str, float]:
    """The figures of one split."""
    names = [str(k) for k in range(y.max() + 1)]
    order = np.random.default_rng(seed).permutation(len(y))
    training, tested = np.split(order, [3 * len(y) // 4])
    truth, nobody = y[tested], np.zeros(len(tested), bool)
    rarest = names[int(np.bincount(y[training]).argmin())]
    rows = [("*", "*", 1.0), (rarest, "*", 10.0)]
    dear, asking = Costs.of(rows, names), Costs.of([*rows, ("*", "ask", 0.5)], names)
    found: dict[str, float] = {}
    for name, costs in {
        "equal": None, "averaged": Costs.averaging(y[training], names), "dear": dear, "asking": asking
    }.items():  # fmt: skip
        result = sweep(
            x[training], y[training], number_of_classes=len(names), c_values=C_VALUES, normalisations=("sqrt_l2",),
            costs=costs, seed=seed,
        )  # fmt: skip
        p = result.calibrations[result.best].probabilities(result.models[result.best].scores(x[tested]))
        answers = p.argmax(axis=1) if costs is None else costs.answers(p)
        if name in ("equal", "averaged"):
            found[f"{name}: accuracy"] = float((answers == truth).mean())
            by_class = [(answers[truth == k] == k).mean() for k in range(len(names)) if (truth == k).any()]
            found[f"{name}: class-averaged"] = float(np.mean(by_class))
        if name in ("equal", "dear"):
            found[f"{name}: cost"] = 100 * float(dear.paid(truth, answers, nobody).mean())
        if name == "asking":
            found["asking: cost"] = 100 * float(asking.paid(truth, answers, asking.asks(p)).mean())
            found["asked"] = float(asking.asks(p).mean())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, nargs="*", default=[], help="folders of images for each class")
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    figures, of_accuracy, of_costs = {}, [], []
    for name, x, y in labelled_sets(options.images):
        each = [measured(x.astype(np.float32), y, seed=seed) for seed in range(options.splits)]
        figures[name] = {key: [one[key] for one in each] for key in each[0]}
        of = {key: np.array(values) for key, values in figures[name].items()}
        gain = 100 * (of["averaged: class-averaged"] - of["equal: class-averaged"])
        of_accuracy.append([
            name, f"{of['equal: accuracy'].mean():.1%}", f"{of['averaged: accuracy'].mean():.1%}",
            f"{of['equal: class-averaged'].mean():.1%}", f"{of['averaged: class-averaged'].mean():.1%}",
            f"{gain.mean():+.1f} ({gain.min():+.1f} to {gain.max():+.1f})",
        ])  # fmt: skip
        of_costs.append([
            name, *(f"{of[f'{kind}: cost'].mean():.1f}" for kind in ("equal", "dear", "asking")),
            f"{of['asked'].mean():.1%}",
        ])  # fmt: skip
    header = [
        "images",
        "accuracy",
        "with classAveraged",
        "class-averaged",
        "with classAveraged",
        "gain in points (range)",
    ]
    print(table(f"{options.splits} splits, means", header, of_accuracy))
    header = ["images", "most probable", "least cost", "or ask", "asked"]
    print(table("The rarest class costs ten times as much, asking half: cost of 100 images", header, of_costs))
    about = circumstances()
    print(f"{about['machine']}; {about['date']}")
    write_results(options.json, figures)


if __name__ == "__main__":
    main()
