"""Linear SVMs on embeddings, for a whole path of C values and several normalisations, chosen by cross-validation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from libraries.base.errors import InputError
from libraries.classifier.calibration import Calibration, fit_calibration

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]

NORMALISATIONS = ("l2", "standardise")


@dataclass(frozen=True)
class LinearModel:
    """scores = normalise((embedding - mean) / scale) @ weights + bias, where only 'l2' divides by the norm.

    Attributes:
        normalisation: 'l2' or 'standardise'.
        mean, scale: float32 [D]; zeros and ones for 'l2'.
        weights: float32 [D, K].
        bias: float32 [K].
    """

    normalisation: str
    mean: Float32
    scale: Float32
    weights: Float32
    bias: Float32

    @property
    def divides_by_norm(self) -> bool:
        """Whether each row is divided by its Euclidean norm after mean and scale."""
        return self.normalisation == "l2"

    def scores(self, embeddings: npt.ArrayLike) -> Float32:
        """Embeddings [N, D] to scores, float32 [N, K]; two classes have the columns [-s, s]."""
        x = (np.asarray(embeddings, np.float32) - self.mean) / self.scale
        if self.divides_by_norm:
            x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
        return np.asarray(x @ self.weights + self.bias, np.float32)


@dataclass(frozen=True)
class SweepRow:
    """What one normalisation and one C reached; accuracies are fractions."""

    normalisation: str
    C: float
    train_accuracy: float
    validation_accuracy: float
    validation_std: float


@dataclass(frozen=True)
class Sweep:
    """All rows of a sweep, and the choice among them.

    Attributes:
        rows: one per normalisation and C.
        models: per row, fitted on all examples.
        out_of_fold_scores: per row, float32 [N, K]: each example's scores by the model that was not trained on it.
        calibrations: per row, fitted on out_of_fold_scores.
        best: index of the chosen row.
    """

    rows: list[SweepRow]
    models: list[LinearModel]
    out_of_fold_scores: list[Float32]
    calibrations: list[Calibration]
    best: int


def sweep(
    embeddings: Float32,
    labels: npt.ArrayLike,
    *,
    number_of_classes: int,
    c_values: Sequence[float],
    normalisations: Sequence[str] = NORMALISATIONS,
    folds: int = 5,
    groups: Sequence[str] | None = None,
    class_weight: Literal["balanced"] | None = "balanced",
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Sweep:
    """Thin first version."""
    labels = np.asarray(labels, np.int64)
    fold_of = assign_folds(labels, folds=folds, groups=groups, seed=seed)
    c_values = sorted(c_values)
    used = int(fold_of.max()) + 1
    rows, models, out_of_fold, calibrations = [], [], [], []
    done, total = 0, len(normalisations) * (used + 1)
    for normalisation in normalisations:
        scores = np.empty((len(c_values), len(labels), number_of_classes), np.float32)
        for fold in range(used):
            train = fold_of != fold
            fitted = fit(embeddings[train], labels[train], number_of_classes=number_of_classes, c_values=c_values,
                         normalisation=normalisation, class_weight=class_weight)
            for i, model in enumerate(fitted):
                scores[i, ~train] = model.scores(embeddings[~train])
            done += 1
            if progress:
                progress(done, total)
        refitted = fit(embeddings, labels, number_of_classes=number_of_classes, c_values=c_values,
                       normalisation=normalisation, class_weight=class_weight)
        done += 1
        if progress:
            progress(done, total)
        for c, model, s in zip(c_values, refitted, scores, strict=True):
            calibration = fit_calibration(s, labels)
            right = calibration.labels(s) == labels
            per_fold = [float(right[fold_of == f].mean()) for f in range(used)]
            rows.append(SweepRow(normalisation, float(c), float((calibration.labels(model.scores(embeddings)) == labels).mean()),
                                 float(right.mean()), float(np.std(per_fold))))
            models.append(model)
            out_of_fold.append(s)
            calibrations.append(calibration)
    best = int(np.argmax([r.validation_accuracy for r in rows]))
    return Sweep(rows, models, out_of_fold, calibrations, best)


def fit(embeddings, labels, *, number_of_classes, c_values, normalisation, class_weight="balanced"):
    d = embeddings.shape[1]
    mean, scale = np.zeros(d), np.ones(d)
    x = embeddings.astype(np.float64)
    if normalisation == "standardise":
        mean, scale = x.mean(0), x.std(0)
        scale = np.where(scale > 1e-7 * np.maximum(1e-30, np.abs(mean) + scale), scale, 1.0)
    x = (x - mean) / scale
    if normalisation == "l2":
        x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    x = np.hstack([x, np.ones((len(x), 1))])
    counts = np.bincount(labels, minlength=number_of_classes)
    balance = len(labels) / ((counts > 0).sum() * np.maximum(counts, 1)) if class_weight == "balanced" else np.ones(number_of_classes)
    w = np.zeros((len(c_values), d + 1, number_of_classes))
    for k in range(1, 2) if number_of_classes == 2 else range(number_of_classes):
        y = np.where(labels == k, 1.0, -1.0)
        weight = np.where(labels == k, balance[k], balance[0] if number_of_classes == 2 else 1.0)
        start = np.zeros(d + 1)
        for i, c in enumerate(c_values):
            start = solve(x, y, c * weight, start)
            w[i, :, k] = start
        if number_of_classes == 2:
            w[:, :, 0] = -w[:, :, 1]
    f = lambda a: a.astype(np.float32)
    return [LinearModel(normalisation, f(mean), f(scale), f(v[:-1]), f(v[-1])) for v in w]


def solve(x, y, cost, w, tolerance=1e-10):
    z = x @ w
    for _ in range(100):
        slack = np.maximum(0, 1 - y * z)
        g = w - 2 * (x.T @ (cost * y * slack))
        if np.linalg.norm(g) <= tolerance * (np.linalg.norm(w) + 2 * np.linalg.norm(x.T @ (cost * y * slack)) + 1e-300):
            break
        active = slack > 0
        xa = x[active] * np.sqrt(2 * cost[active])[:, None]
        if len(xa) < x.shape[1]:
            p = -(g - xa.T @ np.linalg.solve(xa @ xa.T + np.eye(len(xa)), xa @ g))
        else:
            p = -np.linalg.solve(xa.T @ xa + np.eye(x.shape[1]), g)
        zp = x @ p
        t = 1.0
        for _ in range(50):
            s = np.maximum(0, 1 - y * (z + t * zp))
            d1 = (w + t * p) @ p - 2 * np.sum(cost * y * s * zp)
            d2 = p @ p + 2 * np.sum(cost * (s > 0) * zp**2)
            if abs(d1) <= 1e-12 * abs(g @ p):
                break
            t -= d1 / d2
        w, z = w + t * p, z + t * zp
    return w


def assign_folds(labels, *, folds=5, groups=None, seed=0):
    classes = int(labels.max()) + 1
    names, unit_of = np.unique(np.arange(len(labels)) if groups is None else np.asarray(groups), return_inverse=True)
    units = np.zeros((len(names), classes))
    np.add.at(units, (unit_of, labels), 1)
    folds = max(2, min(folds, int((units > 0).sum(0).max())))
    share = units / np.maximum(1, units.sum(0))
    order = np.random.default_rng(seed).permutation(len(units))
    order = order[np.argsort(-units.sum(1)[order], kind="stable")]
    filled, size = np.zeros((folds, classes)), np.zeros(folds)
    of = np.empty(len(units), np.int64)
    for u in order:
        f = np.lexsort((size, (filled @ share[u]).round(9)))[0]
        of[u] = f
        filled[f] += units[u]
        size[f] += units[u].sum()
    return of[unit_of]
