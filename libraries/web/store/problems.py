"""What a backend of fsspec raises → what went wrong, in a few words.

Backends put addresses with signatures, request ids and whole answers into their messages: only the kind of an error,
its HTTP status and the store's own code for it, one word, are told. Their packages are not imported: errors are
recognised by the names of their classes.
"""

import errno
import re
from collections.abc import Iterator
from typing import Any

from libraries.base.errors import DownloadError

_DEPTH = 5  # causes of causes
_TEMPORARY = frozenset({408, 425, 429})  # besides all 5xx
_BUSY = frozenset({errno.EBUSY, getattr(errno, "EREMOTEIO", errno.EBUSY)})  # s3fs has these for 5xx
_NO_CREDENTIALS = re.compile(r"NoCredentials|PartialCredentials|DefaultCredentials|CredentialRetrieval|ProfileNotFound")
_NO_CONNECTION = re.compile(
    r"^(ConnectionError|HTTPClientError|ClientConnectionError|ClientPayloadError|ServiceRequestError"
    r"|ServiceResponseError|IncompleteReadError|RequestException|gaierror)$"
)
_TIMEOUT = re.compile(r"Time-?out(Error)?$", re.IGNORECASE)


def explained(error: BaseException) -> DownloadError:
    """The error in plain words, without anything that a message may hold."""
    chain = list(_chain(error))
    names = [kind.__name__ for each in chain for kind in type(each).__mro__]
    status = next((found for each in chain if (found := _status(each))), None)
    detail = next((code for each in chain if (code := _code(each))), type(error).__name__)

    def told(reason: str, *, passing: bool = False) -> DownloadError:
        return DownloadError(reason, detail=detail, passing=passing, http_status=status)

    if any(map(_NO_CREDENTIALS.search, names)):
        return told("no credentials")
    if isinstance(error, FileNotFoundError) or status == 404:
        return told("not found")
    if isinstance(error, PermissionError) or status in (401, 403) or _is_forbidden(error):
        return told("access denied")
    if status and (status in _TEMPORARY or status >= 500):
        return told("the store is busy", passing=True)
    if any(map(_TIMEOUT.search, names)):
        return told("time-out", passing=True)
    if any(map(_NO_CONNECTION.match, names)):
        return told("no connection", passing=True)
    if isinstance(error, OSError) and error.errno in _BUSY:
        return told("the store is busy", passing=True)
    return told("an unexpected error")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and its causes."""
    each: BaseException | None = error
    for _ in range(_DEPTH):
        if each is None:
            return
        yield each
        each = each.__cause__


def _response(error: BaseException) -> dict[str, Any]:
    """The answer that botocore keeps in its errors, as a dictionary."""
    response = getattr(error, "response", None)
    return response if isinstance(response, dict) else {}


def _status(error: BaseException) -> int | None:
    """The HTTP status, where an error of any backend has one."""
    of_botocore = _response(error).get("ResponseMetadata", {}).get("HTTPStatusCode")
    for value in (of_botocore, *(getattr(error, name, None) for name in ("status_code", "status", "code"))):
        if isinstance(value, int | str) and re.fullmatch(r"[45]\d\d", str(value)):
            return int(value)
    return None


def _code(error: BaseException) -> str | None:
    """The store's own word for what went wrong, such as NoSuchBucket."""
    found = _response(error).get("Error", {}).get("Code") or getattr(error, "error_code", None)
    return str(found) if found and re.fullmatch(r"[A-Za-z]{3,40}", str(found)) else None


def _is_forbidden(error: BaseException) -> bool:
    return isinstance(error, OSError) and str(error).startswith("Forbidden")  # so says gcsfs
