"""Request bodies → images, in memory only and within limits of size and time."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType

from starlette.requests import Request
from starlette.types import Receive

from libraries.service.multipart import Body, FormPart, parameters, parts
from libraries.service.problems import Problem

_UNWATCHED = 0.1  # seconds of work before watching for a disconnect: most requests are done by then
_LONGEST_TYPE = 1000  # characters of a Content-Type
_MOST_FIELDS = 100  # parts of a form that are not images
_TOO_MUCH = "the service is receiving too much at once: try again"
_VALUE = 130  # bytes of memory per value of JSON: an object with one member, counted by its two marks


@dataclass
class Upload:
    """An image as it was sent: the bytes of a file and, in a form, its file name."""

    data: bytes | bytearray | memoryview
    name: str | None = None
    is_whole_body: bool = False


class BodyReader:
    """Reads bodies, limiting the size of each and of all together.

    Where a small body does not fit, the large one that has been arriving for longest is dropped: otherwise a few that
    never end would shut everybody out. A large body drops no other, so that some large ones do arrive.

    Attributes:
        buffered: bytes of the bodies now in memory.
    """

    def __init__(
        self, *, most_bytes: int, most_buffered: int, seconds: float, timeout: float, small: int = 2**20
    ) -> None:
        """Refuse a body of more than `most_bytes`, or one that takes more than `seconds` to arrive.

        Args:
            most_buffered: bytes of all bodies together.
            timeout: seconds to process a body once it has arrived.
            small: bytes, as declared in Content-Length, up to which a body counts as small.
        """
        self.most_bytes, self.most_buffered, self.seconds, self.timeout = most_bytes, most_buffered, seconds, timeout
        self.buffered = 0
        self.small = small
        self._arriving: dict[_IncomingBody, None] = {}  # the oldest first
        self._processing: set[_Processing] = set()
        self._stop: float | None = None

    def read(self, request: Request) -> "_IncomingBody":
        """A context manager: reads the whole body, which counts as buffered until its end, and limits its processing.

        Raises:
            Problem: 400 the request broke off; 408 too slow; 413 too large; 415 compressed; 499 the client has gone;
                503 too many bodies in memory, or the service stops; 504 processing takes too long.
        """
        return _IncomingBody(self, request)

    def stop_within(self, seconds: float) -> None:
        """End all requests within this time, including those still to arrive."""
        self._stop = asyncio.get_running_loop().time() + seconds
        for processing in self._processing:
            processing.stop_at(self._stop)

    def too_large(self) -> Problem:
        """The problem of a body of more than `most_bytes`."""
        return Problem(413, f"the request has more than the {self.most_bytes:,} bytes allowed")

    def process(self, request: Request) -> "_Processing":
        """The context manager for processing a body that has arrived."""
        processing = _Processing(request.receive, seconds=self.timeout, stop=self._stop)
        self._processing.add(processing)
        return processing

    def begin_arrival(self, body: "_IncomingBody") -> None:
        """Count a body as arriving."""
        self._arriving[body] = None

    def end_arrival(self, body: "_IncomingBody") -> None:
        """Count a body as arriving no longer."""
        self._arriving.pop(body, None)

    def make_room(self, size: int, *, is_small: bool) -> None:
        """Make room for that many more bytes of a body.

        Raises:
            Problem: 503 there is no room, and no large body to drop.
        """
        while self.buffered + size > self.most_buffered:
            oldest = next((body for body in self._arriving if body.size > self.small), None)
            if oldest is None or not is_small:
                raise Problem(503, _TOO_MUCH, retry_after=1)
            oldest.drop()

    def release(self, processing: "_Processing | None", size: int) -> None:
        """Count the bytes of a body as buffered no longer."""
        self.buffered -= size
        if processing is not None:
            self._processing.discard(processing)


class _IncomingBody:
    """The context manager of a body; not a generator, which the event loop would have to register and forget."""

    def __init__(self, reader: BodyReader, request: Request) -> None:
        self._reader, self._request, self.size = reader, request, 0
        self._processing: _Processing | None = None
        self._is_dropped = False

    async def __aenter__(self) -> Body:
        headers = self._request.headers
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise Problem(415, "the body is compressed: send it uncompressed")
        declared = headers.get("content-length", "0")
        if declared.isdecimal() and int(declared) > self._reader.most_bytes:
            raise self._reader.too_large()
        self._is_small = declared.isdecimal() and 0 < int(declared) <= self._reader.small
        try:
            async with asyncio.timeout(self._reader.seconds) as self._arrival:
                self._reader.begin_arrival(self)
                body = await self._receive()
        except TimeoutError as error:
            self._release()
            if self._is_dropped:
                raise Problem(503, _TOO_MUCH, retry_after=1) from error
            raise Problem(408, f"the request did not arrive within {self._reader.seconds:g} s") from error
        except BaseException:
            self._release()
            raise
        finally:
            self._reader.end_arrival(self)
        self._processing = self._reader.process(self._request)
        await self._processing.__aenter__()
        return body

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        processing = self._processing
        self._release()
        if processing is not None:
            await processing.__aexit__(kind, error, traceback)

    def drop(self) -> None:
        """Make room for others: stop counting what has arrived, and end the wait for the rest."""
        self._is_dropped = True
        self._reader.release(None, self.size)
        self.size = 0
        self._reader.end_arrival(self)
        self._arrival.reschedule(asyncio.get_running_loop().time())

    async def _receive(self) -> Body:
        """The body: a single chunk as it came, several joined as they come, without a further copy at the end."""
        reader, more = self._reader, True
        body: Body = b""
        while more:
            message = await self._request.receive()
            if message["type"] == "http.disconnect":
                raise Problem(400, "the request broke off")
            chunk, more = message.get("body", b""), message.get("more_body", False)
            if self._is_dropped:
                raise Problem(503, _TOO_MUCH, retry_after=1)
            if self.size + len(chunk) > reader.most_bytes:
                raise reader.too_large()
            reader.make_room(len(chunk), is_small=self._is_small)
            self.size += len(chunk)
            reader.buffered += len(chunk)
            body = _joined(body, chunk)
        return body

    def _release(self) -> None:
        self._reader.release(self._processing, self.size)
        self.size, self._processing = 0, None


class _Processing:
    """A context manager that ends the work on a body when it is late, the client has gone, or the service stops.

    Raises:
        Problem: 499 the client has gone; 503 the service stops; 504 too slow.
    """

    def __init__(self, receive: Receive, *, seconds: float, stop: float | None) -> None:
        """Allow this many seconds, but not beyond `stop`, a time of the event loop."""
        self._receive, self._seconds, self._stop = receive, seconds, stop
        self._is_client_gone = False
        self._watcher: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timeout = asyncio.timeout(self._seconds)
        await self._timeout.__aenter__()
        if self._stop is not None:
            self.stop_at(self._stop)
        self._timer = self._loop.call_later(_UNWATCHED, self._watch)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
        try:
            await self._timeout.__aexit__(kind, error, traceback)
        except TimeoutError as late:
            raise self._problem() from late

    def stop_at(self, time: float) -> None:
        """End no later than at this time of the event loop."""
        end = self._timeout.when()
        if end is not None and time < end and not self._timeout.expired():
            self._stop = time
            self._timeout.reschedule(time)
        else:
            self._stop = None

    def _watch(self) -> None:
        self._watcher = self._loop.create_task(self._end_at_disconnect())

    async def _end_at_disconnect(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self._timeout.expired():
            self._is_client_gone = True
            self._timeout.reschedule(self._loop.time())

    def _problem(self) -> Problem:
        if self._is_client_gone:  # nobody receives this answer, but it is counted
            return Problem(499, "the client has gone", title="Client gone")
        if self._stop is not None:
            return Problem(503, "the service is stopping: try again", retry_after=1)
        return Problem(504, f"not done within {self._seconds:g} s: send fewer or smaller images")


def _joined(body: Body, chunk: bytes) -> Body:
    if not body:
        return chunk
    if isinstance(body, bytes):
        body = bytearray(body)
    body += chunk
    return body


def check_json(body: Body, *, most: int, most_keys: int) -> None:
    """Raise Problem 413 if JSON holds more values or keys than this; parsing them would take time and memory."""
    if _marks(body) > most or body.count(b"{") + body.count(b":") > most_keys:
        raise Problem(413, f"the request holds more than {most:,} values: send images as files, or binary data")


def memory_to_parse_json(body: Body) -> int:
    """Bytes of memory that parsing JSON and decoding its base64 takes at most.

    A character takes one byte where all are ASCII, else up to four: in the whole text, in each string, in parts of it.
    """
    is_narrow = body.isascii() and b"\\u" not in body
    return (6 if is_narrow else 9) * len(body) + _VALUE * _marks(body)


def _marks(body: Body) -> int:
    """At least as many as there are values."""
    return sum(body.count(mark) for mark in (b",", b"[", b"{"))


def uploads(body: Body, content_type: str, *, most: int) -> list[Upload]:
    """The images of a body: those of a multipart form, as views of it, or the body itself.

    Raises:
        Problem: 400 the form is damaged; 413 more than `most` images; 415 another media type; 422 no image at all.
    """
    if len(content_type) > _LONGEST_TYPE:
        raise Problem(400, f"the Content-Type has more than {_LONGEST_TYPE:,} characters")
    kind, options = parameters(content_type.encode("latin-1", "replace"))
    if kind == b"multipart/form-data":
        found = _images(parts(body, options.get(b"boundary", b""), most=most + _MOST_FIELDS), most=most)
    elif kind.startswith(b"image/") or kind == b"application/octet-stream":
        found = [Upload(body, is_whole_body=True)] if body else []
    else:
        raise Problem(415, "send an image as image/* or application/octet-stream, or several as multipart/form-data")
    if not found:
        raise Problem(422, "the request holds no image", title="No image")
    return found


def _images(found: Iterable[FormPart], *, most: int) -> list[Upload]:
    """The parts that are files or declare an image type; other fields are ignored."""
    images: list[Upload] = []
    for part in found:
        kind = part.content_type
        if part.file_name is None and not kind.startswith(b"image/") and kind != b"application/octet-stream":
            continue
        if len(images) == most:
            raise Problem(413, f"the request holds more than the {most} images allowed")
        images.append(Upload(part.content, part.file_name or None))
    return images
