"""The queue of images to look at, review.csv: which, why, and which label they may have, best first."""

import contextlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal, get_args

import numpy as np

from libraries.base.arrays import Float32
from libraries.base.console import counted
from libraries.base.storage import sha256
from libraries.base.tables import Column, read_table, write_table
from libraries.data.class_folders import image_file, pooled
from libraries.data.dataset import Example
from libraries.review.evidence import Evidence, unlike_others
from libraries.review.pool import Worth, hard_negatives, worth_labelling

Reason = Literal["contradicting", "mislabelled", "ambiguous", "outlier", "label next", "hard negative", "random"]
REASONS: tuple[Reason, ...] = get_args(Reason)  # in the order of the queue

CLEARLY = 1.5  # times as probable as an image's own label is a label that it seems to have instead
VOTES = 0.3  # of the neighbours at least, for each of two labels between which an image stands
SECONDS = 4  # that a look takes
LABEL_NEXT = 100  # images of the pool at most; after their labels, others are worth more
HARD_NEGATIVES = 30  # at most, but one of each class


@dataclass(frozen=True)
class QueueRow:
    """An image to look at again."""

    path: Annotated[
        str, Column("path of the image, relative to the folder of the data set; .pool/ is the folder of the pool")
    ]
    label: Annotated[
        str | None, Column("name of its class; of a hard negative, that of the class it is like; empty: it has none")
    ]
    suggested: Annotated[str | None, Column("the label that it may have instead; empty: none is more probable")]
    reason: Annotated[
        Reason,
        Column("contradicting: a duplicate, or a caller of the service, says another label; mislabelled; ambiguous: "
               "two labels are about as likely; outlier: unlike all others; of the pool, label next: its label would "
               "teach much, or hard negative: like a class, but of another; random: drawn, to know how many labels "
               "are wrong"),
    ]  # fmt: skip
    score: Annotated[float, Column("how much it is worth a look among those with the same reason, 0 to 1", decimals=4)]
    split: Annotated[Literal["train", "test", "pool"], Column("train, test, or pool: it has no label yet")]
    group: Annotated[str | None, Column("images of one group follow each other")]


def make_queue(
    found: Evidence,
    examples: Sequence[Example],
    *,
    names: Sequence[str],
    duplicates: Sequence[str],
    decided: Collection[str],
    drawn: int = 0,
) -> list[QueueRow]:
    """The queue, best first; an image is in it once, for the first reason that it has.

    Args:
        found: of N images.
        examples: these.
        names: of the K classes.
        duplicates: [N], names of groups of duplicates.
        decided: paths of images that a person has decided on: they are not asked about again.
        drawn: how many of the other images are in it to know how many labels are wrong.
    """
    confidence, other = found.confidence, found.other
    of_other = found.probabilities[np.arange(len(other)), other]
    reasons: dict[int, tuple[Reason, int | None, float]] = {}  # with the suggested class and the score, by image
    for images in _contradicting(found, duplicates):
        likely = _likely(found, [i for i in images if examples[i].path in decided] or images)
        unlike = [i for i in images if found.labels[i] != likely]
        reasons |= {i: ("contradicting", likely, float(1 - np.nan_to_num(confidence[i]))) for i in unlike}
    with np.errstate(invalid="ignore"):  # what cannot be judged is NaN
        is_wrong = of_other > CLEARLY * confidence
        is_close = (of_other * CLEARLY >= confidence) & ~is_wrong
    places = np.arange(len(other))
    is_close &= np.minimum(found.votes[places, other], found.votes[places, found.labels]) >= VOTES
    fence = found.strangeness[~unlike_others(found)].max(initial=0)
    for i in np.flatnonzero(is_wrong).tolist():
        reasons.setdefault(i, ("mislabelled", int(other[i]), float(1 - confidence[i])))
    for i in np.flatnonzero(is_close).tolist():
        both = float(confidence[i] + of_other[i])
        reasons.setdefault(i, ("ambiguous", int(other[i]), 2 * min(float(confidence[i]), float(of_other[i])) / both))
    for i in np.flatnonzero(unlike_others(found) & np.isfinite(confidence)).tolist():
        reasons.setdefault(i, ("outlier", None, float(1 - fence / found.strangeness[i])))
    others = sorted((e.sha256, i) for i, e in enumerate(examples) if i not in reasons and e.path not in decided)
    reasons |= {i: ("random", None, 0.0) for _, i in others[:drawn]}  # in the order of a hash, so at random
    rows = []
    for i, (reason, suggested, score) in reasons.items():
        example = examples[i]
        group = duplicates[i] if reason == "contradicting" else example.group
        if example.path not in decided:
            rows.append(
                QueueRow(
                    example.path,
                    example.label,
                    None if suggested is None else names[suggested],
                    reason,
                    score,
                    example.split,
                    None if group == example.path else group,
                )
            )
    return ordered(rows)


def pool_queue(
    found: Evidence,
    labelled: Float32,
    pool: Float32,
    images: Sequence[Example],
    names: Sequence[str],
    *,
    told: Mapping[str, Collection[str]] = MappingProxyType({}),
) -> list[QueueRow]:
    """The images of the pool that are worth a look; first those whose label was told.

    Args:
        found: with the probabilities of M images of the pool.
        labelled: float32 [N, D], embeddings of the images with a label.
        pool: float32 [M, D], likewise.
        images: the pool's; their paths are those within its folder.
        names: of the K classes.
        told: labels that callers of the service have sent, by the SHA-256 of an image.
    """
    if not images:
        return []
    next_ = worth_labelling(found.of_others, pool, labelled, normalise=found.normalise, most=LABEL_NEXT)
    hard = hard_negatives(found.of_others, of_each=max(1, HARD_NEGATIVES // len(names)), but=[w.row for w in next_])
    sent = {row: sorted({*told.get(e.sha256, ())} & {*names}) for row, e in enumerate(images)}
    likely = [names[label] for label in found.of_others.argmax(axis=1).tolist()]
    rows = []
    for each in (*(Worth(row, 1.0) for row, labels in sent.items() if labels), *next_, *hard):
        labels = sent.pop(each.row, None)
        if labels is None:
            continue
        reason: Reason = "label next" if each.like is None else "hard negative"
        rows.append(
            QueueRow(
                pooled(images[each.row].path),
                None if each.like is None else names[each.like],
                likely[each.row] if not labels or likely[each.row] in labels else labels[0],
                "contradicting" if len(labels) > 1 else reason,
                each.score,
                "pool",
                None,
            )
        )
    return ordered(rows)


def contradicted(
    examples: Sequence[Example],
    told: Mapping[str, Collection[str]],
    *,
    names: Collection[str],
    decided: Collection[str],
) -> list[QueueRow]:
    """Images with a label for which a caller of the service has sent another one; see `pool_queue`."""
    return [
        QueueRow(e.path, e.label, min(others), "contradicting", 1.0, e.split, None)
        for e in examples
        if e.path not in decided and (others := {*told.get(e.sha256, ())} & {*names} - {e.label})
    ]


def _contradicting(found: Evidence, duplicates: Sequence[str]) -> list[list[int]]:
    """The images of each group of duplicates that has several labels."""
    members: defaultdict[str, list[int]] = defaultdict(list)
    for i, group in enumerate(duplicates):
        members[group].append(i)
    return [images for images in members.values() if len({*found.labels[images].tolist()}) > 1]


def _likely(found: Evidence, images: Sequence[int]) -> int | None:
    """The label that images of one picture have: the most probable of theirs, else the commonest; None if unclear."""
    counts = Counter(found.labels[images].tolist())
    by_evidence = np.nan_to_num(found.probabilities[images]).sum(axis=0)
    (first, most), *others = sorted(counts.items(), key=lambda item: (by_evidence[item[0]], item[1]), reverse=True)
    is_known = by_evidence[first] > 0 or not others or most > others[0][1]
    return first if is_known else None


def ordered(rows: Iterable[QueueRow]) -> list[QueueRow]:
    """By reason, then the best first; images of one group and reason beside the best of them."""

    def alone(row: QueueRow) -> tuple[str, str]:
        return row.reason, row.path if row.group is None else f"group {row.group}"

    rows = sorted(rows, key=lambda row: (-row.score, row.path))
    best: dict[tuple[str, str], int] = {}
    for place, row in enumerate(rows):
        best.setdefault(alone(row), place)
    return sorted(rows, key=lambda row: (REASONS.index(row.reason), best[alone(row)]))


def write_queue(path: Path, rows: Sequence[QueueRow]) -> None:
    """Write review.csv."""
    write_table(path, QueueRow, rows)


def read_queue(path: Path) -> list[QueueRow]:
    """The rows of review.csv; none if it does not exist.

    Raises:
        StorageError: it cannot be read.
    """
    if not path.exists():
        return []
    return read_table(path, QueueRow, advice="run scripts/5_evaluate.py --review again")


def suggestions(rows: Iterable[QueueRow], *, decided: Collection[str]) -> dict[str, tuple[str, float]]:
    """Another label and the score of each image that may have one, by path, in the order of the queue."""
    open_rows = (row for row in rows if row.path not in decided)
    return {row.path: (row.suggested, row.score) for row in open_rows if row.suggested is not None}


def without_label(rows: Iterable[QueueRow], folder: Path, *, decided: Collection[str]) -> list[Example]:
    """The images of the pool that are in the queue, and still there, in its order.

    Args:
        folder: of the data set.
    """
    found = []
    for path in dict.fromkeys(row.path for row in rows if row.split == "pool" and row.path not in decided):
        with contextlib.suppress(OSError):
            found.append(Example(path, "", "train", path, 0, 0, 0, sha256(image_file(folder, path))))
    return found


def summary(rows: Sequence[QueueRow]) -> str:
    """How much there is to look at, in one line."""
    if not rows:
        return "No label is doubtful, and no image stands out"
    count = Counter(row.reason for row in rows)
    told = ", ".join(f"{count[reason]:,} {reason}" for reason in REASONS if count[reason])
    return f"Worth a look: {counted(len(rows), 'image')} ({told}); {time_for(len(rows))}"


def is_doubtful(row: QueueRow) -> bool:
    """Whether an image with a label is in the queue for what it is, not by chance."""
    return row.split != "pool" and row.reason != "random"


def time_for(images: int) -> str:
    """About how long it takes to look at so many."""
    return f"about {counted(max(1, round(images * SECONDS / 60)), 'minute')}"
