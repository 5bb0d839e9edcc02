"""The split into training and test images: which examples must stay together, and the side of each.

Examples of one group are never separated. The sides come from a list of test images, or from the folders, or are drawn.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np

from libraries.base.arrays import Int
from libraries.base.errors import InputError
from libraries.base.file_system import nfc
from libraries.base.text import read_lines
from libraries.data import dataset, duplicates
from libraries.data.annotations import Annotations
from libraries.data.class_folders import ClassFolders, Side, find_class_folders, in_pool
from libraries.data.dataset import Example
from libraries.data.duplicates import Duplicates
from libraries.data.fingerprints import Forest
from libraries.data.removal import removed

MOST_LINES = 10  # of warnings for single classes; if there are more, one line warns about all
MOST_NAMED = 100  # classes in that line

DEDICATED_TEST_IMAGES = "dedicatedTestImages.tsv"


def group_examples(
    examples: Sequence[Example],
    by: Literal["filename", "subdir"],
    *,
    alike: Int | None = None,
    folders: ClassFolders | None = None,
) -> list[Example]:
    """Give every example its group: its sub-folder inside the class, or itself; duplicates share a group.

    The same picture on both sides of the split would mean testing on training data. A group has the name of the first
    of its examples, so that images without duplicates keep theirs.

    Args:
        by: 'filename': each image is a group; 'subdir': each sub-folder is.
        alike: int [N], for each example the row of the first duplicate (see `duplicates`). By default, only files with
            the same bytes are duplicates, and with 'subdir' not even those.
        folders: of the classes; None: a class is the top folder of its images. Sub-folders of the same name in several
            parts of a split are one.
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


def summary(examples: Sequence[Example]) -> str:
    """The table of images per class, and a warning for each class that lacks images on one side, or training groups."""
    training = [example for example in examples if example.split == "train"]
    labels = [example.label for example in training]
    warnings = training_warnings(sorted({*labels}), labels, [example.group for example in training])
    return "\n".join([dataset.counts_table(dataset.counts(examples)), *warnings])


def training_warnings(classes: Iterable[str], labels: Sequence[str], groups: Sequence[str]) -> list[str]:
    """A warning for each class without training images, or with a single group of them.

    How well new objects of a class are recognised is measured on groups left out of training; with a single group,
    there is none to leave out.

    Args:
        classes: all labels.
        labels, groups: of the training images, [N].
    """
    known: dict[str, set[str]] = {label: set() for label in classes}
    for label, group in zip(labels, groups, strict=True):
        known[label].add(group)
    images = Counter(labels)
    single = {label: images[label] for label, of_label in known.items() if len(of_label) == 1}
    lines = [
        f"Warning: class '{label}' has no training image, so it is never predicted; add some, or remove the class"
        for label, of_label in known.items()
        if not of_label
    ]
    advice = "so how well it is recognised in other images cannot be measured: add some"
    if len(single) <= MOST_LINES:
        lines += [
            f"Warning: {label}: 1 {f'group of {count:,} training images' if count > 1 else 'training image'}, {advice}"
            for label, count in single.items()
        ]
    else:
        names = ", ".join([*single][:MOST_NAMED]) + (", …" if len(single) > MOST_NAMED else "")
        lines.append(
            f"Warning: {len(single):,} classes have 1 group of training images each, so how well they are recognised "
            f"in other images cannot be measured: add some for {names}"
        )
    return lines


def _subdir(example: Example, folders: ClassFolders | None) -> str:
    label, _, inside = example.path.partition("/")
    if folders is not None and folders.parts:
        label, inside = example.label, folders.inside(example.path)
    subdir, slash, _ = inside.partition("/")
    return f"{label}/{subdir}" if slash else example.path


def take_sides(
    examples: Sequence[Example],
    alike: Duplicates,
    annotations: Annotations,
    *,
    label_of: Callable[[str], str],
    by: Literal["filename", "subdir"],
    ratio_train: float,
    seed: int,
) -> tuple[list[Example], list[str]]:
    """Give every example its group and its side of the split; also returns lines about that.

    A list of test images beside the class folders takes precedence, then folders that are parts of a split with a test
    part; otherwise the test set is drawn.

    Args:
        examples: of the data set of the annotations.
        alike: the duplicates among them.
        label_of: the class of an image by its path.
        by: see `group_examples`.
        ratio_train: fraction of the images in training, where the test set is drawn.

    Raises:
        InputError: the list is wrong, or one side stays empty.
    """
    folder, folders = annotations.folder, find_class_folders(annotations.folder)
    grouped = group_examples(examples, by, alike=alike.groups(), folders=folders)
    test_list = folder / DEDICATED_TEST_IMAGES
    lines = [f"The split is on disk: {folders.summary()}"] if folders.parts else []
    if test_list.exists():
        lines = [f"The test set is the one in {test_list}" + (", not the one in the folders" if folders.parts else "")]
        gone = {*annotations.marks, *removed(folder)}
        sided = split_by_list(grouped, test_list, moved=annotations.moved, left_out=gone)
    elif "test" in folders.parts.values():
        sided = _split_by_folders(grouped, folder, folders)
    else:
        lines += ["  There is no folder test/: the test images are drawn from all"] if folders.parts else []
        drawn = _draw(grouped, alike, annotations, label_of=label_of, by=by, ratio_train=ratio_train, seed=seed)
        return drawn, lines
    if leaks := duplicates.count_leaks(sided, alike.groups()):
        have = "has" if leaks == 1 else "have"
        lines.append(f"Warning: {leaks:,} of these test images {have} a duplicate in training: see duplicates.csv")
    return sided, lines


def _draw(
    grouped: Sequence[Example],
    alike: Duplicates,
    annotations: Annotations,
    *,
    label_of: Callable[[str], str],
    by: Literal["filename", "subdir"],
    ratio_train: float,
    seed: int,
) -> list[Example]:
    """Draw the test set among the images as they were before labels were changed by hand.

    So an image keeps its side with its new label, and an evaluation can be compared with that before. Only groups that
    would now stand on both sides, and classes that would lack one, are drawn anew. Images that were in the pool are
    training images: they were chosen to be labelled, so a test set with them would no longer be a fair sample. But they
    stay with the group that they belong to.
    """
    draw = partial(dataset.split, ratio_train=ratio_train, seed=seed)
    first = [annotations.first_path(example.path) for example in grouped]
    if first == [example.path for example in grouped]:
        return draw(grouped)
    old = [row for row, path in enumerate(first) if not in_pool(path)]
    before = [replace(grouped[row], path=first[row], label=label_of(first[row]) or grouped[row].label) for row in old]
    _, row_of, group = np.unique(alike.groups()[old], return_index=True, return_inverse=True)
    drawn = draw(group_examples(before, by, alike=row_of[group], folders=annotations.folders))
    sides: defaultdict[str, Counter[Side]] = defaultdict(Counter)  # by group
    labels: defaultdict[str, set[str]] = defaultdict(set)
    for row, then in zip(old, drawn, strict=True):
        sides[grouped[row].group][then.split] += 1
    for now in grouped:
        labels[now.group].add(now.label)
    side_of: dict[str, Side] = dict.fromkeys(labels, "train")
    side_of |= {group: max(found, key=lambda side: (found[side], side)) for group, found in sides.items()}
    for label in sorted({example.label for example in grouped}):
        own = [e for e in grouped if labels[e.group] == {label}]
        if len({side_of[e.group] for e in grouped if e.label == label}) < 2 and own:
            side_of |= {e.group: e.split for e in draw(own)}
    return [replace(example, split=side_of[example.group]) for example in grouped]


def check_test_list(annotations: Annotations, images: Iterable[str]) -> None:
    """Raise InputError if there is a list of test images and it is wrong, before any image is read.

    Args:
        images: paths of the images in the data set.
    """
    test_list = annotations.folder / DEDICATED_TEST_IMAGES
    if test_list.exists():
        gone = {*annotations.marks, *removed(annotations.folder)}
        _listed(test_list, images, moved=annotations.moved, left_out=gone)


def split_by_list(
    examples: Sequence[Example],
    list_path: Path,
    *,
    moved: Mapping[str, str] = MappingProxyType({}),
    left_out: Collection[str] = (),
) -> list[Example]:
    """Put exactly the images of the list (one `label<TAB>file name`, or one path, per line) into the test set.

    Names are compared in Unicode form C.

    Args:
        moved: current paths of images that the list may name by their original paths.
        left_out: images that the list may name though they are not examples.

    Raises:
        InputError: the list cannot be read, a line names no image, or one side of the split stays empty.
    """
    test = _listed(list_path, (e.path for e in examples), moved=moved, left_out=left_out)
    if not 0 < len(test) < len(examples):
        raise InputError(
            f"{list_path} puts {len(test)} of {len(examples)} images into the test set: both sides need images"
        )
    return [replace(e, split="test" if nfc(e.path) in test else "train") for e in examples]


def _listed(list_path: Path, images: Iterable[str], *, moved: Mapping[str, str], left_out: Collection[str]) -> set[str]:
    """The current paths, in form C, of the images in a list of test images."""
    known = {nfc(path) for path in images}
    now = {nfc(first): nfc(path) for first, path in moved.items()}
    ignored = {nfc(path) for path in left_out}
    test: set[str] = set()
    for number, line in enumerate(read_lines(list_path, what="the list of test images"), start=1):
        if not line.strip():
            continue
        path = nfc("/".join(part.strip() for part in line.split("\t")))
        if path not in known:
            path = path.replace("\\", "/")  # as programs on Windows write it
            path = now.get(path, path)
        if path in ignored:
            continue
        if path not in known:
            raise InputError(
                f"{list_path} line {number}: there is no intact image '{path}'; correct or remove the line"
            )
        test.add(path)
    return test


def _split_by_folders(examples: Sequence[Example], folder: Path, folders: ClassFolders) -> list[Example]:
    """The examples, on the sides that their folders stand for."""
    sided = [replace(e, split=folders.side(e.path)) for e in examples]
    if len({e.split for e in sided}) < 2:
        raise InputError(f"{folder} has intact images on one side only, of {folders.summary()}: both sides need images")
    return sided
