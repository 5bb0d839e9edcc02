"""The folders of each class, the images in them, and which names can be labels.

The folders are <label>/ or, where the split is on disk, train/<label>/ and test/<label>/. Many public data sets come
already split: folders called train, val and test (see `_PARTS`) are parts of the split if they contain folders of the
same names, the classes, and no images of their own; otherwise they are classes like any other.

Images without a label are in a folder beside that of the data set: images/<dataset>.pool/. Their paths begin with
.pool/ wherever those of the data set's images are relative to its folder, so both folders may be renamed, or be links.
"""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from libraries.base.errors import InputError, StorageError
from libraries.base.file_system import explained, is_reserved, nfc
from libraries.base.layout import ANNOTATIONS
from libraries.data.formats import SUFFIXES, Format, NotRead, kind_of, suffix_of, why_not_read

MAX_LABEL_BYTES = 100

Side = Literal["train", "test"]
_PARTS: dict[str, Side] = {
    **dict.fromkeys(("train", "training", "val", "valid", "validation", "dev"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_TRAINING_PARTS = ("train", "training")
_POOL = ".pool"


def check_label(label: str) -> str:
    """The label in Unicode normal form C.

    Raises:
        InputError: it could leave its folder, or is not a file name on some system; says which rule it breaks.
    """
    label = nfc(label)
    if problem := problem_of_label(label):
        raise InputError(f"label {label!r} cannot be a folder name: {problem}; choose another name")
    return label


def problem_of_label(label: str) -> str | None:
    """Which rule a label breaks, as the end of a sentence; None if it can be the name of a folder everywhere."""
    if not label or label in (".", ".."):
        return "it is empty or only dots"
    if any(c in '/\\:*?"<>|' for c in label):
        return 'it holds one of / \\ : * ? " < > |'
    if any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in label):
        return "it holds control characters"
    if label != label.strip() or label.endswith("."):
        return "it begins or ends with a blank, or ends with a dot"
    if label.startswith("."):
        return "it begins with a dot, as hidden files do"
    if is_reserved(label):
        return "Windows reserves it"
    if len(label.encode()) > MAX_LABEL_BYTES:
        return f"it is longer than {MAX_LABEL_BYTES} bytes"
    return None


def check_labels(labels: Iterable[str]) -> None:
    """Check every label, and that no two are one folder on systems that ignore case.

    Raises:
        InputError: see `check_label`; or two labels are equal except for case or their form of Unicode.
    """
    seen: dict[str, str] = {}
    for label in labels:
        other = seen.setdefault(check_label(label).casefold(), label)
        if other != label and nfc(other) == nfc(label):
            forms = f"{other!a} and {label!a}"
            raise InputError(f"labels {forms} are '{nfc(label)}' in two forms of Unicode: rename one, or merge them")
        if other != label:
            raise InputError(f"labels {other!r} and {label!r} differ only in case: rename one, or merge them")


def pool_of(folder: Path) -> Path:
    """The folder of images without a label that belongs to the folder of a data set; it need not exist."""
    return folder.with_name(folder.name + _POOL)


def in_pool(path: str) -> bool:
    """Whether the path of an image is in the pool."""
    return path.startswith(f"{_POOL}/")


def pooled(path: str) -> str:
    """The path of an image in the pool, from that within its folder."""
    return f"{_POOL}/{path}"


def within_pool(path: str) -> str:
    """The inverse of `pooled`."""
    return path.removeprefix(f"{_POOL}/")


def image_file(folder: Path, path: str) -> Path:
    """The file of an image, of a data set or of its pool."""
    return pool_of(folder) / within_pool(path) if in_pool(path) else folder / path


def pool_images(folder: Path) -> list[str]:
    """The paths of all images in the pool of a data set; none if it has no pool.

    Raises:
        InputError: what has its name is no folder, or is a data set of its own, in which labels were changed.
        StorageError: a folder cannot be read.
    """
    pool = pool_of(folder)
    if not os.path.lexists(pool):
        return []
    if not pool.is_dir():
        raise InputError(f"{pool} would be the folder of images without a label, but is none: rename or mend it")
    if (pool / ANNOTATIONS).exists():
        raise InputError(f"{pool} would be the folder of images without a label, but is a data set: rename one of them")
    return [pooled(path) for path in image_files(pool).images]


@dataclass(frozen=True)
class ClassFolders:
    """The folders of a data set; all paths are relative to it, with '/', spelled as on disk.

    Attributes:
        by_label: the folders of each class, labels sorted; several where the split is on disk.
        parts: the side of the split of each top folder; empty where these are the classes.
    """

    by_label: Mapping[str, Sequence[str]]
    parts: Mapping[str, Side]

    @property
    def _depth(self) -> int:
        return 1 if self.parts else 0

    def label(self, path: str) -> str:
        """The class of an image; empty if it is in the pool."""
        parts = path.split("/")
        if in_pool(path):
            return ""
        return nfc(parts[min(self._depth, len(parts) - 1)])

    def inside(self, path: str) -> str:
        """The path of an image within the folder of its class, or the pool."""
        return "/".join(path.split("/")[1 if in_pool(path) else self._depth + 1 :])

    def side(self, path: str) -> Side:
        """The side of the split that an image is on; only where the split is on disk."""
        return self.parts[path.split("/")[0]]

    def under(self, label: str, path: str) -> str:
        """The path of an image under another label: in that class's folder, on the same side of the split.

        An image of the pool is a training image where the split is on disk: the test set stays as it is.
        """
        top = path.split("/")[0] if self.parts else ""
        of_label = self.by_label.get(label, [])
        if self.parts and in_pool(path):
            training = sorted(
                (part for part, side in self.parts.items() if side == "train"),
                key=lambda part: nfc(part).casefold() not in _TRAINING_PARTS,
            )
            top = next((part for part in training if any(f.split("/")[0] == part for f in of_label)), training[0])
        here = [folder for folder in of_label if not top or folder.split("/")[0] == top]
        name = PurePosixPath(of_label[0]).name if of_label else label
        return PurePosixPath(here[0] if here else f"{top}/{name}".lstrip("/"), self.inside(path)).as_posix()

    def images(self, folder: Path) -> list[str]:
        """The paths of all images in the class folders below `folder`, class by class."""
        inside = [each for folders_of_class in self.by_label.values() for each in folders_of_class]
        return [f"{each}/{path}" for each in inside for path in image_files(folder / each).images]

    def summary(self) -> str:
        """Which folders are parts of the split."""
        sides: dict[Side, list[str]] = {"train": [], "test": []}
        for name, side in self.parts.items():
            sides[side].append(f"{name}/")
        words: dict[Side, str] = {"train": "training images", "test": "test images"}
        return "; ".join(f"{words[side]} in {listed(names)}" for side, names in sides.items() if names)


def find_class_folders(folder: Path) -> ClassFolders:
    """Find the class folders of a data set; hidden folders are ignored.

    Raises:
        InputError: a name cannot be a label, two are equal except for case or their form of Unicode, or it is not clear
            whether folders are classes or parts of the split.
    """
    tops = _folders(folder)
    parts = {name: side for name in tops if (side := _side(name))}
    has_training = any(nfc(name).casefold() in _TRAINING_PARTS for name in parts)
    if not has_training or not _is_split(folder, tops, list(parts)):
        check_labels(tops)
        return ClassFolders({nfc(name): [name] for name in sorted(tops, key=nfc)}, {})
    by_label: defaultdict[str, list[str]] = defaultdict(list)
    for part in parts:
        classes = _folders(folder / part)
        check_labels(classes)
        for name in classes:
            by_label[check_label(name)].append(f"{part}/{name}")
    check_labels(by_label)
    return ClassFolders(dict(sorted(by_label.items())), parts)


def _side(name: str) -> Side | None:
    """The side of the split that a folder is called after; the test folders of competitions may be numbered."""
    key = nfc(name).casefold()
    return "test" if re.fullmatch(r"test[_-]?[0-9]{1,2}", key) else _PARTS.get(key)


def _is_split(folder: Path, tops: Sequence[str], parts: Sequence[str]) -> bool:
    """Whether the folders named like parts of a split are parts, and not classes."""
    classes = {part: {nfc(name) for name in _folders(folder / part)} for part in parts}
    loose = {part: image for part in parts if (image := _image_in(folder / part))}
    training = [part for part in parts if nfc(part).casefold() in _TRAINING_PARTS]
    others = [part for part in parts if part not in training and (classes[part] or part in loose)]
    trained = set[str]().union(*(classes[part] for part in training))
    beside = [name for name in tops if name not in parts]
    is_clean = len(trained) >= 2 and not loose.keys() & set(training) and not beside
    if not others:  # one folder train/, as many archives have it, with nothing beside it
        return is_clean
    if not is_clean and not any(classes[part] & trained for part in others):
        return False
    for part in others:  # competitions put test images without a class into one folder
        elsewhere = set[str]().union(*(classes[other] for other in parts if other != part))
        if not classes[part] & elsewhere:
            held = f"{min(classes[part])}/" if classes[part] else f"images ({loose[part]})"
            raise InputError(
                f"{folder / part} holds {held}, and no class folders like those of {training[0]}: move images without "
                "a class elsewhere (6_callWebservice.py --folder classifies them); or, if "
                f"{listed(tops)} are classes, rename them"
            )
    _check_parts(folder, parts, beside, loose)
    return True


def _check_parts(folder: Path, parts: Sequence[str], beside: Sequence[str], loose: Mapping[str, str]) -> None:
    """Raise InputError if parts of a split hold images of their own, or other folders lie beside them."""
    if loose:
        part, image = next(iter(loose.items()))
        raise InputError(
            f"{folder / part} holds folders, like a part of a split, and an image ({image}), like a class: "
            "put every image into the folder of its class, or rename the folder"
        )
    if beside:
        raise InputError(
            f"{folder} holds {listed(parts)}, which hold the same classes and so are parts of a split, and also "
            f"{listed(beside)}: move {'that' if len(beside) == 1 else 'those'} elsewhere, or rename the parts"
        )


def _folders(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if not entry.name.startswith(".") and is_folder(entry))
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror or error}") from error


def _image_in(folder: Path) -> str | None:
    """The name of an image directly in a folder, if there is one."""
    with os.scandir(folder) as entries:
        names = (entry.name for entry in entries if not entry.name.startswith(".") and not is_folder(entry))
        return next((name for name in names if is_image(folder / name)), None)


def listed(names: Iterable[str]) -> str:
    """Names joined as in a sentence: 'a, b and c'."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


class Files(NamedTuple):
    """The files in a folder of images, as sorted paths relative to it.

    Attributes:
        images: files that are images by their suffix or, if they have no image suffix, by their content.
        others: why each of the other files is not an image, and whether it contains a picture nevertheless.
    """

    images: list[str]
    others: dict[str, NotRead]


def image_files(folder: Path) -> Files:
    """The images in a folder and its sub-folders, and the other files.

    Hidden files are ignored; files whose names are not Unicode are not images. Links to folders are followed, but no
    folder is visited twice, nor one that contains this one: loops end, and no class contains the others. 50,000 files
    with image suffixes take about 0.1 s.

    Raises:
        StorageError: a folder cannot be read.
    """
    images: list[str] = []
    others: dict[str, NotRead] = {}
    for prefix, place, names in _folders_below(folder):
        for name in names:
            path = prefix + name
            is_named = suffix_of(name) in SUFFIXES
            if not (path.isascii() or _is_unicode(path)):
                others[path] = NotRead("file", "with a name that is not Unicode (rename it)", is_loss=is_named)
            elif is_named or isinstance(kind := kind_of(place / name), Format):
                images.append(path)
            else:
                others[path] = why_not_read(place / name, kind)
    return Files(sorted(images), dict(sorted(others.items())))


def _folders_below(folder: Path) -> Iterator[tuple[str, Path, list[str]]]:
    """A folder and all below it, without hidden ones: relative path ('' or 'a/b/'), full path, and names of files."""
    above = {*folder.absolute().parents, *folder.resolve().parents}
    waiting, seen = [("", folder)], {os.path.realpath(place) for place in above}
    while waiting:
        prefix, place = waiting.pop()
        if (true_place := os.path.realpath(place)) in seen:
            continue
        seen.add(true_place)
        names: list[str] = []
        folders: list[str] = []
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    if not entry.name.startswith("."):
                        (folders if is_folder(entry) else names).append(entry.name)
        except FileNotFoundError:  # deleted meanwhile
            continue
        except OSError as error:
            raise StorageError(f"{place} cannot be read: {explained(error)}") from error
        waiting += [(f"{prefix}{name}/", place / name) for name in sorted(folders, reverse=True)]
        yield prefix, place, names


def is_image(path: Path) -> bool:
    """Whether a file counts as an image: by its suffix or, if that is not an image's, by its content."""
    return suffix_of(path.name) in SUFFIXES or isinstance(kind_of(path), Format)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder, or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_unicode(path: str) -> bool:
    """Whether a path can be written to a table; on Linux a file name may be any bytes."""
    return path.encode(errors="replace") == path.encode(errors="surrogateescape")
