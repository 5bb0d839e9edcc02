"""Request bodies → images, in memory only and within bounds."""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Concatenate, ParamSpec, TypeVar
from urllib.parse import unquote_to_bytes

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from libraries.service.problems import Problem

P = ParamSpec("P")
T = TypeVar("T")

_IN_A_THREAD = 100_000  # bytes beyond which parsing would hold up the event loop
_LONGEST_TYPE = 1000  # characters of a Content-Type; the time to parse it grows with the square


@dataclass
class Upload:
    """An image as it was sent: the bytes of a file and, in a form, the name it was given."""

    data: bytes
    name: str | None = None
    is_whole_body: bool = False


class BodyReader:
    """Reads bodies, each and all together within bounds.

    Attributes:
        buffered: bytes of the bodies now in memory.
    """

    def __init__(self, *, most_bytes: int, most_buffered: int, seconds: float) -> None:
        """Refuse a body of more than `most_bytes`, or that takes more than `seconds` to arrive."""
        self.most_bytes, self.most_buffered, self.seconds = most_bytes, most_buffered, seconds
        self.buffered = 0
        self._parsing = asyncio.Lock()

    def read(self, request: Request) -> "_Reading":
        """A context with the whole body, which counts as buffered until its end.

        Raises:
            Problem: 400 it broke off; 408 too slow; 413 too large; 415 compressed; 503 too many bodies are in memory.
        """
        return _Reading(self, request)

    def too_large(self) -> Problem:
        """What is wrong with a body of more than `most_bytes`."""
        return Problem(413, f"the request has more than the {self.most_bytes:,} bytes allowed")

    async def parse(
        self, parser: Callable[Concatenate[bytes, P], T], body: bytes, *arguments: P.args, **options: P.kwargs
    ) -> T:
        """parser(body, ...); large bodies in a thread, one at a time: meanwhile some take 20 times their size."""
        if len(body) < _IN_A_THREAD:
            return parser(body, *arguments, **options)
        async with self._parsing:
            return await asyncio.to_thread(parser, body, *arguments, **options)


class _Reading:
    """The context of a body; no generators, which the event loop would register and forget at some expense."""

    def __init__(self, reader: BodyReader, request: Request) -> None:
        self._reader, self._request, self._size = reader, request, 0

    async def __aenter__(self) -> bytes:
        headers = self._request.headers
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise Problem(415, "the body is compressed: send it as it is")
        declared = headers.get("content-length", "0")
        if declared.isdecimal() and int(declared) > self._reader.most_bytes:
            raise self._reader.too_large()
        try:
            async with asyncio.timeout(self._reader.seconds):
                return await self._receive()
        except TimeoutError as error:
            self._forget()
            raise Problem(408, f"the request did not arrive within {self._reader.seconds:g} s") from error
        except BaseException:
            self._forget()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._forget()

    async def _receive(self) -> bytes:
        reader, chunks, more = self._reader, [], True
        while more:
            message = await self._request.receive()
            if message["type"] == "http.disconnect":
                raise Problem(400, "the request broke off")
            chunk, more = message.get("body", b""), message.get("more_body", False)
            if self._size + len(chunk) > reader.most_bytes:
                raise reader.too_large()
            if reader.buffered + len(chunk) > reader.most_buffered:
                raise Problem(503, "the service is receiving too much at once: try again", retry_after=1)
            self._size += len(chunk)
            reader.buffered += len(chunk)
            chunks.append(chunk)
        return b"".join(chunks)

    def _forget(self) -> None:
        self._reader.buffered -= self._size
        self._size = 0


def check_json(body: bytes, *, most: int) -> None:
    """Raise Problem 413 if there are more than `most` values in it; parsing that many would take time and memory."""
    if sum(body.count(mark) for mark in (b",", b"[", b"{")) > most:
        raise Problem(413, f"the request holds more than {most:,} values: send images as files, or binary data")


def uploads(body: bytes, content_type: str, *, most: int) -> list[Upload]:
    """The images of a body: the files of a multipart form, or the body itself.

    Raises:
        Problem: 400 the form is damaged; 413 more than `most` files; 415 another media type; 422 no image at all.
    """
    if len(content_type) > _LONGEST_TYPE:
        raise Problem(400, f"the Content-Type has more than {_LONGEST_TYPE:,} characters")
    kind, options = parse_options_header(content_type)
    if kind == b"multipart/form-data":
        found = _parts(options.get(b"boundary", b""), body, most=most)
    elif kind.startswith(b"image/") or kind == b"application/octet-stream":
        found = [Upload(body, is_whole_body=True)] if body else []
    else:
        raise Problem(415, "send an image as image/* or application/octet-stream, or several as multipart/form-data")
    if not found:
        raise Problem(422, "the request holds no image", title="No image")
    return found


def _parts(boundary: bytes, body: bytes, *, most: int) -> list[Upload]:
    """The files of a multipart form; its other fields are ignored."""
    if not 1 <= len(boundary) <= 70:  # RFC 2046
        raise Problem(400, "multipart/form-data without a boundary of 1 to 70 characters")
    found: list[Upload] = []
    content = bytearray()
    header = {b"name": bytearray(), b"value": bytearray()}
    disposition = b""
    is_whole = False

    def begin() -> None:
        nonlocal disposition
        disposition = b""
        content.clear()

    def collect(what: bytes) -> Callable[[bytes, int, int], None]:
        def callback(data: bytes, start: int, end: int) -> None:
            header[what] += data[start:end]

        return callback

    def end_header() -> None:
        nonlocal disposition
        if header[b"name"].lower() == b"content-disposition":
            disposition = bytes(header[b"value"])
        header[b"name"].clear()
        header[b"value"].clear()

    def receive(data: bytes, start: int, end: int) -> None:
        content.extend(data[start:end])

    def end() -> None:
        name = _file_name(disposition)
        if name is None:
            return
        if len(found) == most:
            raise Problem(413, f"the request holds more than the {most} images allowed")
        found.append(Upload(bytes(content), name or None))

    def finish() -> None:
        nonlocal is_whole
        is_whole = True

    parser = MultipartParser(
        boundary,
        {
            "on_part_begin": begin,
            "on_header_field": collect(b"name"),
            "on_header_value": collect(b"value"),
            "on_header_end": end_header,
            "on_part_data": receive,
            "on_part_end": end,
            "on_end": finish,
        },
    )
    try:
        parser.write(body)
    except FormParserError as error:
        raise Problem(400, "the multipart form is damaged") from error
    if not is_whole:
        raise Problem(400, "the multipart form breaks off")
    return found


def _file_name(disposition: bytes) -> str | None:
    """The name that a part's Content-Disposition gives a file; None if it is none.

    Browsers write `"` as %22; some clients write names beyond ASCII as RFC 2231 has it.
    """
    extended = _EXTENDED_NAME.search(disposition)
    if extended is not None:
        return unquote_to_bytes(extended[1]).decode("utf-8", "replace")
    name = parse_options_header(disposition)[1].get(b"filename")
    return None if name is None else name.replace(b"%22", b'"').decode("utf-8", "replace")


_EXTENDED_NAME = re.compile(rb"; *filename\*=utf-8''([^;\s]+)", re.IGNORECASE)
