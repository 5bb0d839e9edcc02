"""Label Studio (https://labelstud.io), where a team labels together: tasks for it, and its answers back.

Tasks name images by Label Studio's path for local files: it has to be started with
LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT set to DATA_DIR/images. The
present label goes along as a prediction, which a person confirms or changes. Format:
https://labelstud.io/guide/task_format
"""

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr, unescape

from libraries.base.errors import InputError
from libraries.base.file_system import nfc, read_regular
from libraries.base.storage import MAX_JSON_BYTES, json_text
from libraries.data.annotation_log import MARKS, Answer
from libraries.data.annotations import Annotations
from libraries.data.dataset import Example
from libraries.data.exchange.answers import LOCAL, Found, Images, Task, read_tasks, shown

TASKS, INTERFACE = "tasks.json", "interface.xml"
_DATA = {"image", "path", "first_path", "sha256"}  # what a task has to say of its image


@dataclass(frozen=True)
class Said:
    """What people have said, of the images of the data set.

    Attributes:
        answers: of each image that they agree on, by present path.
        left: what was said and cannot be taken over, one line for each.
        changed: how many of these images are other files than when the tasks were written.
    """

    answers: dict[str, Answer]
    left: list[str]
    changed: int


def describe(
    examples: Sequence[Example], *, dataset: str, moved: Mapping[str, str] = MappingProxyType({})
) -> dict[str, str]:
    """Tasks, to be imported into a project, and its labelling interface, by the names of their files.

    Args:
        moved: the present path of every image that was moved by hand, by its first path.
    """
    first = {now: path for path, now in moved.items()}
    tasks = [_task(example, dataset, first.get(example.path, example.path)) for example in examples]
    return {TASKS: json_text(tasks), INTERFACE: _interface([*sorted({e.label for e in examples}), *MARKS])}


def _interface(choices: Iterable[str]) -> str:
    lines = "".join(f"    <Choice value={quoteattr(choice)}/>\n" for choice in choices)
    return (
        '<View>\n  <Image name="image" value="$image"/>\n'
        f'  <Choices name="label" toName="image" choice="single" required="true">\n{lines}  </Choices>\n</View>\n'
    )


def is_ours(path: Path) -> bool:
    """Whether this project wrote a file of tasks or an interface: it is what `describe` makes, and nothing else."""
    try:
        text = read_regular(path, most=MAX_JSON_BYTES).decode()
        if path.name == INTERFACE:
            values = re.findall(r"^    <Choice value=(.*)/>$", text, re.MULTILINE)
            return text == _interface(unescape(value[1:-1], {"&quot;": '"'}) for value in values)
        tasks = json.loads(text)
        are_whole = all(
            set(task) == {"data", "predictions"} and {"image", "path"} <= set(task["data"]) <= _DATA for task in tasks
        )
        return isinstance(tasks, list) and are_whole and text == json_text(tasks)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def _task(example: Example, dataset: str, first_path: str) -> dict[str, Any]:
    chosen = {"from_name": "label", "to_name": "image", "type": "choices", "value": {"choices": [example.label]}}
    image = f"{LOCAL}?d={quote(f'{dataset}/{example.path}')}"
    return {
        "data": {"image": image, "path": example.path, "first_path": first_path, "sha256": example.sha256},
        "predictions": [{"model_version": "present label", "result": [chosen]}],
    }


def take_over(export: Path, annotations: Annotations, *, dataset: str) -> list[str]:
    """Change labels and marks as people have said; gives what is to be told.

    The newest counts, see `Annotations.take_over`. Moves of a step that did not come to its end are made first.

    Raises:
        InputError: it is no export of Label Studio, or there are no images; nothing has changed.
        StorageError: the log of annotations cannot be written.
    """
    tasks, content = read_tasks(export, dataset=dataset)
    if not annotations.folder.is_dir():
        raise InputError(f"{annotations.folder} does not exist: put the images there that these labels are for")
    folders = annotations.folders  # a class whose images were all given other labels may get some back
    finished = annotations.replay()
    images = Images(annotations, folders.images(annotations.folder))
    said = understand(tasks, images, labels=folders.of)
    outcome = annotations.take_over(said.answers, source=hashlib.sha256(content).hexdigest())
    told = [f"{len(outcome.changes):,} labels and marks taken over from {export}"]
    if finished.changes:
        told.append(f"  made first: {len(finished.changes):,} earlier changes that were not in the folders")
    if said.changed:
        told.append(f"  {said.changed:,} images have changed since the tasks were written: look at their labels")
    return [*told, *(f"  left as it is: {line}" for line in (*said.left, *outcome.problems, *finished.problems))]


def understand(tasks: Iterable[Task], images: Images, *, labels: Collection[str]) -> Said:
    """What people have said of each image.

    Where several tasks are about one image, the one that was answered last counts. What was said of a duplicate that
    has been removed counts for the image that stayed, if nothing was said of that itself.

    Args:
        labels: the classes of the data set, in Unicode's form C.
    """
    choices = {*labels, *MARKS}
    found: defaultdict[tuple[str, bool], defaultdict[str, list[Task]]] = defaultdict(lambda: defaultdict(list))
    left, changed = [], 0
    for task in tasks:
        image: Found = images.find(task)
        strange = [choice for choice in task.choices if nfc(choice) not in choices]
        if image.path is None or strange:
            problem = f"there is no label '{shown(strange[0])}'" if strange and image.path else image.problem
            left.append(f"{shown(task.path)}: {problem}")
        else:
            found[image.path, image.stands_in][task.number].append(task)
            changed += image.is_changed
    answers: dict[str, Answer] = {}
    for (path, stands_in), by_task in sorted(found.items()):  # an image's own come before those of its duplicates
        if not (stands_in and (path, False) in found):
            newest = _newest(by_task.values())
            agreed = {nfc(choice) for task in newest for choice in task.choices}
            if len(agreed) > 1:
                left.append(f"{path}: people disagree")
            else:
                answers[path] = Answer(agreed.pop(), _latest(newest))
    return Said(answers, left, changed)


def _newest(groups: Iterable[list[Task]]) -> list[Task]:
    """The tasks answered last; those whose time is not known are together the newest."""
    timed = [(time, group) for group in groups if (time := _latest(group)) is not None]
    untimed = [task for group in groups if _latest(group) is None for task in group]
    newest = max((time for time, _ in timed), default=None)
    return untimed or [task for time, group in timed if time == newest for task in group]


def _latest(tasks: Iterable[Task]) -> Any:
    """When one of the tasks was answered last; None if that is not known."""
    return max((task.time for task in tasks if task.time is not None), default=None)
