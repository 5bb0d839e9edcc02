"""Atomic files, and artefacts that know what they were made from.

A file is written under a temporary name in its own folder, flushed to disk and renamed; an artefact's manifest is
written last. A process killed at any moment therefore leaves nothing that a later run takes for complete.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

from libraries.base.errors import MissingInput, PipelineError, StaleInput, StorageError
from libraries.base.file_system import (
    explained,
    flush,
    is_about,
    open_regular,
    read_regular,
    replace,
    storage_error,
    temporary_beside,
)

MAX_JSON_BYTES = 256 * 2**20


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """A binary file handle whose content appears at `path` at the end of the block, completely or not at all.

    Raises:
        StorageError: the disk is full, or the folder cannot be written.
    """
    with _replacing(path) as temporary, temporary.open("wb") as file:
        yield file
        flush(file)


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, for libraries that need a file name; renamed to `path` at the end of the block.

    It keeps the suffix, by which such libraries choose the format.

    Raises:
        StorageError: the disk is full, or the folder cannot be written.
    """
    with _replacing(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # some libraries write files that only their owner can read
        with temporary.open("r+b") as file:  # Windows cannot flush a file that was opened for reading
            flush(file)


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary path that is renamed to `path` at the end of the block, or removed."""
    temporary = temporary_beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and (is_about(error, path) or is_about(error, temporary)):
            raise storage_error(error, path) from error
        raise


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically, with Unix line endings on every system."""
    with atomic(path) as file:
        file.write(text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, indented; raises ValueError for NaN."""
    with atomic(path) as file:
        file.write(json_text(value).encode(errors="backslashreplace"))  # a path need not be Unicode: JSON's "\udcff"


def json_text(value: Any) -> str:
    """What `write_json` writes."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_json(path: Path, *, most: int = MAX_JSON_BYTES) -> Any:
    """Read a JSON file of at most `most` bytes.

    Raises:
        StorageError: it is missing, damaged or larger.
    """
    with reading(path, advice="delete it and run the script that writes it again"):
        return json.loads(read_regular(path, most=most).decode("utf-8"))


@contextlib.contextmanager
def reading(path: Path, *, advice: str) -> Iterator[None]:
    """Turn any error in the block, which reads `path`, into one that names this file.

    Args:
        advice: what to do about it, e.g. which script to run again.

    Raises:
        StorageError: the file is damaged, cut off, of another kind, or cannot be read.
    """
    try:
        yield
    except PipelineError:
        raise
    except OSError as error:
        raise StorageError(f"{path} cannot be read ({explained(error).partition(';')[0]}): {advice}") from error
    except Exception as error:  # libraries raise all kinds of exceptions for damaged files
        first, *_ = str(error).splitlines() or [""]
        if isinstance(error, LookupError | AttributeError):
            first = "it is damaged"
        raise StorageError(f"{path} cannot be read ({first or type(error).__name__}): {advice}") from error


def read_manifest(path: Path, *, made_by: str) -> dict[str, Any]:
    """The manifest of an artefact; its `files` map names to hashes.

    Raises:
        StorageError: it is damaged; names the script to run again.
    """
    with reading(path, advice=f"run {made_by} again"):
        manifest: dict[str, Any] = json.loads(read_regular(path, most=MAX_JSON_BYTES).decode())
        is_whole = isinstance(manifest, dict) and isinstance(manifest.get("files"), dict)
        if not is_whole or not all(isinstance(manifest.get(name, {}), dict) for name in ("parameters", "inputs")):
            raise ValueError("it is damaged")
        return manifest


def sha256(path: Path) -> str:
    """SHA-256 of a regular file, as hexadecimal digits."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_once(path: Path) -> str:
    """SHA-256 of a file, computed again only when its size or modification time has changed."""
    status = path.stat()
    return _sha256_of(path, status.st_ino, status.st_mtime_ns, status.st_size)


@cache
def _sha256_of(path: Path, inode: int, modified: int, size: int) -> str:
    return sha256(path)


@dataclass(frozen=True)
class Artefact:
    """Something one step writes and others read: files, and a manifest that says what they were made from.

    Attributes:
        name: used in messages.
        manifest: the JSON file written last; the artefact exists when it does.
        made_by: the script that makes it, as the user types it.
        parameters: the parameters that matter to its content, with their current values.
        inputs: the artefacts it is made from.
    """

    name: str
    manifest: Path
    made_by: str
    parameters: Mapping[str, Any]
    inputs: tuple["Artefact", ...] = ()

    @property
    def folder(self) -> Path:
        """The folder of its files."""
        return self.manifest.parent

    def recipe(self) -> dict[str, Any]:
        """What it would be made from now: parameters, and the identity of each input."""
        parameters = json.loads(json.dumps(dict(self.parameters), default=str))
        return {"parameters": parameters, "inputs": {i.name: i.identity() for i in self.inputs}}

    def key(self) -> str:
        """SHA-256 of the recipe: equal keys, equal content."""
        return hashlib.sha256(json.dumps(self.recipe(), sort_keys=True).encode()).hexdigest()

    def identity(self) -> str:
        """A hash of its files' hashes, which identifies it in the recipes of artefacts made from it.

        A network's files do not say how images are fitted to it, so that counts as well; not the default of earlier
        versions, so that what they made stays up to date.
        """
        manifest = self.read()
        made_of = manifest["files"]
        if (resize := manifest.get("resize")) and (resize["mode"] != "pad" or "detail" in resize):
            made_of = [made_of, resize]
        return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()

    def read(self) -> dict[str, Any]:
        """The manifest as written, whether or not it is up to date.

        Raises:
            MissingInput: the artefact was never finished; names the script that makes it.
            StorageError: it is damaged.
        """
        if not self.manifest.exists():
            raise MissingInput(f"{self.manifest} does not exist: run {self.made_by} first")
        return read_manifest(self.manifest, made_by=self.made_by)

    def begin(self) -> None:
        """Mark the artefact as unfinished, before its files are changed."""
        self.manifest.unlink(missing_ok=True)

    def commit(self, files: list[Path], **extra: Any) -> None:
        """Write the manifest: recipe, SHA-256 of every file, and `extra` entries."""
        hashes = {file.relative_to(self.folder).as_posix(): sha256(file) for file in files}
        write_json(self.manifest, {"made_by": self.made_by, **self.recipe(), "files": hashes, **extra})

    def is_current(self) -> bool:
        """Whether it exists and was made from the current parameters and inputs."""
        try:
            self.check()
        except (MissingInput, StaleInput, StorageError):
            return False
        return True

    def check(self) -> dict[str, Any]:
        """The manifest, after checking that it, and everything it was made from, is up to date.

        Raises:
            MissingInput: it, or something it is made from, does not exist.
            StaleInput: it was made from other parameters or inputs, or its files have changed since; names the first
                difference and the script to run.
            StorageError: a file cannot be read.
        """
        for made_from in self.inputs:
            made_from.check()
        manifest = self.read()
        recipe = self.recipe()
        for name, now in recipe["parameters"].items():
            then = manifest.get("parameters", {}).get(name)
            if then != now:
                raise StaleInput(
                    f"{self.name} was made with {name} = {_shown(then)}, but now it is {_shown(now)}: "
                    f"run {self.made_by} again"
                )
        for name, now in recipe["inputs"].items():
            if manifest.get("inputs", {}).get(name) != now:
                raise StaleInput(f"{name} has changed since {self.name} was made from it: run {self.made_by} again")
        for name, written in manifest["files"].items():
            path = self.folder / name
            if not path.exists():
                raise StaleInput(f"{path} is gone: run {self.made_by} again")
            with reading(path, advice=f"run {self.made_by} again"):
                digest = sha256_once(path)
            if digest != written:
                raise StaleInput(f"{path} was changed or damaged after it was written: run {self.made_by} again")
        return manifest


def _shown(value: Any) -> str:
    text = "none" if value is None else json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
