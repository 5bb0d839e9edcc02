"""Results by content: what was computed from a file, kept under the SHA-256 of its bytes.

So renaming, relabelling, another split or a removed image cost nothing, and new images cost what is new. A store is a
folder of Arrow files, part-*.arrow, each written whole under a name made from its content, and never changed: a killed
run, two runs at once, and machines that share the folder leave only whole parts. All stores of a parent folder share
one limit of size: the parts that were not used for longest go first. Everything in it can be deleted at any time.

Nothing depends on a store: a damaged part, or row, is computed again, and a store that cannot be written is told once.
"""

import contextlib
import functools
import hashlib
import itertools
import json
import logging
import os
import zlib
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt

from libraries.base.errors import ParameterError, StorageError
from libraries.base.storage import atomic_path

T = TypeVar("T")
E = TypeVar("E")

Row = Mapping[str, npt.NDArray[Any]]

ROWS_PER_PART = 1024
SMALL_PART = ROWS_PER_PART // 2  # rows; below this, parts are merged
MOST_SMALL_PARTS = 8
OPEN_PARTS = 16  # mapped into memory at once: rows that were stored together are mostly read together
PARTS = "part-*.arrow"
TYPES = ("float32", "float64", "int64", "uint8")

logger = logging.getLogger(__name__)


class ContentStore:
    """Rows of arrays by SHA-256; a context manager, which keeps what was put when it is left, however it is left."""

    def __init__(self, folder: Path, *, most_bytes: int) -> None:
        """
        Args:
            folder: of this store alone: rows are comparable, each with the same arrays; it need not exist.
            most_bytes: of all stores beside it together; 0: it is neither read nor written.
        """
        self._folder, self._most_bytes = folder, most_bytes
        self._part = functools.lru_cache(OPEN_PARTS)(_Part)
        self._place: dict[str, tuple[Path, int]] = {}
        self._sizes: dict[Path, int] = {}
        self._used: set[Path] = set()
        self._new: dict[str, Row] = {}
        self._is_writable = most_bytes > 0
        self.look_again()

    def for_others(self) -> Path:
        """The folder, for other processes to put rows into by `write_rows`.

        These may exceed the limit until the next run with new rows.

        Raises:
            ParameterError: nothing is kept.
        """
        if not self._most_bytes:
            raise ParameterError("a cluster puts its results into the store: set storeGigabytes above 0")
        return self._folder

    def look_again(self) -> None:
        """Find the parts that others have written."""
        for path in sorted(self._folder.glob(PARTS)) if self._most_bytes else ():
            with contextlib.suppress(_Damaged):
                if path not in self._sizes:
                    keys = _Part(path).keys()
                    self._place |= {key: (path, row) for row, key in enumerate(keys)}
                    self._sizes[path] = len(keys)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._new:
            self._merge_small_parts()
            self._write()
        for path in self._used:
            with contextlib.suppress(OSError):
                os.utime(path)
        self._part.cache_clear()

    def get(self, key: str) -> Row | None:
        """The row of a content; None if it is not known."""
        if (new := self._new.get(key)) is not None:
            return new
        path, row = self._place.get(key, (None, 0))
        if path is None:
            return None
        try:
            found = self._part(path).row(row)
        except _Damaged:
            self._place.pop(key, None)
            return None
        self._used.add(path)
        return found

    def put(self, key: str, row: Row) -> None:
        """Keep the row of a content."""
        self._new[key] = row
        if len(self._new) >= ROWS_PER_PART:
            self._write()

    def through(
        self, items: Iterable[T], run: Callable[[Iterable[T]], Generator[tuple[T, Row | E]]], *, key: Callable[[T], str]
    ) -> Generator[tuple[T, Row | E]]:
        """Yield, in order, each item with its row, known or computed, or with what `run` gives instead of a row.

        Args:
            run: the items whose rows are not known → (item, row or another result), in the same order; not called if
                there are none.
            key: item → SHA-256 of its content.
        """
        waiting: deque[T] = deque()  # taken from `items`, not yet yielded

        def missing() -> Iterator[T]:
            for item in items:
                waiting.append(item)
                if key(item) not in self:
                    yield item

        def computed() -> Generator[tuple[T, Row | E]]:
            unknown = missing()
            for first in unknown:
                yield from self._kept(run(itertools.chain([first], unknown)), key)

        with contextlib.closing(computed()) as results:
            for item, result in results:
                while (known := waiting.popleft()) is not item:
                    yield from self._known_or_computed(known, run, key)
                yield item, result
        for known in waiting:
            yield from self._known_or_computed(known, run, key)

    def __contains__(self, key: str) -> bool:
        return key in self._new or key in self._place

    def _known_or_computed(
        self, item: T, run: Callable[[Iterable[T]], Generator[tuple[T, Row | E]]], key: Callable[[T], str]
    ) -> Generator[tuple[T, Row | E]]:
        """An item whose row was there a moment ago; if it is damaged, or was deleted since, it is computed."""
        if (row := self.get(key(item))) is not None:
            yield item, row
        else:
            yield from self._kept(run([item]), key)

    def _kept(self, results: Generator[tuple[T, Row | E]], key: Callable[[T], str]) -> Generator[tuple[T, Row | E]]:
        """The results; rows among them are kept."""
        with contextlib.closing(results):
            for item, result in results:
                if isinstance(result, Mapping):
                    self.put(key(item), result)
                yield item, result

    def _write(self) -> None:
        """Write the new rows as a part, unless the store cannot be written; then make room."""
        rows, self._new = self._new, {}
        if not rows or not self._is_writable:
            return
        try:
            path = write_rows(self._folder, rows)
            self._sizes[path] = len(rows)
            self._place |= {key: (path, row) for row, key in enumerate(rows)}
            self._used.add(path)
            gone = _make_room(self._folder.parent, self._most_bytes, in_use=self._used)
            if gone & self._sizes.keys():  # so that `through` counts their rows among the missing ones
                self._place = {key: place for key, place in self._place.items() if place[0] not in gone}
        except (StorageError, OSError) as error:
            self._is_writable = False
            logger.warning("what is computed is not remembered: %s", error)

    def _merge_small_parts(self) -> None:
        """Take the rows of small parts into a new one, if there are many: each run with a few new images adds one."""
        small = [path for path, rows in self._sizes.items() if rows < SMALL_PART]
        if len(small) < MOST_SMALL_PARTS:
            return
        for key in [key for key, (path, _) in self._place.items() if path in small]:
            if (row := self.get(key)) is not None:
                self.put(key, {name: value.copy() for name, value in row.items()})
        self._write()
        for path in small:
            if self._is_writable and path not in {place for place, _ in self._place.values()}:
                self._sizes.pop(path)
                self._used.discard(path)
                with contextlib.suppress(OSError):
                    path.unlink()


class _Damaged(Exception):
    """A part, or a row, is not what was written."""


class _Part:
    """A part that was written, mapped into memory: columns `sha256`, `crc32`, and each array as bytes."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        try:
            with pa.memory_map(str(path)) as file:
                self._table = pa.ipc.open_file(file).read_all()
            self._table.validate()
            self._description: bytes = self._table.schema.metadata[b"arrays"]
            arrays = json.loads(self._description)
            self._arrays = {name: (TYPES[TYPES.index(dtype)], shape) for name, (dtype, shape) in arrays.items()}
            self._keys: list[bytes] = self._table["sha256"].to_pylist()
            self._checksums: list[int] = self._table["crc32"].to_pylist()
            self._columns = [self._table[name].chunk(0) for name in arrays]
        except Exception as error:  # damaged files make Arrow raise all kinds of exceptions
            raise _Damaged from error

    def keys(self) -> list[str]:
        """SHA-256 of each row, as hexadecimal digits."""
        return [key.hex() for key in self._keys if key is not None]

    def row(self, number: int) -> Row:
        """The arrays of a row, which cannot be written to."""
        try:
            stored = [column[number].as_buffer() for column in self._columns]
            if _checksum(self._description, self._keys[number], *stored) != self._checksums[number]:
                raise _Damaged
            return {
                name: np.frombuffer(buffer, dtype).reshape(shape)
                for (name, (dtype, shape)), buffer in zip(self._arrays.items(), stored, strict=True)
            }
        except Exception as error:
            raise _Damaged from error


def write_rows(folder: Path, rows: Mapping[str, Row]) -> Path:
    """Write rows, by SHA-256, as a part of the store in a folder, unless it is there; a later `look_again` finds it.

    Raises:
        StorageError, OSError: it cannot be written.
    """
    path = folder / f"part-{_name(rows)}.arrow"
    if not path.exists():
        _write_part(path, rows)
    return path


def _write_part(path: Path, rows: Mapping[str, Row]) -> None:
    import pyarrow as pa  # only where it is used: most commands start faster without

    first = next(iter(rows.values()))
    description = json.dumps({name: (value.dtype.name, value.shape) for name, value in first.items()}).encode()
    keys = [bytes.fromhex(key) for key in rows]
    stored = [[np.ascontiguousarray(row[name]).tobytes() for name in first] for row in rows.values()]
    checksums = [_checksum(description, key, *values) for key, values in zip(keys, stored, strict=True)]
    columns = {"sha256": pa.array(keys, pa.binary(32)), "crc32": pa.array(checksums, pa.uint32())}
    if taken := columns.keys() & first.keys():
        raise ValueError(f"no array may be called {', '.join(taken)}")
    for (name, value), values in zip(first.items(), zip(*stored, strict=True), strict=True):
        columns[name] = pa.array(values, pa.binary(value.nbytes))
    table = pa.table(columns).replace_schema_metadata({"arrays": description})
    with atomic_path(path) as temporary, pa.ipc.new_file(str(temporary), table.schema) as file:
        file.write_table(table)


def _checksum(*values: Any) -> int:
    """CRC-32 of bytes, one after the other."""
    return functools.reduce(lambda crc, value: zlib.crc32(value, crc), values, 0)


def _name(rows: Iterable[str]) -> str:
    """The name of a part of these rows: the same for the same rows, so that two runs at once write one file."""
    return hashlib.sha256("".join(rows).encode()).hexdigest()[:24]


def _make_room(root: Path, most_bytes: int, *, in_use: Collection[Path]) -> set[Path]:
    """Delete the parts of all stores in a folder that were not used for longest, until the others fit; which?"""
    parts = []
    for path in root.glob(f"*/{PARTS}"):
        with contextlib.suppress(OSError):  # another run has just deleted it
            status = path.stat()
            parts.append((path in in_use, status.st_mtime_ns, status.st_size, path))
    size, gone = sum(size for *_, size, _ in parts), set()
    for *_, bytes_, path in sorted(parts):
        if size <= most_bytes:
            break
        with contextlib.suppress(OSError):
            path.unlink()
        gone.add(path)
        size -= bytes_
    return gone
