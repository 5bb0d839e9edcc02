"""HTTP/1.1 by uvicorn, with what it lacks towards strangers: limits on time, connections, and bytes outside bodies."""

import asyncio
import re
from collections.abc import Callable
from typing import Any, Protocol

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from libraries.service.problems import Problem, response

MOST_CONNECTIONS = 4096
_SPARE = 64  # idle connections that stay, so that newcomers can send a request while all others are active
HEALTH = frozenset({"/v2/health/live", "/v2/health/ready"})  # answered under any load
_HEALTH = tuple(path.encode() for path in HEALTH)
_BEGINNING = b"HTTP/1.1 "
_UPGRADE = re.compile(rb"\r\nupgrade[ \t]*:", re.IGNORECASE)


class Droppable(Protocol):
    """A connection that can be ended."""

    def drop(self) -> None:
        """End it at once."""


class ConnectionLimiter:
    """The connections of one server: active on a request whose headers have arrived, or idle.

    Idle connections cost little. If they counted like active ones, anyone who opens enough of them would shut everybody
    out. So the one that has been idle for longest is dropped to make room, even if it is in the middle of headers.

    Attributes:
        most: connections; a few more are open while they are told that there are too many.
        spare: idle connections that stay, however many are active.
    """

    def __init__(self, most: int = MOST_CONNECTIONS, *, spare: int = _SPARE) -> None:
        self.most, self.spare = most, spare
        self._active: set[Droppable] = set()
        self._idle: dict[Droppable, None] = {}  # idle for longest first

    @property
    def is_full(self) -> bool:
        """Whether more connections are active than allowed."""
        return len(self._active) > self.most

    def mark_idle(self, connection: Droppable) -> None:
        """Count a connection that is new, or whose request has been answered, as idle."""
        self._active.discard(connection)
        self._idle[connection] = None
        while len(self._idle) > self.spare and len(self._idle) + len(self._active) > self.most:
            oldest = next(iter(self._idle))
            del self._idle[oldest]
            oldest.drop()

    def mark_active(self, connection: Droppable) -> None:
        """Count a connection on which the headers of a request have arrived as active."""
        self._idle.pop(connection, None)
        self._active.add(connection)

    def remove(self, connection: Droppable) -> None:
        """Forget a connection that has ended."""
        self._idle.pop(connection, None)
        self._active.discard(connection)


class ResponseTransport:
    """A transport that neither cuts off a response nor lingers for ever, and that sends head and body together.

    uvicorn writes head and body separately: two system calls and two packets, which wake the client twice.

    If a socket is closed while bytes of the request are unread, it is reset, and the client may never see the response
    (RFC 9112, 9.6). So while more may arrive, only the sending side is closed, until the client closes its own.
    """

    def __init__(self, transport: asyncio.Transport, protocol: "BoundedProtocol") -> None:
        self._transport, self._protocol = transport, protocol
        self._is_closing = False
        self._head = b""
        self._probed = 0  # bytes of a response's first line that `probe` has sent

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        """Whether nothing more can be sent."""
        return self._is_closing or self._transport.is_closing()

    def write(self, data: bytes) -> None:
        """Send, unless closing; the head of a response waits for what follows it."""
        if self.is_closing():
            return
        if data.startswith(b"HTTP/") and not self._head:
            self._head, self._probed = data[self._probed :], 0
            self._protocol.loop.call_soon(self._send_head)
        else:
            self._transport.write(self._head + data)
            self._head = b""

    def probe(self) -> None:
        """Send the next byte that every response begins with: if the client has gone, the connection breaks."""
        if self._probed < len(_BEGINNING) and not self.is_closing():
            self._transport.write(_BEGINNING[self._probed : self._probed + 1])
            self._probed += 1

    def _send_head(self) -> None:
        if self._head and not self._transport.is_closing():
            self._transport.write(self._head)
        self._head = b""

    def close(self) -> None:
        """Send what has been written, then end."""
        if self.is_closing():
            return
        self._send_head()
        self._is_closing = True
        if self._protocol.is_complete:
            self._transport.close()
        else:
            self._transport.write_eof()
            self._protocol.flow.resume_reading()
        self._protocol.end_after(self._protocol.seconds_to_close, self._transport.abort)


class BoundedProtocol(HttpToolsProtocol):
    """HTTP/1.1 with limits: headers must be short and arrive soon, bodies must end after the response, and clients must
    read responses.

    Attributes:
        is_complete: all of the latest request has arrived, or nothing of it.
    """

    seconds_for_headers = 10.0
    seconds_between_requests = 75.0  # longer than proxies keep connections (nginx: 60), or they lose requests meanwhile
    seconds_after_response = 10.0  # for the rest of a body that was answered before all of it arrived
    seconds_to_read = 30.0  # for a client that stops reading a response
    seconds_to_close = 5.0
    seconds_to_probe = 0.25  # after a client has closed its sending side, before probing whether it is still there
    most_bytes_beside_body = 65_536  # of headers; also of trailers, or between two chunks

    is_complete = True
    _timer: asyncio.TimerHandle | None = None
    _until_read: asyncio.TimerHandle | None = None
    _prober: asyncio.TimerHandle | None = None
    _beside_body = 0

    def __init__(self, *arguments: Any, limiter: ConnectionLimiter, **options: Any) -> None:
        """Take uvicorn's arguments, and the limiter that all connections of a server share."""
        super().__init__(*arguments, **options)
        self._limiter = limiter

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(ResponseTransport(transport, self))  # type: ignore[arg-type]
        self.end_after(self.seconds_for_headers)
        self._limiter.mark_idle(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._limiter.remove(self)
        self._stop_timer()
        if self._prober is not None:
            self._prober.cancel()
        self._stop_waiting_for_reader()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self.is_complete:
            data = _without_upgrade(data)
        self._beside_body += len(data)
        super().data_received(data)
        if self._beside_body > self.most_bytes_beside_body:
            self.send_400_response("the headers are too long")

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client has closed its sending side: whether the other side stays open for a response.

        Some clients do so after their request (nc -N, CloseWrite); uvicorn takes them for gone. Those that are really
        gone look the same until something is sent to them. So the response's first line is sent byte by byte ahead of
        the rest.
        """
        is_under_way = self.cycle is not None and not self.cycle.response_complete
        if not is_under_way or not self.is_complete or self.transport.is_closing():
            return False
        self.cycle.keep_alive = False
        self._probe(self.seconds_to_probe)
        return True

    def _probe(self, pause: float) -> None:
        if self.cycle.response_started:
            return
        if not self.pipeline:  # else an earlier response may be under way
            self.transport.probe()  # type: ignore[attr-defined]
        self._prober = self.loop.call_later(pause, self._probe, 2 * pause)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.is_complete = False
        self.end_after(self.seconds_for_headers, self._refuse_slow)

    def on_headers_complete(self) -> None:
        self._beside_body = 0
        self._stop_timer()
        self._limiter.mark_active(self)
        is_refused = self._limiter.is_full and not self.url.partition(b"?")[0].endswith(_HEALTH)
        self.app = _too_many_connections if is_refused else self.config.loaded_app
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._beside_body = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self.is_complete = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._unset_keepalive_if_required()  # uvicorn's limit between two requests
        if self.cycle.response_complete:
            self._limiter.mark_idle(self)
            if not self.transport.is_closing():
                self.end_after(self.seconds_between_requests if self.is_complete else self.seconds_after_response)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, and end."""
        self._refuse(Problem(400, msg))

    def _refuse_slow(self) -> None:
        self._refuse(Problem(408, f"the headers did not arrive within {self.seconds_for_headers:g} s"))

    def _refuse(self, problem: Problem) -> None:
        """Answer a request that has not fully arrived, and end; without an answer if another is under way."""
        cycle = self.cycle
        is_due = cycle is None or cycle.response_complete or (cycle.more_body and not cycle.response_started)
        if is_due and not self.pipeline and not self.transport.is_closing():
            refusal = response(problem, headers={"Connection": "close"})
            head = [STATUS_LINE[problem.status].rstrip(), *(b": ".join(header) for header in refusal.raw_headers)]
            self.transport.write(b"\r\n".join([*head, b"", bytes(refusal.body)]))
        self.is_complete = False  # its end is unknown
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

    def end_after(self, seconds: float, end: Callable[[], None] | None = None) -> None:
        """Call `end`, by default the transport's `close`, after this time, unless there is progress before."""
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, end or self.transport.close)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _without_upgrade(data: bytes) -> bytes:
    """A request without its header Upgrade, which Java's client sends: with it, httptools would not read the body."""
    end = data.find(b"\r\n\r\n")
    end = len(data) if end < 0 else end
    if not _UPGRADE.search(data, 0, end):
        return data
    return _UPGRADE.sub(rb"\r\nX-Offer:", data[:end]) + data[end:]


async def _too_many_connections(scope: Scope, receive: Receive, send: Send) -> None:
    problem = Problem(503, "too many connections: try again in a moment", retry_after=1)
    await response(problem, headers={"Connection": "close"})(scope, receive, send)
