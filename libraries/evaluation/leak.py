"""What duplicates do to a plain random split: test images with a copy in training, and accuracy that is not real."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from libraries.base.arrays import Bool, Float32, Float64, Int
from libraries.base.errors import StorageError
from libraries.base.tables import read_table
from libraries.classifier.svm import fit_path
from libraries.data.dataset import Example, split
from libraries.network.embedding_store import Features

SPLITS = 10


@dataclass(frozen=True)
class LeakedImages:
    """Over plain random splits, each image on its own.

    Attributes:
        leaked, tested: int [S], test images with a duplicate in training, and all test images.
    """

    leaked: Int
    tested: Int

    def summary(self) -> str:
        if not self.tested.any():
            return "Under a plain random split there would be no test image: each class has a single image"
        mean, low, high = self.leaked.mean(), self.leaked.min(), self.leaked.max()
        return (
            f"Under a plain random split {mean:,.1f} of {self.tested.mean():,.0f} test images "
            f"({mean / self.tested.mean():.1%}) would have had a duplicate in training: mean of {len(self.leaked)} "
            f"splits, {low:,} to {high:,}"
        )


@dataclass(frozen=True)
class LeakedAccuracy:
    """Accuracy of linear SVMs, float [S], over as many splits.

    Attributes:
        plain, grouped: with every image on its own, and with duplicates on one side; NaN if no test image is left so.
        of_leaked, of_others: in the plain splits, of the test images with a duplicate in training, and of all others.
    """

    plain: Float64
    grouped: Float64
    of_leaked: Float64
    of_others: Float64

    def summary_lines(self) -> list[str]:
        def described(values: Float64) -> str:
            return f"{values.mean():.1%} ({values.min():.1%} to {values.max():.1%})"

        if np.isnan(self.grouped).any():
            return ["What that does to the accuracy is unknown: with duplicates on one side no test image is left"]
        lines = [
            f"Accuracy of a linear SVM, mean (range) of {len(self.plain)} splits each: plain {described(self.plain)}, "
            f"duplicates on one side {described(self.grouped)}: the leak is worth "
            f"{100 * (self.plain.mean() - self.grouped.mean()):+.1f} points"
        ]
        known = np.isfinite(self.of_leaked) & np.isfinite(self.of_others)
        if known.any():
            lines.append(
                f"In the plain splits, test images with a duplicate in training: {self.of_leaked[known].mean():.1%}; "
                f"all others: {self.of_others[known].mean():.1%}"
            )
        return lines


def report(
    examples: Sequence[Example],
    features: Features,
    *,
    normalisation: str = "",
    c: float = 1.0,
    ratio_train: float,
    seed: int,
) -> list[str]:
    """What the duplicates would have done, in sentences.

    Args:
        examples: whose groups are the duplicates, and nothing else.
        features: of the examples, all or most of them.
        normalisation, c: of the SVM; no normalisation: the network was trained on some of the examples, so that
            nothing can be said of the accuracy.
    """
    seeds = range(seed, seed + SPLITS)
    images = leaked_images(examples, ratio_train=ratio_train, seeds=seeds)
    if not normalisation:
        advice = "What that does to the accuracy can be seen with classifier = 'svm', whose network is fixed"
        return [images.summary(), advice]
    row = {path: i for i, path in enumerate(features.path)}
    known = [e for e in examples if e.path in row]
    if not images.leaked.any() or len({e.label for e in known}) < 2:
        return [images.summary()]
    accuracy = leaked_accuracy(
        known,
        features.embedding[[row[e.path] for e in known]],
        ratio_train=ratio_train,
        seeds=seeds,
        normalisation=normalisation,
        c=c,
    )
    return [images.summary(), *accuracy.summary_lines()]


def plain_split(examples: Sequence[Example], *, ratio_train: float, seed: int) -> list[Example]:
    """A split in which every file is on its own."""
    return split([replace(e, group=e.path) for e in examples], ratio_train=ratio_train, seed=seed)


def leaked(examples: Sequence[Example], plain: Sequence[Example]) -> Bool:
    """Which images are in the test set of a plain split and have a duplicate in training, bool [N].

    Args:
        examples: whose groups are the duplicates.
        plain: the same examples, split.
    """
    trained = {e.group for e, p in zip(examples, plain, strict=True) if p.split == "train"}
    return np.array([p.split == "test" and e.group in trained for e, p in zip(examples, plain, strict=True)], bool)


def leaked_images(examples: Sequence[Example], *, ratio_train: float, seeds: Sequence[int]) -> LeakedImages:
    """Count them, over several plain splits."""
    splits = [plain_split(examples, ratio_train=ratio_train, seed=seed) for seed in seeds]
    counts = [int(leaked(examples, plain).sum()) for plain in splits]
    return LeakedImages(np.array(counts), np.array([sum(p.split == "test" for p in plain) for plain in splits]))


def leaked_accuracy(
    examples: Sequence[Example],
    embeddings: Float32,
    *,
    ratio_train: float,
    seeds: Sequence[int],
    normalisation: str,
    c: float,
) -> LeakedAccuracy:
    """Train and test on plain and on grouped splits.

    Args:
        examples: N, whose groups are the duplicates.
        embeddings: float32 [N, D], of a network that was not trained on them.
    """
    names = sorted({e.label for e in examples})
    labels = np.array([names.index(e.label) for e in examples])

    def is_right(parts: Sequence[Example]) -> tuple[Bool, Bool]:
        """Which images are in the test set, and which of all images are classified correctly, bool [N] each."""
        test = np.array([p.split == "test" for p in parts])
        x, y = embeddings[~test], labels[~test]
        model = next(fit_path(x, y, number_of_classes=len(names), c_values=[c], normalisation=normalisation))
        return test, model.scores(embeddings).argmax(axis=1) == labels

    rows = []
    for seed in seeds:
        parts = plain_split(examples, ratio_train=ratio_train, seed=seed)
        test, right = is_right(parts)
        has_twin = leaked(examples, parts)
        grouped_test, grouped_right = is_right(split(examples, ratio_train=ratio_train, seed=seed))
        rows.append(
            [
                right[test].mean(),
                grouped_right[grouped_test].mean() if grouped_test.any() else np.nan,
                right[has_twin].mean() if has_twin.any() else np.nan,
                right[test & ~has_twin].mean() if (test & ~has_twin).any() else np.nan,
            ]
        )
    return LeakedAccuracy(*np.array(rows).T)


def chosen_svm(sweep: Path) -> tuple[str, float]:
    """Normalisation and C that step 4 chose, by its table sweep.csv; where there is none, usual ones."""
    if not sweep.exists():
        return "standardise", 0.001
    rows = read_table(sweep, _Choice, advice="run scripts/4_trainSVM.py again")
    if not rows:
        raise StorageError(f"{sweep} cannot be read (it has no rows): run scripts/4_trainSVM.py again")
    best = min(rows, key=lambda row: (not row.chosen, -(row.validation_accuracy or 0.0), row.C))
    return best.normalisation, best.C


@dataclass(frozen=True)
class _Choice:
    """What is needed of sweep.csv; tables of earlier versions mark no row."""

    normalisation: str
    C: float
    validation_accuracy: float | None
    chosen: bool = False
