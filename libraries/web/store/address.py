"""Addresses of folders in object stores: which are accepted, and the package that each kind needs.

PARAMETERS.py imports them, so this module imports nothing heavy.
"""

import unicodedata
from typing import Annotated, Any

from pydantic import BeforeValidator

from libraries.base.errors import ParameterError

# By scheme, the package that fsspec needs. Other schemes of fsspec are no object stores, or read what else they like:
# chains ('::'), archives, caches, references, this machine's files.
PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "abfs": "adlfs", "oci": "ocifs"}
_SAME = {"s3a": "s3", "gcs": "gs", "abfss": "abfs", "az": "abfs"}
_WITH_ACCOUNT = ("abfs", "oci")  # container@account, bucket@namespace
_FORM = "expected an address such as s3://bucket/folder"


def checked_url(value: Any) -> Any:
    """The address without a slash at its end; no store is asked.

    Raises:
        ParameterError: it is none of an object store, or holds a password or signature. It is not repeated, and no
            ValueError, since pydantic repeats the value in those.
    """
    if not isinstance(value, str):
        return value
    text = value.strip()
    scheme, separator, rest = text.partition("://")
    scheme, rest = scheme.lower(), rest.rstrip("/")
    scheme = _SAME.get(scheme, scheme)
    bucket = rest.partition("/")[0]
    if scheme in ("file", "local") or not separator:
        raise ParameterError(
            f"imgStoreUrl: {_FORM}; images on a disk need none: put their folder, or a link to it, into images/"
        )
    if (":" in bucket and not bucket.startswith("arn:") and "::" not in text) or (
        "@" in bucket and (scheme not in _WITH_ACCOUNT or bucket.count("@") > 1)
    ):
        raise _secret("a user name or password")
    if "?" in rest or "#" in rest:
        raise _secret("'?' or '#', as signatures and tokens begin")
    if scheme not in PACKAGES or "::" in text:
        raise ParameterError(f"imgStoreUrl: {_FORM}; the kinds of stores are {', '.join([*PACKAGES, *_SAME])}")
    if not bucket or any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in rest):
        raise ParameterError(f"imgStoreUrl: {_FORM}; this one names no bucket, or holds control characters")
    if any(part in ("", ".", "..") for part in rest.split("/")):
        raise ParameterError(f"imgStoreUrl: {_FORM}; a part of this one is empty, '.' or '..'")
    return f"{scheme}://{rest}"


def _secret(what: str) -> ParameterError:
    return ParameterError(
        f"imgStoreUrl holds {what}: leave it out; credentials are taken from the environment or the store's own "
        "configuration files"
    )


StoreUrl = Annotated[str, BeforeValidator(checked_url)]
"""The address of a folder in an object store, without credentials."""
