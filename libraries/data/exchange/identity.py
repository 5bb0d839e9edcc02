"""Which image of the data set a task is about, also after it has moved or was removed as a duplicate.

An image is known by its first path, where it was before any annotation, and by the SHA-256 of its file; where both
are told and disagree, the content decides. Tasks that earlier versions wrote tell only where it was at that time, which
the log of annotations leads on from.
"""

from collections import defaultdict
from collections.abc import Collection
from functools import cached_property
from typing import NamedTuple

from libraries.base.names import nfc
from libraries.base.storage import sha256
from libraries.data.annotations import Annotations
from libraries.data.exchange.answers import Task
from libraries.data.removal import REMOVED, read_kept, removed


class Found(NamedTuple):
    """The image of a task.

    Attributes:
        path: where it is now; None if it is not to be found.
        problem: why not.
        is_changed: whether its file is another than when the task was written.
        stands_in: whether the image itself was removed as a duplicate, and this is the one that stayed.
    """

    path: str | None
    problem: str = ""
    is_changed: bool = False
    stands_in: bool = False


class Images:
    """The images of a data set, those removed as duplicates among them."""

    def __init__(self, annotations: Annotations, paths: Collection[str]) -> None:
        """
        Args:
            paths: of the images in the class folders.
        """
        self._annotations = annotations
        self._folder, self._moved = annotations.folder, annotations.moved
        self._paths = set(paths)
        self._removed = set(removed(annotations.folder)) - self._paths
        self._moves_after: dict[int, dict[str, str]] = {}  # by how many steps had been made
        self._kept = read_kept(annotations.folder)
        self._spelling = {nfc(path): path for path in (*self._removed, *self._paths)}

    def find(self, task: Task) -> Found:
        """The image that a task is about."""
        candidates = self._by_path(task)
        same = [path for path in candidates if self._digest(path) == task.sha256]
        if task.sha256 is not None and not same:
            same = self._by_content.get(task.sha256, [])
        if len(same or candidates) > 1:
            what = "are the same file" if same else "have been at this path"
            return Found(None, f"{len(same or candidates)} images {what}")
        if not (same or candidates):
            return Found(None, "there is no such image")
        path = (same or candidates)[0]
        if path in self._removed:
            return self._stand_in(path)
        return Found(path, is_changed=task.sha256 is not None and not same)

    def _stand_in(self, path: str) -> Found:
        """The image that stayed when this one was removed as its duplicate."""
        stayed = [each for each in self._at_some_time(self._kept.get(path, "")) if each in self._paths]
        if len(stayed) != 1:
            return Found(None, "it was removed as a duplicate: bring it back with --restoreDuplicates")
        return Found(stayed[0], stands_in=True)

    def _by_path(self, task: Task) -> list[str]:
        """Where the image may be now, by where it was."""
        path = self._spelled(task.path)
        if task.first_path is not None and (found := self._of_first(self._spelled(task.first_path))):
            return found
        if task.created is not None:
            steps = self._annotations.history.steps_until(task.created)
            if steps not in self._moves_after:  # one for many tasks, which are imported at once
                self._moves_after[steps] = self._annotations.history.moves_after(steps)
            now = self._moves_after[steps].get(path, path)
            if self._exists(now):
                return [now]
        return self._at_some_time(path)

    def _of_first(self, path: str) -> list[str]:
        """The image that was at a path before any annotation; two where another came to it later."""
        moved = [self._moved[path]] if path in self._moved else []
        unmoved = [path] if self._annotations.first_path(path) == path else []
        return [each for each in (*moved, *unmoved) if self._exists(each)]

    def _at_some_time(self, path: str) -> list[str]:
        """The same; where there is none, the image that is at the path now, or was moved there last."""
        path = self._spelled(path)
        others = (
            each for each in (path, self._annotations.history.last_at(path)) if each is not None and self._exists(each)
        )
        return self._of_first(path) or list(others)[:1]

    def _spelled(self, path: str) -> str:
        """A path as it stands on the disk, or did, whatever Unicode's form."""
        return self._spelling.get(nfc(path)) or self._annotations.spelled(path)

    def _exists(self, path: str) -> bool:
        return path in self._paths or path in self._removed

    def _digest(self, path: str) -> str | None:
        try:
            return sha256(self._folder / REMOVED / path if path in self._removed else self._folder / path)
        except OSError:
            return None

    @cached_property
    def _by_content(self) -> dict[str, list[str]]:
        """Paths by SHA-256, those of removed images only where no other has it; reads every file."""
        found: defaultdict[str, list[str]] = defaultdict(list)
        for path in sorted(self._paths):
            found[self._digest(path) or ""].append(path)
        left = {path: self._digest(path) or "" for path in sorted(self._removed)}
        return {**{digest: [path] for path, digest in left.items()}, **found}
