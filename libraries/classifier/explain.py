"""Why a classifier decides as it does: where in the image the evidence is, and the most similar training images.

Heatmaps are made from the bundle alone: no gradients, no PyTorch.

Where the network ends in a map of features whose mean is the embedding, the map is exact and takes one inference: the
class activation map (see `classifier.bundle_graph`). For every other network, parts of the image are covered one after
another, and the classifier is run again: occlusion (Zeiler and Fergus 2014, 'Visualizing and understanding
convolutional networks').

Both are in the same unit, the classifier's calibrated logit for the label minus the mean of those for the other labels,
and are read in the same way: positive values support the label.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from libraries.base.arrays import Float32, Int, Pixels
from libraries.base.errors import InputError
from libraries.classifier.bundle import Classifier, Prediction
from libraries.data.images import Box, area, fit

Method = Literal["class activation map", "occlusion"]

FOR, AGAINST = (224, 101, 0), (111, 66, 193)  # colours of evidence, as in the web page
GRID = 8  # parts of an image, in each direction, that are covered one after the other


@dataclass(frozen=True)
class Heatmap:
    """The evidence for a label.

    Attributes:
        label: one of the classifier's.
        values: float32 [h, w]. By class activation map the margin of the label, the logit minus the mean of the
            others', is their mean; by occlusion each is what the margin loses when that part is covered.
        area: where the map's edges lie, left, top, right, bottom, in fractions of the upright picture's width and
            height; padding reaches beyond 0..1, a crop stays inside.
        method: how it was made.
    """

    label: str
    values: Float32
    area: Box
    method: Method


def heatmap(classifier: Classifier, image: Pixels, label: str) -> Heatmap:
    """The evidence for `label` in an upright RGB image, uint8 [H, W, 3] of any size.

    Raises:
        InputError: the classifier has no such label, or `image` is not one.
        StorageError: the bundle's files have changed since it was opened.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise InputError(f"an image is uint8 [H, W, 3], found {image.dtype} {list(image.shape)}")
    height, width, _ = image.shape
    return heatmap_of_fitted(classifier, fit(image, classifier.rule), label, size=(width, height))


def heatmap_of_fitted(classifier: Classifier, fitted: Pixels, label: str, *, size: tuple[int, int]) -> Heatmap:
    """As `heatmap`, of an image that is fitted already, uint8 [S, S, 3]; `size` is the upright picture's (W, H)."""
    if label not in classifier.labels:
        raise InputError(f'the classifier has no label "{label}": it knows {", ".join(classifier.labels)}')
    index = classifier.labels.index(label)
    edges = area(size, classifier.rule)
    if classifier.has_evidence:
        return Heatmap(label, margin(classifier.evidence(fitted), index), edges, "class activation map")
    return Heatmap(label, occlusion(classifier, fitted, index), edges, "occlusion")


def paint(heatmap: Heatmap, edges: Box, *, side: int) -> Pixels:
    """A heatmap to lay over a square picture: uint8 RGBA [side, side, 4].

    The colour says for or against, the opacity how much, relative to the strongest; outside the map there is nothing.

    Args:
        edges: of the square picture, in fractions of the upright picture as those of the map (`images.area`).
    """
    height, width = heatmap.values.shape
    left, top, right, bottom = heatmap.area
    across, down = width / (right - left), height / (bottom - top)  # cells of the map per width and height of a picture
    place = (
        *((edges[2] - edges[0]) / side * across, 0.0, (edges[0] - left) * across),
        *(0.0, (edges[3] - edges[1]) / side * down, (edges[1] - top) * down),
    )
    values = Image.fromarray(heatmap.values.astype(np.float32))
    drawn = np.asarray(values.transform((side, side), Image.Transform.AFFINE, place, Image.Resampling.BILINEAR))
    strength = np.clip(drawn / (np.abs(heatmap.values).max() or 1.0), -1, 1)
    colours = np.where(strength[..., None] > 0, np.array(FOR, np.uint8), np.array(AGAINST, np.uint8))
    return np.dstack([colours, np.round(255 * np.abs(strength)).astype(np.uint8)])


def margin(logits: Float32, index: int) -> Float32:
    """Of class `index`: its logits minus the mean of the other classes', [K, ...] → [...]."""
    others: Float32 = np.delete(logits, index, axis=0).mean(axis=0)
    return np.asarray(logits[index] - others)


def occlusion(classifier: Classifier, fitted: Pixels, index: int) -> Float32:
    """What the margin of class `index` loses when a part of the image has the colour of the padding: [GRID, GRID].

    A part is covered together with half of each neighbour: what lies on the border between two parts is then hidden
    whole by one of them.
    """
    size = classifier.rule.size
    edges = [
        round(size * i / (2 * GRID)) for i in range(-1, 2 * GRID + 2)
    ]  # every half part, from one before the image

    def cover(part: int | None) -> Pixels:
        image = fitted.copy()
        if part is not None:
            rows, columns = (slice(max(edges[2 * i], 0), edges[2 * i + 4]) for i in divmod(part, GRID))
            image[rows, columns] = classifier.rule.fill
        return image

    margins = []
    for _, answer in classifier.predict_stream([None, *range(GRID * GRID)], cover):
        assert isinstance(answer, Prediction)  # `cover` raises no ImageError
        logits = np.log(np.maximum(answer.probabilities, np.finfo(np.float32).tiny))  # but for a constant
        margins.append(margin(logits, index))
    return (margins[0] - np.array(margins[1:], np.float32)).reshape(GRID, GRID)


_ROWS = 8192  # at once, which bounds the memory


def nearest(embeddings: Float32, queries: Float32, *, count: int) -> tuple[Int, Float32]:
    """Which of `embeddings` [N, D] are most like each of `queries` [M, D], by the cosine, the most alike first.

    Args:
        count: at most N are given.

    Returns:
        Rows, int [M, count], and their cosines, float32 [M, count].
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
    return rows, best


def _parts(embeddings: Float32) -> Iterator[tuple[int, Float32]]:
    for start in range(0, len(embeddings), _ROWS):
        yield start, embeddings[start : start + _ROWS]


def _unit(vectors: Float32) -> Float32:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))
