"""A flat folder of images and a table of their labels → one folder per class.

Each image becomes <label>/<its path in the flat folder>, as a hard link, which takes no space, or else as a copy.
Nothing is overwritten or deleted; existing files are kept, so a stopped run can continue.
"""

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from libraries.base.console import counted
from libraries.base.console import table as as_table
from libraries.base.errors import InputError, StorageError
from libraries.base.file_system import flush, move, nfc, on_disk, storage_error, sweep, temporary_beside
from libraries.base.storage import sha256, write_text
from libraries.base.text import read_text
from libraries.data.annotations import Annotations
from libraries.data.class_folders import image_files
from libraries.data.exchange.label_table import LabelRow, LabelTable
from libraries.data.removal import removed
from libraries.data.split import DEDICATED_TEST_IMAGES

_MAX_LIST_BYTES = 2**30


@dataclass
class Placed:
    """The result of placing the images of a table.

    Attributes:
        counts: images of each label: 'linked', 'copied', or 'there' before.
        problems: one line for each image that was found but left out.
        warnings: about rows that gave no image.
        notes: about images without a label.
        test: how many images were listed as the test set.
    """

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    test: int = 0

    @property
    def count(self) -> int:
        """How many images are in the class folders."""
        return sum(count.total() for count in self.counts.values())

    def summary_lines(self) -> list[str]:
        """Lines about the images, warnings and problems."""
        kinds = ("linked", "copied", "there")
        rows = [(label, *(count[kind] for kind in kinds)) for label, count in sorted(self.counts.items())]
        totals = [sum(count[kind] for count in self.counts.values()) for kind in kinds]
        lines = [as_table("Images", ["label", "linked", "copied", "there before"], rows, footer=["all", *totals])]
        if self.test:
            lines.append(f"{self.test:,} of them are the test set, listed in {DEDICATED_TEST_IMAGES}")
        return [*lines, *self.notes, *self.warnings, *(f"  left out: {problem}" for problem in self.problems)]


def place(
    table: LabelTable, source: Path, target: Path, *, progress: Callable[[int, int], object] = lambda done, of: None
) -> Placed:
    """Fill the class folders.

    Names in the table are paths relative to `source` or to the table, or names of files anywhere below `source`; the
    suffix may be missing. Files outside `source` are never used. Images whose labels were changed by hand keep their
    new labels; removed duplicates stay removed.

    Args:
        source: folder with the images, in any sub-folders.
        target: images/<dataset>.
        progress: called with the number of images done, and of all images.

    Raises:
        InputError: no image is found, a name fits several, rows contradict each other, or the images are where class
            folders are to be.
        StorageError: there is another list of test images already, or a file cannot be written.
    """
    if not source.is_dir():
        raise InputError(f"the folder of images {source} does not exist: give another --imgFolder")
    placed = Placed()
    chosen = _choose(table, source, target, placed)
    for path in chosen:
        inside = (source / path).parent
        if inside != target and inside.is_relative_to(target):
            raise InputError(f"{inside} would be a class, since it is in {target}: move the images elsewhere")
    folders = {label: on_disk(target, label) for label in {row.label for row in chosen.values()}}
    tests = [f"{folders[row.label]}\t{path}\n" for path, row in sorted(chosen.items()) if row.side == "test"]
    _check_list(target / DEDICATED_TEST_IMAGES, "".join(tests))
    moved, taken_out = Annotations(target).moved, set(removed(target)) if target.is_dir() else set()
    for label in folders.values():
        sweep(target / label)
    for number, (path, row) in enumerate(chosen.items()):
        wanted = f"{folders[row.label]}/{path}"
        kind = "there" if wanted in taken_out else _put(source / path, target / moved.get(wanted, wanted))
        if kind:
            placed.counts.setdefault(row.label, Counter())[kind] += 1
        else:
            placed.problems.append(f"{path}: {target / wanted} is another file")
        progress(number + 1, len(chosen))
    if tests:
        write_text(target / DEDICATED_TEST_IMAGES, "".join(tests))
        placed.test = len(tests)
    return placed


def _check_list(path: Path, text: str) -> None:
    """Raise StorageError if there is a list of test images other than the one to be written."""
    if text and path.exists() and read_text(path, what="the list of test images", max_bytes=_MAX_LIST_BYTES) != text:
        raise StorageError(f"{path} does not list the table's test images: move it away, and run again")


# Finding the file of each row


def _choose(table: LabelTable, source: Path, target: Path, placed: Placed) -> dict[str, LabelRow]:
    """The row of every image that is found, by its path in the folder."""
    beside = table.path.parent
    wanted = {name for row in table.rows for name in _names(row.file, source, beside)}
    images = list(_candidates(table, source, target))
    found, others = _find(wanted, images)
    chosen: dict[str, LabelRow] = {}
    missing, outside = _Skipped(f"with a file that is not in {source}"), _Skipped(f"with a file outside {source}")
    for row in table.rows:
        names = _names(row.file, source, beside)
        name = next((name for name in names if name in found), None)
        if name is None:
            (missing if names else outside).add(row)
            continue
        path = found[name]
        where = f"{table.path}, line {row.line}"
        if name in others:
            raise InputError(f"{where}: '{row.file}' may be {path} or {others[name]}: write its path in the table")
        other = chosen.setdefault(path, row)
        if (other.label, other.side) != (row.label, row.side):
            labels = [f"{each.label} ({each.side})" for each in (row, other)]
            raise InputError(
                f"{where} says {path} is {labels[0]}, line {other.line} says {labels[1]}: correct the table"
            )
    if not chosen:
        named = f"the images that {table.path} names (e.g. '{table.rows[0].file[:80]}')"
        raise InputError(f"{source} has none of {named}: give another --imgFolder")
    unlabelled = _Skipped("without a label, or with several", *table.without_label)
    placed.warnings += [skipped.summary() for skipped in (unlabelled, missing, outside) if skipped.count]
    if left := len(images) - len(chosen):  # often the test images of a competition
        have = "has" if left == 1 else "have"
        placed.notes.append(f"{counted(left, 'image')} in {source} {have} no label in {table.path}: left out")
    return chosen


@dataclass
class _Skipped:
    """Rows that give no image: why, how many, and the first of them."""

    why: str
    count: int = 0
    line: int = 0
    file: str = ""

    def add(self, row: LabelRow) -> None:
        if not self.count:
            self.line, self.file = row.line, f": '{row.file[:80]}'"
        self.count += 1

    def summary(self) -> str:
        return f"Warning: {counted(self.count, 'row')} {self.why}, e.g. line {self.line}{self.file}"


def _candidates(table: LabelTable, source: Path, target: Path) -> Iterator[str]:
    """Yield the images in the folder, except those that an earlier run has placed, if the data set is in it."""
    labels = {row.label for row in table.rows}
    own = f"{target.relative_to(source).as_posix()}/".removeprefix("./") if target.is_relative_to(source) else None
    for path in image_files(source).images:
        label, slash, _ = path.removeprefix(own or "").partition("/")
        if own is None or not path.startswith(own) or not slash or nfc(label) not in labels:
            yield path


def _names(file: str, source: Path, beside: Path) -> list[str]:
    """Paths in the folder that a name may mean, the likeliest first; none if the file would be outside."""
    if "/" not in file:
        return [nfc(file)] if file not in (".", "..") else []
    folder = source.as_posix().rstrip("/") + "/"
    full = (Path(os.path.normpath(base / file)).as_posix() for base in (source, beside))
    return list(dict.fromkeys(nfc(path.removeprefix(folder)) for path in full if path.startswith(folder)))


def _find(wanted: set[str], files: Iterable[str]) -> tuple[dict[str, str], dict[str, str]]:
    """The file that each name stands for, and a second one if there are several.

    A name is the path of a file, or else its path without suffix, its file name, or its file name without suffix.
    """
    found: dict[str, str] = {}
    others: dict[str, str] = {}  # a second file of the same rank; few
    for path in files:
        if path != path.strip() or any(character in path for character in "\t\n\r"):
            continue  # cannot be written in a list
        for rank, name in enumerate(_names_of(nfc(path))):
            if name not in wanted:
                continue
            best = list(_names_of(nfc(found[name]))).index(name) if name in found else rank + 1
            if rank < best:
                found[name] = path
                others.pop(name, None)
            elif rank == best and path != found[name]:
                others[name] = path
    return found, others


def _names_of(path: str) -> Iterator[str]:
    """Yield the names that a table may use for a file, the most exact first."""
    last = path.rpartition("/")[2]
    yield path
    yield path.rpartition(".")[0]
    if last != path:
        yield last
        yield last.rpartition(".")[0]


# Placing the file


def _put(source: Path, target: Path) -> str:
    """Link or copy a file; returns 'linked', 'copied', 'there' if it was there before, or '' if another file is.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        source = source.resolve()
        if os.path.lexists(target):
            if _is_same(source, target):
                return "there"
            if target.is_symlink() or target.stat().st_size:
                return ""
            target.unlink()  # the empty file of an interrupted move
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)
            return "linked"
        except FileExistsError:
            return ""
        except OSError:  # another disk, or a file system without links
            _copy(source, target)
            return "copied"
    except OSError as error:
        raise storage_error(error, target) from error


def _copy(source: Path, target: Path) -> None:
    """Copy a file, completely or not at all, never over another."""
    temporary = temporary_beside(target)
    try:
        shutil.copy2(source, temporary)
        with temporary.open("rb+") as file:
            flush(file)
        move(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _is_same(one: Path, other: Path) -> bool:
    """Whether two files have the same content; equal sizes and modification times count as that."""
    try:
        a, b = one.stat(), other.stat()
    except OSError:
        return False
    if os.path.samestat(a, b):
        return True
    return a.st_size == b.st_size and (a.st_mtime_ns == b.st_mtime_ns or sha256(one) == sha256(other))
