"""What stands in the log of annotations: steps that move and mark images, and what they come to.

Each line is a JSON object: time (UTC), kind, changes (of each image path, mark, new path, new mark, and the SHA-256 of
its file if that moves), and the state after it.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from libraries.base.names import nfc
from libraries.data.labels import check_label

Mark = Literal["ambiguous", "excluded"]
MARKS: tuple[Mark, ...] = ("ambiguous", "excluded")


class Place(NamedTuple):
    """Where an image is, relative to the data set's folder, and how it is marked."""

    path: str
    mark: Mark | None


class Change(NamedTuple):
    """What a step does to one image. `sha256` is of the file, where it moves."""

    before: Place
    after: Place
    sha256: str | None = None

    @property
    def is_move(self) -> bool:
        return self.before.path != self.after.path

    def inverse(self) -> "Change":
        return Change(self.after, self.before, self.sha256)


# 'undo' takes back the newest change or redo that stands, 'redo' the newest undo; 'failure' what could not be done.
Kind = Literal["change", "undo", "redo", "failure"]


class Step(NamedTuple):
    """One line of the log."""

    kind: Kind
    changes: tuple[Change, ...]
    state: str | None = None  # of all annotations after it


@dataclass
class State:
    """What all steps come to."""

    marks: dict[str, Mark] = field(default_factory=dict)  # by present path
    first: dict[str, str] = field(default_factory=dict)  # first path by present path, of images that moved

    def apply(self, changes: Iterable[Change]) -> None:
        for before, after, _ in changes:
            self.marks.pop(before.path, None)
            if after.mark is not None:
                self.marks[after.path] = after.mark
            if before.path != after.path:
                first = self.first.pop(before.path, before.path)
                if first != after.path:
                    self.first[after.path] = first

    def after(self, changes: Iterable[Change]) -> "State":
        """A copy, with changes made."""
        new = State(dict(self.marks), dict(self.first))
        new.apply(changes)
        return new

    def digest(self) -> str | None:
        """How many images are moved and marked, and a hash of all that; None where there are none."""
        first, marks = self.first.items(), self.marks.items()
        content = [sorted((nfc(now), nfc(then)) for now, then in first), sorted((nfc(p), mark) for p, mark in marks)]
        if not any(content):
            return None
        identity = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]
        return f"{len(self.first)} moved, {len(self.marks)} marked, {identity}"


def to_line(step: Step) -> bytes:
    """A step as a line of the log."""
    entry = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "kind": step.kind,
        "changes": [[*change.before, *change.after, change.sha256] for change in step.changes],
        "state": step.state,
    }
    return json.dumps(entry).encode() + b"\n"


def from_line(line: bytes) -> Step:
    """A line of the log, which may come from a stranger, as a step.

    Raises:
        ValueError, KeyError, TypeError, InputError: it is none; paths that leave the data set's folder are refused.
    """
    entry: dict[str, Any] = json.loads(line)
    if entry["kind"] not in ("change", "undo", "redo", "failure"):
        raise ValueError(f"kind {entry['kind']!r}")
    changes = []
    for path, mark, new_path, new_mark, digest in entry["changes"]:
        for each in (path, new_path):
            if not isinstance(each, str):
                raise ValueError(f"path {each!r}")
            label, *rest = each.split("/")
            check_label(label)
            if not rest or "\0" in each or any(part in ("", ".", "..") or os.sep in part for part in rest):
                raise ValueError(f"path {each!r}")
        for each in (mark, new_mark):
            if each not in (None, *MARKS):
                raise ValueError(f"mark {each!r}")
        changes.append(Change(Place(path, mark), Place(new_path, new_mark), digest))
    return Step(entry["kind"], tuple(changes), entry["state"])
