"""Lists of images to download: one `label<TAB>url` per line."""

from collections.abc import Iterator
from pathlib import Path

from libraries.base.errors import InputError
from libraries.base.tables import plain
from libraries.base.text import read_lines
from libraries.data.class_folders import check_label, check_labels

_FORM = "each line is label<TAB>url"


def read_url_list(path: Path) -> Iterator[tuple[str, str]]:
    """The (label, url) pairs of a tab-separated list, in order, as they are read.

    Decodes text like `base.text`. Ignores blank lines, lines that begin with '#', and columns after the second. Does
    not check URLs: an invalid one is an outcome of the download, not an error.

    Raises:
        MissingInput: there is no such file.
        InputError: the file cannot be read, is not text, or has no pair; a line has no tab, no URL or an invalid label;
            or (at the end) two labels differ only in case. Names the file and the line.
    """
    labels = set()
    for number, line in enumerate(read_lines(path, what="the list of images"), start=1):
        if line.strip() and not line.startswith("#"):
            pair = _pair(line, f"{path}, line {number}")
            labels.add(pair[0])
            yield pair
    if not labels:
        raise InputError(f"{path} has no image to download: {_FORM}")
    try:
        check_labels(labels)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _pair(line: str, where: str) -> tuple[str, str]:
    label, tab, rest = line.partition("\t")
    url = rest.partition("\t")[0].strip()
    if not tab or not url:
        raise InputError(f"{where} has no {'URL' if tab else 'tab'}: {_FORM}")
    try:
        return check_label(plain(label.strip(" "))), url
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
