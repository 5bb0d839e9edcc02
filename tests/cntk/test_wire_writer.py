"""What the writer of the tests writes is what the reader read."""

import numpy as np
import pytest

from libraries.cntk.wire import Axis, Shape, parse
from tests.cntk.goldens import golden
from tests.cntk.mutations import SMALL
from tests.cntk.wire_writer import encode, same


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("name", SMALL)
def test_round_trip(name: str, split: bool) -> None:
    values = parse(memoryview(golden(f"{name}.model")))
    assert same(parse(memoryview(encode(values, split=split))), values)


def test_every_kind_of_value() -> None:
    values = {
        "none": None, "yes": True, "no": False, "small": 0, "large": 2**64 - 1, "negative": -(2**31), "half": 0.5,
        "nan": float("nan"), "text": "Größe", "shape": Shape((3, -1, 2**40)), "axis": Axis(-3, "defaultBatchAxis"),
        "list": [1, "a", [None]], "dictionary": {"a": {}},
        "arrays": [np.arange(6, dtype=dtype).reshape(3, 2) for dtype in (np.float32, np.float64)],
        "scalar": np.zeros((), np.float32),
    }  # fmt: skip
    assert same(parse(memoryview(encode(values))), values)


def test_different_values_differ() -> None:
    arrays = np.zeros(2, np.float32), np.zeros(2, np.float64), np.zeros((1, 2), np.float32), np.ones(2, np.float32)
    values = [0, False, 0.0, "", None, [], {}, Shape(), Axis(0, ""), Axis(1, ""), [0], {"a": 0}, *arrays]
    assert [[same(a, b) for b in values] for a in values] == np.eye(len(values), dtype=bool).tolist()
