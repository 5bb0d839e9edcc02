"""Writes CNTK v2 model files from the values that the reader gives, so that tests can build and alter models.

contents = read_contents(path)
contents["inputs"][1]["value"] = np.zeros((3, 1, 1), np.float32)
other.write_bytes(encode(contents))
"""

import struct
from typing import Any

import numpy as np

from libraries.cntk.wire import BYTES, FIXED64, MAGIC, VARINT, Axis, Shape

VERSION = 2  # of dictionaries and of their values
ARRAYS = {"f4": (1, 4), "f8": (2, 5)}  # dtype → its number, and the field with the values


def encode(dictionary: dict[str, Any], *, split: bool = False) -> bytes:
    """The file with this dictionary; `split` as those above 2 GB are: the arrays' values behind all else."""
    payload = bytearray()
    message = _dictionary(dictionary, payload if split else None)
    return MAGIC + struct.pack("<I", len(message)) + message + bytes(payload) if split else message


def same(a: Any, b: Any) -> bool:
    """Whether two values of a file are equal in every type, number and array."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b or (a != a and b != b))


def varint(value: int) -> bytes:
    """A number of up to 64 bits, below 0 as its two's complement."""
    value &= 0xFFFFFFFFFFFFFFFF
    parts = bytearray()
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


def field(number: int, content: int | float | bytes) -> bytes:
    """A field of a message."""
    if isinstance(content, float):
        return varint(number << 3 | FIXED64) + struct.pack("<d", content)
    if isinstance(content, int):
        return varint(number << 3 | VARINT) + varint(content)
    return varint(number << 3 | BYTES) + varint(len(content)) + content


def _dictionary(entries: dict[str, Any], payload: bytearray | None) -> bytes:
    parts = [field(1, VERSION)]
    for key, value in entries.items():
        parts.append(field(2, field(1, key.encode()) + field(2, _value(value, payload))))
    return b"".join(parts)


def _value(value: Any, payload: bytearray | None) -> bytes:
    kind, content = _content(value, payload)
    return field(1, VERSION) + field(2, kind) + (field(kind + 2, content) if kind else b"")


def _content(value: Any, payload: bytearray | None) -> tuple[int, int | float | bytes]:
    """The number of a value's type, and the value as its field."""
    match value:
        case None:
            return 0, b""
        case bool():
            return 1, int(value)
        case int():
            return (2 if value < 0 else 3), value
        case float():
            return 5, value
        case str():
            return 6, value.encode()
        case Shape():
            return 7, _shape(value)
        case Axis():
            return 8, field(1, value.index) + field(2, value.name.encode())
        case list():
            return 9, b"".join(field(1, _value(item, payload)) for item in value)
        case dict():
            return 10, _dictionary(value, payload)
        case np.ndarray():
            return 11, _array(value, payload)
    raise TypeError(f"a {type(value).__name__} in a CNTK file")


def _shape(sizes: tuple[int, ...]) -> bytes:
    return field(1, b"".join(map(varint, sizes)))


def _array(values: np.ndarray, payload: bytearray | None) -> bytes:
    number, place = ARRAYS[values.dtype.str[1:]]
    head = field(1, number) + field(3, _shape(values.shape[::-1]))
    if payload is None:
        return head + field(place, field(1, values.tobytes()))
    payload += values.tobytes()
    return head
