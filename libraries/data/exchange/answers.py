"""Answers from Label Studio, and the images they are about, even if these have moved or were removed as duplicates.

The export is JSON or JSON-MIN, and may come from a stranger. Format: https://labelstud.io/guide/export
"""

import json
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from libraries.base.errors import InputError, MissingInput
from libraries.base.file_system import nfc, read_regular
from libraries.base.storage import MAX_JSON_BYTES, sha256
from libraries.base.text import as_text
from libraries.data.annotation_log import to_time
from libraries.data.annotations import Annotations
from libraries.data.class_folders import pooled
from libraries.data.removal import REMOVED, read_kept, removed

LOCAL = "/data/local-files/"  # Label Studio's path of files on its own machine
_EXPECTED = 'expected {"data": {"image": …}, "annotations": […]}, or the same in JSON-MIN'
_MOST_SHOWN = 200  # characters of a stranger's text


@dataclass(frozen=True)
class Task:
    """One image in Label Studio, with what each person has chosen for it.

    Attributes:
        number: Label Studio's number of the task; in JSON-MIN each choice is an entry of its own.
        path: of the image when the tasks were written.
        first_path, sha256: its original path, and the hash of its file then; None in tasks of earlier versions.
        created: when the tasks were imported into Label Studio.
        choices: of all people who did not skip the task.
        time: of the latest choice.
    """

    number: str
    path: str
    first_path: str | None
    sha256: str | None
    created: datetime | None
    choices: tuple[str, ...]
    time: datetime | None


def read_tasks(export: Path, *, dataset: str) -> tuple[list[Task], bytes]:
    """The tasks of an export that have answers, and the content of the file.

    Raises:
        MissingInput: there is no such file.
        InputError: it cannot be read, or is not such an export; names the task.
    """
    where = ""
    try:
        content = read_regular(export, most=MAX_JSON_BYTES)
    except FileNotFoundError:
        raise MissingInput(f"the export of Label Studio {export} does not exist") from None
    except OSError as error:
        raise InputError(f"the export of Label Studio {export} cannot be read: {error.strerror}") from error
    try:
        entries = json.loads(as_text(content, export))
        if not isinstance(entries, list):
            raise ValueError("it is not a list of tasks")
        tasks = []
        for i, entry in enumerate(entries, 1):
            where = f"task {i}: "
            tasks.append(_task(entry, dataset))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else error if isinstance(error, ValueError) else _EXPECTED
        raise InputError(
            f"{export} is not an export of Label Studio in JSON ({where}{what}): export the project again"
        ) from error
    return [task for task in tasks if task.choices], content


def _task(entry: Any, dataset: str) -> Task:
    data = entry.get("data", entry)  # JSON-MIN has all in one object
    given = list(_annotations(entry))
    times = [time for _, time in given if time is not None]
    return Task(
        str(entry.get("id")),
        _path(data, dataset),
        _text(data, "first_path"),
        _text(data, "sha256"),
        to_time(entry.get("created_at")) if "annotations" in entry else None,  # JSON-MIN has that of the choice here
        tuple(choice for choice, _ in given),
        max(times, default=None),
    )


def _path(data: dict[str, Any], dataset: str) -> str:
    """The image that a task is about."""
    if (path := _text(data, "path")) is not None:
        return path
    parts = urlsplit(data["image"])
    path = str(parse_qs(parts.query)["d"][0] if parts.path == LOCAL else parts.path)
    top, _, inside = path.partition("/")
    if nfc(top) == nfc(f"{dataset}.pool"):
        return pooled(inside)
    return inside if nfc(top) == nfc(dataset) else path


def _text(data: dict[str, Any], name: str) -> str | None:
    value = data.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name} is not a text")
    return value


def _annotations(entry: dict[str, Any]) -> Iterator[tuple[str, datetime | None]]:
    """Yield what each person has chosen, and when."""
    if "annotations" not in entry:
        label = entry.get("label")
        if label is not None:
            yield _choice(label["choices"][:1] if isinstance(label, dict) else [label]), _time(entry)
        return
    for annotation in entry["annotations"]:
        if not annotation.get("was_cancelled"):
            for result in annotation["result"]:
                if result["type"] == "choices" and result["from_name"] == "label" and result["value"]["choices"]:
                    yield _choice(result["value"]["choices"]), _time(annotation)


def _choice(chosen: list[Any]) -> str:
    if not isinstance(chosen[0], str):
        raise ValueError("a choice is not a text")
    return chosen[0]


def _time(annotation: dict[str, Any]) -> datetime | None:
    return to_time(annotation.get("updated_at") or annotation.get("created_at"))


def shown(text: str) -> str:
    """A stranger's text, made safe for a line on the console: no control characters, not too long."""
    text = text if len(text) <= _MOST_SHOWN else text[:_MOST_SHOWN] + "…"
    return text if text.isprintable() else repr(text)


class ImageOfTask(NamedTuple):
    """The image of a task.

    Attributes:
        path: its current path; None if it cannot be found.
        problem: why not.
        is_changed: whether its file has changed since the task was written.
        stands_in: whether the image itself was removed as a duplicate, and this is the one that stayed.
    """

    path: str | None
    problem: str = ""
    is_changed: bool = False
    stands_in: bool = False


class Images:
    """The images of a data set, including those removed as duplicates."""

    def __init__(self, annotations: Annotations, paths: Collection[str]) -> None:
        """
        Args:
            paths: of the images in the class folders and in the pool.
        """
        self._annotations = annotations
        self._folder, self._moved = annotations.folder, annotations.moved
        self._paths = set(paths)
        self._removed = set(removed(annotations.folder)) - self._paths
        self._moves_after: dict[int, dict[str, str]] = {}  # by the number of steps before them
        self._kept = read_kept(annotations.folder)
        self._spelling = {nfc(path): path for path in (*self._removed, *self._paths)}

    def find(self, task: Task) -> ImageOfTask:
        """The image that a task is about."""
        candidates = self._by_path(task)
        same = [path for path in candidates if self._digest(path) == task.sha256]
        if task.sha256 is not None and not same:
            same = self._by_content.get(task.sha256, [])
        if len(same or candidates) > 1:
            what = "are the same file" if same else "have been at this path"
            return ImageOfTask(None, f"{len(same or candidates)} images {what}")
        if not (same or candidates):
            return ImageOfTask(None, "there is no such image")
        path = (same or candidates)[0]
        if path in self._removed:
            return self._stand_in(path)
        return ImageOfTask(path, is_changed=task.sha256 is not None and not same)

    def _stand_in(self, path: str) -> ImageOfTask:
        """The image that stayed when this one was removed as its duplicate."""
        stayed = [each for each in self._at_some_time(self._kept.get(path, "")) if each in self._paths]
        if len(stayed) != 1:
            return ImageOfTask(None, "it was removed as a duplicate: bring it back with --restoreDuplicates")
        return ImageOfTask(stayed[0], stands_in=True)

    def _by_path(self, task: Task) -> list[str]:
        """Where the image may be now, by where it was."""
        path = self._spelled(task.path)
        if task.first_path is not None and (now_at := self._of_first(self._spelled(task.first_path))):
            return now_at
        if task.created is not None:
            steps = self._annotations.history.steps_until(task.created)
            if steps not in self._moves_after:  # many tasks share it: they are imported together
                self._moves_after[steps] = self._annotations.history.moves_after(steps)
            now = self._moves_after[steps].get(path, path)
            if self._exists(now):
                return [now]
        return self._at_some_time(path)

    def _of_first(self, path: str) -> list[str]:
        """The current path of the image whose original path this is; two if another image came to it later."""
        moved = [self._moved[path]] if path in self._moved else []
        unmoved = [path] if self._annotations.first_path(path) == path else []
        return [each for each in (*moved, *unmoved) if self._exists(each)]

    def _at_some_time(self, path: str) -> list[str]:
        """The same or, if there is none, the image that is at the path now, or was last moved there."""
        path = self._spelled(path)
        others = (
            each for each in (path, self._annotations.history.last_at(path)) if each is not None and self._exists(each)
        )
        return self._of_first(path) or list(others)[:1]

    def _spelled(self, path: str) -> str:
        """A path in any form of Unicode, as it is or was spelled on disk."""
        return self._spelling.get(nfc(path)) or self._annotations.spelled(path)

    def _exists(self, path: str) -> bool:
        return path in self._paths or path in self._removed

    def _digest(self, path: str) -> str | None:
        try:
            return sha256(self._folder / REMOVED / path if path in self._removed else self._annotations.file(path))
        except OSError:
            return None

    @cached_property
    def _by_content(self) -> dict[str, list[str]]:
        """Paths by SHA-256; those of removed images only if no other has it. Reads every file."""
        present: defaultdict[str, list[str]] = defaultdict(list)
        for path in sorted(self._paths):
            present[self._digest(path) or ""].append(path)
        gone = {path: self._digest(path) or "" for path in sorted(self._removed)}
        return {**{digest: [path] for path, digest in gone.items()}, **present}
