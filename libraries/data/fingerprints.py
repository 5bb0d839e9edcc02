"""Fingerprints that recognise the same picture in two files, and the search for all pairs that are alike.

The difference hash (dhash; N. Krawetz, 'Kind of Like That', 2013) has 256 bits: whether the picture, as 17 x 16 gray
pixels, gets brighter from one pixel to the next in its row. Scaling, compression and colour hardly change it, nor does
brightness unless it clips; cropping, borders and rotation do. It equals `imagehash.dhash(image, hash_size=16)` of the
upright picture.

Pairs of hashes are found by bands of them (`close_hashes`). Where too many are equal in one, and for embeddings, by
blocked matrix products, without an N x N array.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from libraries.base.arrays import Bool, Float32, Int, Pixels
from libraries.data.close_hashes import Bands
from libraries.data.images import TINY

BITS = (TINY[0] - 1) * TINY[1]  # 256

# An image with fewer changes is too plain for its hash to distinguish it: a blank page, a gradient of light, one soft
# spot. The plainest of the 2,624 solar cells has 61, a soft spot up to 53.
LEAST_CHANGES = 56

ROWS, COLUMNS = 1024, 8192  # of a block: 32 MB as float32
MOST_BANDED = 24  # bits that may differ; with more, bands are so short that too many are equal
WORTHWHILE = 0.25  # comparisons of bands, per pair of rows, that take less time than matrix products
MOST_PAIRS = 4_000_000  # that are kept: 64 MB


def dhash(tiny: Pixels) -> Bool:
    """Difference hashes, bool [N, 256], of pictures uint8 [N, 16, 17] gray."""
    return (tiny[:, :, 1:] > tiny[:, :, :-1]).reshape(len(tiny), BITS)


def mirrored(tiny: Pixels) -> Pixels:
    """The pictures, mirrored left to right."""
    return tiny[:, :, ::-1]


def is_plain(tiny: Pixels) -> Bool:
    """Whether pictures have too little structure for a hash, bool [N].

    This counts how often, of 480, the comparison of two pixels (brighter, equal, darker) differs from the comparison
    below it or to its right. In a blank image or a gradient, all are equal; in noise they are not, but noise makes
    hashes differ.
    """
    is_plain = np.empty(len(tiny), bool)
    for first in range(0, len(tiny), COLUMNS):  # all at once would take kilobytes for each picture
        trend = np.sign(np.diff(tiny[first : first + COLUMNS].astype(np.int16), axis=2))
        changes = (np.diff(trend, axis=1) != 0).sum(axis=(1, 2)) + (np.diff(trend, axis=2) != 0).sum(axis=(1, 2))
        is_plain[first : first + COLUMNS] = changes < LEAST_CHANGES
    return is_plain


class Pairs(NamedTuple):
    """P pairs of rows.

    Attributes:
        one, other: int [P].
        measure: float32 [P], their distance or similarity.
    """

    one: Int
    other: Int
    measure: Float32

    @classmethod
    def none(cls) -> "Pairs":
        return cls(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))

    def chosen(self, rows: npt.NDArray[np.generic]) -> "Pairs":
        """Some of them, by index or mask."""
        return Pairs(self.one[rows], self.other[rows], self.measure[rows])

    def of(self, rows: Int) -> "Pairs":
        """The same pairs, with each row i replaced by rows[i]."""
        return Pairs(rows[self.one], rows[self.other], self.measure)


def within_distance(bits: Bool, others: Bool, *, most: int, most_pairs: int = MOST_PAIRS) -> Pairs:
    """Pairs i < j whose hashes, one of them possibly mirrored, differ in at most `most` bits.

    Args:
        bits: bool [N, B].
        others: bool [N, B], of the mirrored pictures.
        most_pairs: if there are more, see `spanning`.

    Returns:
        The pairs, with the distance of i or of i mirrored from j, whichever is smaller.
    """
    length = bits.shape[1]
    searches = [Bands(left, bits, most=most) for left in (bits, others)] if most <= MOST_BANDED else []
    if searches and sum(search.comparisons for search in searches) < len(bits) ** 2 * WORTHWHILE:
        close = (Pairs(i, j, (length - 2 * d).astype(np.float32)) for each in searches for i, j, d in each.close())
        pairs = _bounded(close, len(bits), most_pairs=most_pairs)
        return pairs._replace(measure=(length - pairs.measure) / 2)
    signs, mirrored = (np.where(each, np.float32(1), np.float32(-1)) for each in (bits, others))  # a.b = B - 2 distance
    pairs = _pairs_above([(signs, signs), (mirrored, signs)], least=length - 2 * most, most_pairs=most_pairs)
    return pairs._replace(measure=(length - pairs.measure) / 2)


def above_similarity(
    views: Sequence[Float32], *, rows: Int | None = None, least: float, most_pairs: int = MOST_PAIRS
) -> Pairs:
    """Pairs i < j whose embeddings have at least this cosine similarity, which is their measure.

    Args:
        views: float32 [N, D] each, of the whole pictures, then of parts of them. One whole picture is compared with
            all views of the other, and the most similar two count. Embeddings that are zero or not finite match
            nothing.
        rows: int [M], of `views`, to compare; the pairs number these from 0. All by default.
        most_pairs: if there are more, see `spanning`.
    """
    whole, *parts = (_directions(view[slice(None) if rows is None else rows]) for view in views)
    products = [(whole, whole), *((part, whole) for part in parts), *((whole, part) for part in parts)]
    return _pairs_above(products, least=least, most_pairs=most_pairs)


def _directions(embeddings: Float32) -> Float32:
    """Rows of length 1, or 0 for those without a direction. Only one copy is made, since the arrays are large."""
    directions = np.array(embeddings)
    norms = np.linalg.norm(directions, axis=1)
    usable = np.isfinite(norms) & (norms > 0)
    directions[~usable] = 0
    directions /= np.where(usable, norms, 1)[:, None]
    return directions


def _pairs_above(products: Sequence[tuple[Float32, Float32]], *, least: float, most_pairs: int) -> Pairs:
    """Pairs i < j for which the largest of left[i].right[j], over several (left, right), is at least `least`."""
    length = len(products[0][0])

    def of_blocks() -> Iterator[Pairs]:
        for rows, columns in _blocks(length):
            largest = products[0][0][rows] @ products[0][1][columns].T
            for left, right in products[1:]:
                np.maximum(largest, left[rows] @ right[columns].T, out=largest)
            i, j = np.divmod(np.flatnonzero(largest >= least), largest.shape[1])
            measure = largest[i, j]
            i, j = i + rows.start, j + columns.start
            yield Pairs(i, j, measure).chosen(i < j)

    return _bounded(of_blocks(), length, most_pairs=most_pairs)


def _bounded(parts: Iterable[Pairs], length: int, *, most_pairs: int) -> Pairs:
    """All pairs in order, each with its largest measure; if there are more than `most_pairs`, see `spanning`."""
    kept, count = [Pairs.none()], 0
    for part in parts:
        kept.append(part)
        count += len(part.one)
        if count > most_pairs:
            kept = [spanning(_joined(kept), length)]
            count = len(kept[0].one)
    pairs = _joined(kept)
    pairs = pairs.chosen(np.lexsort((-pairs.measure, pairs.other, pairs.one)))
    is_new = (np.diff(pairs.one, prepend=-1) != 0) | (np.diff(pairs.other, prepend=-1) != 0)
    return pairs.chosen(is_new)


def _blocks(length: int) -> Iterator[tuple[slice, slice]]:
    """Blocks that cover the upper triangle of a matrix."""
    for row in range(0, length, ROWS):
        for column in range(row, length, COLUMNS):
            yield slice(row, min(row + ROWS, length)), slice(column, min(column + COLUMNS, length))


def _joined(parts: Sequence[Pairs]) -> Pairs:
    return Pairs(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def spanning(pairs: Pairs, length: int) -> Pairs:
    """Fewer pairs, at most `length` - 1, that form the same groups; those of larger measure are preferred.

    So a film, in which every picture is like every other, needs memory only in proportion to its length.
    """
    order = np.argsort(-pairs.measure, kind="stable")
    forest = Forest(length)
    return pairs.chosen(np.array([k for k in order if forest.join(int(pairs.one[k]), int(pairs.other[k]))], np.int64))


class Forest:
    """Rows joined into groups (union-find); a group is identified by its first row."""

    def __init__(self, length: int) -> None:
        self._parent = list(range(length))

    def first(self, row: int) -> int:
        """The first row of a row's group."""
        parent = self._parent
        while parent[row] != row:
            parent[row] = row = parent[parent[row]]
        return row

    def join(self, one: int, other: int) -> bool:
        """Merge the groups of two rows; False if they are one already."""
        one, other = sorted((self.first(one), self.first(other)))
        self._parent[other] = one
        return one != other

    def join_all(self, pairs: Pairs) -> None:
        for one, other in zip(pairs.one.tolist(), pairs.other.tolist(), strict=True):
            self.join(one, other)

    def groups(self) -> Int:
        """The first row of every row's group, int [N]."""
        return np.array([self.first(row) for row in range(len(self._parent))], np.int64)
