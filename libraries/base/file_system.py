"""Differences between file systems: names, flushing and renaming, and their errors in plain words.

Windows cannot flush a file that was opened for reading, nor replace one that another program has open, often a virus
scanner for a moment. Some network and FUSE file systems cannot flush, or cannot rename a file over another. macOS tends
to write 'ü' as two characters (Unicode form D), keyboards as one (form C): they look alike but are not equal. So names
are compared in form C, and kept on disk in whatever form they have.
"""

import contextlib
import errno
import io
import os
import secrets
import shutil
import stat
import time
import unicodedata
from pathlib import Path
from typing import IO, Any

from libraries.base.errors import StorageError

TEMPORARY = ".tmp-"  # prefix of files being written; after a crash, files with it can be deleted

_UNSUPPORTED = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}  # by the file system
_CANNOT_REPLACE = {*_UNSUPPORTED, errno.EEXIST, errno.EPERM}
_WINDOWS_IN_USE = {5, 32, 33}  # Windows error codes: another program has the file open, or has just closed it
_PAUSES = (0.01, 0.03, 0.1, 0.3, 0.6, 1.0)  # seconds between attempts
_WINDOWS_MAX_PATH = 259  # characters, unless the registry allows longer paths
_WINDOWS_NAME_TOO_LONG = 206  # Windows error code

_DEVICES = {"con", "prn", "aux", "nul", "conin$", "conout$", *(p + n for p in ("com", "lpt") for n in "123456789¹²³")}

# By errno: what is wrong, and what to do about it.
_MEANINGS: dict[int, tuple[str, str]] = {
    errno.ENOSPC: ("the disk is full", "free some space and run again"),
    errno.EDQUOT: ("the disk is full", "free some space and run again"),
    errno.EACCES: ("permission denied", "give your user access, or close the program that has it open"),
    errno.EPERM: ("permission denied", "give your user access, or close the program that has it open"),
    errno.EBUSY: ("it is in use", "close the program that has it open"),
    errno.EROFS: ("the disk is read-only", "make it writable, or choose another folder"),
    errno.EISDIR: ("it is a folder", "move it away"),
    errno.ENOTDIR: ("a file is where a folder should be", "move it away"),
    errno.EEXIST: ("something else has this name, perhaps a broken link", "move it away"),
    errno.ENOENT: ("it, or a folder above it, does not exist", "restore it, or run the script that makes it again"),
    errno.ELOOP: ("its links form a loop", "remove them"),
    errno.ENAMETOOLONG: ("its path is too long", "choose shorter names, or a shorter rootDir"),
    errno.EMFILE: ("too many files are open", "close other programs, or raise the limit of open files"),
    errno.ENFILE: ("too many files are open", "close other programs, or raise the limit of open files"),
    errno.ENOLCK: ("its file system has no locks", "mount it with locks, or keep the data on another one"),
    errno.EIO: ("the disk, or the connection to it, has failed", "check it and run again"),
    errno.ESTALE: ("its network drive was disconnected", "connect it and run again"),
}


def flush(file: IO[Any]) -> None:
    """Write a file's buffers to disk, where its file system supports that."""
    file.flush()
    try:
        os.fsync(file.fileno())
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise


def replace(source: Path, target: Path) -> None:
    """Rename a file within its folder, replacing `target` if it exists.

    Where the file system cannot replace a file, `target` is renamed first: a process killed in the few microseconds
    between leaves it under a temporary name.

    Raises:
        OSError: `target` is a folder, stays in use for two seconds, or cannot be replaced; it is unchanged.
    """
    if target.is_dir() and not target.is_symlink():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    for pause in (*_PAUSES, None):
        try:
            source.replace(target)
            return
        except OSError as error:
            if error.errno in _CANNOT_REPLACE and os.path.lexists(target):
                _replace_in_steps(source, target)
                return
            if pause is None or not _is_in_use(error):
                raise
        time.sleep(pause)


def _is_in_use(error: OSError) -> bool:
    return error.errno == errno.EBUSY or getattr(error, "winerror", None) in _WINDOWS_IN_USE


def _replace_in_steps(source: Path, target: Path) -> None:
    former = temporary_beside(target)
    target.rename(former)
    try:
        source.rename(target)
    except OSError:
        former.rename(target)
        raise
    with contextlib.suppress(OSError):
        former.unlink()


def move(source: Path, target: Path) -> None:
    """Move a file, but never over another: an empty file reserves the name first.

    A process killed in between leaves the empty file, which counts as missing. Between disks the file is copied, then
    deleted; a process killed in between leaves both copies.

    Raises:
        OSError: `target` exists, or one of the two folders cannot be written; nothing has changed.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb"):
        pass
    try:
        try:
            replace(source, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _move_between_disks(source, target)
    except OSError:  # nothing else: Ctrl-C may come just after the file has arrived
        with contextlib.suppress(OSError):
            target.unlink()
        raise


def _move_between_disks(source: Path, target: Path) -> None:
    temporary = temporary_beside(target)
    try:
        shutil.copy2(source, temporary, follow_symlinks=False)
        if not temporary.is_symlink():
            with temporary.open("r+b") as file:
                flush(file)
        replace(temporary, target)
        source.unlink()
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def temporary_beside(path: Path) -> Path:
    """An unused name in the same folder that `sweep` recognises; it keeps the suffix, and is never too long."""
    return path.with_name(f"{TEMPORARY}{secrets.token_hex(4)}-{path.name[-48:]}")


def expanded(path: str) -> Path:
    """The path with `~` replaced by the home folder; unchanged if there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def is_reserved(name: str) -> bool:
    """Whether Windows reserves this name, with any suffix, for a device."""
    return name.partition(".")[0].rstrip().lower() in _DEVICES


def sweep(folder: Path) -> None:
    """Delete the temporary files of killed processes in a folder. No other process may be writing there now."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for leftover in [Path(entry) for entry in entries if entry.name.startswith(TEMPORARY)]:
            with contextlib.suppress(OSError):  # if it stays, it does no harm
                leftover.unlink()


def storage_error(error: OSError, path: Path) -> StorageError:
    """The one-line error for a failed write at `path`."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(f"the disk is full: {path} could not be written; free some space and run again")
    culprit = Path(os.fsdecode(error.filename)) if _names_a_file(error) else path
    because = f" because of {culprit}" if culprit in path.parents else ""
    return StorageError(f"{path} could not be written{because}: {explained(error)}")


def is_about(error: OSError, path: Path) -> bool:
    """Whether an error while writing `path` is about it or one of its folders, not about another file."""
    return not _names_a_file(error) or Path(os.fsdecode(error.filename)) in (path, *path.parents)


def _names_a_file(error: OSError) -> bool:
    return isinstance(error.filename, str | bytes | os.PathLike) and bool(error.filename)


def explained(error: OSError) -> str:
    """What is wrong with a file and what to do about it, in plain words."""
    number = errno.ENAMETOOLONG if _is_too_long(error) else error.errno
    if number == errno.ENOTDIR and _names_a_file(error):
        above = Path(os.fsdecode(error.filename)).parents
        if culprit := next((folder for folder in above if folder.is_file()), None):
            return f"{culprit} is a file where a folder should be; move it away"
    if number in _MEANINGS:
        return "; ".join(_MEANINGS[number])
    return error.strerror or str(error) or type(error).__name__


def _is_too_long(error: OSError) -> bool:
    """Whether Windows rejected a path as too long, or reported a long one as missing, which may mean the same."""
    number = getattr(error, "winerror", None)
    long = _names_a_file(error) and len(os.fsdecode(error.filename)) > _WINDOWS_MAX_PATH
    return number == _WINDOWS_NAME_TOO_LONG or (number is not None and error.errno == errno.ENOENT and long)


def file_error(error: OSError) -> StorageError | None:
    """The one-line error for a file that could not be read or written; None if the error is not about a file."""
    if _names_a_file(error):
        return StorageError(f"{os.fsdecode(error.filename)} cannot be used: {explained(error)}")
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EROFS, errno.EIO, errno.ESTALE):
        return StorageError(explained(error))
    return None


def open_regular(path: Path) -> io.BufferedReader:
    """Open a regular file for reading; anything else is refused, without waiting for it.

    Raises:
        OSError: it cannot be opened, or is a folder, a pipe or a device.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
    file = os.fdopen(descriptor, "rb") if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
    if file is None:
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a regular file")
    return file


def open_text(path: Path, *, errors: str = "strict") -> io.TextIOWrapper:
    """Open a regular file of UTF-8 text for reading, with its line endings as they are.

    Raises:
        OSError: as `open_regular`.
    """
    return io.TextIOWrapper(open_regular(path), encoding="utf-8", errors=errors, newline="")


def read_regular(path: Path, *, most: int) -> bytes:
    """The content of a regular file.

    Raises:
        OSError: as `open_regular`, or it has more than `most` bytes.
    """
    with open_regular(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it has more than {most:,} bytes")
    return content


def nfc(text: str) -> str:
    """The text in Unicode normal form C, in which names are compared."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


class OnDisk:
    """Finds paths inside a folder as spelled on disk; see `on_disk`. Each folder is listed once, when first needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: dict[str, dict[str, str]] = {}  # by folder: non-ASCII names, by their form C

    def __call__(self, path: str) -> str:
        if path.isascii() or os.path.lexists(self._folder / path):
            return path
        spelled = ""
        for part in path.split("/"):
            if not part.isascii() and not os.path.lexists(self._folder / spelled / part):
                part = self._listed(spelled).get(nfc(part), part)
            spelled = f"{spelled}/{part}" if spelled else part
        return spelled

    def _listed(self, inside: str) -> dict[str, str]:
        if inside not in self._names:
            try:
                names = sorted(entry.name for entry in (self._folder / inside).iterdir())
            except OSError:  # missing or unreadable: opening the path will report it
                names = []
            self._names[inside] = {nfc(name): name for name in names if not name.isascii()}
        return self._names[inside]


def on_disk(folder: Path, path: str) -> str:
    """A path inside a folder, with '/', each part spelled like the entry on disk that has the same form C.

    A part that exists as given, or has no equal on disk, stays as given.
    """
    return OnDisk(folder)(path)
