"""When an answer can be relied on: which images are unknown, and sets of labels that hold the true one.

Both are thresholds on what was said of training images by models that had not seen them (see `thresholds`). What is
promised holds for images like those of the data set; no promise is made about others.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from libraries.base.arrays import Bool, Float32
from libraries.classifier.strangeness import Strangeness


@dataclass(frozen=True)
class Trust:
    """The thresholds of a bundle.

    Attributes:
        strangeness: of images; None if there are too few to tell.
        unknown_above: [K], the strangeness above which an image is unknown, by the most probable label: among images of
            a varied class, much is usual.
        unknown_rate: of the images of the known classes, how many at most are called unknown, 0 to 1.
        coverage: of the images, in how many at least the true label is in the set, 0 to 1.
        set_above: [K], the least probability with which a label is in the set; empty: there are too few images.
        on_its_own: [K], whether the promise is made for the class, rather than for all classes together.
    """

    strangeness: Strangeness | None
    unknown_above: list[float]
    unknown_rate: float
    coverage: float
    set_above: list[float]
    on_its_own: list[bool]

    @property
    def unknown_limits(self) -> Float32 | None:
        """float32 [K], as in a bundle; None: nobody can tell."""
        return None if self.strangeness is None else np.array(self.unknown_above, np.float32)

    @property
    def set_limits(self) -> Float32 | None:
        """float32 [K], as in a bundle; None: nothing is promised."""
        return np.array(self.set_above, np.float32) if self.set_above else None

    def to_json(self) -> dict[str, Any]:
        """What stands in model.json; how strangeness is computed is in the graph."""
        unknown = {} if self.strangeness is None else {"unknown_above": self.unknown_above}
        return {
            **unknown,
            "unknown_rate": self.unknown_rate,
            "coverage": self.coverage,
            "set_above": self.set_above,
            "on_its_own": self.on_its_own,
        }

    def told(self, names: Sequence[str]) -> list[str]:
        """What cannot be promised, in sentences."""
        sentences = []
        if self.strangeness is None:
            sentences.append(
                f"There are too few training images to tell which images are unknown: {needed(self.unknown_rate)} that "
                "are not alike, in classes of two or more, are needed."
            )
        if not self.set_above:
            sentences.append(
                f"There are too few training images for sets of labels: {needed(1 - self.coverage)} that are not "
                "alike, in classes of two or more, are needed."
            )
        elif not all(self.on_its_own):
            few = [name for name, own in zip(names, self.on_its_own, strict=True) if not own]
            more = f" and {len(few) - 5} more" if len(few) > 5 else ""
            names_of_few, least = f"{', '.join(few[:5])}{more}", needed(1 - self.coverage)
            sentences.append(
                f"The sets hold the true label in {percent(self.coverage)} of all images; for {names_of_few} this is "
                f"not promised by itself, with fewer than {least} training images of a class that are not alike."
            )
        return sentences


def percent(share: float) -> str:
    """0.9 as 90%, and 0.995 as 99.5%."""
    return f"{100 * share:.4g}%"


def needed(share: float) -> int:
    """How many independent examples a threshold takes that at most this share exceeds."""
    return math.ceil(1 / share - 1 - 1e-9)


def members(probabilities: Float32, set_above: Float32) -> Bool:
    """Which labels are in the sets, [N, K]: the most probable one always.

    Args:
        probabilities: float32 [N, K].
        set_above: float32 [K], see `Trust`.
    """
    chosen = probabilities >= set_above
    chosen[np.arange(len(probabilities)), probabilities.argmax(axis=1)] = True
    return np.asarray(chosen)


def check(described: Mapping[str, Any], *, classes: int) -> None:
    """Raise ValueError unless it is what `Trust.to_json` writes."""
    for name in ("unknown_rate", "coverage"):
        if not _is_number(described.get(name)) or not 0 < described[name] < 1:
            raise ValueError(f"trust: {name} is no share")
    own = described.get("on_its_own")
    for name, missing in (("set_above", None), ("unknown_above", [])):
        values = described.get(name, missing)
        if not isinstance(values, list) or len(values) not in (0, classes) or not all(map(_is_number, values)):
            raise ValueError(f"trust: {name} is no list of a number for each label")
    if not all(0 <= value <= 1 for value in described["set_above"]):
        raise ValueError("trust: set_above has what is no probability")
    if not isinstance(own, list) or [type(each) for each in own] != [bool] * len(described["set_above"]):
        raise ValueError("trust: on_its_own is no list of true or false for each label")


_LARGEST = 1e30  # well within float32


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and -_LARGEST < value < _LARGEST
