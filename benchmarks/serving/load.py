"""Load for a service on this machine: so many clients at once, or so many requests a second whether it answers or not.

Lean, for it shares the cores with the service: requests are made beforehand, of an answer only what frames it is read.
Each run tells how much of a core the generator itself took.
"""

import asyncio
import contextlib
import itertools
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace

import numpy as np
import uvloop

LOST, REFUSED, UNANSWERED = "connection lost", "connection refused", "no answer"
_CLOSED = "connection closed"  # before the first byte of an answer
_SECONDS_FOR_THE_LAST = 15.0
_TICK = 0.001  # seconds, the resolution of libuv's timers: shorter ones would keep a core busy


@dataclass(frozen=True)
class Address:
    """Where a service listens on this machine."""

    port: int
    host: str = "127.0.0.1"


@dataclass(frozen=True)
class Answer:
    """What came of a request: its HTTP status or what went wrong, and when, in seconds since the run began.

    Attributes:
        due: when it should have been sent; under load it is sent later, and the delay counts.
    """

    status: int | str
    due: float
    came: float

    @property
    def latency(self) -> float:
        """Seconds from when it was due."""
        return self.came - self.due


@dataclass(frozen=True)
class Run:
    """What came of all requests.

    Attributes:
        seconds: of the run, without the first `warm` ones and without waiting for the last answers.
        own_share: cores that the generator took.
        sent_again: requests whose kept connection the server closed while they were on their way.
        rate: requests per second that were due; NaN where they waited for one another.
    """

    answers: list[Answer]
    warm: float
    seconds: float
    own_share: float
    sent_again: int
    rate: float = float("nan")

    @property
    def statuses(self) -> Counter[int | str]:
        """How many requests ended how, the warm-up included."""
        return Counter(answer.status for answer in self.answers)

    @property
    def goodput(self) -> float:
        """Answers 200 that came within the run, per second."""
        good = (self.warm <= a.came < self.warm + self.seconds for a in self.answers if a.status == 200)
        return sum(good) / self.seconds

    def percentile(self, percent: float, *statuses: int) -> float:
        """Of the latencies of requests due after the warm-up that ended in one of `statuses`, in seconds."""
        latencies = [a.latency for a in self.answers if a.status in statuses and a.due >= self.warm]
        return float(np.percentile(latencies, percent)) if latencies else float("nan")


def http_request(path: str, body: bytes, content_type: str) -> bytes:
    """A whole POST request."""
    lines = (
        f"POST {path} HTTP/1.1",
        "Host: 127.0.0.1",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
    )
    return "\r\n".join((*lines, "", "")).encode() + body


def closed_loop(
    address: Address,
    requests: Sequence[bytes],
    *,
    clients: int,
    seconds: float = math.inf,
    count: float = math.inf,
    warm: float = 0.0,
    each: Callable[[int], None] = lambda answered: None,
) -> Run:
    """`clients`, each sending its next request when it has the answer to the last; for a time, or `count` requests.

    Args:
        warm: seconds at the beginning that do not count.
        each: is told after every answer how many there are.
    """

    async def run(load: _Load) -> float:
        everyone = [await _Connection(load, proceed).open() for _ in range(clients)]
        load.begin()
        for connection in everyone:
            proceed(connection)
        await load.all_answered.wait()
        return min(seconds, load.now() - warm)

    def proceed(connection: _Connection) -> None:
        load = connection.load
        each(len(load.answers))
        if load.sent < count and load.now() < warm + seconds:
            connection.send(due=load.now())
        else:
            connection.close()
            load.end_at(load.sent)

    return _run(address, requests, warm, run)


def open_loop(
    address: Address,
    requests: Sequence[bytes],
    *,
    rate: float,
    seconds: float,
    warm: float,
    connections: int,
    seed: int = 0,
) -> Run:
    """Requests that arrive at random (Poisson), `rate` per second, over `connections`, kept open and used in turn.

    A request for which no connection is free waits for one, and its latency counts from when it was due.
    """
    gaps = np.random.default_rng(seed).exponential(1 / rate, size=round((warm + seconds) * rate))
    coming = deque(np.cumsum(gaps).tolist())  # when each is due
    late: deque[float] = deque()  # those that wait for a connection
    free: deque[_Connection] = deque()

    async def run(load: _Load) -> float:
        everyone = [await _Connection(load, release).open() for _ in range(connections)]
        free.extend(everyone)
        load.begin()
        load.end_at(len(coming))
        arrive(load)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(load.all_answered.wait(), warm + seconds + _SECONDS_FOR_THE_LAST)
        load.answers += [Answer(UNANSWERED, due, load.now()) for due in late]
        late.clear()
        for connection in everyone:
            connection.close()
        return seconds

    def arrive(load: _Load) -> None:
        while coming and coming[0] <= load.now():
            due = coming.popleft()
            if free:
                free.popleft().send(due=due)
            else:
                late.append(due)
        if coming:
            asyncio.get_running_loop().call_later(max(_TICK, coming[0] - load.now()), arrive, load)

    def release(connection: _Connection) -> None:
        if late:
            connection.send(due=late.popleft())
        else:
            free.append(connection)

    return replace(_run(address, requests, warm, run), rate=rate)


class _Load:
    """What the connections of a run share: requests, answers, the clock."""

    def __init__(self, address: Address, requests: Sequence[bytes]) -> None:
        self.address, self.requests = address, itertools.cycle(requests)
        self.answers: list[Answer] = []
        self.sent, self.sent_again, self._most = 0, 0, math.inf
        self.all_answered = asyncio.Event()
        self.begin()

    def begin(self) -> None:
        self._begun, self._cpu = time.perf_counter(), time.process_time()

    def now(self) -> float:
        return time.perf_counter() - self._begun

    def cores(self) -> float:
        return (time.process_time() - self._cpu) / self.now()

    def next_request(self) -> bytes:
        self.sent += 1
        return next(self.requests)

    def add(self, answer: Answer) -> None:
        self.answers.append(answer)
        self.end_at(self._most)

    def end_at(self, most: float) -> None:
        """All are answered once there are so many answers."""
        self._most = most
        if len(self.answers) >= most:
            self.all_answered.set()


def _run(
    address: Address, requests: Sequence[bytes], warm: float, run: Callable[[_Load], Coroutine[None, None, float]]
) -> Run:
    async def measure() -> Run:
        load = _Load(address, requests)
        seconds = await run(load)
        return Run(load.answers, warm, seconds, load.cores(), load.sent_again)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(measure())


class _Connection:
    """Sends one request at a time, over a TCP connection that is kept, and opened anew where the server has closed it.

    A server may close a kept connection while a request is on its way. Like every HTTP client, this one then sends it
    again, once, on a new connection (RFC 9112, 9.3.1): asking for a class twice does no harm (RFC 9110, 9.2.2).

    `when_free` is called after every answer. No tasks or futures: they would be half of the generator's work.
    """

    def __init__(self, load: _Load, when_free: Callable[["_Connection"], None]) -> None:
        self.load, self._when_free = load, when_free
        self._wire: _Wire | None = None
        self._due: float | None = None  # of the request that waits for its answer
        self._on_its_way: bytes | None = None  # that request, as long as it may be sent again
        self._opening: asyncio.Task[None] | None = None

    async def open(self) -> "_Connection":
        """Connect; if that is refused, the next request tries again."""
        loop, address = asyncio.get_running_loop(), self.load.address
        with contextlib.suppress(OSError):
            _, self._wire = await loop.create_connection(lambda: _Wire(self._end), address.host, address.port)
        return self

    def send(self, *, due: float) -> None:
        """Send the next request."""
        self._due = due
        request = self.load.next_request()
        if self._wire is not None and not self._wire.is_closed:
            self._on_its_way = request
            self._wire.transport.write(request)
        else:
            self._opening = asyncio.create_task(self._send_anew(request))

    async def _send_anew(self, request: bytes) -> None:
        self._wire = None
        await self.open()
        if self._wire is None:
            self._end(REFUSED)
        else:
            self._wire.transport.write(request)

    def close(self) -> None:
        """Close the connection; a request on it has got no answer."""
        if self._wire is not None:
            self._wire.close()
        self._end(UNANSWERED)

    def _end(self, status: int | str) -> None:
        if self._due is None:
            return
        request, self._on_its_way = self._on_its_way, None
        if status == _CLOSED and request is not None:
            self.load.sent_again += 1
            self._opening = asyncio.create_task(self._send_anew(request))
            return
        self.load.add(Answer(LOST if status == _CLOSED else status, self._due, self.load.now()))
        self._due = None
        self._when_free(self)


class _Wire(asyncio.Protocol):
    """A TCP connection; tells the status of every answer, or that it was lost."""

    def __init__(self, tell: Callable[[int | str], None]) -> None:
        self._tell = tell
        self.is_closed = False
        self._received = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, rest = self._received.partition(b"\r\n\r\n")
        if not found:
            return
        first, *lines = head.lower().split(b"\r\n")
        fields = dict(line.split(b": ", 1) for line in lines)
        if len(rest) < int(fields[b"content-length"]):
            return
        self._received = b""
        if fields.get(b"connection") == b"close":
            self.close()
        self._tell(int(first[9:12]))

    def connection_lost(self, error: Exception | None) -> None:
        if not self.is_closed:
            self.close()
            self._tell(LOST if self._received else _CLOSED)

    def close(self) -> None:
        self.is_closed = True
        self.transport.close()
