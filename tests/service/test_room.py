"""Which connection makes room for another."""

from libraries.service.room import Room


class Connection:
    dropped = False

    def drop(self) -> None:
        self.dropped = True


def rested(room: Room, count: int) -> list[Connection]:
    made = [Connection() for _ in range(count)]
    for connection in made:
        room.rest(connection)
    return made


def dropped(connections: list[Connection]) -> list[int]:
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
