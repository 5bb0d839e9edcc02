"""The transport: head and body are sent together, in order, and nothing is lost. And the limit on connections."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from libraries.service.protocol import ConnectionLimiter, ResponseTransport


class IdleConnection:
    dropped = False

    def drop(self) -> None:
        self.dropped = True


def made_idle(limiter: ConnectionLimiter, count: int) -> list[IdleConnection]:
    made = [IdleConnection() for _ in range(count)]
    for connection in made:
        limiter.mark_idle(connection)
    return made


def dropped(connections: list[IdleConnection]) -> list[int]:
    return [number for number, connection in enumerate(connections) if connection.dropped]


def test_the_oldest_idle_one_goes_first() -> None:
    limiter = ConnectionLimiter(4, spare=1)
    connections = made_idle(limiter, 4)
    limiter.mark_active(connections[0])
    limiter.mark_idle(connections[0])  # now it is the newest
    assert dropped(connections) == []
    connections += made_idle(limiter, 2)
    assert dropped(connections) == [1, 2]


def test_active_connections_stay_and_newcomers_can_send_a_request() -> None:
    limiter = ConnectionLimiter(4, spare=2)
    workers = made_idle(limiter, 4)
    for connection in workers:
        limiter.mark_active(connection)
    assert not limiter.is_full
    newcomers = made_idle(limiter, 5)
    assert dropped(workers) == [] and dropped(newcomers) == [0, 1, 2]
    limiter.mark_active(newcomers[-1])
    assert limiter.is_full
    limiter.remove(workers[0])
    assert not limiter.is_full


def test_removed_connections_do_not_count() -> None:
    limiter = ConnectionLimiter(2, spare=1)
    for connection in made_idle(limiter, 2):
        limiter.remove(connection)
    assert dropped(made_idle(limiter, 2)) == []


HEAD, BODY = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n", b"body"


class Transport:
    """Records the calls, in order."""

    def __init__(self) -> None:
        self.done: list[bytes | str] = []
        self.is_closed = False

    def write(self, data: bytes) -> None:
        self.done.append(data)

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True
        self.done.append("close")

    def abort(self) -> None:
        self.is_closed = True


def after(do: Callable[[Any], None]) -> list[bytes | str]:
    """What reaches the transport when `do` is called with a connection and the event loop runs on."""

    async def run() -> list[bytes | str]:
        transport, loop = Transport(), asyncio.get_running_loop()
        protocol = SimpleNamespace(loop=loop, is_complete=True, end_after=lambda *_: None, seconds_to_close=1.0)
        do(ResponseTransport(transport, protocol))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        return transport.done

    return asyncio.run(run())


def writes(*parts: bytes) -> Callable[[Any], None]:
    return lambda connection: [connection.write(part) for part in parts]  # type: ignore[return-value]


def test_head_and_body_leave_together() -> None:
    assert after(writes(HEAD, BODY)) == [HEAD + BODY]


def test_what_follows_is_sent_as_it_comes() -> None:
    assert after(writes(HEAD, BODY, BODY, BODY)) == [HEAD + BODY, BODY, BODY]


def test_head_alone_waits_for_nothing() -> None:
    assert after(writes(HEAD)) == [HEAD]


def test_answers_keep_their_order() -> None:
    assert after(writes(HEAD, HEAD, BODY)) == [HEAD + HEAD, BODY]


def test_head_is_sent_before_the_end() -> None:
    def head_and_end(connection: Any) -> None:
        connection.write(HEAD)
        connection.close()
        connection.write(BODY)

    assert after(head_and_end) == [HEAD, "close"]


def test_nothing_is_sent_on_a_lost_connection() -> None:
    def lost(connection: Any) -> None:
        connection.write(HEAD)
        connection.abort()

    assert after(lost) == []
