"""multipart/form-data (RFC 7578) taken apart: without copies, and in time that grows with the length alone.

Parts, their headers and the length of each are bounded. Every search is one of the interpreter's own, for a fixed text,
and parameters of headers are matched without going back: nothing a stranger writes takes longer than its bytes do.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from libraries.service.problems import Problem

Body = bytes | bytearray

_MOST_HEADER_BYTES = 8192  # of a part
_MOST_HEADERS = 16
_MOST_NAME_BYTES = 1024
_MOST_PADDING = 100  # blanks behind a boundary

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_HEADER = re.compile(rb"(" + _TOKEN + rb"):[ \t]*([^\r\n]*)")
_PARAMETER = re.compile(
    rb"[ \t]*;[ \t]*(" + _TOKEN + rb')[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|"([^"]*)"|([^";]*))', re.DOTALL
)
_EXTENDED = re.compile(rb"(utf-8|iso-8859-1)'[^']*'(.*)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Part:
    """A part of a form.

    Attributes:
        file_name: None if it has none.
        content_type: in small letters, without parameters; empty if it has none.
        content: a view of the body.
    """

    file_name: str | None
    content_type: bytes
    content: memoryview


def parts(body: Body, boundary: bytes, *, most: int) -> Iterator[Part]:
    """The parts of a form, in order.

    Raises:
        Problem: 400 the form is damaged, or a header or a name is too long; 413 more than `most` parts.
    """
    if not 1 <= len(boundary) <= 70:  # RFC 2046
        raise Problem(400, "multipart/form-data without a boundary of 1 to 70 characters")
    delimiter = b"\r\n--" + boundary
    view = memoryview(body)
    at = len(delimiter) - 2 if body.startswith(delimiter[2:]) else _after(body, delimiter, 0)
    count = 0
    while not body.startswith(b"--", at):
        if count == most:
            raise Problem(413, f"the request holds more than {most} parts")
        headers, begin = _headers(body, _end_of_line(body, at))
        at = _after(body, delimiter, begin)
        yield _part(headers, view[begin : at - len(delimiter)])
        count += 1


def parameters(value: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    """A header's value in small letters, and its parameters, of each name the first, as far as they are well formed."""
    kind, _, _ = value.partition(b";")
    found: dict[bytes, bytes] = {}
    at = len(kind)
    while (match := _PARAMETER.match(value, at)) is not None:
        name, quoted, plain, bare = match.groups()
        text = _UNQUOTED.sub(rb"\1", quoted) if quoted is not None else plain if plain is not None else bare.strip()
        found.setdefault(name.lower(), text)
        at = match.end()
    return kind.strip().lower(), found


_UNQUOTED = re.compile(rb'\\(["\\])')


def _after(body: Body, delimiter: bytes, begin: int) -> int:
    """Where the next delimiter ends. RFC 2046, 5.1.1: no line of a part begins like it, whatever follows."""
    found = body.find(delimiter, begin)
    if found < 0:
        raise Problem(400, "the multipart form breaks off, or its boundary is another")
    return found + len(delimiter)


def _end_of_line(body: Body, at: int) -> int:
    """Where the line ends on which there is nothing else behind a boundary."""
    end = body.find(b"\r\n", at, at + _MOST_PADDING)
    if end < 0 or body[at:end].strip(b" \t"):
        raise Problem(400, "the multipart form is damaged")
    return end


def _headers(body: Body, at: int) -> tuple[dict[bytes, bytes], int]:
    """The headers behind a line's end, by name in small letters; and where the content begins."""
    end = body.find(b"\r\n\r\n", at, at + _MOST_HEADER_BYTES)
    if end < 0:
        raise Problem(400, f"the multipart form has headers that break off, or exceed {_MOST_HEADER_BYTES} bytes")
    lines = bytes(body[at:end]).split(b"\r\n")[1:]
    matches = [_HEADER.fullmatch(line) for line in lines]
    if len(lines) > _MOST_HEADERS or None in matches:
        raise Problem(400, f"the multipart form has a part whose headers are damaged, or more than {_MOST_HEADERS}")
    return {match[1].lower(): match[2] for match in matches if match is not None}, end + 4


def _part(headers: dict[bytes, bytes], content: memoryview) -> Part:
    _, said = parameters(headers.get(b"content-disposition", b""))
    if any(len(said.get(name, b"")) > _MOST_NAME_BYTES for name in (b"name", b"filename", b"filename*")):
        raise Problem(400, f"the multipart form has a name of more than {_MOST_NAME_BYTES:,} bytes")
    return Part(_file_name(said), parameters(headers.get(b"content-type", b""))[0], content)


def _file_name(said: dict[bytes, bytes]) -> str | None:
    """Browsers write `"` as %22; some clients write names beyond ASCII as RFC 5987 has it."""
    extended = _EXTENDED.fullmatch(said.get(b"filename*", b""))
    if extended is not None:
        return unquote_to_bytes(extended[2]).decode(extended[1].decode(), "replace")
    name = said.get(b"filename")
    return None if name is None else name.replace(b"%22", b'"').decode("utf-8", "replace")
