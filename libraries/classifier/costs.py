"""What a wrong answer costs, what asking a person costs, and the answer that costs least.

With the probabilities p of the classes, the answer j costs sum_i p_i cost(i, j) on average, and the least of these is
the best there is (Elkan 2001, 'The foundations of cost-sensitive learning'). If all mistakes cost the same, that is the
most probable class. If a mistake costs in inverse proportion to how frequent the class is, it is the class that gains
most on its frequency, and what is maximised is the class-averaged accuracy.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from libraries.base.arrays import Bool, Float64, Floating, Int
from libraries.base.errors import InputError
from libraries.base.file_system import nfc
from libraries.base.text import table_cells

CLASS_AVERAGED = "classAveraged"  # value of the parameter
ASK, ANY = "ask", "*"
MOST_ROWS = 1_000_000
LARGEST = 1e12
_FORM = "label,answer,cost"

Row = tuple[str, str, float]  # the true label or *, the answer or * or ask, and what that costs


@dataclass(frozen=True)
class Costs:
    """What answers to images of K classes cost.

    Attributes:
        rows: as they were given; the more exact one counts: both names, else the label's, else the answer's, else **.
        unit: of the costs; empty: a number.
        matrix: float64 [K, K], of the answer (column) to an image of a class (row); right answers cost nothing.
        ask: float64 [K], of asking a person about an image of a class; None: nobody can be asked.
    """

    rows: tuple[Row, ...]
    unit: str
    matrix: Float64
    ask: Float64 | None

    @classmethod
    def of(cls, rows: Sequence[Row], names: Sequence[str], *, unit: str = "") -> Self:
        """The costs of some rows.

        Args:
            names: K names of the classes.

        Raises:
            ValueError: a row names an unknown class, a cost is no number from 0 on, there are two for the same, or none
                for some mistake.
        """
        number = {name: i for i, name in enumerate(names)}
        given: dict[tuple[str, str], float] = {}
        for label, answer, cost in rows:
            _check_row((label, answer, cost), number)
            if (label, answer) in given:
                raise ValueError(f"the cost of '{label:.60},{answer:.60}' is given twice")
            given[label, answer] = float(cost)
        matrix = np.full((len(names), len(names)), given.get((ANY, ANY), math.nan))
        # A slice of everything stands for any; the more exact rows come later.
        for label, answer in sorted(given, key=lambda pair: (pair[0] != ANY, pair[1] != ANY)):
            if answer != ASK:
                matrix[number.get(label, slice(None)), number.get(answer, slice(None))] = given[label, answer]
        np.fill_diagonal(matrix, 0)
        if (missing := np.argwhere(np.isnan(matrix))).size:
            label, answer = (names[i] for i in missing[0])
            raise ValueError(f"what the answer '{answer:.60}' to '{label:.60}' costs is missing: add it, or *,*,1")
        return cls(tuple(rows), unit, matrix, _ask(given, names))

    @classmethod
    def averaging(cls, labels: Int, names: Sequence[str]) -> Self:
        """The costs that make the class-averaged accuracy as high as possible, by frequencies in labels, int [N]."""
        members = np.maximum(np.bincount(labels, minlength=len(names)), 1)
        costs = len(labels) / (len(names) * members)
        return cls.of([(name, ANY, float(cost)) for name, cost in zip(names, costs, strict=True)], names)

    @classmethod
    def from_json(cls, described: Mapping[str, Any], names: Sequence[str]) -> Self:
        """What `to_json` wrote; raises ValueError, TypeError or KeyError for anything else."""
        rows, unit = described["rows"], described["unit"]
        if not isinstance(rows, list) or len(rows) > MOST_ROWS or not isinstance(unit, str) or len(unit) > 100:
            raise ValueError("costs: rows or unit are missing")
        for row in rows:
            is_row = isinstance(row, list) and [type(each) for each in row[:2]] == [str, str] and len(row) == 3
            if not is_row or type(row[2]) not in (int, float) or not -LARGEST <= row[2] <= LARGEST:
                raise ValueError("costs: a row is not label, answer, cost")
        return cls.of([(label, answer, cost) for label, answer, cost in rows], names, unit=unit)

    def to_json(self) -> dict[str, Any]:
        """What stands in model.json."""
        return {"rows": [list(row) for row in self.rows], "unit": self.unit}

    def answers(self, probabilities: Floating) -> Int:
        """The answer that costs least, without asking anybody, int [N], by probabilities [N, K]."""
        expected = probabilities @ self.matrix
        least = expected.min(axis=1, keepdims=True)
        is_least = expected <= least + 1e-9 * np.abs(least)
        return np.asarray(np.where(is_least, probabilities, -1).argmax(axis=1))  # of equal ones, the most probable

    def asks(self, probabilities: Floating) -> Bool:
        """Whether asking a person costs less than the best answer, [N], by probabilities [N, K]."""
        if self.ask is None:
            return np.zeros(len(probabilities), bool)
        return np.asarray(probabilities @ self.ask < (probabilities @ self.matrix).min(axis=1))

    def paid(self, labels: Int, answers: Int, asked: Bool) -> Float64:
        """What was paid for N images: for asking about some, for the answers to the others."""
        of_answers = self.matrix[labels, answers]
        return of_answers if self.ask is None else np.where(asked, self.ask[labels], of_answers)


def _check_row(row: Row, names: Collection[str]) -> None:
    """Raise ValueError unless it is a row of costs."""
    label, answer, cost = row
    if ASK in names or ANY in names:
        raise ValueError(f"a class is called '{ASK if ASK in names else ANY}', which means something else in costs")
    if label != ANY and label not in names:
        raise ValueError(f"'{label:.60}' is no class: they are {', '.join(names)[:200]}, or *")
    if answer not in (ANY, ASK) and answer not in names:
        raise ValueError(f"'{answer:.60}' is no class: they are {', '.join(names)[:200]}, or *, or ask")
    if label == answer != ANY:
        raise ValueError(f"'{label:.60}' is the right answer to itself, which costs nothing")
    if not 0 <= cost <= LARGEST:
        raise ValueError(f"{cost:g} is no cost: they are numbers from 0 on")


def _ask(given: Mapping[tuple[str, str], float], names: Sequence[str]) -> Float64 | None:
    """What asking costs, [K]."""
    if not any(answer == ASK for _, answer in given):
        return None
    usual = given.get((ANY, ASK), math.nan)
    found = np.array([given.get((name, ASK), usual) for name in names])
    if np.isnan(found).any():
        name = names[int(np.isnan(found).argmax())]
        raise ValueError(f"what asking about '{name:.60}' costs is missing: add it, or *,ask,1")
    return found


def answers(probabilities: Floating, costs: Costs | None) -> Int:
    """The answers, int [N], by probabilities [N, K]; without costs, the most probable class."""
    return np.asarray(probabilities.argmax(axis=1)) if costs is None else costs.answers(probabilities)


def costs_of(setting: str | Path, labels: Int, names: Sequence[str]) -> Costs | None:
    """The costs that the parameter `costs` asks for; None: all mistakes cost the same.

    Args:
        labels: int [N], of the training images.

    Raises:
        MissingInput, InputError: the table is missing or wrong; says where.
    """
    if isinstance(setting, Path):
        return read_costs(setting, names)
    try:
        return Costs.averaging(labels, names) if setting == CLASS_AVERAGED else None
    except ValueError as error:
        raise InputError(f"costs = {setting}: {error}") from None


def read_costs(path: Path, names: Sequence[str]) -> Costs:
    """Read a table of costs: CSV or TSV with the header label,answer,cost, or cost [unit].

    `*` stands for any label, or any answer; the answer `ask` for asking a person.

    Raises:
        MissingInput, InputError: it is missing or wrong; names the line.
    """
    lines = table_cells(path, what="the table of costs")
    first, header = next(lines, (1, []))
    name, _, unit = (header[2] if len(header) == 3 else "").partition("[")
    columns = [cell.strip().lower() for cell in [*header[:2], name]]
    if columns != _FORM.split(",") or (unit and not unit.strip().endswith("]")):
        raise InputError(f"{path}, line {first}: expected the header {_FORM}, or {_FORM} [minutes]")
    rows: list[Row] = []
    for line, cells in lines:
        if len(cells) != 3:
            comma = "; a number is written with a point, such as 50.5" if len(cells) == 4 else ""
            raise InputError(f"{path}, line {line} has {len(cells)} cells instead of 3: {_FORM}{comma}")
        if len(rows) == MOST_ROWS:
            raise InputError(f"{path} has more than {MOST_ROWS:,} rows: use * for most of them")
        label, answer, cost = (nfc(cell.strip()) for cell in cells)
        try:
            rows.append((label, answer, float(cost)))
            _check_row(rows[-1], names)
        except ValueError as error:
            raise InputError(f"{path}, line {line}: {_in_words(error, cost)}") from None
    try:
        return Costs.of(rows, names, unit=unit.strip().removesuffix("]").strip()[:100])
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None


def _in_words(error: ValueError, cost: str) -> str:
    text = str(error)
    if not text.startswith("could not convert"):
        return text
    return f"'{cost:.40}' is no number" + (": write 50.5 with a point" if "," in cost else "")
