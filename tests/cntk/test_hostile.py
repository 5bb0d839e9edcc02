"""Damaged and hostile CNTK files end in one clear line, or in a model that onnx accepts, in bounded time and memory.

A few thousand of them; the big search is `python -m tests.cntk.fuzz --mutations 100000`.
"""

import math
import re
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libraries.base.errors import NetworkError
from libraries.cntk.convert import convert
from libraries.cntk.graph import OPERATIONS
from libraries.cntk.wire import MAGIC, Axis, ModelError, Shape, parse
from tests.cntk import fuzz
from tests.cntk.goldens import golden
from tests.cntk.mutations import MODES, mutation
from tests.cntk.wire_writer import encode, field

NUMBERS = {name: number for number, name in OPERATIONS.items()}
SLOW = 20.0  # seconds of processor time: what costs the square of a file's size takes minutes here

GraphWriter = Callable[[bytes | dict[str, Any]], Path]


@pytest.fixture
def written(tmp_path: Path) -> GraphWriter:
    """Writes a file, from its bytes or its dictionary."""

    def write(contents: bytes | dict[str, Any]) -> Path:
        path = tmp_path / "m.model"
        path.write_bytes(contents if isinstance(contents, bytes) else encode(contents))
        return path

    return write


def refusal(path: Path, **options: Any) -> str:
    """The text, less the path, with which a file is refused; of one line."""
    with pytest.raises(NetworkError) as caught:
        convert(path, **options)
    text = str(caught.value)
    assert text.isprintable()
    assert text.startswith(f"{path}: ")
    assert len(text) <= len(f"{path}: ") + 500
    return text.removeprefix(f"{path}: ")


@pytest.mark.parametrize("name", ["reshape", "plus_chan"])
def test_truncated_anywhere(name: str, written: GraphWriter) -> None:
    """None is a model by chance: CNTK writes the functions last."""
    data = golden(f"{name}.model")
    for length in range(len(data)):
        refusal(written(data[:length]))


def test_split_file_truncated_among_its_arrays(written: GraphWriter) -> None:
    data = golden("resnet_basic_base.split.model")
    convert(written(data))
    for length in (0, 3, 4, 7, 8, 9, 1000, len(data) - 50_000, len(data) - 4, len(data) - 1):
        refusal(written(data[:length]))
    assert refusal(written(data + b"\0\0\0\0")) == "4 extra bytes after its last array"


def test_every_byte_flipped(written: GraphWriter) -> None:
    data = golden("reshape.model")
    found = set()
    for place, byte in enumerate(data):
        for other in {0, 255, byte ^ 1, byte ^ 128} - {byte}:
            path = written(data[:place] + bytes([other]) + data[place + 1 :])
            found.add(result := fuzz.outcome(path, {}))
            assert result in fuzz.RIGHT, f"byte {place} as {other}"
    assert found == set(fuzz.RIGHT)


@pytest.mark.parametrize("mode", MODES)
def test_mutations(mode: str, written: GraphWriter) -> None:
    found = set()
    for seed in range(300):
        data, options = mutation(mode, seed)
        found.add(result := fuzz.outcome(written(data), options))
        assert result in fuzz.RIGHT, f"{mode} {seed}"
    assert found == set(fuzz.RIGHT)


def test_the_search_sees_what_is_wrong(written: GraphWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(golden("reshape.model"))
    assert fuzz.outcome(path, {}) == "accepted"
    monkeypatch.setattr(fuzz, "convert", {}.__getitem__)
    assert fuzz.outcome(path, {}).startswith("KeyError at fuzz.py")

    def two_lines(path: Path) -> None:
        raise NetworkError("two\nlines")

    monkeypatch.setattr(fuzz, "convert", two_lines)
    assert fuzz.outcome(path, {}).startswith("a message of 9 characters")


def test_version_1_is_refused_by_name(written: GraphWriter) -> None:
    assert "CNTK's version 1" in refusal(written(golden("resnet_basic_base.v1.dnn")))


def image(uid: str = "x", shape: tuple[int, ...] = (6, 5, 3), **more: Any) -> dict[str, Any]:
    """An input; its shape as files have it, fastest varying axis first."""
    return {"uid": uid, "kind": 0, "data_type": 1, "shape": Shape(shape)} | more


def parameter(uid: str, values: np.ndarray) -> dict[str, Any]:
    return {"uid": uid, "kind": 2, "data_type": 1, "value": values}


def function(uid: str, operation: str, *inputs: str, name: str = "", **attributes: Any) -> dict[str, Any]:
    return {
        "type": "PrimitiveFunction", "uid": uid, "op": NUMBERS[operation], "inputs": list(inputs), "name": name,
        "attributes": attributes,
    }  # fmt: skip


def block(uid: str, root: str, arguments: dict[str, str] | None = None) -> dict[str, Any]:
    keys, values = list((arguments or {}).keys()), list((arguments or {}).values())
    return function(uid, "Block") | {
        "block_function_op_name": "Dense", "block_function_composite": {"root": root},
        "block_function_composite_arguments_map_keys": keys, "block_function_composite_arguments_map_values": values,
    }  # fmt: skip


def model(*functions: dict[str, Any], inputs: tuple[dict[str, Any], ...] = (image(),), **more: Any) -> dict[str, Any]:
    """A model whose root is the last of the functions."""
    root = functions[-1]["uid"]
    return {
        "type": "CompositeFunction", "root": root, "inputs": list(inputs), "primitive_functions": list(functions)
    } | more  # fmt: skip


RELU = function("r", "ReLU", "x")
WINDOW: dict[str, Any] = {
    "autoPadding": [False], "strides": Shape((1,)), "lowerPad": Shape((0,)), "upperPad": Shape((0,)),
    "poolingWindowShape": Shape((2, 2)), "poolingType": 0, "sharing": [True],
}  # fmt: skip
REDUCTION: dict[str, Any] = {"reductionOpName": "Sum", "axis": Axis(0, "")}
WEIGHTS = parameter("w", np.ones((4, 3, 2, 2), np.float32))
ONE = parameter("w", np.ones(1, np.float32))


IMAGE_AND_ONE = (image(), ONE)


def pooled(**changes: Any) -> dict[str, Any]:
    return model(function("p", "Pooling", "x", **WINDOW | changes))


def convolved(weights: dict[str, Any] = WEIGHTS, shape: tuple[int, ...] = (6, 5, 3), **changes: Any) -> dict[str, Any]:
    return model(function("c", "Convolution", "w", "x", **WINDOW | changes), inputs=(image(shape=shape), weights))


def normalised(epsilon: Any) -> dict[str, Any]:
    return model(function("b", "BatchNormalization", "x", *"wwww", epsilon=epsilon, spatial=True), inputs=IMAGE_AND_ONE)


def test_these_are_models_but_for_what_is_changed(written: GraphWriter) -> None:
    for contents in (model(RELU), pooled(), convolved(), normalised(1e-5)):
        convert(written(contents))


HUGE = [2**31 + 1, 2**62, 2**63 - 1]
REFUSED = [
    (model(RELU, inputs=()), "refers to 'x'"),
    (model(function("r", "ReLU", "r_Output_0")), "needs its own result"),
    (model(function("a", "ReLU", "b_Output_0"), function("b", "ReLU", "a_Output_0")), "needs its own result"),
    (model(function("a", "ReLU", "x_Output_0")), "refers to 'x_Output_0'"),
    (model(RELU, function("s", "ReLU", "r_Output_1")), "has no output 1"),
    (model(RELU, function("s", "Combine", "r_Output_7")), "has no output 7"),
    (model(RELU, block("b", "q")), "refers to 'q_Output_0'"),
    (model(RELU, block("b", "b")), "Block is not read"),
    (model(block("a", "b"), block("b", "a")), "defined by itself"),
    (model(function("a", "Combine", "b_Output_0"), block("b", "a")), "defined by itself"),
    (model(function("a", "ReLU", "q"), block("b", "a", {"q": "q"})), "refers to 'q'"),
    (model(function("a", "ReLU", "q"), block("b", "a", {"q": "s", "s": "q"})), "defined by itself"),
    (model(function("a", "ReLU", "q"), block("b", "a", {"q": "b_Output_0"})), "needs its own result"),
    (model(block("b", "r", {"q": "x"}), block("c", "r", {"q": "b_Output_0"}), RELU), "stands for two values"),
    (model(RELU | {"uid": ""}), "an empty uid"),
    (model(RELU, RELU), "r is defined twice"),
    (model(RELU, inputs=(image(), image())), "x is defined twice"),
    (model(RELU, inputs=(image(), image("r_Output_0"))), "both an input and the output"),
    (model(function("c", "Combine")), "losses or errors"),
    (model(RELU | {"type": "UserDefined\n\x1b[31mFunction"}), "user-defined function (UserDefined??[31mFunction)"),
    (model(RELU | {"type": np.ones(3, np.float32)}), "a user-defined function"),
    (model(RELU) | {"type": np.ones(3, np.float32)}, "not a CompositeFunction"),
    (model(RELU | {"op": 2**64 - 1}), "unknown number 18446744073709551615"),
    (model(RELU | {"op": True}), "no number where its 'op'"),
    (model(RELU | {"op": "ReLU"}), "no number where its 'op'"),
    (model(RELU | {"inputs": [1]}), "no inputs"),
    (model(RELU | {"attributes": []}), "no attributes"),
    (model(RELU | {"inputs": ["x"] * 3}), "has 3 inputs"),
    (model(function("r", "ReLU", "q" * 9_999)), "refers to 'qqq"),
    (model(RELU, inputs=(image(name="x" * 10_001),)), "a text of 10,001 bytes"),
    *((model(RELU, inputs=(image(shape=(size, size)),)), "too large") for size in HUGE),
    *((model(RELU, inputs=(image(shape=(size, 1)),)), "does not give the size") for size in (0, -1, -3, 2**63)),
    (model(RELU, inputs=(image(shape=(1,) * 17),)), "more than 16 axes"),
    (model(RELU, inputs=(image(shape=()),), x=Shape((1,) * 17)), "more than 16 axes"),
    (model(RELU, inputs=(ONE | {"value": np.ones((0, 3), np.float32)},)), "an array of the shape [0, 3]"),
    (model(RELU, inputs=(ONE | {"value": None},)), "a parameter without its values"),
    *(
        (pooled(**{name: Shape((size,))}), "")
        for name in WINDOW
        for size in (*HUGE, 0)
        if name in ("strides", "poolingWindowShape")
    ),
    *((pooled(**{name: Shape((size,))}), "") for name in ("lowerPad", "upperPad") for size in (*HUGE, -5)),
    *((pooled(**{name: "1"}), name) for name in WINDOW if name != "sharing"),
    (pooled(dilation=Shape((2,))), "dilated"),
    (pooled(lowerPad=Shape((2,)), strides=Shape((2,))), "nothing but padding"),
    (pooled(autoPadding=[True] * 100_000), "100000 values for 3 axes"),
    (pooled(poolingWindowShape=Shape((9, 9))), "does not fit"),
    *((convolved(**{name: Shape((size,))}), "") for name in ("strides", "dilation") for size in (*HUGE, 0, -5)),
    *((convolved(dilation=Shape((size,)), autoPadding=[True]), "") for size in HUGE),
    *((convolved(groups=size), "") for size in (*HUGE, 0, -1, 2, 3, 2**64 - 1)),
    *((convolved(**{name: "1"}), name) for name in (*list(WINDOW)[:4], "sharing", "groups", "dilation")),
    (convolved(transpose=True), "weights"),
    (convolved(shape=()), "weights"),
    (convolved(sequential=True), "a sequence"),
    (convolved(sharing=[False]), "other weights at every position"),
    *(
        (normalised(value), "its attribute 'epsilon'")
        for value in (math.nan, math.inf, -math.inf, -1e-5, 1e39, "1", None)
    ),
    (model(function("s", "Softmax", "x", axis=[Axis(0, ""), Axis(1, "")])), "is not one axis, but 2"),
    (model(function("s", "Softmax", "x", axis=[])), "names no axis"),
    (model(function("s", "Softmax", "x", axis=Axis(2**31 - 1, "defaultBatchAxis"))), "not on those of one image"),
    (model(function("s", "TransposeAxes", "x", axisVec=[])), "names no axis"),
    (model(function("s", "ReduceElements", "x", **REDUCTION | {"axis": [Axis(0, "")] * 9_999})), "9999 axes"),
    *(
        (model(function("s", "ReduceElements", "x", **REDUCTION | {"axis": Axis(i, "")})), "axis")
        for i in (3, -4, 2**31)
    ),
    (model(function("s", "Slice", "x", axis=Axis(0, ""), beginIndex=-(2**31), endIndex=1)), "from -2147483648"),
    (
        model(function("s", "Slice", "x", axis=Axis(0, ""), beginIndex=0, endIndex=1, sliceStrides=2**63)),
        "sliceStrides",
    ),
    (model(function("s", "Reshape", "x", newShape=Shape((-1, -1)))), "more than one open size"),
    (model(function("s", "Reshape", "x", newShape=Shape((0, -1)))), "cannot become"),
    (model(function("s", "Reshape", "x", newShape=Shape((2**62, 4)))), "newShape"),
]


@pytest.mark.parametrize("case", range(len(REFUSED)))
def test_refused(case: int, written: GraphWriter) -> None:
    contents, reason = REFUSED[case]
    assert reason in refusal(written(contents))


@pytest.mark.parametrize("name", ["two\nlines\r\0\x1b[31m", "n" * 9_999])
def test_names_of_any_kind(name: str, written: GraphWriter) -> None:
    """In messages they are cut to one line; they are no reason to refuse a model."""
    pooling = function("p", "Pooling", "x", name=name, **WINDOW | {"strides": Shape((0,))})
    assert refusal(written(model(pooling))).endswith(" (Pooling): a window of 2 on an axis of 5, at a stride of 0")
    assert convert(written(model(RELU | {"name": name}))).graph.output[0].name == name


def test_parameters_that_are_no_numbers(written: GraphWriter) -> None:
    """Networks that diverged are converted as they are; casts and roots of such values do not warn."""
    values = np.array([math.nan, math.inf, 1e300, -1], np.float64)
    signalling = np.frombuffer(b"\x01\0\xa0\x7f" * 4, np.float32)
    for array in (values, signalling, np.full(4, math.nan, np.float32)):
        inputs = (image(shape=(5, 6, 4)), parameter("w", array))
        contents = model(function("b", "BatchNormalization", "x", *"wwww", epsilon=0.0, spatial=True), inputs=inputs)
        convert(written(contents))
        inputs = (image(shape=(4,)), parameter("w", array))
        contents = model(function("b", "BatchNormalization", "x", *"wwww", epsilon=0.0, spatial=False), inputs=inputs)
        convert(written(contents))


def chain(count: int) -> dict[str, Any]:
    functions = [function("f0", "ReLU", "x")]
    functions += [function(f"f{i}", "Plus", *[f"f{i - 1}_Output_0"] * 2, name=f"n{i}") for i in range(1, count)]
    return model(*functions)


def backwards(count: int) -> dict[str, Any]:
    contents = chain(count)
    contents["primitive_functions"].reverse()
    return contents


def blocks(count: int) -> dict[str, Any]:
    return model(function("b0", "ReLU", "x"), *(block(f"b{i}", f"b{i - 1}") for i in range(1, count)))


def combines(count: int) -> dict[str, Any]:
    functions = [function(f"b{i}", "Combine", f"b{i - 1}_Output_0") for i in range(1, count)]
    return model(function("b0", "ReLU", "x"), *functions)


def arguments(count: int) -> dict[str, Any]:
    following = {f"q{i}": f"q{i + 1}" for i in range(count)} | {f"q{count}": "x"}
    return model(function("r", "ReLU", "q0"), block("b", "r", following))


def outputs(count: int) -> dict[str, Any]:
    """All the functions of a chain are outputs."""
    functions = chain(count)["primitive_functions"]
    return model(*functions, function("c", "Combine", *(f"{entry['uid']}_Output_0" for entry in functions)))


def parameters(count: int) -> dict[str, Any]:
    return model(RELU, inputs=(image(), *(parameter(f"p{i}", np.zeros(1, np.float32)) for i in range(count))))


def names(count: int) -> dict[str, Any]:
    """Each name is what would come next where the one before it is taken."""
    uids = ["n" + ".2" * i for i in range(count // 4)]
    inputs = (image(), *(parameter(uid, np.zeros(1, np.float32)) for uid in uids))
    return model(RELU | {"name": "n"}, function("c", "Combine", "r_Output_0"), inputs=inputs)


@pytest.mark.parametrize("make", [chain, backwards, blocks, combines, arguments, outputs, parameters, names])
def test_long_models(make: Callable[[int], dict[str, Any]], written: GraphWriter) -> None:
    """No recursion, and time in proportion to the file."""
    path = written(make(6_000))
    started = time.process_time()
    convert(path)
    assert time.process_time() - started < SLOW


JUNK = field(15, 0) * 1_000_001  # fields that no message has


def entry(value: bytes) -> bytes:
    """An entry of a dictionary."""
    return field(2, field(1, b"q") + field(2, value))


FLOODS = {
    "values": entry(field(2, 9) + field(11, field(1, b"") * 1_000_001)),
    "unknown fields": JUNK,
    "unknown fields in a shape": entry(field(2, 7) + field(9, JUNK)),
    "unknown fields in an array": entry(field(2, 11) + field(13, JUNK)),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_floods(flood: str, written: GraphWriter) -> None:
    path = written(encode(model(RELU)) + FLOODS[flood])
    started = time.process_time()
    assert refusal(path) == "more than 1,000,000 fields"
    assert time.process_time() - started < SLOW


@pytest.mark.parametrize("kind", ["list", "dictionary", "both"])
@pytest.mark.parametrize("depth", [40, 5_000])
def test_deep_nesting(kind: str, depth: int, written: GraphWriter) -> None:
    value = field(2, 0)
    for level in range(depth):
        if kind == "list" or (kind == "both" and level % 2):
            value = field(2, 9) + field(11, field(1, value))
        else:
            value = field(2, 10) + field(12, entry(value))
    assert refusal(written(encode(model(RELU)) + entry(value))).startswith("values are nested deeper")


SIZES = [(8,), (2**40,), (2**32, 2**32), (2**63 - 1,) * 16, (0,), (0, 2**62, 2**62), (-1,), (-1, -1), (1,) * 17]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("split", [False, True])
def test_arrays_of_other_sizes_than_their_bytes(sizes: tuple[int, ...], split: bool, written: GraphWriter) -> None:
    values = bytes(28)
    shape = b"".join(field(1, size) for size in sizes)
    view = field(1, 1) + field(3, shape) + (b"" if split else field(4, field(1, values)))
    message = entry(field(2, 11) + field(13, view))
    text = refusal(written(MAGIC + len(message).to_bytes(4, "little") + message + values if split else message))
    assert text.startswith(("an array of ", "a shape of more than 16 axes"))


def test_few_bytes_take_little_memory(written: GraphWriter) -> None:
    """Parameters that hold for every pixel of an image, and images, are not written out."""
    for spatial in (False, True):
        normalisation = function("b", "BatchNormalization", "x", *"wwww", epsilon=1e-5, spatial=spatial)
        path = written(model(normalisation, inputs=(image(shape=(1, 2**14, 2**14)), ONE)))
        tracemalloc.start()
        try:
            assert len(convert(path).SerializeToString()) < 10_000
            assert tracemalloc.get_traced_memory()[1] < 5e6
        finally:
            tracemalloc.stop()


def test_results_beyond_all_bounds(written: GraphWriter) -> None:
    inputs = (image(shape=(1, 1, 2**28)), image("y", (1, 2**28, 1)))
    assert "a result of the shape" in refusal(written(model(function("p", "Plus", "x", "y"), inputs=inputs)))
    joined = [function("s0", "Splice", *["x"] * 9_000, axis=Axis(0, ""))]
    joined += [function(f"s{i}", "Splice", *[f"s{i - 1}_Output_0"] * 9_000, axis=Axis(0, "")) for i in (1, 2)]
    assert "a result of the shape" in refusal(written(model(*joined)))


def test_values_of_any_kind_anywhere(written: GraphWriter) -> None:
    """Every value of a golden replaced by one of each kind."""
    kinds = [None, True, -1, 2**64 - 1, 0.5, "", Shape(), Shape((0,)), Axis(-9, ""), [], {}, np.ones(3, np.float32)]
    data = golden("conv_groups.model")

    def places(value: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
        return [(*way, key) for key in keys] + [found for key in keys for found in places(value[key], (*way, key))]

    for *way, last in places(parse(memoryview(data))):
        for kind in kinds:
            contents = parse(memoryview(data))
            holder: Any = contents
            for key in way:
                holder = holder[key]
            holder[last] = kind
            result = fuzz.outcome(written(contents), {})
            assert result in fuzz.RIGHT, (way, last, kind)


def test_model_errors_are_one_line() -> None:
    text = str(ModelError("a\nb\t\x1b" + "c" * 10_000))
    assert re.fullmatch("a\\?b\\?\\?c{494}…", text)
