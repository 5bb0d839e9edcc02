"""Labels and probabilities → numbers: pure functions, fractions from 0 to 1.

Shapes everywhere: labels int [N] (0..K-1), probabilities float [N, K]. Unless other predictions are given, they are the
classes of the highest probability. What cannot be known (the AUC of a class without test images) is None, never NaN.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from libraries.base.arrays import Bool, Float64, Floating, Int, Integer
from libraries.base.errors import InputError
from libraries.evaluation.uncertainty import CONFIDENCE, RESAMPLES, accuracy_intervals

CALIBRATION_BINS = 15


def metrics(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    *,
    predictions: Integer | None = None,
    names: Sequence[str],
    groups: Sequence[str] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """All of metrics.json.

    Args:
        labels: [N] true class of each test image.
        probabilities: [N, K] calibrated probabilities.
        predictions: [N] the answers; None: the most probable classes.
        names: K names of the classes.
        groups: [N] group of each image, "" for an image on its own; whole groups are resampled for the intervals.
        seed: of the bootstrap.

    Raises:
        InputError: shapes do not fit, a label is out of range, or a row is not a probability distribution.
    """
    truth, p = checked(labels, probabilities, number_of_classes=len(names))
    k = len(names)
    predictions = p.argmax(axis=1) if predictions is None else predictions
    matrix = confusion_matrix(truth, predictions, number_of_classes=k)
    accuracies = accuracy_per_class(matrix)
    aucs = [auc(truth == c, p[:, c]) for c in range(k)]
    precisions = [average_precision(truth == c, p[:, c]) for c in range(k)]
    f1s = f1_per_class(truth, predictions, number_of_classes=k)
    bins = reliability(truth, p)
    intervals = accuracy_intervals(truth, predictions, number_of_classes=k, groups=groups, seed=seed)

    def by_name(values: Sequence[Any]) -> dict[str, Any]:
        return dict(zip(names, values, strict=True))

    return {
        "number_of_test_images": len(truth),
        "number_of_test_images_per_class": by_name(matrix.sum(axis=1).tolist()),
        "overall_accuracy": float(np.trace(matrix) / len(truth)),
        "class_averaged_accuracy": mean_of_known(accuracies),
        "majority_accuracy": float(matrix.sum(axis=1).max() / len(truth)),
        "accuracy_per_class": by_name(accuracies),
        "class_averaged_auc": mean_of_known(aucs),
        "auc_per_class": by_name(aucs),
        "class_averaged_average_precision": mean_of_known(precisions),
        "average_precision_per_class": by_name(precisions),
        "class_averaged_f1": mean_of_known(f1s),
        "f1_per_class": by_name(f1s),
        "log_loss": log_loss(truth, p),
        "brier": brier(truth, p),
        "ece": ece(bins),
        "reliability": bins,
        "intervals": {
            "overall_accuracy": intervals.overall,
            "class_averaged_accuracy": intervals.class_averaged,
            "accuracy_per_class": by_name(intervals.per_class),
        },
        "interval_method": {
            "name": "BCa bootstrap",
            "confidence": CONFIDENCE,
            "resamples": RESAMPLES,
            "resampled": "images" if groups is None or not any(groups) else "groups",
            "seed": seed,
        },
        "labels": list(names),
        "confusion_matrix": matrix.tolist(),
    }


def checked(labels: npt.ArrayLike, probabilities: npt.ArrayLike, *, number_of_classes: int) -> tuple[Integer, Float64]:
    """Labels [N] and probabilities [N, K] in float64. Not normalised again: rounding would break ties.

    Raises:
        InputError: as in `metrics`.
    """
    truth = np.asarray(labels)
    p = np.asarray(probabilities, dtype=np.float64)
    if truth.ndim != 1 or p.shape != (len(truth), number_of_classes):
        raise InputError(
            f"{truth.shape} labels and {p.shape} probabilities do not fit {number_of_classes} classes: "
            "expected [N] and [N, K]"
        )
    if len(truth) == 0:
        raise InputError("there are no test images to evaluate: lower ratioTrainTest or add images")
    if not np.issubdtype(truth.dtype, np.integer) or truth.min() < 0 or truth.max() >= number_of_classes:
        raise InputError(f"true labels must be whole numbers from 0 to {number_of_classes - 1}")
    sums = p.sum(axis=1)
    bad = np.flatnonzero(~((p >= 0).all(axis=1) & (np.abs(sums - 1) < 1e-3)))  # NaN fails both
    if len(bad):
        raise InputError(f"row {bad[0]} is not a probability distribution: {p[bad[0]][:5].tolist()} sum {sums[bad[0]]}")
    return truth, p


def mean_of_known(values: Sequence[float | None]) -> float | None:
    """The mean without the unknown ones; None where all are."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def confusion_matrix(labels: Integer, predictions: Integer, *, number_of_classes: int) -> Int:
    """[K, K] number of images of each true class (row) taken for each class (column)."""
    k = number_of_classes
    return np.bincount(labels * k + predictions, minlength=k * k).reshape(k, k)


def accuracy_per_class(matrix: Int) -> list[float | None]:
    """The fraction of each true class that is right (also called recall); None without test images."""
    return [_fraction(matrix[c, c], row.sum()) for c, row in enumerate(matrix)]


def f1_per_class(labels: Integer, predictions: Integer, *, number_of_classes: int) -> list[float | None]:
    """Harmonic mean of precision and recall per class; None for a class neither present nor predicted."""
    from sklearn.metrics import f1_score

    k = range(number_of_classes)
    values = f1_score(labels, predictions, labels=k, average=None, zero_division=np.nan)
    return [None if np.isnan(value) else float(value) for value in values]


def _fraction(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None


def roc_curve(positive: Bool, scores: Floating) -> tuple[Float64, Float64] | None:
    """False and true positive rate from (0, 0) to (1, 1), a point per distinct score; None unless both kinds occur."""
    from sklearn import metrics as reference

    if positive.all() or not positive.any():
        return None
    false_rate, true_rate, _ = reference.roc_curve(positive, scores, drop_intermediate=False)
    return false_rate, true_rate


def auc(positive: Bool, scores: Floating) -> float | None:
    """Area under the ROC curve: the chance that a positive scores above a negative, a tie counting half."""
    from sklearn.metrics import roc_auc_score

    return None if positive.all() or not positive.any() else float(roc_auc_score(positive, scores))


def precision_recall_curve(positive: Bool, scores: Floating) -> tuple[Float64, Float64] | None:
    """Precision and recall at each distinct score, recall rising; None without positives."""
    from sklearn import metrics as reference

    if not positive.any():
        return None
    precision, recall, _ = reference.precision_recall_curve(positive, scores)
    return precision[-2::-1], recall[-2::-1]  # without the point (recall 0, precision 1), which no score gives


def average_precision(positive: Bool, scores: Floating) -> float | None:
    """Mean precision, weighted by the recall gained at each score: no interpolation, which would be optimistic."""
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(positive, scores)) if positive.any() else None


def log_loss(labels: Integer, probabilities: Floating) -> float:
    """Mean of -ln(probability of the true class), in nats; a probability of 0 counts as the float64 epsilon."""
    from sklearn import metrics as reference

    exact = probabilities / probabilities.sum(axis=1, keepdims=True)  # rows of float32 sum to 1 but for rounding
    return float(reference.log_loss(labels, exact, labels=np.arange(probabilities.shape[1])))


def brier(labels: Integer, probabilities: Floating) -> float:
    """Brier score, half the squared distance to the truth, so that it lies within 0..1 for any number of classes."""
    truth = np.eye(probabilities.shape[1])[labels]
    return float(((probabilities - truth) ** 2).sum(axis=1).mean() / 2)


def reliability(labels: Integer, probabilities: Floating) -> list[dict[str, Any]]:
    """Confidence against accuracy in bins of about equally many images, of rising confidence.

    Equal-mass bins, because their error estimate is the less biased (Roelofs et al. 2022, arXiv 2012.08668). Images of
    equal confidence share a bin, so the result does not depend on their order.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    ranks = np.searchsorted(np.sort(confidence), confidence)  # equal values have equal ranks
    bins = ranks * CALIBRATION_BINS // len(ranks)
    return [
        {
            "confidence": float(confidence[bins == b].mean()),
            "accuracy": float(right[bins == b].mean()),
            "images": int(np.sum(bins == b)),
        }
        for b in np.unique(bins)
    ]


def ece(bins: Sequence[dict[str, Any]]) -> float:
    """Expected calibration error: |confidence - accuracy| averaged over the images in the bins of `reliability`."""
    gaps = [b["images"] * abs(b["confidence"] - b["accuracy"]) for b in bins]
    return float(sum(gaps) / sum(b["images"] for b in bins))


def confident_mistakes(labels: Integer, predictions: Integer, probabilities: Floating, *, count: int) -> Integer:
    """Indices of the wrongly classified images, most confident first, at most `count`."""
    wrong = np.flatnonzero(predictions != labels)
    return wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")][:count]
