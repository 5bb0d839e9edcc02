"""The attributes of a function, checked, with axes in NumPy's order."""

from collections.abc import Sequence
from typing import Any, TypeVar

from libraries.cntk.graph import Function
from libraries.cntk.wire import Axis, ModelError, Shape

T = TypeVar("T", bool, int)

MAX_FLOAT = 3e38
ALL_STATIC_AXES = 2**31 - 2  # in place of an axis's index
LARGEST = 2**31  # of sizes, counts and positions, so that computing with them does not overflow
LAST_STATIC_INDEX = 2**31 - 16  # larger numbers stand for axes without an index: all, the batch, …
MISSING: Any = object()


def flag(function: Function, name: str, default: bool = MISSING) -> bool:
    """A boolean attribute."""
    return bool(_typed(function, name, (bool,), default))


def number(function: Function, name: str, default: float = MISSING) -> float:
    """A numeric attribute within the range of float32."""
    value = float(_typed(function, name, (int, float), default))
    if not abs(value) < MAX_FLOAT:  # refuses NaN, too
        raise ModelError(f"{function}: its attribute {name!r} is {value}")
    return value


def whole(function: Function, name: str, default: int = MISSING) -> int:
    """A whole-number attribute."""
    return _within(function, name, [_typed(function, name, (int,), default)])[0]


def text(function: Function, name: str, default: str = MISSING) -> str:
    """A text attribute."""
    return str(_typed(function, name, (str,), default))


def shape(function: Function, name: str, default: Sequence[int] = MISSING) -> list[int]:
    """An attribute with a whole number per axis, slowest varying axis first."""
    return _within(function, name, list(_typed(function, name, (Shape,), default)))[::-1]


def flags(function: Function, name: str) -> list[bool]:
    """An attribute with a boolean per axis, slowest varying axis first."""
    return _each(function, name, bool)[::-1]


def wholes(function: Function, name: str) -> list[int]:
    """An attribute that is a list of whole numbers, in the file's order."""
    return _within(function, name, _each(function, name, int))


def axes(function: Function, name: str, rank: int) -> list[int]:
    """An attribute that is an axis, or a list of at least one, of a sample with `rank` axes."""
    values = _typed(function, name, (Axis, list), MISSING)
    values = values if isinstance(values, list) else [values]
    if len(values) > rank:
        raise ModelError(f"{function}: {len(values)} axes of a sample with {rank}")
    numbers: list[int] = []
    for value in values:
        if not isinstance(value, Axis):
            raise ModelError(f"{function}: its {name!r} is not an axis")
        numbers += range(rank) if value.index == ALL_STATIC_AXES else [static(function, value, rank)]
    if not numbers:
        raise ModelError(f"{function}: its {name!r} names no axis")
    return numbers


def axis(function: Function, name: str, rank: int) -> int:
    """An attribute that is one axis of a sample with `rank` axes."""
    numbers = axes(function, name, rank)
    if len(numbers) > 1:
        raise ModelError(f"{function}: its {name!r} is not one axis, but {len(numbers)}")
    return numbers[0]


def is_whole(function: Function, name: str) -> bool:
    """Whether an axis attribute stands for the whole sample."""
    value = function.attributes.get(name)
    return isinstance(value, Axis) and value.index == ALL_STATIC_AXES


def static(function: Function, axis: Axis, rank: int) -> int:
    """The number, in a sample with `rank` axes, of an axis of the file."""
    index = axis.index + rank if axis.index < 0 else axis.index
    if axis.index > LAST_STATIC_INDEX:
        raise ModelError(f"{function} works on the axis {axis.name!r}, not on those of one image: this is not read")
    if not 0 <= index < rank:
        raise ModelError(f"{function}: there is no axis {axis.index}")
    return rank - 1 - index


def per_axis(values: Sequence[T], *, given: int, rank: int, default: T) -> list[T]:
    """A value for each axis of a sample: `values` are for the last `given` axes (one stands for all of them)."""
    values = list(values) * given if len(values) == 1 else list(values)
    if len(values) > rank:
        raise ModelError(f"{len(values)} values for {rank} axes")
    return [default] * (rank - len(values)) + values


def _typed(function: Function, name: str, kinds: tuple[type, ...], default: Any) -> Any:
    value = function.attributes.get(name, default)
    if value is MISSING:
        raise ModelError(f"{function} lacks its attribute {name!r}")
    if (not isinstance(value, kinds) and value is not default) or (isinstance(value, bool) and bool not in kinds):
        raise ModelError(f"{function}: its attribute {name!r} is {value!r:.60}")
    return value


def _within(function: Function, name: str, values: list[int]) -> list[int]:
    if any(abs(value) > LARGEST for value in values):
        raise ModelError(f"{function}: its attribute {name!r} is {values!r:.60}")
    return values


def _each(function: Function, name: str, kind: type[T]) -> list[T]:
    values = _typed(function, name, (list,), MISSING)
    if not all(type(value) is kind for value in values):
        raise ModelError(f"{function}: its attribute {name!r} is {values!r:.60}")
    return list(values)
