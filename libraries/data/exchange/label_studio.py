"""Label Studio (https://labelstud.io), where teams label images: writes its tasks, and imports its answers.

Tasks name images by Label Studio's path for local files: start it with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true
and LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT set to DATA_DIR/images. The current label is included as a prediction, which
a person confirms or changes; doubtful ones come first, with the suggested label as a second prediction. So do images of
the pool that are worth a label, which have no other. Format: https://labelstud.io/guide/task_format
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

from libraries.base.console import counted
from libraries.base.errors import InputError
from libraries.base.file_system import nfc, read_regular
from libraries.base.storage import MAX_JSON_BYTES, json_text
from libraries.data.annotation_log import MARKS, LabelAnswer
from libraries.data.annotations import Annotations
from libraries.data.class_folders import in_pool, pool_images, within_pool
from libraries.data.dataset import Example
from libraries.data.exchange.answers import LOCAL, ImageOfTask, Images, Task, read_tasks, shown

TASKS, INTERFACE = "tasks.json", "interface.xml"
_DATA = {"image", "path", "first_path", "sha256"}  # what a task contains about its image


@dataclass(frozen=True)
class ImportedAnswers:
    """What people answered for the images of the data set.

    Attributes:
        answers: for each image on which they agree, by current path.
        left: one line for each answer that cannot be used.
        changed: how many of these images have changed since the tasks were written.
    """

    answers: dict[str, LabelAnswer]
    left: list[str]
    changed: int


def describe(
    examples: Sequence[Example],
    *,
    dataset: str,
    moved: Mapping[str, str] = MappingProxyType({}),
    suggested: Mapping[str, tuple[str, float]] = MappingProxyType({}),
    unlabelled: Sequence[Example] = (),
) -> dict[str, str]:
    """The tasks to import into a project and its labelling interface, as texts by file name.

    Args:
        unlabelled: images of the pool.
        moved: the current path of every image that was moved by hand, by its original path.
        suggested: another label and a score, 0 to 1, by path, in the order in which people should see them.
    """
    first = {now: path for path, now in moved.items()}
    place = {path: i for i, path in enumerate(suggested)}
    ordered = sorted([*unlabelled, *examples], key=lambda example: place.get(example.path, len(place)))
    tasks = [_task(e, dataset, first.get(e.path, e.path), suggested.get(e.path)) for e in ordered]
    return {TASKS: json_text(tasks), INTERFACE: _interface([*sorted({e.label for e in examples}), *MARKS])}


def _interface(choices: Iterable[str]) -> str:
    lines = "".join(f"    <Choice value={quoteattr(choice)}/>\n" for choice in choices)
    return (
        '<View>\n  <Image name="image" value="$image"/>\n'
        f'  <Choices name="label" toName="image" choice="single" required="true">\n{lines}  </Choices>\n</View>\n'
    )


def is_ours(path: Path) -> bool:
    """Whether this project wrote a file of tasks or an interface: it is exactly what `describe` makes."""
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


def _task(example: Example, dataset: str, first_path: str, suggested: tuple[str, float] | None) -> dict[str, Any]:
    path = f"{dataset}.pool/{within_pool(example.path)}" if in_pool(example.path) else f"{dataset}/{example.path}"
    image = f"{LOCAL}?d={quote(path)}"
    predictions: list[dict[str, Any]] = []
    if not in_pool(example.path):
        predictions.append({"model_version": "present label", "result": [_choice(example.label)]})
    if suggested is not None:
        label, score = suggested
        predictions.append({"model_version": "suggested label", "score": score, "result": [_choice(label)]})
    return {
        "data": {"image": image, "path": example.path, "first_path": first_path, "sha256": example.sha256},
        "predictions": predictions,
    }


def _choice(label: str) -> dict[str, Any]:
    return {"from_name": "label", "to_name": "image", "type": "choices", "value": {"choices": [label]}}


def import_answers(export: Path, annotations: Annotations, *, dataset: str) -> list[str]:
    """Change labels and marks as people answered; returns lines about it.

    The newest answer wins, see `Annotations.apply_answers`. Pending moves of an interrupted step are made first.

    Raises:
        InputError: it is not an export of Label Studio, or there are no images; nothing has changed.
        StorageError: the annotation log cannot be written.
    """
    tasks, content = read_tasks(export, dataset=dataset)
    if not annotations.folder.is_dir():
        raise InputError(f"{annotations.folder} does not exist: put the images there that these labels are for")
    folders = annotations.folders  # before the moves: a class that loses all its images may get some back
    finished = annotations.replay()
    images = Images(annotations, [*folders.images(annotations.folder), *pool_images(annotations.folder)])
    imported = collect_answers(tasks, images, labels=folders.by_label)
    result = annotations.apply_answers(imported.answers, source=hashlib.sha256(content).hexdigest())
    lines = [f"{len(result.changes):,} labels and marks imported from {export}"]
    if finished.changes:
        lines.append(f"  made first: {len(finished.changes):,} earlier changes that were not in the folders")
    if imported.changed:
        lines.append(f"  {counted(imported.changed, 'image')} changed since the tasks were written: check the labels")
    return [*lines, *(f"  left as it is: {line}" for line in (*imported.left, *result.problems, *finished.problems))]


def collect_answers(tasks: Iterable[Task], images: Images, *, labels: Collection[str]) -> ImportedAnswers:
    """What people answered for each image.

    If several tasks are about one image, the one answered last counts. Answers for a removed duplicate count for the
    image that stayed, unless that has answers of its own.

    Args:
        labels: the classes of the data set, in Unicode form C.
    """
    choices = {*labels, *MARKS}
    usable: defaultdict[tuple[str, bool], defaultdict[str, list[Task]]] = defaultdict(lambda: defaultdict(list))
    left, changed = [], 0
    for task in tasks:
        image: ImageOfTask = images.find(task)
        unknown = [choice for choice in task.choices if nfc(choice) not in choices]
        if image.path is None or unknown:
            problem = f"there is no label '{shown(unknown[0])}'" if unknown and image.path else image.problem
            left.append(f"{shown(task.path)}: {problem}")
        else:
            usable[image.path, image.stands_in][task.number].append(task)
            changed += image.is_changed
    answers: dict[str, LabelAnswer] = {}
    for (path, stands_in), by_task in sorted(usable.items()):  # an image's own come before those of its duplicates
        if not (stands_in and (path, False) in usable):
            newest = _newest(by_task.values())
            agreed = {nfc(choice) for task in newest for choice in task.choices}
            if len(agreed) > 1:
                left.append(f"{path}: people disagree")
            else:
                answers[path] = LabelAnswer(agreed.pop(), _latest(newest))
    return ImportedAnswers(answers, left, changed)


def _newest(groups: Iterable[list[Task]]) -> list[Task]:
    """The tasks answered last; those without a known time count together as the newest."""
    timed = [(time, group) for group in groups if (time := _latest(group)) is not None]
    untimed = [task for group in groups if _latest(group) is None for task in group]
    newest = max((time for time, _ in timed), default=None)
    return untimed or [task for time, group in timed if time == newest for task in group]


def _latest(tasks: Iterable[Task]) -> Any:
    """When the last of the tasks was answered; None if unknown."""
    return max((task.time for task in tasks if task.time is not None), default=None)
