"""Which examples must not be parted by the split."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from libraries.data.class_folders import ClassFolders
from libraries.data.dataset import Example
from libraries.data.pairs import Forest


def group_examples(
    examples: Sequence[Example],
    by: Literal["filename", "subdir"],
    *,
    alike: npt.NDArray[np.int64] | None = None,
    folders: ClassFolders | None = None,
) -> list[Example]:
    """Give every example its group: its sub-folder inside the class, or itself; duplicates share a group.

    The same picture on both sides of the split would be a test on training data. A group has the name of the first of
    those that it is joined of, so that images without duplicates keep theirs.

    Args:
        alike: int [N], of each example the row of the first one that shows the same (see `duplicates`). By default
            only files that are the same to the byte are alike, and where sub-folders count not even those.
        folders: of the classes; None: a class is the topmost folder of its images. A sub-folder of one name in several
            parts of a split is one.
    """
    if by == "subdir":
        names = [_subdir(e, folders) for e in examples]
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


def _subdir(example: Example, folders: ClassFolders | None) -> str:
    label, _, inside = example.path.partition("/")
    if folders is not None and folders.parts:
        label, inside = example.label, folders.inside(example.path)
    subdir, slash, _ = inside.partition("/")
    return f"{label}/{subdir}" if slash else example.path
