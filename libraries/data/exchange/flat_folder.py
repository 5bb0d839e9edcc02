"""A flat folder of images and a table of their labels → one folder per class.

Each image becomes <label>/<its path in the flat folder>, by hard link, which takes no room, or where that cannot be
as a copy. Nothing is overwritten or deleted; what is there already stays, so a run that was stopped goes on.
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
from libraries.data.exchange.label_table import LabelTable, Row
from libraries.data.removal import removed
from libraries.data.split import DEDICATED_TEST_IMAGES

_MAX_LIST_BYTES = 2**30


@dataclass
class Placed:
    """What has become of a table.

    Attributes:
        counts: images of each label: 'linked', 'copied', or 'there' before.
        problems: one line for each image that was left out though it was found.
        warnings: of rows that gave no image.
        test: how many images were listed as the test set.
    """

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    test: int = 0

    @property
    def count(self) -> int:
        """Images that are in the folders of the classes."""
        return sum(count.total() for count in self.counts.values())

    def summary_lines(self) -> list[str]:
        """All that, in lines."""
        kinds = ("linked", "copied", "there")
        rows = [(label, *(count[kind] for kind in kinds)) for label, count in sorted(self.counts.items())]
        totals = [sum(count[kind] for count in self.counts.values()) for kind in kinds]
        told = [as_table("Images", ["label", "linked", "copied", "there before"], rows, footer=["all", *totals])]
        if self.test:
            told.append(f"{self.test:,} of them are the test set, listed in {DEDICATED_TEST_IMAGES}")
        return [*told, *self.warnings, *(f"  left out: {problem}" for problem in self.problems)]


def place(
    table: LabelTable, source: Path, target: Path, *, progress: Callable[[int, int], object] = lambda done, of: None
) -> Placed:
    """Fill the folders of the classes.

    Names in the table are paths relative to `source` or to the table, or names of files anywhere below `source`; the
    suffix may be missing. None leads out of `source`. An image whose label was changed by hand stays under its new
    label, removed duplicates stay removed.

    Args:
        source: folder with the images, in any sub-folders.
        target: images/<dataset>.
        progress: called with the number of images that are done, and of all.

    Raises:
        InputError: no image is found, a name stands for several, rows contradict each other, or the images lie where
            folders of classes are to be.
        StorageError: the list of test images that is there is another one, or something cannot be written.
    """
    if not source.is_dir():
        raise InputError(f"the folder of images {source} does not exist: say where they lie with --imgFolder")
    placed = Placed()
    chosen = _choose(table, source, target, placed)
    for path in chosen:
        inside = (source / path).parent
        if inside != target and inside.is_relative_to(target):
            raise InputError(f"{inside} would be a class, since it lies in {target}: move the images elsewhere")
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
            placed.problems.append(f"{path}: another file is {target / wanted}")
        progress(number + 1, len(chosen))
    if tests:
        write_text(target / DEDICATED_TEST_IMAGES, "".join(tests))
        placed.test = len(tests)
    return placed


def _check_list(path: Path, text: str) -> None:
    """Raise StorageError if there is another list of test images than the one to be written."""
    if text and path.exists() and read_text(path, what="the list of test images", max_bytes=_MAX_LIST_BYTES) != text:
        raise StorageError(f"{path} is another list of test images than the table's: move it away, and run again")


# Which file each row means


def _choose(table: LabelTable, source: Path, target: Path, placed: Placed) -> dict[str, Row]:
    """The row of every image that is found, by its path in the folder."""
    beside = table.path.parent
    wanted = {name for row in table.rows for name in _names(row.file, source, beside)}
    found, others = _find(wanted, _candidates(table, source, target))
    chosen: dict[str, Row] = {}
    missing, outside = _Left(f"with a file that is not in {source}"), _Left(f"with a file outside {source}")
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
            said = [f"{each.label} ({each.side})" for each in (row, other)]
            raise InputError(f"{where} says {path} is {said[0]}, and line {other.line} {said[1]}: correct the table")
    if not chosen:
        names_it = f"the images that {table.path} names (e.g. '{table.rows[0].file[:80]}')"
        raise InputError(f"{source} holds none of {names_it}: say where they lie with --imgFolder")
    unlabelled = _Left("without a label, or with several", *table.without_label)
    placed.warnings += [left.summary() for left in (unlabelled, missing, outside) if left.count]
    return chosen


@dataclass
class _Left:
    """Rows that give no image: why, how many, and the first of them."""

    why: str
    count: int = 0
    line: int = 0
    file: str = ""

    def add(self, row: Row) -> None:
        if not self.count:
            self.line, self.file = row.line, f": '{row.file[:80]}'"
        self.count += 1

    def summary(self) -> str:
        return f"Warning: {counted(self.count, 'row')} {self.why}, e.g. line {self.line}{self.file}"


def _candidates(table: LabelTable, source: Path, target: Path) -> Iterator[str]:
    """The images in the folder, without those that an earlier run has placed, where the data set lies in it."""
    labels = {row.label for row in table.rows}
    own = f"{target.relative_to(source).as_posix()}/".removeprefix("./") if target.is_relative_to(source) else None
    for path in image_files(source).images:
        label, slash, _ = path.removeprefix(own or "").partition("/")
        if own is None or not path.startswith(own) or not slash or nfc(label) not in labels:
            yield path


def _names(file: str, source: Path, beside: Path) -> list[str]:
    """Paths in the folder that a name may mean, the likeliest first; none where it leads out of it."""
    if "/" not in file:
        return [nfc(file)] if file not in (".", "..") else []
    folder = source.as_posix().rstrip("/") + "/"
    full = (Path(os.path.normpath(base / file)).as_posix() for base in (source, beside))
    return list(dict.fromkeys(nfc(path.removeprefix(folder)) for path in full if path.startswith(folder)))


def _find(wanted: set[str], files: Iterable[str]) -> tuple[dict[str, str], dict[str, str]]:
    """The file that each name stands for, and another one that it stands for as well.

    A name is the path of a file, or else that without suffix, or else the last part of it, or that without suffix.
    """
    found: dict[str, str] = {}
    others: dict[str, str] = {}  # a second file of the same rank; few
    for path in files:
        if path != path.strip() or any(character in path for character in "\t\n\r"):
            continue  # no list could name it
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
    """What a file may be called in a table."""
    last = path.rpartition("/")[2]
    yield path
    yield path.rpartition(".")[0]
    if last != path:
        yield last
        yield last.rpartition(".")[0]


# Putting it there


def _put(source: Path, target: Path) -> str:
    """Link or copy a file; 'linked', 'copied', 'there' if it was so before, empty if another file has its place.

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
            target.unlink()  # the empty file of a move that did not end
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
    """Copy a file, whole or not at all, never over another."""
    temporary = temporary_beside(target)
    try:
        shutil.copy2(source, temporary)
        with temporary.open("rb+") as file:
            flush(file)
        move(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _is_same(one: Path, other: Path) -> bool:
    """Whether two files have the same content; equal sizes and dates are taken for that."""
    try:
        a, b = one.stat(), other.stat()
    except OSError:
        return False
    if os.path.samestat(a, b):
        return True
    return a.st_size == b.st_size and (a.st_mtime_ns == b.st_mtime_ns or sha256(one) == sha256(other))
