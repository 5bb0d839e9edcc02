"""Queries → images found, each query asked once, and each image for one label."""

import contextlib
import csv
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from libraries.base.errors import InputError, SearchError, StorageError
from libraries.base.file_system import storage_error
from libraries.base.storage import write_text
from libraries.base.tables import csv_line, csv_rows, protected
from libraries.web.download.outcomes import Pair
from libraries.web.download.url_list import read_url_list
from libraries.web.search.names import LicenceFilter
from libraries.web.search.providers import Provider, first
from libraries.web.search.queries import Queries, Query
from libraries.web.search.results import Found

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
class Search:
    """What identifies a search: equal ones find the same.

    Attributes:
        provider: its name.
        url: where it was asked, if not at its own address.
        query: the words.
        count: how many images were wanted.
        licence: the filter.
    """

    provider: str
    url: str | None
    query: str
    count: int
    licence: str


class SearchLog:
    """Finished searches with what they found, a JSON object per line; those of earlier runs included.

    A search is on disk once `add` returns, and survives the death of the process. One process at a time.
    """

    def __init__(self, path: Path) -> None:
        """Read the file, if there is one; damaged lines, as the last may be after a power cut, are dropped.

        Raises:
            StorageError: it cannot be read or written.
        """
        self._path = path
        lines = _lines(path)
        searches = {line: entry for line in lines if (entry := _entry(line)) is not None}
        if len(searches) < len(lines):
            write_text(path, "".join(f"{line}\n" for line in searches))
        self._found = dict(searches.values())

    def get(self, search: Search) -> list[Found] | None:
        """What a search found; None if it was never finished."""
        return self._found.get(search)

    def add(self, search: Search, found: Sequence[Found]) -> None:
        """A search is finished.

        Raises:
            StorageError: it cannot be written: the disk is full, say.
        """
        line = json.dumps({**asdict(search), "found": [asdict(image) for image in found]}, ensure_ascii=False)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8", newline="\n") as file:
                file.write(f"{line}\n")
        except OSError as error:
            raise storage_error(error, self._path) from error
        self._found[search] = list(found)


def _lines(path: Path) -> list[str]:
    """The lines of a file; one that has no end is none that `_entry` understands."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise storage_error(error, path) from error
    *whole, rest = text.split("\n")  # not splitlines(), which also breaks at characters that titles may hold
    return [*whole, f"{rest}…"] if rest else whole


def _entry(line: str) -> tuple[Search, list[Found]] | None:
    with contextlib.suppress(ValueError, TypeError, AttributeError, KeyError):
        values = json.loads(line)
        found = [Found(**image) for image in values.pop("found")]
        return Search(**values), found
    return None


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


LOG = "searches.jsonl"
URLS = "search.tsv"
TABLE = "search.csv"


@dataclass(frozen=True)
class Results:
    """What the queries of a data set have found.

    Attributes:
        rows: in the order of the queries; each URL once.
        searched: the queries.
        elsewhere: images that another label's query found too; they are in `rows` under the first label alone.
    """

    rows: list[Row]
    searched: list[Query]
    elsewhere: int

    def per_label(self) -> list[tuple[str, int, int]]:
        """Label, queries, images."""
        queries = Counter(query.label for query in self.searched)
        images = Counter(row.label for row in self.rows)
        return [(label, count, images[label]) for label, count in queries.items()]


def search(
    queries: Queries,
    provider: Provider,
    *,
    folder: Path,
    licence: LicenceFilter = "any",
    url: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> Results:
    """Ask all queries that are not finished yet, and write what they and the finished ones have found.

    Args:
        queries: what to ask for.
        provider: whom to ask.
        folder: proc/<dataset>, for the log of finished searches, the list of URLs and the table.
        licence: what the images' licences have to permit.
        url: where the provider is asked, if not at its own address; it is part of what makes searches equal.
        progress: called with the number of queries that are finished.

    Raises:
        SearchError: the provider ends the search. What was found until then is in the files and good to use; the next
            run goes on from there.
        StorageError: the disk is full, or a file cannot be written.
    """
    log = SearchLog(folder / LOG)
    results: dict[Query, list[Found]] = {}
    try:
        for query in queries.queries:
            if progress is not None:
                progress(len(results))
            wanted = Search(provider.name, url, query.text, queries.images, licence)
            found = log.get(wanted)
            if found is None:
                found = first(provider, query.text, count=queries.images, licence=licence)
                log.add(wanted, found)
            results[query] = found
    except SearchError as error:
        if results:
            _write(results, folder)
        where = f"at {query.text!r}; {len(results)} of {len(queries.queries)} queries are finished and kept"
        raise SearchError(f"{error} ({where})") from None
    return _write(results, folder)


def _write(results: dict[Query, list[Found]], folder: Path) -> Results:
    rows: dict[str, Row] = {}
    elsewhere: set[str] = set()
    for query, found in results.items():
        for image in found:
            if rows.setdefault(image.url, Row(query.label, query.text, image)).label != query.label:
                elsewhere.add(image.url)
    write_results(list(rows.values()), urls=folder / URLS, table=folder / TABLE)
    return Results(list(rows.values()), list(results), len(elsewhere))
