"""Files that are written where people keep theirs: known again by their content, and nobody else's overwritten."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from libraries.base.errors import StorageError
from libraries.base.storage import read_json, sha256, write_json, write_text


class OwnFiles:
    """Files that this project wrote, by a record of the SHA-256 of each, which is written before they are.

    A file that somebody has edited since is theirs.
    """

    def __init__(self, record: Path, *, is_ours: Callable[[Path], bool]) -> None:
        """
        Args:
            record: a JSON file, SHA-256 of what was written by file name; the names are different ones.
            is_ours: whether a file that is not in the record is, by its form, one that an earlier version wrote.
        """
        self._record, self._is_ours = record, is_ours

    def check(self, paths: Iterable[Path]) -> None:
        """Make sure that every file can be written, and change nothing.

        Raises:
            StorageError: a file is somebody else's, or the record is damaged.
        """
        record = self._read()
        for path in paths:
            if self._digest(path) not in (None, *record.get(path.name, ())) and not self._is_ours(path):
                raise StorageError(
                    f"{path} was not written by this script, or was changed since: "
                    "move it away or rename it, and run again"
                )

    def write(self, texts: Mapping[Path, str]) -> list[Path]:
        """Write files, all or, where one is somebody else's, none; gives back their paths.

        Raises:
            StorageError: as `check`; or a file cannot be written.
        """
        self.check(texts)
        # what stands there now, too: a process that is killed in between leaves some files of each
        known = {path: [self._digest(path), hashlib.sha256(text.encode()).hexdigest()] for path, text in texts.items()}
        written = {path.name: [digest for digest in digests if digest] for path, digests in known.items()}
        write_json(self._record, {**self._read(), **written})
        for path, text in texts.items():
            write_text(path, text)
        return list(texts)

    def _read(self) -> dict[str, list[str]]:
        record = read_json(self._record) if self._record.exists() else {}
        if not isinstance(record, dict) or not all(isinstance(digests, list) for digests in record.values()):
            raise StorageError(f"{self._record} is damaged: delete it, and move away what it was written for")
        return record

    @staticmethod
    def _digest(path: Path) -> str | None:
        """SHA-256 of a file; None where there is none, "" of what is no file or cannot be read."""
        try:
            return sha256(path)
        except FileNotFoundError:
            return "" if path.is_symlink() else None
        except OSError:
            return ""
