"""The pool: images that have no label yet, images/<dataset>.pool/; which of them are worth one.

Worth labelling are images about which the SVM is unsure, which stand for many such images, and which are unlike those
that have a label: the greedy solution of a facility location problem, as of Wei, Iyer & Bilmes 2015, 'Submodularity in
data subset selection and active learning'. `python benchmarks/labelling.py` compares it with others.
"""

import hashlib
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from libraries.base.arrays import Float32
from libraries.base.errors import ImageError, InputError
from libraries.base.layout import Layout
from libraries.base.pool import ordered_map
from libraries.data.class_folders import pool_images, pool_of, pooled, within_pool
from libraries.data.dataset import Example, read_white_level
from libraries.data.decoding import max_bytes_for, read
from libraries.data.images import ResizeRule
from libraries.data.pool_folders import told_label
from libraries.data.remembered import KnownFiles

if TYPE_CHECKING:
    from libraries.network.runners import RunOptions

MOST = 100_000  # images of the pool that are looked at: a sample of more, the same until they have labels
MOST_COMPARED = 2_000  # of these, the most uncertain, from which some are chosen
CLEARLY = 1.5  # times as probable as the second is the class of a hard negative
LEAST_GAIN = 1e-3  # of that by the first
_ROWS_AT_ONCE = 4096
_THREADS = 8


@dataclass(frozen=True)
class Pool:
    """What is in the pool.

    Attributes:
        images: the images, each content once, and none that is in the data set, too; their paths are those within the
            folder of the pool.
        left_out: the files that cannot be read.
        files: their SHA-256.
        copies: files whose content is that of another image in the pool.
        told: labels that callers of the service have sent, by the SHA-256 of an image; also of the data set's.
    """

    images: list[Example]
    left_out: list[ImageError]
    files: KnownFiles
    told: dict[str, set[str]]
    copies: int = 0


def find_pool(layout: Layout, *, labelled: Collection[str], decided: Collection[str]) -> Pool:
    """Look at the pool of a data set; files that were read before are not read again.

    Args:
        labelled: SHA-256 of images that have a label.
        decided: paths of images that shall have none.

    Raises:
        InputError: what has its name is no folder, or a data set of its own.
        StorageError: a folder cannot be read.
    """
    if (own := layout.proc.with_name(f"{layout.dataset}.pool")).exists():
        raise InputError(
            f"{pool_of(layout.images)} would be the folder of images without a label, but {own} says that it "
            "is a data set: rename one of them"
        )
    files = KnownFiles(layout.store / "files" / f"{layout.dataset}.pool.parquet" if layout.store_bytes else None)
    folder = pool_of(layout.images)

    def identify(path: str) -> str | ImageError:
        state = files.state(folder / path)
        try:
            digest = files.sha256(state) or hashlib.sha256(read(folder / path, max_bytes=most_bytes)).hexdigest()
        except ImageError as error:
            return ImageError(error.reason, path)
        files.note(state, digest)
        return digest

    told: dict[str, set[str]] = {}
    copies = 0
    most_bytes, left_out, by_digest, done = max_bytes_for(layout.max_pixels), [], dict[str, str](), {*labelled}
    paths = sorted(  # of copies, the first counts: one that nobody has chosen stands for what comes
        pool_images(layout.images),
        key=lambda path: (path not in decided, told_label(within_pool(path)) is not None),
    )
    for path, digest in ordered_map(identify, map(within_pool, paths), workers=_THREADS):
        if isinstance(digest, ImageError):
            left_out.append(digest)
        elif pooled(path) in decided:
            done.add(digest)  # its copies are not asked about either
        else:
            if label := told_label(path):
                told.setdefault(digest, set()).add(label)
            copies += digest in by_digest
            if digest not in done:
                by_digest.setdefault(digest, path)
    files.write()
    chosen = sorted(sorted(by_digest)[:MOST], key=by_digest.__getitem__)
    images = [Example(by_digest[each], "", "train", by_digest[each], 0, 0, 0, each) for each in chosen]
    return Pool(images, left_out, files, told, copies)


def embed_pool(
    layout: Layout,
    pool: Pool,
    options: "RunOptions",
    *,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> tuple[list[Example], Float32, list[ImageError]]:
    """Run the network over the images of a pool whose embeddings are not known.

    Args:
        progress: called with how many are done, and how many there are.

    Returns:
        M images, their embeddings, float32 [M, D], and the errors of those that cannot be decoded.

    Raises:
        NetworkError, StorageError: the network cannot be read.
    """
    folder = pool_of(layout.images)
    return _embed(layout, pool.images, options, folder=folder, files=pool.files, progress=progress)


def embed_labelled(layout: Layout, examples: list[Example], options: "RunOptions") -> tuple[list[Example], Float32]:
    """The same for images that were in the pool and have a label now: those that can be read, and their embeddings."""
    return _embed(layout, examples, options, folder=layout.images, files=KnownFiles())[:2]


def _embed(
    layout: Layout,
    examples: list[Example],
    options: "RunOptions",
    *,
    folder: Path,
    files: KnownFiles,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> tuple[list[Example], Float32, list[ImageError]]:
    from libraries.network.runners import Embeddings

    if not examples:
        return [], np.zeros((0, 0), np.float32), []
    rule = replace(ResizeRule.from_json(layout.network.read()["resize"]), white_level=read_white_level(layout.examples))
    read, rows, left_out = [], [], []
    with Embeddings(layout, layout.network, rule, options, images=folder, files=files, is_settled=False) as embeddings:
        embeddings.compute(examples)
        for done, (example, found) in enumerate(embeddings.of(examples), 1):
            progress(done, len(examples))
            if isinstance(found, ImageError):
                left_out.append(ImageError(found.reason, example.path))
            else:
                read.append(example)
                rows.append(found["embedding"])
    return read, np.stack(rows) if rows else np.zeros((0, 0), np.float32), left_out


class Worth(NamedTuple):
    """An image of the pool that is worth a look.

    Attributes:
        row: its number.
        score: how much, 0 to 1.
        like: the class that it is like, but not of; None: its label would teach much.
    """

    row: int
    score: float
    like: int | None = None


def worth_labelling(
    probabilities: Float32,
    embeddings: Float32,
    labelled: Float32,
    *,
    normalise: Callable[[Float32], Float32],
    most: int,
) -> list[Worth]:
    """The images whose labels would teach most, the best first.

    Each one added covers the uncertain images that are like it: the sum of their squared uncertainties, each times the
    cosine to the nearest image that has a label or is chosen, grows most by it.

    Args:
        probabilities: float32 [M, K].
        embeddings: float32 [M, D].
        labelled: float32 [N, D], of images that have a label.
        normalise: see `Evidence`.
        most: how many.
    """
    second, first = np.sort(probabilities, axis=1)[:, -2:].T
    uncertain = np.argsort(first - second, kind="stable")[:MOST_COMPARED]
    weight = np.square(1 - (first - second)[uncertain])[:, None]
    x = normalise(embeddings[uncertain])
    alike = np.maximum(x @ x.T, 0)
    covered = np.zeros((len(x), 1), np.float32)
    for start in range(0, len(labelled), _ROWS_AT_ONCE):
        of_labelled = normalise(labelled[start : start + _ROWS_AT_ONCE])
        covered = np.maximum(covered, (x @ of_labelled.T).max(axis=1, keepdims=True))
    chosen, gains = list[int](), list[float]()
    while len(chosen) < min(most, len(x)):
        gain = (weight * np.maximum(alike - covered, 0)).sum(axis=0)
        best = int(gain.argmax())
        if gain[best] <= LEAST_GAIN * max([*gains[:1], gain[best]]):  # the others are like those, or certain
            break
        chosen.append(best)
        gains.append(float(gain[best]))
        covered = np.maximum(covered, alike[:, [best]])
    return [Worth(int(uncertain[row]), gain / gains[0]) for row, gain in zip(chosen, gains, strict=True)]


def hard_negatives(probabilities: Float32, *, of_each: int, but: Collection[int] = ()) -> list[Worth]:
    """Images that seem to be of another class, but look most like one.

    Args:
        probabilities: float32 [M, K].
        of_each: how many of each class, at most.
        but: images that are none.
    """
    order = np.argsort(probabilities, axis=1)
    second, first = order[:, -2], order[:, -1]
    places = np.arange(len(probabilities))
    is_clear = probabilities[places, first] > CLEARLY * probabilities[places, second]
    is_clear[list(but)] = False
    found = []
    for of_class in range(probabilities.shape[1]):
        rows = np.flatnonzero(is_clear & (second == of_class))
        best = rows[np.argsort(-probabilities[rows, of_class], kind="stable")[:of_each]]
        found += [Worth(int(row), float(probabilities[row, of_class]), of_class) for row in best]
    return found
