"""One object → one file: read it whole, and write it, unless a file of yours is in the way."""

import contextlib
import errno
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from libraries.base.errors import DownloadError, InputError
from libraries.base.file_system import flush, move, storage_error, sweep, temporary_beside
from libraries.base.storage import atomic, sha256
from libraries.data.formats import HEAD, Format, is_told_by_content, kind_by_content, kind_by_name
from libraries.web.store.listing import Store, StoredObject
from libraries.web.store.record import Status

# Problems of one path, not of the disk: an object may be called like the folder of another.
_OF_ONE_PATH = {errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.EILSEQ}


@dataclass(frozen=True)
class Job:
    """An object to copy.

    Attributes:
        file: its path below the folder of the data set.
        replaces: SHA-256 of the file that an earlier run copied, or of those it may have left when it was stopped,
            separated by blanks, the one it wanted first; '' if there was none.
        is_newer: that was an earlier version of the object.
    """

    object: StoredObject
    file: str
    replaces: str = ""
    is_newer: bool = False


@dataclass(frozen=True)
class Copied:
    """What became of an object.

    Attributes:
        status: None if it is as it was, and is to be told of.
        reason: why it was not copied; '' if that needs no word.
        kind: what it is, if it is not an image.
        failed: the error of the store, if it was that.
    """

    status: Status | None
    reason: str = ""
    sha256: str = ""
    kind: str = ""
    failed: DownloadError | None = None


class Copier:
    """Copies objects. Called by many threads.

    Args:
        folder: images/<dataset>.
        announce: called with an object and its SHA-256 before its new file appears.
        retries: further tries after a temporary failure.
        wait: (n, None) → seconds to wait after try number n.
    """

    def __init__(
        self,
        store: Store,
        folder: Path,
        *,
        announce: Callable[[StoredObject, str], None],
        retries: int,
        wait: Callable[[int, float | None], float | None],
    ) -> None:
        self._store, self._folder, self._announce = store, folder, announce
        self._retries, self._wait = retries, wait
        self._closed = threading.Event()
        self._swept: set[Path] = set()
        self._sweeping = threading.Lock()

    def close(self) -> None:
        """Write nothing more, not even objects in progress."""
        self._closed.set()

    def __call__(self, job: Job) -> Copied:
        """Copy an object.

        Raises:
            StorageError: a file cannot be written.
        """
        target = self._folder / job.file
        try:
            return self._replace(job, target) if job.replaces else self._copy(job, target)
        except DownloadError as error:
            return Copied(None, error.reason, failed=error)
        except OSError as error:
            if error.errno in _OF_ONE_PATH:
                return Copied(None, "a file and a folder have one name, or the name is impossible here")
            raise storage_error(error, target) from error

    def _copy(self, job: Job, target: Path) -> Copied:
        name = job.object.path
        if os.path.lexists(target):
            status = target.stat() if target.exists() else None
            if status is None or target.is_dir() or status.st_size not in (job.object.size, 0):
                return _kept()
        if is_told_by_content(name):
            kind = kind_by_content(name, self._read(job.object, most=HEAD))
            if not isinstance(kind, Format):
                return Copied("other", kind=kind.name if kind else "")
        elif not isinstance(kind_by_name(name), Format):
            return Copied("other")
        data = self._read(job.object)
        digest = hashlib.sha256(data).hexdigest()
        if target.is_file() and target.stat().st_size:
            return Copied("there", sha256=digest) if sha256(target) == digest else _kept()
        self._write(target, data, lambda: self._announce(job.object, digest))
        return Copied("copied", sha256=digest)

    def _replace(self, job: Job, target: Path) -> Copied:
        """Replace the copy of an earlier version, unless it has been changed, or is not there any more."""
        if not target.is_file():
            return Copied(None, "changed in the store, but here moved, removed or deleted")
        here, ours = sha256(target), job.replaces.split()
        if not job.is_newer and here == ours[0]:
            return Copied("copied", sha256=here)
        if not target.stat().st_size or (not job.is_newer and here not in ours):
            return self._copy(job, target)
        if here not in ours and target.stat().st_size != job.object.size:
            return _changed_here()
        data = self._read(job.object)
        digest = hashlib.sha256(data).hexdigest()
        if digest != here:
            if here not in ours or sha256(target) != here:  # reading may have taken minutes
                return _changed_here()
            if not self._closed.is_set():
                self._announce(job.object, f"{digest} {here}")
                with atomic(target) as file:
                    file.write(data)
        return Copied("copied", sha256=digest)

    def _read(self, wanted: StoredObject, *, most: int | None = None) -> bytes:
        """An object, or its first `most` bytes; tried again after a temporary failure."""
        tries = 0
        while True:
            tries += 1
            try:
                data = self._store.read(wanted.path, most=wanted.size + 1 if most is None else most)
                if most is None and len(data) != wanted.size:
                    raise DownloadError("changed while it was read: run again", detail=f"{len(data):,} bytes")
                return data
            except DownloadError as error:
                seconds = self._wait(tries, None) if error.passing and tries <= self._retries else None
                if seconds is None or self._closed.wait(seconds):
                    raise

    def _write(self, target: Path, data: bytes, announce: Callable[[], None]) -> None:
        """Write a new file, completely or not at all, never over another; nothing after `close`."""
        temporary = temporary_beside(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        with self._sweeping:  # once, before anything is written there
            if target.parent not in self._swept:
                sweep(target.parent)
                self._swept.add(target.parent)
        try:
            with temporary.open("xb") as file:
                file.write(data)
                flush(file)
            if not self._closed.is_set():
                if target.is_file() and not target.stat().st_size:
                    target.unlink()  # the empty file of an interrupted move
                announce()
                move(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def alone(folder: Path, table: Path) -> Iterator[None]:
    """Keep other runs out of the data set meanwhile.

    Raises:
        InputError: another run is copying.
        StorageError: a folder cannot be made, or there is a file in its place.
    """
    try:
        table.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(folder):
            folder.mkdir(exist_ok=True)  # tells a folder from a file and a broken link
    except OSError as error:
        raise storage_error(error, folder if table.parent.is_dir() else table.parent) from error
    try:
        with FileLock(table.with_name(f".{table.name}.lock"), timeout=0):
            yield
    except Timeout:
        raise InputError(f"another run is copying into {folder}: wait until it has ended") from None


def _changed_here() -> Copied:
    return Copied(None, "changed in the store, but here as well")


def _kept() -> Copied:
    return Copied("kept", "another file is there, and stays")
