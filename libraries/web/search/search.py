"""Queries → images found, each query asked once, and each image for one label."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from libraries.base.errors import SearchError
from libraries.web.search.files import Row, Search, SearchLog, write_results
from libraries.web.search.names import LicenceFilter
from libraries.web.search.providers import Provider, first
from libraries.web.search.queries import Queries, Query
from libraries.web.search.results import Found

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
