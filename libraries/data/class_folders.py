"""Which folders hold the images of which class: <label>/, or where the split is on disk, train/<label>/, test/<label>/.

Many public data sets come divided. Folders called train, val and test (see `_PARTS`) are parts of the split where they
hold folders of the same names, the classes, and no images of their own; otherwise they are classes like any other.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from libraries.base.errors import InputError
from libraries.base.names import nfc
from libraries.data.labels import check_label, check_labels
from libraries.data.listing import image_files, is_folder, is_image

Side = Literal["train", "test"]

_PARTS: dict[str, Side] = {
    **dict.fromkeys(("train", "training", "val", "valid", "validation", "dev"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_LEARNT_FROM = ("train", "training")


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

    def told(self) -> str:
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
