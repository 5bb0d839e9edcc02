"""A parser for multipart/form-data (RFC 7578), without copies, in time linear in the length.

The number of parts and headers and the length of headers are limited. Every search is the interpreter's own, for a
fixed string, and header parameters are matched without backtracking, so that no crafted input is slow to parse.
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
_MOST_PADDING = 100  # spaces after a boundary

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_HEADER = re.compile(rb"(" + _TOKEN + rb"):[ \t]*([^\r\n]*)")
_PARAMETER = re.compile(
    rb"[ \t]*;[ \t]*(" + _TOKEN + rb')[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|"([^"]*)"|([^";]*))', re.DOTALL
)
_ESCAPED = re.compile(rb'\\(["\\])')
_EXTENDED = re.compile(rb"(utf-8|iso-8859-1)'[^']*'(.*)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class FormPart:
    """A part of a form.

    Attributes:
        file_name: None if the part has none.
        content_type: in lower case, without parameters; empty if the part has none.
        content: a view of the body.
    """

    file_name: str | None
    content_type: bytes
    content: memoryview


def parts(body: Body, boundary: bytes, *, most: int) -> Iterator[FormPart]:
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
    """A header's value in lower case, and its parameters up to the first malformed one; of equal names, the first."""
    kind, _, _ = value.partition(b";")
    found: dict[bytes, bytes] = {}
    at = len(kind)
    while (match := _PARAMETER.match(value, at)) is not None:
        name, quoted, plain, bare = match.groups()
        text = _ESCAPED.sub(rb"\1", quoted) if quoted is not None else plain if plain is not None else bare.strip()
        found.setdefault(name.lower(), text)
        at = match.end()
    return kind.strip().lower(), found


def _after(body: Body, delimiter: bytes, begin: int) -> int:
    """Where the next delimiter ends. RFC 2046, 5.1.1: no line within a part begins with a delimiter."""
    found = body.find(delimiter, begin)
    if found < 0:
        raise Problem(400, "the multipart form breaks off, or has another boundary than its Content-Type says")
    return found + len(delimiter)


def _end_of_line(body: Body, at: int) -> int:
    """The end of a boundary's line, on which nothing but spaces may follow."""
    end = body.find(b"\r\n", at, at + _MOST_PADDING)
    if end < 0 or body[at:end].strip(b" \t"):
        raise Problem(400, "the multipart form is damaged")
    return end


def _headers(body: Body, at: int) -> tuple[dict[bytes, bytes], int]:
    """The headers of a part, by name in lower case, and where its content begins; `at` is the boundary's line end."""
    end = body.find(b"\r\n\r\n", at, at + _MOST_HEADER_BYTES)
    if end < 0:
        raise Problem(400, f"the multipart form has headers that break off, or exceed {_MOST_HEADER_BYTES} bytes")
    lines = bytes(body[at:end]).split(b"\r\n")[1:]
    matches = [_HEADER.fullmatch(line) for line in lines]
    if len(lines) > _MOST_HEADERS or None in matches:
        raise Problem(400, f"the multipart form has a part whose headers are damaged, or more than {_MOST_HEADERS}")
    return {match[1].lower(): match[2] for match in matches if match is not None}, end + 4


def _part(headers: dict[bytes, bytes], content: memoryview) -> FormPart:
    _, disposition = parameters(headers.get(b"content-disposition", b""))
    if any(len(disposition.get(name, b"")) > _MOST_NAME_BYTES for name in (b"name", b"filename", b"filename*")):
        raise Problem(400, f"the multipart form has a name of more than {_MOST_NAME_BYTES:,} bytes")
    return FormPart(_file_name(disposition), parameters(headers.get(b"content-type", b""))[0], content)


def _file_name(disposition: dict[bytes, bytes]) -> str | None:
    """The file name. Browsers write `"` as %22; some clients encode names beyond ASCII as in RFC 5987."""
    extended = _EXTENDED.fullmatch(disposition.get(b"filename*", b""))
    if extended is not None:
        return unquote_to_bytes(extended[2]).decode(extended[1].decode(), "replace")
    name = disposition.get(b"filename")
    return None if name is None else name.replace(b"%22", b'"').decode("utf-8", "replace")
