"""How many connections a server has, and which of them make room for others."""

from typing import Protocol

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
