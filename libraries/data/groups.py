"""Which examples must not be parted by the split."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Literal

import numpy as np
import numpy.typing as npt

from libraries.data.dataset import Example
from libraries.data.pairs import Forest


def group_examples(
    examples: Sequence[Example],
    by: Literal["filename", "subdir"],
    *,
    alike: npt.NDArray[np.int64] | None = None,
) -> list[Example]:
    """Give every example its group: its sub-folder inside the class, or itself; duplicates share a group.

    The same picture on both sides of the split would be a test on training data. A group has the name of the first of
    those that it is joined of, so that images without duplicates keep theirs.

    Args:
        alike: int [N], of each example the row of the first one that shows the same (see `duplicates`). By default
            only files that are the same to the byte are alike, and where sub-folders count not even those.
    """
    if by == "subdir":
        names = [_subdir(e) for e in examples]
    else:
        first: dict[str, str] = {}
        names = [first.setdefault(e.sha256, e.path) for e in examples]
    forest = Forest(len(examples))
    row_of: dict[str, int] = {}
    for row, name in enumerate(names):
        forest.join(row, row_of.setdefault(name, row))
        if alike is not None:
            forest.join(row, int(alike[row]))
    return [replace(e, group=names[row]) for e, row in zip(examples, forest.groups().tolist(), strict=True)]


def _subdir(example: Example) -> str:
    parts = PurePosixPath(example.path).parts
    return "/".join(parts[:2]) if len(parts) > 2 else example.path
