"""What file systems do differently: names, flushing, renaming, and what their errors mean to a person.

Windows flushes no file that was opened for reading, and lets no file be replaced while another program has it open, a
virus scanner often for a moment. Some network and FUSE file systems know no flush, or rename no file over another.
macOS tends to write 'ü' as two characters (Unicode's form D), keyboards as one (form C): they look alike and are not
equal. So names are compared in form C, and kept on disk in whatever form they are.
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

TEMPORARY = ".tmp-"  # prefix of files that are being written; whatever bears it after a crash is rubbish

_UNKNOWN = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}  # the file system does not offer that
_NEVER_OVER = {*_UNKNOWN, errno.EEXIST, errno.EPERM}
_WINDOWS_IN_USE = {5, 32, 33}  # Windows' numbers for a file that another program has open, or has just closed
_PAUSES = (0.01, 0.03, 0.1, 0.3, 0.6, 1.0)  # seconds between the tries
_LONGEST_OF_WINDOWS = 259  # characters of a path, unless longer ones were allowed in the registry
_NAME_TOO_LONG = 206  # Windows' number for it

_DEVICES = {"con", "prn", "aux", "nul", "conin$", "conout$", *(p + n for p in ("com", "lpt") for n in "123456789¹²³")}

# By errno: what is wrong, and what to do about it.
_MEANINGS: dict[int, tuple[str, str]] = {
    errno.ENOSPC: ("the disk is full", "free some space and run again"),
    errno.EDQUOT: ("the disk is full", "free some space and run again"),
    errno.EACCES: ("permission denied", "give your user the right, or close the program that has it open"),
    errno.EPERM: ("permission denied", "give your user the right, or close the program that has it open"),
    errno.EBUSY: ("it is in use", "close the program that has it open"),
    errno.EROFS: ("the disk is read-only", "make it writable, or choose another folder"),
    errno.EISDIR: ("it is a folder", "move it away"),
    errno.ENOTDIR: ("a file stands where a folder should be", "move it away"),
    errno.EEXIST: ("something else has this name, perhaps a broken link", "move it away"),
    errno.ENOENT: ("it, or a folder above it, does not exist", "restore it, or run the script that makes it again"),
    errno.ELOOP: ("its links lead in a circle", "remove them"),
    errno.ENAMETOOLONG: ("its path is too long", "choose shorter names, or a shorter rootDir"),
    errno.EMFILE: ("too many files are open", "close other programs, or raise the limit of open files"),
    errno.ENFILE: ("too many files are open", "close other programs, or raise the limit of open files"),
    errno.ENOLCK: ("its file system knows no locks", "mount it with locks, or keep the data on another one"),
    errno.EIO: ("the disk, or the way to it, has failed", "check it and run again"),
    errno.ESTALE: ("its network drive was disconnected", "connect it and run again"),
}


def flush(file: IO[Any]) -> None:
    """Bring what was written to a file onto the disk, as far as its file system can be told to."""
    file.flush()
    try:
        os.fsync(file.fileno())
    except OSError as error:
        if error.errno not in _UNKNOWN:
            raise


def replace(source: Path, target: Path) -> None:
    """Rename a file within its folder, over another one if there is one.

    Where the file system does that only for a free name, the other file steps aside first: a process killed in the
    few microseconds between leaves it under a temporary name.

    Raises:
        OSError: `target` is a folder, or it stays in use for two seconds, or anything else; then it is as it was.
    """
    if target.is_dir() and not target.is_symlink():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    for pause in (*_PAUSES, None):
        try:
            source.replace(target)
            return
        except OSError as error:
            if error.errno in _NEVER_OVER and os.path.lexists(target):
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
    """Rename a file, but never over another: the name is claimed first, by an empty file.

    A process killed in between leaves the empty file, which stands for nothing. To another disk the file is copied
    first; a process killed after that leaves it in both places.

    Raises:
        OSError: `target` exists, or one of the two folders cannot be written; then nothing has changed.
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
            _carry_over(source, target)
    except OSError:  # and at nothing else, which could come when the file has just arrived
        with contextlib.suppress(OSError):
            target.unlink()
        raise


def _carry_over(source: Path, target: Path) -> None:
    """The same as `replace` between two disks."""
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
    """A free name in the same folder that `sweep` knows; it keeps the suffix, and is not longer than names may be."""
    return path.with_name(f"{TEMPORARY}{secrets.token_hex(4)}-{path.name[-48:]}")


def expanded(path: str) -> Path:
    """A path, `~` in it meaning the home folder; as it stands where there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def is_reserved(name: str) -> bool:
    """Whether Windows takes a file or folder of this name, with whatever suffix, for a device."""
    return name.partition(".")[0].rstrip().lower() in _DEVICES


def sweep(folder: Path) -> None:
    """Remove what a killed process was writing in a folder; only for one in which no other process is writing now."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for leftover in [Path(entry) for entry in entries if entry.name.startswith(TEMPORARY)]:
            with contextlib.suppress(OSError):  # it stays, and does no harm
                leftover.unlink()


def storage_error(error: OSError, path: Path) -> StorageError:
    """The one-line error for a failed write at `path`."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(f"the disk is full: {path} could not be written; free some space and run again")
    culprit = Path(os.fsdecode(error.filename)) if _names_a_file(error) else path
    because = f" because of {culprit}" if culprit in path.parents else ""
    return StorageError(f"{path} could not be written{because}: {explained(error)}")


def is_about(error: OSError, path: Path) -> bool:
    """Whether an error in writing a file is about it, or the folders it is in, and not about some other file."""
    return not _names_a_file(error) or Path(os.fsdecode(error.filename)) in (path, *path.parents)


def _names_a_file(error: OSError) -> bool:
    return isinstance(error.filename, str | bytes | os.PathLike) and bool(error.filename)


def explained(error: OSError) -> str:
    """What is wrong with a file, and what to do about it, in words."""
    number = errno.ENAMETOOLONG if _is_too_long(error) else error.errno
    if number in _MEANINGS:
        return "; ".join(_MEANINGS[number])
    return error.strerror or str(error) or type(error).__name__


def _is_too_long(error: OSError) -> bool:
    """Whether Windows has refused a path for its length, or says that it does not find it, which may mean the same."""
    number = getattr(error, "winerror", None)
    long = _names_a_file(error) and len(os.fsdecode(error.filename)) > _LONGEST_OF_WINDOWS
    return number == _NAME_TOO_LONG or (number is not None and error.errno == errno.ENOENT and long)


def file_error(error: OSError) -> StorageError | None:
    """The one-line error for a file that could not be read or written, wherever that was; None: it is about no file."""
    if _names_a_file(error):
        return StorageError(f"{os.fsdecode(error.filename)} cannot be used: {explained(error)}")
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EROFS, errno.EIO, errno.ESTALE):
        return StorageError(explained(error))
    return None


def open_regular(path: Path) -> io.BufferedReader:
    """A file opened for reading; one that is no regular file is refused, and never waited for.

    Raises:
        OSError: it cannot be opened, or is a folder, a pipe or a device.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
    file = os.fdopen(descriptor, "rb") if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
    if file is None:
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a regular file")
    return file


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
    """The text in normal form C, in which names are compared."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


class OnDisk:
    """Paths inside a folder as they are written on disk; see `on_disk`. Folders are listed once, when first needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: dict[str, dict[str, str]] = {}  # by folder: names that are not ASCII, by their form C

    def __call__(self, path: str) -> str:
        if path.isascii() or os.path.lexists(self._folder / path):
            return path
        found = ""
        for part in path.split("/"):
            if not part.isascii() and not os.path.lexists(self._folder / found / part):
                part = self._listed(found).get(nfc(part), part)
            found = f"{found}/{part}" if found else part
        return found

    def _listed(self, inside: str) -> dict[str, str]:
        if inside not in self._names:
            try:
                names = sorted(entry.name for entry in (self._folder / inside).iterdir())
            except OSError:  # not there yet, or none of our business: whoever opens the path will say so
                names = []
            self._names[inside] = {nfc(name): name for name in names if not name.isascii()}
        return self._names[inside]


def on_disk(folder: Path, path: str) -> str:
    """A path inside a folder, with '/', each part as the file or folder there is written that has the same form C.

    A part that exists exactly so, or that nothing there is equal to, stays as given.
    """
    return OnDisk(folder)(path)
