"""The objects in a folder of an object store: opened, listed in parts, and which of their names can be files.

The names come from strangers: they are checked before any of them becomes a path.
"""

import hashlib
import logging
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from libraries.base.errors import DownloadError, InputError
from libraries.base.file_system import is_reserved, nfc
from libraries.data.class_folders import problem_of_label
from libraries.web.store.address import PACKAGES
from libraries.web.store.problems import explained

MAX_NAME_BYTES = 240  # of a file: systems allow 255, and notebooks may add a number
MAX_PATH_BYTES = 1024  # what S3 allows
MOST_OBJECTS = 100_000_000  # a list must end, and the disk holds it
MOST_BYTES = 2**62  # of an object, if its size is a number at all
MAX_VERSION = 100  # characters; an ETag has 32 or a few more
_FORBIDDEN = '\\:*?"<>|' if os.name == "nt" else "\\?"  # '?': s3fs takes the rest for a version
_DRIVE = re.compile(r"[A-Za-z]:")

# What identifies the content of an object, the best first, as the backends call it.
_VERSIONS = ("ETag", "etag", "md5Hash", "md5", "content_md5", "checksum", "LastModified", "last_modified", "updated")
_TIMES = ("mtime", "modified", "timeModified")


# Backends log requests, with their signatures, and answers.
_LOGGERS = ("asyncio", "fsspec", "s3fs", "botocore", "aiobotocore", "gcsfs", "google", "adlfs", "azure", "ocifs", "oci")


class StoredObject(NamedTuple):
    """An object: its path below the folder, its size [bytes], and what changes with its content ('' if unknown)."""

    path: str
    size: int
    version: str


class Store:
    """A folder in an object store. Read by many threads.

    Attributes:
        url: its address, checked.
    """

    def __init__(self, url: str, *, timeout: float) -> None:
        """Open the store, which asks it nothing yet.

        Args:
            timeout: seconds for one object; only of backends that can be interrupted: those of S3, Google and Azure.

        Raises:
            InputError: the package for this kind of store is not installed, or is set up wrongly.
        """
        self.url = url
        for name in _LOGGERS:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        scheme = url.partition("://")[0]
        try:
            from fsspec.core import url_to_fs

            self._fs, self._root = url_to_fs(url, use_listings_cache=False, skip_instance_cache=True)
        except (ImportError, ValueError) as error:
            package = PACKAGES[scheme]
            if isinstance(error, ImportError) or "Protocol not known" in str(error):
                raise InputError(
                    f"{scheme}:// needs the package {package}, which is not installed: pip install {package}"
                ) from None
            raise self._failure(explained(error)) from None
        except Exception as error:  # of the backend, which looks for credentials
            raise self._failure(explained(error)) from None
        self._is_s3 = hasattr(self._fs, "call_s3")
        self._timeout = {"timeout": timeout} if getattr(self._fs, "async_impl", False) else {}

    def read(self, path: str, *, most: int) -> bytes:
        """The beginning of an object, of at most `most` bytes.

        Raises:
            DownloadError: it cannot be read.
        """
        name = f"{self._root}/{path}"
        try:
            if not self._is_s3:
                data: bytes = self._fs.cat_file(name, start=0, end=most, **self._timeout)
                return data
            from fsspec.asyn import sync

            data = sync(self._fs.loop, self._read_s3, name, most, **self._timeout)
            return data
        except Exception as error:
            raise explained(error) from None

    async def _read_s3(self, name: str, most: int) -> bytes:
        """`cat_file` of s3fs takes as much as a server sends, whatever it was asked for."""
        bucket, key, _ = self._fs.split_path(name)
        answer = await self._fs._call_s3("get_object", Bucket=bucket, Key=key, **self._fs.req_kw)
        data = bytearray()
        async with answer["Body"] as body:
            while len(data) < most and (part := await body.read(most - len(data))):
                data += part
        return bytes(data)

    def objects(self) -> Iterator[StoredObject]:
        """All objects below the folder, without folders and the markers of empty ones.

        S3 is listed page by page. Other backends give whole lists: one of the folder, and one for each folder in it.

        Raises:
            InputError: the folder cannot be listed, or is an object.
        """
        try:
            for number, each in enumerate(self._pages() if self._is_s3 else self._folders()):
                if number == MOST_OBJECTS:
                    raise InputError(f"{self.url} holds more than {MOST_OBJECTS:,} objects: give a folder in it")
                if not (each.path == "" or (each.path.endswith("/") and not each.size)):
                    yield each
        except InputError:
            raise
        except Exception as error:
            raise self._failure(explained(error)) from None

    def _pages(self) -> Iterator[StoredObject]:
        """From s3fs: its own lists of a million objects take a gigabyte, and of many folders, many minutes."""
        bucket, key, _ = self._fs.split_path(self._root)
        prefix = f"{key}/" if key else ""
        request = {"Bucket": bucket, "Prefix": prefix, **self._fs.req_kw}
        is_empty = True
        while True:
            page = self._fs.call_s3("list_objects_v2", **request, **self._timeout)
            for each in page.get("Contents", []):
                is_empty = False
                yield StoredObject(each["Key"].removeprefix(prefix), each["Size"], _version(each))
            if not page.get("IsTruncated"):
                break
            if request.get("ContinuationToken") == page["NextContinuationToken"]:
                raise InputError(f"{self.url} cannot be listed: the store gives one part of its list again and again")
            request["ContinuationToken"] = page["NextContinuationToken"]
        if is_empty and key:
            request = {"Bucket": bucket, "Prefix": key, "MaxKeys": 1, **self._fs.req_kw}
            same = self._fs.call_s3("list_objects_v2", **request, **self._timeout)
            self._refuse_object(any(each["Key"] == key for each in same.get("Contents", [])))

    def _folders(self) -> Iterator[StoredObject]:
        """From any other backend."""
        top = self._fs.ls(self._root, detail=True)
        self._refuse_object([self._name(each) for each in top if each["type"] == "file"] == [self._root])
        yield from self._below(each for each in top if each["type"] == "file")
        for folder in [self._name(each) for each in top if each["type"] == "directory"]:
            if folder.rstrip("/") != self._root:
                found = self._fs.find(folder, detail=True)
                while found:  # what was taken up needs no memory any more
                    yield from self._below([found.popitem()[1]])

    def _below(self, infos: Iterable[dict[str, Any]]) -> Iterator[StoredObject]:
        for info in infos:
            if info.get("type", "file") == "file":
                path = self._name(info).removeprefix(f"{self._root}/")
                yield StoredObject(path, int(info.get("size") or 0), _version(info))

    def _name(self, info: dict[str, Any]) -> str:
        return str(info["name"])

    def _refuse_object(self, is_object: bool) -> None:
        if is_object:
            raise InputError(f"{self.url} is one object: give the folder above it, which holds one folder per class")

    def _failure(self, error: DownloadError) -> InputError:
        """The error for a folder that cannot be listed."""
        advice = {
            "not found": "is its bucket spelled so?",
            "no credentials": "set them where its own tools look for them; of S3, FSSPEC_S3_ANON=true needs none",
            "access denied": "check the credentials, and whether they may list and read this folder",
            "no connection": "check the network and, if it is not that of the cloud itself, the address of the store",
        }.get(error.reason, "run again later" if error.passing else "check imgStoreUrl, and how the store is set up")
        return InputError(f"{self.url} cannot be listed: {error.reason} ({error.detail}): {advice}")


def _version(info: dict[str, Any]) -> str:
    found = str(next((value for name in (*_VERSIONS, *_TIMES) if (value := info.get(name))), "")).strip('"')
    is_plain = len(found) <= MAX_VERSION and found.isprintable()
    return found if is_plain else hashlib.sha256(found.encode(errors="replace")).hexdigest()


def is_hidden(path: str) -> bool:
    """Whether a part of a path begins with a dot, as the names of hidden files do."""
    return any(part.startswith(".") and part not in (".", "..") for part in path.split("/"))


def problem_of(path: str) -> str | None:
    """Why an object of this path cannot be a file in a class's folder; None if it can."""
    label, slash, inside = path.partition("/")
    if any(part in ("", ".", "..") for part in path.split("/")):
        return "a part of its path is empty or only dots"
    if len(path.encode(errors="replace")) > MAX_PATH_BYTES:
        return f"its path is longer than {MAX_PATH_BYTES} bytes"
    if not slash:
        return _problem_of_part(path) or "it is in no folder, so without a class"
    if problem := _problem_of_part(label) or problem_of_label(nfc(label)):
        return problem
    return next((problem for part in inside.split("/") if (problem := _problem_of_part(part))), None)


def _problem_of_part(part: str) -> str | None:
    if any(character in _FORBIDDEN for character in part) or _DRIVE.match(part):
        return f"its path holds one of {' '.join(_FORBIDDEN)}, or the name of a drive"
    if any(unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") for character in part):
        return "its path holds control characters"
    if part != part.strip() or part.endswith("."):
        return "a part of its path begins or ends with a blank, or ends with a dot"
    if is_reserved(part):
        return "Windows reserves a part of its path"
    if len(part.encode()) > MAX_NAME_BYTES:
        return f"a part of its path is longer than {MAX_NAME_BYTES} bytes"
    return None


def folded(path: str) -> str:
    """Equal for paths that are one on systems that ignore case, or the form of Unicode."""
    return nfc(nfc(path).casefold())
