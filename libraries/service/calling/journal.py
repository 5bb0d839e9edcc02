"""The journal of a folder's results: a file beside the table, from which a run continues after it was stopped.

It holds lines of JSON. The first line names the folder and the model; each other line is an image with its row, written
at once when the service has answered, so that a process killed at any moment loses only the images in progress. Once
the table is written, only its SHA-256 stays, from which a later run knows that it may replace the table.
"""

import contextlib
import csv
import errno
import glob
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Annotated, Any, Literal, Self

from libraries.base.errors import InputError, StorageError
from libraries.base.file_system import TEMPORARY, open_regular, open_text, storage_error
from libraries.base.storage import write_text
from libraries.base.tables import Column, column_names

_OF_LABEL = "probability of "


@dataclass(frozen=True)
class ClassifiedRow:
    """A row of predictions/<folder>.csv: an image that was sent to a service."""

    path: Annotated[str, Column("path of the image, relative to the folder")]
    label: Annotated[str, Column("most probable class, or the one that costs least")]
    probability: Annotated[float | None, Column("its probability", decimals=6)]
    unknown: Annotated[Literal["true", "false"] | None, Column("whether it is like none of the classes")]
    set: Annotated[str | None, Column("likely labels, joined by |, of which one is true as often as promised")]
    ask: Annotated[Literal["true", "false"] | None, Column("whether asking a person costs less")]
    probabilities: Annotated[Mapping[str, float | None], Column("that of every class", prefix=_OF_LABEL, decimals=6)]
    error: Annotated[str, Column("why it could not be classified")]


class Journal:
    """The known rows of one table; a context manager that closes its files.

    Attributes:
        path: of the journal.
    """

    def __init__(self, table: Path, *, folder: Path, model: str, labels: Sequence[str]) -> None:
        """Does not read or write yet.

        Args:
            table: the CSV file to be written.
            folder: the folder of the images.
            model: name and version; rows of another model are ignored.
        """
        self.path, self._table = table.with_name(f"{table.name}.journal"), table
        self._about = {"folder": os.fspath(folder), "model": model, "labels": list(labels)}
        self._cells = len(column_names(ClassifiedRow, labels)) - 1
        self._places: dict[str, int] = {}  # path of an image → offset of its line
        self._tables: list[str] = []  # SHA-256 of tables that runs have written
        self._old: IO[bytes] | None = None
        self._new: IO[bytes] | None = None

    def __enter__(self) -> Self:
        """Read the journal of an earlier run, and remove the unfinished table of one that was killed.

        Raises:
            InputError: there is a table that was not written by a run, or was changed since.
            StorageError: the journal or the table cannot be read.
        """
        self._read()
        self._check_table()
        for leftover in self._table.parent.glob(f"{TEMPORARY}*-{glob.escape(self._table.name[-80:])}"):
            with contextlib.suppress(OSError):
                leftover.unlink()
        try:
            self._old = open_regular(self.path) if self._places else None
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
        """The row of an image, without its path; None if there is none, or if the file has changed since."""
        place = self._places.get(path)
        if place is None or self._old is None:
            return None
        self._old.seek(place)
        line = _parsed(self._old.readline())
        row = line.get("row")
        is_row = isinstance(row, list) and len(row) == self._cells and all(isinstance(cell, str) for cell in row)
        return row if is_row and line.get("file") == _state(file) else None

    def add(self, path: str, file: os.stat_result, row: Sequence[str]) -> None:
        """Add the row of an image; `file` is its status from before it was sent.

        Raises:
            StorageError: it cannot be written.
        """
        self._append({"path": path, "file": _state(file), "row": list(row)})

    def will_write(self, digest: str) -> None:
        """Record that the table is about to have this SHA-256."""
        self._tables.append(digest)
        self._append({"table": digest})

    def has_written(self) -> None:
        """Drop the rows: the table has been written."""
        self.__exit__(None, None, None)
        write_text(self.path, _line({"tables": self._tables[-1:]}))

    def _append(self, line: dict[str, Any]) -> None:
        try:
            if self._new is None:
                if not self._places:  # there is no journal of this folder and model
                    write_text(self.path, _line({**self._about, "tables": self._tables}))
                self._new = self.path.open("ab", buffering=0)
                self._new.write(b"\n")  # ends a line that was cut off when a process was killed
            data = _line(line).encode()
            if self._new.write(data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise storage_error(error, self.path) from error

    def _read(self) -> None:
        """Find the rows of an earlier run with the same folder and model; of others, only the hashes of tables."""
        try:
            with open_regular(self.path) as file:
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
        """Raise InputError if there is a table that no run has written."""
        try:
            with open_regular(self._table) as file:
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
        """Whether the table, which has no journal, has the columns of one of ours."""
        try:
            with open_text(self._table) as file:
                columns = next(csv.reader(file), [])
        except (ValueError, csv.Error):
            return False
        labels = [column.removeprefix(_OF_LABEL) for column in columns if column.startswith(_OF_LABEL)]
        names = column_names(ClassifiedRow, labels)
        earlier = [
            [name for name in names if name not in left_out] for left_out in (("ask",), ("unknown", "set", "ask"))
        ]
        return columns in (names, *earlier)


def _unreadable(path: Path, error: OSError) -> StorageError:
    return StorageError(f"{path} cannot be read: {error.strerror}; move it away, and run again")


def _state(file: os.stat_result) -> list[int]:
    """What tells whether a file has changed."""
    return [file.st_size, file.st_mtime_ns]


def _line(content: dict[str, Any]) -> str:
    return json.dumps(content, separators=(",", ":")) + "\n"


def _parsed(line: bytes) -> dict[str, Any]:
    """The JSON object in a line; an empty one if the line is damaged."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
