"""Label Studio (https://labelstud.io), where a team labels together: tasks for it, and its answers back.

Tasks name images by Label Studio's path for local files: it has to be started with
LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT set to DATA_DIR/images. The
present label goes along as a prediction, which a person confirms or changes. Format:
https://labelstud.io/guide/task_format
"""

import json
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit
from xml.sax.saxutils import quoteattr

from libraries.base.errors import InputError
from libraries.base.names import nfc
from libraries.base.storage import write_json, write_text
from libraries.base.text import read_text
from libraries.data.annotation_log import MARKS
from libraries.data.annotations import Annotations, Outcome
from libraries.data.dataset import Example, scan
from libraries.data.decoding import MAX_BYTES

TASKS, INTERFACE = "tasks.json", "interface.xml"

_LOCAL = "/data/local-files/"


@dataclass(frozen=True)
class Answers:
    """What people have said.

    Attributes:
        choices: a label or a mark for each image that has one, by path.
        disputed: paths of images of which people have said different things.
        unknown: what was said of images that are not in the data set, or no label of it: one line for each.
    """

    choices: dict[str, str]
    disputed: list[str]
    unknown: list[str]


def export(folder: Path, examples: Sequence[Example], *, dataset: str) -> list[Path]:
    """Write tasks.json, to be imported into a project, and interface.xml, its labelling interface; gives paths."""
    tasks, interface = folder / TASKS, folder / INTERFACE
    write_json(tasks, [_task(example, dataset) for example in examples])
    choices = [*sorted({e.label for e in examples}), *MARKS]
    lines = "".join(f"    <Choice value={quoteattr(choice)}/>\n" for choice in choices)
    write_text(
        interface,
        '<View>\n  <Image name="image" value="$image"/>\n'
        f'  <Choices name="label" toName="image" choice="single" required="true">\n{lines}  </Choices>\n</View>\n',
    )
    return [tasks, interface]


def _task(example: Example, dataset: str) -> dict[str, Any]:
    chosen = {"from_name": "label", "to_name": "image", "type": "choices", "value": {"choices": [example.label]}}
    return {
        "data": {"image": f"{_LOCAL}?d={quote(f'{dataset}/{example.path}')}", "path": example.path},
        "predictions": [{"model_version": "present label", "result": [chosen]}],
    }


def read_answers(export: Path, *, paths: Collection[str], labels: Collection[str], dataset: str) -> Answers:
    """Read a project exported as JSON or JSON-MIN.

    Args:
        paths, labels: of the images in the data set; compared in Unicode's form C.

    Raises:
        InputError: it is no such export.
    """
    text = read_text(export, what="the export of Label Studio", max_bytes=MAX_BYTES)
    try:
        said = [(_path(task, dataset), _choices(task)) for task in json.loads(text)]
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{export} is no export of Label Studio in JSON ({error}): export the project again"
        ) from error
    choices: dict[str, str] = {}
    disputed, unknown = [], []
    as_they_are = {nfc(path): path for path in paths}
    for named, answered in said:
        path, chosen = as_they_are.get(named, named), [nfc(choice) for choice in answered]
        counts = Counter(chosen)
        if path not in paths:
            unknown.append(f"{path}: there is no such image")
        elif strange := [choice for choice in counts if choice not in labels and choice not in MARKS]:
            unknown.append(f"{path}: there is no label '{strange[0]}'")
        elif len(counts) > 1:
            disputed.append(path)
        elif counts:
            choices[path] = chosen[0]
    return Answers(choices, disputed, unknown)


def _path(task: dict[str, Any], dataset: str) -> str:
    """The image that a task is about, in Unicode's form C."""
    data = task.get("data", task)  # JSON-MIN has all in one object
    if isinstance(data.get("path"), str):
        return nfc(data["path"])
    parts = urlsplit(data["image"])
    path = parse_qs(parts.query)["d"][0] if parts.path == _LOCAL else parts.path
    return nfc(path).removeprefix(f"{dataset}/")


def _choices(task: dict[str, Any]) -> list[str]:
    """What each person has chosen; who skipped the task has said nothing."""
    if "annotations" not in task:
        label = task.get("label")
        return [] if label is None else [str(label)]
    return [
        str(choice)
        for annotation in task["annotations"]
        if not annotation.get("was_cancelled")
        for result in annotation["result"]
        if result["type"] == "choices" and result["from_name"] == "label"
        for choice in result["value"]["choices"][:1]
    ]


def apply(answers: Answers, annotations: Annotations) -> list[Outcome]:
    """Change labels and marks as people have said, one step for each label and mark; all can be undone."""
    outcomes = []
    for choice in sorted(set(answers.choices.values())):
        paths = [path for path, chosen in answers.choices.items() if chosen == choice]
        mark = next((mark for mark in MARKS if mark == choice), None)
        if mark is None:
            marked = [path for path in paths if path in annotations.marks]
            outcomes.append(annotations.mark(marked, None))
            outcomes.append(annotations.relabel(paths, choice))
        else:
            outcomes.append(annotations.mark(paths, mark))
    return [outcome for outcome in outcomes if outcome.changes or outcome.problems]


def take_over(export: Path, annotations: Annotations, *, dataset: str) -> list[str]:
    """`read_answers` and `apply` in one, for the data set that the annotations are of; gives what is to be told."""
    paths = scan(annotations.folder).paths
    known = {path for of_label in paths.values() for path in of_label}
    answers = read_answers(export, paths=known, labels=paths, dataset=dataset)
    outcomes = apply(answers, annotations)
    disputed = [f"{path}: people disagree" for path in answers.disputed]
    left = [*answers.unknown, *disputed, *(problem for outcome in outcomes for problem in outcome.problems)]
    changed = sum(len(outcome.changes) for outcome in outcomes)
    return [f"{changed:,} labels and marks taken over from {export}", *(f"  left as it is: {line}" for line in left)]
