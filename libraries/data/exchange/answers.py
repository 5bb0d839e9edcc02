"""What people have said in Label Studio: a project exported as JSON or JSON-MIN, which may come from a stranger.

Format: https://labelstud.io/guide/export
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from libraries.base.errors import InputError
from libraries.base.file_system import read_regular
from libraries.base.names import nfc
from libraries.base.storage import MAX_JSON_BYTES
from libraries.base.text import as_text
from libraries.data.annotation_log import to_time

LOCAL = "/data/local-files/"  # Label Studio's path of files on its own machine
_MOST_SHOWN = 200  # characters of a stranger's text


@dataclass(frozen=True)
class Task:
    """One image in Label Studio, with what each person has chosen for it.

    Attributes:
        number: of the task, as Label Studio gives it; in JSON-MIN each choice is an entry of its own.
        path: where the image was when the tasks were written.
        first_path, sha256: where it was before any annotation, and of its file then; None in tasks of earlier versions.
        created: when the tasks were imported into Label Studio.
        choices: who has skipped the task has chosen nothing.
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
    """The tasks of an export that somebody has said something of, and the content of the file.

    Raises:
        InputError: it is no such export; names the task.
    """
    where = ""
    try:
        content = read_regular(export, most=MAX_JSON_BYTES)
        entries = json.loads(as_text(content, export))
        if not isinstance(entries, list):
            raise ValueError("it is no list of tasks")
        tasks = []
        for i, entry in enumerate(entries, 1):
            where = f"task {i}: "
            tasks.append(_task(entry, dataset))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else error
        raise InputError(
            f"{export} is no export of Label Studio in JSON ({where}{what}): export the project again"
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
        to_time(entry.get("created_at")) if "annotations" in entry else None,  # else it is of the choice
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
    return inside if nfc(top) == nfc(dataset) else path


def _text(data: dict[str, Any], name: str) -> str | None:
    value = data.get(name)
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name} is no text")
    return value


def _annotations(entry: dict[str, Any]) -> Iterator[tuple[str, datetime | None]]:
    """What each person has chosen, and when."""
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
        raise TypeError("a choice is no text")
    return chosen[0]


def _time(annotation: dict[str, Any]) -> datetime | None:
    return to_time(annotation.get("updated_at") or annotation.get("created_at"))


def shown(text: str) -> str:
    """A stranger's text for a line on the console: no control characters, not too long."""
    text = text if len(text) <= _MOST_SHOWN else text[:_MOST_SHOWN] + "…"
    return text if text.isprintable() else repr(text)
