"""What the steps in the log of annotations come to, where images were on the way, and what can be undone."""

from bisect import bisect_right
from collections.abc import Sequence
from datetime import UTC, datetime

from libraries.data.annotation_log import State, Step

_LONG_AGO = datetime.min.replace(tzinfo=UTC)


class History:
    """All steps, in their order.

    Attributes:
        state: what they come to.
        done, undone: the steps that can be undone, and redone, the next one last.
        sha256: of the image that was moved to a path last, by path.
    """

    def __init__(self) -> None:
        self.state = State()
        self.done: list[Step] = []
        self.undone: list[Step] = []
        self.sha256: dict[str, str | None] = {}
        self._steps: list[Step] = []
        self._times: list[datetime] = []  # of the latest of these steps so far: a clock can have been set back

    def take(self, step: Step) -> None:
        """Go on by a step."""
        self._steps.append(step)
        self._times.append(max([step.time or _LONG_AGO, *self._times[-1:]]))
        self.state.take(step)
        self.sha256 |= {change.after.path: change.sha256 for change in step.changes if change.is_move}
        if step.kind in ("undo", "redo"):
            source, other = (self.done, self.undone) if step.kind == "undo" else (self.undone, self.done)
            if source:
                source.pop()
            other.append(step)
        elif step.kind == "change":
            self.done.append(step)
            self.undone.clear()

    @property
    def newest(self) -> Step | None:
        return self._steps[-1] if self._steps else None

    def steps_until(self, time: datetime) -> int:
        """How many steps had been made at a time."""
        return bisect_right(self._times, time)

    def steps_to(self, state: str | None) -> int:
        """How many steps had been made when they last came to a state, as `State.digest` tells it."""
        return max((i for i, step in enumerate(self._steps, 1) if step.state == state), default=0)

    def moves_after(self, steps: int) -> dict[str, str]:
        """The present path of every image that has moved since so many steps, by its path then."""
        return _moves(self._steps[steps:])

    def last_at(self, path: str) -> str | None:
        """The present path of the image that a step moved to a path last; None if none did."""
        arrivals = [i for i, step in enumerate(self._steps, 1) if any(c.after.path == path for c in step.changes)]
        return self.moves_after(arrivals[-1]).get(path, path) if arrivals else None

    def first_from(self, source: str) -> datetime | None:
        """When answers in this file were first taken over; None if they never were."""
        return min((step.time for step in self._steps if step.source == source and step.time), default=None)


def _moves(steps: Sequence[Step]) -> dict[str, str]:
    """The path after some steps of every image that they move, by its path before them."""
    found: dict[str, str] = {}  # by path before the steps that are already gone through, the newest first
    for step in reversed(steps):
        for change in reversed(step.changes):
            if change.is_move:
                found[change.before.path] = found.pop(change.after.path, change.after.path)
    return {before: after for before, after in found.items() if before != after}
