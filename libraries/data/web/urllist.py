"""Lists of images to download: one `label<TAB>url` per line."""

from pathlib import Path

from libraries.base.errors import InputError, MissingInput
from libraries.data.labels import check_label, check_labels

_FORM = "each line is label<TAB>url"


def read_url_list(path: Path) -> list[tuple[str, str]]:
    """The (label, url) pairs of a tab-separated list, in its order, each pair once.

    UTF-8, with or without a byte order mark; any line ends. Blank lines, lines that begin with '#' and columns after
    the second are passed over. URLs are not checked here: a broken one is an outcome of the download, not an error.

    Raises:
        MissingInput: there is no such file.
        InputError: it cannot be read, is no UTF-8, or holds no pair; a line has no tab, no URL or an impossible label,
            or two labels differ only in case. Names the file and the line.
    """
    pairs: dict[tuple[str, str], None] = {}
    for number, line in enumerate(_lines(path), start=1):
        if line.strip() and not line.startswith("#"):
            pairs[_pair(line, f"{path}, line {number}")] = None
    if not pairs:
        raise InputError(f"{path} holds no image to download: {_FORM}")
    try:
        check_labels(label for label, _ in pairs)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return list(pairs)


def _lines(path: Path) -> list[str]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise MissingInput(f"the list of images {path} does not exist: {_FORM}") from None
    except OSError as error:
        raise InputError(f"the list of images {path} cannot be read: {error.strerror or error}") from error
    data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, line {number} is not UTF-8 text: save the list with the encoding UTF-8") from None
    return text.split("\n")  # not splitlines(), which also breaks at characters that labels and URLs may hold


def _pair(line: str, where: str) -> tuple[str, str]:
    label, tab, rest = line.partition("\t")
    url = rest.partition("\t")[0].strip()
    if not tab or not url:
        raise InputError(f"{where} has no {'URL' if tab else 'tab'}: {_FORM}")
    try:
        return check_label(label.strip(" ")), url
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
