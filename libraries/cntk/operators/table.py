"""The table of operations, which the other modules of this folder fill."""

from collections.abc import Callable

from libraries.cntk.writer import Tensor

# (writer, function, *inputs) → its output: adds the nodes of a function with these inputs to the graph
Operator = Callable[..., Tensor]

OPERATORS: dict[str, tuple[Operator, range]] = {}  # with the numbers of inputs it takes


def operator(*names: str, inputs: int | range = 1) -> Callable[[Operator], Operator]:
    """Enters a function into the table under CNTK's names."""

    def enter(function: Operator) -> Operator:
        numbers = inputs if isinstance(inputs, range) else range(inputs, inputs + 1)
        for name in names:
            OPERATORS[name] = (function, numbers)
        return function

    return enter
