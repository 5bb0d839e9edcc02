"""Metrics → plain language: what a number means, what to compare it with, and what to be careful about."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from libraries.base.console import table

FEW_IMAGES = 30  # of a class: below, its accuracy is rough
WELL_CALIBRATED = 0.03  # expected calibration error
POORLY_CALIBRATED = 0.1
UNKNOWN = "–"


def percent(value: float | None) -> str:
    """0.8704 as 87.0%."""
    return UNKNOWN if value is None else f"{value:.1%}"


def decimal(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.3f}"


def interval(bounds: Sequence[float] | None) -> str:
    """[0.843, 0.895] as 84.3–89.5%."""
    return UNKNOWN if bounds is None else f"{100 * bounds[0]:.1f}–{100 * bounds[1]:.1f}%"


def accuracy_table(metrics: Mapping[str, Any], *, title: str = "Accuracy on the test images") -> str:
    """The accuracies with their intervals, and a line of other figures, for the console."""
    intervals = metrics["intervals"]
    images = metrics["number_of_test_images_per_class"]
    rows = [
        (label, images[label], percent(accuracy), interval(intervals["accuracy_per_class"][label]))
        for label, accuracy in metrics["accuracy_per_class"].items()
    ]
    for name, key in (("class-averaged accuracy", "class_averaged_accuracy"), ("overall accuracy", "overall_accuracy")):
        rows.append((name, metrics["number_of_test_images"], percent(metrics[key]), interval(intervals[key])))
    return "\n".join(
        [
            table(title, ["", "images", "accuracy", "95% interval"], rows),
            f"  AUC {decimal(metrics['class_averaged_auc'])}, F1 {decimal(metrics['class_averaged_f1'])}, "
            f"log loss {decimal(metrics['log_loss'])}, calibration error {percent(metrics['ece'])}; "
            f"always saying the commonest class: {percent(metrics['majority_accuracy'])}",
        ]
    )


@dataclass(frozen=True)
class Confusion:
    """Images of one class that were taken for another, and the fraction of the true class that they are."""

    true_label: str
    predicted_label: str
    images: int
    fraction: float


def confusions(metrics: Mapping[str, Any]) -> list[Confusion]:
    """All pairs of classes that were confused, the most frequent first."""
    matrix, labels = np.array(metrics["confusion_matrix"]), metrics["labels"]
    totals = matrix.sum(axis=1)
    pairs = [
        Confusion(labels[i], labels[j], int(matrix[i, j]), float(matrix[i, j] / totals[i]))
        for i, j in zip(*np.nonzero(matrix), strict=True)
        if i != j
    ]
    return sorted(pairs, key=lambda pair: (-pair.images, -pair.fraction))


def sentences(metrics: Mapping[str, Any]) -> list[str]:
    """The result in plain sentences, one paragraph per item. Plain text, not yet escaped."""
    paragraphs = [_accuracy(metrics), _baseline(metrics), _classes(metrics), _calibration(metrics), _cautions(metrics)]
    return [paragraph for paragraph in paragraphs if paragraph]


def _accuracy(metrics: Mapping[str, Any]) -> str:
    images = metrics["number_of_test_images"]
    right = int(np.trace(metrics["confusion_matrix"]))
    tested = (
        "images, each answered by a classifier that had not seen it,"
        if "folds" in metrics
        else ("test images, none of them used for training,")
    )
    told = f"Of {images:,} {tested} {right:,} are right and {images - right:,} wrong."
    bounds = metrics["intervals"]["overall_accuracy"]
    if bounds is None:
        return told
    grouped = " (whole groups resampled)" if metrics["interval_method"]["resampled"] == "groups" else ""
    return (
        f"{told} With 95% confidence{grouped}, the accuracy on all images like these lies between "
        f"{percent(bounds[0])} and {percent(bounds[1])}."
    )


def majority_class(metrics: Mapping[str, Any]) -> str:
    """The class with the most test images."""
    counts: Mapping[str, int] = metrics["number_of_test_images_per_class"]
    return max(counts, key=counts.__getitem__)


def _baseline(metrics: Mapping[str, Any]) -> str:
    if "costs" in metrics:
        return "Its answers are those that cost least, by the costs that were set, not those that are most often right."
    accuracy, majority = metrics["overall_accuracy"], metrics["majority_accuracy"]
    always = (
        f"Always saying ‘{majority_class(metrics)}’, the most frequent class, would be right for {percent(majority)}"
    )
    bounds = metrics["intervals"]["overall_accuracy"]
    if majority == 1:
        return "All test images are of one class, so this says nothing about distinguishing classes."
    if accuracy <= majority:
        return f"{always}: the classifier is no better than that."
    if bounds is None or bounds[0] <= majority:
        return f"{always}, which is within the interval: so few images do not show that the classifier is better."
    return f"{always}; the classifier avoids {(accuracy - majority) / (1 - majority):.0%} of the mistakes of that rule."


def _classes(metrics: Mapping[str, Any]) -> str:
    known = {label: value for label, value in metrics["accuracy_per_class"].items() if value is not None}
    weakest, best = min(known, key=known.__getitem__), max(known, key=known.__getitem__)
    told = []
    if known[weakest] < known[best]:
        told.append(
            f"It is best at ‘{best}’ ({percent(known[best])} right) "
            f"and weakest at ‘{weakest}’ ({percent(known[weakest])})."
        )
    pairs = confusions(metrics)
    if pairs:
        pair = pairs[0]
        told.append(
            f"The most frequent mistake is to take ‘{pair.true_label}’ for ‘{pair.predicted_label}’: "
            f"{pair.images:,} images, {percent(pair.fraction)} of the class."
        )
    return " ".join(told)


def _calibration(metrics: Mapping[str, Any]) -> str:
    error, bins = metrics["ece"], metrics["reliability"]
    excess = sum(b["images"] * (b["confidence"] - b["accuracy"]) for b in bins) / sum(b["images"] for b in bins)
    side = "too confident" if excess > 0 else "too cautious"
    off = f"they are off by {100 * error:.1f} points on average"
    if error < WELL_CALIBRATED:
        return f"Its probabilities can be taken at face value: {off}."
    if error < POORLY_CALIBRATED:
        return f"Its probabilities are a fair guide: {off}, and rather {side}."
    return f"Its probabilities should not be taken at face value: {off}, and {side}."


def _cautions(metrics: Mapping[str, Any]) -> str:
    counts = metrics["number_of_test_images_per_class"]
    without = [label for label, images in counts.items() if images == 0]
    few = [label for label, images in counts.items() if 0 < images < FEW_IMAGES]
    told = []
    if without:
        told.append(f"Without test images, so left out: {_some(without)}.")
    if few:
        told.append(f"With fewer than {FEW_IMAGES} test images, so only roughly known: {_some(few)}.")
    return " ".join(told)


def _some(labels: Sequence[str], most: int = 5) -> str:
    quoted = ", ".join(f"‘{label}’" for label in labels[:most])
    return quoted if len(labels) <= most else f"{quoted} and {len(labels) - most} more"
