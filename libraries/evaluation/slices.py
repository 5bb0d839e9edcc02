"""Parts of the test images that may fare differently: by size, brightness, source folder and group."""

from collections import Counter
from collections.abc import Sequence
from functools import partial

import numpy as np

from libraries.base.errors import ImageError
from libraries.base.layout import Layout
from libraries.base.pool import ordered_map
from libraries.data.class_folders import find_class_folders
from libraries.data.dataset import Example
from libraries.data.images import load
from libraries.evaluation.outputs import square

MOST_SOURCES = 20  # folders that are slices of their own
RISING = ("small", "dark", "middle", "large", "bright")
_SIDE = 32  # pixels of an image whose brightness is measured


def slices_of(examples: Sequence[Example], layout: Layout, *, white_level: int) -> dict[str, list[str | None]]:
    """Size, brightness, source folder and group of the images; what cannot be read, or is all the same, is in none."""
    size = _thirds([float(e.width * e.height) for e in examples], ("small", "middle", "large"))
    levels = [
        level
        for _, level in ordered_map(
            partial(_brightness, layout=layout, white_level=white_level), [example.path for example in examples]
        )
    ]
    brightness = _thirds(levels, ("dark", "middle", "bright"))
    folders = find_class_folders(layout.images)
    inside = [folders.inside(example.path).rpartition("/")[0] for example in examples]
    sources = {source for source in inside if source}
    source: list[str | None] = [each or None if len(sources) <= MOST_SOURCES else None for each in inside]
    members = Counter(example.group for example in examples)
    group: list[str | None] = ["of several" if members[e.group] > 1 else "alone" for e in examples]
    known = {"size": size, "brightness": brightness, "folder": source, "group": group}
    return {name: values for name, values in known.items() if len({*values} - {None}) > 1}


def _brightness(path: str, *, layout: Layout, white_level: int) -> float | None:
    try:
        rule = square(_SIDE, white_level=white_level)
        return float(load(layout.images / path, rule, max_pixels=layout.max_pixels).mean())
    except ImageError:
        return None


def _thirds(values: Sequence[float | None], names: tuple[str, str, str]) -> list[str | None]:
    """The third in which each value is; images of equal values are in the same."""
    known = np.array([value for value in values if value is not None])
    if not len(known):
        return [None] * len(values)
    low, high = np.quantile(known, [1 / 3, 2 / 3], method="lower")
    return [
        None if value is None else names[0] if value <= low else names[1] if value <= high else names[2]
        for value in values
    ]
