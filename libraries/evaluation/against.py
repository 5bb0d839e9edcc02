"""A classifier against a release, on the same test images: better, the same or worse; for whom; and what flipped."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, get_args

import numpy as np

from libraries.base.arrays import Bool
from libraries.base.console import counting, table
from libraries.base.errors import InputError
from libraries.base.layout import Layout
from libraries.base.pool import ordered_map
from libraries.base.tables import Column, write_table
from libraries.classifier.bundle import Classifier
from libraries.classifier.costs import Costs
from libraries.data.dataset import Example, read_examples, read_white_level
from libraries.data.remembered import Remembered
from libraries.evaluation.costs import gained
from libraries.evaluation.outputs import thumbnail
from libraries.evaluation.paired import Difference, Verdict, difference, holm
from libraries.evaluation.release import find_release, has_same_network
from libraries.evaluation.report import THUMBNAIL, Thumbnail, small_picture, write_page
from libraries.evaluation.slices import RISING, slices_of
from libraries.evaluation.testing import Tested, classify, classify_stored
from libraries.evaluation.wording import percent
from libraries.network.embedding_store import read_features

Change = Literal["broken", "mended", "other"]
CHANGES: tuple[Change, ...] = get_args(Change)

FEWEST = 20  # images of a slice
MOST_SHOWN = 40  # flipped images of each kind, on the page


@dataclass(frozen=True)
class Flip:
    """A row of against_<release>.csv: an image that the two answer differently."""

    path: Annotated[str, Column("path of the image, relative to the folder of the data set")]
    label: Annotated[str, Column("true class")]
    then: Annotated[str, Column("answer of the release")]
    now: Annotated[str, Column("answer of the classifier of now")]
    change: Annotated[Change, Column("mended: right now; broken: right then; other: never")]
    then_probability: Annotated[float, Column("that the release gave to its answer", decimals=6)]
    now_probability: Annotated[float, Column("that the classifier of now gives to its answer", decimals=6)]


@dataclass(frozen=True)
class Comparison:
    """What has come out.

    Attributes:
        release: its name.
        whole: of all images, by accuracy.
        costs: of all images, by costs; None: mistakes have none.
        slices: classes first.
        flips: those with the surest answers first.
        left_out: test images that cannot be compared, by the reason.
        unit: of the costs.
        is_without_costs: whether mistakes have costs, but the release gives answers that have none.
    """

    release: str
    whole: Difference
    costs: Difference | None
    slices: list[Difference]
    flips: list[Flip]
    left_out: Mapping[str, int]
    unit: str = ""
    is_without_costs: bool = False

    @property
    def verdict(self) -> Verdict:
        """By the costs, if there are any, else by the accuracy; worse, too, if any class or slice is.

        Costs weigh the classes against each other, so that with them a class alone makes it no worse.
        """
        main = (self.costs or self.whole).verdict
        return "worse" if main == "worse" or self._worse else main

    @property
    def _worse(self) -> list[Difference]:
        return [each for each in self.slices if each.verdict == "worse" and not (self.costs and each.kind == "class")]

    def shown(self, value: float) -> str:
        """An accuracy, or the cost of 100 images, of a slice."""
        return percent(value) if self.costs is None else f"{100 * value:.4g}"

    def sentences(self) -> list[str]:
        """The verdict in words, and what it rests on."""
        whole, main = self.whole, self.costs or self.whole
        low, high = 100 * (whole.gain - whole.margin), 100 * (whole.gain + whole.margin)
        told = [
            f"{self.verdict.capitalize()} than ‘{self.release}’."
            if self.verdict != "same"
            else f"No worse than ‘{self.release}’, and no better, as far as these images can tell.",
            f"Of {whole.images:,} test images that both can be asked about, {percent(whole.then)} were right and "
            f"{percent(whole.now)} are: {100 * whole.gain:+.1f} points (95% interval {low:+.1f} to {high:+.1f}, "
            f"p = {whole.p:.2g}).",
        ]
        if self.costs is not None:
            unit = f" {self.unit}" if self.unit else ""
            saved, spread = 100 * main.gain, 100 * main.margin
            told.append(
                f"By your costs, which decide, 100 images cost {100 * main.then:.4g}{unit} then and "
                f"{100 * main.now:.4g} now: {gained(saved)} ({abs(saved) - spread:.3g} to {abs(saved) + spread:.3g}, "
                f"p = {main.p:.2g})."
            )
        if main.verdict == "same" and self.verdict == "same" and low < 0 and self.costs is None:
            told.append(f"It may be up to {-low:.1f} points worse: only more test images could tell.")
        if self.is_without_costs:
            told.append("The release gives answers that are no classes any more, so that costs cannot be compared.")
        if self._worse:
            each_of = ", ".join(
                f"{_named(s)} ({self.shown(s.then)} then, {self.shown(s.now)} now)" for s in self._worse
            )
            told.append(f"It is worse for {each_of}, all classes and slices considered.")
        kinds = [flip.change for flip in self.flips]
        told.append(
            f"{len(kinds):,} answers are different: {kinds.count('mended'):,} mended, {kinds.count('broken'):,} "
            f"broken, {kinds.count('other'):,} wrong in another way."
        )
        told += [f"Left out: {count:,} {reason}." for reason, count in self.left_out.items() if count]
        return told

    def table(self) -> str:
        """All differences, for the console."""
        rows = [
            (
                each.of if each.kind in ("", "class") else f"{each.kind}: {each.of}",
                f"{each.images:,}",
                self.shown(each.then),
                self.shown(each.now),
                self.change(each),
                each.verdict if each.verdict != "same" else "",
            )
            for each in (self.costs or self.whole, *self.slices)
        ]
        header = ["", "images", "then", "now", self.changes, ""]
        return table(f"{self.what}, against the release '{self.release}'", header, rows)

    @property
    def what(self) -> str:
        """What is compared."""
        unit = f" [{self.unit}]" if self.unit else ""
        return "Accuracy on the test images" if self.costs is None else f"Cost of 100 test images{unit}"

    @property
    def changes(self) -> str:
        """The heading of the differences."""
        return "points" if self.costs is None else "saved"

    def change(self, each: Difference) -> str:
        """A difference with half the width of its interval."""
        if self.costs is None:
            return f"{100 * each.gain:+.1f} ± {100 * each.margin:.1f}"
        return f"{100 * each.gain:+.4g} ± {100 * each.margin:.3g}"


def _named(each: Difference) -> str:
    return f"‘{each.of}’" if each.kind == "class" else f"{each.kind} ‘{each.of}’"


def comparable(examples: Sequence[Example], *, labels: Sequence[str], trained_on: frozenset[str]) -> Mapping[str, Bool]:
    """Which of N test images cannot be compared, by the reason, each [N].

    Args:
        labels: that the release knows.
        trained_on: SHA-256 of its training images; what is in a group with one of these is as good as seen.
    """
    seen = {example.group for example in examples if example.sha256 in trained_on}
    is_seen = np.array([example.group in seen for example in examples], bool)
    is_foreign = np.array([example.label not in labels for example in examples], bool)
    return {
        "that the release was trained on, or that look like these": is_seen,
        "of classes that it does not know": is_foreign & ~is_seen,
    }


def _order(name: str) -> tuple[int, str]:
    """Sizes and brightnesses rise, others are in alphabetical order."""
    return (RISING.index(name), "") if name in RISING else (len(RISING), name)


def compare(
    now: Tested,
    then: Tested,
    *,
    release: str,
    slices: Mapping[str, Sequence[str | None]],
    left_out: Mapping[str, int],
    costs: Costs | None = None,
    seed: int = 0,
) -> Comparison:
    """Compare two classifiers.

    Args:
        now, then: their answers for the same N images, in the same order; `then` may know fewer or other classes.
        slices: by what they are, the slice of each image, or None.
        left_out: see `Comparison`.
        costs: of mistakes, by the classes of `now`.
        seed: of the random exchanges.
    """
    names, count = now.names, len(now.labels)
    number = {name: i for i, name in enumerate(names)}
    of_then = [then.names[answer] for answer in then.predictions]
    of_now = [names[answer] for answer in now.predictions]
    truth = [example.label for example in now.examples]
    was_right = np.array([answer == label for answer, label in zip(of_then, truth, strict=True)], float)
    is_right = np.array([answer == label for answer, label in zip(of_now, truth, strict=True)], float)
    groups = np.unique([group or str(i) for i, group in enumerate(now.groups)], return_inverse=True)[1]
    rng = np.random.default_rng(seed)
    whole = difference("all", "", was_right, is_right, groups, unit=1.0, rng=rng)
    was_worth, is_worth, most, of_costs = was_right, is_right, 1.0, None
    if costs is not None and all(answer in number for answer in of_then):
        answers = np.array([number[answer] for answer in of_then])
        nobody = np.zeros(count, bool)
        paid_then = costs.paid(now.labels, answers, nobody if then.asked is None else then.asked)
        paid_now = costs.paid(now.labels, now.predictions, nobody if now.asked is None else now.asked)
        was_worth, is_worth, most = -paid_then, -paid_now, float(costs.matrix.max())
        of_costs = _paid(difference("all", "", was_worth, is_worth, groups, unit=most, rng=rng))
    kinds: dict[str, Sequence[str | None]] = {"class": truth, **slices}
    found = []
    for kind, names_of in kinds.items():
        for name in sorted({each for each in names_of if each is not None}, key=_order):
            mine = np.array([each == name for each in names_of])
            if mine.sum() >= FEWEST:
                given = was_worth[mine], is_worth[mine], groups[mine]
                one = difference(name, kind, *given, unit=most, rng=rng)
                found.append(one if of_costs is None else _paid(one))
    return Comparison(
        release,
        whole,
        of_costs,
        holm(found),
        _flips(now, then),
        left_out,
        unit="" if costs is None else costs.unit,
        is_without_costs=costs is not None and of_costs is None,
    )


def _flips(now: Tested, then: Tested) -> list[Flip]:
    """The images that are answered differently, the broken ones first, the surest answers first among each kind."""
    found = []
    for i, example in enumerate(now.examples):
        before, after = then.predictions[i], now.predictions[i]
        old, new = then.names[before], now.names[after]
        if old != new:
            change: Change = "mended" if new == example.label else "broken" if old == example.label else "other"
            sure = float(then.probabilities[i, before]), float(now.probabilities[i, after])
            found.append(Flip(example.path, example.label, old, new, change, *sure))
    return sorted(found, key=lambda flip: (CHANGES.index(flip.change), -flip.now_probability))


def _paid(worth: Difference) -> Difference:
    """Costs are what is worth less than nothing."""
    return replace(worth, then=-worth.then, now=-worth.now)


def against_release(
    layout: Layout,
    name: str,
    *,
    precision: Literal["f32", "bf16"],
    seed: int,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Comparison:
    """Compare the current bundle with a release on the current test images.

    Args:
        precision: of the network.
        seed: of the random exchanges.
        progress: called with how many images the release has classified, and of how many, if its network is another.

    Raises:
        ParameterError, InputError, StorageError: there is no such release, it is damaged, or nothing can be compared.
    """
    release = find_release(layout, name)
    now, then = (Classifier(folder, precision=precision) for folder in (layout.bundle.folder, release.bundle))
    examples = [e for e in read_examples(layout.examples.folder / "examples.csv") if e.split == "test"]
    reasons = comparable(examples, labels=then.labels, trained_on=release.trained_on)
    kept = [e for i, e in enumerate(examples) if not any(unfit[i] for unfit in reasons.values())]
    if not kept:
        told = " and ".join(f"{int(unfit.sum()):,} {reason}" for reason, unfit in reasons.items() if unfit.any())
        raise InputError(f"there is no test image to compare with '{name}': {told or 'there are none at all'}")
    features, files = read_features(layout.features.folder, first="train"), Remembered.of(layout).files
    stored = partial(classify_stored, features=features, images=layout.images, files=files)
    of_now = stored(now, kept)
    if then.rule == now.rule and has_same_network(release.bundle, layout.network):
        of_then = stored(then, of_now.examples)
    else:
        count = counting(progress, len(of_now.examples))
        of_then = classify(then, of_now.examples, images=layout.images, progress=count)
    return compare(
        of_now,
        of_then,
        release=name,
        slices=slices_of(of_now.examples, layout, white_level=read_white_level(layout.examples)),
        left_out={reason: int(unfit.sum()) for reason, unfit in reasons.items()},
        costs=now.decision.costs,
        seed=seed,
    )


def write_comparison(found: Comparison, layout: Layout) -> tuple[Path, Path]:
    """Write the page and the table of what has flipped; returns their paths."""
    white_level = read_white_level(layout.examples)
    page, rows = (layout.proc / f"against_{found.release}.{suffix}" for suffix in ("html", "csv"))
    write_table(rows, Flip, found.flips)

    def card(flip: Flip) -> tuple[Flip, Thumbnail]:
        picture = partial(thumbnail, white_level=white_level, max_pixels=layout.max_pixels)
        return flip, small_picture(flip.path, lambda path, side: picture(layout.images / path, side), THUMBNAIL)

    shown = {
        kind: [flip for flip in found.flips if flip.change == kind][:MOST_SHOWN]
        for kind in ("broken", "mended", "other")
    }
    write_page(
        page,
        "against.html",
        title=layout.dataset,
        date=datetime.now().strftime("%Y-%m-%d %H:%M"),
        found=found,
        cards={kind: [made for _, made in ordered_map(card, flips)] for kind, flips in shown.items()},
        counts={kind: sum(flip.change == kind for flip in found.flips) for kind in shown},
    )
    return page, rows
