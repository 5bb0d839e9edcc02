"""Keys of the service: read from the environment or a file, compared in constant time, never printed."""

import hashlib
import hmac
import logging
import os
from pathlib import Path

from libraries.base.errors import ParameterError
from libraries.base.file_system import open_regular
from libraries.base.text import decoded

SHORTEST = 16  # characters
_LONGEST = 4096

log = logging.getLogger(__name__)


def read_key(path: Path | None, environment: str, *, waits: bool = True) -> str | None:
    """The key from an environment variable, else from a file, without the line end; None if neither is given.

    Args:
        waits: whether the file may be a pipe, such as a shell's `<(...)`, whose content has to be waited for.

    Raises:
        ParameterError: the file cannot be read, or the key is not usable. The message names the source, never the key.
    """
    if environment in os.environ:
        return checked_key(os.environ[environment], f"the environment variable {environment}")
    if path is None:
        return None
    try:
        with path.open("rb") if waits else open_regular(path) as file:
            status, data = os.fstat(file.fileno()), file.read(_LONGEST + 1)
    except OSError as error:
        raise ParameterError(f"the key file {path} cannot be read: {error.strerror}") from None
    if os.name == "posix" and others_may_read(status.st_mode, owner=status.st_uid, user=os.geteuid()):
        log.warning("the key file %s can be read by others: chmod 600 %s", path, path)
    return checked_key(decoded(data).rstrip("\n"), f"the key file {path}")


def others_may_read(mode: int, *, owner: int, user: int) -> bool:
    """Whether users other than `user` may read a file with this mode and owner.

    A file of root that this user may read as a member of its group is no exposure: Kubernetes gives secrets to root and
    the pod's own group.
    """
    return bool(mode & (0o007 if owner == 0 != user else 0o077))


def checked_key(key: str, where: str) -> str:
    """The key, unless it is unusable; the error names `where` it comes from.

    Raises:
        ParameterError: it is too short or too long, or has characters other than visible ASCII.
    """
    if not key:
        raise ParameterError(f"{where} is empty: give a key of at least {SHORTEST} characters, or leave it out")
    if not all("!" <= character <= "~" for character in key):
        raise ParameterError(
            f"the key in {where} has spaces, control or non-ASCII characters: a key is one line of visible ASCII"
        )
    if not SHORTEST <= len(key) <= _LONGEST:
        raise ParameterError(f"the key in {where} has {len(key):,} characters, expected {SHORTEST} to {_LONGEST:,}")
    return key


def equal(one: str | bytes, other: str | bytes) -> bool:
    """Whether two keys are equal, in a time that reveals neither where they differ nor how long they are."""
    return hmac.compare_digest(_digest(one), _digest(other))


def _digest(key: str | bytes) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass") if isinstance(key, str) else key).digest()
