"""From probabilities and strangeness to an answer, by the thresholds and costs of a bundle."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from libraries.base.arrays import Bool, Float32, Int
from libraries.classifier.costs import Costs, answers
from libraries.classifier.trust import members


@dataclass(frozen=True)
class Decided:
    """The answers for N images.

    Attributes:
        answers: int [N], the most probable class; or, if mistakes have costs, the one that costs least.
        unknown: bool [N], whether an image is too strange to be of the classes; None: nobody can tell.
        sets: bool [N, K], labels of which one is true as often as is promised; None: nothing is.
        ask: bool [N], whether asking a person costs less than the answer, or is all that is left; None: nobody can be
            asked.
    """

    answers: Int
    unknown: Bool | None
    sets: Bool | None
    ask: Bool | None


@dataclass(frozen=True)
class Decision:
    """How answers are found.

    Attributes:
        unknown_above, set_above: float32 [K], see `Trust`; None: nobody can tell.
        costs: of mistakes; None: all cost the same.
    """

    unknown_above: Float32 | None = None
    set_above: Float32 | None = None
    costs: Costs | None = None

    @classmethod
    def described(cls, model: Mapping[str, Any], labels: Sequence[str]) -> Self:
        """What the model.json of a bundle, which has been checked, says."""
        trust, costs = model.get("trust", {}), model.get("costs")
        unknown_above, set_above = (
            np.array(trust[name], np.float32) if trust.get(name) else None for name in ("unknown_above", "set_above")
        )
        return cls(unknown_above, set_above, None if costs is None else Costs.from_json(costs, labels))

    @property
    def can_ask(self) -> bool:
        """Whether there is somebody to ask."""
        return self.costs is not None and self.costs.ask is not None

    def decide(self, probabilities: Float32, strangeness: Float32 | None = None) -> Decided:
        """The answers, by probabilities [N, K] and strangeness [N], which `unknown_above` needs."""
        found, rows = answers(probabilities, self.costs), np.arange(len(probabilities))
        unknown, sets, ask = None, None, None
        if self.unknown_above is not None:
            # by the most probable class, among whose images the threshold was found; NaN is unknown
            unknown = ~(strangeness <= self.unknown_above[probabilities.argmax(axis=1)])
        if self.set_above is not None:
            sets = members(probabilities, self.set_above)
            sets[rows, found] = True
        if self.can_ask and self.costs is not None:
            ask = self.costs.asks(probabilities)
            ask = ask if unknown is None else ask | unknown
        return Decided(found, unknown, sets, ask)
