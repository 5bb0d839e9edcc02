"""The searches that are finished: a file that grows line by line, so that nothing is asked twice."""

import contextlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from libraries.base.file_system import storage_error
from libraries.base.storage import write_text
from libraries.web.search.found import Found


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
