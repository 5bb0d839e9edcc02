"""What has changed since the evaluation before, on the test images of both: by mended labels, and by the classifier."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from libraries.base.arrays import Float64
from libraries.base.errors import MissingInput, StorageError
from libraries.base.file_system import nfc
from libraries.base.layout import Layout
from libraries.base.tables import Column, read_table
from libraries.data.annotations import Annotations
from libraries.evaluation.costs import margin
from libraries.evaluation.paired import difference, holm
from libraries.evaluation.testing import Tested

FEWEST = 30  # test images of both, to compare anything
FEWEST_OF_CLASS = 20  # to say that it lost


@dataclass(frozen=True)
class Loss:
    """A class whose test images are answered worse than before, and the answer that most of the broken ones get now."""

    label: str
    then: float
    now: float
    taken_for: str


@dataclass(frozen=True)
class Since:
    """Two evaluations on the images that are in both test sets.

    Attributes:
        images: how many they are.
        relabelled: how many of them have another label now.
        before: the accuracy then, by the labels of then.
        by_labels: what the new labels add to the accuracy of the answers of then.
        by_classifier: what the new answers add, by the new labels.
        margin: half the width of the 95% interval of that.
        losses: classes that the new answers are clearly worse for.
    """

    images: int
    relabelled: int
    before: float
    by_labels: float
    by_classifier: float
    margin: float
    losses: tuple["Loss", ...] = ()

    @property
    def after(self) -> float:
        return self.before + self.by_labels + self.by_classifier

    def sentence(self, *, of: str = " of this and the previous evaluation", subject: str = "the accuracy") -> str:
        """The comparison in words.

        Args:
            of: what the test images are of.
            subject: what is compared.
        """
        low, high = (100 * (self.by_classifier + side * self.margin) for side in (-1, 1))
        told = f"On the {self.images:,} test images{of}, {subject} was {self.before:.1%}, and is {self.after:.1%}: "
        if self.relabelled:
            labels = "a new label" if self.relabelled == 1 else f"{self.relabelled:,} new labels"
            told += f"{100 * self.by_labels:+.1f} points by {labels} among them, "
        if self.by_classifier == self.margin == 0:
            return f"{told}nothing by the classifier."
        points = "" if self.relabelled else " points"
        chance = ", which may be chance" if low <= 0 <= high else ""
        lost = [
            f" ‘{loss.label}’ lost: {loss.then:.1%} of its images were right then, {loss.now:.1%} are now; most of the "
            f"others are taken for ‘{loss.taken_for}’."
            for loss in self.losses
        ]
        return (
            f"{told}{100 * self.by_classifier:+.1f}{points} by the classifier ({low:+.1f} to {high:+.1f}{chance})."
            f"{''.join(lost)}"
        )


@dataclass(frozen=True)
class _Answer:
    """What is needed of predictions.csv."""

    path: Annotated[str, Column()]
    label: Annotated[str, Column()]
    predicted: Annotated[str, Column()]


def since_previous(layout: Layout, tested: Tested) -> Since | None:
    """Compare with the evaluation that is in the folder; None if there is none, or nothing to tell.

    Where mistakes have other costs since then, the answers aim at something else, and accuracies tell nothing.
    """
    try:
        evaluated = layout.evaluation.read()
        if evaluated.get("costs") != layout.bundle.read().get("costs"):
            return None
        state = evaluated.get("annotations")
        rows = read_table(layout.evaluation.folder / "predictions.csv", _Answer, advice="")
        moved = Annotations(layout.images).moves_since(state)
    except (MissingInput, StorageError):  # none, damaged, or of a version before
        return None
    return compare({nfc(moved.get(row.path, row.path)): (row.label, row.predicted) for row in rows}, tested)


def compare(before: Mapping[str, tuple[str, str]], tested: Tested) -> Since | None:
    """Compare the answers of two evaluations; None if there are few images of both, or no difference.

    The interval is that of a mean of differences over groups of images (Davison & Hinkley 1997, section 3.2.1, by the
    normal distribution).

    Args:
        before: label and answer by present path.
    """
    both = [i for i, example in enumerate(tested.examples) if nfc(example.path) in before]
    if len(both) < FEWEST:
        return None
    earlier = [before[nfc(tested.examples[i].path)] for i in both]
    now = [tested.names[label] for label in tested.labels[both]]
    answers = [tested.names[label] for label in tested.predictions[both]]
    labels_then, answers_then = zip(*earlier, strict=True)
    was_right, would_be_right, is_right = (
        np.array([answer == label for answer, label in zip(given, labels, strict=True)], float)
        for given, labels in ((answers_then, labels_then), (answers_then, now), (answers, now))
    )
    relabelled = sum(then != label for then, label in zip(labels_then, now, strict=True))
    if not relabelled and list(answers_then) == answers:
        return None
    gain = is_right - would_be_right
    groups = [tested.groups[i] for i in both]
    return Since(
        images=len(both),
        relabelled=relabelled,
        before=float(was_right.mean()),
        by_labels=float((would_be_right - was_right).mean()),
        by_classifier=float(gain.mean()),
        margin=margin(gain, groups),
        losses=tuple(_losses(now, answers, would_be_right, is_right, groups)),
    )


def _losses(
    labels: Sequence[str], answers: Sequence[str], then: Float64, now: Float64, groups: Sequence[str]
) -> list[Loss]:
    """The classes that lost, all tests considered; of images [N] whose answers were and are worth so much."""
    of_group = np.unique([group or str(i) for i, group in enumerate(groups)], return_inverse=True)[1]
    rows = {label: np.array([each == label for each in labels]) for label in sorted({*labels})}
    rng = np.random.default_rng(0)
    found = holm(
        [
            difference(label, "class", then[mine], now[mine], of_group[mine], unit=1.0, rng=rng)
            for label, mine in rows.items()
            if mine.sum() >= FEWEST_OF_CLASS
        ]
    )
    losses = []
    for each in found:
        if each.verdict == "worse":
            broken = rows[each.of] & (then > now)
            (taken_for, _), *_ = Counter(answers[i] for i in np.flatnonzero(broken).tolist()).most_common()
            losses.append(Loss(each.of, each.then, each.now, taken_for))
    return losses
