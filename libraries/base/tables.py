"""CSV without cells that a spreadsheet would run as formulas; reading restores the exact values.

Titles, file names and labels are chosen by strangers, and a spreadsheet treats a cell that begins with certain
characters as a formula (OWASP, 'CSV Injection'). Such texts are written with a leading apostrophe, which marks text in
spreadsheets; reading removes it. Tables of earlier versions, without apostrophes, are read unchanged.

A typed table is declared by a dataclass whose fields are its columns; it is written, read and described from that.
"""

import contextlib
import csv
import dataclasses
import re
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from libraries.base.errors import StorageError
from libraries.base.file_system import open_text, storage_error
from libraries.base.storage import reading, write_text

Row = TypeVar("Row")

# A leading apostrophe protects a formula, and one more protects text that looks like a protected formula. Spreadsheets
# skip blanks and invisible characters; East Asian ones also accept full-width signs.
_BLANK = r"\s\x00-\x20\x7f-\xa0\u200b-\u200f\u2060\ufeff"
_RUN = re.compile(rf"'*(?:[\t\r\n]|[{_BLANK}]*[-=+@\uff0d\uff1d\uff0b\uff20])")
_QUOTED = re.compile('[,;\t"\r\n]')  # the separators of spreadsheets in any locale


def protected(text: str) -> str:
    """Text as a cell that no spreadsheet runs as a formula."""
    return f"'{text}" if _RUN.match(text) else text


def plain(cell: str) -> str:
    """The inverse of `protected`."""
    return cell[1:] if cell[:1] == "'" and _RUN.match(cell, 1) else cell


def csv_line(cells: Iterable[object]) -> str:
    """A line of CSV, with its ending. Texts are protected, numbers (-1.5) are not; None is an empty cell."""
    return ",".join(_cell(protected(cell) if isinstance(cell, str) else cell) for cell in cells) + "\n"


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    return '"' + text.replace('"', '""') + '"' if _QUOTED.search(text) else text


def csv_rows(lines: Iterable[str]) -> Iterator[list[str]]:
    """The rows of CSV as texts, the inverse of `csv_line`; raises csv.Error if it is malformed."""
    return ([plain(cell) for cell in row] for row in csv.reader(lines))


def csv_records(lines: Iterable[str]) -> Iterator[dict[str, str]]:
    """The rows of CSV by the header's names, without blank lines.

    Raises:
        ValueError: a row has more or fewer cells than the header.
    """
    rows = csv_rows(lines)
    names = next(rows, [])
    return (dict(zip(names, row, strict=True)) for row in rows if row)


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], *, columns: Sequence[str] = ()) -> None:
    """Write a table atomically, one row per mapping; the header is `columns`, by default the first row's keys."""
    write_text(path, csv_text(rows, columns=columns))


def csv_text(rows: Sequence[Mapping[str, Any]], *, columns: Sequence[str] = ()) -> str:
    """What `write_csv` writes."""
    names = columns or (list(rows[0]) if rows else [])
    return "".join(csv_line(cells) for cells in (names, *([row.get(name) for name in names] for row in rows)))


@dataclass(frozen=True)
class Column:
    """Describes a column of a typed table: `name: Annotated[type, Column(...)]` in its dataclass.

    The type is str, int, float, bool or a Literal, or one of these `| None`. A field with a default may be missing from
    the file, as in tables of earlier versions.

    Attributes:
        about: what it contains, in one line.
        prefix: for a field of type Mapping[str, type]: begins the names of its columns, one for each key.
        decimals: of numbers; by default as many as are needed to restore them exactly.
    """

    about: str = ""
    prefix: str = ""
    decimals: int | None = None


def described(kind: type) -> list[tuple[str, str]]:
    """Name and meaning of each column of a typed table."""
    return [(f"{c.prefix}…" if c.prefix else name, c.about) for name, _, c in _columns(kind)]


@cache
def _columns(kind: Any) -> list[tuple[str, Any, Column]]:
    """The fields of a typed table: name, type and description."""
    hints, columns = get_type_hints(kind, include_extras=True), []
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        of_type, about = get_args(hint) if get_origin(hint) is Annotated else (hint, Column())
        columns.append((field.name, of_type, about))
    return columns


def column_names(kind: type, keys: Iterable[str] = ()) -> list[str]:
    """The header of a typed table, with a column for each of `keys` where it has one for every key."""
    nested = ([f"{c.prefix}{key}" for key in keys] if c.prefix else [name] for name, _, c in _columns(kind))
    return [name for names in nested for name in names]


def write_table(path: Path, kind: type, rows: Sequence[Any]) -> None:
    """Write a typed table atomically; without rows, only its header."""
    write_csv(path, [row_cells(row) for row in rows], columns=() if rows else column_names(kind))


def row_cells(row: Any) -> dict[str, Any]:
    """The cells of a row of a typed table by the names of their columns."""
    cells: dict[str, Any] = {}
    for name, _, about in _columns(row.__class__):
        value = getattr(row, name)
        if about.prefix:
            cells |= {f"{about.prefix}{key}": _written(inner, about.decimals) for key, inner in value.items()}
        else:
            cells[name] = _written(value, about.decimals)
    return cells


def _written(value: Any, decimals: int | None) -> Any:
    return value if value is None or decimals is None else f"{value:.{decimals}f}"


def read_table(path: Path, kind: type[Row], *, advice: str) -> list[Row]:
    """Read a typed table; columns that are not declared are ignored.

    Args:
        advice: what to do if it cannot be read, e.g. which script to run again.

    Raises:
        StorageError: it cannot be read, lacks a column or has an invalid value; names the line.
    """
    with reading(path, advice=advice), open_text(path) as file:
        lines = csv.reader(file)
        header = [plain(cell) for cell in next(lines, [])]
        fields = _fields(kind, header)
        return [kind(**_values(cells, fields, header, lines.line_num)) for cells in lines if cells]


def table_line(row: Any) -> bytes:
    """A row of a typed table that grows line by line."""
    return csv_line(row_cells(row).values()).encode()


def read_growing(path: Path, kind: type[Row], *, about: str) -> Iterator[Row]:
    """The rows of a typed table that grows line by line; none if there is no file yet.

    Damaged lines are left out, as the last ones may be after a power cut.

    Args:
        about: what the table is of, for the message.

    Raises:
        StorageError: the file is not such a table, or cannot be read.
    """
    header = column_names(kind)
    fields = _fields(kind, header)
    try:
        with open_text(path, errors="replace") as file:
            lines = csv.reader(line for line in file if line.endswith("\n"))  # the last may have been cut off
            if [plain(cell) for cell in next(lines, header)] != header:
                raise StorageError(f"{path} is not a table of {about}: move it away and run again")
            for cells in lines:
                with contextlib.suppress(ValueError):
                    yield kind(**_values(cells, fields, header, lines.line_num))
    except FileNotFoundError:
        return
    except csv.Error as error:
        raise StorageError(f"{path} is damaged ({error}): move it away and run again") from error
    except OSError as error:
        raise storage_error(error, path) from error


def _values(cells: Sequence[str], fields: Sequence["_Field"], header: Sequence[str], line: int) -> dict[str, Any]:
    """The values of a row by field; raises a ValueError that names the line."""
    if len(cells) != len(header):
        raise ValueError(f"line {line} has {len(cells)} cells instead of {len(header)}")
    values: dict[str, Any] = {}
    for name, key, position, parse in fields:
        try:
            value = parse(plain(cells[position]))
        except ValueError as error:
            raise ValueError(f"line {line}, column {header[position]}: {error}") from None
        if key is None:
            values[name] = value
        else:
            values.setdefault(name, {})[key] = value
    return values


class _Field(NamedTuple):
    """How to read one cell of every row: its field, its key if that is a mapping, its position, and its parser."""

    name: str
    key: str | None
    position: int
    parse: Callable[[str], Any]


def _fields(kind: type, header: Sequence[str]) -> list[_Field]:
    """How to read the cells under a header."""
    fields: list[_Field] = []
    with_default = {field.name for field in dataclasses.fields(kind) if field.default is not dataclasses.MISSING}
    for name, of_type, about in _columns(kind):
        if about.prefix:
            parse = _parser(get_args(of_type)[1])
            keys = {i: column for i, column in enumerate(header) if column.startswith(about.prefix)}
            fields += [_Field(name, column.removeprefix(about.prefix), i, parse) for i, column in keys.items()]
        elif name in header:
            fields.append(_Field(name, None, header.index(name), _parser(of_type)))
        elif name not in with_default:
            raise ValueError(f"line 1 has no column '{name}'")
    return fields


def _parser(of_type: Any) -> Callable[[str], Any]:
    """A function from a cell to a value of a type; it raises ValueError for any other cell."""
    if get_origin(of_type) in (Union, types.UnionType):
        inner = _parser(next(choice for choice in get_args(of_type) if choice is not type(None)))
        return lambda cell: inner(cell) if cell else None
    if of_type is bool or get_origin(of_type) is Literal:
        known = {str(value): value for value in ((False, True) if of_type is bool else get_args(of_type))}

        def choice(cell: str) -> Any:
            if cell not in known:
                raise ValueError(f"'{cell[:40]}' is not one of {', '.join(known)}")
            return known[cell]

        return choice
    parse: Callable[[str], Any] = of_type
    return parse
