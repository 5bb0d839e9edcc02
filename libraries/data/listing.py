"""Which files in a folder are images, and why the others are none."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from libraries.data.formats import SUFFIXES, Foreign, Format, kind_of, suffix_of


class Files(NamedTuple):
    """What lies in a folder of images, as sorted paths relative to it.

    Attributes:
        images: files that are images by their suffix, or by their content if the suffix is none of an image.
        others: why each of the other files is none, and whether it holds a picture nevertheless.
    """

    images: list[str]
    others: dict[str, "NotRead"]


class NotRead(NamedTuple):
    """Why a file is none of the images.

    Attributes:
        reason: what is told after the number of such files.
        is_loss: whether a user would take it for an image.
    """

    reason: str
    is_loss: bool


def image_files(folder: Path) -> Files:
    """The images in a folder and its sub-folders, and the other files.

    Hidden files are left out; a file whose name is not Unicode is none of the images. Links to folders are followed,
    but no folder is visited twice, so that loops end. 50,000 files with suffixes of images take about 0.1 s.
    """
    images: list[str] = []
    others: dict[str, NotRead] = {}
    for prefix, place, names in _folders(folder):
        for name in names:
            path = prefix + name
            is_named = "." + name.rpartition(".")[2].lower() in SUFFIXES
            if not (path.isascii() or _is_unicode(path)):
                others[path] = NotRead("with a name that is not Unicode: rename it", is_loss=is_named)
            elif is_named or isinstance(kind := kind_of(place / name), Format):
                images.append(path)
            else:
                others[path] = _not_read(name, kind)
    return Files(sorted(images), dict(sorted(others.items())))


def _folders(folder: Path) -> Iterator[tuple[str, Path, list[str]]]:
    """A folder and all below it: path relative to it ('' or 'a/b/'), whole path, and names of files; none is hidden."""
    waiting, seen = [("", folder)], set()
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
                        (folders if _is_folder(entry) else names).append(entry.name)
        except OSError:  # it has gone meanwhile, or may not be read
            continue
        waiting += [(f"{prefix}{name}/", place / name) for name in sorted(folders, reverse=True)]
        yield prefix, place, names


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_unicode(path: str) -> bool:
    """Whether a path can stand in a table; on Linux a file's name may be any bytes."""
    return path.encode(errors="replace") == path.encode(errors="surrogateescape")


def _not_read(name: str, kind: Foreign | None) -> NotRead:
    if kind is not None:
        return NotRead(kind.of_many(), is_loss=True)
    return NotRead(f"{suffix_of(name) or 'no suffix'} (not an image format that is read)", is_loss=False)
