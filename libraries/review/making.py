"""Makes the queue of a data set: from what the steps before have left on disk, and from its pool."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, NamedTuple

import numpy as np

from libraries.base.arrays import Float32
from libraries.base.errors import ImageError, InputError, MissingInput, StorageError
from libraries.base.layout import Layout
from libraries.base.tables import Column, read_table
from libraries.data.annotations import Annotations
from libraries.data.class_folders import in_pool
from libraries.data.class_map import ClassMap
from libraries.data.dataset import Example, read_examples
from libraries.data.duplicates import read_groups
from libraries.network.embedding_store import Features
from libraries.review.answers import DRAWN, Answers
from libraries.review.evidence import evidence
from libraries.review.pool import embed_labelled, embed_pool, find_pool
from libraries.review.queue import QueueRow, contradicted, is_doubtful, make_queue, ordered, pool_queue, write_queue

if TYPE_CHECKING:
    from libraries.network.runners import RunOptions


@dataclass(frozen=True)
class Labelled:
    """N images with a label.

    Attributes:
        alike: [N], names of groups of duplicates.
        embedding: float32 [N, D].
    """

    examples: list[Example]
    alike: list[str]
    embedding: Float32


def as_prepared(layout: Layout, features: Features) -> Labelled:
    """The images as they were when script 1 ran; raises StorageError if a table cannot be read."""
    by_path = {example.path: example for example in read_examples(layout.examples.folder / "examples.csv")}
    examples = [by_path[path] for path in features.path]
    alike = [example.group for example in read_groups(layout.examples.folder / "duplicates.csv", examples)]
    return Labelled(examples, alike, features.embedding)


def as_annotated(prepared: Labelled, layout: Layout, annotations: Annotations, options: "RunOptions") -> Labelled:
    """The images with the labels that they have now, without those that are marked, and with new ones from the pool.

    Args:
        options: how the network is run over these, if their embeddings are not known.

    Raises:
        NetworkError, StorageError: the network cannot be read.
    """
    moves = annotations.moves_since(layout.prepared_state)
    classes, marks, history = (
        ClassMap.read(layout.class_map, annotations.folders),
        annotations.marks,
        annotations.history,
    )
    paths = [moves.get(example.path, example.path) for example in prepared.examples]
    rows = [row for row, path in enumerate(paths) if path not in marks and classes.label(path)]
    examples = [replace(prepared.examples[row], path=paths[row], label=classes.label(paths[row])) for row in rows]
    known, of_pool = {*paths}, [path for path, first in history.state.first.items() if in_pool(first)]
    new = [
        Example(path, classes.label(path), "train", path, 0, 0, 0, str(history.sha256[path]))
        for path in of_pool
        if path not in known and path not in marks and classes.label(path) and annotations.file(path).is_file()
    ]
    new, embedding = embed_labelled(layout, new, options)
    alike = [prepared.alike[row] for row in rows] + [example.path for example in new]
    kept = prepared.embedding if len(rows) == len(paths) else prepared.embedding[rows]
    return Labelled([*examples, *new], alike, np.concatenate([kept, embedding]) if new else kept)


@dataclass(frozen=True)
class JudgedRow:
    """What is needed of a row of a cross-validation's predictions.csv."""

    path: Annotated[str, Column()]
    probabilities: Annotated[Mapping[str, float], Column(prefix="probability of ")]


class Review(NamedTuple):
    """What there is to look at.

    Attributes:
        rows: the queue.
        left_out: errors of images of the pool that cannot be read.
        told: what the answers up to now say, in sentences.
    """

    rows: list[QueueRow]
    left_out: list[ImageError]
    told: list[str]


def review(
    layout: Layout,
    features: Features,
    options: "RunOptions",
    *,
    seed: int,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Review:
    """Make the queue, and write it into review.csv.

    Args:
        features: of all images.
        options: how the network is run over the images of the pool.
        seed: of the folds.
        progress: called with how many of these are done, and how many there are.

    Raises:
        StorageError: a file cannot be read or written.
    """
    annotations = Annotations(layout.images)
    made = queue_of(as_prepared(layout, features), layout, annotations, options, seed=seed, progress=progress)
    write_queue(layout.review, made.rows)
    return made


def queue_of(
    labelled: Labelled,
    layout: Layout,
    annotations: Annotations,
    options: "RunOptions",
    *,
    seed: int,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Review:
    """Make the queue of these images and the pool; see `review`.

    Raises:
        InputError: there are fewer than two classes.
    """
    examples, decided = labelled.examples, annotations.history.state.decided
    answers = Answers.of(annotations.history)
    names, labels = np.unique([example.label for example in examples], return_inverse=True)
    if len(names) < 2:
        raise InputError("there is nothing to compare: two classes need images")
    groups = np.unique([example.group for example in examples], return_inverse=True)[1]
    pool = find_pool(layout, labelled={example.sha256 for example in examples}, decided=decided)
    unlabelled, of_pool, left_out = embed_pool(layout, pool, options, progress=progress)
    found = evidence(
        labelled.embedding,
        labels,
        groups,
        number_of_classes=len(names),
        judged=_judged(layout, examples, names.tolist()),
        others=of_pool,
        seed=seed,
    )
    drawn = max(0, DRAWN - len(answers.drawn))
    rows = make_queue(found, examples, names=names.tolist(), duplicates=labelled.alike, decided=decided, drawn=drawn)
    against = {row.path: row for row in contradicted(examples, pool.told, names=names.tolist(), decided=decided)}
    rows = [*against.values(), *(row for row in rows if row.path not in against)]
    left = sum(example.path not in decided for example in examples) - sum(map(is_doubtful, rows))
    rows += pool_queue(found, labelled.embedding, of_pool, unlabelled, names.tolist(), told=pool.told)
    rows = _by_folder(rows, examples, ClassMap.read(layout.class_map, annotations.folders))
    return Review(ordered(rows), [*pool.left_out, *left_out], answers.told(left=left, advice=_advice(layout)))


def _by_folder(rows: list[QueueRow], examples: Sequence[Example], classes: ClassMap) -> list[QueueRow]:
    """The same, with the folders instead of the classes of a map: an answer moves an image into a folder."""
    if not classes.rules:
        return rows
    folder_of = classes.folders_of({example.path: example.label for example in examples})
    return [
        replace(
            row,
            label=row.label if row.label is None or in_pool(row.path) else classes.folders.label(row.path),
            suggested=None if row.suggested is None else folder_of.get(row.suggested),
        )
        for row in rows
    ]


def _judged(layout: Layout, examples: Sequence[Example], names: Sequence[str]) -> Float32 | None:
    """What a cross-validation of refined networks says of the images, float32 [N, K]; None if there is none."""
    table = layout.crossvalidation.folder / "predictions.csv"
    if not layout.is_refined or not layout.regardless_of_labels().crossvalidation.is_current():
        return None
    by_content = {e.path: e.sha256 for e in read_examples(layout.examples.folder / "examples.csv")}
    number = {name: i for i, name in enumerate(names)}
    found: dict[str, Float32] = {}
    for row in read_table(table, JudgedRow, advice="run scripts/5_evaluate.py --folds again"):
        probabilities = np.zeros(len(names), np.float32)
        for name, probability in row.probabilities.items():
            if name in number:
                probabilities[number[name]] = probability
        found[by_content[row.path]] = probabilities
    nothing = np.full(len(names), np.nan, np.float32)
    return np.stack([found.get(example.sha256, nothing) for example in examples])


def _advice(layout: Layout) -> list[str]:
    """What script 4 has said about more images."""
    try:
        return [str(sentence) for sentence in layout.svm.read().get("advice", [])]
    except (MissingInput, StorageError):
        return []
