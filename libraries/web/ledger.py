"""What is to be downloaded and what became of it: on disk, so that memory is the same for any number of URLs.

The table of outcomes is a CSV file that grows line by line and outlives the process. What has to be looked up while it
grows lies in a temporary SQLite database, which is gone with the process.
"""

import contextlib
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

from libraries.base.errors import DownloadError, StorageError
from libraries.base.file_system import storage_error
from libraries.base.storage import atomic
from libraries.base.tables import csv_line
from libraries.web.addresses import parse
from libraries.web.outcomes import COLUMNS, Outcome, Pair, Status, as_line, read_outcomes
from libraries.web.schedule import Job

_PAIRS = """
CREATE TABLE pairs (
    id INTEGER PRIMARY KEY,  -- first those of the list, in its order, then those of other lists in the table
    label TEXT, url TEXT,
    target TEXT, host TEXT,  -- the spelling of the URL that stands for all equal ones
    due INTEGER,
    status TEXT, line BLOB,  -- of the latest outcome
    UNIQUE (label, url)
)
"""
_WANTED = "INSERT OR IGNORE INTO pairs VALUES (NULL, ?, ?, ?, ?, 1, NULL, NULL)"
_EARLIER = """
INSERT INTO pairs VALUES (NULL, ?, ?, NULL, NULL, 0, ?, ?)
ON CONFLICT (label, url) DO UPDATE SET status = excluded.status, line = excluded.line,
    due = target IS NOT NULL AND ?  -- those of other lists never are
"""
_OF_JOB = "SELECT label, url FROM pairs WHERE target = ? AND due ORDER BY id"
# The first URL of every host, then the second of every host, and so on: no host waits behind the many of another.
_JOBS = """
SELECT target, host FROM (
    SELECT target, host, first, ROW_NUMBER() OVER (PARTITION BY host ORDER BY first) AS turn
    FROM (SELECT target, host, MIN(id) AS first FROM pairs WHERE due GROUP BY target)
) ORDER BY turn, first
"""


class Ledger:
    """A list of pairs, each once, with the outcomes of this run and earlier ones. For one thread.

    Attributes:
        count: of different pairs in the list.
    """

    def __init__(self, path: Path, pairs: Iterable[Pair], *, is_due: Callable[[Outcome], bool]) -> None:
        """Read the list, and the table if there is one; a last line that was cut off in the middle is dropped.

        Args:
            path: of the table.
            pairs: the list. Nothing is written before it has been read to its end.
            is_due: whether a pair with this outcome is to be fetched again.

        Raises:
            StorageError: the file is not such a table, or cannot be written.
        """
        self.path = path
        self._store = sqlite3.connect("", isolation_level=None)  # a file of its own, under no name
        try:
            with _storing():
                self._store.execute("PRAGMA journal_mode=OFF")
                self._store.execute(_PAIRS)
                self._store.execute("BEGIN")
                self._store.executemany(_WANTED, map(_row, pairs))
                [(self.count,)] = self._store.execute("SELECT COUNT(*) FROM pairs")
                earlier = ((o.label, o.url, o.status, as_line(o), is_due(o)) for o in read_outcomes(path))
                self._store.executemany(_EARLIER, earlier)
                self._store.execute("COMMIT")
                self._store.execute("CREATE INDEX due_targets ON pairs (target) WHERE due")
            self._write()
            self._file: IO[bytes] = path.open("ab")
        except BaseException:
            self._store.close()
            raise

    def labels(self) -> list[str]:
        """The different labels of the list."""
        with _storing():
            rows = self._store.execute("SELECT DISTINCT label FROM pairs WHERE id <= ?", (self.count,))
            return [label for (label,) in rows]

    def counts(self) -> Counter[Status]:
        """How many pairs of the list are not due, by their status."""
        with _storing():
            rows = self._store.execute(
                "SELECT status, COUNT(*) FROM pairs WHERE id <= ? AND NOT due GROUP BY status", (self.count,)
            )
            return Counter(dict(rows))

    def count_jobs(self) -> int:
        """How many different URLs are due."""
        with _storing():
            return int(self._store.execute("SELECT COUNT(DISTINCT target) FROM pairs WHERE due").fetchone()[0])

    def jobs(self) -> Iterator[Job]:
        """One job for each different URL that is due, the hosts in turn."""
        with _storing():
            for target, host in self._store.execute(_JOBS):
                yield Job(target, host, self._store.execute(_OF_JOB, (target,)).fetchall())

    def add(self, outcomes: Sequence[Outcome]) -> None:
        """Append outcomes, on disk once this returns; each takes the place of an earlier one of the same pair."""
        lines = [as_line(outcome) for outcome in outcomes]
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
        """Write the table anew: one line for each pair, first those of the list in its order, then the others."""
        self._close_file()
        self._write()

    def close(self) -> None:
        """Close the table, which is complete as it is."""
        self._close_file()
        self._store.close()

    def _close_file(self) -> None:
        with contextlib.suppress(OSError):  # after a failed `add`, whose error says it all
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
    except DownloadError:  # will be raised again, and recorded, when its turn comes
        return label, url, url, ""


@contextlib.contextmanager
def _storing() -> Iterator[None]:
    """Say in the project's terms what SQLite cannot do."""
    try:
        yield
    except sqlite3.Error as error:
        raise StorageError(
            f"the list of downloads could not be kept in a temporary file in {tempfile.gettempdir()} ({error}): "
            "free some space there and run again"
        ) from error
