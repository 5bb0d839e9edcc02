"""On which side of the split each image stands: as a list says, as the folders say, or drawn."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from libraries.base.errors import InputError
from libraries.base.names import nfc
from libraries.base.text import read_lines
from libraries.data import dataset, duplicates
from libraries.data.annotations import Annotations
from libraries.data.class_folders import ClassFolders, find_class_folders
from libraries.data.dataset import Example
from libraries.data.duplicates import Duplicates
from libraries.data.groups import group_examples
from libraries.data.removal import removed

DEDICATED_TEST_IMAGES = "dedicatedTestImages.tsv"


def take_sides(
    examples: Sequence[Example],
    alike: Duplicates,
    annotations: Annotations,
    *,
    by: Literal["filename", "subdir"],
    ratio_train: float,
    seed: int,
) -> tuple[list[Example], list[str]]:
    """Give every example its group and its side of the split; gives also what is to be told.

    A list of test images beside the class folders comes first, then folders that are parts of a split with a test part,
    else the test set is drawn.

    Args:
        examples: of the data set that the annotations are of.
        by: what is a group; see `group_examples`.

    Raises:
        InputError: the list is wrong, or one side stays empty.
    """
    folder, folders = annotations.folder, find_class_folders(annotations.folder)
    grouped = group_examples(examples, by, alike=alike.groups(), folders=folders)
    test_list = folder / DEDICATED_TEST_IMAGES
    told = [f"The split is on disk: {folders.told()}"] if folders.parts else []
    if test_list.exists():
        told = [f"The test set is the one in {test_list}" + (", not the one in the folders" if folders.parts else "")]
        gone = {*annotations.marks, *removed(folder)}
        sided = split_by_list(grouped, test_list, moved=annotations.moved, left_out=gone)
    elif "test" in folders.parts.values():
        sided = _split_by_folders(grouped, folder, folders)
    else:
        told += ["  There is no folder test/: the test images are drawn from all"] if folders.parts else []
        return dataset.split(grouped, ratio_train=ratio_train, seed=seed), told
    if parted := duplicates.parted(sided, alike.groups()):
        told.append(f"Warning: {parted:,} of these test images have a duplicate in training: see duplicates.csv")
    return sided, told


def check_test_list(annotations: Annotations, found: Iterable[str]) -> None:
    """Raise InputError where the list of test images, if there is one, is wrong: before all images are read.

    Args:
        found: paths of the images that there are.
    """
    test_list = annotations.folder / DEDICATED_TEST_IMAGES
    if test_list.exists():
        gone = {*annotations.marks, *removed(annotations.folder)}
        _listed(test_list, found, moved=annotations.moved, left_out=gone)


def split_by_list(
    examples: Sequence[Example],
    list_path: Path,
    *,
    moved: Mapping[str, str] = MappingProxyType({}),
    left_out: Collection[str] = (),
) -> list[Example]:
    """Put exactly the images of the list (one `label<TAB>file name`, or one path, per line) into the test set.

    Names are compared in Unicode's form C.

    Args:
        moved: present paths of images that the list may still name by their first.
        left_out: images that the list may name though they are no examples.

    Raises:
        InputError: it is no list, a line names no image, or one side of the split stays empty.
    """
    test = _listed(list_path, (e.path for e in examples), moved=moved, left_out=left_out)
    if not 0 < len(test) < len(examples):
        raise InputError(
            f"{list_path} puts {len(test)} of {len(examples)} images into the test set: both sides need images"
        )
    return [replace(e, split="test" if nfc(e.path) in test else "train") for e in examples]


def _listed(list_path: Path, images: Iterable[str], *, moved: Mapping[str, str], left_out: Collection[str]) -> set[str]:
    """The present paths, in form C, of the images in a list of test images."""
    known = {nfc(path) for path in images}
    now = {nfc(first): nfc(path) for first, path in moved.items()}
    passed_over = {nfc(path) for path in left_out}
    test: set[str] = set()
    for number, line in enumerate(read_lines(list_path, what="the list of test images"), start=1):
        if not line.strip():
            continue
        path = nfc("/".join(part.strip() for part in line.split("\t")))
        if path not in known:
            path = path.replace("\\", "/")  # as Windows' programs write it
            path = now.get(path, path)
        if path in passed_over:
            continue
        if path not in known:
            raise InputError(
                f"{list_path} line {number}: there is no intact image '{path}'; correct or remove the line"
            )
        test.add(path)
    return test


def _split_by_folders(examples: Sequence[Example], folder: Path, folders: ClassFolders) -> list[Example]:
    """The sides that the folders stand for."""
    sided = [replace(e, split=folders.side(e.path)) for e in examples]
    if len({e.split for e in sided}) < 2:
        raise InputError(f"{folder} has intact images on one side only, of {folders.told()}: both sides need images")
    return sided
