"""Cross-validation of SVMs: the folds, which C to take, and the calibration and accuracy that result.

Folds are stratified by class, whole groups on one side, and no class is left out altogether.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated

import numpy as np
import numpy.typing as npt

from libraries.base.arrays import Bool, Float32, Float64, Int
from libraries.base.pool import side_by_side
from libraries.base.tables import Column
from libraries.classifier.calibration import Calibration, fit_calibration
from libraries.classifier.costs import Costs, answers

NEVER_LEFT_OUT = -1
FEW = 200  # independent examples: with fewer, the best of many rows is mostly the luckiest
CLEARLY = 2.0  # standard errors


def assign_folds(labels: npt.ArrayLike, *, folds: int, groups: npt.ArrayLike | None = None, seed: int = 0) -> Int:
    """The fold of every example, int64 [N], the same for the same seed.

    Groups are dealt out one by one, large ones first, each to the fold that has least of its classes, then least of
    all. With groups of one example this is the usual stratification: in every class the folds' counts differ by at most
    one. A class with fewer groups than folds is missing from some validation parts. If no class has as many groups as
    there are folds, there are that many fewer folds, but never less than two.

    What a model says of a class that it has never seen is worth nothing, so every class is in all training parts: a
    class with a single group is dealt out by its examples, and the examples of a class that would still lie in one fold
    alone, as a single example does, have the fold NEVER_LEFT_OUT. Where all have, there is nothing to cross-validate.
    """
    # Not scikit-learn's StratifiedGroupKFold: in 82 of 100 small data sets it left a class out of a training part, and
    # it evens the folds no better in thirty times the time.
    _, class_of = np.unique(np.asarray(labels), return_inverse=True)
    names = np.arange(len(class_of)) if groups is None else np.asarray(groups)
    group_of = _part_single_groups(np.unique(names, return_inverse=True)[1], class_of)
    counts = np.zeros((group_of.max() + 1, class_of.max() + 1))  # of examples, [groups, classes]
    np.add.at(counts, (group_of, class_of), 1)
    folds = max(2, min(folds, int((counts > 0).sum(axis=0).max())))

    shuffled = np.random.default_rng(seed).permutation(len(counts))
    large_first = shuffled[np.argsort(-counts.sum(axis=1)[shuffled], kind="stable")]
    share = counts / counts.sum(axis=0)  # of its classes that a group holds
    held = np.zeros((folds, counts.shape[1]))  # by each fold so far, of each class
    sizes = np.zeros(folds)
    fold_of_group = np.empty(len(counts), np.int64)
    for group in large_first:
        of_its_classes = (held @ share[group]).round(9)  # rounded, so that equal folds tie
        fold = np.lexsort((sizes, of_its_classes))[0]
        fold_of_group[group] = fold
        held[fold] += counts[group]
        sizes[fold] += counts[group].sum()
    return _keep_whole_classes(fold_of_group[group_of], is_alone=(held > 0).sum(axis=0)[class_of] == 1)


def groups_per_class(labels: npt.ArrayLike, *, number_of_classes: int, groups: npt.ArrayLike | None = None) -> Int:
    """How many groups have examples of each class, int64 [K]; each example is its own group by default."""
    y = np.asarray(labels, np.int64)
    _, group_of = np.unique(np.arange(len(y)) if groups is None else np.asarray(groups), return_inverse=True)
    pairs = np.unique(np.stack([y, group_of]), axis=1)
    return np.bincount(pairs[0], minlength=number_of_classes)


def _part_single_groups(group_of: Int, class_of: Int) -> Int:
    """The groups [N], where each example of a class with a single group is a group of its own."""
    is_single = (groups_per_class(class_of, number_of_classes=class_of.max() + 1, groups=group_of) == 1)[class_of]
    parted = np.where(is_single, group_of.max() + 1 + np.arange(len(group_of)), group_of)
    return np.unique(parted, return_inverse=True)[1]


def _keep_whole_classes(fold_of: Int, *, is_alone: Bool) -> Int:
    """The folds [N], without examples whose class lies in one fold alone; numbered without gaps."""
    kept = np.unique(fold_of[~is_alone])
    return np.where(is_alone, NEVER_LEFT_OUT, np.searchsorted(kept, fold_of))


@dataclass(frozen=True)
class Validation:
    """The folds of N training examples.

    Attributes:
        fold_of: int [N], NEVER_LEFT_OUT for examples that count neither for the calibration nor for the accuracy.
        labels, groups: int [N].
        number_of_classes: K; some may have no training examples.
        costs: of mistakes; None: all cost the same.
    """

    fold_of: Int
    labels: Int
    groups: Int
    number_of_classes: int
    costs: Costs | None = None

    @property
    def folds(self) -> range:
        return range(int(self.fold_of.max()) + 1)

    @property
    def is_scored(self) -> Bool:
        """Which examples are left out in some fold, [N]."""
        return np.asarray(self.fold_of != NEVER_LEFT_OUT)

    @property
    def independent(self) -> int:
        """The number of groups among the scored examples."""
        return len(np.unique(self.groups[self.is_scored]))

    def calibrate(self, scores: Float32, *, training_scores: Float32) -> Calibration:
        """The calibration by out-of-fold scores [N, K]; without any, by those of the models on their own examples."""
        if self.is_scored.any():
            return self._calibrate(scores, self.is_scored, training_scores=training_scores)
        # Platt's targets keep even these from certainty: of a single example, two thirds.
        return fit_calibration(training_scores, self.labels, evidence=self._evidence).heard(training_scores)

    def answers(self, scores: Float32, *, training_scores: Float32, start: Calibration) -> tuple[Bool, Float64]:
        """Whether the answers by out-of-fold scores [N, K] are right, [N], and what they are worth, [N].

        In each fold by the calibration of the other folds. A right answer is worth one and a wrong one nothing; or, if
        mistakes have costs, less than nothing by these.

        Args:
            training_scores: [N, K], see `calibrate`.
            start: the calibration of all folds, near those of all but one.
        """
        found, asked = np.full_like(self.labels, -1), np.zeros(len(self.labels), bool)

        def leave_out(fold: int) -> None:
            chosen = self.fold_of == fold
            others = self._calibrate(scores, self.is_scored & ~chosen, training_scores=training_scores, start=start)
            probabilities = others.probabilities(scores[chosen])
            found[chosen] = answers(probabilities, self.costs)
            if self.costs is not None:
                asked[chosen] = self.costs.asks(probabilities)

        side_by_side([partial(leave_out, fold) for fold in self.folds])
        right = np.asarray(found == self.labels)
        return right, right.astype(float) if self.costs is None else -self.costs.paid(self.labels, found, asked)

    def accuracy(self, is_right: Bool) -> tuple[float | None, float | None]:
        """The accuracy on the scored examples, and the standard deviation of the folds'."""
        if not self.is_scored.any():
            return None, None
        by_fold = [is_right[self.fold_of == fold].mean() for fold in self.folds]
        return float(is_right[self.is_scored].mean()), float(np.std(by_fold))

    def cost(self, worth: Float64) -> float | None:
        """What the answers to the scored examples cost on average; None: mistakes have no costs."""
        return None if self.costs is None or not self.is_scored.any() else -float(worth[self.is_scored].mean())

    def _calibrate(
        self, scores: Float32, chosen: Bool, *, training_scores: Float32, start: Calibration | None = None
    ) -> Calibration:
        fitted = fit_calibration(scores[chosen], self.labels[chosen], evidence=self._evidence, start=start)
        return fitted.heard(training_scores)

    @property
    def _evidence(self) -> Float64:
        """Scored groups of each class, [K]; a class without training examples certainly never occurs."""
        k, scored = self.number_of_classes, self.is_scored
        found = groups_per_class(self.labels[scored], number_of_classes=k, groups=self.groups[scored])
        return np.where(np.bincount(self.labels, minlength=k) > 0, found, np.inf)


@dataclass(frozen=True)
class SweepRow:
    """The accuracies of one normalisation and one C, where the answer is that of the bundle.

    Attributes:
        train_accuracy: fraction, of the model fitted on all examples, on these examples: memorised, not an estimate of
            anything. Since the calibration is fitted to the lower scores of examples that the model has not seen, it
            may be below 100% although the highest score is always right.
        validation_accuracy: fraction, on out-of-fold scores, calibrated in each fold by the other folds' scores: on the
            scores that it was fitted on, the calibration would flatter itself (by 0.04 points with 2 classes and 1,968
            examples, but by 1.2 points with 50 classes and 1,000 examples). None where no example could be left out.
        validation_std: standard deviation of the folds' accuracies; None with it.
        validation_cost: what the answers to the left-out examples cost on average; None: mistakes have no costs.
    """

    normalisation: Annotated[str, Column("how embeddings are normalised: l2, sqrt_l2 or standardise")]
    C: Annotated[float, Column("weight of mistakes relative to a wide margin")]
    train_accuracy: Annotated[float, Column("fraction of the training images that are right; not an estimate")]
    validation_accuracy: Annotated[float | None, Column("fraction of left-out training images that are right")]
    validation_std: Annotated[float | None, Column("standard deviation of the folds' accuracies")]
    validation_cost: Annotated[
        float | None,
        Column("what the answers to left-out training images cost on average; empty: mistakes have no costs"),
    ] = field(default=None, kw_only=True)

    @property
    def loss(self) -> float:
        """What is as small as possible in the row that is chosen."""
        return -(self.validation_accuracy or 0.0) if self.validation_cost is None else self.validation_cost


def choose(rows: Sequence[SweepRow]) -> int:
    """The row of the highest validation accuracy, or the lowest cost; among equals, of the smallest C.

    On 10 to 12 splits of the solar cells, with four kinds of embedding, neither the one-standard-error rule nor the
    lowest log loss differed from this by more than about 0.2 points of test accuracy, in either direction.
    """
    return min(range(len(rows)), key=lambda i: (rows[i].loss, rows[i].C))


def has_turned(
    path: Sequence[SweepRow], worth: Sequence[Float64], *, best: Float64, groups: Int, dimensions: int
) -> bool:
    """Whether no larger C is worth trying, after these of one normalisation.

    It is not if the last is clearly worse than the best of the path. From the usual C on, from which accuracy seldom
    rises again, it is not either if the last is no better than the best of the path, and clearly worse than the best of
    all, or the second that is no better. Where accuracy does not depend on C, the smallest is chosen anyway.

    Args:
        path: rows of one normalisation, of ascending C.
        worth: per row, see `choose_from_few`.
        best: of the best row of all normalisations so far, the same.
    """
    first = choose(path)
    no_better = len(path) - 1 - first
    if not no_better or not len(groups):
        return False
    if _is_clearly_better(worth[first], worth[-1], groups=groups):
        return True
    if usual_c(path[-1].normalisation, dimensions=dimensions) > path[-1].C:
        return False
    return no_better > 1 or _is_clearly_better(best, worth[-1], groups=groups)


def choose_from_few(rows: Sequence[SweepRow], worth: Sequence[Float64], *, groups: Int, dimensions: int) -> int:
    """The usual row, unless others are clearly better: then the best of those, as in `choose`.

    Args:
        worth: per row, [N], what the answer to each example is worth when it is left out; N may be 0.
        groups: int [N].
        dimensions: of an embedding.
    """
    usual = usual_row(rows, dimensions=dimensions)
    candidates = [i for i, mine in enumerate(worth) if _is_clearly_better(mine, worth[usual], groups=groups)]
    return candidates[choose([rows[i] for i in candidates])] if candidates else usual


def choose_for_more(rows: Sequence[SweepRow], worth: Sequence[Float64], *, groups: Int) -> int:
    """The row for more examples than have chosen: the least C within a standard error of the best one's accuracy.

    The losses of more examples weigh more against the margin, so their best C is seldom larger. Of 60,000
    generated embeddings, a sample of 20,000 found 0.1 the best by chance, which cost 0.2 points.
    """
    best = choose(rows)
    candidates = [
        i
        for i, (row, mine) in enumerate(zip(rows, worth, strict=True))
        if row.normalisation == rows[best].normalisation
        and row.C <= rows[best].C
        and not _is_clearly_better(worth[best], mine, groups=groups, errors=1)
    ]
    return min(candidates, key=lambda i: rows[i].C)


def _is_clearly_better(one: Float64, other: Float64, *, groups: Int, errors: float = CLEARLY) -> bool:
    """Whether it is worth more, by more than so many standard errors; a group counts as one draw."""
    by_group = np.bincount(groups, weights=one - other)
    return float(by_group.sum()) > errors * math.sqrt(float(by_group @ by_group))


def usual_c(normalisation: str, *, dimensions: int) -> float:
    """1; standardised embeddings are longer, by sqrt(dimensions)."""
    return 1 / dimensions if normalisation == "standardise" else 1.0


def usual_row(rows: Sequence[SweepRow], *, dimensions: int) -> int:
    """The row of sqrt_l2, else of l2, and the C nearest the usual one.

    On 67 small parts of the solar cells, of printed letters and of artificial data, 1 to 15 examples a class, sqrt_l2
    with C = 1 was 2.4 points better than l2 with C = 1 on average, and never 4 points worse.
    """
    order = [*dict.fromkeys(row.normalisation for row in rows)]
    first = next((name for name in ("sqrt_l2", "l2") if name in order), order[0])
    usual = usual_c(first, dimensions=dimensions)
    mine = [i for i, row in enumerate(rows) if row.normalisation == first]
    return min(mine, key=lambda i: abs(math.log(rows[i].C / usual)))
