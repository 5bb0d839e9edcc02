"""Which training images a network takes for most like an image: often the reason for what a classifier says of it."""

from collections.abc import Iterator

import numpy as np

from libraries.base.arrays import Float32, Int

_ROWS = 8192  # at once, which bounds the memory


def nearest(embeddings: Float32, queries: Float32, *, count: int) -> Int:
    """Rows of `embeddings` [N, D] most like each of `queries` [M, D], by the cosine, most alike first: int [M, count].

    Args:
        count: at most N are given.
    """
    count = min(count, len(embeddings))
    unit = _unit(queries)
    best = np.full((len(queries), count), -np.inf, np.float32)
    rows = np.zeros((len(queries), count), np.int64)
    for start, part in _parts(embeddings):
        likeness = np.hstack([best, unit @ _unit(part).T])
        candidates = np.hstack([rows, np.broadcast_to(np.arange(start, start + len(part)), (len(queries), len(part)))])
        order = np.argsort(-likeness, axis=1, kind="stable")[:, :count]
        best, rows = np.take_along_axis(likeness, order, 1), np.take_along_axis(candidates, order, 1)
    return rows


def _parts(embeddings: Float32) -> Iterator[tuple[int, Float32]]:
    for start in range(0, len(embeddings), _ROWS):
        yield start, embeddings[start : start + _ROWS]


def _unit(vectors: Float32) -> Float32:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))
