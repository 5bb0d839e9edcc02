"""Our sweep over C against scikit-learn's LinearSVC: same folds, same values of C, same objective, one table.

    python benchmarks/svm.py                               synthetic embeddings, 2,000 x 1,280, 2 classes
    python benchmarks/svm.py --examples 5000 --classes 10
    python benchmarks/svm.py --features DATA_DIR/proc/solarCells/features_svm

A row holds the fits of all folds and the refit for one C. 'excess' is how far above the lowest objective of the three a
contender stopped: the sum over its fits, relative. LinearSVC solves the primal (dual=False) or the dual ('defaults').
All run on one core: LIBLINEAR has no more, and our sweep runs one fold per core.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from common import write_results
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import LinearSVC
from threadpoolctl import threadpool_limits

from libraries.base.console import table
from libraries.classifier.cross_validation import assign_folds
from libraries.classifier.squared_hinge import objective
from libraries.classifier.svm import NORMALISATIONS, LinearModel, binary_problems, fit_path

Float = npt.NDArray[np.floating]
Int = npt.NDArray[np.int64]
Path_ = Iterator[Float]  # the weights [D + 1, columns] of one C after the other, bias last
Contender = Callable[[Float, Float, Int, str, list[float]], Path_]


def ours(embeddings: Float, _: Float, labels: Int, normalisation: str, c_values: list[float]) -> Path_:
    classes = int(labels.max()) + 1
    for model in fit_path(
        embeddings, labels, number_of_classes=classes, c_values=c_values, normalisation=normalisation
    ):
        weights = np.vstack([model.weights, model.bias])
        yield weights[:, 1:] if classes == 2 else weights


def scikit_learn(**options: object) -> Contender:
    def fit(_: Float, normalised: Float, labels: Int, normalisation: str, c_values: list[float]) -> Path_:
        for c in c_values:
            svc = LinearSVC(C=c, class_weight="balanced", **options).fit(normalised, labels)
            yield np.vstack([svc.coef_.T, svc.intercept_])

    return fit


CONTENDERS: dict[str, Contender] = {
    "ours": ours,
    "LinearSVC(dual=False)": scikit_learn(dual=False),
    "LinearSVC, defaults": scikit_learn(dual=True),
}


def synthetic(examples: int, features: int, classes: int, *, separation: float = 0.3) -> tuple[Float, Int]:
    """Like pooled activations: not negative, correlated, of unequal scales; one label in ten is wrong."""
    generator = np.random.default_rng(0)
    labels = np.arange(examples) % classes
    latent = generator.normal(size=(classes, 64))[labels] * separation + generator.normal(size=(examples, 64))
    mixing = generator.normal(size=(64, features)) * generator.uniform(0.02, 0.3, features)
    noise = 0.3 * generator.normal(size=(examples, features))
    wrong = generator.uniform(size=examples) < 0.1
    labels = np.where(wrong, generator.integers(0, classes, examples), labels)
    return np.maximum(latent @ mixing + noise, 0).astype(np.float32), labels


def stored(folder: Path) -> tuple[Float, Int]:
    """The training part of a feature store."""
    from libraries.network.embedding_store import read_features

    features = read_features(folder)
    is_train = np.array(features.split) == "train"
    return features.embedding[is_train], np.unique(features.label, return_inverse=True)[1][is_train]


def compare(
    embeddings: Float, labels: Int, normalisation: str, c_values: list[float], folds: int
) -> tuple[Float, Float]:
    """Seconds and objectives, each [contenders, values of C], summed over the folds and the refit."""
    fold_of = assign_folds(labels, folds=folds)
    classes = int(labels.max()) + 1
    seconds, objectives = np.zeros((2, len(CONTENDERS), len(c_values)))
    for chosen in [fold_of != fold for fold in range(folds)] + [np.ones(len(labels), bool)]:
        x, y = embeddings[chosen], labels[chosen]
        (prepared,) = fit_path(x, y, number_of_classes=classes, c_values=[1e-9], normalisation=normalisation)
        normalised = LinearModel.normalise(prepared, x).astype(np.float64)
        with_bias = np.hstack([normalised, np.ones((len(y), 1))])
        targets, weights = binary_problems(y, classes, "balanced")
        for i, fit in enumerate(CONTENDERS.values()):
            path = fit(x, normalised, y, normalisation, c_values)
            for j, c in enumerate(c_values):
                start = time.perf_counter()
                solution = next(path)
                seconds[i, j] += time.perf_counter() - start
                objectives[i, j] += objective(with_bias, targets, weights, c, solution).sum()
    return seconds, objectives


def report(normalisation: str, c_values: list[float], seconds: Float, objectives: Float) -> str:
    excess = objectives / objectives.min(axis=0) - 1
    header = ["C", *(f"{name}{what}" for name in CONTENDERS for what in (" [s]", " excess")), "ratios"]
    rows = []
    for j, c in enumerate(c_values):
        cells = [f"{value:{form}}" for i in range(len(CONTENDERS)) for value, form in _cells(seconds, excess, i, j)]
        rows.append([f"{c:g}", *cells, " ".join(f"{r:.1f}x" for r in seconds[1:, j] / seconds[0, j])])
    total = seconds.sum(axis=1)
    cells = [cell for t in total for cell in (f"{t:.2f}", "")]
    footer = ["all", *cells, " ".join(f"{r:.1f}x" for r in total[1:] / total[0])]
    return table(f"Normalisation {normalisation}", header, rows, footer=footer)


def _cells(seconds: Float, excess: Float, i: int, j: int) -> list[tuple[float, str]]:
    return [(float(seconds[i, j]), ".2f"), (float(excess[i, j]), ".0e")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=2000)
    parser.add_argument("--dimension", type=int, default=1280)
    parser.add_argument("--classes", type=int, default=2)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--c-values", type=float, nargs="+", default=[10.0**e for e in range(-4, 3)])
    parser.add_argument("--normalisations", nargs="+", default=NORMALISATIONS, choices=NORMALISATIONS)
    parser.add_argument("--features", type=Path, help="a feature store instead of synthetic embeddings")
    parser.add_argument("--json", type=Path, help="write the results here")
    arguments = parser.parse_args()

    if arguments.features:
        embeddings, labels = stored(arguments.features)
    else:
        embeddings, labels = synthetic(arguments.examples, arguments.dimension, arguments.classes)
    examples, dimension = embeddings.shape
    print(f"{examples:,} embeddings of {dimension:,} numbers, {labels.max() + 1} classes, {arguments.folds} folds")
    c_values = sorted(arguments.c_values)
    results = {}
    for normalisation in arguments.normalisations:
        with warnings.catch_warnings(), threadpool_limits(1):
            warnings.simplefilter("ignore", ConvergenceWarning)  # the excess says it better
            seconds, objectives = compare(embeddings, labels, normalisation, c_values, arguments.folds)
        print(report(normalisation, c_values, seconds, objectives))
        results[normalisation] = dict(zip(CONTENDERS, seconds.sum(axis=1).tolist(), strict=True))
    write_results(arguments.json, {"seconds": results})


if __name__ == "__main__":
    main()
