"""What is known already of a folder's images: a file beside the table, by which a run that was stopped goes on.

Lines of JSON. The first says whose images and which model the others are about; each other is an image and its row,
added in one piece as soon as the service has answered, so that a process killed at any moment loses the images under
way and no others. Once the table is written only its SHA-256 stays: so a later run knows what it may replace.
"""

import contextlib
import csv
import errno
import glob
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from libraries.base.errors import InputError, StorageError
from libraries.base.file_system import TEMPORARY, storage_error
from libraries.base.storage import write_text

_BEGINNING, _END = ["path", "label", "probability"], ["error"]
_OF_LABEL = "probability of "


def header(labels: Sequence[str]) -> list[str]:
    """The first row of a table."""
    return [*_BEGINNING, *(_OF_LABEL + label for label in labels), *_END]


class Journal:
    """The rows of one table that are known; a context that closes its files.

    Attributes:
        path: of the journal.
    """

    def __init__(self, table: Path, *, folder: Path, model: str, labels: Sequence[str]) -> None:
        """Nothing is read or written yet.

        Args:
            table: the CSV file to be written.
            folder: whose images these are.
            model: name and version; what another has said counts no more.
        """
        self.path, self._table = table.with_name(f"{table.name}.journal"), table
        self._about = {"folder": os.fspath(folder), "model": model, "labels": list(labels)}
        self._cells = len(header(labels)) - 1
        self._places: dict[str, int] = {}  # path of an image → where its line begins
        self._tables: list[str] = []  # SHA-256 of tables that runs have written
        self._old: IO[bytes] | None = None
        self._new: IO[bytes] | None = None

    def __enter__(self) -> Self:
        """Read what an earlier run left, and remove the half table of one that was killed.

        Raises:
            InputError: the table is there, and is none that a run has written, or was changed since.
            StorageError: journal or table cannot be read.
        """
        self._read()
        self._check_table()
        for leftover in self._table.parent.glob(f"{TEMPORARY}*-{glob.escape(self._table.name[-80:])}"):
            with contextlib.suppress(OSError):
                leftover.unlink()
        try:
            self._old = self.path.open("rb") if self._places else None
        except OSError as error:
            raise _unreadable(self.path, error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for file in (self._old, self._new):
            if file is not None:
                file.close()

    def row(self, path: str, file: os.stat_result) -> list[str] | None:
        """The row of an image, but for its path; None if there is none, or if the file has changed since."""
        place = self._places.get(path)
        if place is None or self._old is None:
            return None
        self._old.seek(place)
        line = _parsed(self._old.readline())
        row = line.get("row")
        is_row = isinstance(row, list) and len(row) == self._cells and all(isinstance(cell, str) for cell in row)
        return row if is_row and line.get("file") == _state(file) else None

    def add(self, path: str, file: os.stat_result, row: Sequence[str]) -> None:
        """Remember the row of an image; `file` is what it was before it was sent.

        Raises:
            StorageError: it cannot be written.
        """
        self._append({"path": path, "file": _state(file), "row": list(row)})

    def will_write(self, digest: str) -> None:
        """Remember that the table is about to become one with this SHA-256."""
        self._tables.append(digest)
        self._append({"table": digest})

    def has_written(self) -> None:
        """The table is there: its rows need not be remembered any more."""
        self.__exit__(None, None, None)
        write_text(self.path, _line({"tables": self._tables[-1:]}))

    def _append(self, line: dict[str, Any]) -> None:
        try:
            if self._new is None:
                if not self._places:  # nothing is there about the same
                    write_text(self.path, _line({**self._about, "tables": self._tables}))
                self._new = self.path.open("ab", buffering=0)
                self._new.write(b"\n")  # a line that was being written when the process was killed ends here
            data = _line(line).encode()
            if self._new.write(data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise storage_error(error, self.path) from error

    def _read(self) -> None:
        """Find the lines of an earlier run about the same; of any other only which tables are ours."""
        try:
            with self.path.open("rb") as file:
                first = _parsed(file.readline())
                place, tables = file.tell(), first.get("tables")
                self._tables = [text for text in tables if isinstance(text, str)] if isinstance(tables, list) else []
                for data in file:
                    line = _parsed(data)
                    if isinstance(line.get("path"), str):
                        self._places[line["path"]] = place
                    elif isinstance(line.get("table"), str):
                        self._tables.append(line["table"])
                    place += len(data)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise _unreadable(self.path, error) from error
        if any(first.get(name) != value for name, value in self._about.items()):
            self._places.clear()

    def _check_table(self) -> None:
        """Raise InputError unless the table is missing, or one that a run has written."""
        try:
            with self._table.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise _unreadable(self._table, error) from error
        if digest not in self._tables and (self._tables or not self._is_of_an_earlier_version()):
            raise InputError(
                f"{self._table} was not written by this script, or was changed since: rename it, and run again"
            )

    def _is_of_an_earlier_version(self) -> bool:
        """Whether the table, of which no journal knows, looks like ours."""
        try:
            with self._table.open(encoding="utf-8", newline="") as file:
                columns = next(csv.reader(file), [])
        except (ValueError, csv.Error):
            return False
        labels = columns[len(_BEGINNING) : -len(_END)]
        return columns == [*_BEGINNING, *labels, *_END] and all(_OF_LABEL in column for column in labels)


def _unreadable(path: Path, error: OSError) -> StorageError:
    return StorageError(f"{path} cannot be read: {error.strerror}; move it away, and run again")


def _state(file: os.stat_result) -> list[int]:
    """By which a file is known to be unchanged."""
    return [file.st_size, file.st_mtime_ns]


def _line(content: dict[str, Any]) -> str:
    return json.dumps(content, separators=(",", ":")) + "\n"


def _parsed(line: bytes) -> dict[str, Any]:
    """The JSON object in a line; an empty one where the line is damaged."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
