"""Which folders hold the images of which class, which files in them are images, and what can be a label.

The folders are <label>/ or, where the split is on disk, train/<label>/ and test/<label>/. Many public data sets come
divided: folders called train, val and test (see `_PARTS`) are parts of the split where they hold folders of the same
names, the classes, and no images of their own; otherwise they are classes like any other.
"""

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from libraries.base.errors import InputError, StorageError
from libraries.base.file_system import explained, is_reserved, nfc
from libraries.data.formats import SUFFIXES, Format, NotRead, kind_of, suffix_of, why_not_read

MAX_LABEL_BYTES = 100

Side = Literal["train", "test"]
_PARTS: dict[str, Side] = {
    **dict.fromkeys(("train", "training", "val", "valid", "validation", "dev"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_LEARNT_FROM = ("train", "training")


def check_label(label: str) -> str:
    """The label in Unicode normal form C.

    Raises:
        InputError: it could leave its folder, or is no file name on some system; says which rule it breaks.
    """
    label = nfc(label)
    if problem := _problem(label):
        raise InputError(f"label {label!r} cannot be a folder name: {problem}; choose another name")
    return label


def _problem(label: str) -> str | None:
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
    """Check every label, and that no two are one folder on systems that do not tell upper from lower case."""
    seen: dict[str, str] = {}
    for label in labels:
        other = seen.setdefault(check_label(label).casefold(), label)
        if other != label and nfc(other) == nfc(label):
            forms = f"{other!a} and {label!a}"
            raise InputError(f"labels {forms} are '{nfc(label)}' in two forms of Unicode: rename one, or merge them")
        if other != label:
            raise InputError(f"labels {other!r} and {label!r} differ only in case: rename one, or merge them")


@dataclass(frozen=True)
class ClassFolders:
    """The folders of a data set; all paths are relative to it, with '/', as they are written on disk.

    Attributes:
        of: the folders of each class, labels sorted; several where the split is on disk.
        parts: the side of the split that each of the topmost folders is; empty where those are the classes.
    """

    of: Mapping[str, Sequence[str]]
    parts: Mapping[str, Side]

    @property
    def _depth(self) -> int:
        return 1 if self.parts else 0

    def label(self, path: str) -> str:
        """The class of an image."""
        parts = path.split("/")
        return nfc(parts[min(self._depth, len(parts) - 1)])

    def inside(self, path: str) -> str:
        """The path of an image within the folder of its class."""
        return "/".join(path.split("/")[self._depth + 1 :])

    def side(self, path: str) -> Side:
        """The side of the split that an image lies on; only where the split is on disk."""
        return self.parts[path.split("/")[0]]

    def under(self, label: str, path: str) -> str:
        """Where an image belongs that gets another label: on its side of the split, in that class's folder."""
        top = path.split("/")[0] if self.parts else ""
        of_label = self.of.get(label, [])
        here = [folder for folder in of_label if not top or folder.split("/")[0] == top]
        name = PurePosixPath(of_label[0]).name if of_label else label
        return PurePosixPath(here[0] if here else f"{top}/{name}".lstrip("/"), self.inside(path)).as_posix()

    def images(self, folder: Path) -> list[str]:
        """The paths of all images in the folders of the classes, which are in this one, class by class."""
        inside = [each for folders_of_class in self.of.values() for each in folders_of_class]
        return [f"{each}/{path}" for each in inside for path in image_files(folder / each).images]

    def summary(self) -> str:
        """Which folders are parts of the split."""
        sides: dict[Side, list[str]] = {"train": [], "test": []}
        for name, side in self.parts.items():
            sides[side].append(f"{name}/")
        words: dict[Side, str] = {"train": "training images", "test": "test images"}
        return "; ".join(f"{words[side]} in {listed(names)}" for side, names in sides.items() if names)


def find_class_folders(folder: Path) -> ClassFolders:
    """Find the folders of a data set's classes; hidden ones are none. No image is looked for in them.

    Raises:
        InputError: a name cannot be a label, two are equal but for case or their form of Unicode, or it is not clear
            whether folders are classes or parts of the split.
    """
    tops = _folders(folder)
    parts = {name: _PARTS[key] for name in tops if (key := nfc(name).casefold()) in _PARTS}
    if not any(nfc(name).casefold() in _LEARNT_FROM for name in parts) or not _is_divided(folder, tops, list(parts)):
        check_labels(tops)
        return ClassFolders({nfc(name): [name] for name in sorted(tops, key=nfc)}, {})
    of: defaultdict[str, list[str]] = defaultdict(list)
    for part in parts:
        classes = _folders(folder / part)
        check_labels(classes)
        for name in classes:
            of[check_label(name)].append(f"{part}/{name}")
    check_labels(of)
    return ClassFolders(dict(sorted(of.items())), parts)


def _is_divided(folder: Path, tops: Sequence[str], parts: Sequence[str]) -> bool:
    """Whether the folders called as parts of a split are such, and not classes."""
    classes = {part: {nfc(name) for name in _folders(folder / part)} for part in parts}
    loose = {part: image for part in parts if (image := _image_in(folder / part))}
    learnt = [part for part in parts if nfc(part).casefold() in _LEARNT_FROM]
    others = [part for part in parts if part not in learnt]
    to_learn = set[str]().union(*(classes[part] for part in learnt))
    beside = [name for name in tops if name not in parts]
    is_clean = len(to_learn) >= 2 and not loose.keys() & set(learnt) and not beside
    if not others:  # one folder train/, as many archives have it, with nothing beside it
        return is_clean
    flat = [part for part in others if part in loose and not classes[part]]
    if not any(classes[part] & to_learn for part in others) and not (is_clean and flat == others):
        return False
    if flat:
        raise InputError(
            f"{folder / flat[0]} holds images ({loose[flat[0]]}), and no folders of classes as {learnt[0]} does: move "
            "images without a class elsewhere (6_callWebservice.py --folder classifies them); or, if "
            f"{listed(tops)} are classes, rename them"
        )
    if loose:
        part, image = next(iter(loose.items()))
        raise InputError(
            f"{folder / part} holds folders as a part of a split does, and an image ({image}) as a class does: "
            "put every image into the folder of its class, or rename the folder"
        )
    if beside:
        raise InputError(
            f"{folder} holds {listed(parts)}, which hold the same classes and so are parts of a split, and also "
            f"{listed(beside)}: move {'that' if len(beside) == 1 else 'those'} elsewhere, or rename the parts"
        )
    return True


def _folders(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if not entry.name.startswith(".") and is_folder(entry))
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror or error}") from error


def _image_in(folder: Path) -> str | None:
    """The name of an image that lies in a folder itself, if any does."""
    with os.scandir(folder) as entries:
        names = (entry.name for entry in entries if not entry.name.startswith(".") and not is_folder(entry))
        return next((name for name in names if is_image(folder / name)), None)


def listed(names: Iterable[str]) -> str:
    """Names as a sentence has them: 'a, b and c'."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


class Files(NamedTuple):
    """What lies in a folder of images, as sorted paths relative to it.

    Attributes:
        images: files that are images by their suffix, or by their content if the suffix is none of an image.
        others: why each of the other files is none, and whether it holds a picture nevertheless.
    """

    images: list[str]
    others: dict[str, NotRead]


def image_files(folder: Path) -> Files:
    """The images in a folder and its sub-folders, and the other files.

    Hidden files are left out; a file whose name is not Unicode is none of the images. Links to folders are followed,
    but no folder is visited twice, and none that this one lies in: loops end, and no class holds the others.
    50,000 files with suffixes of images take about 0.1 s.

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
            elif (place / name).is_symlink() and not (place / name).exists():
                others[path] = NotRead("broken link", "(mend it, or remove it)", is_loss=False)
            else:
                others[path] = why_not_read(name, kind)
    return Files(sorted(images), dict(sorted(others.items())))


def _folders_below(folder: Path) -> Iterator[tuple[str, Path, list[str]]]:
    """A folder and all below it: path relative to it ('' or 'a/b/'), whole path, and names of files; none is hidden."""
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
            with os.scandir(place) as found:
                for entry in found:
                    if not entry.name.startswith("."):
                        (folders if is_folder(entry) else names).append(entry.name)
        except FileNotFoundError:  # it has gone meanwhile
            continue
        except OSError as error:
            raise StorageError(f"{place} cannot be read: {explained(error)}") from error
        waiting += [(f"{prefix}{name}/", place / name) for name in sorted(folders, reverse=True)]
        yield prefix, place, names


def is_image(path: Path) -> bool:
    """Whether a file is listed as an image: by its suffix, or by its content if that is none of an image."""
    return suffix_of(path.name) in SUFFIXES or isinstance(kind_of(path), Format)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder, or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_unicode(path: str) -> bool:
    """Whether a path can stand in a table; on Linux a file's name may be any bytes."""
    return path.encode(errors="replace") == path.encode(errors="surrogateescape")
