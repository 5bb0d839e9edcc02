"""Converts CNTK models to ONNX.

Inputs and outputs keep their names and shapes ([C, H, W] for an image), with the batch as the first axis. The dtype,
float32 or float64, stays too; float16 becomes float32.
"""

import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from libraries.base.errors import NetworkError
from libraries.base.file_system import TEMPORARY, replace, storage_error
from libraries.base.storage import atomic_path
from libraries.cntk.graph import MEASURES, Function, Graph, Variable, read_graph
from libraries.cntk.operators import OPERATORS
from libraries.cntk.operators.windows import is_global
from libraries.cntk.wire import ModelError
from libraries.cntk.writer import OPSET, GraphWriter, Tensor

MAX_INPUTS = 1000
LARGEST_MESSAGE = 2_000_000_000  # bytes of weights in one ONNX file; protobuf's limit is 2 GiB
MAX_INPUT = 2**28  # numbers in one sample of an input


def convert(
    path: str | Path,
    *,
    outputs: Sequence[str] | None = None,
    image_size: tuple[int, int] | None = None,
    dtype: npt.DTypeLike | None = None,
) -> Any:
    """The model of a CNTK v2 file as an onnx.ModelProto, checked by onnx.

    Args:
        outputs: names or uids of the nodes whose values are the outputs; by default the outputs of the file's root,
            without the losses and errors of training.
        image_size: height and width [pixels] of images [C, H, W], if different from training; global poolings still
            cover the whole map.
        dtype: float32 or float64, if different from the file's.

    Raises:
        NetworkError: the file is missing or damaged, or the model cannot be converted; says which node and why.
    """
    graph = read_graph(path)
    try:
        return convert_graph(graph, outputs=outputs, image_size=image_size, dtype=dtype)
    except ModelError as error:
        raise NetworkError(f"{path}: {error}") from error


def save(model: Any, path: Path) -> None:
    """Write a model; if it is too large for one message, its weights go into `<path>.data` beside it.

    Raises:
        StorageError: the file cannot be written.
    """
    import onnx

    size = sum(len(array.raw_data) for array in model.graph.initializer)
    if size < LARGEST_MESSAGE:
        with atomic_path(path) as temporary:
            onnx.save(model, temporary)
        return
    data = path.with_name(f"{path.name}.data")
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=TEMPORARY) as folder:
            whole = Path(folder) / path.name
            onnx.save(model, whole, save_as_external_data=True, location=data.name)
            replace(whole.with_name(data.name), data)
            replace(whole, path)
    except OSError as error:
        raise storage_error(error, path) from error


def convert_graph(
    graph: Graph,
    *,
    outputs: Sequence[str] | None = None,
    image_size: tuple[int, int] | None = None,
    dtype: npt.DTypeLike | None = None,
) -> Any:
    """As `convert`, for a graph in memory; raises ModelError."""
    wanted = choose(graph, outputs)
    inputs = inputs_of(graph, graph.order(wanted), wanted)
    dtype = dtype or np.result_type(np.float32, *(variable.dtype for variable in inputs))
    conversion = Conversion(graph, wanted, dtype)
    sizes = {variable.uid: _size(variable, image_size) for variable in inputs}
    if image_size is None or all(sizes[v.uid] == v.shape for v in inputs):
        conversion.run(sizes)
    else:
        known = all(min(v.shape, default=1) > 0 for v in inputs)
        pooled = Conversion(graph, wanted, dtype).run({v.uid: v.shape for v in inputs}) if known else frozenset()
        conversion.run(sizes, pooled)
    return conversion.model(inputs)


def choose(graph: Graph, outputs: Sequence[str] | None) -> dict[str, str]:
    """The requested outputs, resolved uid → name; raises ModelError for a name that no node has."""
    if outputs is None:
        return _without_measures(graph)
    chosen = {}
    for name in outputs:
        function = graph.find(name)
        if function is None:
            named = sorted({f.name for f in graph.functions.values() if f.name})
            raise ModelError(f"no node is called {name!r}; there are {', '.join(named[:20]) or 'none with a name'}")
        chosen[graph.value_of(function)] = name
    return chosen


def _without_measures(graph: Graph) -> dict[str, str]:
    """The outputs of the file's root without the losses and errors of training, which also need the true labels."""
    values = {graph.resolve(uid): name for uid, name in graph.outputs.items() if not _is_measure(graph, uid)}
    inputs = [uid for uid, variable in graph.variables.items() if variable.value is None]
    if len(inputs) > MAX_INPUTS:
        raise ModelError(f"{len(inputs):,} inputs")
    needs = {uid: 1 << i for i, uid in enumerate(inputs)}  # for every value, a bit for each input that it needs
    for function in graph.order(values):
        needed = 0
        for uid in function.inputs:
            needed |= needs.get(graph.resolve(uid), 0)
        needs[graph.value_of(function)] = needed
    selections = {needs.get(uid, 0) for uid in values} - {0}
    if len(selections) > MAX_INPUTS:
        raise ModelError(f"outputs that need {len(selections):,} selections of its inputs")
    larger = {one for one in selections if any(other & one == other != one for other in selections)}
    kept = {uid: name for uid, name in values.items() if needs.get(uid, 0) not in larger}
    if not kept:
        raise ModelError("its outputs are all losses or errors of training: name a node of the network as the output")
    return kept


def _is_measure(graph: Graph, uid: str) -> bool:
    """Whether a value is a loss or an error of training."""
    function, _ = graph.producer(uid)
    return function is not None and not MEASURES.isdisjoint((function.operation, function.block))


def inputs_of(graph: Graph, order: Collection[Function], values: Collection[str]) -> list[Variable]:
    """The needed variables that have no value, in the file's order."""
    needed = {graph.resolve(uid) for function in order for uid in function.inputs} | set(values)
    return [v for v in graph.variables.values() if v.value is None and v.uid in needed]


def _size(variable: Variable, image_size: tuple[int, int] | None) -> tuple[int, ...]:
    """The shape of an input's samples."""
    shape = variable.shape
    if image_size is not None and len(shape) == 3:
        shape = (shape[0], *image_size)
    if min(shape, default=1) < 1:
        raise ModelError(f"the file does not give the size of {variable.name or variable.uid} ({list(shape)})")
    if np.prod(shape, dtype=object) > MAX_INPUT:
        raise ModelError(f"{variable.name or variable.uid} is too large: {list(shape)}")
    return shape


class Conversion:
    """One conversion of a graph, for inputs of certain sizes."""

    def __init__(self, graph: Graph, wanted: Mapping[str, str], dtype: npt.DTypeLike) -> None:
        self.graph, self.order = graph, graph.order(wanted)
        self.writer = GraphWriter(dtype)
        self.outputs = {uid: self.writer.name(name) for uid, name in wanted.items()}
        self.tensors: dict[str, Tensor] = {}

    def run(self, sizes: Mapping[str, tuple[int, ...]], pooled: Collection[str] = frozenset()) -> frozenset[str]:
        """Add all nodes.

        Args:
            sizes: shape of each input's samples, by uid.
            pooled: uids of poolings that are to cover all positions.

        Returns:
            The uids of the poolings that cover all positions.
        """
        for uid, variable in self.graph.variables.items():
            if variable.value is not None:
                self.tensors[uid] = Tensor(
                    self.writer.name(uid), variable.shape, batched=False, array=_cast(variable.value, self.writer.dtype)
                )
            elif uid in sizes:
                self.tensors[uid] = Tensor(self.writer.name(variable.name or uid), sizes[uid])
        covering = set()
        for function in self.order:
            inputs = [self.tensors[self.graph.resolve(uid)] for uid in function.inputs]
            if function.uid in pooled:
                function = _over_all_positions(function)
            self.tensors[f"{function.uid}_Output_0"] = self._add(function, inputs)
            if function.operation == "Pooling" and is_global(function, inputs[0].shape):
                covering.add(function.uid)
        return frozenset(covering)

    def _add(self, function: Function, inputs: Sequence[Tensor]) -> Tensor:
        if function.operation not in OPERATORS:
            raise ModelError(f"{function}: the operation {function.operation} is not read")
        operator, numbers = OPERATORS[function.operation]
        if len(inputs) not in numbers:
            raise ModelError(f"{function} has {len(inputs)} inputs")
        self.writer.scope = function.uid
        try:
            return operator(self.writer, function, *inputs)
        except ModelError as error:
            text = str(error)
            raise error if text.startswith(str(function)) else ModelError(f"{function}: {text}") from error

    def model(self, inputs: Sequence[Variable]) -> Any:
        """The graph as an onnx.ModelProto with these inputs and outputs."""
        import onnx
        from onnx import helper, numpy_helper

        kind = helper.np_dtype_to_tensor_dtype(self.writer.dtype)

        def described(name: str, tensor: Tensor) -> Any:
            return helper.make_tensor_value_info(name, kind, ["batch"] * tensor.batched + list(tensor.shape))

        outputs = []
        for uid, name in self.outputs.items():
            tensor = self.tensors[uid]
            self.writer.nodes.append(helper.make_node("Identity", [self.writer.use(tensor)], [name], name=name))
            outputs.append(described(name, tensor))
        taken = {name for node in self.writer.nodes for name in node.input}  # of some inputs only the shape was needed
        graph = helper.make_graph(
            self.writer.nodes,
            "cntk",
            [described(tensor.name, tensor) for v in inputs if (tensor := self.tensors[v.uid]).name in taken],
            outputs,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
        for name, array in self.writer.initializers.items():  # only now, since make_graph and make_model copy
            model.graph.initializer.append(numpy_helper.from_array(array, name))
        if sum(array.nbytes for array in self.writer.initializers.values()) < LARGEST_MESSAGE:
            onnx.checker.check_model(model)
        return model


def _over_all_positions(function: Function) -> Function:
    """The pooling with a window over all positions."""
    window = {"poolingWindowShape": type(function.attributes["poolingWindowShape"])([-1])}
    return Function(function.uid, function.name, function.operation, function.inputs, function.attributes | window)


def _cast(values: npt.NDArray[Any], dtype: "np.dtype[Any]") -> npt.NDArray[Any]:
    with np.errstate(all="ignore"):  # a value beyond float32 becomes infinite
        return values if values.dtype == dtype else values.astype(dtype)
