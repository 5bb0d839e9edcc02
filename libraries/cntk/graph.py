"""A CNTK model as a graph of primitive operations: blocks expanded, placeholders resolved, in order of computation.

From here on, shapes have NumPy's order, slowest varying axis first: an image is [C, H, W].
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from libraries.base.errors import NetworkError
from libraries.cntk.wire import DTYPES, ModelError, read_contents, shown

_NAMES = """
    Negate Sigmoid Tanh ReLU Exp Log Sqrt Floor Abs Reciprocal Softmax Hardmax TransposeAxes Where Slice Dropout Reshape
    Pooling SumAll Plus Minus ElementTimes Equal NotEqual Less LessEqual Greater GreaterEqual PackedIndex GatherPacked
    ScatterPacked Times TransposeTimes Convolution SquaredError CrossEntropyWithSoftmax ClassificationError PastValue
    FutureValue ReduceElements BatchNormalization Clip Select Splice Combine RandomSample RandomSampleInclusionFrequency
    ROIPooling Logistic OptimizedRNNStack ReconcileDynamicAxis LogSoftmax LogPlus CosDistance Sin Cos Pass Block
    Unpooling LambdaRank NDCG EditDistanceError NoOp LabelsToGraph StopGradient ELU ForwardBackward
    CosDistanceWithNegativeSamples OneHot Pow ToSequence ToSequenceLike UnpackSequence Assign Gather StableSigmoid
    RandomDistribution Sinh Cosh UnpackBatch ToBatch Asin Acos Pad Crop Atanh Asinh TopK Squeeze ConstantOp
    LatticeSequenceWithSoftmax Cast EyeLikeOp CustomProxyOp StraightThrough Tan Atan ConvolutionSequenceShape
"""
OPERATIONS = dict(enumerate(_NAMES.split()))

BLOCK, COMBINE = "Block", "Combine"

# Losses and errors of training: they need the true labels, and classification does not need them.
MEASURES = frozenset(
    {
        "SquaredError", "CrossEntropyWithSoftmax", "ClassificationError", "Logistic", "LambdaRank", "NDCG",
        "EditDistanceError", "CosDistance", "CosDistanceWithNegativeSamples", "ForwardBackward",
        "LatticeSequenceWithSoftmax",
    }
)  # fmt: skip


INPUT, OUTPUT, PARAMETER, CONSTANT, PLACEHOLDER = range(5)


@dataclass(frozen=True)
class Variable:
    """An input, parameter or constant of the graph.

    Attributes:
        shape: of one sample, e.g. [3, 224, 224]; negative where the file does not say.
        value: of a parameter or constant; None for an input.
    """

    uid: str
    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    value: npt.NDArray[Any] | None


@dataclass(frozen=True)
class Function:
    """A primitive operation, or a block of several.

    Attributes:
        operation: CNTK's name, e.g. 'Convolution'.
        inputs: the uids of values: variables, or outputs of functions (`<uid>_Output_<k>`).
        block: the block's kind, e.g. 'Dense'; '' for a primitive.
        block_root: the uid of the function whose outputs are the block's.
    """

    uid: str
    name: str
    operation: str
    inputs: tuple[str, ...]
    attributes: dict[str, Any]
    block: str = ""
    block_root: str = ""

    def __str__(self) -> str:
        return f"{shown(self.name or self.uid, 80)} ({shown(self.block or self.operation, 80)})"


@dataclass(frozen=True)
class Graph:
    """A model.

    Attributes:
        variables, functions: by uid.
        arguments: what the placeholders in blocks stand for: uid → uid of a value.
        outputs: the names of the model's outputs, by uid.
    """

    variables: dict[str, Variable]
    functions: dict[str, Function]
    arguments: dict[str, str]
    outputs: dict[str, str] = field(default_factory=dict)
    _resolved: dict[str, str] = field(default_factory=dict)  # so that long chains of blocks are followed once

    def resolve(self, uid: str) -> str:
        """The uid of the variable, or of the output of a primitive function, that a value stands for.

        Raises:
            ModelError: the file refers to a value it does not hold, or in a circle.
        """
        passed: dict[str, None] = {}
        while uid not in self._resolved:
            if uid in passed:
                raise ModelError(f"{uid} is defined by itself")
            passed[uid] = None
            following = self._following(uid)
            if following == uid:
                self._resolved[uid] = uid
            uid = following
        self._resolved.update(dict.fromkeys(passed, self._resolved[uid]))
        return self._resolved[uid]

    def _following(self, uid: str) -> str:
        """The uid that a value stands for, one level deeper; its own uid at the end."""
        function, index = self.producer(uid)
        if function is not None and function.operation == BLOCK:
            return f"{function.block_root}_Output_{index}"
        if function is not None and function.operation == COMBINE:
            if index >= len(function.inputs):
                raise ModelError(f"{function} has no output {index}")
            return function.inputs[index]
        if function is not None and index:
            raise ModelError(f"{function} has no output {index}")
        if function is not None:
            return f"{function.uid}_Output_0"
        if self.arguments.get(uid, uid) != uid:
            return self.arguments[uid]
        if uid in self.variables:
            return uid
        raise ModelError(f"it refers to {uid!r}, which it does not hold")

    def producer(self, uid: str) -> tuple[Function | None, int]:
        """The function that a value is an output of, and which of its outputs; (None, 0) for a variable."""
        owner, separator, index = uid.rpartition("_Output_")
        if separator and index.isascii() and index.isdecimal() and len(index) < 4 and owner in self.functions:
            return self.functions[owner], int(index)
        return None, 0

    def find(self, name: str) -> Function | None:
        """The function with a name or, if there is none, with a uid."""
        named = [function for function in self.functions.values() if function.name == name]
        return named[0] if named else self.functions.get(name)

    def value_of(self, function: Function) -> str:
        """The uid, resolved, of a function's first output."""
        return self.resolve(f"{function.uid}_Output_0")

    def names(self) -> dict[str, str]:
        """The file's names of values: resolved uid → name; of several names, the outermost, which comes last."""
        return {self.value_of(f): f.name for f in self.functions.values() if f.name and f.operation != COMBINE}

    def order(self, values: Iterable[str]) -> list[Function]:
        """The primitive functions that some values need, each after those that it needs itself.

        Raises:
            ModelError: the graph has a loop, as recurrent networks do.
        """
        done: dict[str, bool] = {}  # False while the functions that this one needs are being visited
        ordered: list[Function] = []
        stack = [function for function, _ in map(self.producer, map(self.resolve, values)) if function is not None]
        while stack:
            function = stack[-1]
            if done.get(function.uid):
                stack.pop()
                continue
            needed = [self.producer(self.resolve(uid))[0] for uid in function.inputs]
            missing = [f for f in needed if f is not None and not done.get(f.uid)]
            if not missing:
                done[function.uid] = True
                ordered.append(stack.pop())
                continue
            done[function.uid] = False
            for other in missing:
                if other.uid in done:
                    raise ModelError(f"{other} needs its own result: recurrent networks are not read")
            stack += missing
        return ordered


def read_graph(path: str | Path) -> Graph:
    """The model in a CNTK v2 file (.model).

    Raises:
        NetworkError: the file is missing, not such a model, damaged, or has user-defined functions.
    """
    path = Path(path)
    try:
        return build(read_contents(path))
    except OSError as error:
        raise NetworkError(f"{path} cannot be read: {error.strerror or error}") from error
    except ModelError as error:
        raise NetworkError(f"{path}: {error}") from error


def build(dictionary: dict[str, Any]) -> Graph:
    """The graph that the dictionary of a file describes; raises ModelError."""
    if str(dictionary.get("type")) != "CompositeFunction":
        raise ModelError("not a model of CNTK 2: its dictionary is not a CompositeFunction")
    variables: dict[str, Variable] = {}
    for entry in _list(dictionary, "inputs"):
        variable = _variable(entry)
        if variable is None:
            continue
        if variable.uid in variables:
            raise ModelError(f"{variable.uid} is defined twice")
        variables[variable.uid] = variable
    functions: dict[str, Function] = {}
    arguments: dict[str, str] = {}
    for entry in _list(dictionary, "primitive_functions"):
        function = _function(entry, arguments)
        if function.uid in functions:
            raise ModelError(f"{function.uid} is defined twice")
        functions[function.uid] = function
    root = _text(dictionary, "root")
    if root not in functions:
        raise ModelError(f"its root {root!r} is not among its functions")
    graph = Graph(variables, functions, arguments)
    for uid in variables:
        if graph.producer(uid)[0] is not None:
            raise ModelError(f"{uid} is both an input and the output of a function")
    graph.outputs.update(_outputs(graph, functions[root]))
    return graph


def _outputs(graph: Graph, root: Function) -> dict[str, str]:
    """The outputs of the root, uid → name: the inputs of a Combine, else its first output."""
    outputs: dict[str, str] = {}
    for uid in root.inputs if root.operation == COMBINE else [f"{root.uid}_Output_0"]:
        function, _ = graph.producer(uid)
        outputs[uid] = (function.name or function.uid) if function else uid
    return outputs


def _variable(entry: Any) -> Variable | None:
    """One of the file's variables; None for a placeholder, which stands for a value that has its own entry."""
    if not isinstance(entry, dict):
        raise ModelError("an input that is not a dictionary")
    kind, value = _number(entry, "kind"), entry.get("value")
    if kind == PLACEHOLDER:
        return None
    if kind not in (INPUT, PARAMETER, CONSTANT):
        raise ModelError(f"a variable of the kind {kind}")
    if (kind in (PARAMETER, CONSTANT)) != isinstance(value, np.ndarray):
        raise ModelError(f"{entry.get('uid')}: a parameter without its values, or values without a parameter")
    shape = entry.get("shape", ())
    if not isinstance(shape, tuple):
        raise ModelError(f"{entry.get('uid')}: no shape")
    dtype = value.dtype if isinstance(value, np.ndarray) else DTYPES.get(_number(entry, "data_type"), DTYPES[1])
    shape = value.shape if isinstance(value, np.ndarray) else shape[::-1]
    name = _text(entry, "name") if "name" in entry else ""
    return Variable(_uid(entry), name, dtype, tuple(shape), value)


def _function(entry: Any, arguments: dict[str, str]) -> Function:
    """One of the file's functions; what a block's placeholders stand for is added to `arguments`."""
    if not isinstance(entry, dict):
        raise ModelError("a function that is not a dictionary")
    uid = _uid(entry)
    name = _text(entry, "name") if "name" in entry else ""
    if str(entry.get("type")) != "PrimitiveFunction":
        raise ModelError(f"{name or uid} is a user-defined function ({_class(entry)}): it cannot be read")
    code, attributes, inputs = _number(entry, "op"), entry.get("attributes", {}), _list(entry, "inputs")
    if code not in OPERATIONS:
        raise ModelError(f"{name or uid} is an operation with the unknown number {code}")
    if not isinstance(attributes, dict) or not all(isinstance(value, str) for value in inputs):
        raise ModelError(f"{name or uid}: no attributes, or no inputs")
    operation = OPERATIONS[code]
    if operation != BLOCK:
        return Function(uid, name, operation, tuple(inputs), attributes)
    composite = entry.get("block_function_composite")
    keys, values = (_list(entry, f"block_function_composite_arguments_map_{part}") for part in ("keys", "values"))
    if (
        not isinstance(composite, dict)
        or len(keys) != len(values)
        or not all(isinstance(k, str) for k in keys + values)
    ):
        raise ModelError(f"{name or uid}: an incomplete block")
    for key, value in zip(keys, values, strict=True):
        if arguments.setdefault(key, value) != value:
            raise ModelError(f"{name or uid}: its {key} stands for two values")
    block = _text(entry, "block_function_op_name")
    return Function(uid, name, operation, tuple(inputs), attributes, block, _text(composite, "root"))


def _class(entry: dict[str, Any]) -> str:
    """The class in Python, or the operation in a library, of a user-defined function, as far as the file says."""
    state = entry.get("user_defined_state")
    names = [
        holder.get(key)
        for holder in (state, entry)
        if isinstance(holder, dict)
        for key in ("module", "class", "op_name", "op", "type")
    ]
    return ", ".join(dict.fromkeys(value for value in names if isinstance(value, str) and value)) or "unknown"


def _uid(entry: dict[str, Any]) -> str:
    uid = _text(entry, "uid")
    if not uid:
        raise ModelError("an entry with an empty uid")
    return uid


def _text(entry: dict[str, Any], key: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str):
        raise ModelError(f"no text where its {key!r} should be")
    return value


def _number(entry: dict[str, Any], key: str) -> int:
    value = entry.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ModelError(f"no number where its {key!r} should be")
    return value


def _list(entry: dict[str, Any], key: str) -> list[Any]:
    value = entry.get(key)
    if not isinstance(value, list):
        raise ModelError(f"no list where its {key!r} should be")
    return value
