"""The annotation log: steps that move and mark images, the state they lead to, and what can be undone.

Each line is a JSON object: time (UTC), kind, changes (of each image path, mark, new path, new mark, and the SHA-256 of
its file if that moves), and the state after it. A line that imports answers given elsewhere also has `said`, the time
of each answer, and `source`, the SHA-256 of the file with the answers; one about images that were drawn at random, to
know how many labels are wrong, has `drawn`, whether each of its images was.
"""

import contextlib
import hashlib
import json
import os
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from libraries.base.errors import InputError, StorageError
from libraries.base.file_system import flush, nfc, open_regular
from libraries.base.layout import MAX_LOG_BYTES, damaged_log, unreadable_log
from libraries.base.text import split_lines
from libraries.data.class_folders import check_label, in_pool

Mark = Literal["ambiguous", "excluded"]
MARKS: tuple[Mark, ...] = ("ambiguous", "excluded")

# 'undo' reverts the newest change or redo in effect, 'redo' the newest undo, 'failure' what could not be done;
# 'answers' changes nothing: it records answers, given elsewhere, that confirm a label or mark; given here, such an
# answer is a 'change' that leaves the image as it is.
Kind = Literal["change", "undo", "redo", "failure", "answers"]
_KINDS: tuple[Kind, ...] = ("change", "undo", "redo", "failure", "answers")
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


class Place(NamedTuple):
    """Where an image is, relative to the data set's folder (see `class_folders`), and how it is marked."""

    path: str
    mark: Mark | None


class Change(NamedTuple):
    """What a step does to one image.

    Attributes:
        sha256: of the file, if it moves.
        said: when the answer was given; None for a change by hand, which has the time of its step.
        drawn: whether the image was drawn at random to be judged.
    """

    before: Place
    after: Place
    sha256: str | None = None
    said: datetime | None = None
    drawn: bool = False

    @property
    def is_move(self) -> bool:
        return self.before.path != self.after.path

    def inverse(self) -> "Change":
        return Change(self.after, self.before, self.sha256, drawn=self.drawn)


class LabelAnswer(NamedTuple):
    """What people chose for an image, a label or a mark, and when (None if unknown)."""

    choice: str
    time: datetime | None = None


class Step(NamedTuple):
    """One line of the log."""

    kind: Kind
    changes: tuple[Change, ...]
    state: str | None = None  # of all annotations after it
    time: datetime | None = None  # None in a line without a time
    source: str | None = None  # SHA-256 of the file with the answers that it imports


@dataclass
class State:
    """The result of all steps."""

    marks: dict[str, Mark] = field(default_factory=dict)  # by current path
    first: dict[str, str] = field(default_factory=dict)  # original path of moved images, by current path
    said: dict[str, datetime] = field(default_factory=dict)  # by current path, when label and mark were last decided
    decisions: Counter[str] = field(default_factory=Counter)  # in effect, on each image, by current path
    _last: int = 0  # what the last step that was no failure did to the decisions: 1, or -1 for an undo

    def take(self, step: Step) -> None:
        """Update to the state after a step."""
        self.apply(step.changes)
        self._last = -self._last if step.kind == "failure" else -1 if step.kind == "undo" else 1
        counts = [self.decisions.pop(change.before.path, 0) for change in step.changes]
        for change, count in zip(step.changes, counts, strict=True):
            takes_back = step.kind == "change" and change.before.mark is not None and change.after.mark is None
            if count := max(0, count + (-1 if takes_back else self._last)):
                self.decisions[change.after.path] = count
        for change in step.changes:
            self.said.pop(change.before.path, None)
            # a failure restores an earlier decision, with its time
            said = change.said if step.kind == "failure" else change.said or step.time
            if said is not None:
                self.said[change.after.path] = said

    @property
    def decided(self) -> Collection[str]:
        """Current paths of the images on which a person has decided, unless that was undone."""
        return self.decisions.keys()

    def apply(self, changes: Iterable[Change]) -> None:
        """Move and mark images."""
        for before, after, *_ in changes:
            self.marks.pop(before.path, None)
            if after.mark is not None:
                self.marks[after.path] = after.mark
            if before.path != after.path:
                first = self.first.pop(before.path, before.path)
                if first != after.path:
                    self.first[after.path] = first

    def after(self, changes: Iterable[Change]) -> "State":
        """A copy with these changes made."""
        new = State(dict(self.marks), dict(self.first))
        new.apply(changes)
        return new

    def digest(self) -> str | None:
        """Identifies the state: how many images are moved and marked, and a hash; None if there are none."""
        first, marks = self.first.items(), self.marks.items()
        content = [sorted((nfc(now), nfc(then)) for now, then in first), sorted((nfc(p), mark) for p, mark in marks)]
        if not any(content):
            return None
        identity = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]
        return f"{len(self.first)} moved, {len(self.marks)} marked, {identity}"


def to_line(step: Step) -> bytes:
    """A step as a line of the log."""
    entry: dict[str, Any] = {
        "time": (step.time or datetime.now(UTC)).isoformat(),
        "kind": step.kind,
        "changes": [[*change.before, *change.after, change.sha256] for change in step.changes],
        "state": step.state,
    }
    if any(change.said for change in step.changes):
        entry["said"] = [change.said and change.said.isoformat() for change in step.changes]
    if step.source is not None:
        entry["source"] = step.source
    if any(change.drawn for change in step.changes):
        entry["drawn"] = [change.drawn for change in step.changes]
    return json.dumps(entry).encode() + b"\n"


def from_line(line: bytes) -> Step:
    """A line of the log, which may come from a stranger, as a step.

    Raises:
        ValueError, KeyError, TypeError, RecursionError, InputError: it is invalid, or a path leaves the data set's
            folder.
    """
    entry: dict[str, Any] = json.loads(line)
    if entry["kind"] not in _KINDS:
        raise ValueError(f"kind {entry['kind']!r:.50}")
    found = entry["changes"]
    if not isinstance(found, list):
        raise ValueError(f"expected a list of changes, found {found!r:.50}")
    said = entry.get("said", [None] * len(found))
    if not isinstance(said, list) or len(said) != len(found):
        raise ValueError(f"expected a time in 'said' for each of {len(found):,} changes, found {said!r:.50}")
    drawn = entry.get("drawn", [False] * len(found))
    if not isinstance(drawn, list) or len(drawn) != len(found) or not all(isinstance(each, bool) for each in drawn):
        raise ValueError(f"expected in 'drawn' whether each of {len(found):,} images was, found {drawn!r:.50}")
    changes = [_change(number, *each) for number, each in enumerate(zip(found, said, drawn, strict=True), 1)]
    state, source = _text(entry["state"], "state"), _text(entry.get("source"), "source")
    if entry["kind"] == "answers" and any(change.is_move for change in changes):
        raise ValueError("answers that move files")
    return Step(entry["kind"], tuple(changes), state, to_time(entry.get("time")), source)


def _change(number: int, value: Any, time: Any, drawn: bool) -> Change:
    """A change of a line; raises ValueError or InputError if it is invalid."""
    if not isinstance(value, list) or len(value) != 5:
        form = "[path, mark, new path, new mark, SHA-256]"
        raise ValueError(f"change {number}: expected {form}, found {value!r:.50}")
    path, mark, new_path, new_mark, digest = value
    return Change(_place(path, mark), _place(new_path, new_mark), _digest(digest), to_time(time), drawn)


def _place(path: Any, mark: Any) -> Place:
    """The place of a file in a class folder or the pool; raises ValueError or InputError if it is invalid."""
    label, *rest = path.split("/") if isinstance(path, str) else ("", "")
    if not (isinstance(path, str) and in_pool(path)):
        check_label(label)
    if not rest or "\0" in path or any(part in ("", ".", "..") or os.sep in part for part in rest):
        raise ValueError(f"path {path!r:.80}")
    if mark not in (None, *MARKS):
        raise ValueError(f"mark {mark!r:.50}")
    return Place(path, mark)


def _digest(value: Any) -> str | None:
    if value is not None and not (isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value)):
        raise ValueError(f"SHA-256 {value!r:.80}")
    return value


def _text(value: Any, name: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name} {value!r:.50}")
    return value


def to_time(value: Any) -> datetime | None:
    """A time in ISO 8601, in UTC if it has no offset; raises ValueError if it is invalid."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError(f"expected a time, found {value!r:.50}")
    time = datetime.fromisoformat(value)
    try:
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except OverflowError as error:  # in year 1 or 9999
        raise ValueError(f"time {value!r}") from error


class LogFile:
    """The annotation log on disk, which is only appended to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._bytes = self._lines = 0  # read so far
        self._is_ended = True  # whether the last of these lines has its ending

    def read_new(self) -> list[Step]:
        """The steps that were added since the last call.

        Raises:
            StorageError: it cannot be read, or is damaged; names the line.
        """
        try:
            with open_regular(self.path) as file:
                if os.fstat(file.fileno()).st_size < self._bytes:
                    raise self._is_another()
                file.seek(self._bytes)
                added = split_lines(file.read(MAX_LOG_BYTES))
        except FileNotFoundError as error:
            if self._bytes:
                raise self._is_another() from error
            return []
        except OSError as error:
            raise unreadable_log(self.path, error) from error
        steps = []
        for number, line in enumerate(added.whole, self._lines + self._is_ended):
            if line.strip():
                try:
                    steps.append(from_line(line))
                except (ValueError, KeyError, TypeError, RecursionError, InputError) as error:
                    raise damaged_log(self.path, number, error) from error
        if added.whole:
            self._lines += len(added.whole) - (not self._is_ended)
            self._bytes += added.length
            self._is_ended = added.is_ended
        return steps

    def _is_another(self) -> StorageError:
        return StorageError(f"{self.path} has been moved away, or replaced: open the data set again")

    def append(self, step: Step) -> None:
        """Append a step and flush it to disk, completely or not at all.

        Raises:
            OSError: it cannot be written.
        """
        line = to_line(step) if self._is_ended else b"\n" + to_line(step)
        from_line(line)  # no line is written that could not be read
        with self.path.open("ab") as file:
            try:
                file.truncate(self._bytes)  # removes the rest of an incomplete write
                file.write(line)
                flush(file)
            except OSError:
                with contextlib.suppress(OSError):
                    file.truncate(self._bytes)
                raise
        self._bytes += len(line)
        self._lines += 1
        self._is_ended = True


class History:
    """All steps, in order.

    Attributes:
        state: their result.
        done, undone: the steps that can be undone and redone, the next one last.
        sha256: of the image last moved to a path, by path.
    """

    def __init__(self) -> None:
        self.state = State()
        self.done: list[Step] = []
        self.undone: list[Step] = []
        self.sha256: dict[str, str | None] = {}
        self._steps: list[Step] = []
        self._times: list[datetime] = []  # the latest time up to each step: a clock may have been set back

    def take(self, step: Step) -> None:
        """Add a step."""
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
    def steps(self) -> int:
        """How many steps there are."""
        return len(self._steps)

    @property
    def newest(self) -> Step | None:
        return self._steps[-1] if self._steps else None

    def steps_until(self, time: datetime) -> int:
        """How many steps had been made by a time."""
        return bisect_right(self._times, time)

    def steps_to(self, state: str | None) -> int:
        """How many steps had been made when they last led to a state, as identified by `State.digest`; 0 if never."""
        return max((i for i, step in enumerate(self._steps, 1) if step.state == state), default=0)

    def moves_after(self, steps: int) -> dict[str, str]:
        """The current path of every image that has moved since the first `steps` steps, by its path then."""
        return _moves(self._steps[steps:])

    def last_at(self, path: str) -> str | None:
        """The current path of the image that was last moved to a path; None if none was."""
        arrivals = [i for i, step in enumerate(self._steps, 1) if any(c.after.path == path for c in step.changes)]
        return self.moves_after(arrivals[-1]).get(path, path) if arrivals else None

    def first_from(self, source: str) -> datetime | None:
        """When answers of this file were first imported; None if never."""
        return min((step.time for step in self._steps if step.source == source and step.time), default=None)


def _moves(steps: Sequence[Step]) -> dict[str, str]:
    """The path of every image that these steps move, after them, by its path before them."""
    last: dict[str, str] = {}  # final path, by path before the steps visited so far, the newest first
    for step in reversed(steps):
        for change in reversed(step.changes):
            if change.is_move:
                last[change.before.path] = last.pop(change.after.path, change.after.path)
    return {before: after for before, after in last.items() if before != after}
