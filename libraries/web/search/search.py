"""Queries → found images: each query is sent once, and each image belongs to one label.

The results are files: a log of finished searches, so that none is repeated; a list to download from; and a table that
says who made each image and under which licence.
"""

import contextlib
import csv
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from libraries.base.errors import InputError, SearchError, StorageError
from libraries.base.file_system import open_text, storage_error
from libraries.base.storage import write_text
from libraries.base.tables import Column, column_names, csv_line, csv_rows, protected, row_cells
from libraries.web.download.outcomes import Pair
from libraries.web.download.url_list import read_url_list
from libraries.web.search.names import LicenceFilter
from libraries.web.search.providers import Provider, first_images
from libraries.web.search.queries import Queries, Query
from libraries.web.search.results import FoundImage

LOG = "searches.jsonl"
URLS = "search.tsv"
TABLE = "search.csv"


@dataclass(frozen=True)
class SearchRow:
    """A row of search.csv: an image with its label. What the service does not report is empty."""

    label: Annotated[str, Column("of the query that found it first")]
    query: Annotated[str, Column("the words that found it first")]
    url: Annotated[str, Column("of the image file")]
    licence: Annotated[str, Column("its name, such as CC BY-SA 4.0")]
    licence_url: Annotated[str, Column("where its text is")]
    creator: Annotated[str, Column("who is to be named")]
    title: Annotated[str, Column("of the image")]
    page: Annotated[str, Column("the web page about the image")]
    attribution: Annotated[str, Column("the sentence that the service proposes")]
    provider: Annotated[str, Column("name of the service")]
    rank: Annotated[int, Column("position among the images for the query, from 1")]
    width: Annotated[int | None, Column("of the original [pixels]")]
    height: Annotated[int | None, Column("of the original [pixels]")]

    @classmethod
    def of(cls, label: str, query: str, found: FoundImage) -> Self:
        """The row of an image that a query has found."""
        return cls(label, query, **vars(found))

    @property
    def pair(self) -> Pair:
        """The label and URL, which identify the row."""
        return self.label, self.url


COLUMNS = tuple(column_names(SearchRow))


@dataclass(frozen=True)
class SearchResults:
    """The results of all queries of a data set.

    Attributes:
        rows: in the order of the queries; each URL once.
        searched: the queries.
        elsewhere: number of images that another label's query found too; in `rows` they have only the first label.
    """

    rows: list[SearchRow]
    searched: list[Query]
    elsewhere: int

    def per_label(self) -> list[tuple[str, int, int]]:
        """Each label with its numbers of queries and images."""
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
) -> SearchResults:
    """Send all queries that are not finished yet, and write the results of all.

    Args:
        queries: to send.
        provider: to search with.
        folder: proc/<dataset>, for the log of finished searches, the list of URLs and the table.
        licence: what the images' licences must permit.
        url: of the provider, if not its own; searches at different URLs count as different.
        progress: called with the number of finished queries.

    Raises:
        SearchError: the provider fails. The results so far are written and usable; the next run continues from there.
        StorageError: the disk is full, or a file cannot be written.
    """
    log = SearchLog(folder / LOG)
    results: dict[Query, list[FoundImage]] = {}
    try:
        for query in queries.queries:
            if progress is not None:
                progress(len(results))
            key = SearchKey(provider.name, url, query.text, queries.images, licence)
            if (found := log.get(key)) is None:
                found = first_images(provider, query.text, count=queries.images, licence=licence)
                log.add(key, found)
            results[query] = found
    except SearchError as error:
        if results:
            _write(results, folder)
        where = f"at {query.text!r}; {len(results)} of {len(queries.queries)} queries are finished and kept"
        raise SearchError(f"{error} ({where})") from None
    return _write(results, folder)


def _write(results: dict[Query, list[FoundImage]], folder: Path) -> SearchResults:
    rows: dict[str, SearchRow] = {}
    elsewhere: set[str] = set()
    for query, found in results.items():
        for image in found:
            if rows.setdefault(image.url, SearchRow.of(query.label, query.text, image)).label != query.label:
                elsewhere.add(image.url)
    write_results(list(rows.values()), urls=folder / URLS, table=folder / TABLE)
    return SearchResults(list(rows.values()), list(results), len(elsewhere))


@dataclass(frozen=True)
class SearchKey:
    """What identifies a search: equal keys have equal results.

    Attributes:
        provider: its name.
        url: of the provider, if not its own.
        query: the words.
        count: number of images wanted.
        licence: the filter.
    """

    provider: str
    url: str | None
    query: str
    count: int
    licence: str


class SearchLog:
    """Finished searches of this and earlier runs with their results, one JSON object per line.

    Once `add` returns, a search survives the end of the process. For one process at a time.
    """

    def __init__(self, path: Path) -> None:
        """Read the file, if there is one; damaged lines, such as the last one after a power cut, are dropped.

        Raises:
            StorageError: it cannot be read or written.
        """
        self._path = path
        lines = _lines(path)
        searches = {line: entry for line in lines if (entry := _entry(line)) is not None}
        if len(searches) < len(lines):
            write_text(path, "".join(f"{line}\n" for line in searches))
        self._found = dict(searches.values())

    def get(self, search: SearchKey) -> list[FoundImage] | None:
        """The results of a search; None if it was never finished."""
        return self._found.get(search)

    def add(self, search: SearchKey, found: Sequence[FoundImage]) -> None:
        """Add a finished search.

        Raises:
            StorageError: it cannot be written, for example because the disk is full.
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
    """The lines of a file; one without a line end is changed so that `_entry` rejects it."""
    try:
        with open_text(path, errors="replace") as file:
            text = file.read()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise storage_error(error, path) from error
    *whole, rest = text.split("\n")  # splitlines() would also split at characters that titles may contain
    return [*whole, f"{rest}…"] if rest else whole


def _entry(line: str) -> tuple[SearchKey, list[FoundImage]] | None:
    with contextlib.suppress(ValueError, TypeError, AttributeError, KeyError):
        values = json.loads(line)
        found = [FoundImage(**image) for image in values.pop("found")]
        return SearchKey(**values), found
    return None


def write_results(rows: Sequence[SearchRow], *, urls: Path, table: Path) -> None:
    """Write the list `urls` (label<TAB>url) and the table `table`.

    Rows of an earlier table are kept, after the new ones, so that creators of images downloaded before are still named.

    Raises:
        StorageError: a file cannot be written, the existing table is not one of ours, or the existing list has URLs
            that are not in it.
    """
    new = {row.pair for row in rows}
    before = read_results(table)
    _check_ours(urls, {row.pair for row in before})
    earlier = [row for row in before if row.pair not in new]
    write_text(table, _csv([*rows, *earlier]))
    write_text(urls, "".join(f"{protected(row.label)}\t{row.url}\n" for row in rows))


def read_results(path: Path) -> list[SearchRow]:
    """The rows of a table; none if there is no table yet.

    Raises:
        StorageError: the file is not such a table.
    """
    try:
        with open_text(path) as file:
            rows = csv_rows(file)
            if tuple(next(rows, ())) != COLUMNS:
                raise _foreign(path)
            return [_row(dict(zip(COLUMNS, row, strict=True))) for row in rows]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise storage_error(error, path) from error
    except (ValueError, TypeError, csv.Error):  # an invalid number, or a line that is too short
        raise _foreign(path) from None


def _check_ours(urls: Path, known: Collection[Pair]) -> None:
    """Raise StorageError if the existing list has pairs other than the known ones."""
    try:
        ours = not urls.exists() or set(read_url_list(urls)) <= set(known)
    except InputError:
        ours = urls.is_file() and not urls.stat().st_size  # an empty list: nothing was found
    if not ours:
        raise StorageError(f"{urls} was not written by this script, or was changed since: move it away and run again")


def _foreign(path: Path) -> StorageError:
    return StorageError(
        f"{path} is not a table of images found by a search: move it away and run scripts/0_downloadData.py again"
    )


def _csv(rows: Iterable[SearchRow]) -> str:
    return csv_line(COLUMNS) + "".join(csv_line(row_cells(row).values()) for row in rows)


def _row(values: dict[str, Any]) -> SearchRow:
    width, height = (int(values[side]) if values[side] else None for side in ("width", "height"))
    return SearchRow(**{**values, "rank": int(values["rank"]), "width": width, "height": height})
