"""Damaged CNTK model files, each a function of its mode and seed: bytes, values, operations that nobody wrote."""

import random
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from typing import Any

import numpy as np

from libraries.cntk.graph import BLOCK, COMBINE, MEASURES, OPERATIONS
from libraries.cntk.operators import OPERATORS
from libraries.cntk.wire import Axis, Shape, parse
from tests.cntk.goldens import golden
from tests.cntk.wire_writer import encode, varint

SMALL = (
    "bn_full", "conv_groups", "dense_chw", "elementwise", "maxpool_same_s3", "plus_chan", "reduce_mean", "reshape",
    "resnet_basic_base.split", "softmax_axis0", "tanh_elu_leaky",
)  # fmt: skip
NUMBERS = {name: number for number, name in OPERATIONS.items()}
LARGE = 20_000  # bytes: goldens above are as slow as real networks, and so taken in one of ten draws

# Sizes, counts and places that a reader may trip over.
INTEGERS = [
    0, 1, -1, 2, 3, 5, 16, 17, -16, 255, 2**15, 2**24, 2**31 - 1, 2**31, -(2**31), 2**32, 2**53, 2**62, 2**63 - 1,
    2**63, 2**64 - 1,
]  # fmt: skip
INDICES = [0, 1, 2, -1, -2, -3, 3, 16, -17, 2**31 - 1, 2**31 - 2, 2**31 - 13, 2**31 - 16, 2**31 - 17, -(2**31), 2**62]
AXES = ["", "staticAxisIdx=0", "allStaticAxes", "allAxes", "defaultBatchAxis", "defaultDynamicAxis"]
TEXTS = [
    "", " ", "x", "\n", "two\nlines\r\0\x1b[31m", "Größe", "_Output_0", "features", "Mean", "Sum", "%s{}", "y" * 9_999,
    "z" * 10_001,
]  # fmt: skip
FLOATS = [0.0, -0.0, 1.0, -1.0, 1e-45, 1e39, -1e308, float("inf"), float("-inf"), float("nan")]
RARE = [
    None, True, False, [], {}, [[]], [{}], [None, 1], {"": None}, Shape(), Shape((1,) * 16), Shape((2,) * 17),
    Shape((2**31, 2**31)), Shape((2**63 - 1, 2**63 - 1, 2**63 - 1)), Shape((0, 2**62)), Shape((-1,)),
]  # fmt: skip


@cache
def goldens(names: tuple[str, ...] = SMALL) -> tuple[bytes, ...]:
    return tuple(golden(f"{name}.model") for name in names)


def mutation(mode: str, seed: int, names: tuple[str, ...] = SMALL) -> tuple[bytes, dict[str, Any]]:
    """A damaged file, and what to convert it with."""
    chance = random.Random(f"{mode} {seed}")
    files = goldens(names)
    model = chance.choice(files)
    while len(model) > LARGE and chance.random() < 0.9:
        model = chance.choice(files)
    options = {"image_size": chance.choice([(1, 1), (7, 9), (32, 32), (224, 224)])} if chance.random() < 0.2 else {}
    if chance.random() < 0.05:
        options["outputs"] = chance.choice([["F0"], ["F1", "F0"], ["sm"], ["nothing"]])
    return MODES[mode](chance, model), options


def damaged_bytes(chance: random.Random, golden: bytes) -> bytes:
    data = bytearray(golden)
    for _ in range(chance.choice([1, 1, 2, 3, 8])):
        first = chance.randrange(len(data) + 1)
        last = min(len(data), first + chance.choice([1, 1, 2, 4, 16, 200]))
        piece = bytes(data[first:last])
        other = chance.randrange(len(data) + 1)
        match chance.randrange(8):
            case 0 | 1 | 2 if piece:
                data[first] = chance.choice([0, 1, 127, 128, 255, piece[0] ^ (1 << chance.randrange(8))])
            case 3:
                del data[first:last]
            case 4:
                data[first:last] = chance.randbytes(chance.randrange(9))
            case 5:
                data[other:other] = piece
            case 6:
                data[first : first + 1] = varint(chance.choice(INTEGERS))
            case 7 if chance.random() < 0.2:
                del data[first:]
    return bytes(data)


def damaged_values(chance: random.Random, golden: bytes) -> bytes:
    contents = parse(memoryview(golden))
    for _ in range(chance.choice([1, 1, 2, 3, 8])):
        _damage(chance, contents)
    return encode(contents, split=chance.random() < 0.05)


def invented_operations(chance: random.Random, golden: bytes) -> bytes:
    """A model with more functions than it had, of any operation, on whatever there is."""
    contents = parse(memoryview(golden))
    inputs, functions = contents["inputs"], contents["primitive_functions"]
    for i in range(chance.choice([0, 0, 1, 3])):
        inputs.append({"uid": f"P{i}", "kind": chance.choice([2, 3]), "data_type": 1, "value": _array(chance)})
    sample = next((entry["shape"][::-1] for entry in inputs if entry["kind"] == 0), ())
    for i in range(chance.choice([1, 1, 2, 4])):
        uids = [entry["uid"] for entry in inputs] + [f"{function['uid']}_Output_0" for function in functions]
        added = _invented(chance, f"F{i}", uids, [function["uid"] for function in functions])
        operation = OPERATIONS[added["op"]]
        if operation in WEIGHTED and sample and chance.random() < 0.8:
            weights = np.ones(WEIGHTED[operation](chance, sample), np.float32)
            inputs.append({"uid": f"W{i}", "kind": 2, "data_type": 1, "value": weights})
            others = [chance.choice([inputs[0]["uid"], uids[-1]])]
            added["inputs"] = [*others, *[f"W{i}"] * 4] if operation == "BatchNormalization" else [f"W{i}", *others]
        functions.append(added)
        contents["root"] = f"F{i}"
    if chance.random() < 0.1:
        _damage(chance, contents)
    return encode(contents)


MODES: dict[str, Callable[[random.Random, bytes], bytes]] = {
    "bytes": damaged_bytes,
    "values": damaged_values,
    "operations": invented_operations,
}


def _kernel(chance: random.Random, sample: tuple[int, ...]) -> list[int]:
    """Of a convolution, mostly one that fits, also transposed or over channels."""
    channels = chance.choice([[sample[0]], [sample[0]], [1], [3], [2], []])
    maps = chance.choice([[1], [2], [sample[0]], [sample[0]]])
    return [*maps, *channels, *(chance.choice([1, 2, 3]) for _ in sample[1:])]


WEIGHTED: dict[str, Callable[[random.Random, tuple[int, ...]], list[int]]] = {
    "Convolution": _kernel,
    "Times": lambda chance, sample: [*sample[chance.randrange(len(sample)) :], chance.choice([1, 3])],
    "TransposeTimes": lambda chance, sample: [chance.choice([1, 3]), sample[-1]],
    "BatchNormalization": lambda chance, sample: chance.choice([[1], [sample[0]], [*sample]]),
}


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Everything in a dictionary or list, at any depth: its container and its place there."""
    found: list[tuple[Any, Any]] = []
    for key in value if isinstance(value, dict) else range(len(value)):
        found.append((value, key))
        if isinstance(value[key], (dict, list)):
            found += _places(value[key])
    return found


def _damage(chance: random.Random, contents: dict[str, Any]) -> None:
    """Change one value, or two."""
    places = _places(contents)
    if not places:
        return
    (holder, key), (other, place) = chance.choice(places), chance.choice(places)
    like = [(h, k) for h, k in places if type(h[k]) is type(holder[key])]
    match chance.randrange(10):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, list):
            holder.insert(key, deepcopy(holder[key]))
        case 2 if not isinstance(holder[key], (dict, list)) and not isinstance(other[place], (dict, list)):
            holder[key], other[place] = other[place], holder[key]
        case 3:
            holder[key] = deepcopy(chance.choice([*RARE, *TEXTS, *FLOATS, *INTEGERS, _array(chance), _axis(chance)]))
        case 4 | 5:
            source, origin = chance.choice(like)
            if not isinstance(holder[key], (dict, list)):
                holder[key] = source[origin]
        case 6:
            for _ in range(chance.choice([1, 2, 40])):
                holder[key] = [holder[key]] if chance.random() < 0.5 else {"a": holder[key]}
        case _:
            holder[key] = _altered(chance, holder[key])


def _altered(chance: random.Random, value: Any) -> Any:
    """Another value of the same type, where that makes sense."""
    match value:
        case bool():
            return not value
        case int():
            return chance.choice([value + 1, value - 1, value * 2, *INTEGERS, *NUMBERS.values()])
        case float():
            return chance.choice([-value, value * 1e300, *FLOATS])
        case str():
            return chance.choice([value + "_Output_0", value + "_Output_1", value[:-1], *TEXTS, *OPERATIONS.values()])
        case Shape():
            sizes = list(value)
            for _ in range(chance.choice([1, 2])):
                place = chance.randrange(len(sizes) + 1)
                sizes[place : place + chance.choice([0, 1])] = chance.choice(
                    [[], [chance.choice(INTEGERS)], [chance.randrange(1, 9)]]
                )
            return Shape(sizes)
        case Axis():
            return _axis(chance)
        case np.ndarray():
            return _array(chance, value)
    return value


def _axis(chance: random.Random) -> Axis:
    return Axis(chance.choice(INDICES), chance.choice(AXES))


def _array(chance: random.Random, values: Any = None) -> Any:
    """Another array, or, of the same size, another shape, dtype, or bad numbers."""
    if values is None or chance.random() < 0.2:
        shape = [chance.choice([1, 1, 2, 3, 3, 4, 5, 7]) for _ in range(chance.randrange(6))]
        shape += [0] * (chance.random() < 0.05)
        values = np.ones(shape if chance.random() < 0.9 else [1] * 16, np.float32)
    match chance.randrange(6):
        case 0:
            return np.zeros(values.shape, np.float64)
        case 1:
            return values.reshape(-1)
        case 2:
            return values.reshape(values.shape[::-1])
        case 3:
            return np.full(values.shape, chance.choice(FLOATS), np.float64)
        case 4:
            return values.reshape((1, *values.shape) if values.ndim < 16 else -1)
    return values


def _invented(chance: random.Random, uid: str, uids: list[str], functions: list[str]) -> dict[str, Any]:
    """A function on any of these values."""
    usual = ["Convolution"] * 6 + ["Pooling"] * 3 + ["BatchNormalization", "Times", "Slice", "ReduceElements", "Pad"]
    operation = chance.choice([*OPERATORS, *usual, chance.choice(sorted(MEASURES)), COMBINE, BLOCK])
    _, counts = OPERATORS.get(operation, (None, range(1, 4)))
    count = chance.choice(counts[:7]) if chance.random() < 0.95 else chance.randrange(4)
    inputs = [chance.choice(uids) for _ in range(count)]
    entry = {
        "type": "PrimitiveFunction", "uid": uid, "op": NUMBERS[operation], "inputs": inputs,
        "attributes": _attributes(chance),
    }  # fmt: skip
    if operation == BLOCK:
        parts = {"keys": [f"Q{uid}"], "values": [chance.choice(uids)]}
        entry |= {f"block_function_composite_arguments_map_{part}": value for part, value in parts.items()}
        root = chance.choice([*functions, uid])
        entry |= {"block_function_op_name": "Dense", "block_function_composite": {"root": root}}
    return entry


def _attributes(chance: random.Random) -> dict[str, Any]:
    """Most of the attributes that any operation has, mostly plausible."""

    def size() -> int:
        return chance.randrange(1, 5) if chance.random() < 0.97 else chance.choice(INTEGERS)

    def sizes(*usual: int) -> Shape:
        return Shape(
            chance.choice(usual) if chance.random() < 0.9 else size() for _ in range(chance.choice([1, 2, 2, 3]))
        )

    def axis() -> Axis:
        return Axis(chance.randrange(-3, 4), "") if chance.random() < 0.9 else _axis(chance)

    def some(make: Callable[[], Any]) -> list[Any]:
        return [make() for _ in range(chance.choice([0, 1, 1, 2, 3]))]

    often = {
        "autoPadding": some(lambda: chance.random() < 0.5), "sharing": [True], "strides": sizes(1, 1, 2, 3),
        "lowerPad": sizes(0), "upperPad": sizes(0), "poolingWindowShape": sizes(1, 2, 3),
        "poolingType": chance.choice([0, 1]), "ceilOutDim": chance.random() < 0.5, "newShape": sizes(1, 3, 5, -1),
        "includePad": chance.random() < 0.5, "epsilon": chance.choice([1e-5, 0.1, *FLOATS]),
        "spatial": chance.random() < 0.5, "reductionOpName": chance.choice(["Sum", "Mean", "Max", "Prod", "Argmax"]),
        "axis1": axis(), "axis2": axis(), "beginIndex": chance.randrange(-3, 3), "endIndex": chance.randrange(-3, 4),
        "paddingMode": chance.choice([0, 1, 2]), "paddingConstantValue": chance.choice(FLOATS), "axis": axis(),
        "paddingHead": some(lambda: chance.choice([0, 1])), "paddingFoot": some(lambda: chance.choice([0, 2])),
        "beginIndexVec": some(lambda: 0), "endIndexVec": some(lambda: chance.choice([0, 1, 2])),
    }  # fmt: skip
    seldom = {
        "axisVec": some(axis), "beginAxis": axis(), "endAxis": axis(), "alpha": 0.5,
        "outputRank": chance.randrange(4), "groups": size(), "dilation": sizes(1, 2), "transpose": True,
        "outputShape": sizes(3, 5), "sliceStrides": size(), "sliceStridesVec": some(size),
        "reductionKeepDimensions": False, "sequential": False,
    }  # fmt: skip
    found = {name: value for name, value in often.items() if chance.random() < 0.97}
    found |= {name: value for name, value in seldom.items() if chance.random() < 0.35}
    for name in found:
        if chance.random() < 0.01:
            found[name] = deepcopy(chance.choice([*RARE, *TEXTS, *FLOATS, *INTEGERS]))
    return found
