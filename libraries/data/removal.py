"""Removing duplicates from a data set, and restoring them.

A removed file is moved, within the data set's folder, from <label>/… to .duplicates/<label>/…, which is hidden and so
not a class. Nothing is deleted or overwritten, and each move is one rename: after a kill at any moment, every file is
in one of the two places, and running again continues. The list .duplicates/removed.csv is for people; restoring does
not need it.
"""

import contextlib
import csv
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from libraries.base.console import counted
from libraries.base.file_system import move, open_text
from libraries.base.tables import Column, column_names, csv_records, row_cells, write_csv
from libraries.data.annotations import Annotations
from libraries.data.class_folders import image_files
from libraries.data.dataset import Example
from libraries.data.duplicates import Duplicates, Kind

REMOVED = ".duplicates"
LIST = "removed.csv"


@dataclass(frozen=True)
class Removal:
    """A row of removed.csv: one file that is, or was, removed."""

    path: Annotated[str, Column("where the file was, relative to the folder of the data set")]
    kept: Annotated[str, Column("path of the image that it is a copy of")]
    kind: Annotated[Kind, Column("how it resembles that image: exact or near")]
    distance: Annotated[int, Column("distance of their difference hashes [bits of 256]")]


COLUMNS = tuple(column_names(Removal))


@dataclass(frozen=True)
class Moved:
    """The new paths of the files that were moved, by their old ones, and one line for each that was not."""

    paths: dict[str, str]
    problems: list[str]

    def summary_lines(self, what: str) -> list[str]:
        """Lines about the number of files, and the problems; `what` says what was done."""
        return [f"{counted(len(self.paths), 'duplicate')} {what}", *(f"  {problem}" for problem in self.problems)]


def plan(duplicates: Duplicates) -> tuple[list[Removal], list[list[str]]]:
    """What to remove, and the groups that are kept because they have the same picture under two labels.

    Of exact and near copies the largest stays: most pixels, then most bytes, then the first by path. A copy is removed
    only if it is like one that stays; that both are like a third one is not enough. Pictures of one scene stay.
    """
    like = _Likeness(duplicates)
    removals, contradicting = [], []
    for rows in duplicates.members(("exact", "near")):
        members = [(duplicates.examples[row], row) for row in rows]
        if len({example.label for example, _ in members}) > 1:
            contradicting.append([example.path for example, _ in members])
            continue
        kept: dict[int, str] = {}  # by original
        for example, row in sorted(members, key=_largest_first):
            closest = like.closest(row, kept)
            if closest is None:
                kept.setdefault(like.original(row), example.path)
            else:
                original, distance = closest
                exact = original == like.original(row)
                removals.append(Removal(example.path, kept[original], "exact" if exact else "near", distance))
    return removals, contradicting


def _largest_first(member: tuple[Example, int]) -> tuple[int, int, str]:
    example, _ = member
    return -example.width * example.height, -example.bytes, example.path


class _Likeness:
    """Which of the examples are direct exact or near copies of each other."""

    def __init__(self, duplicates: Duplicates) -> None:
        exact = duplicates.pairs["exact"]
        self._original = dict(zip(exact.other.tolist(), exact.one.tolist(), strict=True))
        self._near: dict[int, dict[int, int]] = {}
        if near := duplicates.pairs.get("near"):
            for one, other, distance in zip(near.one.tolist(), near.other.tolist(), near.measure.tolist(), strict=True):
                self._near.setdefault(one, {})[other] = round(distance)
                self._near.setdefault(other, {})[one] = round(distance)

    def original(self, row: int) -> int:
        """The first file with the same pixels."""
        first: int = self._original.get(row, row)
        return first

    def closest(self, row: int, originals: Collection[int]) -> tuple[int, int] | None:
        """The one of these originals that a file is most like, and their distance; None if it is like none."""
        own = self.original(row)
        distances = {own: 0, **self._near.get(own, {})}
        candidates = [(distance, each) for each, distance in distances.items() if each in originals]
        return (min(candidates)[1], min(candidates)[0]) if candidates else None


def take_out(folder: Path, duplicates: Duplicates) -> tuple[set[str], list[str]]:
    """`plan` and `remove` in one: the paths that were removed, and lines about them."""
    removals, contradicting = plan(duplicates)
    moved = remove(folder, removals)
    lines = moved.summary_lines(f"moved to {folder / REMOVED} and listed there")
    return set(moved.paths), [f"left as they are: {counted(len(contradicting), 'group')} with two labels", *lines]


def remove(folder: Path, removals: Sequence[Removal], *, progress: Callable[[], object] = lambda: None) -> Moved:
    """Move files to the hidden folder, and write the list of all that are there.

    Args:
        folder: of the data set, images/<dataset>.

    Raises:
        StorageError: the list cannot be written, or a notebook is changing labels for too long.
    """
    if not removals:
        return Moved({}, [])
    hidden = folder / REMOVED
    with Annotations(folder).locked():
        rows = {**_read_list(hidden / LIST), **{each.path: row_cells(each) for each in removals}}
        write_csv(hidden / LIST, list(rows.values()), columns=COLUMNS)  # first, so that it has every moved file
        return _move_all([row.path for row in removals], folder, hidden, progress=progress)


def restore(folder: Path, *, progress: Callable[[], object] = lambda: None) -> Moved:
    """Move all removed files back, under a numbered name if another file has taken theirs.

    Raises:
        StorageError: the list cannot be deleted, or a notebook is changing labels for too long.
    """
    hidden = folder / REMOVED
    if not hidden.is_dir():
        return Moved({}, [])
    with Annotations(folder).locked():
        moved = _move_all(removed(folder), hidden, folder, progress=progress)
        if not moved.problems:
            (hidden / LIST).unlink(missing_ok=True)
        for place, _, _ in os.walk(hidden, topdown=False):
            with contextlib.suppress(OSError):  # not empty
                Path(place).rmdir()
        return moved


def removed(folder: Path) -> list[str]:
    """Where the files in the hidden folder were, relative to the data set's folder."""
    hidden = folder / REMOVED
    return [path for path in image_files(hidden).images if not _is_empty(hidden / path)] if hidden.is_dir() else []


def _move_all(paths: Iterable[str], source: Path, target: Path, *, progress: Callable[[], object]) -> Moved:
    moved = Moved({}, [])
    for path in paths:
        try:
            old, new = source / path, _free(target / path)
            if old.is_symlink() and not old.readlink().is_absolute():
                raise OSError(None, "it is a relative link, which would break")
            move(old, new)
            moved.paths[path] = new.relative_to(target).as_posix()
        except OSError as error:
            moved.problems.append(f"{path} is left where it is: {error.strerror or error}")
        progress()
    return moved


def _free(wanted: Path) -> Path:
    """The path, or a numbered one if it is taken. An empty file was left by a killed move, and is deleted."""
    path, number = wanted, 1
    while os.path.lexists(path) and not _is_empty(path):
        number += 1
        path = wanted.with_name(f"{wanted.stem}-{number}{wanted.suffix}")
    path.unlink(missing_ok=True)
    return path


def _is_empty(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and path.stat().st_size == 0


def read_kept(folder: Path) -> dict[str, str]:
    """The path that each removed file is a copy of, by its own path; empty if the list cannot be read."""
    return {path: row["kept"] for path, row in _read_list(folder / REMOVED / LIST).items()}


def _read_list(path: Path) -> dict[str, dict[str, str]]:
    """The rows of the list, by path; empty if it cannot be read, since nothing depends on it."""
    try:
        with open_text(path) as file:
            rows = list(csv_records(file))
    except (OSError, ValueError, csv.Error):
        return {}
    return {row["path"]: {name: row.get(name, "") for name in COLUMNS} for row in rows if row.get("path")}
