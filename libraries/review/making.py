"""Makes the queue of a data set from what the steps before have left on disk."""

import numpy as np

from libraries.base.layout import Layout
from libraries.data.annotations import Annotations
from libraries.data.dataset import read_examples
from libraries.data.duplicates import read_groups
from libraries.network.embedding_store import Features
from libraries.review.evidence import evidence
from libraries.review.queue import QueueRow, make_queue, write_queue


def review(layout: Layout, features: Features, *, seed: int) -> list[QueueRow]:
    """Make the queue, and write it into review.csv.

    Args:
        features: of all images.
        seed: of the folds.

    Raises:
        StorageError: a file cannot be read or written.
    """
    by_path = {example.path: example for example in read_examples(layout.examples.folder / "examples.csv")}
    examples = [by_path[path] for path in features.path]
    alike = [example.group for example in read_groups(layout.examples.folder / "duplicates.csv", examples)]
    names, labels = np.unique(features.label, return_inverse=True)
    groups = np.unique([example.group for example in examples], return_inverse=True)[1]
    rows = make_queue(
        evidence(features.embedding, labels, groups, number_of_classes=len(names), seed=seed),
        examples,
        names=names.tolist(),
        duplicates=alike,
        decided=Annotations(layout.images).history.state.decided,
    )
    write_queue(layout.review, rows)
    return rows
