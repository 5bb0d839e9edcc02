"""State dicts in PyTorch's first file format, read without PyTorch and without running what is in them.

Such a file is a row of pickles (a magic number, a version, facts about the machine, the state dict, the names of its
storages) and then the storages: each the number of its values, and the values. A pickle is a program; here its opcodes
are carried out one by one (`pickletools` tells them apart), only those that tensors by name need, and it can name
nothing but the few classes below. Every size is checked against the file's before memory is taken.

The format is that of torch.save(..., _use_new_zipfile_serialization=False), the only one before PyTorch 1.6.
"""

import io
import math
import pickletools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from libraries.base.errors import NetworkError
from libraries.base.file_system import read_regular

MAX_FILE_BYTES = 2**31
MAX_OPCODES = 1_000_000  # in one pickle; EfficientNet-Lite2 has 14,000
MAX_DIMENSIONS = 8
MAGIC = 0x1950A86A20F9469CFC6C
VERSION = 1001
DTYPES = {"FloatStorage": "<f4", "HalfStorage": "<f2", "DoubleStorage": "<f8", "LongStorage": "<i8"}

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class _Name:
    """A class or function that a pickle names."""

    name: str


@dataclass(frozen=True)
class _Storage:
    """Values that tensors are views of: which, and how many."""

    key: str
    dtype: str
    length: int


@dataclass(frozen=True)
class _Tensor:
    """A view of a storage; all counted in values."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


_MARK = object()
_NAMES = {
    "collections OrderedDict": _Name("dict"),
    "torch._utils _rebuild_tensor_v2": _Name("tensor"),
    **{f"torch {name}": _Name(name) for name in DTYPES},
}


def read_torch_file(path: Path) -> dict[str, Array]:
    """The tensors of a state dict by name.

    Raises:
        NetworkError: not a file of this format, damaged, or a pickle that needs more than tensors by name.
    """
    try:
        data = read_regular(path, most=MAX_FILE_BYTES)
        return _read(data)
    except (OSError, ValueError, KeyError, IndexError, TypeError, OverflowError) as error:
        reason = f"there is no {error}" if isinstance(error, KeyError) else error
        raise NetworkError(f"{path} cannot be read as weights ({reason})") from error


def _read(data: bytes) -> dict[str, Array]:
    file = io.BytesIO(data)
    if _load(file) != MAGIC or _load(file) != VERSION:
        raise ValueError("it is not in PyTorch's first file format")
    _load(file)  # facts about the machine
    state, keys = _load(file), _load(file)
    if not isinstance(state, dict) or not all(isinstance(value, _Tensor) for value in state.values()):
        raise ValueError("it is not a state dict, tensors by name")
    dtypes = {tensor.storage.key: tensor.storage.dtype for tensor in state.values()}
    values: dict[str, Array] = {}
    for key in keys:
        (length,) = np.frombuffer(data, "<i8", 1, file.tell())
        values[key] = np.frombuffer(data, dtypes[key], int(length), file.tell() + 8)
        file.seek(8 + values[key].nbytes, io.SEEK_CUR)
    return {name: _view(tensor, values[tensor.storage.key]) for name, tensor in state.items()}


def _view(tensor: _Tensor, values: Array) -> Array:
    """The values of a tensor, after making sure that all of them are stored, and none twice."""
    count = math.prod(tensor.shape)
    last = tensor.offset + sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.strides, strict=True))
    if len(values) != tensor.storage.length or count > len(values) or (count and last >= len(values)):
        raise ValueError("a tensor has more values than are stored")
    strides = [stride * values.itemsize for stride in tensor.strides]
    view = np.lib.stride_tricks.as_strided(values[tensor.offset :], tensor.shape, strides, writeable=False)
    return np.array(view, order="C")


def _load(file: io.BytesIO) -> Any:
    """Carry out the next pickle."""
    machine = _Machine()
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # about escape sequences in names
        for number, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if number > MAX_OPCODES:
                raise ValueError("it is too long")
            if opcode.name == "STOP":
                return machine.stack.pop()
            machine.do(opcode.name, argument)
    raise ValueError("it is cut off")


class _Machine:
    """The stack machine that a pickle is written for, with as few instructions as possible."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self._instructions: dict[str, Callable[[Any], None]] = {
            "PROTO": lambda version: None,
            "MARK": lambda _: self.stack.append(_MARK),
            "NONE": lambda _: self.stack.append(None),
            "NEWTRUE": lambda _: self.stack.append(True),
            "NEWFALSE": lambda _: self.stack.append(False),
            "EMPTY_DICT": lambda _: self.stack.append({}),
            "EMPTY_LIST": lambda _: self.stack.append([]),
            "EMPTY_TUPLE": lambda _: self.stack.append(()),
            "TUPLE1": lambda _: self.stack.append(self._taken(1)),
            "TUPLE2": lambda _: self.stack.append(self._taken(2)),
            "TUPLE3": lambda _: self.stack.append(self._taken(3)),
            "TUPLE": lambda _: self.stack.append(self._since_mark()),
            "GLOBAL": lambda name: self.stack.append(_NAMES[name]),
            "REDUCE": lambda _: self._reduce(),
            "BINPERSID": lambda _: self.stack.append(_storage(*self.stack.pop())),
            "APPEND": lambda _: self._extend(self._taken(1)),
            "APPENDS": lambda _: self._extend(self._since_mark()),
            "SETITEM": lambda _: self._update(self._taken(2)),
            "SETITEMS": lambda _: self._update(self._since_mark()),
            "BUILD": lambda _: self.stack.pop(),  # `_metadata`, an attribute of the state dict
            **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE"), self.stack.append),
            **dict.fromkeys(("BINPUT", "LONG_BINPUT"), self._memorise),
            **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda place: self.stack.append(self.memo[place])),
        }

    def do(self, instruction: str, argument: Any) -> None:
        if instruction not in self._instructions:
            raise ValueError(f"its pickle has the opcode {instruction}, which tensors by name do not need")
        self._instructions[instruction](argument)

    def _memorise(self, place: int) -> None:
        self.memo[place] = self.stack[-1]

    def _taken(self, count: int) -> tuple[Any, ...]:
        if len(self.stack) < count:
            raise ValueError("its pickle is damaged")
        taken = tuple(self.stack[-count:])
        del self.stack[-count:]
        return taken

    def _since_mark(self) -> tuple[Any, ...]:
        mark = len(self.stack) - 1
        while self.stack[mark] is not _MARK:  # an IndexError where there is none
            mark -= 1
        taken = tuple(self.stack[mark + 1 :])
        del self.stack[mark:]
        return taken

    def _extend(self, items: tuple[Any, ...]) -> None:
        if not isinstance(self.stack[-1], list):
            raise ValueError("its pickle is damaged")
        self.stack[-1].extend(items)

    def _update(self, items: tuple[Any, ...]) -> None:
        target, keys = self.stack[-1], items[::2]
        if not isinstance(target, dict) or len(items) % 2 or not all(isinstance(key, str) for key in keys):
            raise ValueError("its pickle is damaged")
        target.update(zip(keys, items[1::2], strict=True))

    def _reduce(self) -> None:
        name, arguments = self._taken(2)
        if name == _Name("dict") and arguments == ():
            self.stack.append({})
        elif name == _Name("tensor"):
            storage, offset, shape, strides, *_ = arguments
            self.stack.append(_tensor(storage, offset, shape, strides))
        else:
            raise ValueError("its pickle calls something else than tensors by name need")


def _storage(*facts: Any) -> _Storage:
    kind, of_type, key, _, length, *view = facts
    is_typed = isinstance(of_type, _Name) and isinstance(key, str) and _is_count(length)
    if kind != "storage" or view not in ([], [None]) or not is_typed:
        raise ValueError("a storage is not described as PyTorch does")
    return _Storage(key, DTYPES[of_type.name], length)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> _Tensor:
    counts = (offset, *shape, *strides)
    if not isinstance(storage, _Storage) or len(shape) != len(strides) or not all(map(_is_count, counts)):
        raise ValueError("a tensor is not described as PyTorch does")
    if len(shape) > MAX_DIMENSIONS:
        raise ValueError(f"a tensor has {len(shape)} dimensions")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**40
