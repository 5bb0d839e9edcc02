"""Tasks for Label Studio, and what people have said there taken over."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

import pytest

from libraries.base.errors import InputError
from libraries.data.annotations import Annotations
from libraries.data.dataset import Example
from libraries.data.exchange.label_studio import Answers, apply, export, read_answers

PATHS = ("cat/a & b.jpg", "cat/ö.png", "dog & big/c.jpg", "dog & big/d.jpg")
LABELS = ("cat", "dog & big")


@pytest.fixture
def tasks(tmp_path: Path) -> list[dict[str, Any]]:
    examples = [Example(path, path.split("/")[0], "train", path, 8, 8, 1, "0" * 64) for path in PATHS]
    written, interface = export(tmp_path, examples, dataset="pets")
    choices = [choice.get("value") for choice in ElementTree.parse(interface).getroot().iter("Choice")]
    assert choices == ["cat", "dog & big", "ambiguous", "excluded"]
    loaded: list[dict[str, Any]] = json.loads(written.read_text(encoding="utf-8"))
    return loaded


def test_a_task_shows_the_image_and_the_present_label(tasks: list[dict[str, Any]]) -> None:
    assert [parse_qs(urlsplit(task["data"]["image"]).query)["d"] for task in tasks] == [[f"pets/{p}"] for p in PATHS]
    chosen = [task["predictions"][0]["result"][0] for task in tasks]
    assert [c["value"]["choices"] for c in chosen] == [["cat"], ["cat"], ["dog & big"], ["dog & big"]]
    assert {(c["from_name"], c["to_name"], c["type"]) for c in chosen} == {("label", "image", "choices")}


def answered(task: dict[str, Any], *choices: str | None) -> dict[str, Any]:
    """The task as exported, after people have chosen; None: one has skipped it."""
    annotations = [
        {
            "was_cancelled": choice is None,
            "result": [
                {"from_name": "label", "to_name": "image", "type": "choices", "value": {"choices": [choice]}},
                {"from_name": "box", "to_name": "image", "type": "rectanglelabels", "value": {"x": 1}},
            ],
        }
        for choice in choices
    ]
    return {**task, "id": 7, "annotations": annotations}


def read(tmp_path: Path, content: object) -> Answers:
    (tmp_path / "export.json").write_text(json.dumps(content))
    return read_answers(tmp_path / "export.json", paths=PATHS, labels=LABELS, dataset="pets")


def test_what_people_have_said(tmp_path: Path, tasks: list[dict[str, Any]]) -> None:
    said = read(
        tmp_path,
        [
            answered(tasks[0], "dog & big", "dog & big"),
            answered(tasks[1], "cat", "excluded"),
            answered(tasks[2], None),
            answered(tasks[3], "ambiguous", None),
            answered({"data": {"image": "/data/local-files/?d=pets/cow/e.jpg"}}, "cat"),
            answered(tasks[0], "horse"),
        ],
    )
    assert said.choices == {PATHS[0]: "dog & big", PATHS[3]: "ambiguous"}
    assert said.disputed == [PATHS[1]]
    assert said.unknown == ["cow/e.jpg: there is no such image", f"{PATHS[0]}: there is no label 'horse'"]


def test_the_short_form(tmp_path: Path) -> None:
    said = read(
        tmp_path,
        [
            {"image": "/data/local-files/?d=pets/cat/%C3%B6.png", "label": "dog & big", "id": 1},
            {"image": "/data/local-files/?d=pets/dog%20%26%20big/c.jpg", "id": 2},
        ],
    )
    assert said == Answers({PATHS[1]: "dog & big"}, [], [])


@pytest.mark.parametrize(
    "content", ["text", 7, {}, [1], [{}], [{"data": {}}], [{"data": {"path": "a"}, "annotations": 3}]]
)
def test_another_file_is_refused(tmp_path: Path, content: object) -> None:
    if content == {}:
        assert read(tmp_path, content) == Answers({}, [], [])
        return
    with pytest.raises(InputError, match="is no export of Label Studio"):
        read(tmp_path, content)


def test_answers_become_annotations_that_can_be_undone(tmp_path: Path) -> None:
    for path in PATHS:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(path)
    annotations = Annotations(tmp_path)
    annotations.mark([PATHS[2]], "excluded")
    before = annotations.state
    outcomes = apply(
        Answers({PATHS[0]: "dog & big", PATHS[1]: "cat", PATHS[2]: "dog & big", PATHS[3]: "ambiguous"}, [], []),
        annotations,
    )
    assert all(outcome.problems == () for outcome in outcomes)
    assert (tmp_path / "dog & big" / "a & b.jpg").exists() and (tmp_path / PATHS[1]).exists()
    assert annotations.marks == {PATHS[3]: "ambiguous"}
    for _ in outcomes:
        annotations.undo()
    assert annotations.state == before and (tmp_path / PATHS[0]).read_text() == PATHS[0]
