"""Corrections of a data set by hand: an image gets another label, or a mark that excludes it.

A new label moves the file to that class's folder, under an unused name; a mark moves nothing. Every step is one line of
a log beside the class folders, written before any file moves and never changed: each step can be undone, even after a
restart, and all can be repeated on a fresh copy of the images.
"""

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from filelock import FileLock, Timeout

from libraries.base.errors import InputError, StorageError
from libraries.base.file_system import OnDisk, move, nfc, storage_error
from libraries.base.layout import ANNOTATIONS
from libraries.base.storage import sha256
from libraries.data.annotation_log import (
    MARKS,
    Change,
    History,
    Kind,
    LabelAnswer,
    LogFile,
    Mark,
    Place,
    Step,
)
from libraries.data.class_folders import (
    ClassFolders,
    check_label,
    find_class_folders,
    image_file,
    in_pool,
    pool_of,
    pooled,
    within_pool,
)

_PATIENCE = 10.0  # seconds to wait for another notebook's step


@dataclass(frozen=True)
class StepResult:
    """The changes that were made, and for every image that was left as it is, one line that says why."""

    changes: tuple[Change, ...] = ()
    problems: tuple[str, ...] = ()


class Annotations:
    """The annotations of one data set, whose folder is images/<dataset>.

    Attributes:
        history: the steps that led to them.
    """

    def __init__(self, folder: Path) -> None:
        """Read the log; no image is touched.

        Raises:
            StorageError: it cannot be read, or is damaged; names the line.
        """
        self.folder = folder
        self._log = LogFile(folder / ANNOTATIONS)
        self._forms: dict[str, str] = {}  # non-ASCII paths as spelled on disk, by their form C
        self._folders: ClassFolders | None = None
        self.history = History()
        self.refresh()

    @property
    def marks(self) -> dict[str, Mark]:
        """The mark of every image that has one, by its current path."""
        return self.history.state.marks

    @property
    def moved(self) -> dict[str, str]:
        """The current path of every moved image, by its original path."""
        return {first: now for now, first in self.history.state.first.items()}

    @property
    def state(self) -> str | None:
        """Identifies all annotations: equal texts mean equal annotations; None if there are none."""
        return self.history.newest.state if self.history.newest else None

    @property
    def folders(self) -> ClassFolders:
        """The folders of the classes, as they were when the log was last read.

        Raises:
            InputError: see `find_class_folders`.
        """
        if self._folders is None:
            self._folders = find_class_folders(self.folder)
        return self._folders

    @property
    def can_undo(self) -> bool:
        return bool(self.history.done)

    @property
    def can_redo(self) -> bool:
        return bool(self.history.undone)

    def file(self, path: str) -> Path:
        """The file of the image at a path."""
        return image_file(self.folder, path)

    def spelled(self, path: str) -> str:
        """A path, given in any form of Unicode, as spelled on this disk if the log has it."""
        return self._forms.get(nfc(path), path)

    def first_path(self, path: str) -> str:
        """The original path of the image that is now at `path`."""
        return self.history.state.first.get(path, path)

    def moves_since(self, state: str | None) -> dict[str, str]:
        """The current path of every image that has moved since the annotations had a state, by its path then."""
        return self.history.moves_after(self.history.steps_to(state))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Make steps one at a time, across notebooks and scripts, starting from the log as it is now.

        Raises:
            StorageError: another step takes too long, or a file cannot be written.
        """
        try:
            with FileLock(self.folder / f".{ANNOTATIONS}.lock", timeout=_PATIENCE):
                self.refresh()
                yield
        except Timeout as error:
            raise StorageError(
                f"{self._log.path} has been in use by another notebook or script for {_PATIENCE:.0f} s: "
                "try again, or close that one"
            ) from error
        except OSError as error:
            raise storage_error(error, self._log.path) from error

    def relabel(self, paths: Sequence[str], label: str) -> StepResult:
        """Move images to another class, whose folder exists; sub-folders inside the class, and the split, stay.

        Raises:
            InputError: there is no such class.
            StorageError: the log cannot be written; nothing has changed.
        """
        label = check_label(label)
        with self.locked():
            if label not in self.folders.by_label:
                raise InputError(f"{self.folder} has no folder '{label}': create it, and open the data set again")
            taken: set[str] = set()
            changes = [self._labelled(path, label, taken) for path in paths if self.folders.label(path) != label]
            return self._carry_out("change", changes)

    def mark(self, paths: Sequence[str], mark: Mark | None, *, drawn: Collection[str] = ()) -> StepResult:
        """Mark images, or remove their marks.

        Args:
            drawn: those of the images that were drawn at random.

        Raises:
            InputError: there is no such mark.
            StorageError: the log cannot be written; nothing has changed.
        """
        if mark not in (None, *MARKS):
            raise InputError(f"there is no mark {mark!r:.50}: choose from {', '.join(MARKS)}")
        with self.locked():
            places = [Place(path, self.marks.get(path)) for path in paths]
            changes = [
                Change(old, Place(old.path, mark), drawn=old.path in drawn) for old in places if old.mark != mark
            ]
            return self._carry_out("change", changes)

    def decide(self, labels: Mapping[str, str], *, drawn: Collection[str] = ()) -> StepResult:
        """Give images labels, in one step; those that have theirs are confirmed, and stay as they are.

        So do images of the pool that are given none: nobody is asked about them again.

        Args:
            labels: of classes, by current path; empty: none.
            drawn: those of the images that were drawn at random.

        Raises:
            StorageError: the log cannot be written; nothing has changed.
        """
        with self.locked():
            known = {
                path: label
                for path, label in labels.items()
                if label in self.folders.by_label or label == self.folders.label(path)
            }
            taken: set[str] = set()
            planned = [
                self._labelled(path, label, taken)._replace(drawn=path in drawn) for path, label in known.items()
            ]
            result = self._carry_out("change", planned)
        unknown = sorted({label for path, label in labels.items() if path not in known})
        told = [f"{self.folder} has no folder '{label}': create it, and open the data set again" for label in unknown]
        return StepResult(result.changes, (*result.problems, *told))

    def undo(self) -> StepResult:
        """Revert the newest step in effect, if there is one."""
        with self.locked():
            return self._invert("undo", self.history.done)

    def redo(self) -> StepResult:
        """Repeat the step that was undone last; after another change there is none."""
        with self.locked():
            return self._invert("redo", self.history.undone)

    def apply_answers(self, answers: Mapping[str, LabelAnswer], *, source: str) -> StepResult:
        """Change labels and marks as people answered, in one step for each label and mark; all can be undone.

        Images keep their side of a split that is on disk. The newest decision wins: whatever was decided after an
        answer, by hand or by a newer answer, stays. An answer without a time counts as old as the first import of its
        source, so that importing it again changes nothing.

        Args:
            answers: by current path; the folders of their labels exist.
            source: SHA-256 of the file with the answers.

        Raises:
            StorageError: the log cannot be written; the steps in it are done, and running again continues.
        """
        changes: list[Change] = []
        problems: list[str] = []
        with self.locked():
            now = datetime.now(UTC)
            latest = self.history.first_from(source) or now
            due: dict[str, dict[str, datetime]] = {}  # time by path, by choice
            for path, (choice, said) in answers.items():
                time, known = min(said or latest, latest), self.history.state.said.get(path)
                if known is None or time > known:
                    due.setdefault(choice, {})[path] = time
                elif choice != (self.marks.get(path) or self.folders.label(path)):
                    problems.append(
                        f"{path}: the answer '{choice}' is older than the last change, at {known:%Y-%m-%d %H:%M} UTC"
                    )
            confirmed: list[Change] = []
            for choice in sorted(due):
                planned = self._planned(choice, due[choice])
                confirmed += [change for change in planned if change.before == change.after]
                outcome = self._carry_out(
                    "change", [c for c in planned if c.before != c.after], source=source, time=now
                )
                changes += outcome.changes
                problems += outcome.problems
            problems += self._carry_out("answers", confirmed, source=source, time=now).problems
        return StepResult(tuple(changes), tuple(problems))

    def _planned(self, choice: str, times: Mapping[str, datetime]) -> list[Change]:
        """The changes that give images a label, removing their marks, or a mark.

        Args:
            choice: a label or a mark.
            times: of the answers, by path.
        """
        mark = next((mark for mark in MARKS if mark == choice), None)
        taken: set[str] = set()
        changes = []
        for path, time in times.items():
            old, new = self._labelled(path, choice if mark is None else self.folders.label(path), taken)[:2]
            changes.append(Change(old, Place(new.path, mark), said=time))
        return changes

    def _labelled(self, path: str, label: str, taken: set[str]) -> Change:
        """The change that gives an image a label: none, if it has that one.

        Args:
            taken: paths of others in the same step.
        """
        old = Place(path, self.marks.get(path))
        moves = self.folders.label(path) != label
        return Change(old, self._free(old, self.folders.under(label, path), taken) if moves else old)

    def pending(self) -> dict[str, str]:
        """Moves that are in the log but were not made in the folder: where the file is → where it should be.

        This happens after the images were copied again, to their original paths, or after a process was killed between
        logging a step and moving its files. Where one image has had the path of another, their contents decide.
        """
        newest = self.history.newest.changes if self.history.newest else ()
        due = self.moved | {change.before.path: change.after.path for change in newest if change.is_move}
        targets = Counter(due.values())

        def is_pending(old: str, new: str) -> bool:
            if not self.file(old).exists():
                return False
            if not self._is_free(new) and (new not in due or self._is_there(new, of=new)):
                return False
            return old not in targets or self._is_there(old, of=new)

        return {old: new for old, new in due.items() if is_pending(old, new)}

    def summary_lines(self) -> list[str]:
        """Lines about marks and pending moves, for steps that read the images."""
        marks = Counter(mark for path, mark in self.marks.items() if not in_pool(path))
        lines = [f"left out: {count:,} marked {mark}" for mark, count in marks.items()]
        if pending := self.pending():
            lines.append(
                f"Warning: {len(pending):,} labels changed by hand are not in the folders: see showImages.ipynb"
            )
        return lines

    def replay(self) -> StepResult:
        """Make the pending moves. A file stays where it is if its content is not that of the moved image."""
        changes, problems = [], []
        with self.locked():
            pending, aside = self.pending(), dict[str, str]()
            while pending:
                old = next((old for old, new in pending.items() if self._is_free(new)), next(iter(pending)))
                new, source = pending.pop(old), self.file(aside.get(old, old))
                try:
                    if not self._is_there(aside.get(old, old), of=new):
                        problems.append(f"{old} is not moved: it is not the image that belongs at {new}")
                    elif self._is_free(new):
                        self.file(new).unlink(missing_ok=True)
                        move(source, self.file(new))
                        changes.append(Change(Place(old, None), Place(new, self.marks.get(new))))
                    elif new in pending:  # images that swap places: one is moved aside first
                        aside[old] = self._free(Place(new, None), new, set()).path
                        move(source, self.file(aside[old]))
                        pending[old] = new
                    else:
                        problems.append(f"{old} is not moved: another file is at {new}, where it belongs")
                except OSError as error:
                    problems.append(_left(old, error))
        return StepResult(tuple(changes), tuple(problems))

    def _is_there(self, path: str, *, of: str) -> bool:
        """Whether the file at a path is, by its content, the image that was last moved to `of`."""
        try:
            return sha256(self.file(path)) == self.history.sha256.get(of)
        except OSError:
            return False

    def _is_free(self, path: str) -> bool:
        """Whether there is no file, or only the empty one by which `move` reserves a name."""
        try:
            return self.file(path).stat().st_size == 0
        except OSError:
            return True

    def refresh(self) -> None:
        """Read what another notebook has added to the log.

        Raises:
            StorageError: it cannot be read, or is damaged; names the line.
        """
        self._folders, images, pool = None, OnDisk(self.folder), OnDisk(pool_of(self.folder))

        def on_disk(path: str) -> str:
            return pooled(pool(within_pool(path))) if in_pool(path) else images(path)

        for step in self._log.read_new():
            self.history.take(self._as_on_disk(step, on_disk))

    def _as_on_disk(self, step: Step, on_disk: Callable[[str], str]) -> Step:
        """A step with its paths spelled as on this disk, whatever form of Unicode the log has."""

        def spelled(place: Place) -> Place:
            path = place.path
            if path.isascii():
                return place
            here = on_disk(path)
            if os.path.lexists(self.file(here)):
                self._forms[nfc(path)] = here
            return place._replace(path=self._forms.setdefault(nfc(path), here))

        changes = (each._replace(before=spelled(each.before), after=spelled(each.after)) for each in step.changes)
        return step._replace(changes=tuple(changes))

    def _invert(self, kind: Literal["undo", "redo"], steps: Sequence[Step]) -> StepResult:
        if not steps:
            return StepResult()
        taken: set[str] = set()
        changes = [change.inverse() for change in reversed(steps[-1].changes)]
        return self._carry_out(
            kind,
            [c._replace(after=self._free(c.after, c.after.path, taken)) if c.is_move else c for c in changes],
        )

    def _free(self, place: Place, new: str, taken: set[str]) -> Place:
        """The place of an image under a new path or, if that is taken, a numbered one."""
        path, number = wanted, _ = PurePosixPath(new), 1
        while _without_case(path) in taken or os.path.lexists(self.file(path.as_posix())):
            number += 1
            path = wanted.with_name(f"{wanted.stem}-{number}{wanted.suffix}")
        taken.add(_without_case(path))
        return Place(path.as_posix(), place.mark)

    def _carry_out(self, kind: Kind, planned: Sequence[Change], **facts: Any) -> StepResult:
        """Log a step, then move its files; images that are missing or cannot be moved are left out.

        Args:
            facts: the step's source and time, for the log.
        """
        changes, made, problems = [], [], []
        for change in planned:
            try:
                changes.append(change._replace(sha256=_identity(self.file(change.before.path), change)))
            except OSError as error:
                problems.append(_left(change.before.path, error))
        if not changes and kind in ("change", "answers"):
            return StepResult((), tuple(problems))
        before = {change.before.path: self.history.state.said.get(change.before.path) for change in changes}
        self._append(kind, changes, **facts)
        for change in changes:
            try:
                if change.is_move:
                    move(self.file(change.before.path), self.file(change.after.path))
                made.append(change)
            except OSError as error:
                problems.append(_left(change.before.path, error))
        if len(made) < len(changes):
            failed = [change for change in changes if change not in made]
            self._append("failure", [each.inverse()._replace(said=before[each.before.path]) for each in failed])
        return StepResult(tuple(made), tuple(problems))

    def _append(
        self, kind: Kind, changes: Sequence[Change], *, source: str | None = None, time: datetime | None = None
    ) -> None:
        """Write a step to the log, then add it to the history."""
        state = self.history.state.after(changes).digest()
        step = Step(kind, tuple(changes), state, time or datetime.now(UTC), source)
        self._log.append(step)
        self.history.take(step)


def _without_case(path: PurePosixPath) -> str:
    """A key that is equal for paths that Windows or macOS do not distinguish."""
    return nfc(path.as_posix()).casefold()


def _identity(path: Path, change: Change) -> str | None:
    """SHA-256 of a file that is to be moved, by which `replay` recognises it; None if it stays."""
    if not change.is_move:
        path.stat()
        return None
    if path.is_symlink() and not path.readlink().is_absolute():
        raise OSError(None, "it is a relative link, which would break")
    return sha256(path)


def _left(path: str, error: OSError) -> str:
    return f"{path} is left as it is: {error.strerror or error}"
