"""What became of every URL: a line of the table proc/<dataset>/downloads.csv."""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from libraries.base.errors import StorageError
from libraries.base.file_system import storage_error
from libraries.base.tables import csv_line, csv_rows

Pair = tuple[str, str]  # label, URL
Status = Literal["ok", "failed", "passing"]


@dataclass(frozen=True)
class Outcome:
    """What became of one URL under one label: a line of the table.

    Attributes:
        label: as given.
        url: as given.
        status: 'ok', 'failed' for good, or 'passing': failed now, and tried again by the next run.
        reason: 'downloaded', or why not, in one of a few short texts.
        file: the image, relative to the data set's folder, with '/'; empty when there is none.
        http_status: of the last answer.
        bytes: of the file.
        width: of the image in the file, upright, in pixels.
        height: likewise.
        seconds: that all tries took, without the waits between them.
        detail: what exactly went wrong.
    """

    label: str
    url: str
    status: Status
    reason: str
    file: str = ""
    http_status: int | None = None
    bytes: int | None = None
    width: int | None = None
    height: int | None = None
    seconds: float = 0.0
    detail: str = ""

    @property
    def pair(self) -> Pair:
        """What identifies the outcome."""
        return self.label, self.url


COLUMNS = tuple(field.name for field in fields(Outcome))
_NUMBERS = ("http_status", "bytes", "width", "height")


def summary(outcomes: Iterable[Outcome]) -> dict[str, int]:
    """How many outcomes there are for each reason: 'downloaded' first, then the most frequent first."""
    counts = Counter(outcome.reason for outcome in outcomes)
    return dict(sorted(counts.items(), key=lambda item: (item[0] != "downloaded", -item[1], item[0])))


def as_line(outcome: Outcome) -> bytes:
    """The outcome's line of the table."""
    return csv_line(getattr(outcome, name) for name in COLUMNS).encode()


def read_outcomes(path: Path) -> Iterator[Outcome]:
    """The outcomes in a table, later ones of a pair after earlier ones; none where there is no table yet.

    Raises:
        StorageError: the file is not such a table.
    """
    try:
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            rows = csv_rows(line for line in file if line.endswith("\n"))  # the last may have been cut off
            if tuple(next(rows, COLUMNS)) != COLUMNS:
                raise StorageError(f"{path} is not a table of downloads: move it away and run again")
            for row in rows:
                if (outcome := _outcome(row)) is not None:
                    yield outcome
    except FileNotFoundError:
        return
    except OSError as error:
        raise storage_error(error, path) from error


def _outcome(row: list[str]) -> Outcome | None:
    """The outcome in a line; None if the line is damaged, as the last ones are after a power cut."""
    if len(row) != len(COLUMNS):
        return None
    values: dict[str, Any] = dict(zip(COLUMNS, row, strict=True))
    try:
        numbers = {name: int(values[name]) if values[name] else None for name in _NUMBERS}
        texts = {name: sys.intern(values[name]) for name in ("label", "status", "reason")}  # few, on very many lines
        return Outcome(**{**values, **numbers, **texts, "seconds": float(values["seconds"])})
    except ValueError:
        return None
