"""Request bodies → images, in memory only and within bounds."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType

from starlette.requests import Request
from starlette.types import Receive

from libraries.service.multipart import Body, Part, parameters, parts
from libraries.service.problems import Problem

_UNWATCHED = 0.1  # seconds of work before it is asked whether the client is still there: most are done by then


class Awaited:
    """The context of work for a request whose body has come; what is cancelled at its end is a Problem.

    Raises:
        Problem: 499 the client has gone; 503 the service stops; 504 not done in time.
    """

    def __init__(self, receive: Receive, *, seconds: float, stop: float | None) -> None:
        """Give it so many seconds, but not beyond `stop`, a time of the event loop."""
        self._receive, self._seconds, self._stop = receive, seconds, stop
        self._is_gone = False
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
        """Have it end no later than at this time of the event loop."""
        end = self._timeout.when()
        if end is not None and time < end and not self._timeout.expired():
            self._stop = time
            self._timeout.reschedule(time)
        else:
            self._stop = None

    def _watch(self) -> None:
        self._watcher = self._loop.create_task(self._leave_with_client())

    async def _leave_with_client(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self._timeout.expired():
            self._is_gone = True
            self._timeout.reschedule(self._loop.time())

    def _problem(self) -> Problem:
        if self._is_gone:  # whom nobody tells; it is counted
            return Problem(499, "the client has gone", title="Client gone")
        if self._stop is not None:
            return Problem(503, "the service is stopping: try again", retry_after=1)
        return Problem(504, f"not done within {self._seconds:g} s: send fewer or smaller images")


_LONGEST_TYPE = 1000  # characters of a Content-Type
_MOST_FIELDS = 100  # parts of a form that are no images
_TOO_MUCH = "the service is receiving too much at once: try again"
_VALUE = 130  # bytes of memory that a value of JSON takes: an object with one member, by its two marks


@dataclass
class Upload:
    """An image as it was sent: the bytes of a file and, in a form, the name it was given."""

    data: bytes | bytearray | memoryview
    name: str | None = None
    is_whole_body: bool = False


class BodyReader:
    """Reads bodies, each and all together within bounds.

    Where a small one would be too much, the large one that has been arriving for longest makes room: or a few that
    never end would shut everybody out. No large one does so for another, lest none of them be whole in the end.

    Attributes:
        buffered: bytes of the bodies now in memory.
    """

    def __init__(
        self, *, most_bytes: int, most_buffered: int, seconds: float, timeout: float, small: int = 2**20
    ) -> None:
        """Refuse a body of more than `most_bytes`, or that takes more than `seconds` to arrive.

        Args:
            small: bytes, declared beforehand, up to which a body is small.
            timeout: seconds for what is done with a body once it has come.
        """
        self.most_bytes, self.most_buffered, self.seconds, self.timeout = most_bytes, most_buffered, seconds, timeout
        self.buffered = 0
        self.small = small
        self._arriving: dict[_Reading, None] = {}  # in the order in which they began
        self._awaited: set[Awaited] = set()
        self._stop: float | None = None

    def read(self, request: Request) -> "_Reading":
        """A context with the whole body, which counts as buffered until its end, and in which time runs out.

        Raises:
            Problem: 400 it broke off; 408 too slow; 413 too large; 415 compressed; 499 the client has gone; 503 too
                many bodies are in memory, or the service stops; 504 what is done with it is not done in time.
        """
        return _Reading(self, request)

    def stop_within(self, seconds: float) -> None:
        """Have all requests end within so many seconds, those that are yet to arrive included."""
        self._stop = asyncio.get_running_loop().time() + seconds
        for awaited in self._awaited:
            awaited.stop_at(self._stop)

    def too_large(self) -> Problem:
        """What is wrong with a body of more than `most_bytes`."""
        return Problem(413, f"the request has more than the {self.most_bytes:,} bytes allowed")

    def await_work(self, request: Request) -> Awaited:
        """The context for what is done with a body."""
        awaited = Awaited(request.receive, seconds=self.timeout, stop=self._stop)
        self._awaited.add(awaited)
        return awaited

    def begin(self, reading: "_Reading") -> None:
        """A body begins to arrive."""
        self._arriving[reading] = None

    def end(self, reading: "_Reading") -> None:
        """It has come, or never will."""
        self._arriving.pop(reading, None)

    def make_room(self, size: int, *, is_small: bool) -> None:
        """See that a body can have so many bytes more.

        Raises:
            Problem: 503 there is no room, and no large body to make it.
        """
        while self.buffered + size > self.most_buffered:
            oldest = next((reading for reading in self._arriving if reading.size > self.small), None)
            if oldest is None or not is_small:
                raise Problem(503, _TOO_MUCH, retry_after=1)
            oldest.give_up()

    def forget(self, awaited: Awaited | None, size: int) -> None:
        """A body of this size has been answered."""
        self.buffered -= size
        if awaited is not None:
            self._awaited.discard(awaited)


class _Reading:
    """The context of a body; no generators, which the event loop would register and forget at some expense."""

    def __init__(self, reader: BodyReader, request: Request) -> None:
        self._reader, self._request, self.size = reader, request, 0
        self._awaited: Awaited | None = None
        self._is_given_up = False

    async def __aenter__(self) -> Body:
        headers = self._request.headers
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise Problem(415, "the body is compressed: send it as it is")
        declared = headers.get("content-length", "0")
        if declared.isdecimal() and int(declared) > self._reader.most_bytes:
            raise self._reader.too_large()
        self._is_small = declared.isdecimal() and 0 < int(declared) <= self._reader.small
        try:
            async with asyncio.timeout(self._reader.seconds) as self._arrival:
                self._reader.begin(self)
                body = await self._receive()
        except TimeoutError as error:
            self._forget()
            if self._is_given_up:
                raise Problem(503, _TOO_MUCH, retry_after=1) from error
            raise Problem(408, f"the request did not arrive within {self._reader.seconds:g} s") from error
        except BaseException:
            self._forget()
            raise
        finally:
            self._reader.end(self)
        self._awaited = self._reader.await_work(self._request)
        await self._awaited.__aenter__()
        return body

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        awaited = self._awaited
        self._forget()
        if awaited is not None:
            await awaited.__aexit__(kind, error, traceback)

    def give_up(self) -> None:
        """Make room for others: what has come counts no more, and is let go when the event loop comes to it."""
        self._is_given_up = True
        self._reader.forget(None, self.size)
        self.size = 0
        self._reader.end(self)
        self._arrival.reschedule(asyncio.get_running_loop().time())

    async def _receive(self) -> Body:
        """The body: the only chunk as it came, or all in one place, with no further copy of them at the end."""
        reader, more = self._reader, True
        body: Body = b""
        while more:
            message = await self._request.receive()
            if message["type"] == "http.disconnect":
                raise Problem(400, "the request broke off")
            chunk, more = message.get("body", b""), message.get("more_body", False)
            if self._is_given_up:
                raise Problem(503, _TOO_MUCH, retry_after=1)
            if self.size + len(chunk) > reader.most_bytes:
                raise reader.too_large()
            reader.make_room(len(chunk), is_small=self._is_small)
            self.size += len(chunk)
            reader.buffered += len(chunk)
            body = _joined(body, chunk)
        return body

    def _forget(self) -> None:
        self._reader.forget(self._awaited, self.size)
        self.size, self._awaited = 0, None


def _joined(body: Body, chunk: bytes) -> Body:
    if not body:
        return chunk
    if isinstance(body, bytes):
        body = bytearray(body)
    body += chunk
    return body


def check_json(body: Body, *, most: int, most_keys: int) -> None:
    """Raise Problem 413 if there are more values or keys in it; parsing that many would take time and memory."""
    if _marks(body) > most or body.count(b"{") + body.count(b":") > most_keys:
        raise Problem(413, f"the request holds more than {most:,} values: send images as files, or binary data")


def memory_to_parse_json(body: Body) -> int:
    """Bytes of memory that it takes, at most, to make values of JSON and bytes of base64.

    A character takes a byte where all are ASCII, else up to four: in the whole text, in a string and in parts of it.
    """
    is_narrow = body.isascii() and b"\\u" not in body
    return (6 if is_narrow else 9) * len(body) + _VALUE * _marks(body)


def _marks(body: Body) -> int:
    """Of which there are at least as many as there are values."""
    return sum(body.count(mark) for mark in (b",", b"[", b"{"))


def uploads(body: Body, content_type: str, *, most: int) -> list[Upload]:
    """The images of a body: those of a multipart form, which are views of it, or the body itself.

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


def _images(found: Iterable[Part], *, most: int) -> list[Upload]:
    """The parts that are files, or say that they are images; other fields are ignored."""
    images: list[Upload] = []
    for part in found:
        kind = part.content_type
        if part.file_name is None and not kind.startswith(b"image/") and kind != b"application/octet-stream":
            continue
        if len(images) == most:
            raise Problem(413, f"the request holds more than the {most} images allowed")
        images.append(Upload(part.content, part.file_name or None))
    return images
