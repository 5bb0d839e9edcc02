"""The queue: who is in it for which reason, in which order, and how it is kept."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from libraries.base.errors import StorageError
from libraries.data.dataset import Example
from libraries.review.evidence import Evidence
from libraries.review.queue import QueueRow, make_queue, read_queue, summary, write_queue

NAMES = ["cat", "dog", "owl"]


def example(name: str, label: str, group: str | None = None) -> Example:
    path = f"{label}/{name}.jpg"
    return Example(path, label, "train", group or path, 10, 10, 100, name)


def judged(*rows: tuple[int, list[float]]) -> Evidence:
    """Of labels and probabilities; neighbours agree with these, none is strange."""
    labels = np.array([label for label, _ in rows])
    probabilities = np.array([p for _, p in rows], np.float32)
    strangeness, none = np.full(len(rows), 0.2, np.float32), np.zeros((0, len(NAMES)), np.float32)
    return Evidence(
        labels, probabilities, np.nan_to_num(probabilities), strangeness, none, lambda embeddings: embeddings
    )


def queue(found: Evidence, examples: list[Example], **changes: object) -> list[QueueRow]:
    given = {"names": NAMES, "duplicates": [e.path for e in examples], "decided": set(), **changes}
    return make_queue(found, examples, **given)  # type: ignore[arg-type]


def told(rows: list[QueueRow]) -> list[tuple[str, str, str | None]]:
    return [(row.path, row.reason, row.suggested) for row in rows]


def test_every_reason_in_its_order_the_best_first() -> None:
    examples = [
        example("sure", "cat"),
        example("maybe", "cat"),
        example("wrong", "cat"),
        example("worse", "dog"),
        example("between", "owl"),
        example("odd", "owl"),
        example("twin", "cat"),
        example("twin", "dog"),
    ]
    found = judged(
        (0, [0.9, 0.05, 0.05]),
        (0, [0.6, 0.2, 0.2]),
        (0, [0.2, 0.7, 0.1]),
        (1, [0.9, 0.05, 0.05]),
        (2, [0.45, 0.1, 0.45]),
        (2, [0.1, 0.0, 0.9]),
        (0, [0.8, 0.2, 0.0]),
        (1, [0.7, 0.3, 0.0]),
    )
    found.strangeness[5] = 0.9
    alike = [e.path for e in examples[:6]] + ["duplicates 1"] * 2
    rows = queue(found, examples, duplicates=alike)
    assert told(rows) == [
        ("dog/twin.jpg", "contradicting", "cat"),
        ("dog/worse.jpg", "mislabelled", "cat"),
        ("cat/wrong.jpg", "mislabelled", "dog"),
        ("owl/between.jpg", "ambiguous", "cat"),
        ("owl/odd.jpg", "outlier", None),
    ]
    assert all(0 <= row.score <= 1 for row in rows)
    assert [row.group for row in rows[:2]] == ["duplicates 1", None]
    assert summary(rows) == (
        "Worth a look: 5 images (1 contradicting, 2 mislabelled, 1 ambiguous, 1 outlier); about 1 minute"
    )


def test_nothing_is_asked_twice() -> None:
    examples = [example("a", "cat"), example("b", "cat")]
    found = judged((0, [0.1, 0.9, 0.0]), (0, [0.1, 0.9, 0.0]))
    assert [row.path for row in queue(found, examples, decided={"cat/a.jpg"})] == ["cat/b.jpg"]
    assert summary([]) == "No label is doubtful, and no image stands out"


def test_images_of_a_group_follow_the_best_of_them() -> None:
    examples = [example(name, "cat", group) for name, group in (("a", "g"), ("b", "other"), ("c", "g"), ("d", None))]
    found = judged(*((0, [1 - p, p, 0.0]) for p in (0.95, 0.9, 0.8, 0.85)))
    assert [row.path for row in queue(found, examples)] == ["cat/a.jpg", "cat/c.jpg", "cat/b.jpg", "cat/d.jpg"]


def test_who_cannot_be_judged_is_only_told_if_it_contradicts() -> None:
    unknown = [float("nan")] * 3
    examples = [example("a", "owl"), example("a", "cat")]
    found = judged((2, unknown), (0, [0.9, 0.1, 0.0]))
    assert queue(found, examples) == []
    rows = queue(found, examples, duplicates=["duplicates 1"] * 2)
    assert told(rows) == [("owl/a.jpg", "contradicting", "cat")]
    assert rows[0].score == 1


def test_of_duplicates_only_those_are_asked_about_that_are_unlike_the_others() -> None:
    examples = [example(str(i), "cat") for i in range(9)] + [example("9", "dog")]
    alike = {"duplicates": ["duplicates 1"] * 10}
    sure = judged(*[(0, [0.9, 0.1, 0.0])] * 9, (1, [0.9, 0.1, 0.0]))
    assert told(queue(sure, examples, **alike)) == [("dog/9.jpg", "contradicting", "cat")]
    # a person has said that one is a dog: then the others are asked about
    asked = queue(sure, examples, **alike, decided={"dog/9.jpg"})
    assert len(asked) == 9 and {row.suggested for row in asked} == {"dog"}
    # nothing is known, and each label is there once: no label is suggested
    unknown = judged((0, [float("nan")] * 3), (1, [float("nan")] * 3))
    two = queue(unknown, [examples[0], examples[9]], duplicates=["duplicates 1"] * 2)
    assert told(two) == [("cat/0.jpg", "contradicting", None), ("dog/9.jpg", "contradicting", None)]


def test_it_is_kept(tmp_path: Path) -> None:
    examples = [example("=1+1", "cat"), example("ü, b", "dog", "g")]
    rows = queue(judged((0, [0.1, 0.9, 0.0]), (1, [0.9, 0.1, 0.0])), examples)
    assert len(rows) == 2
    write_queue(tmp_path / "review.csv", rows)
    assert read_queue(tmp_path / "review.csv") == [replace(row, score=round(row.score, 4)) for row in rows]
    assert read_queue(tmp_path / "none.csv") == []
    (tmp_path / "review.csv").write_text("path,label\na\n", encoding="utf-8")
    with pytest.raises(StorageError, match=r"review\.csv .*run scripts/5_evaluate\.py --review again"):
        read_queue(tmp_path / "review.csv")
