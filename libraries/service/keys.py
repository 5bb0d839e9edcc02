"""Keys of the service: read from the environment or a file, compared in constant time, never shown."""

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
    """The key in an environment variable, else in a file, without the line end; None if neither is given.

    Args:
        waits: whether the file may be a pipe, as a shell's `<(...)` is one, which is waited for.

    Raises:
        ParameterError: the file cannot be read, or it is no usable key; says which of the two, never what it holds.
    """
    if environment in os.environ:
        return checked_key(os.environ[environment], f"the environment variable {environment}")
    if path is None:
        return None
    try:
        with path.open("rb") if waits else open_regular(path) as file:
            mode, data = os.fstat(file.fileno()).st_mode, file.read(_LONGEST + 1)
    except OSError as error:
        raise ParameterError(f"the key file {path} cannot be read: {error.strerror}") from None
    if os.name == "posix" and mode & 0o077:
        log.warning("the key file %s can be read by others: chmod 600 %s", path, path)
    return checked_key(decoded(data).rstrip("\n"), f"the key file {path}")


def checked_key(key: str, where: str) -> str:
    """The key, if it can be one; `where` it comes from is for the error.

    Raises:
        ParameterError: too short or too long, or other characters than visible ASCII.
    """
    if not key:
        raise ParameterError(f"{where} is empty: give a key of at least {SHORTEST} characters, or none at all")
    if not all("!" <= character <= "~" for character in key):
        raise ParameterError(
            f"the key in {where} holds blanks, control or non-ASCII characters: a key is one line of text"
        )
    if not SHORTEST <= len(key) <= _LONGEST:
        raise ParameterError(f"the key in {where} has {len(key):,} characters, expected {SHORTEST} to {_LONGEST:,}")
    return key


def same(one: str | bytes, other: str | bytes) -> bool:
    """Whether two keys are equal, in a time that tells neither where they differ nor how long they are."""
    return hmac.compare_digest(_digest(one), _digest(other))


def _digest(key: str | bytes) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass") if isinstance(key, str) else key).digest()
