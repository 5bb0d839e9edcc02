"""Linear SVMs on embeddings, for every C and normalisation; the best is chosen by cross-validation and kept."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt

from libraries.base.arrays import Bool, Float32, Floating, Int
from libraries.base.console import counting
from libraries.base.errors import InputError, ParameterError
from libraries.base.pool import side_by_side
from libraries.classifier.calibration import Calibration
from libraries.classifier.cross_validation import FEW, SweepRow, Validation, assign_folds, choose, choose_from_few
from libraries.classifier.squared_hinge import solve_path

ClassWeight = Literal["balanced"] | None

NORMALISATIONS = ("l2", "sqrt_l2", "standardise")
ROWS_AT_ONCE = 8192  # bounds the temporary memory of normalising
LARGEST_FLOAT64 = 1 << 26  # numbers in the matrix of examples (512 MB); larger ones are solved in float32, one by one


@dataclass(frozen=True)
class LinearModel:
    """scores = normalise(embeddings) @ weights + bias.

    Attributes:
        normalisation: how an embedding x is prepared.
            'l2': x / |x|.
            'sqrt_l2': sign(x) * sqrt(|x|), then divided by its norm (power normalisation: Perronnin et al. 2010,
            'Improving the Fisher kernel'; on pooled activations, which are >= 0, the Hellinger kernel).
            'standardise': (x - mean) / scale.
        mean, scale: float32 [D]; of the training examples for 'standardise', else zeros and ones. A feature that never
            changes has scale 1.
        weights: float32 [D, K].
        bias: float32 [K].
    """

    normalisation: str
    mean: Float32
    scale: Float32
    weights: Float32
    bias: Float32

    @property
    def takes_root(self) -> bool:
        """Whether the signed square root comes first."""
        return self.normalisation == "sqrt_l2"

    @property
    def divides_by_norm(self) -> bool:
        """Whether rows are divided by their Euclidean norm, last."""
        return self.normalisation in ("l2", "sqrt_l2")

    def normalise(self, embeddings: Float32) -> Float32:
        """What the weights are multiplied with, float32 [N, D]."""
        x = np.sign(embeddings) * np.sqrt(np.abs(embeddings)) if self.takes_root else embeddings
        x = (x - self.mean) / self.scale
        if self.divides_by_norm:
            x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
        return x

    def scores(self, embeddings: npt.ArrayLike) -> Float32:
        """Embeddings [N, D] to scores, float32 [N, K]; two classes have the columns [-s, s]."""
        embeddings = np.asarray(embeddings, np.float32)
        result = np.empty((len(embeddings), len(self.bias)), np.float32)
        for rows in _chunks(len(embeddings)):
            result[rows] = self.normalise(embeddings[rows]) @ self.weights + self.bias
        return result


@dataclass(frozen=True)
class Sweep:
    """Every normalisation and C, and the choice among them.

    Attributes:
        rows: by normalisation, then ascending C.
        models: per row, fitted on all examples.
        out_of_fold_scores: per row, float32 [N, K]: of each example by the model that was fitted without its fold; NaN
            for an example that is in no fold (see assign_folds).
        calibrations: per row, fitted on out_of_fold_scores; where there are none, on the scores of the training
            examples, without a bias.
        best: index of the chosen row.
    """

    rows: list[SweepRow]
    models: list[LinearModel]
    out_of_fold_scores: list[Float32]
    calibrations: list[Calibration]
    best: int


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
    class_weight: ClassWeight = "balanced",
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Sweep:
    """Cross-validate every normalisation and C, refit each on all examples, choose the best.

    Args:
        embeddings: float32 [N, D], the training set alone.
        labels: int [N], 0 <= label < number_of_classes.
        c_values: > 0, in any order.
        folds: of the cross-validation; see assign_folds for classes with fewer members, and choose_from_few for how the
            best is chosen where there are few.
        groups: [N], examples of one group never stand on both sides; each is its own group by default.
        class_weight: 'balanced' weighs the examples of each class by N / (classes * members), as scikit-learn does.
        progress: called with the number of fits done and of all.

    Raises:
        InputError, ParameterError: the examples, or the parameters, cannot be used.
    """
    x, y = _checked(embeddings, labels, number_of_classes)
    c_values = _checked_parameters(c_values, normalisations)
    group_of = np.unique(np.arange(len(y)) if groups is None else np.asarray(groups), return_inverse=True)[1]
    validation = Validation(assign_folds(y, folds=folds, groups=groups, seed=seed), y, group_of, number_of_classes)
    fit = partial(fit_path, number_of_classes=number_of_classes, c_values=c_values, class_weight=class_weight)
    count = counting(progress, len(normalisations) * len(c_values) * (len(validation.folds) + 1))

    result = Sweep(rows=[], models=[], out_of_fold_scores=[], calibrations=[], best=0)
    is_right: list[Bool] = []  # per row, [scored examples]
    for normalisation in normalisations:
        models, out_of_fold = _cross_validate(partial(fit, normalisation=normalisation), x, validation, count=count)
        for c, model, scores in zip(c_values, models, out_of_fold, strict=True):
            training_scores, right = model.scores(x), validation.is_right(scores)
            calibration = validation.calibrate(scores, training_scores=training_scores)
            train_accuracy = float((calibration.labels(training_scores) == y).mean())
            result.rows.append(SweepRow(normalisation, c, train_accuracy, *validation.accuracy(right)))
            result.models.append(model)
            result.out_of_fold_scores.append(scores)
            result.calibrations.append(calibration)
            is_right.append(right[validation.is_scored])
    if validation.independent >= FEW:
        return replace(result, best=choose(result.rows))
    scored_groups = group_of[validation.is_scored]
    return replace(result, best=choose_from_few(result.rows, is_right, groups=scored_groups, dimensions=x.shape[1]))


def _cross_validate(
    fit: Callable[[Float32, Int], Iterator[LinearModel]],
    x: Float32,
    validation: Validation,
    *,
    count: Callable[[], None],
) -> tuple[list[LinearModel], list[Float32]]:
    """For each C the model of all examples [N, D], and the scores [N, K] of each example by a model without its fold.

    Args:
        fit: embeddings and labels → a model for each C.
        count: called after every fit.
    """
    y = validation.labels
    models: list[LinearModel] = []
    scores_by_fold: dict[int, list[Float32]] = {}

    def refit() -> None:
        for model in fit(x, y):
            models.append(model)
            count()

    def leave_out(fold: int) -> None:
        left_out = validation.fold_of == fold
        scores_by_fold[fold] = []
        for model in fit(x[~left_out], y[~left_out]):
            scores_by_fold[fold].append(model.scores(x[left_out]))
            count()

    side_by_side([refit, *(partial(leave_out, f) for f in validation.folds)], at_most=LARGEST_FLOAT64 // x.size)
    out_of_fold = [np.full((len(y), validation.number_of_classes), np.nan, np.float32) for _ in models]
    for fold, by_c in scores_by_fold.items():
        for scores, of_fold in zip(out_of_fold, by_c, strict=True):
            scores[validation.fold_of == fold] = of_fold
    return models, out_of_fold


def fit_path(
    embeddings: Float32,
    labels: Int,
    *,
    number_of_classes: int,
    c_values: Sequence[float],
    normalisation: str,
    class_weight: ClassWeight = "balanced",
) -> Iterator[LinearModel]:
    """The models of ascending C values, one class against the rest, one column where there are two classes.

    Each is scikit-learn's LinearSVC(C, class_weight=class_weight) on the normalised embeddings, fitted to convergence.
    """
    mean, scale = _mean_and_scale(embeddings, normalisation)
    empty = np.zeros((0, 0), np.float32)
    preparation = LinearModel(normalisation, mean, scale, weights=empty, bias=empty)
    dtype = np.float64 if embeddings.size <= LARGEST_FLOAT64 else np.float32
    x = np.ones((len(embeddings), embeddings.shape[1] + 1), dtype)  # the last column stands for the bias
    for rows in _chunks(len(embeddings)):
        x[rows, :-1] = preparation.normalise(embeddings[rows])
    targets, weights = binary_problems(labels, number_of_classes, class_weight)
    for solution in solve_path(x, targets.astype(dtype), weights.astype(dtype), c_values):
        both = np.hstack([-solution, solution]) if number_of_classes == 2 else solution
        both = both.astype(np.float32)
        yield LinearModel(normalisation, mean, scale, weights=both[:-1], bias=both[-1])


def binary_problems(labels: Int, number_of_classes: int, class_weight: ClassWeight) -> tuple[Floating, Floating]:
    """Targets (+1 or -1) and weights of the examples in each binary problem, [N, K], or [N, 1] for two classes.

    As in scikit-learn, the rest against which a class stands has weight one, except where it is a single class.
    """
    members = np.bincount(labels, minlength=number_of_classes)
    balance = np.ones(number_of_classes)
    if class_weight == "balanced":
        balance = len(labels) / (np.count_nonzero(members) * np.maximum(members, 1))
    is_member = labels[:, None] == np.arange(number_of_classes)
    weights = np.where(is_member, balance, 1.0)
    if number_of_classes == 2:
        is_member, weights = is_member[:, 1:], balance[labels][:, None]
    return np.where(is_member, 1.0, -1.0), weights


def _mean_and_scale(embeddings: Float32, normalisation: str) -> tuple[Float32, Float32]:
    if normalisation != "standardise":
        return np.zeros(embeddings.shape[1], np.float32), np.ones(embeddings.shape[1], np.float32)
    mean = embeddings.mean(axis=0, dtype=np.float64)
    variance = np.zeros_like(mean)
    for rows in _chunks(len(embeddings)):
        variance += ((embeddings[rows] - mean) ** 2).sum(axis=0) / len(embeddings)
    scale = np.sqrt(variance)
    is_constant = scale <= 1e-6 * np.abs(mean)  # to float32's precision
    return mean.astype(np.float32), np.where(is_constant, 1, scale).astype(np.float32)


def _chunks(length: int) -> Iterator[slice]:
    for start in range(0, length, ROWS_AT_ONCE):
        yield slice(start, start + ROWS_AT_ONCE)


def _checked(embeddings: npt.ArrayLike, labels: npt.ArrayLike, number_of_classes: int) -> tuple[Float32, Int]:
    x, y = np.asarray(embeddings, np.float32), np.asarray(labels, np.int64)
    if x.ndim != 2 or y.shape != x.shape[:1]:
        raise InputError(f"embeddings must be [N, D] with one label each, found shapes {x.shape} and {y.shape}")
    if not len(y) or y.min() < 0 or y.max() >= number_of_classes:
        raise InputError(f"labels must be numbers from 0 to {number_of_classes - 1}, at least one of them")
    if y.min() == y.max():
        raise InputError("all training examples have the same label: a classifier needs examples of at least two")
    if not np.isfinite(x).all():
        row = int(np.flatnonzero(~np.isfinite(x).all(axis=1))[0])
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
