"""What earlier runs found in image files, so that no file is read or decoded twice.

A file is known by its size, time of modification and inode, as git knows files, so moving it changes nothing; then its
SHA-256 need not be computed again. All else is kept under that SHA-256 (see `content_store`), and under a hash of the
code that reads images: a version that reads them differently computes everything anew.
"""

import hashlib
import logging
import time
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path

from libraries.base.content_store import ContentStore
from libraries.base.errors import StorageError
from libraries.base.layout import Layout
from libraries.base.storage import atomic_path, reading

logger = logging.getLogger(__name__)

_MODULES = ("boxes", "colour", "decoding", "depth", "formats", "headers", "images", "netpbm", "quality")  # beside this
_SETTLED = 2 * 10**9  # ns; a file may be changed once more without a new time: those of FAT are 2 seconds apart


class KnownFiles:
    """SHA-256 of files by inode, size and time of modification; kept in one file for a data set."""

    def __init__(self, path: Path | None = None) -> None:
        """Read what is known from the file `path`; nothing if it is missing or damaged."""
        self._path = path
        self._stored = self._then = _read(path) if path and path.exists() else {}
        self._now: dict[str, str] = {}

    def state(self, path: Path) -> str | None:
        """What changes when a file does; None if it cannot be had, or may stay the same now."""
        try:
            status = path.stat()
        except (OSError, ValueError):
            return None
        if abs(time.time_ns() - status.st_mtime_ns) < _SETTLED:
            return None
        # Some file systems have no inodes, so there the path counts.
        return f"{status.st_ino or ascii(str(path))} {status.st_size} {status.st_mtime_ns}"

    def sha256(self, state: str | None) -> str | None:
        """SHA-256 of a file in this state; None if it is not known."""
        return self._then.get(state) if state else None

    def note(self, state: str | None, digest: str) -> None:
        """Keep the SHA-256 of a file that was in this state before it was read."""
        if state:
            self._now[state] = digest

    def noted(self) -> dict[str, str]:
        """All that has been noted: SHA-256 by state."""
        return self._now

    def learn(self, digests: Mapping[str, str]) -> None:
        """Take over what another process has noted."""
        self._then = {**self._then, **digests}

    def write(self) -> None:
        """Write what has been noted, and nothing else: files that are gone are forgotten."""
        if self._path is None or self._now == self._stored:
            return
        import pyarrow as pa
        import pyarrow.parquet as pq

        known = dict(sorted(self._now.items()))
        table = pa.table({"file": list(known), "sha256": list(known.values())})
        try:
            with atomic_path(self._path) as temporary:
                pq.write_table(table, temporary)
        except StorageError as error:
            logger.warning("which files were read is not remembered: %s", error)


def _read(path: Path) -> dict[str, str]:
    import pyarrow.parquet as pq

    try:
        with reading(path, advice=""):
            with pq.ParquetFile(path) as file:  # pq.read_table imports pandas
                table = file.read().to_pydict()
            return dict(zip(table["file"], table["sha256"], strict=True))
    except StorageError:
        return {}


class Remembered:
    """What is known of a data set's files, and where results are kept by content."""

    def __init__(
        self,
        files: KnownFiles | None = None,
        *,
        store: Path = Path("store"),
        most_bytes: int = 0,
        recheck: bool = False,
    ) -> None:
        """
        Args:
            files: none: nothing is known.
            store: the folder of all stores.
            most_bytes: of all stores; 0: nothing is kept.
            recheck: look at all files anew, and remember that.
        """
        self.files = files or KnownFiles()
        self.store, self._most_bytes, self.recheck = store, most_bytes, recheck

    @classmethod
    def of(cls, layout: Layout, *, recheck: bool = False) -> "Remembered":
        files = KnownFiles(layout.store / "files" / f"{layout.dataset}.parquet") if layout.store_bytes else None
        return cls(files, store=layout.store, most_bytes=layout.store_bytes, recheck=recheck)

    def open(self, kind: str, *made_with: object) -> ContentStore:
        """The store of results of one kind.

        Args:
            kind: names it.
            made_with: what the results depend on besides a file's content and the code that reads images.
        """
        recipe = hashlib.sha256(repr((*made_with, reading_recipe())).encode()).hexdigest()
        return ContentStore(self.store / f"{kind}-{recipe[:24]}", most_bytes=self._most_bytes)


@cache
def reading_recipe() -> str:
    """A hash of the code that turns files into pixels, and of the versions of the libraries that it uses."""
    recipe = hashlib.sha256()
    for name in _MODULES:
        recipe.update(Path(__file__).with_name(f"{name}.py").read_bytes())
    for package in ("pillow", "pillow-heif"):
        recipe.update(metadata.version(package).encode())
    return recipe.hexdigest()
