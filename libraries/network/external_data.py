"""Whether an ONNX file takes values from other files, which a stranger's could name anywhere on the machine.

The file is one protobuf message (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto). Only what can hold a tensor
is looked into, so nothing but this module is needed, and a large network takes milliseconds.
"""

from collections.abc import Iterator

_GRAPH, _FUNCTION, _NODE, _ATTRIBUTE, _TENSOR, _SPARSE, _TRAINING = range(1, 8)
_INSIDE = {  # of a kind of message, the kinds in its fields; the model's own is 0
    0: {7: _GRAPH, 20: _TRAINING, 25: _FUNCTION},
    _GRAPH: {1: _NODE, 5: _TENSOR, 15: _SPARSE},
    _TRAINING: {1: _GRAPH, 2: _GRAPH},
    _FUNCTION: {7: _NODE, 11: _ATTRIBUTE},
    _NODE: {5: _ATTRIBUTE},
    _ATTRIBUTE: {5: _TENSOR, 6: _GRAPH, 10: _TENSOR, 11: _GRAPH, 22: _SPARSE, 23: _SPARSE},
    _SPARSE: {1: _TENSOR, 2: _TENSOR},
    _TENSOR: {},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # of a tensor
_MAX_DEPTH = 64


def has_external_data(onnx: bytes) -> bool:
    """Whether any tensor of a network lies in another file.

    Raises:
        ValueError: no whole protobuf message.
    """
    waiting = [(memoryview(onnx), 0, 0)]
    while waiting:
        message, kind, depth = waiting.pop()
        if depth > _MAX_DEPTH:
            raise ValueError("its graphs are too deep")
        for field, value in _fields(message):
            if kind == _TENSOR and (field == _EXTERNAL_DATA or (field == _DATA_LOCATION and value != 0)):
                return True
            if isinstance(value, memoryview) and field in _INSIDE[kind]:
                waiting.append((value, _INSIDE[kind][field], depth + 1))
    return False


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of every field, in order: numbers, or bytes."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        size = {1: 8, 5: 4}.get(tag & 7)
        if tag & 7 == 0:
            value, position = _varint(message, position)
            yield tag >> 3, value
            continue
        if tag & 7 == 2:
            size, position = _varint(message, position)
        if size is None or position + size > len(message):
            raise ValueError("it is cut off or damaged")
        yield tag >> 3, message[position : position + size]
        position += size


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """A number of variable length, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            break
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("it is cut off or damaged")
