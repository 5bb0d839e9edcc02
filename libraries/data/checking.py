"""Step 1 looks at every image file: is it intact, how large, how deep, what does it show in small."""

import contextlib
import hashlib
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from libraries.base.arrays import Pixels
from libraries.base.cluster import NONE, Cluster, Part, by_parts, connected
from libraries.base.content_store import ContentStore, Row, write_rows
from libraries.base.errors import ImageError, InputError
from libraries.base.pool import WorkerLost, ordered_map
from libraries.base.processes import Work
from libraries.data.class_folders import find_class_folders
from libraries.data.dataset import Example, Scan
from libraries.data.decoding import MAX_PIXELS, max_bytes_for, read
from libraries.data.depth import FULL_RANGE, Depth, WhiteLevel
from libraries.data.images import TINY, inspect
from libraries.data.quality import Measures, QualityRow, measure, review
from libraries.data.remembered import KnownFiles, Remembered

_MOST_LOST = 0.1  # of the pictures of a class, without a warning


class Checked(NamedTuple):
    """The result of decoding every file.

    Attributes:
        examples: N, not yet split: all 'train', each a group of its own.
        refused: the errors of files that are not intact images.
        tiny: uint8 [N, 16, 17], the examples as tiny gray pictures, for finding duplicates.
        measures: N, for judging quality.
        white: the white level of images of more than 8 bits.
    """

    examples: list[Example]
    refused: list[ImageError]
    tiny: Pixels
    measures: list[Measures]
    white: WhiteLevel

    def without(self, paths: Collection[str]) -> "Checked":
        """The same without these images."""
        rows = [row for row, example in enumerate(self.examples) if example.path not in paths]
        kept = [self.examples[row] for row in rows]
        measures = [self.measures[row] for row in rows]
        return self._replace(examples=kept, tiny=self.tiny[rows], measures=measures)

    def review(self) -> list[QualityRow]:
        """The images worth a second look: the rows of quality.csv."""
        return review({example.path: m for example, m in zip(self.examples, self.measures, strict=True)})


@dataclass(frozen=True, slots=True)
class _Facts:
    """What is known of a file from its content alone, under one white level.

    Attributes:
        tiny: uint8 [16, 17], the picture in gray, as bytes: an array for each would take twice the memory.
        depth: of a picture of more than 8 bits.
    """

    file_bytes: int
    tiny: bytes
    measures: Measures
    depth: Depth | None

    def row(self) -> Row:
        """As it is kept."""
        m, depth = self.measures, self.depth
        sharpness = np.nan if m.sharpness is None else m.sharpness
        level = -1 if depth is None else depth.level or 0
        measures = [m.width, m.height, sharpness, m.dark, m.bright, m.entropy, m.is_gray]
        is_stretched = depth is not None and depth.is_stretched
        return {
            "tiny": _pictures(self.tiny)[0],
            "numbers": np.array([self.file_bytes, level, is_stretched, *measures], np.float64),
        }

    @classmethod
    def of_row(cls, row: Row) -> "_Facts":
        """The inverse of `row`."""
        bytes_, level, is_stretched, width, height, *measured = row["numbers"].tolist()
        sharpness, dark, bright, entropy, is_gray = measured
        sharpness = None if np.isnan(sharpness) else sharpness
        measures = Measures(int(width), int(height), sharpness, dark, bright, entropy, bool(is_gray))
        depth = None if level < 0 else Depth(int(level) or None, bool(is_stretched))
        return cls(int(bytes_), row["tiny"].tobytes(), measures, depth)


class _Look(NamedTuple):
    """What came of looking at a file: its SHA-256, its facts, and whether they were found by decoding it now."""

    digest: str
    facts: _Facts
    is_new: bool


def check_images(
    folder: Path,
    scanned: Scan,
    *,
    workers: int,
    white_level: int | None = None,
    max_pixels: int = MAX_PIXELS,
    remembered: Remembered | None = None,
    cluster: str = NONE,
    progress: Callable[[Sequence[str]], Iterable[str]] = iter,
    told: Callable[[str], object] = lambda size: None,
) -> Checked:
    """Decode every file, in parallel; images of more than 8 bits again if the common white level is not their own.

    Args:
        white_level: of images of more than 8 bits; None: derived from the values in all of them.
        max_pixels: images with more are refused.
        remembered: what earlier runs found, and where this run's findings are kept.
        cluster: that looks at the files of which nothing is known, unless all are looked at anew.
        told: see `Cluster`.

    Raises:
        InputError: no file of a class is an intact image.
    """
    labels = {path: label for label, paths in scanned.paths.items() for path in paths}
    checking = _Checking(folder, workers, max_pixels, remembered or Remembered(), cluster, progress, told)
    checked = checking.look_at(list(labels), white_level=None)
    depths = {path: c.facts.depth for path, c in checked.items() if isinstance(c, _Look) and c.facts.depth}
    white = WhiteLevel.of(depths, given=white_level, labels=labels)
    if others := [path for path, depth in depths.items() if (depth.level or FULL_RANGE) != white.level]:
        checked |= checking.look_at(others, white_level=white.level)
    checking.remembered.files.write()
    good = {path: c for path, c in checked.items() if isinstance(c, _Look)}
    refused = [c for c in checked.values() if isinstance(c, ImageError)]
    examples = [_example(path, labels[path], found) for path, found in good.items()]
    _check_classes(folder, scanned, examples)
    facts = [found.facts for found in good.values()]
    tiny = _pictures(b"".join(f.tiny for f in facts))
    return Checked(examples, refused, tiny, [f.measures for f in facts], white)


@dataclass(frozen=True)
class _Checking:
    """How files are looked at: see `check_images`."""

    folder: Path
    workers: int
    max_pixels: int
    remembered: Remembered
    cluster: str
    progress: Callable[[Sequence[str]], Iterable[str]]
    told: Callable[[str], object]

    def look_at(self, paths: Sequence[str], *, white_level: int | None) -> dict[str, _Look | ImageError]:
        """What is known of each path, or found by looking now; what is found is remembered."""
        found: dict[str, _Look | ImageError] = {}
        with self.remembered.open("facts", white_level) as known:
            lost = self._elsewhere(paths, known, white_level)

            def look(path: str) -> _Look | ImageError:
                if path in lost:
                    return lost[path]
                try:
                    return self._look(path, known, white_level)
                except ImageError as error:
                    return ImageError(error.reason, path)

            with contextlib.closing(ordered_map(look, paths, workers=self.workers)) as results:
                for _ in self.progress(paths):
                    path, result = next(results)
                    found[path] = result
                    if isinstance(result, _Look) and result.is_new:
                        known.put(result.digest, result.facts.row())
        return found

    def _look(self, path: str, known: ContentStore, white_level: int | None) -> _Look:
        """The facts of a file, from memory if it, or a file with its content, was decoded before.

        Raises:
            ImageError: it is not an intact image within the limits.
        """
        files, data = self.remembered.files, None
        most_bytes = max_bytes_for(self.max_pixels)
        state = files.state(self.folder / path)
        digest = None if self.remembered.recheck else files.sha256(state)
        if digest is None:
            data = read(self.folder / path, max_bytes=most_bytes)
            digest = hashlib.sha256(data).hexdigest()
        files.note(state, digest)
        if not self.remembered.recheck and (row := known.get(digest)) is not None:
            facts = _Facts.of_row(row)
            if facts.measures.width * facts.measures.height <= self.max_pixels and facts.file_bytes <= most_bytes:
                return _Look(digest, facts, is_new=False)
        return _decode(self.folder / path, data=data, white_level=white_level, max_pixels=self.max_pixels)

    def _elsewhere(self, paths: Sequence[str], known: ContentStore, white_level: int | None) -> dict[str, ImageError]:
        """Let the cluster, if there is one, look at what is not known; returns the errors of what lost its workers."""
        lost: dict[str, ImageError] = {}
        if self.cluster == NONE or self.remembered.recheck:
            return lost
        unknown = [path for path in paths if not self._is_known(path, known)]
        if not unknown:
            return lost  # Ray takes long to start
        settings = {
            "folder": str(self.folder),
            "store": str(known.for_others()),
            "white_level": white_level,
            "max_pixels": self.max_pixels,
        }
        work: Work[Part[str], dict[str, str]] = Work(_open_looker, settings, lambda part: list(part.items), dict)
        done = iter(self.progress(unknown))
        with connected(self.cluster, folder=self.remembered.store), Cluster(work, told=self.told) as pool:
            for part, result in by_parts(pool, unknown):
                for _ in part.items:
                    next(done)
                if isinstance(result, WorkerLost):
                    lost |= {path: ImageError(str(result), path) for path in part.items}
                else:
                    self.remembered.files.learn(result)
        known.look_again()
        return lost

    def _is_known(self, path: str, known: ContentStore) -> bool:
        digest = self.remembered.files.sha256(self.remembered.files.state(self.folder / path))
        return digest is not None and digest in known


def _open_looker(*, folder: str, store: str, white_level: int | None, max_pixels: int) -> "_Looker":
    return _Looker(Path(folder), Path(store), white_level, max_pixels)


@dataclass(frozen=True)
class _Looker:
    """A worker of a cluster; files that are not intact images are left to whoever puts the results together."""

    folder: Path
    store: Path
    white_level: int | None
    max_pixels: int

    def __call__(self, job: Sequence[str], /) -> dict[str, str]:
        files, rows = KnownFiles(), {}
        for path in job:
            with contextlib.suppress(ImageError):
                state = files.state(self.folder / path)
                found = _decode(self.folder / path, white_level=self.white_level, max_pixels=self.max_pixels)
                files.note(state, found.digest)
                rows[found.digest] = found.facts.row()
        if rows:
            write_rows(self.store, rows)
        return files.noted()

    def close(self) -> None:
        """Nothing is open."""


def _decode(path: Path, *, data: bytes | None = None, white_level: int | None, max_pixels: int) -> _Look:
    """The facts of a file by decoding it; raises ImageError."""
    seen = inspect(path, data=data, white_level=white_level, max_pixels=max_pixels)
    measures = measure(seen.small, size=(seen.width, seen.height))
    return _Look(seen.sha256, _Facts(seen.bytes, seen.tiny.tobytes(), measures, seen.depth), is_new=True)


def _pictures(tiny: bytes) -> Pixels:
    """Tiny gray pictures, uint8 [N, 16, 17], from their bytes."""
    return np.frombuffer(tiny, np.uint8).reshape(-1, TINY[1], TINY[0])


def _example(path: str, label: str, found: _Look) -> Example:
    facts = found.facts
    return Example(
        path, label, "train", path, facts.measures.width, facts.measures.height, facts.file_bytes, found.digest
    )


def _check_classes(folder: Path, scanned: Scan, examples: Iterable[Example]) -> None:
    """Raise InputError for a class without an example."""
    labels = {example.label for example in examples}
    for label in scanned.paths:
        if label not in labels:
            where = " and ".join(str(folder / each) for each in find_class_folders(folder).by_label[label])
            raise InputError(f"no file in {where} is an intact image: replace them, or remove the folder")


def left_out(scanned: Scan, checked: Checked) -> list[str]:
    """Lines about files that are not examples, and a warning for each class that loses over a tenth of its pictures."""
    lines = [f"left out: {error}" for error in checked.refused]
    lines += [f"left out: {other.describe(count)}" for other, count in scanned.skipped.items()]
    refused = {str(error.path) for error in checked.refused}
    for label, paths in scanned.paths.items():
        lost, count = len(refused.intersection(paths)) + scanned.lost[label], len(paths) + scanned.lost[label]
        if lost > _MOST_LOST * count:
            lines.append(f"Warning: class '{label}' loses {lost:,} of its {count:,} pictures: see the reasons above")
    return lines
