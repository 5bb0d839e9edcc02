"""Folders of images per class → examples.csv: scan, check, split."""

import csv
import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np

from libraries.base.console import table
from libraries.base.errors import ImageError, InputError, StaleInput, StorageError
from libraries.base.file_system import explained
from libraries.base.storage import write_csv
from libraries.data.decoding import SUFFIXES, Pixels
from libraries.data.images import ResizeRule, inspect, load_bytes
from libraries.data.labels import check_label, check_labels
from libraries.data.quality import Measures, measure, review

DEDICATED_TEST_IMAGES = "dedicatedTestImages.tsv"


@dataclass(frozen=True)
class Example:
    """One image: where it is (relative to the data set's folder), what it shows, on which side of the split it stands.

    Examples of one group always stand on the same side. `width`, `height` [pixels] are of the upright picture.
    """

    path: str
    label: str
    split: Literal["train", "test"]
    group: str
    width: int
    height: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Scan:
    """What lies in a data set's folder: image paths per label, and how many other files, by the reason."""

    paths: dict[str, list[str]]
    skipped: Counter[str]


class Checked(NamedTuple):
    """What decoding every file has shown.

    Attributes:
        examples: N, not yet split: all 'train', each a group.
        refused: files that are no intact images.
        tiny: uint8 [N, 16, 17], the examples as tiny gray pictures, by which duplicates are found.
        measures: N, by which quality is judged.
    """

    examples: list[Example]
    refused: list[ImageError]
    tiny: Pixels
    measures: list[Measures]

    def without(self, paths: Collection[str]) -> "Checked":
        """The same, but for these images."""
        rows = [row for row, example in enumerate(self.examples) if example.path not in paths]
        kept = [self.examples[row] for row in rows]
        return Checked(kept, self.refused, self.tiny[rows], [self.measures[row] for row in rows])

    def review(self) -> list[dict[str, Any]]:
        """What is worth a second look: the rows of quality.csv."""
        return review({example.path: m for example, m in zip(self.examples, self.measures, strict=True)})


def scan(folder: Path) -> Scan:
    """Find the images of every class; sub-folders inside a class belong to it, hidden files do not.

    Raises:
        InputError: no folder, fewer than two classes, a class without images, or a folder name that cannot be a label.
    """
    if not folder.is_dir():
        raise InputError(
            f"{folder} does not exist: put one folder of images per class there, or run scripts/0_downloadData.py"
        )
    classes = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    for link in (p for p in folder.iterdir() if p.is_symlink() and not p.exists() and not p.name.startswith(".")):
        raise InputError(f"{link} is a broken link to {link.readlink()}: mend it, or remove it")
    check_labels([p.name for p in classes])
    if len(classes) < 2:
        found = f"only '{classes[0].name}'" if classes else "none"
        raise InputError(f"{folder} needs at least two folders of images, one per class; found {found}")
    paths: dict[str, list[str]] = {}
    skipped: Counter[str] = Counter()
    for folder_of_class in classes:
        label = check_label(folder_of_class.name)
        images, others = image_files(folder_of_class)
        skipped.update(map(_why_not, others))
        if not images:
            known = ", ".join(sorted(SUFFIXES))
            raise InputError(f"{folder_of_class} holds no image ({known}): add some, or remove the folder")
        paths[label] = [f"{folder_of_class.name}/{path}" for path in images]
    return Scan(paths, skipped)


def image_files(folder: Path) -> tuple[list[str], list[str]]:
    """The images in a folder and its sub-folders, by their suffix, and the other files: sorted paths relative to it.

    Hidden files are left out, links to folders not followed; a file whose name is not Unicode is none of the images.
    50,000 files take about 0.1 s.

    Raises:
        StorageError: a folder cannot be read.
    """
    found: tuple[list[str], list[str]] = ([], [])
    for place, folders, files in os.walk(folder, onerror=_unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = Path(place).relative_to(folder).as_posix()
        prefix = "" if inside == "." else f"{inside}/"
        for name in files:
            if not name.startswith("."):
                is_image = "." + name.rpartition(".")[2].lower() in SUFFIXES and _is_unicode(prefix + name)
                found[not is_image].append(prefix + name)
    return sorted(found[0]), sorted(found[1])


def _unreadable(error: OSError) -> None:
    raise StorageError(f"{error.filename} cannot be read: {explained(error)}") from error


def _is_unicode(path: str) -> bool:
    """Whether a path can stand in a table; on Linux a file's name may be any bytes."""
    return path.isascii() or path.encode(errors="replace") == path.encode(errors="surrogateescape")


def _why_not(path: str) -> str:
    if not _is_unicode(path):
        return "with a name that is not Unicode: rename it"
    return f"{PurePosixPath(path).suffix.lower() or 'no suffix'} (not an image format that is read)"


def check_images(
    folder: Path, found: Scan, *, workers: int, progress: Callable[[Sequence[str]], Iterable[str]] = iter
) -> Checked:
    """Decode every file, in parallel.

    Raises:
        InputError: no file of a class is an intact image.
    """
    labels = {path: label for label, paths in found.paths.items() for path in paths}

    def check(path: str) -> tuple[Example, Pixels, Measures] | ImageError:
        try:
            facts = inspect(folder / path)
        except ImageError as error:
            return ImageError(error.reason, path)
        example = Example(path, labels[path], "train", path, facts.width, facts.height, facts.bytes, facts.sha256)
        return example, facts.tiny, measure(facts.small, size=(facts.width, facts.height))

    with ThreadPoolExecutor(workers) as pool:
        results = pool.map(check, labels)
        checked = [next(results) for _ in progress(list(labels))]
    good = [c for c in checked if not isinstance(c, ImageError)]
    refused = [c for c in checked if isinstance(c, ImageError)]
    examples = [example for example, _, _ in good]
    for label in found.paths:
        if not any(e.label == label for e in examples):
            raise InputError(f"no file in {folder / label} is an intact image: replace them, or remove the folder")
    return Checked(examples, refused, np.stack([tiny for _, tiny, _ in good]), [measures for _, _, measures in good])


def added_since(folder: Path, examples: Sequence[Example], *, left_out: Sequence[str]) -> list[str]:
    """Paths of images that were neither among the examples nor refused when the data set was prepared."""
    known = {e.path for e in examples}.union(left_out)
    return [path for paths in scan(folder).paths.values() for path in paths if path not in known]


def split(examples: Sequence[Example], *, ratio_train: float, seed: int) -> list[Example]:
    """Split every class into train and test, whole groups at a time, about `ratio_train` of its images in train.

    Groups are ordered by a hash of seed and name, so the split is the same on every machine, and adding images leaves
    most of the others on their side. A class with at least two groups has at least one on each side.
    """
    side: dict[str, Literal["train", "test"]] = {}
    for label in sorted({e.label for e in examples}):
        sizes = Counter(e.group for e in examples if e.label == label)
        settled = [g for g in sizes if g in side]  # a group of two labels keeps the side that the first gave it
        taken = sum(sizes[g] for g in settled if side[g] == "train")
        has_test = any(side[g] == "test" for g in settled)
        open_groups = sorted(sizes.keys() - side.keys(), key=lambda g: hashlib.sha256(f"{seed}:{g}".encode()).digest())
        for group in open_groups:
            is_needed_for_test = not has_test and group == open_groups[-1]
            is_wanted = taken + sizes[group] / 2 <= ratio_train * sum(sizes.values())
            is_train = taken == 0 or (is_wanted and not is_needed_for_test)
            side[group] = "train" if is_train else "test"
            taken += sizes[group] if is_train else 0
            has_test = has_test or not is_train
    return [replace(e, split=side[e.group]) for e in examples]


def draw(examples: Sequence[Example], *, most: int, seed: int) -> list[Example]:
    """About `most` examples, of each class according to its share, but two at least, in the order given."""
    order = sorted(examples, key=lambda e: hashlib.sha256(f"{seed}:{e.path}".encode()).digest())
    wanted = {label: most * len(of_label) / len(examples) for label, of_label in _by_label(order).items()}
    kept = {e.path for label, of_label in _by_label(order).items() for e in of_label[: max(2, int(wanted[label]))]}
    return [e for e in examples if e.path in kept]


def _by_label(examples: Iterable[Example]) -> dict[str, list[Example]]:
    found: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        found[example.label].append(example)
    return found


def leave_out(found: Scan, paths: Collection[str]) -> Scan:
    """What was found, without these images.

    Raises:
        InputError: no image of a class is left.
    """
    kept = {label: [path for path in of_label if path not in paths] for label, of_label in found.paths.items()}
    for label, of_label in kept.items():
        if not of_label:
            raise InputError(f"every image of class '{label}' is marked: take marks away, or remove the folder")
    return Scan(kept, found.skipped)


def split_by_list(
    examples: Sequence[Example],
    list_path: Path,
    *,
    moved: Mapping[str, str] = MappingProxyType({}),
    left_out: Collection[str] = (),
) -> list[Example]:
    """Put exactly the images of the list (one `label<TAB>file name`, or one path, per line) into the test set.

    Args:
        moved: present paths of images that the list may still name by their first.
        left_out: images that the list may name though they are no examples.

    Raises:
        InputError: a line names no image, or one side of the split stays empty.
    """
    known = {e.path for e in examples}
    test: set[str] = set()
    for number, line in enumerate(list_path.read_text(encoding="utf-8-sig").splitlines(), 1):
        if not line.strip():
            continue
        path = "/".join(part.strip() for part in line.split("\t"))
        if path not in known:
            path = moved.get(path, path)
        if path in left_out:
            continue
        if path not in known:
            raise InputError(
                f"{list_path} line {number}: there is no intact image '{path}'; correct or remove the line"
            )
        test.add(path)
    if not 0 < len(test) < len(examples):
        raise InputError(
            f"{list_path} puts {len(test)} of {len(examples)} images into the test set: both sides need images"
        )
    return [replace(e, split="test" if e.path in test else "train") for e in examples]


def counts(examples: Iterable[Example]) -> dict[str, dict[str, int]]:
    """Images per label and split: {label: {'train': …, 'test': …}}, labels sorted."""
    return {
        label: {side: sum(e.split == side for e in of_label) for side in ("train", "test")}
        for label, of_label in sorted(_by_label(examples).items())
    }


def told(counts: Mapping[str, Mapping[str, int]]) -> str:
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
    write_csv(path, [asdict(e) for e in examples])


def read_examples(path: Path) -> list[Example]:
    """Read examples.csv as 1_prepareData wrote it."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [_example(row) for row in csv.DictReader(file)]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StorageError(f"{path} cannot be read ({error}): run scripts/1_prepareData.py again") from error


def _example(row: dict[str, Any]) -> Example:
    return Example(**{**row, **{name: int(row[name]) for name in ("width", "height", "bytes")}})


def load_example(example: Example, *, folder: Path, rule: ResizeRule) -> Pixels:
    """The image of an example, uint8 [S, S, 3], if it is still the one that 1_prepareData saw.

    Raises:
        StaleInput: the file has changed or is gone.
        ImageError: it cannot be decoded.
    """
    return load_bytes(read_example(example, folder=folder), rule, path=folder / example.path)


def read_example(example: Example, *, folder: Path) -> bytes:
    """The file of an example, if it is still the one that 1_prepareData saw; see `load_example`."""
    path = folder / example.path
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StaleInput(
            f"{path} cannot be read any more ({error.strerror}): run scripts/1_prepareData.py again"
        ) from error
    if hashlib.sha256(data).hexdigest() != example.sha256:
        raise StaleInput(f"{path} has changed since the data set was prepared: run scripts/1_prepareData.py again")
    return data
