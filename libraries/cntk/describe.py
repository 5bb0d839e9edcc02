"""A CNTK model as text: inputs, outputs, and every node."""

import math
from collections.abc import Iterator
from pathlib import Path

from libraries.base.errors import NetworkError
from libraries.cntk.convert import Conversion, choose, inputs_of
from libraries.cntk.graph import Function, Graph, Variable, read_graph
from libraries.cntk.wire import ModelError, shown

WIDEST, WIDEST_CELL = 1000, 60  # characters; names in a file may be of any kind and length


def describe(path: str | Path) -> str:
    """The model of a CNTK v2 file as text: a line for each input, output and primitive operation.

    Raises:
        NetworkError: as `read_graph`; a model that cannot be converted is described as far as it can be read.
    """
    graph = read_graph(path)
    try:
        return "\n".join(shown(line, WIDEST) for line in _lines(Path(path), graph))
    except ModelError as error:
        raise NetworkError(f"{path}: {error}") from error


def _lines(path: Path, graph: Graph) -> Iterator[str]:
    values = list(graph.outputs)
    order = graph.order(values)
    known = {variable.uid: variable for variable in graph.variables.values() if variable.value is not None}
    count = sum(math.prod(variable.shape) for variable in known.values())
    yield f"{path.name}: {count:,} numbers in {len(known):,} parameters and constants, {len(order):,} operations"
    inputs = inputs_of(graph, order, values)
    shapes, problem = _shapes(graph, inputs)
    for variable in inputs:
        yield f"Input   {variable.name or variable.uid} {_size(variable.shape)}"
    for uid, name in graph.outputs.items():
        yield f"Output  {name} {_size(shapes.get(graph.resolve(uid)))}"
    if problem:
        yield f"It cannot be converted: {problem}"
    yield ""
    names = {variable.uid: variable.name for variable in inputs if variable.name} | graph.names()
    rows: list[tuple[str, ...]] = [("Node", "Operation", "Takes", "Gives", "Parameters")]
    rows += [_row(graph, function, names, shapes, known) for function in order]
    widths = [min(WIDEST_CELL, max(len(row[column]) for row in rows)) for column in range(5)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _shapes(graph: Graph, inputs: list[Variable]) -> tuple[dict[str, tuple[int, ...]], str]:
    """The shape of one sample of every value that can be converted, by uid, and why others cannot ('' if all can)."""
    conversion = Conversion(graph, choose(graph, None), "float32")
    problem = ""
    try:
        conversion.run({variable.uid: variable.shape for variable in inputs})
    except ModelError as error:
        problem = str(error)
    return {uid: tensor.shape for uid, tensor in conversion.tensors.items()}, problem


def _row(
    graph: Graph,
    function: Function,
    names: dict[str, str],
    shapes: dict[str, tuple[int, ...]],
    known: dict[str, Variable],
) -> tuple[str, ...]:
    output = f"{function.uid}_Output_0"
    taken = [graph.resolve(uid) for uid in function.inputs]
    parameters = ", ".join(_parameter(known[uid]) for uid in taken if uid in known)
    nodes = ", ".join(names.get(uid, uid.removesuffix("_Output_0")) for uid in taken if uid not in known)
    return names.get(output, function.uid), function.operation, nodes, _size(shapes.get(output)), parameters


def _parameter(variable: Variable) -> str:
    """Its name and its shape, or its value if that is a single number."""
    value = variable.value
    content = _size(variable.shape) if value is None or value.ndim else f"= {value.item():.6g}"
    return f"{variable.name or variable.uid} {content}"


def _size(shape: tuple[int, ...] | None) -> str:
    return "" if shape is None else "[" + ", ".join("?" if size < 0 else str(size) for size in shape) + "]"
