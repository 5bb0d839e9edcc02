"""Tables of images and their labels, `file,label[,split]`: the form of most public competitions.

CSV or TSV, separated by commas, tabs or semicolons, with a header of common names; other columns are ignored.
"""

import itertools
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from libraries.base.errors import InputError
from libraries.base.file_system import nfc
from libraries.base.text import table_cells
from libraries.data.class_folders import Side, check_label, check_labels, listed
from libraries.data.formats import SUFFIXES

MAX_ROWS = 5_000_000
_WHAT = "the table of labels"
_ADVICE = "name the columns with --imgLabelsColumns file,label or file,label,split"

# Common names of columns, without case, blanks and underscores; of several the first counts, so ids come last.
_FILE = (
    *("filename", "file", "filepath", "imagepath", "imgpath", "path", "imagename", "imgname", "imagefile", "fname"),
    *("image", "images", "img", "picture", "photo", "imageid", "imgid", "idcode", "id"),
)
_LABEL = (
    *("label", "labels", "labelname", "class", "classname", "category", "categoryname", "target", "species", "breed"),
    *("diagnosis", "dx", "disease", "variety", "y", "labelid", "classid", "categoryid"),
)
_SPLIT = ("split", "set", "subset", "partition", "usage", "phase", "fold")
_SIDES: dict[str, Side] = {
    **dict.fromkeys(("", "train", "training", "val", "valid", "validation", "dev"), "train"),
    **dict.fromkeys(("test", "testing", "publictest", "privatetest", "public", "private"), "test"),
}


class LabelRow(NamedTuple):
    """A line of the table: the label and the side of the split of an image."""

    line: int
    file: str
    label: str
    side: Side


@dataclass
class LabelTable:
    """The content of a table.

    Attributes:
        columns: the names of those that were read.
        rows: with a label; files are named as in the table, with '/', labels are checked.
        without_label: how many rows have no label, or several, and which line is the first of them.
        notes: lines for the summary.
    """

    path: Path
    columns: list[str] = field(default_factory=list)
    rows: list[LabelRow] = field(default_factory=list)
    without_label: tuple[int, int] = (0, 0)
    notes: list[str] = field(default_factory=list)

    def summary_lines(self) -> list[str]:
        """Lines about what was read."""
        columns = listed(f"'{name}'" for name in (*self.columns[:4], *(["…"] if len(self.columns) > 4 else [])))
        return [f"{len(self.rows):,} labels in the columns {columns} of {self.path}", *self.notes]


class _Columns(NamedTuple):
    """Numbers of the columns; several for the label if they are one-hot, each a class with 1 for its images, else 0."""

    file: int
    label: Sequence[int]
    split: int | None


def read_label_table(path: Path, *, columns: Sequence[str] = ()) -> LabelTable:
    """Read a table of labels.

    Columns are recognised by their names; without a header, they are file, label and split, in this order. If no
    column has the name of a label, but all others contain 0 and 1, each of these is a class (one-hot).

    Args:
        columns: the names of those for file, label and split, or only the first two; empty: the usual names.

    Raises:
        MissingInput: there is no such table.
        InputError: it cannot be read, or its columns are not recognised; a row names no file, has an impossible label
            or an unknown side of the split. Names the file and the line.
    """
    rows = table_cells(path, what=_WHAT)
    header = next(rows, None)
    if header is None:
        raise InputError(f"{path} is empty: expected a header, and a row with the label of each image")
    first = next(rows, None)
    if columns or not _is_file(header[1]):
        names = [nfc(cell.strip()) for cell in header[1]]
        used = _given(names, columns, path) if columns else _known(names, first[1] if first else [], path)
        above = [first]
    else:
        names = [f"column {i + 1}" for i in range(len(header[1]))]
        used = _Columns(0, [1], 2 if len(names) == 3 else None)
        above = [header, first]
    table = LabelTable(path)
    if used.split is not None and first and _is_fold(names[used.split], first[1][used.split : used.split + 1]):
        table.notes.append(f"The column '{names[used.split]}' is ignored: it holds numbers, not sides of the split")
        used = used._replace(split=None)
    table.columns = [names[i] for i in (used.file, *used.label, *([] if used.split is None else [used.split]))]
    for line, cells in itertools.chain((row for row in above if row), rows):
        _add_row(table, used, names, line, cells)
    _check_whole(table)
    return table


def _key(name: str) -> str:
    return re.sub(r"[\W_]+", "", nfc(name).casefold())


def _is_file(header: Sequence[str]) -> bool:
    """Whether the first line names an image, and so is not a header."""
    return len(header) > 1 and PurePosixPath(header[0].strip()).suffix.lower() in SUFFIXES


def _given(names: Sequence[str], columns: Sequence[str], path: Path) -> _Columns:
    if not 2 <= len(columns) <= 3:
        raise InputError(f"imgLabelsColumns has {len(columns)} names: {_ADVICE}")
    for column in columns:
        if nfc(column) not in names:
            raise InputError(f"{path} has no column '{column}'; it has {', '.join(names)[:200]}")
    file, label, *split = (names.index(nfc(column)) for column in columns)
    return _Columns(file, [label], split[0] if split else None)


def _known(names: Sequence[str], first: Sequence[str], path: Path) -> _Columns:
    """The columns, recognised by their usual names."""
    keys = [_key(name) for name in names]

    def named(usual: Sequence[str]) -> int | None:
        return next((keys.index(name) for name in usual if name in keys), None)

    file, label, split = named(_FILE), named(_LABEL), named(_SPLIT)
    others = [i for i in range(len(names)) if i not in (file, label, split)]
    if len(others) == 1 and (file is None) != (label is None):
        file, label = (others[0] if file is None else file), (others[0] if label is None else label)
    if file is not None and label is not None:
        return _Columns(file, [label], split)
    is_one_hot = len(others) > 1 and all(i < len(first) and _bit(first[i]) is not None for i in others)
    if file is not None and is_one_hot:
        return _Columns(file, others, split)
    which = "files" if file is None else "labels"
    raise InputError(
        f"{path}: none of the columns has a usual name for {which}; they are {', '.join(names)[:200]}: {_ADVICE}"
    )


def _is_fold(name: str, cells: Sequence[str]) -> bool:
    """Whether a column contains the numbers of folds, none of which is the test set."""
    return _key(name) == "fold" and all(re.fullmatch(r"-?\d+(\.0*)?", cell.strip()) for cell in cells)


def _add_row(table: LabelTable, columns: _Columns, names: Sequence[str], line: int, cells: Sequence[str]) -> None:
    where = f"{table.path}, line {line}"
    if max(columns.file, *columns.label, columns.split or 0) >= len(cells):
        raise InputError(f"{where} has {len(cells)} columns, fewer than the header")
    file = cells[columns.file].strip().replace("\\", "/")
    if not file:
        raise InputError(f"{where} names no file")
    label = _label(columns, names, cells, where)
    if not label:
        count, first = table.without_label
        table.without_label = (count + 1, first or line)
        return
    value = cells[columns.split].strip() if columns.split is not None else ""
    side = _SIDES.get(_key(value))
    if side is None:
        raise InputError(f"{where}: '{value[:40]}' is not a side of the split: write train, val or test")
    if len(table.rows) == MAX_ROWS:
        raise InputError(f"{table.path} has more than {MAX_ROWS:,} rows: split it")
    table.rows.append(LabelRow(line, file, label, side))


def _label(columns: _Columns, names: Sequence[str], cells: Sequence[str], where: str) -> str:
    """The label of a row as written; with one-hot columns, the name of that with a 1, or '' if not exactly one has."""
    if len(columns.label) == 1:
        return sys.intern(nfc(cells[columns.label[0]].strip()))
    bits = {i: _bit(cells[i]) for i in columns.label}
    if strange := [i for i, bit in bits.items() if bit is None]:
        raise InputError(f"{where}: expected 0 or 1 in column '{names[strange[0]]}', found '{cells[strange[0]][:40]}'")
    ones = [names[i] for i, bit in bits.items() if bit]
    return ones[0] if len(ones) == 1 else ""


def _bit(cell: str) -> int | None:
    return {"0": 0, "1": 1}.get(re.sub(r"\.0*$", "", cell.strip()))


def _check_whole(table: LabelTable) -> None:
    """Check that there are rows, and that the labels can be folders."""
    if not table.rows:
        raise InputError(f"{table.path} gives no image a label")
    first = {row.label: row.line for row in reversed(table.rows)}
    for label, line in first.items():
        try:
            check_label(label)
        except InputError as error:
            raise InputError(f"{table.path}, line {line}: {error}") from None
    try:
        check_labels(first)
    except InputError as error:
        raise InputError(f"{table.path}: {error}") from None
