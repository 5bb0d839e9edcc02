"""The queue anew while labels are mended, and what these have brought until now: in seconds, without the scripts.

Only the queue is written: the bundle is still that of script 4, and the evaluation that of script 5.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from libraries.base.errors import InputError, StorageError
from libraries.base.file_system import nfc
from libraries.base.layout import Layout
from libraries.classifier.svm import Examples, Parts
from libraries.classifier.sweep import sample
from libraries.data.annotations import Annotations
from libraries.evaluation.leak import chosen_svm
from libraries.evaluation.since import Since, compare
from libraries.evaluation.testing import Tested
from libraries.network.embedding_store import read_features
from libraries.review.evidence import MOST_FITTED
from libraries.review.making import Labelled, as_annotated, as_prepared, queue_of
from libraries.review.queue import QueueRow, write_queue

if TYPE_CHECKING:
    from libraries.network.runners import RunOptions


@dataclass(frozen=True)
class Renewal:
    """The queue for the labels of now.

    Attributes:
        state: of the annotations when script 1 ran; paths are as they were then, as in review.csv.
        told: what the new labels have brought, and what the answers say, in sentences.
    """

    rows: list[QueueRow]
    state: str | None
    told: list[str]


def renew(layout: Layout, options: "RunOptions", *, seed: int) -> Renewal:
    """Make the queue for the images and labels as they are now, and write it into review.csv.

    Args:
        options: how the network is run over images of the pool that are new.
        seed: of the folds.

    Raises:
        MissingInput, StaleInput, StorageError: scripts 1 to 3 have not run with these parameters, or what they wrote
            cannot be read.
        InputError: there are fewer than two classes.
    """
    annotations = Annotations(layout.images)
    layout.regardless_of_labels().features.check()
    features = read_features(layout.features.folder)
    try:
        prepared = as_prepared(layout, features)
    except KeyError as error:
        raise StorageError(f"{layout.features.folder} is not that of these images: run scripts 1 to 5") from error
    now = as_annotated(prepared, layout, annotations, options)
    made = queue_of(now, layout, annotations, options, seed=seed)
    state = layout.prepared_state
    moved = annotations.moves_since(state)
    then = {after: before for before, after in moved.items()}
    rows = [replace(row, path=then.get(row.path, row.path)) for row in made.rows]
    brought = since_prepared(layout, prepared, now, moved=moved, seed=seed)
    told = [] if brought is None else [brought.sentence(of="", subject="the accuracy of an SVM like that of script 4")]
    write_queue(layout.review, rows)
    return Renewal(rows, state, [*told, *made.told])


def since_prepared(layout: Layout, then: Labelled, now: Labelled, *, moved: dict[str, str], seed: int) -> Since | None:
    """What the labels of now bring an SVM as script 4 has chosen it; None if there is nothing to compare.

    Args:
        moved: the path of now by that of then.
    """
    chosen = chosen_svm(layout.svm.folder / "sweep.csv")
    before = _answers(then, chosen, seed=seed)
    of_then = {
        nfc(moved.get(example.path, example.path)): (example.label, before.names[answer])
        for example, answer in zip(before.examples, before.predictions, strict=True)
    }
    return compare(of_then, _answers(now, chosen, seed=seed))


def _answers(images: Labelled, chosen: tuple[str, float], *, seed: int) -> Tested:
    """What an SVM that is fitted to the training images says of the test images.

    Args:
        chosen: its normalisation, and C.
    """
    normalisation, c = chosen
    examples = images.examples
    names, labels = np.unique([example.label for example in examples], return_inverse=True)
    is_training = np.array([example.split == "train" for example in examples])
    groups = np.unique([example.group for example in examples], return_inverse=True)[1]
    training, test = np.flatnonzero(is_training), np.flatnonzero(~is_training)
    if len({*labels[training].tolist()}) < 2:
        raise InputError("there is nothing to train on: two classes need training images")
    training = training[sample(labels[training], groups[training], most=MOST_FITTED, seed=seed)]
    given = Examples(images.embedding[training], labels[training], normalisation, number_of_classes=len(names))
    parts = Parts(given, [given.everything])
    parts.fit(c)
    scores = parts.model(0).scores(images.embedding[test])
    return Tested(names.tolist(), [examples[row] for row in test], labels[test], [], scores, scores, [])
