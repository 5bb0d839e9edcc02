"""The URLs to download and their outcomes: on disk, so that any number of URLs takes the same memory.

The table of outcomes, proc/<dataset>/downloads.csv, grows line by line and survives the process. What has to be looked
up meanwhile is in a temporary SQLite database, which disappears with the process.
"""

import contextlib
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Annotated, Literal

from libraries.base.errors import DownloadError, StorageError
from libraries.base.file_system import storage_error
from libraries.base.storage import atomic
from libraries.base.tables import Column, column_names, csv_line, read_growing, table_line
from libraries.data.class_folders import check_label
from libraries.web.addresses import parse

Pair = tuple[str, str]  # label, URL
Status = Literal["ok", "failed", "passing"]

_PAIRS = """
CREATE TABLE pairs (
    id INTEGER PRIMARY KEY,  -- first the pairs of the list, in its order, then those of other lists in the table
    label TEXT, url TEXT,
    target TEXT, host TEXT,  -- the normalized URL, the same for all spellings
    due INTEGER,
    status TEXT, line BLOB,  -- of the latest outcome
    UNIQUE (label, url)
)
"""
_WANTED = "INSERT OR IGNORE INTO pairs VALUES (NULL, ?, ?, ?, ?, 1, NULL, NULL)"
_EARLIER = """
INSERT INTO pairs VALUES (NULL, ?, ?, NULL, NULL, 0, ?, ?)
ON CONFLICT (label, url) DO UPDATE SET status = excluded.status, line = excluded.line,
    due = target IS NOT NULL AND ?  -- pairs of other lists are never due
"""
_OF_JOB = "SELECT label, url FROM pairs WHERE target = ? AND due ORDER BY id"
# The first URL of every host, then the second of every host, and so on: no host waits behind many URLs of another.
_JOBS = """
SELECT target, host FROM (
    SELECT target, host, first, ROW_NUMBER() OVER (PARTITION BY host ORDER BY first) AS turn
    FROM (SELECT target, host, MIN(id) AS first FROM pairs WHERE due GROUP BY target)
) ORDER BY turn, first
"""


@dataclass(frozen=True)
class UrlOutcome:
    """The outcome of one URL under one label: a row of downloads.csv."""

    label: Annotated[str, Column("as given")]
    url: Annotated[str, Column("as given")]
    status: Annotated[Status, Column("ok; failed for good; or passing: failed, to be tried again by the next run")]
    reason: Annotated[str, Column("downloaded, or why not, in one of a few fixed phrases")]
    file: Annotated[str, Column("path of the image, relative to the folder of the data set")] = ""
    http_status: Annotated[int | None, Column("of the last response")] = None
    bytes: Annotated[int | None, Column("size of the file")] = None
    width: Annotated[int | None, Column("of the upright picture in the file [pixels]")] = None
    height: Annotated[int | None, Column("of the upright picture in the file [pixels]")] = None
    seconds: Annotated[float, Column("that all tries took, without the waits between them")] = 0.0
    detail: Annotated[str, Column("what exactly went wrong")] = ""

    @property
    def pair(self) -> Pair:
        """The label and URL, which identify the outcome."""
        return self.label, self.url


COLUMNS = tuple(column_names(UrlOutcome))


def summary(outcomes: Iterable[UrlOutcome]) -> dict[str, int]:
    """The number of outcomes per reason: 'downloaded' first, then the most frequent ones."""
    counts = Counter(outcome.reason for outcome in outcomes)
    return dict(sorted(counts.items(), key=lambda item: (item[0] != "downloaded", -item[1], item[0])))


def read_outcomes(path: Path) -> Iterator[UrlOutcome]:
    """The outcomes in a table, later ones of a pair after earlier ones; see `read_growing`."""
    return read_growing(path, UrlOutcome, about="downloads")


@dataclass(eq=False, slots=True)
class Job:
    """A URL to fetch.

    Attributes:
        url: normalized.
        host: of the URL.
        pairs: (label, URL as given) that the image is for.
        tries: number of tries so far.
        seconds: that the tries took.
    """

    url: str
    host: str
    pairs: list[tuple[str, str]] = field(default_factory=list)
    tries: int = 0
    seconds: float = 0.0

    @property
    def labels(self) -> list[str]:
        """The distinct folders that the image is for."""
        return list(dict.fromkeys(check_label(label) for label, _ in self.pairs))


class Ledger:
    """A list of distinct pairs, with the outcomes of this run and earlier ones. Not thread-safe.

    Attributes:
        count: number of distinct pairs in the list.
    """

    def __init__(self, path: Path, pairs: Iterable[Pair], *, is_due: Callable[[UrlOutcome], bool]) -> None:
        """Read the list, and the table if there is one; an incomplete last line is dropped.

        Args:
            path: of the table.
            pairs: the list. Nothing is written before it has been read to its end.
            is_due: whether a pair with this outcome is to be fetched again.

        Raises:
            StorageError: the file is not such a table, or cannot be written.
        """
        self.path = path
        self._store = sqlite3.connect("", isolation_level=None)  # a temporary file without a name
        try:
            with _storing():
                self._store.execute("PRAGMA journal_mode=OFF")
                self._store.execute(_PAIRS)
                self._store.execute("BEGIN")
                self._store.executemany(_WANTED, map(_row, pairs))
                [(self.count,)] = self._store.execute("SELECT COUNT(*) FROM pairs")
                earlier = ((o.label, o.url, o.status, table_line(o), is_due(o)) for o in read_outcomes(path))
                self._store.executemany(_EARLIER, earlier)
                self._store.execute("COMMIT")
                self._store.execute("CREATE INDEX due_targets ON pairs (target) WHERE due")
            self._write()
            self._file: IO[bytes] = path.open("ab")
        except BaseException:
            self._store.close()
            raise

    def labels(self) -> list[str]:
        """The distinct labels of the list."""
        with _storing():
            rows = self._store.execute("SELECT DISTINCT label FROM pairs WHERE id <= ?", (self.count,))
            return [label for (label,) in rows]

    def counts(self) -> Counter[Status]:
        """The number of pairs of the list that are not due, per status."""
        with _storing():
            rows = self._store.execute(
                "SELECT status, COUNT(*) FROM pairs WHERE id <= ? AND NOT due GROUP BY status", (self.count,)
            )
            return Counter(dict(rows))

    def count_jobs(self) -> int:
        """The number of distinct URLs that are due."""
        with _storing():
            return int(self._store.execute("SELECT COUNT(DISTINCT target) FROM pairs WHERE due").fetchone()[0])

    def jobs(self) -> Iterator[Job]:
        """One job per distinct URL that is due, the hosts in turn."""
        with _storing():
            for target, host in self._store.execute(_JOBS):
                yield Job(target, host, self._store.execute(_OF_JOB, (target,)).fetchall())

    def add(self, outcomes: Sequence[UrlOutcome]) -> None:
        """Append outcomes to the file; each replaces an earlier one of the same pair."""
        lines = [table_line(outcome) for outcome in outcomes]
        try:
            self._file.write(b"".join(lines))
            self._file.flush()
        except OSError as error:
            raise storage_error(error, self.path) from error
        with _storing():
            self._store.executemany(
                "UPDATE pairs SET status = ?, line = ?, due = 0 WHERE label = ? AND url = ?",
                ((o.status, line, o.label, o.url) for o, line in zip(outcomes, lines, strict=True)),
            )

    def finish(self) -> None:
        """Rewrite the table: one line per pair, first those of the list in its order, then the others."""
        self._close_file()
        self._write()

    def close(self) -> None:
        """Close the table, which is valid at any time."""
        self._close_file()
        self._store.close()

    def _close_file(self) -> None:
        with contextlib.suppress(OSError):  # after a failed `add`, which has raised an error already
            self._file.close()

    def _write(self) -> None:
        with atomic(self.path) as file, _storing():
            file.write(csv_line(COLUMNS).encode())
            rows = self._store.execute("SELECT line FROM pairs WHERE line IS NOT NULL ORDER BY id")
            file.writelines(line for (line,) in rows)


def _row(pair: Pair) -> tuple[str, str, str, str]:
    label, url = pair
    try:
        target = parse(url)
        return label, url, target.url, target.host
    except DownloadError:  # raised again, and recorded, when the URL is fetched
        return label, url, url, ""


@contextlib.contextmanager
def _storing() -> Iterator[None]:
    """Raise errors of SQLite as StorageError."""
    try:
        yield
    except sqlite3.Error as error:
        raise StorageError(
            f"the list of downloads could not be written to a temporary file in {tempfile.gettempdir()} ({error}): "
            "free some space there and run again"
        ) from error
