"""CSV that holds no cell a spreadsheet would run, and comes back exactly as it was.

Strangers choose titles, file names and labels, and a spreadsheet takes a cell for a formula that begins with one of a
few characters (OWASP, 'CSV Injection'). Before such a text stands an apostrophe, which spreadsheets take for 'this is
text'; reading takes it away again. Tables of earlier versions, without apostrophes, are read as they are.
"""

import csv
import re
from collections.abc import Iterable, Iterator

# An apostrophe before the rest protects a formula, and one more what would be taken for a protected one. Spreadsheets
# pass over blanks and what is not seen; East Asian ones take wide signs for the narrow ones.
_BLANK = r"\s\x00-\x20\x7f-\xa0\u200b-\u200f\u2060\ufeff"
_RUN = re.compile(rf"'*(?:[\t\r\n]|[{_BLANK}]*[-=+@\uff0d\uff1d\uff0b\uff20])")
_QUOTED = re.compile('[,;\t"\r\n]')  # the separators of all countries' spreadsheets


def protected(text: str) -> str:
    """Text as a cell that no spreadsheet runs."""
    return f"'{text}" if _RUN.match(text) else text


def plain(cell: str) -> str:
    """The inverse of `protected`."""
    return cell[1:] if cell[:1] == "'" and _RUN.match(cell, 1) else cell


def csv_line(cells: Iterable[object]) -> str:
    """A line of CSV with its end. Texts are protected, numbers are not: -1.5 stays a number; None is an empty cell."""
    return ",".join(_cell(protected(cell) if isinstance(cell, str) else cell) for cell in cells) + "\n"


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    return '"' + text.replace('"', '""') + '"' if _QUOTED.search(text) else text


def csv_rows(lines: Iterable[str]) -> Iterator[list[str]]:
    """The rows of CSV, as `csv_line` was given them, as texts; csv.Error where it is none."""
    return ([plain(cell) for cell in row] for row in csv.reader(lines))


def csv_records(lines: Iterable[str]) -> Iterator[dict[str, str]]:
    """The rows of CSV by the header's names, blank lines passed over.

    Raises:
        ValueError: a row has more or fewer cells than the header.
    """
    rows = csv_rows(lines)
    names = next(rows, [])
    return (dict(zip(names, row, strict=True)) for row in rows if row)
