"""ATTRIBUTION.md: who made the downloaded images, and under which licence, as most licences require."""

import re
from collections import defaultdict
from pathlib import Path
from urllib.parse import quote

from libraries.base.errors import InputError, StorageError
from libraries.base.file_system import on_disk, open_text, storage_error
from libraries.base.storage import write_text
from libraries.data.annotations import Annotations
from libraries.data.class_folders import ClassFolders, find_class_folders
from libraries.web.download.outcomes import read_outcomes
from libraries.web.search.search import SearchRow, read_results

FILE = "ATTRIBUTION.md"
_TITLE = "# Whose these images are"
_ABOUT = (
    "Written by scripts/0_downloadData.py, again at each run. The images were found by searching the web; large ones "
    "were scaled down.\nAll details are those of the search service: check the source before you publish."
)


def write_attribution(folder: Path, *, table: Path, outcomes: Path) -> int:
    """Write `folder`/ATTRIBUTION.md: every image that was found by a search, was downloaded, and still exists.

    An image whose label was changed by hand is listed under its new label. Writes nothing if there was no search.

    Args:
        folder: images/<dataset>.
        table: of the images found.
        outcomes: the table of the outcomes of their URLs.

    Returns:
        The number of images listed.

    Raises:
        StorageError: it cannot be written, an existing file was not written by this function, or a table cannot be
            read.
    """
    found = {row.pair: row for row in reversed(read_results(table))}
    if not found:
        return 0
    path = folder / FILE
    _check_ours(path)
    moved, folders = Annotations(folder).moved, _class_folders(folder)
    files: dict[str, SearchRow] = {}
    for outcome in read_outcomes(outcomes):
        if outcome.status == "ok" and outcome.pair in found:
            file = on_disk(folder, outcome.file)
            file = moved.get(file, file)
            if (folder / file).is_file():
                files.setdefault(file, found[outcome.pair])
    by_label: defaultdict[str, list[str]] = defaultdict(list)
    for file in sorted(files):
        by_label[folders.label(file)].append(_line(file, folders.inside(file), files[file]))
    sections = [f"## {_escaped(label)}\n\n" + "\n".join(lines) for label, lines in sorted(by_label.items())]
    write_text(path, "\n\n".join([_TITLE, _ABOUT, *sections]) + "\n")
    return len(files)


def _class_folders(folder: Path) -> ClassFolders:
    """The folders of the classes; the topmost ones where that is not clear, which script 1 explains."""
    try:
        return find_class_folders(folder)
    except InputError:
        return ClassFolders({}, {})


def _check_ours(path: Path) -> None:
    try:
        with open_text(path, errors="replace") as file:
            ours = file.readline(len(_TITLE) + 2).rstrip("\r\n") == _TITLE
    except FileNotFoundError:
        return
    except OSError as error:
        raise storage_error(error, path) from error
    if not ours:
        raise StorageError(f"{path} was not written by scripts/0_downloadData.py: move it away and run again")


def _line(file: str, name: str, found: SearchRow) -> str:
    title = f"“{_escaped(found.title)}”" if found.title else "without a title"
    creator = f"by {_escaped(found.creator)}" if found.creator else "creator not known"
    licence = _escaped(found.licence) if found.licence else "licence not known"
    parts = [title, creator, _linked(licence, found.licence_url), _linked("source", found.page or found.url)]
    return f"- {_linked(_escaped(name), quote(file))}: {', '.join(parts)}"


def _escaped(text: str) -> str:
    """A stranger's text, escaped so that Markdown shows it as it is."""
    return re.sub(r"([\\`*_\[\]<>&!|~$#@:])", r"\\\1", text)


def _linked(text: str, url: str) -> str:
    """A link in Markdown; only the text if there is no URL. The URL must not contain spaces or angle brackets."""
    target = url.replace("(", "%28").replace(")", "%29").replace("&", "&amp;")
    return f"[{text}]({target})" if target else text
