"""SVMs for every normalisation and C; the best is chosen by cross-validation, fitted to convergence, and kept."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from libraries.base.arrays import Bool, Float32, Float64, Int
from libraries.base.console import counting
from libraries.base.errors import InputError, ParameterError
from libraries.base.pool import one_blas_thread
from libraries.classifier.calibration import Calibration
from libraries.classifier.costs import Costs
from libraries.classifier.cross_validation import (
    FEW,
    NEVER_LEFT_OUT,
    SweepRow,
    Validation,
    assign_folds,
    choose,
    choose_for_more,
    choose_from_few,
    has_turned,
)
from libraries.classifier.svm import NORMALISATIONS, ClassWeight, Examples, LinearModel, Parts

MOST = 20_000  # examples that choose: of 60,000 in 10 classes, samples of 10,000 and 20,000 chose as all did
FEWEST = 50  # of a class among them, if it has so many


@dataclass(frozen=True)
class Sweep:
    """Every normalisation and C that was tried, and the choice among them.

    Attributes:
        rows: by normalisation, then ascending C.
        models: per row: the chosen one fitted on all examples, to convergence; others as far as `Parts` goes, on those
            that choose.
        chosen_by: bool [N], the n examples that were cross-validated: all, or a sample of them (see `sample`).
        out_of_fold_scores: per row, float32 [n, K]: of each of these by the model that was fitted without its fold; NaN
            for an example that is in no fold (see assign_folds), or that the network has seen.
        calibrations: per row, fitted on out_of_fold_scores; where there are none, on the scores of the training
            examples, without a bias.
        best: index of the chosen row.
        untried: by normalisation, the larger C that were not tried, because accuracy had turned (see has_turned).
    """

    rows: list[SweepRow]
    models: list[LinearModel]
    chosen_by: Bool
    out_of_fold_scores: list[Float32]
    calibrations: list[Calibration]
    best: int
    untried: dict[str, list[float]]


def normalisations(l2: Literal["auto"] | bool) -> tuple[str, ...]:
    """The normalisations to choose from: all, only embeddings of length 1, or only standardised ones."""
    return NORMALISATIONS if l2 == "auto" else ("l2",) if l2 else ("standardise",)


def sweep(
    embeddings: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    number_of_classes: int,
    c_values: Sequence[float],
    normalisations: Sequence[str] = NORMALISATIONS,
    folds: int = 5,
    groups: Sequence[str] | None = None,
    seen: npt.ArrayLike | None = None,
    costs: Costs | None = None,
    class_weight: ClassWeight = "balanced",
    seed: int = 0,
    folder: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Sweep:
    """Cross-validate every normalisation, along ascending C until accuracy has turned, and choose the best.

    The choice is made among SVMs fitted as far as it needs, on a sample of the examples where they are many; the chosen
    one is then fitted to convergence on all.

    Args:
        embeddings: float32 [N, D], the training set alone.
        labels: int [N], 0 <= label < number_of_classes.
        c_values: > 0, in any order.
        folds: of the cross-validation; see assign_folds for classes with fewer members, and choose_from_few for how the
            best is chosen where there are few; then every C is tried.
        groups: [N], examples of one group never stand on both sides; each is its own group by default.
        seen: bool [N], examples that the network was trained on, whose embeddings say nothing of how others fare: they
            are always trained on, and never judged. None: none of them.
        costs: of mistakes, which the choice makes as small as possible; None: all cost the same.
        class_weight: 'balanced' weighs the examples of each class by N / (classes * members), as scikit-learn does.
        folder: for temporary files, where there are more examples than fit into memory; see `large_arrays`.
        progress: called with the number of values of C done and of all, those not worth trying included.

    Raises:
        InputError, ParameterError: the examples, or the parameters, cannot be used.
    """
    x, y = _checked(embeddings, labels, number_of_classes)
    c_values = _checked_parameters(c_values, normalisations)
    group_of = np.unique(np.arange(len(y)) if groups is None else np.asarray(groups), return_inverse=True)[1]
    chosen_by = sample(y, group_of, most=MOST, seed=seed)
    y_few, group_few = y[chosen_by], group_of[chosen_by]
    fold_of = _folds(y_few, group_few, None if seen is None else np.asarray(seen, bool)[chosen_by], folds, seed)
    validation = Validation(fold_of, y_few, group_few, number_of_classes, costs)
    of_classes = partial(Examples, number_of_classes=number_of_classes, class_weight=class_weight, folder=folder)
    few = partial(of_classes, x if chosen_by.all() else x[chosen_by], y_few)
    search = _Search(few, validation, chosen_by=chosen_by, dimensions=x.shape[1])
    count = counting(progress, len(normalisations) * len(c_values) + 1)
    with one_blas_thread():
        for normalisation in normalisations:
            search.follow(normalisation, c_values, count=count)
        search.finish(partial(of_classes, x, y), y)
        count()
    return search.result


def _folds(labels: Int, groups: Int, seen: Bool | None, folds: int, seed: int) -> Int:
    """The folds [n] of the examples that the network has not seen."""
    if seen is None or not seen.any():
        return assign_folds(labels, folds=folds, groups=groups, seed=seed)
    fold_of, unseen = np.full(len(labels), NEVER_LEFT_OUT), np.flatnonzero(~seen)
    if len(unseen) > 1:
        found = assign_folds(labels[unseen], folds=folds, groups=groups[unseen], seed=seed)
        # Others of its class have been seen, so that even a single one can be left out.
        alone = np.flatnonzero((found == NEVER_LEFT_OUT) & np.isin(labels[unseen], labels[seen]))
        found[alone] = np.arange(len(alone)) % max(2, found.max() + 1)
        if found.max() > 0:  # in each fold, the others calibrate
            fold_of[unseen] = found
    return fold_of


def sample(labels: Int, groups: Int, *, most: int, seed: int, fewest: int = FEWEST) -> Bool:
    """About `most` examples, [N]: of each class its share, but `fewest` if it has so many; groups stay whole."""
    if len(labels) <= most:
        return np.ones(len(labels), bool)
    members = np.bincount(labels)
    wanted = np.maximum(members * most / len(labels), fewest)
    place_of_group = np.random.default_rng(seed).permutation(groups.max() + 1)
    order = np.lexsort((place_of_group[groups], labels))
    place = np.empty(len(labels), np.int64)  # of an example in its class
    place[order] = np.arange(len(labels)) - (members.cumsum() - members)[labels[order]]
    taken = np.zeros(len(place_of_group), bool)
    taken[groups[place < wanted[labels]]] = True
    return np.asarray(taken[groups])


class _Search:
    """The sweep under way.

    Args:
        examples: those that choose, prepared by a normalisation.
        chosen_by: which of all these are, [N].
        dimensions: of an embedding.
    """

    def __init__(
        self, examples: Callable[[str], Examples], validation: Validation, *, chosen_by: Bool, dimensions: int
    ) -> None:
        self.result = Sweep(
            rows=[], models=[], chosen_by=chosen_by, out_of_fold_scores=[], calibrations=[], best=0, untried={}
        )
        self._examples, self._validation, self._dimensions = examples, validation, dimensions
        self._worth: list[Float64] = []  # per row, [scored examples]
        self._groups = validation.groups[validation.is_scored]

    def follow(self, normalisation: str, c_values: Sequence[float], *, count: Callable[[], None]) -> None:
        """Fit and validate along ascending C; where examples are not few, until accuracy has turned."""
        fold_of, first = self._validation.fold_of, len(self.result.rows)
        examples = self._examples(normalisation)
        parts = Parts(examples, [examples.everything, *(fold_of != fold for fold in self._validation.folds)])
        for c in c_values:
            parts.fit(c)
            self._validate(parts, normalisation, c)
            count()
            if self._validation.independent >= FEW and has_turned(
                self.result.rows[first:],
                self._worth[first:],
                best=self._worth[choose(self.result.rows)],
                groups=self._groups,
                dimensions=self._dimensions,
            ):
                break
        for c in c_values[len(self.result.rows) - first :]:
            self.result.untried.setdefault(normalisation, []).append(c)
            count()

    def finish(self, everything: Callable[[str], Examples], labels: Int) -> None:
        """Choose, and fit the chosen one to convergence on all training examples.

        Args:
            everything: these, prepared by a normalisation.
            labels: theirs.
        """
        result, rows = self.result, self.result.rows
        if self._validation.independent < FEW:
            best = choose_from_few(rows, self._worth, groups=self._groups, dimensions=self._dimensions)
        elif result.chosen_by.all():
            best = choose(rows)
        else:
            best = choose_for_more(rows, self._worth, groups=self._groups)
        examples = everything(rows[best].normalisation)
        exact = Parts(examples, [examples.everything], start=result.models[best], exactly=True)
        exact.fit(rows[best].C)
        result.models[best] = exact.model(0)
        right = result.calibrations[best].labels(exact.scores(0), self._validation.costs) == labels
        rows[best] = replace(rows[best], train_accuracy=float(right.mean()))
        self.result = replace(result, best=best)

    def _validate(self, parts: Parts, normalisation: str, c: float) -> None:
        """Add a row: of parts that are fitted to all examples, and to those without each fold."""
        validation, training_scores = self._validation, parts.scores(0)
        scores = np.full_like(training_scores, np.nan)
        for fold in validation.folds:
            left_out = validation.fold_of == fold
            scores[left_out] = parts.scores(1 + fold)[left_out]
        calibration = validation.calibrate(scores, training_scores=training_scores)
        right, worth = validation.answers(scores, training_scores=training_scores, start=calibration)
        train_accuracy = float((calibration.labels(training_scores, validation.costs) == validation.labels).mean())
        accuracy, cost = validation.accuracy(right), validation.cost(worth)
        self.result.rows.append(SweepRow(normalisation, c, train_accuracy, *accuracy, validation_cost=cost))
        self.result.models.append(parts.model(0))
        self.result.out_of_fold_scores.append(scores)
        self.result.calibrations.append(calibration)
        self._worth.append(worth[validation.is_scored])


def _checked(embeddings: npt.ArrayLike, labels: npt.ArrayLike, number_of_classes: int) -> tuple[Float32, Int]:
    x, y = np.asarray(embeddings, np.float32), np.asarray(labels, np.int64)
    if x.ndim != 2 or y.shape != x.shape[:1]:
        raise InputError(f"embeddings must be [N, D] with one label each, found shapes {x.shape} and {y.shape}")
    if not len(y) or y.min() < 0 or y.max() >= number_of_classes:
        raise InputError(f"labels must be numbers from 0 to {number_of_classes - 1}, at least one of them")
    if y.min() == y.max():
        raise InputError("all training examples have the same label: a classifier needs examples of at least two")
    is_finite = np.isfinite(x.sum(axis=1, dtype=np.float64))  # without an array of the size of x
    if not is_finite.all():
        row = int(np.flatnonzero(~is_finite)[0])
        raise InputError(f"the embedding of example {row} is not finite: run scripts/3_runDNN.py again")
    return x, y


def _checked_parameters(c_values: Sequence[float], normalisations: Sequence[str]) -> list[float]:
    ascending = sorted({float(c) for c in c_values})
    if not ascending or not all(0 < c < np.inf for c in ascending):
        raise ParameterError(f"values of C must be > 0, at least one of them, found {ascending}")
    unknown = sorted(set(normalisations) - set(NORMALISATIONS))
    if unknown or not normalisations:
        raise ParameterError(f"unknown normalisation {unknown}: use one or more of {', '.join(NORMALISATIONS)}")
    return ascending
