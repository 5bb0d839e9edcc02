"""The content of a CNTK v2 model file as plain Python values, read within limits and without copying any weights.

A file is one protobuf message, as CNTK's own CNTK.proto describes it (https://github.com/microsoft/CNTK, folder
Source/CNTKv2LibraryDll/proto):

    Dictionary       1: version   2: map of string → DictionaryValue
    DictionaryValue  1: version   2: type   and in field 2 + type the value, of the type
                     1 bool  2 int32  3 uint64  4 float  5 double  6 string  7 NDShape  8 Axis  9 Vector
                     10 Dictionary  11 NDArrayView
    NDShape          1: packed uint64, fastest varying axis first
    Axis             1: int32 index   2: string name
    Vector           1: DictionaryValue, repeated
    NDArrayView      1: data type   2: storage format   3: NDShape   4, 5, 6: a message with the values in its field 1

Above 2 GB, the message comes after the magic number `ktnc` and its length in 32 bits, and is followed by the values of
its arrays, in order.
"""

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

MAGIC = b"ktnc"
V1_MAGIC = "BCN\0".encode("utf-16-le")
MAX_DEPTH = 32  # of nested values; CNTK's own files reach 9
MAX_FIELDS = 1_000_000  # of messages, read in a second; a ResNet-152 has about 170,000
MAX_TEXT = 10_000  # bytes
MAX_RANK = 16
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
VALUE = {2: VARINT, 3: VARINT, 4: VARINT, 5: VARINT, 6: FIXED32, 7: FIXED64} | dict.fromkeys(range(8, 14), BYTES)
DTYPES: dict[int, "np.dtype[Any]"] = {  # of the values of an array, by its data type
    1: np.dtype("<f4"),
    2: np.dtype("<f8"),
    4: np.dtype("<f4"),  # Float16, stored in 32 bits
}


class ModelError(ValueError):
    """What is wrong with a model, without its path; always one line, whatever names the file contains."""

    def __init__(self, text: str) -> None:
        super().__init__(shown(text, 500))


def shown(text: str, length: int) -> str:
    """A text that contains parts of a file, made safe for a message: one line of at most `length` characters."""
    text = text if len(text) <= length else text[: length - 1] + "…"
    return "".join(character if character.isprintable() else "?" for character in text)


@dataclass(frozen=True)
class Axis:
    """An axis as a file names it: fastest varying first, or by a name such as 'defaultBatchAxis'."""

    index: int
    name: str


class Shape(tuple[int, ...]):
    """Sizes in the file's order, fastest varying axis first; negative where a size is not known."""


def read_contents(path: Path) -> dict[str, Any]:
    """The dictionary in a CNTK v2 file.

    Its values are bool, int, float, str, Shape, Axis, list, dict, and NumPy arrays, slowest varying axis first. The
    arrays are views of the file, which is mapped read-only into memory.

    Raises:
        ModelError: not such a file, damaged, of CNTK's version 1, or beyond the limits of this module.
        OSError: the file cannot be opened.
    """
    with path.open("rb") as file:
        if not path.stat().st_size:
            raise ModelError("the file is empty")
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    return parse(data)


def parse(data: memoryview) -> dict[str, Any]:
    """As `read_contents`, from bytes."""
    if data[: len(V1_MAGIC)] == V1_MAGIC:
        raise ModelError(
            "a file of CNTK's version 1 (BrainScript), which is not read: load it in CNTK 2.x and save it from there"
        )
    message, payload = data, None
    if data[:4] == MAGIC:
        if len(data) < 8:
            raise ModelError("the file ends too early")
        (length,) = struct.unpack_from("<I", data, 4)
        if length > len(data) - 8:
            raise ModelError("the file ends too early")
        message, payload = data[8 : 8 + length], data[8 + length :]
    reader = _Reader(payload)
    dictionary = reader.dictionary(message, 0)
    if payload is not None and reader.taken != len(payload):
        raise ModelError(f"{len(payload) - reader.taken:,} extra bytes after its last array")
    return dictionary


class _Reader:
    """Reads one message; `payload` is what follows it in the layout for large files."""

    def __init__(self, payload: memoryview | None) -> None:
        self.payload, self.taken = payload, 0
        self.count = 0  # of the fields read

    def dictionary(self, data: memoryview, depth: int) -> dict[str, Any]:
        if depth > MAX_DEPTH:
            raise ModelError(f"values are nested deeper than {MAX_DEPTH}")
        entries: dict[str, Any] = {}
        for number, kind, field in self.fields(data):
            if number == 2:
                parts = self.single(_bytes(kind, field), {1: BYTES, 2: BYTES})
                key = _text(parts.get(1, b""))
                if key in entries:
                    raise ModelError(f"the entry {key!r} occurs twice in one dictionary")
                entries[key] = self.value(parts.get(2, memoryview(b"")), depth + 1)
        return entries

    def value(self, data: memoryview, depth: int) -> Any:
        parts = self.single(data, VALUE)
        kind = parts.get(2, 0)
        if kind == 0:
            return None
        if kind > 11 or kind + 2 not in parts:
            raise ModelError("a value without its content")
        content = parts[kind + 2]
        match kind:
            case 1:
                return bool(content)
            case 2:
                return _signed(content)
            case 3:
                return content
            case 4:
                return struct.unpack("<f", content)[0]
            case 5:
                return struct.unpack("<d", content)[0]
            case 6:
                return _text(content)
            case 7:
                return self.shape(content)
            case 8:
                return self.axis(content)
            case 9:
                if depth > MAX_DEPTH:
                    raise ModelError(f"values are nested deeper than {MAX_DEPTH}")
                return [self.value(_bytes(k, f), depth + 1) for number, k, f in self.fields(content) if number == 1]
            case 10:
                return self.dictionary(content, depth + 1)
        return self.array(content)

    def array(self, data: memoryview) -> npt.NDArray[Any]:
        """An NDArrayView as an array with its axes reversed, slowest varying first."""
        parts = self.single(data, {1: VARINT, 2: VARINT, 3: BYTES, 4: BYTES, 5: BYTES, 6: BYTES, 7: BYTES})
        if parts.get(1, 0) not in DTYPES:
            raise ModelError(f"an array of the data type {parts.get(1, 0)}, which is not read")
        if parts.get(2, 0):
            raise ModelError("a sparse array, which is not read")
        dtype, shape = DTYPES[parts[1]], self.shape(parts.get(3, memoryview(b"")))[::-1]
        if min(shape, default=1) < 1:
            raise ModelError(f"an array of the shape {list(shape)}")
        size = dtype.itemsize
        for length in shape:
            size *= length
        values = next((self.single(parts[field], {1: BYTES}).get(1) for field in (4, 5) if field in parts), None)
        if values is None and self.payload is not None:
            values = self.payload[self.taken : self.taken + size]
            self.taken += len(values)
        if values is None or len(values) != size:
            raise ModelError(f"an array of {size:,} bytes holds {0 if values is None else len(values):,}")
        return np.frombuffer(values, dtype).reshape(shape)

    def shape(self, data: memoryview) -> Shape:
        sizes: list[int] = []
        for number, kind, field in self.fields(data):
            if number == 1 and kind == VARINT:
                sizes.append(_signed(field))
            elif number == 1 and kind == BYTES:
                position = 0
                while position < len(field):
                    size, position = _varint(field, position)
                    sizes.append(_signed(size))
                    if len(sizes) > MAX_RANK:
                        break
            if len(sizes) > MAX_RANK:
                raise ModelError(f"a shape of more than {MAX_RANK} axes")
        return Shape(sizes)

    def axis(self, data: memoryview) -> Axis:
        parts = self.single(data, {1: VARINT, 2: BYTES})
        return Axis(_signed(parts.get(1, 0)), _text(parts.get(2, b"")))

    def fields(self, data: memoryview) -> Iterator[tuple[int, int, Any]]:
        """Yield the fields of a message: number, kind, and an int (VARINT) or the bytes of the value."""
        position, end = 0, len(data)
        while position < end:
            self.count += 1
            if self.count > MAX_FIELDS:
                raise ModelError(f"more than {MAX_FIELDS:,} fields")
            tag, position = _varint(data, position)
            kind = tag & 7
            if kind == VARINT:
                value, position = _varint(data, position)
                yield tag >> 3, kind, value
                continue
            if kind == BYTES:
                length, position = _varint(data, position)
            elif kind == FIXED32:
                length = 4
            elif kind == FIXED64:
                length = 8
            else:
                raise ModelError("not a model of CNTK 2, or damaged")
            if length > end - position:
                raise ModelError("not a model of CNTK 2, or cut off")
            yield tag >> 3, kind, data[position : position + length]
            position += length

    def single(self, data: memoryview, kinds: dict[int, int]) -> dict[int, Any]:
        """The fields of a message that has each of them at most once, by number; others are ignored."""
        parts = {}
        for number, kind, value in self.fields(data):
            if number in kinds:
                if kind != kinds[number] or number in parts:
                    raise ModelError("not a model of CNTK 2, or damaged")
                parts[number] = value
        return parts


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    """An unsigned number of up to 64 bits, and where the next field begins."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise ModelError("not a model of CNTK 2, or cut off")
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & 0xFFFFFFFFFFFFFFFF, position
    raise ModelError("not a model of CNTK 2, or damaged")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _bytes(kind: int, field: Any) -> memoryview:
    if kind != BYTES:
        raise ModelError("not a model of CNTK 2, or damaged")
    return field  # type: ignore[no-any-return]


def _text(data: memoryview | bytes) -> str:
    if len(data) > MAX_TEXT:
        raise ModelError(f"a text of {len(data):,} bytes")
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError as error:
        raise ModelError("a text that is not UTF-8") from error
