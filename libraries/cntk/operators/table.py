"""The table of operations, filled by the other modules of this folder."""

from collections.abc import Callable

from libraries.cntk.writer import Tensor

# (writer, function, *inputs) → output: adds the nodes of a function with these inputs to the graph
Operator = Callable[..., Tensor]

OPERATORS: dict[str, tuple[Operator, range]] = {}  # with the possible numbers of inputs


def operator(*names: str, inputs: int | range = 1) -> Callable[[Operator], Operator]:
    """Add a function to the table, under CNTK's names of the operation."""

    def add(function: Operator) -> Operator:
        numbers = inputs if isinstance(inputs, range) else range(inputs, inputs + 1)
        for name in names:
            OPERATORS[name] = (function, numbers)
        return function

    return add
