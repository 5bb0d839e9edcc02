"""Text files from people or earlier runs: lists in any form that an editor saves, and logs of JSON lines.

Lists may be UTF-8 with or without a byte order mark, or UTF-16 with one, with any line endings. Everything else is an
error that names the file, the line, and what to do. In a log, an incomplete last line of a killed process is ignored.
"""

import codecs
import csv
import io
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from libraries.base.errors import InputError, MissingInput
from libraries.base.file_system import open_regular

MAX_LINE = 1_000_000  # characters of a line in a list
_UNREADABLE = "\udc80"  # stands for bytes that are not text; no valid text contains it
_HANDLER = "unreadable bytes are marked"
_ADVICE = "save it with the encoding UTF-8"

BEGIN = b'{"time": "'  # of every line of a log


def read_lines(path: Path, *, what: str) -> Iterator[str]:
    """Yield the lines of a list, without their endings (LF, CR LF or CR).

    Args:
        what: names the file in messages: 'the list of images'.

    Raises:
        MissingInput: there is no such file.
        InputError: it cannot be read, is no regular file, or a line is not text or is too long.
    """
    try:
        with _opened(path) as file:
            text = io.TextIOWrapper(file, _encoding(file.peek(2)), errors=_HANDLER)
            number = 0
            while line := text.readline(MAX_LINE + 1):
                number += 1
                where = f"{path}, line {number}"
                if len(line) > MAX_LINE:
                    raise InputError(f"{where} has more than {MAX_LINE:,} characters: this is not {what}")
                yield _checked(line, where).removesuffix("\n")
    except FileNotFoundError:
        raise MissingInput(f"{what} {path} does not exist") from None
    except OSError as error:
        raise InputError(f"{what} {path} cannot be read: {error.strerror or error}") from error


def table_cells(path: Path, *, what: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the (last) line and the cells of every row that is not empty, the header first.

    They are separated by commas, tabs or semicolons; see `read_lines`.
    """
    lines = (f"{line}\n" for line in read_lines(path, what=what))
    header = next(lines, "")
    delimiter = "\t" if "\t" in header else max(",;", key=header.count)
    reader = csv.reader(itertools.chain([header], lines), delimiter=delimiter)
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num, cells
    except csv.Error as error:
        raise InputError(
            f"{path}, line {reader.line_num} is not a table row ({error}): is a closing quotation mark missing?"
        ) from None


def read_text(path: Path, *, what: str, max_bytes: int) -> str:
    """The text of a file, with LF line endings.

    Args:
        what: names the file in messages: 'the file of queries'.
        max_bytes: largest size of the file.

    Raises:
        MissingInput: there is no such file.
        InputError: it cannot be read, is no regular file, is too large, or is not text.
    """
    try:
        with _opened(path) as file:
            data = file.read(max_bytes + 1)
    except FileNotFoundError:
        raise MissingInput(f"{what} {path} does not exist") from None
    except OSError as error:
        raise InputError(f"{what} {path} cannot be read: {error.strerror or error}") from error
    if len(data) > max_bytes:
        raise InputError(f"{path} is not {what}: it has more than {max_bytes:,} bytes")
    return as_text(data, path)


def _opened(path: Path) -> io.BufferedReader:
    """A regular file, or the pipe that a shell makes of `<(...)`; a pipe with a name may never have a writer."""
    return path.open("rb") if path.parent == Path("/dev/fd") else open_regular(path)


def as_text(data: bytes, path: Path) -> str:
    """The content of a file as text, with LF line endings.

    Args:
        path: of the file, for messages.

    Raises:
        InputError: it is not text; names the line.
    """
    text = decoded(data)
    if _is_text(text):
        return text
    lines = enumerate(text.split("\n"), start=1)
    number = next(number for number, line in lines if not _is_text(line))
    return _checked(text, f"{path}, line {number}")


def decoded(data: bytes) -> str:
    """Bytes as text, by their byte order mark, with LF line endings; undecodable bytes become lone surrogates."""
    text = data.decode(_encoding(data), errors=_HANDLER)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _encoding(start: bytes) -> str:
    """The encoding of text that begins with these bytes."""
    return "utf-16" if start[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def _is_text(text: str) -> bool:
    return "\0" not in text and (text.isascii() or _UNREADABLE not in text)


def _checked(text: str, where: str) -> str:
    """The text; raises InputError if it is not text."""
    if "\0" in text:
        raise InputError(f"{where} contains NUL characters, so it is not text: {_ADVICE}")
    if not _is_text(text):
        raise InputError(f"{where} is neither UTF-8 nor UTF-16 text: {_ADVICE}")
    return text


def _mark(error: UnicodeError) -> tuple[str, int]:
    if isinstance(error, UnicodeDecodeError):
        return _UNREADABLE, error.end
    raise error


codecs.register_error(_HANDLER, _mark)


class Lines(NamedTuple):
    """The lines of a log.

    Attributes:
        whole: without their endings; some may be blank.
        length: of all whole lines together, in bytes, endings included.
        is_ended: whether the last line has its ending; an editor may have removed it.
    """

    whole: list[bytes]
    length: int
    is_ended: bool


def split_lines(content: bytes) -> Lines:
    """The lines of a log, without a last one that is incomplete: its write never finished."""
    *whole, rest = content.split(b"\n")
    if not rest:
        return Lines(whole, len(content), True)
    if not _is_json(rest) and (rest.startswith(BEGIN) or BEGIN.startswith(rest)):
        return Lines(whole, len(content) - len(rest), True)
    return Lines([*whole, rest], len(content), False)


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
