"""Which objects there are, and what became of them: on disk, so that any number of them takes the same memory.

The table, proc/<dataset>/stored_images.csv, grows line by line and survives the process. What has to be looked up
meanwhile is in a temporary SQLite database, which disappears with the process.
"""

import contextlib
import sqlite3
import tempfile
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, Literal, NamedTuple

from libraries.base.errors import StorageError
from libraries.base.file_system import storage_error
from libraries.base.storage import atomic
from libraries.base.tables import Column, column_names, csv_line, read_growing, table_line
from libraries.web.store.listing import StoredObject, folded

Status = Literal["copying", "copied", "there", "kept", "other"]
_AT_ONCE = 1000  # objects in memory
_TABLES = """
CREATE TABLE objects (path TEXT PRIMARY KEY, folded TEXT UNIQUE, size INTEGER, version TEXT) WITHOUT ROWID;
CREATE TABLE outcomes (
    path TEXT PRIMARY KEY, status TEXT, size INTEGER, version TEXT, sha256 TEXT, kind TEXT
) WITHOUT ROWID;
CREATE TABLE elsewhere (url TEXT, path TEXT, line BLOB, PRIMARY KEY (url, path)) WITHOUT ROWID;
"""
_NEXT = """
SELECT o.path, o.size, o.version, e.path, e.status, e.size, e.version, e.sha256, e.kind
FROM objects AS o LEFT JOIN outcomes AS e USING (path) WHERE o.path > ? ORDER BY o.path LIMIT ?
"""
_GONE = "SELECT COUNT(*) FROM outcomes WHERE status = 'copied' AND path NOT IN (SELECT path FROM objects)"


@dataclass(frozen=True)
class StoredImage:
    """What became of one object: a row of stored_images.csv."""

    url: Annotated[str, Column("the folder in the store, as given")]
    path: Annotated[str, Column("of the object below that folder, and of its copy below the folder of the data set")]
    status: Annotated[
        Status,
        Column(
            "copied; copying, when the run was stopped; there: the same file was there before; kept: another file was "
            "there, and stays; or other: not an image by its content"
        ),
    ]
    size: Annotated[int, Column("of the object [bytes]")]
    version: Annotated[str, Column("what changes with its content: its ETag, checksum or time")]
    sha256: Annotated[
        str,
        Column("SHA-256 of the file that was copied, or was there; while copying, then that of the file it replaces"),
    ] = ""
    kind: Annotated[str, Column("what it is, if it is not an image")] = ""


COLUMNS = tuple(column_names(StoredImage))


class Known(NamedTuple):
    """An object that is in the store, and what became of it in the latest run that did something about it."""

    object: StoredObject
    earlier: StoredImage | None

    @property
    def is_unchanged(self) -> bool:
        """Whether it is what it was then."""
        then, now = self.earlier, self.object
        return then is not None and (then.size, then.version) == (now.size, now.version)


class Record:
    """The objects of one folder in a store, and what became of them in this run and earlier ones.

    Not thread-safe, except for `announce`.

    Attributes:
        url: the folder in the store.
    """

    def __init__(self, path: Path, url: str) -> None:
        """Read the table, if there is one; an incomplete last line is dropped.

        Raises:
            StorageError: the file is not such a table, or cannot be written.
        """
        self.path, self.url = path, url
        self._appending = threading.Lock()
        self._store = sqlite3.connect("", isolation_level=None)  # a temporary file without a name
        try:
            with _storing():
                self._store.execute("PRAGMA journal_mode=OFF")
                self._store.executescript(_TABLES)
                self._store.execute("BEGIN")
                for row in read_growing(path, StoredImage, about="images from a store"):
                    self._take(row)
                self._store.execute("COMMIT")
            self._write()
            self._file: IO[bytes] = path.open("ab")
        except BaseException:
            self._store.close()
            raise

    def list_objects(self, objects: Iterable[StoredObject]) -> Iterator[tuple[StoredObject, str]]:
        """Take up all objects of the store; yields each whose path is one with that of another, and that path.

        Such paths are equal except for case or their form of Unicode: on some systems, one would replace the other.
        """
        with _storing():
            self._store.execute("BEGIN")
        for each in objects:
            with _storing():
                values = (each.path, folded(each.path), each.size, each.version)
                done = self._store.execute("INSERT OR IGNORE INTO objects VALUES (?, ?, ?, ?)", values)
                other = None
                if not done.rowcount:
                    (other,) = self._store.execute("SELECT path FROM objects WHERE folded = ?", (values[1],)).fetchone()
            if other is not None and other != each.path:
                yield each, other
        with _storing():
            self._store.execute("COMMIT")

    def count(self) -> int:
        """The number of objects."""
        with _storing():
            return int(self._store.execute("SELECT COUNT(*) FROM objects").fetchone()[0])

    def count_gone(self) -> int:
        """The number of objects that were copied once, and are not in the store any more."""
        with _storing():
            return int(self._store.execute(_GONE).fetchone()[0])

    def known(self) -> Iterator[Known]:
        """All objects, by path; outcomes may be added meanwhile."""
        last = ""
        while True:
            with _storing():
                rows = self._store.execute(_NEXT, (last, _AT_ONCE)).fetchall()
            if not rows:
                return
            for path, size, version, *then in rows:
                earlier = None if then[0] is None else StoredImage(self.url, *then)
                yield Known(StoredObject(path, size, version), earlier)
            last = rows[-1][0]

    def add(self, outcomes: Iterable[StoredImage]) -> None:
        """Append outcomes to the file; each replaces an earlier one of the same object."""
        rows = list(outcomes)
        self._append(rows)
        with _storing():
            for row in rows:
                self._take(row)

    def announce(self, about: StoredObject, sha256: str) -> None:
        """Append to the file that an object is about to be copied: if it comes no further, the file is known as ours.

        Raises:
            StorageError: the file cannot be written.
        """
        self._append([StoredImage(self.url, about.path, "copying", about.size, about.version, sha256)])

    def _append(self, rows: Iterable[StoredImage]) -> None:
        try:
            with self._appending:
                self._file.write(b"".join(map(table_line, rows)))
                self._file.flush()
        except OSError as error:
            raise storage_error(error, self.path) from error

    def finish(self) -> None:
        """Rewrite the table: one line per object."""
        self._close_file()
        self._write()

    def close(self) -> None:
        """Close the table, which is valid at any time."""
        self._close_file()
        self._store.close()

    def _take(self, row: StoredImage) -> None:
        if row.url == self.url:
            values: tuple[object, ...] = (row.path, row.status, row.size, row.version, row.sha256, row.kind)
            self._store.execute("INSERT OR REPLACE INTO outcomes VALUES (?, ?, ?, ?, ?, ?)", values)
        else:
            self._store.execute(
                "INSERT OR REPLACE INTO elsewhere VALUES (?, ?, ?)", (row.url, row.path, table_line(row))
            )

    def _close_file(self) -> None:
        with contextlib.suppress(OSError):  # after a failed `add`, which has raised an error already
            self._file.close()

    def _write(self) -> None:
        with atomic(self.path) as file, _storing():
            file.write(csv_line(COLUMNS).encode())
            file.writelines(line for (line,) in self._store.execute("SELECT line FROM elsewhere ORDER BY url, path"))
            rows = self._store.execute("SELECT * FROM outcomes ORDER BY path")
            file.writelines(table_line(StoredImage(self.url, *row)) for row in rows)


@contextlib.contextmanager
def _storing() -> Iterator[None]:
    """Raise errors of SQLite as StorageError."""
    try:
        yield
    except sqlite3.Error as error:
        raise StorageError(
            f"the list of objects could not be written to a temporary file in {tempfile.gettempdir()} ({error}): "
            "free some space there and run again"
        ) from error
