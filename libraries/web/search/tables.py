"""What was found, as files: a list to download from, and a table that says whose each image is."""

import csv
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from libraries.base.errors import InputError, StorageError
from libraries.base.file_system import storage_error
from libraries.base.storage import write_text
from libraries.base.tables import csv_line, csv_rows, protected
from libraries.web.outcomes import Pair
from libraries.web.search.found import Found
from libraries.web.urllist import read_url_list

COLUMNS = (
    "label",
    "query",
    "url",
    "licence",
    "licence_url",
    "creator",
    "title",
    "page",
    "attribution",
    "provider",
    "rank",
    "width",
    "height",
)


@dataclass(frozen=True)
class Row:
    """A line of the table: an image, the query that found it first, and the label that it is for."""

    label: str
    query: str
    found: Found

    @property
    def pair(self) -> Pair:
        """What identifies it."""
        return self.label, self.found.url


def write_results(rows: Sequence[Row], *, urls: Path, table: Path) -> None:
    """Write the list `urls` (label<TAB>url) and the table `table`.

    Rows of an earlier table stay, after the new ones: images that were downloaded from it still have creators to name.

    Raises:
        StorageError: a file cannot be written, the earlier table is none, or the earlier list holds what is not in it.
    """
    new = {row.pair for row in rows}
    before = read_table(table)
    _check_ours(urls, {row.pair for row in before})
    earlier = [row for row in before if row.pair not in new]
    write_text(table, _csv([*rows, *earlier]))
    write_text(urls, "".join(f"{protected(row.label)}\t{row.found.url}\n" for row in rows))


def read_table(path: Path) -> list[Row]:
    """The rows of a table; none where there is no table yet.

    Raises:
        StorageError: the file is not such a table.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv_rows(file)
            if tuple(next(rows, ())) != COLUMNS:
                raise _foreign(path)
            return [_row(dict(zip(COLUMNS, row, strict=True))) for row in rows]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise storage_error(error, path) from error
    except (ValueError, TypeError, csv.Error):  # a number that is none, a line that is too short
        raise _foreign(path) from None


def _check_ours(urls: Path, known: Collection[Pair]) -> None:
    """Raise StorageError if there is a list already that is not, or not only, of what was found earlier."""
    try:
        ours = not urls.exists() or set(read_url_list(urls)) <= set(known)
    except InputError:
        ours = not urls.read_bytes()  # nothing was found
    if not ours:
        raise StorageError(f"{urls} was not written by this script, or was changed since: move it away and run again")


def _foreign(path: Path) -> StorageError:
    return StorageError(f"{path} is not a table of images found: move it away and run scripts/0_downloadData.py again")


def _csv(rows: Iterable[Row]) -> str:
    cells = ({**vars(row.found), "label": row.label, "query": row.query} for row in rows)
    return csv_line(COLUMNS) + "".join(csv_line(values[column] for column in COLUMNS) for values in cells)


def _row(values: dict[str, Any]) -> Row:
    label, query = values.pop("label"), values.pop("query")
    width, height = (int(values[side]) if values[side] else None for side in ("width", "height"))
    return Row(label, query, Found(**{**values, "rank": int(values["rank"]), "width": width, "height": height}))
