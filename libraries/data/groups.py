"""Which examples must not be parted by the split, and which classes have too few such groups."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from libraries.base.console import counted
from libraries.data import dataset
from libraries.data.class_folders import ClassFolders
from libraries.data.dataset import Example
from libraries.data.pairs import Forest

MOST_LINES = 10  # of warnings, before classes share one
MOST_NAMED = 100  # classes in a line


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


def told(examples: Sequence[Example]) -> str:
    """The table of images per class, and a warning for each class that lacks images on one side, or training groups."""
    training = [example for example in examples if example.split == "train"]
    labels = [example.label for example in training]
    warnings = training_warnings(sorted({*labels}), labels, [example.group for example in training])
    return "\n".join([dataset.told(dataset.counts(examples)), *warnings])


def training_warnings(classes: Iterable[str], labels: Sequence[str], groups: Sequence[str]) -> list[str]:
    """A warning for each class without training images, or with a single group of them, by name.

    What a classifier makes of new objects of a class shows on groups that were left out of its training: with a single
    group there is nothing to leave out.

    Args:
        classes: that there are.
        labels, groups: of the training images, [N].
    """
    known: dict[str, set[str]] = {label: set() for label in classes}
    for label, group in zip(labels, groups, strict=True):
        known[label].add(group)
    images = Counter(labels)
    single = {label: images[label] for label, of_label in known.items() if len(of_label) == 1}
    lines = [
        f"Warning: class '{label}' has no training image, so it is never the answer; add some, or remove the class"
        for label, of_label in known.items()
        if not of_label
    ]
    advice = "how well other objects are recognised cannot be measured; add images of some"
    if len(single) <= MOST_LINES:
        lines += [
            f"Warning: {label}: 1 group of training images ({counted(count, 'image')}); {advice}"
            for label, count in single.items()
        ]
    else:
        names = ", ".join([*single][:MOST_NAMED]) + (", …" if len(single) > MOST_NAMED else "")
        lines.append(f"Warning: {len(single):,} classes have 1 group of training images each; {advice}: {names}")
    return lines


def _subdir(example: Example, folders: ClassFolders | None) -> str:
    label, _, inside = example.path.partition("/")
    if folders is not None and folders.parts:
        label, inside = example.label, folders.inside(example.path)
    subdir, slash, _ = inside.partition("/")
    return f"{label}/{subdir}" if slash else example.path
