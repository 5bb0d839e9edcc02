"""The transport of an answer: head and body leave together, and nothing is lost or late when they do not."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from libraries.service.protocol import Connection, Room


class IdleConnection:
    dropped = False

    def drop(self) -> None:
        self.dropped = True


def rested(room: Room, count: int) -> list[IdleConnection]:
    made = [IdleConnection() for _ in range(count)]
    for connection in made:
        room.rest(connection)
    return made


def dropped(connections: list[IdleConnection]) -> list[int]:
    return [number for number, connection in enumerate(connections) if connection.dropped]


def test_the_oldest_idle_one_goes_first() -> None:
    room = Room(4, spare=1)
    connections = rested(room, 4)
    room.work(connections[0])
    room.rest(connections[0])  # now it is the newest
    assert dropped(connections) == []
    connections += rested(room, 2)
    assert dropped(connections) == [1, 2]


def test_those_at_work_stay_and_newcomers_may_say_what_they_want() -> None:
    room = Room(4, spare=2)
    workers = rested(room, 4)
    for connection in workers:
        room.work(connection)
    assert not room.is_full
    newcomers = rested(room, 5)
    assert dropped(workers) == [] and dropped(newcomers) == [0, 1, 2]
    room.work(newcomers[-1])
    assert room.is_full
    room.leave(workers[0])
    assert not room.is_full


def test_who_has_left_takes_no_room() -> None:
    room = Room(2, spare=1)
    for connection in rested(room, 2):
        room.leave(connection)
    assert dropped(rested(room, 2)) == []


HEAD, BODY = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n", b"body"


class Transport:
    """What was done with it, in order."""

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
    """What reaches the transport when this is done with a connection, and the event loop then runs on."""

    async def run() -> list[bytes | str]:
        transport, loop = Transport(), asyncio.get_running_loop()
        protocol = SimpleNamespace(loop=loop, is_whole=True, give=lambda *_: None, seconds_to_close=1.0)
        do(Connection(transport, protocol))  # type: ignore[arg-type]
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


def test_nothing_is_sent_on_a_connection_that_was_lost_meanwhile() -> None:
    def lost(connection: Any) -> None:
        connection.write(HEAD)
        connection.abort()

    assert after(lost) == []
