"""How the accuracy of an SVM grows with its training images, and which more of them would help most.

From stored embeddings, so a fit takes a fraction of a second. What is said about classes is measured, not guessed from
their accuracy: a hard class may have enough images, and more images of an easy one may help the others.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from matplotlib.figure import Figure

from libraries.base import figures
from libraries.base.arrays import Bool, Float32, Float64, Int, as_slice
from libraries.base.console import counting
from libraries.base.figures import INK
from libraries.base.tables import Column, write_table
from libraries.classifier.calibration import Calibration
from libraries.classifier.costs import Costs
from libraries.classifier.cross_validation import groups_per_class
from libraries.classifier.svm import Examples, LinearModel, Parts

HALVINGS = 6  # the smallest part is 1/64 of the training images
FEWEST = 2  # images per class, on average, in the smallest part
MOST_REPEATS = 5
MOST_CLASSES = 10  # whose gain is measured: those of the lowest accuracy
COLUMNS = 256  # about, of SVMs fitted together
MOST_NUMBERS = 16_000_000  # in those columns, one for each example: 64 MB, of which the solver has several
MOST_NAMED = 5  # classes in a sentence
MOST_WORK = 2.5e9  # numbers of the training images, times columns: some seconds on two cores
PLATEAU = 0.005  # of accuracy, gained by the last doubling
NEARLY = 0.2  # a part is called half if all images are 1.8 to 2.2 times as many
NOTABLE = 0.003  # of class-averaged accuracy


@dataclass(frozen=True)
class CurveRow:
    """A row of learning_curve.csv: an SVM trained on a part of the training images."""

    images: Annotated[int, Column("number of training images in this part")]
    repeat: Annotated[int, Column("number of the random choice of this part, from 0")]
    accuracy: Annotated[float, Column("fraction of the test images that are right")]
    accuracy_per_class: Annotated[
        Mapping[str, float | None],
        Column("the same for one class", prefix="accuracy of "),
    ]


@dataclass(frozen=True)
class LearningCurve:
    """Accuracies on the test images of SVMs trained on parts of the training images, for R random choices of each part.

    Attributes:
        names: K names of the classes.
        images: [P], in each part, rising; the last part is all of them.
        images_per_class, groups_per_class: [K], in the last part.
        accuracy: [P, R], fractions. The last row is of one and the same SVM.
        accuracy_per_class: [P, R, K]; NaN for a class without test images.
        gain_per_class: [K, R], what the second half of a class's training images adds to the class-averaged accuracy,
            with all images of the other classes; NaN where not measured, such as for a class of a single group.
        aims_at_accuracy: whether the answers are to be right as often as possible; else to cost as little as possible.
    """

    names: Sequence[str]
    images: Int
    images_per_class: Int
    groups_per_class: Int
    accuracy: Float64
    accuracy_per_class: Float64
    gain_per_class: Float64
    aims_at_accuracy: bool = True

    def advice(self) -> list[str]:
        """What the curve says about collecting more images, in sentences."""
        first = _first_of_all(self)
        if not self.aims_at_accuracy:
            return [
                *first,
                "The answers aim at the least cost; the curve does not tell whether more images would lower it.",
            ]
        if len(self.images) < 2:
            return [*first, "There are too few training images to tell how the accuracy grows with them."]
        if (self.groups_per_class == 0).any():  # a plateau of the other classes would be no comfort
            return [*first, *_by_class(self)]
        return [*first, _on_the_whole(self), *_by_class(self)]

    def rows(self) -> "list[CurveRow]":
        """The rows of learning_curve.csv."""
        return [
            CurveRow(
                int(images),
                repeat,
                float(self.accuracy[part, repeat]),
                {
                    name: None if np.isnan(value) else float(value)
                    for name, value in zip(self.names, self.accuracy_per_class[part, repeat], strict=True)
                },
            )
            for part, images in enumerate(self.images)
            for repeat in range(self.accuracy.shape[1])
        ]


def learning_curve(
    embeddings: Float32,
    labels: Int,
    *,
    is_train: Bool,
    groups: Sequence[str],
    names: Sequence[str],
    model: LinearModel,
    c: float,
    calibration: Calibration,
    costs: Costs | None = None,
    aims_at_accuracy: bool = True,
    seed: int = 0,
    folder: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> LearningCurve:
    """Train on ever smaller parts of the training images, stratified by class, and test.

    With the normalisation, C and calibration that were chosen for all of the images; the last point is the classifier
    itself. The other points may be slightly lower than with choices of their own.

    Args:
        embeddings, labels: [N, D] and [N], training and test images; there must be some of both.
        groups: [N], whole groups are taken or left out.
        model, c, calibration: of all training images.
        costs: of mistakes, by which answers are chosen; None: all cost the same.
        aims_at_accuracy: see `LearningCurve`.
        folder: for temporary files, where there are more examples than fit into memory; see `large_arrays`.
        progress: called with the number of fits done and of all.
    """
    k = len(names)
    training, test_rows = as_slice(is_train), as_slice(~is_train)
    x, y, x_test, y_test = embeddings[training], labels[training], embeddings[test_rows], labels[test_rows]
    group_of = [group for group, train in zip(groups, is_train, strict=True) if train]
    members = np.bincount(y, minlength=k)
    fractions = 0.5 ** np.arange(_halvings(members), -1, -1)  # rising, the last is 1
    groups_of_class = groups_per_class(y, number_of_classes=k, groups=group_of)
    can_be_halved = np.flatnonzero(groups_of_class > 1)
    # With so many classes none can be notable, whatever it gains.
    measured = min(len(can_be_halved), MOST_CLASSES) if k * NOTABLE < 1 else 0
    parts = len(fractions) - 1
    repeats = int(np.clip(MOST_WORK / (x.size * max(k, 2) * max(parts + measured, 1)), 1, MOST_REPEATS))
    positions = [_positions(y, group_of, seed=seed, repeat=r) for r in range(repeats)]
    whole = _accuracy_per_class(calibration.labels(model.scores(x_test), costs), y_test, number_of_classes=k)
    by_accuracy = np.argsort(np.nan_to_num(whole, nan=2.0)[can_be_halved], kind="stable")
    weakest = can_be_halved[by_accuracy][:measured]

    chosen = [position <= fraction for fraction in fractions[:-1] for position in positions]
    chosen += [(y != index) | (position <= 0.5) for index in weakest for position in positions]
    count = counting(progress, len(chosen))

    def test(model: LinearModel) -> Float64:
        count()
        return _accuracy_per_class(calibration.labels(model.scores(x_test), costs), y_test, number_of_classes=k)

    examples = Examples(x, y, model.normalisation, number_of_classes=k, folder=folder)
    tested = np.array([test(svm) for svm in _fitted(examples, chosen, c)]).reshape(len(chosen), k)
    per_class = np.concatenate([tested[: parts * repeats].reshape(parts, repeats, k), np.tile(whole, (1, repeats, 1))])
    gains = np.full((k, repeats), np.nan)
    halved = tested[parts * repeats :].reshape(measured, repeats, k)
    gains[weakest] = np.nanmean(whole) - np.nanmean(halved, axis=2)
    shares = np.bincount(y_test, minlength=k) / len(y_test)
    return LearningCurve(
        names=list(names),
        images=np.array([np.mean([(p <= fraction).sum() for p in positions]).round() for fraction in fractions], int),
        images_per_class=members,
        groups_per_class=groups_of_class,
        accuracy=np.nansum(per_class * shares, axis=2),
        accuracy_per_class=per_class,
        gain_per_class=gains,
        aims_at_accuracy=aims_at_accuracy,
    )


def _fitted(examples: Examples, chosen: Sequence[Bool], c: float) -> Iterator[LinearModel]:
    """An SVM for each choice of the examples, [N]."""
    columns = min(COLUMNS, MOST_NUMBERS // len(examples.labels))
    at_once = max(1, columns // examples.number_of_classes)
    for first in range(0, len(chosen), at_once):
        mine = chosen[first : first + at_once]
        svms = Parts(examples, mine)
        svms.fit(c)
        yield from map(svms.model, range(len(mine)))


def write_learning_curve(curve: LearningCurve, folder: Path) -> list[Path]:
    """Write learning_curve.csv and learning_curve.png."""
    table, picture = folder / "learning_curve.csv", folder / "learning_curve.png"
    write_table(table, CurveRow, curve.rows())
    figures.save(learning_curve_figure(curve), picture)
    return [table, picture]


def learning_curve_figure(curve: LearningCurve) -> Figure:
    """Accuracy on the test images against the number of training images: of all, with its range, and of each class."""
    figure = figures.new_figure(8, 4.8)
    axes = figure.subplots()
    classes = curve.accuracy_per_class.mean(axis=1)  # [P, K]
    images = curve.images.astype(float)
    curves = {int(c): (images, classes[:, c]) for c in np.flatnonzero(np.isfinite(classes[-1]))}
    scores = {c: float(classes[-1, c]) for c in curves}
    figures.curves_by_class(axes, curves, scores, names=curve.names, score="accuracy", place="lower right")
    mean, low, high = curve.accuracy.mean(axis=1), curve.accuracy.min(axis=1), curve.accuracy.max(axis=1)
    axes.fill_between(images, low, high, color=INK, alpha=0.12, linewidth=0)
    axes.plot(images, mean, color=INK, linewidth=2.6, marker="o", markersize=5, zorder=3)
    axes.annotate(f"{mean[-1]:.1%}", (images[-1], mean[-1]), (7, 0), textcoords="offset points", va="center")
    axes.set_xscale("log")
    axes.set_xticks(images, [f"{count:,}" for count in curve.images])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(figures.percent)
    axes.set(xlabel="training images", ylabel="accuracy on the test images")
    figures.tidy(axes)
    figures.write_title(axes, "Accuracy and training images")
    return figure


def _halvings(members: Int) -> int:
    """How often the training images can be halved."""
    return max(0, min(HALVINGS, int(np.log2(members.sum() / (FEWEST * np.count_nonzero(members))))))


def _positions(labels: Int, groups: Sequence[str], *, seed: int, repeat: int) -> Float64:
    """For each image the part of its class, > 0 and <= 1, from which on it belongs to a part of the training images.

    Parts are nested, and the first group of a class belongs to all of them.
    """

    def rank(index: int) -> bytes:
        return hashlib.sha256(f"{seed}:{repeat}:{groups[index]}".encode("utf-8", "surrogateescape")).digest()

    order = sorted(range(len(labels)), key=rank)  # groups stay together
    positions = np.empty(len(labels))
    for label in np.unique(labels):
        mine = [i for i in order if labels[i] == label]
        names = [groups[i] for i in mine]
        last = {name: place for place, name in enumerate(names)}  # of a group
        positions[mine] = [(last[name] + 1) / len(mine) for name in names]
        positions[[i for i in mine if groups[i] == names[0]]] = 0.0
    return positions


def _accuracy_per_class(predicted: Int, labels: Int, *, number_of_classes: int) -> Float64:
    members = np.bincount(labels, minlength=number_of_classes)
    right = np.bincount(labels[predicted == labels], minlength=number_of_classes)
    accuracy: Float64 = np.divide(right, members, out=np.full(number_of_classes, np.nan), where=members > 0)
    return accuracy


def _first_of_all(curve: LearningCurve) -> list[str]:
    """The classes that have too few images to measure anything."""
    groups, images = curve.groups_per_class, curve.images_per_class
    missing, alone, single = (
        [curve.names[i] for i in np.flatnonzero(chosen).tolist()]
        for chosen in (groups == 0, images == 1, (groups == 1) & (images > 1))
    )
    told = []
    if missing:
        told.append(f"{_listed(missing)}: no training images, so this is never the answer. Add some first of all.")
    if alone:
        told.append(f"{_listed(alone)}: a single training image. More come first; what they would add is not known.")
    if single:
        told.append(
            f"{_listed(single)}: training images of one group only. Images of other objects come first; what they "
            "would add cannot be measured."
        )
    return told


def _listed(names: Sequence[str]) -> str:
    quoted = ", ".join(f"‘{name}’" for name in names[:MOST_NAMED])
    return quoted if len(names) <= MOST_NAMED else f"{quoted} and {len(names) - MOST_NAMED:,} more"


def _on_the_whole(curve: LearningCurve) -> str:
    means = curve.accuracy.mean(axis=1)
    half, whole = curve.images[-2:]
    gain = means[-1] - means[-2]
    missing = 1 - means[-1]  # no gain can exceed the present error
    is_double = abs(whole / half - 2) < NEARLY  # where groups are few, a half can be far from one
    images = (
        f"Twice the training images, {whole:,} instead of {half:,},"
        if is_double
        else (f"{whole:,} training images instead of {half:,}")
    )
    told = f"{images} took the accuracy from {means[-2]:.1%} to {means[-1]:.1%}."
    if gain < max(PLATEAU, _error_of_mean(curve.accuracy[-2])) or missing < PLATEAU:
        return f"{told} It is near its plateau: more images like these would help little."
    before = means[-2] - means[-3] if len(means) > 2 else gain
    next_gain = min(gain * float(np.clip(gain / before if before > 0 else 1.0, 0.25, 1.0)), missing)
    again = " again" if is_double else ""
    return f"{told} It still grows: twice as many{again} may add about {100 * next_gain:.1f} points."


def _by_class(curve: LearningCurve) -> list[str]:
    gains = curve.gain_per_class
    known = np.flatnonzero(np.isfinite(gains).all(axis=1)).tolist()
    is_open = bool((curve.groups_per_class < 2).any())  # classes that lack images, by what is said first of all
    mean = gains.mean(axis=1)
    best = max(known, key=lambda index: mean[index], default=None)
    missing = 1 - curve.accuracy[-1].mean()  # no gain can exceed the present error
    if best is None or min(mean[best], missing) < max(NOTABLE, 2 * _error_of_mean(gains[best])):
        return [] if is_open else ["No class stands out as the one that lacks images."]
    return [
        f"More images of ‘{curve.names[best]}’ would help most{' among the others' if is_open else ''}: the second "
        f"half of its {curve.images_per_class[best]:,} training images raised the class-averaged accuracy by "
        f"{100 * mean[best]:.1f} points."
    ]


def _error_of_mean(values: Float64) -> float:
    """Standard error of the mean of [R] values; 0 for a single one."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
