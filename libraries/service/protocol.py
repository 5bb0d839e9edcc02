"""HTTP/1.1 as uvicorn speaks it, with what it lacks against strangers: bounds on time, number and what is not body."""

import asyncio
import re
from collections.abc import Callable
from typing import Any, Protocol

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from libraries.service.problems import Problem, response

MOST_CONNECTIONS = 4096
_SPARE = 64  # newcomers that can say what they want while all others are at work


class Droppable(Protocol):
    """A connection that can be ended."""

    def drop(self) -> None:
        """End it at once."""


class Room:
    """The connections of one server: at work on a request whose headers have come, or idle.

    Idle ones cost nothing but their number. Were they counted against the others, whoever opens enough of them would
    shut everybody out; so the one that has been idle for longest makes room, also if it is in the middle of headers.

    Attributes:
        most: connections; a few more while they are told that there are too many.
    """

    def __init__(self, most: int = MOST_CONNECTIONS, *, spare: int = _SPARE) -> None:
        self.most, self.spare = most, spare
        self._at_work: set[Droppable] = set()
        self._idle: dict[Droppable, None] = {}  # in the order in which they became so

    @property
    def is_full(self) -> bool:
        """Whether more are at work than there may be."""
        return len(self._at_work) > self.most

    def rest(self, connection: Droppable) -> None:
        """A connection is new, or has been answered."""
        self._at_work.discard(connection)
        self._idle[connection] = None
        while len(self._idle) > self.spare and len(self._idle) + len(self._at_work) > self.most:
            oldest = next(iter(self._idle))
            del self._idle[oldest]
            oldest.drop()

    def work(self, connection: Droppable) -> None:
        """The headers of a request have come."""
        self._idle.pop(connection, None)
        self._at_work.add(connection)

    def leave(self, connection: Droppable) -> None:
        """A connection has ended."""
        self._idle.pop(connection, None)
        self._at_work.discard(connection)


HEALTH = frozenset({"/v2/health/live", "/v2/health/ready"})  # answered whatever else is going on
_HEALTH = tuple(path.encode() for path in HEALTH)


class Connection:
    """A transport whose end neither cuts off an answer nor waits for ever, and which sends head and body together.

    uvicorn writes them one after the other: two calls of the system and two packets, which wake the client twice.

    A socket closed while bytes of the request are unread is reset, and the client may never see the answer (RFC 9112,
    9.6). So if more may come, only the sending side is closed, until the client closes its own.
    """

    def __init__(self, transport: asyncio.Transport, protocol: "BoundedProtocol") -> None:
        self._transport, self._protocol = transport, protocol
        self._is_closing = False
        self._head = b""
        self._felt = 0  # bytes of an answer's first line that were sent before it

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        """Whether nothing more can be sent."""
        return self._is_closing or self._transport.is_closing()

    def write(self, data: bytes) -> None:
        """Send, unless it is too late; the head of an answer with what follows it."""
        if self.is_closing():
            return
        if data.startswith(b"HTTP/") and not self._head:
            self._head, self._felt = data[self._felt :], 0
            self._protocol.loop.call_soon(self._send_head)
        else:
            self._transport.write(self._head + data)
            self._head = b""

    def feel(self) -> None:
        """Send one byte more of what every answer begins with: where nobody is there any more, the line breaks."""
        if self._felt < len(_BEGINNING) and not self.is_closing():
            self._transport.write(_BEGINNING[self._felt : self._felt + 1])
            self._felt += 1

    def _send_head(self) -> None:
        if self._head and not self._transport.is_closing():
            self._transport.write(self._head)
        self._head = b""

    def close(self) -> None:
        """Send what is written already, then end."""
        if self.is_closing():
            return
        self._send_head()
        self._is_closing = True
        if self._protocol.is_whole:
            self._transport.close()
        else:
            self._transport.write_eof()
            self._protocol.flow.resume_reading()
        self._protocol.give(self._protocol.seconds_to_close, self._transport.abort)


_BEGINNING = b"HTTP/1.1 "


class BoundedProtocol(HttpToolsProtocol):
    """HTTP/1.1 whose headers must come soon and be short, whose bodies do not go on after the answer, and whose answers
    are fetched.

    Attributes:
        is_whole: all of the latest request has come, or nothing of it.
    """

    def __init__(self, *arguments: Any, room: Room, **options: Any) -> None:
        """uvicorn's, of a server that shares `room` among its connections."""
        super().__init__(*arguments, **options)
        self._room = room

    seconds_for_headers = 10.0  # also between two requests
    seconds_after_answer = 10.0  # for the rest of a body that was answered before it had all come
    seconds_to_read = 30.0  # while the client takes nothing of an answer
    seconds_to_close = 5.0
    seconds_to_feel = 0.25  # after a client has ended its side, until it is seen whether it is still there
    most_bytes_beside_body = 65_536  # of headers; also of trailers, or between two chunks

    is_whole = True
    _timer: asyncio.TimerHandle | None = None
    _until_read: asyncio.TimerHandle | None = None
    _feeler: asyncio.TimerHandle | None = None
    _beside_body = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(Connection(transport, self))  # type: ignore[arg-type]
        self.give(self.seconds_for_headers)
        self._room.rest(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._room.leave(self)
        self._stop_timer()
        if self._feeler is not None:
            self._feeler.cancel()
        self._stop_waiting_for_reader()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self.is_whole:
            data = _without_offers(data)
        self._beside_body += len(data)
        super().data_received(data)
        if self._beside_body > self.most_bytes_beside_body:
            self.send_400_response("the headers are too long")

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client has ended its side: whether the other stays open, for the answer to what it asked.

        Some clients do so after their request (nc -N, CloseWrite); for uvicorn they are gone. Those who are gone look
        the same until something is sent to them, so the answer's first line leaves byte by byte, ahead of the rest.
        """
        is_under_way = self.cycle is not None and not self.cycle.response_complete
        if not is_under_way or not self.is_whole or self.transport.is_closing():
            return False
        self.cycle.keep_alive = False
        self._feel(self.seconds_to_feel)
        return True

    def _feel(self, pause: float) -> None:
        if self.cycle.response_started:
            return
        if not self.pipeline:  # or the line may be in the middle of an earlier answer
            self.transport.feel()  # type: ignore[attr-defined]
        self._feeler = self.loop.call_later(pause, self._feel, 2 * pause)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.is_whole = False
        self.give(self.seconds_for_headers, self._refuse_slow)

    def on_headers_complete(self) -> None:
        self._beside_body = 0
        self._stop_timer()
        self._room.work(self)
        is_refused = self._room.is_full and not self.url.partition(b"?")[0].endswith(_HEALTH)
        self.app = _too_many_connections if is_refused else self.config.loaded_app
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._beside_body = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self.is_whole = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete:
            self._room.rest(self)
            if not self.transport.is_closing():
                self.give(self.seconds_for_headers if self.is_whole else self.seconds_after_answer)

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, and end."""
        self._refuse(Problem(400, msg))

    def _refuse_slow(self) -> None:
        self._refuse(Problem(408, f"the headers did not arrive within {self.seconds_for_headers:g} s"))

    def _refuse(self, problem: Problem) -> None:
        """Answer a request that has not all come, and end; without an answer if another is on its way."""
        cycle = self.cycle
        is_due = cycle is None or cycle.response_complete or (cycle.more_body and not cycle.response_started)
        if is_due and not self.pipeline and not self.transport.is_closing():
            answer = response(problem, headers={"Connection": "close"})
            head = [STATUS_LINE[problem.status].rstrip(), *(b": ".join(header) for header in answer.raw_headers)]
            self.transport.write(b"\r\n".join([*head, b"", bytes(answer.body)]))
        self.is_whole = False  # nobody knows where it ends
        self.transport.close()

    def drop(self) -> None:
        """End at once, to make room for others."""
        self.transport.abort()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._until_read = self.loop.call_later(self.seconds_to_read, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_waiting_for_reader()

    def _stop_waiting_for_reader(self) -> None:
        if self._until_read is not None:
            self._until_read.cancel()
            self._until_read = None

    def give(self, seconds: float, end: Callable[[], None] | None = None) -> None:
        """End the connection after so many seconds, by default in the orderly way, unless there is progress."""
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, end or self.transport.close)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _without_offers(data: bytes) -> bytes:
    """A request that offers another protocol, as Java's client does, without the offer: its body would not be read."""
    end = data.find(b"\r\n\r\n")
    end = len(data) if end < 0 else end
    if not _OFFER.search(data, 0, end):
        return data
    return _OFFER.sub(rb"\r\nX-Offer:", data[:end]) + data[end:]


_OFFER = re.compile(rb"\r\nupgrade[ \t]*:", re.IGNORECASE)


async def _too_many_connections(scope: Scope, receive: Receive, send: Send) -> None:
    problem = Problem(503, "too many connections: try again in a moment", retry_after=1)
    await response(problem, headers={"Connection": "close"})(scope, receive, send)
