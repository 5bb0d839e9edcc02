"""Folders of images per class → examples.csv: scan, check, split."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from libraries.base.arrays import Pixels
from libraries.base.console import table
from libraries.base.errors import InputError, StaleInput
from libraries.base.file_system import nfc, open_regular
from libraries.base.layout import Layout
from libraries.base.storage import Artefact
from libraries.base.tables import Column, read_table, write_table
from libraries.data.class_folders import Side, find_class_folders, image_files, is_image
from libraries.data.decoding import MAX_PIXELS
from libraries.data.depth import FULL_RANGE
from libraries.data.formats import NAMES, NotRead
from libraries.data.images import ResizeRule, load_bytes
from libraries.data.remembered import KnownFiles


@dataclass(frozen=True, slots=True)
class Example:
    """One image: its path (relative to the data set's folder), its label, and its side of the split.

    Examples of one group are always on the same side. `width` and `height` [pixels] are of the upright picture.
    """

    path: Annotated[str, Column("path of the image, relative to the folder of the data set")]
    label: Annotated[str, Column("name of its class")]
    split: Annotated[Side, Column("train or test")]
    group: Annotated[str, Column("images of one group are always on the same side of the split")]
    width: Annotated[int, Column("of the upright picture [pixels]")]
    height: Annotated[int, Column("of the upright picture [pixels]")]
    bytes: Annotated[int, Column("size of the file")]
    sha256: Annotated[str, Column("SHA-256 of the file")]

    @property
    def max_pixels(self) -> int:
        """The limit for reading it again: it was accepted, perhaps under a higher limit than the default."""
        return max(MAX_PIXELS, self.width * self.height)


@dataclass(frozen=True)
class Scan:
    """The files in a data set's folder.

    Attributes:
        paths: of the images, per label.
        skipped: how many other files there are, by why they are not images.
        lost: how many of them contain pictures, or seem to, per label.
    """

    paths: dict[str, list[str]]
    skipped: Counter[NotRead]
    lost: Counter[str] = field(default_factory=Counter)


def scan(folder: Path) -> Scan:
    """Find the images of every class; sub-folders inside a class belong to it, hidden files do not.

    `class_folders` says which folders belong to a class.

    Raises:
        InputError: no folder, fewer than two classes, a class without images, a folder name that cannot be a label, or
            two names that are equal except for case or their form of Unicode.
    """
    if not folder.is_dir():
        raise InputError(
            f"{folder} does not exist: put one folder of images per class there, or run scripts/0_downloadData.py"
        )
    class_folders = find_class_folders(folder)
    for place in (folder, *(folder / part for part in class_folders.parts)):
        _check_links(place)
    folders = class_folders.by_label
    loose = _images_in(folder)
    if len(folders) < 2:
        classes = f"only '{next(iter(folders))}'" if folders else "none"
        flat = ", but images without one: imgLabelsPath of scripts/0_downloadData.py takes a table of their labels"
        raise InputError(
            f"{folder} needs at least two folders of images, one per class; found {classes}{flat if loose else ''}"
        )
    paths: dict[str, list[str]] = {}
    skipped: Counter[NotRead] = Counter()
    if loose:
        skipped[NotRead("image", "beside the class folders, so without a class", is_loss=True)] = loose
    lost: Counter[str] = Counter()
    for label, folders_of_class in folders.items():
        files = {inside: image_files(folder / inside) for inside in folders_of_class}
        others = [other for each in files.values() for other in each.others.values()]
        skipped.update(others)
        lost[label] = sum(other.is_loss for other in others)
        paths[label] = [f"{inside}/{path}" for inside, each in files.items() for path in each.images]
        if not paths[label]:
            places = " and ".join(str(folder / each) for each in folders_of_class)
            raise InputError(f"{places} holds no image ({_instead(others)}): add some, or remove the folder")
        _check_forms(folder, paths[label])
    return Scan(paths, skipped, lost)


def _images_in(folder: Path) -> int:
    """How many images are directly in a folder, not counting hidden files."""
    return sum(not p.name.startswith(".") and p.is_file() and is_image(p) for p in folder.iterdir())


def _check_links(folder: Path) -> None:
    """Raise InputError for a broken link, which may be a missing class."""
    for link in (p for p in folder.iterdir() if p.is_symlink() and not p.exists() and not p.name.startswith(".")):
        raise InputError(f"{link} is a broken link to {link.readlink()}: fix it, or remove it")


def _instead(others: Iterable[NotRead]) -> str:
    """The unread pictures in a folder without images or, if there are none, the formats that are read."""
    unread = Counter(other for other in others if other.is_loss)
    return "; ".join(other.describe(count) for other, count in unread.items()) or NAMES


def _check_forms(folder: Path, paths: Iterable[str]) -> None:
    """Raise InputError if two paths are equal except for their form of Unicode: lists could not distinguish them."""
    seen: dict[str, str] = {}
    for path in paths:
        if not path.isascii() and (other := seen.setdefault(nfc(path), path)) != path:
            raise InputError(f"{folder}: {other!a} and {path!a} are one name in two forms of Unicode; rename one")


def split(examples: Sequence[Example], *, ratio_train: float, seed: int) -> list[Example]:
    """Split every class into train and test, whole groups at a time, about `ratio_train` of its images in train.

    Groups are ordered by a hash of seed and name, so the split is the same on every machine, and adding images leaves
    most of the others on their side. A class with at least two groups has at least one on each side.
    """
    side: dict[str, Side] = {}
    for _, of_label in sorted(_by_label(examples).items()):
        sizes = Counter(e.group for e in of_label)
        settled = [g for g in sizes if g in side]  # a group with two labels keeps the side from the first one
        taken = sum(sizes[g] for g in settled if side[g] == "train")
        has_test = any(side[g] == "test" for g in settled)
        wanted = ratio_train * len(of_label)
        open_groups = sorted(sizes.keys() - side.keys(), key=lambda g: hashlib.sha256(f"{seed}:{g}".encode()).digest())
        for group in open_groups:
            is_needed_for_test = not has_test and group == open_groups[-1]
            is_wanted = taken + sizes[group] / 2 <= wanted
            is_train = taken == 0 or (is_wanted and not is_needed_for_test)
            side[group] = "train" if is_train else "test"
            taken += sizes[group] if is_train else 0
            has_test = has_test or not is_train
    return [replace(e, split=side[e.group]) for e in examples]


def draw(examples: Sequence[Example], *, most: int, seed: int) -> list[Example]:
    """About `most` examples, drawn from each class in proportion but at least two, in the order given."""
    order = sorted(examples, key=lambda e: hashlib.sha256(f"{seed}:{e.path}".encode()).digest())
    wanted = {label: most * len(of_label) / len(examples) for label, of_label in _by_label(order).items()}
    kept = {e.path for label, of_label in _by_label(order).items() for e in of_label[: max(2, int(wanted[label]))]}
    return [e for e in examples if e.path in kept]


def _by_label(examples: Iterable[Example]) -> dict[str, list[Example]]:
    by_label: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        by_label[example.label].append(example)
    return by_label


def leave_out(scanned: Scan, paths: Collection[str]) -> Scan:
    """A scan without these images.

    Raises:
        InputError: no image of a class is left.
    """
    kept = {label: [path for path in of_label if path not in paths] for label, of_label in scanned.paths.items()}
    for label, of_label in kept.items():
        if not of_label:
            raise InputError(f"every image of class '{label}' is marked: remove some marks, or the folder")
    return replace(scanned, paths=kept)


def counts(examples: Iterable[Example]) -> dict[str, dict[str, int]]:
    """Images per label and split: {label: {'train': …, 'test': …}}, labels sorted."""
    return {
        label: {side: sum(e.split == side for e in of_label) for side in ("train", "test")}
        for label, of_label in sorted(_by_label(examples).items())
    }


def groups_per_class(examples: Iterable[Example], labels: Sequence[str]) -> list[int]:
    """How many groups the examples of each label belong to, in the order of `labels`."""
    groups = Counter(label for label, _ in {(e.label, e.group) for e in examples})
    return [groups[label] for label in labels]


def counts_table(counts: Mapping[str, Mapping[str, int]]) -> str:
    """The table of counts, and a warning for each class that has no image on one side."""
    rows = [(label, c["train"], c["test"], c["train"] + c["test"]) for label, c in counts.items()]
    totals = [sum(column) for column in list(zip(*rows, strict=True))[1:]]
    lines = [table("Images per class", ["label", "train", "test", "all"], rows, footer=["all", *totals])]
    for label, c in counts.items():
        if not c["train"] or not c["test"]:
            side = "test" if not c["test"] else "training"
            lines.append(f"Warning: class '{label}' has no {side} image; add more images of it, or remove the class")
    return "\n".join(lines)


def write_examples(path: Path, examples: Sequence[Example]) -> None:
    """Write examples.csv, atomically."""
    write_table(path, Example, examples)


def read_examples(path: Path) -> list[Example]:
    """Read examples.csv as 1_prepareData wrote it; raises StorageError."""
    examples = read_table(path, Example, advice="run scripts/1_prepareData.py again")
    return [replace(e, label=nfc(e.label)) if not e.label.isascii() else e for e in examples]


def read_white_level(examples: Artefact) -> int:
    """The white level of images of more than 8 bits, from 1_prepareData; earlier versions did not measure it."""
    return int(examples.read().get("white_level", FULL_RANGE))


def load_example(example: Example, *, folder: Path, rule: ResizeRule) -> Pixels:
    """The image of an example, uint8 [S, S, 3], provided that its file has not changed since 1_prepareData.

    Raises:
        StaleInput: the file has changed or is gone.
        ImageError: it cannot be decoded.
    """
    data, path = read_example(example, folder=folder), folder / example.path
    return load_bytes(data, rule, path=path, max_pixels=example.max_pixels)


def check_unchanged(example: Example, *, folder: Path, files: KnownFiles) -> None:
    """Make sure that an example's file has not changed since 1_prepareData; it is read only if its state has.

    Raises:
        StaleInput: it has changed or is gone.
    """
    path = folder / example.path
    if files.sha256(files.state(path)) != example.sha256:
        read_example(example, folder=folder)


def read_example(example: Example, *, folder: Path) -> bytes:
    """The content of an example's file, provided that it has not changed; see `load_example`."""
    path = folder / example.path
    try:
        with open_regular(path) as file:
            data = file.read()
    except OSError as error:
        raise StaleInput(
            f"{path} cannot be read any more ({error.strerror}): run scripts/1_prepareData.py again"
        ) from error
    if hashlib.sha256(data).hexdigest() != example.sha256:
        raise StaleInput(f"{path} has changed since the data set was prepared: run scripts/1_prepareData.py again")
    return data


def changes_since_prepared(layout: Layout) -> str:
    """A warning about images that are new or gone since the data set was prepared; empty if there are none.

    Only names are compared: 100,000 images take about a second. A changed file is noticed when it is read
    (`load_example`).

    Raises:
        MissingInput, StorageError: the data set has not been prepared, or its examples cannot be read.
    """
    manifest = layout.examples.read()
    if "left_out" not in manifest:  # earlier versions did not say which of the images they left out
        return ""
    then = [example.path for example in read_examples(layout.examples.folder / "examples.csv")]
    try:
        folders = find_class_folders(layout.images)
    except InputError as error:
        return f"Warning: the images can no longer be prepared as they are: {error}"
    now = set(folders.images(layout.images))
    new, gone = sorted(now.difference(then, manifest["left_out"])), [path for path in then if path not in now]
    parts = [
        f"{len(paths):,} image{' is' if len(paths) == 1 else 's are'} {what} (such as {paths[0]})"
        for paths, what in ((new, "new"), (gone, "gone"))
        if paths
    ]
    if not parts:
        return ""
    return f"Warning: {' and '.join(parts)} since the data set was prepared: run scripts/1_prepareData.py again"
