"""Corrections of a data set by hand: an image gets another label, or a mark that keeps it out.

Another label moves the file to that class's folder, under a free name; a mark moves nothing. Every step is one line of
a log beside the class folders, written before the files are touched and only ever appended to: each step can be undone,
also after a restart, and all can be made again on a fresh copy of the images.
"""

import contextlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from filelock import FileLock, Timeout

from libraries.base.errors import InputError, StorageError
from libraries.base.layout import ANNOTATIONS
from libraries.base.names import OnDisk, nfc
from libraries.base.storage import move, sha256, storage_error
from libraries.data.annotation_log import Change, Kind, Mark, Place, State, Step, from_line, to_line
from libraries.data.class_folders import ClassFolders, find_class_folders
from libraries.data.labels import check_label

_PATIENCE = 10.0  # seconds that a step waits for one of another notebook


@dataclass(frozen=True)
class Outcome:
    """The changes that were made, and for every image that was left as it is one line that says why."""

    changes: tuple[Change, ...] = ()
    problems: tuple[str, ...] = ()


class Annotations:
    """The annotations of one data set, whose folder is images/<dataset>."""

    def __init__(self, folder: Path) -> None:
        """Read the log; no file is touched.

        Raises:
            StorageError: it cannot be read, or is damaged; names the line.
        """
        self.folder = folder
        self._log = folder / ANNOTATIONS
        self._bytes = self._lines = 0  # of the log, that are taken in
        self._state = State()
        self._done: list[Step] = []  # what can be undone
        self._undone: list[Step] = []  # what can be redone
        self._steps: list[Step] = []
        self._forms: dict[str, str] = {}  # paths that are not ASCII, as they stand on disk, by their form C
        self._folders: ClassFolders | None = None
        self.refresh()

    @property
    def marks(self) -> dict[str, Mark]:
        """The mark of every image that has one, by its present path."""
        return self._state.marks

    @property
    def moved(self) -> dict[str, str]:
        """The present path of every image that is not where it was, by its first path."""
        return {first: now for now, first in self._state.first.items()}

    @property
    def state(self) -> str | None:
        """What stands for all of them: equal texts, equal annotations; None where there are none."""
        return self._steps[-1].state if self._steps else None

    @property
    def folders(self) -> ClassFolders:
        """The folders of the classes, as they were when the log was last read.

        Raises:
            InputError: they cannot be told; see `find_class_folders`.
        """
        if self._folders is None:
            self._folders = find_class_folders(self.folder)
        return self._folders

    @property
    def can_undo(self) -> bool:
        return bool(self._done)

    @property
    def can_redo(self) -> bool:
        return bool(self._undone)

    def first_path(self, path: str) -> str:
        """Where the image that is now at `path` was before any annotation."""
        return self._state.first.get(path, path)

    def moves_since(self, state: str | None) -> dict[str, str]:
        """The present path of every image that has moved since the annotations were in a state, by its path then."""
        then = max((i + 1 for i, step in enumerate(self._steps) if step.state == state), default=0)
        now: dict[str, str] = {}  # by path before the steps that are already gone through, the newest first
        for step in reversed(self._steps[then:]):
            for before, after, _ in reversed(step.changes):
                if before.path != after.path:
                    now[before.path] = now.pop(after.path, after.path)
        return {path: present for path, present in now.items() if path != present}

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One step at a time, also between notebooks and scripts, from what the log says now.

        Raises:
            StorageError: another one takes too long, or a file cannot be written.
        """
        try:
            with FileLock(self.folder / f".{ANNOTATIONS}.lock", timeout=_PATIENCE):
                self.refresh()
                yield
        except Timeout as error:
            raise StorageError(
                f"{self._log} is in use by another notebook or script for {_PATIENCE:.0f} s: try again, or end that one"
            ) from error
        except OSError as error:
            raise storage_error(error, self._log) from error

    def relabel(self, paths: Sequence[str], label: str) -> Outcome:
        """Move images to another class, whose folder exists; sub-folders inside the class, and the split, stay.

        Raises:
            InputError: there is no such class.
            StorageError: the log cannot be written; nothing has changed.
        """
        label = check_label(label)
        with self.locked():
            if label not in self.folders.of:
                raise InputError(f"{self.folder} has no folder '{label}': make it, and open the data set again")
            taken: set[str] = set()
            places = [Place(path, self.marks.get(path)) for path in paths if self.folders.label(path) != label]
            return self._carry_out(
                "change", [Change(old, self._free(old, self.folders.under(label, old.path), taken)) for old in places]
            )

    def mark(self, paths: Sequence[str], mark: Mark | None) -> Outcome:
        """Mark images, or take their marks away.

        Raises:
            StorageError: the log cannot be written; nothing has changed.
        """
        with self.locked():
            places = [Place(path, self.marks.get(path)) for path in paths]
            return self._carry_out("change", [Change(old, Place(old.path, mark)) for old in places if old.mark != mark])

    def undo(self) -> Outcome:
        """Take back the newest step that stands; where there is none, nothing is done."""
        with self.locked():
            return self._invert("undo", self._done)

    def redo(self) -> Outcome:
        """Make again what was undone last; after another change there is nothing to redo."""
        with self.locked():
            return self._invert("redo", self._undone)

    def pending(self) -> dict[str, str]:
        """Moves that stand in the log but not in the folder: where the file is → where it should be.

        So it is after the images were copied anew, when all are at their first paths, and after a process was killed
        between its line in the log and the moves of that step.
        """
        newest = self._steps[-1].changes if self._steps else ()
        due = self.moved | {change.before.path: change.after.path for change in newest if change.is_move}
        return {old: new for old, new in due.items() if self._is_free(new) and (self.folder / old).exists()}

    def told(self) -> list[str]:
        """What a step that reads the images has to tell of marks and pending moves, in lines."""
        told = [f"left out: {count:,} marked {mark}" for mark, count in Counter(self.marks.values()).items()]
        if pending := self.pending():
            told.append(
                f"Warning: {len(pending):,} labels changed by hand are not in the folders: see showImages.ipynb"
            )
        return told

    def replay(self) -> Outcome:
        """Make the pending moves. A file that is not the one that was moved then stays where it is."""
        changes, problems = [], []
        with self.locked():
            moves = (change for step in self._steps for change in step.changes if change.is_move)
            identities = {change.after.path: change.sha256 for change in moves}
            for old, new in self.pending().items():
                source, target = self.folder / old, self.folder / new
                try:
                    if sha256(source) != identities[new]:
                        problems.append(f"{old} is left there: it is not the image that was moved to {new}")
                        continue
                    target.unlink(missing_ok=True)
                    move(source, target)
                    changes.append(Change(Place(old, None), Place(new, self.marks.get(new))))
                except OSError as error:
                    problems.append(_left(old, error))
        return Outcome(tuple(changes), tuple(problems))

    def _is_free(self, path: str) -> bool:
        """Whether there is no file, or only the empty one that `move` begins with."""
        try:
            return (self.folder / path).stat().st_size == 0
        except OSError:
            return True

    def refresh(self) -> None:
        """Take in what another notebook has added to the log.

        Raises:
            StorageError: it cannot be read, or is damaged; names the line.
        """
        self._folders = None
        try:
            with self._log.open("rb") as file:
                file.seek(self._bytes)
                added = file.read()
        except FileNotFoundError:
            return
        except OSError as error:
            raise StorageError(f"{self._log} cannot be read: {error.strerror}") from error
        on_disk = OnDisk(self.folder)
        for line in added.splitlines(keepends=True):
            if not line.endswith(b"\n"):
                break  # a write that did not end: the step was never made
            try:
                step = from_line(line)
            except (ValueError, KeyError, TypeError, InputError) as error:
                raise StorageError(
                    f"{self._log} is damaged in line {self._lines + 1} ({error}): mend the line, or move the file away"
                ) from error
            self._take_in(self._as_on_disk(step, on_disk))
            self._bytes += len(line)
            self._lines += 1

    def _as_on_disk(self, step: Step, on_disk: OnDisk) -> Step:
        """A step with its paths as this disk has them, in whatever form of Unicode the log has."""

        def found(path: str) -> str:
            if path.isascii():
                return path
            here = on_disk(path)
            if os.path.lexists(self.folder / here):
                self._forms[nfc(path)] = here
            return self._forms.setdefault(nfc(path), here)

        changes = (
            change._replace(
                before=change.before._replace(path=found(change.before.path)),
                after=change.after._replace(path=found(change.after.path)),
            )
            for change in step.changes
        )
        return step._replace(changes=tuple(changes))

    def _take_in(self, step: Step) -> None:
        self._steps.append(step)
        self._state.apply(step.changes)
        if step.kind in ("undo", "redo"):
            source, other = (self._done, self._undone) if step.kind == "undo" else (self._undone, self._done)
            if source:
                source.pop()
            other.append(step)
        elif step.kind == "change":
            self._done.append(step)
            self._undone.clear()

    def _invert(self, kind: Literal["undo", "redo"], steps: Sequence[Step]) -> Outcome:
        if not steps:
            return Outcome()
        taken: set[str] = set()
        changes = [change.inverse() for change in reversed(steps[-1].changes)]
        return self._carry_out(
            kind,
            [c._replace(after=self._free(c.after, c.after.path, taken)) if c.is_move else c for c in changes],
        )

    def _free(self, place: Place, new: str, taken: set[str]) -> Place:
        """The place of an image under a new path or, if that is taken, a numbered one."""
        path, number = wanted, _ = PurePosixPath(new), 1
        while path.as_posix() in taken or os.path.lexists(self.folder / path):
            number += 1
            path = wanted.with_name(f"{wanted.stem}-{number}{wanted.suffix}")
        taken.add(path.as_posix())
        return Place(path.as_posix(), place.mark)

    def _carry_out(self, kind: Kind, planned: Sequence[Change]) -> Outcome:
        """Log a step, then move its files; an image that is not there, or cannot be moved, is left out of it."""
        changes, made, problems = [], [], []
        for change in planned:
            try:
                changes.append(change._replace(sha256=_identity(self.folder / change.before.path, change)))
            except OSError as error:
                problems.append(_left(change.before.path, error))
        if not changes and kind == "change":
            return Outcome((), tuple(problems))
        self._append(kind, changes)
        for change in changes:
            try:
                if change.is_move:
                    move(self.folder / change.before.path, self.folder / change.after.path)
                made.append(change)
            except OSError as error:
                problems.append(_left(change.before.path, error))
        if len(made) < len(changes):
            self._append("failure", [change.inverse() for change in changes if change not in made])
        return Outcome(tuple(made), tuple(problems))

    def _append(self, kind: Kind, changes: Sequence[Change]) -> None:
        """Write a step to the log, whole and safe on the disk, or not at all."""
        step = Step(kind, tuple(changes), self._state.after(changes).digest())
        line = to_line(step)
        with self._log.open("ab") as file:
            try:
                file.truncate(self._bytes)  # the rest of a write that did not end
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                with contextlib.suppress(OSError):
                    file.truncate(self._bytes)
                raise
        self._take_in(step)
        self._bytes += len(line)
        self._lines += 1


def _identity(path: Path, change: Change) -> str | None:
    """SHA-256 of a file that is to be moved, by which a replay knows it."""
    if not change.is_move:
        path.stat()
        return None
    if path.is_symlink() and not path.readlink().is_absolute():
        raise OSError(None, "it is a relative link, which would break")
    return sha256(path)


def _left(path: str, error: OSError) -> str:
    return f"{path} is left as it is: {error.strerror or error}"
