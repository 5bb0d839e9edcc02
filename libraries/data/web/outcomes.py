"""What became of every URL: a table on disk that grows line by line, and from which the next run goes on."""

import contextlib
import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, Any, Literal

from libraries.base.errors import StorageError
from libraries.base.storage import storage_error, write_text

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


class OutcomeTable:
    """The table as a CSV file: each outcome is on disk once `add` returns, and survives the death of the process.

    Attributes:
        outcomes: by label and URL, those of earlier runs included.
    """

    def __init__(self, path: Path) -> None:
        """Read the table, if there is one; a last line that was cut off in the middle is dropped.

        Raises:
            StorageError: the file is not such a table, or cannot be written.
        """
        self.path = path
        self.outcomes = {outcome.pair: outcome for outcome in read_outcomes(path)}
        write_text(path, _csv(self.outcomes.values(), header=True))
        self._file: IO[str] = path.open("a", encoding="utf-8", newline="")

    def add(self, outcome: Outcome) -> None:
        """Append an outcome; it takes the place of an earlier one of the same label and URL."""
        self.outcomes[outcome.pair] = outcome
        try:
            self._file.write(_csv([outcome]))
            self._file.flush()
        except OSError as error:
            raise storage_error(error, self.path) from error

    def close(self) -> None:
        """Close the file, which is complete as it is."""
        with contextlib.suppress(OSError):  # after a failed `add`, whose error says it all
            self._file.close()

    def finish(self, order: Sequence[Pair]) -> None:
        """Write the table anew: one line for each pair, first these in their order, then those of other lists."""
        self.close()
        pairs = dict.fromkeys([*order, *self.outcomes])
        write_text(self.path, _csv((self.outcomes[pair] for pair in pairs), header=True))


def _csv(outcomes: Iterable[Outcome], *, header: bool = False) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if header:
        writer.writerow(COLUMNS)
    writer.writerows(asdict(outcome).values() for outcome in outcomes)
    return text.getvalue()


def read_outcomes(path: Path) -> list[Outcome]:
    """The outcomes in a table, later ones of a pair after earlier ones; none where there is no table yet.

    Raises:
        StorageError: the file is not such a table.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise storage_error(error, path) from error
    rows = csv.reader(io.StringIO(text[: text.rfind("\n") + 1], newline=""))
    if tuple(next(rows, COLUMNS)) != COLUMNS:
        raise StorageError(f"{path} is not a table of downloads: move it away and run again")
    return [outcome for row in rows if (outcome := _outcome(row)) is not None]


def _outcome(row: list[str]) -> Outcome | None:
    """The outcome in a line; None if the line is damaged, as the last ones are after a power cut."""
    if len(row) != len(COLUMNS):
        return None
    values: dict[str, Any] = dict(zip(COLUMNS, row, strict=True))
    try:
        numbers = {name: int(values[name]) if values[name] else None for name in _NUMBERS}
        return Outcome(**{**values, **numbers, "seconds": float(values["seconds"])})
    except ValueError:
        return None
