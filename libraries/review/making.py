"""Makes the queue of a data set from what the steps before have left on disk, and from its pool."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from libraries.base.errors import ImageError
from libraries.base.layout import Layout
from libraries.data.annotations import Annotations
from libraries.data.dataset import read_examples
from libraries.data.duplicates import read_groups
from libraries.network.embedding_store import Features
from libraries.review.evidence import evidence
from libraries.review.pool import embed_pool, find_pool
from libraries.review.queue import QueueRow, make_queue, pool_queue, write_queue

if TYPE_CHECKING:
    from libraries.network.runners import RunOptions


def review(
    layout: Layout,
    features: Features,
    options: "RunOptions",
    *,
    seed: int,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> tuple[list[QueueRow], list[ImageError]]:
    """Make the queue, and write it into review.csv.

    Args:
        features: of all images.
        options: how the network is run over the images of the pool.
        seed: of the folds.
        progress: called with how many of these are done, and how many there are.

    Returns:
        The queue, and the errors of images of the pool that cannot be read.

    Raises:
        StorageError: a file cannot be read or written.
    """
    everything = read_examples(layout.examples.folder / "examples.csv")
    by_path = {example.path: example for example in everything}
    examples = [by_path[path] for path in features.path]
    alike = [example.group for example in read_groups(layout.examples.folder / "duplicates.csv", examples)]
    names, labels = np.unique(features.label, return_inverse=True)
    groups = np.unique([example.group for example in examples], return_inverse=True)[1]
    decided = Annotations(layout.images).history.state.decided
    pool = find_pool(layout, labelled={example.sha256 for example in everything}, decided=decided)
    paths, embedding, left_out = embed_pool(layout, pool, options, progress=progress)
    found = evidence(features.embedding, labels, groups, number_of_classes=len(names), others=embedding, seed=seed)
    rows = make_queue(found, examples, names=names.tolist(), duplicates=alike, decided=decided)
    rows += pool_queue(found, features.embedding, embedding, paths, names.tolist())
    write_queue(layout.review, rows)
    return rows, [*pool.left_out, *left_out]
