"""Hashes that differ in few bits, found without comparing all with all.

The bits are dealt out to more bands than may differ, so two close hashes are equal in a band at least: only those are
compared (multi-index hashing; Norouzi, Punjani & Fleet 2012, doi:10.1109/CVPR.2012.6248043). Nothing is missed. The
bits of a band come from all over the picture: neighbours would be equal in many pictures, such as those of a white
margin.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from libraries.base.arrays import Bool, Int, Integer

LEAST_BANDS = 8  # so that a band is a number of 32 bits
AT_ONCE = 2**20  # pairs that are compared in one go: about 100 MB


class Close(NamedTuple):
    """P pairs: rows of `left` and of `right`, and in how many bits they differ; int [P] each."""

    left: Int
    right: Int
    distance: Int


class Bands:
    """Two lists of hashes, prepared for the search for pairs of a row of one and a later row of the other.

    Attributes:
        comparisons: how many pairs are equal in a band, counted as often as they are.
    """

    def __init__(self, left: Bool, right: Bool, *, most: int) -> None:
        """
        Args:
            left, right: bool [N, B], B a multiple of 64 up to 256.
            most: bits that may differ.
        """
        self._most = most
        order = np.random.default_rng(0).permutation(left.shape[1])
        bands = np.array_split(order, max(most + 1, LEAST_BANDS))
        self._left, self._right = (
            np.stack([hashes[:, band] @ (1 << np.arange(len(band), dtype=np.uint32)) for band in bands])
            for hashes in (left, right)
        )
        self._packed = [np.packbits(hashes, axis=1).view(np.uint64) for hashes in (left, right)]
        # Rows are uint32, here and in `_range`: there are two dozen for each hash.
        self._sorted = [np.argsort(keys, kind="stable").astype(np.uint32) for keys in self._right]
        self._ranges = [self._range(band) for band in range(len(bands))]
        self.comparisons = sum(int((last - first).sum(dtype=np.int64)) for first, last in self._ranges)

    def _range(self, band: int) -> tuple[Integer, Integer]:
        """Where, among the sorted rows of `right`, those lie that equal each row of `left`: [N] and [N]."""
        keys, wanted = self._right[band, self._sorted[band]], self._left[band]
        first, last = (np.searchsorted(keys, wanted, side) for side in ("left", "right"))
        return first.astype(np.uint32), last.astype(np.uint32)

    def close(self) -> Iterator[Close]:
        """Every close pair once, in parts."""
        for band, ranges in enumerate(self._ranges):
            first, last = (each.astype(np.int64) for each in ranges)
            ends = np.cumsum(last - first)
            begin = 0
            while begin < len(ends):
                done = ends[begin - 1] if begin else 0
                end = max(begin + 1, int(np.searchsorted(ends, done + AT_ONCE, "right")))
                yield self._compare(band, np.arange(begin, end), first[begin:end], last[begin:end])
                begin = end

    def _compare(self, band: int, rows: Int, first: Int, last: Int) -> Close:
        """The close pairs of some rows of `left`, without those that are equal in an earlier band, too."""
        counts = last - first
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        left = np.repeat(rows, counts)
        right = self._sorted[band][np.repeat(first, counts) + within].astype(np.int64)
        later = right > left
        left, right = left[later], right[later]
        distance = self._distance(left, right)
        close = distance <= self._most
        left, right, distance = left[close], right[close], distance[close]
        new = ~(self._left[:band, left] == self._right[:band, right]).any(axis=0)
        return Close(left[new], right[new], distance[new])

    def _distance(self, left: Int, right: Int) -> Integer:
        differ = np.bitwise_count(self._packed[0][left] ^ self._packed[1][right])
        return np.asarray(differ.sum(axis=1, dtype=np.int64))
