"""Duplicates: files that show the same picture, how they are alike, and the groups they form.

exact   The same upright pixels, whatever the format and the metadata.
near    Difference hashes, of the picture or its mirror image, that differ in a few of 256 bits: scaled, recompressed,
        mirrored, recoloured, slightly retouched. Plain pictures are left out: their hashes say too little.
scene   Embeddings of a pretrained network that point the same way: cropped, framed, photographed again. Besides the
        whole picture, its inner part is embedded, without a twentieth on each side: this matches cropped pictures, and
        the inside of a frame.

Groups are formed by following these links: if A is like B and B is like C, all three are one group, though A may not be
like C. The split needs this, since B must be on the same side as both A and C. The price: many slightly similar
pictures can be chained to one giant group, which is then on one side as a whole. So the thresholds are strict, large
groups are reported, and a removed picture (see `removal`) must be like the one that is kept, not only in its group.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from libraries.base.arrays import Float32, Int
from libraries.base.console import counted
from libraries.base.content_store import Row
from libraries.base.errors import ImageError
from libraries.base.pool import ordered_map
from libraries.base.tables import Column, read_table, write_table
from libraries.data.checking import Checked
from libraries.data.dataset import Example
from libraries.data.fingerprints import Forest, Pairs, above_similarity, dhash, is_plain, mirrored, within_distance
from libraries.data.images import pixel_sha256
from libraries.data.remembered import Remembered

Kind = Literal["exact", "near", "scene"]
KINDS: tuple[Kind, ...] = ("exact", "near", "scene")

# The hashes of a JPEG and a PNG with the same pixels: that of the JPEG is made at reduced scale (see images.TINY).
_SAME_PIXELS_WITHIN = 12  # bits

CONTRADICTIONS_SHOWN = 10
LARGE_SHARE, LARGE_GROUP = 0.05, 10  # a larger group, by share of all images and by number, is reported


@dataclass(frozen=True)
class DuplicateRow:
    """A row of duplicates.csv: an image in a group."""

    group: Annotated[int, Column("number of the group: its images are copies of each other")]
    kind: Annotated[Kind, Column("how it resembles the image in `like`: exact, near or scene")]
    path: Annotated[str, Column("path of the image, relative to the folder of the data set")]
    label: Annotated[str, Column("name of its class")]
    like: Annotated[str, Column("path of the most similar image of the group")]
    distance: Annotated[int | None, Column("distance of their difference hashes [bits of 256] (exact and near)")] = None
    similarity: Annotated[float | None, Column("cosine similarity of their embeddings (scene)", decimals=4)] = None


@dataclass(frozen=True)
class Duplicates:
    """The duplicates among N examples; all numbers are rows of `examples`.

    Attributes:
        pairs: by kind, strictest first, only the kinds that were searched for. Of files with the same pixels, each is
            paired with the first, and only the first can be in a pair of another kind. Measures: 0, bits, cosine.
    """

    examples: Sequence[Example]
    pairs: Mapping[Kind, Pairs]

    def groups(self, kinds: Iterable[Kind] = KINDS) -> Int:
        """The first row of each example's group, int [N]."""
        forest = Forest(len(self.examples))
        for kind in kinds:
            forest.join_all(self.pairs.get(kind, Pairs.none()))
        return forest.groups()

    def members(self, kinds: Iterable[Kind] = KINDS) -> list[list[int]]:
        """The rows of each group of more than one, in the order of their first rows."""
        by_first: dict[int, list[int]] = {}
        for row, first in enumerate(self.groups(kinds).tolist()):
            by_first.setdefault(first, []).append(row)
        return [rows for rows in by_first.values() if len(rows) > 1]

    def contradictions(self) -> list[tuple[Kind, str, str]]:
        """Exact and near copies with different labels: kind and the two paths."""
        pairs = [(kind, pair) for kind in KINDS[:2] for pair in _tuples(self.pairs.get(kind, Pairs.none()))]
        known = [(kind, self.examples[one], self.examples[other]) for kind, (one, other, _) in pairs]
        return [(kind, one.path, other.path) for kind, one, other in known if one.label != other.label]

    def rows(self) -> list[DuplicateRow]:
        """The rows of duplicates.csv: every example of a group, and the one that it is most like."""
        closest: dict[int, tuple[Kind, int, float]] = {}
        for kind in KINDS:
            pairs = self.pairs.get(kind, Pairs.none())
            order = np.argsort(-pairs.measure if kind == "scene" else pairs.measure, kind="stable")
            for one, other, measure in _tuples(pairs.chosen(order)):
                closest.setdefault(one, (kind, other, measure))
                closest.setdefault(other, (kind, one, measure))
        return [self._row(number, row, *closest[row]) for number, rows in enumerate(self.members(), 1) for row in rows]

    def _row(self, group: int, row: int, kind: Kind, like: int, measure: float) -> DuplicateRow:
        example = self.examples[row]
        measures = (None, measure) if kind == "scene" else (round(measure), None)
        return DuplicateRow(group, kind, example.path, example.label, self.examples[like].path, *measures)

    def write(self, path: Path) -> None:
        """Write duplicates.csv, atomically: one row for every example that has a duplicate."""
        write_table(path, DuplicateRow, self.rows())

    def summary_lines(self) -> list[str]:
        """Lines about the groups that were found, with warnings."""
        groups = self.members()
        if not groups:
            return [f"No duplicates were found ({', '.join(self.pairs)})"]
        of_kind = Counter(self._loosest(groups))
        counts = ", ".join(f"{of_kind[kind]:,} {kind}" for kind in KINDS if of_kind[kind])
        lines = [f"Duplicates: {sum(map(len, groups)):,} images in {counted(len(groups), 'group')} ({counts})"]
        largest = max(map(len, groups))
        if largest > max(LARGE_GROUP, LARGE_SHARE * len(self.examples)):
            lines.append(
                f"Warning: the largest group has {largest:,} images, all on one side of the split. If they are not one "
                "picture, make duplicates_maxDistance smaller, or duplicates_minSimilarity larger"
            )
        contradictions = self.contradictions()
        lines += [
            f"  Warning: {one} and {other} "
            + ("are the same picture" if kind == "exact" else "look the same")
            + " but have different labels: is one of them wrong?"
            for kind, one, other in contradictions[:CONTRADICTIONS_SHOWN]
        ]
        if len(contradictions) > CONTRADICTIONS_SHOWN:
            lines.append(f"  and {len(contradictions) - CONTRADICTIONS_SHOWN:,} more such pairs: see duplicates.csv")
        return lines

    def _loosest(self, groups: Iterable[Sequence[int]]) -> list[Kind]:
        """For each group, the loosest kind of link that is needed to hold it together."""
        by_kind = {kind: self.groups(KINDS[: i + 1]) for i, kind in enumerate(KINDS)}
        return [next(kind for kind in KINDS if (by_kind[kind][rows] == rows[0]).all()) for rows in groups]


def find(
    checked: Checked,
    *,
    folder: Path,
    max_distance: int | None,
    embeddings: Sequence[Float32] | None = None,
    min_similarity: float = 1.0,
    workers: int = 1,
    remembered: Remembered | None = None,
) -> Duplicates:
    """Find the duplicates among examples.

    Args:
        checked: N examples, whose files are in `folder`; those that may have the same pixels are decoded again.
        max_distance: for 'near', bits of 256; None: no 'near'.
        embeddings: float32 [N, D] each, of the whole pictures and of parts of them; None: no 'scene'. Those that are
            not finite match nothing.
        min_similarity: for 'scene', cosine.
        workers: number of threads that decode.
        remembered: where hashes of pixels are kept.
    """
    examples, tiny = checked.examples, checked.tiny
    plain = is_plain(tiny)
    originals = _first_of_equal([e.sha256 for e in examples])
    rows = np.flatnonzero((originals == np.arange(len(examples))) & ~plain)
    most = max(max_distance or 0, _SAME_PIXELS_WITHIN)
    close = within_distance(dhash(tiny[rows]), dhash(mirrored(tiny[rows])), most=most).of(rows)
    candidates = _same_size(examples, close, np.flatnonzero((originals == np.arange(len(examples))) & plain))
    white = checked.white.level
    originals = _first_of_equal_pixels(
        examples,
        originals,
        candidates,
        folder=folder,
        white_level=white,
        workers=workers,
        remembered=remembered or Remembered(),
    )
    copies = np.flatnonzero(originals != np.arange(len(examples)))
    pairs: dict[Kind, Pairs] = {"exact": Pairs(originals[copies], copies, np.zeros(len(copies), np.float32))}
    if max_distance is not None:
        pairs["near"] = _between_originals(close.chosen(close.measure <= max_distance), originals)
    if embeddings is not None:
        firsts = np.flatnonzero(originals == np.arange(len(examples)))
        alike = above_similarity(embeddings, rows=firsts, least=min_similarity).of(firsts)
        known = set(_keys(pairs.get("near", Pairs.none())).tolist())
        pairs["scene"] = alike.chosen(np.array([key not in known for key in _keys(alike).tolist()], bool))
    return Duplicates(examples, pairs)


def read_groups(path: Path, examples: Sequence[Example]) -> list[Example]:
    """The examples, grouped as in duplicates.csv; each of the others is a group of its own.

    Raises:
        StorageError: the table cannot be read.
    """
    rows = read_table(path, DuplicateRow, advice="run scripts/1_prepareData.py again")
    group = {row.path: f"duplicates {row.group}" for row in rows}
    return [replace(example, group=group.get(example.path, example.path)) for example in examples]


def count_leaks(examples: Sequence[Example], groups: Int) -> int:
    """How many test images have a duplicate in training, where the test set was given.

    Args:
        groups: int [N], the group of each example.
    """
    training = {int(group) for e, group in zip(examples, groups, strict=True) if e.split == "train"}
    return sum(e.split == "test" and int(group) in training for e, group in zip(examples, groups, strict=True))


def _first_of_equal(keys: Sequence[Any]) -> Int:
    """For each key, the row of the first equal one, int [N]."""
    first: dict[Any, int] = {}
    return np.array([first.setdefault(key, row) for row, key in enumerate(keys)], np.int64)


def _same_size(examples: Sequence[Example], close: Pairs, plain: Int) -> list[int]:
    """Rows that may have the same pixels as another: of equal size, with close hashes or too plain for a hash."""
    rows = {
        row
        for one, other, distance in _tuples(close)
        if distance <= _SAME_PIXELS_WITHIN and _size(examples[one]) == _size(examples[other])
        for row in (one, other)
    }
    of_size = Counter(_size(examples[row]) for row in plain.tolist())
    return sorted(rows | {row for row in plain.tolist() if of_size[_size(examples[row])] > 1})


def _size(example: Example) -> tuple[int, int]:
    return example.width, example.height


def _first_of_equal_pixels(
    examples: Sequence[Example],
    originals: Int,
    candidates: Sequence[int],
    *,
    folder: Path,
    white_level: int,
    workers: int,
    remembered: Remembered,
) -> Int:
    """`originals`, updated so that of candidates with the same pixels, the first is the original of all."""

    def of_pixels(row: int) -> Row | ImageError:
        example = examples[row]
        try:
            digest = pixel_sha256(folder / example.path, white_level=white_level, max_pixels=example.max_pixels)
        except ImageError as error:
            return error
        return {"pixels": np.frombuffer(bytes.fromhex(digest), np.uint8)}

    def of_file(row: int) -> str:
        return examples[row].sha256

    with remembered.open("same_pixels", white_level) as known:
        hashed = known.through(candidates, lambda rows: ordered_map(of_pixels, rows, workers=workers), key=of_file)
        # A file with an error has changed since it was checked, which step 3 reports.
        identities = [of_file(i) if isinstance(h, ImageError) else h["pixels"].tobytes() for i, h in hashed]
    first = np.arange(len(originals))
    first[list(candidates)] = np.array(candidates, np.int64)[_first_of_equal(identities)]
    return np.asarray(first[originals], np.int64)


def _between_originals(close: Pairs, originals: Int) -> Pairs:
    """The pairs between originals: files with the same pixels are replaced by the first of them."""
    pairs = close._replace(one=originals[close.one], other=originals[close.other])
    pairs = pairs.chosen(pairs.one != pairs.other)
    return pairs.chosen(np.unique(_keys(pairs), return_index=True)[1])


def _keys(pairs: Pairs) -> Int:
    """One number for each pair, int [P], the same in both orders."""
    low, high = np.minimum(pairs.one, pairs.other), np.maximum(pairs.one, pairs.other)
    return np.asarray((low << 32) | high, np.int64)


def _tuples(pairs: Pairs) -> Iterable[tuple[int, int, float]]:
    return zip(pairs.one.tolist(), pairs.other.tolist(), pairs.measure.tolist(), strict=True)
