"""Tasks for Label Studio, and importing the answers: once, in order, and for the right image."""

import itertools
import json
import os
import random
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

import pytest

from libraries.base.errors import InputError, MissingInput, StorageError
from libraries.base.layout import ANNOTATIONS
from libraries.base.storage import sha256
from libraries.data import annotations as annotations_module
from libraries.data import removal
from libraries.data.annotations import Annotations
from libraries.data.dataset import Example
from libraries.data.exchange.label_studio import describe, import_answers, is_ours
from libraries.data.removal import Removal

PATHS = ("cat/0.jpg", "cat/a & b.jpg", "cat/ö.png", "dog & big/0.jpg", "dog & big/c.jpg", "cow/9.jpg")
MONDAY, TUESDAY = "2026-01-05T12:00:00.123456Z", "2026-01-06T12:00:00Z"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The content of each file says where it was at first."""
    folder = tmp_path / "images" / "pets"
    for path in PATHS:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(path)
    return folder


def where(folder: Path) -> dict[str, str]:
    """Present path by first path."""
    found = [p for p in folder.rglob("*") if p.is_file() and p.name[0] != "." and ".duplicates" not in p.parts]
    return {p.read_text(): p.relative_to(folder).as_posix() for p in found if p.name != ANNOTATIONS}


def log(folder: Path) -> bytes:
    path = folder / ANNOTATIONS
    return path.read_bytes() if path.exists() else b""


def tasks(folder: Path) -> list[dict[str, Any]]:
    """As --export writes them now."""
    paths = sorted(where(folder).values())
    examples = [Example(p, p.split("/")[0], "train", p, 8, 8, 1, sha256(folder / p)) for p in paths]
    moved = Annotations(folder).moved
    texts = describe(examples, dataset="pets", moved=moved)
    choices = [choice.get("value") for choice in ElementTree.fromstring(texts["interface.xml"]).iter("Choice")]
    assert choices == [*sorted({path.split("/")[0] for path in paths}), "ambiguous", "excluded"]
    loaded: list[dict[str, Any]] = json.loads(texts["tasks.json"])
    return loaded


def old_task(path: str) -> dict[str, Any]:
    """As earlier versions wrote them."""
    return {"data": {"path": path, "image": f"/data/local-files/?d=pets/{path}"}}


def answered(task: dict[str, Any], *choices: str | None, at: str | None = None) -> dict[str, Any]:
    """The task as exported, after people have chosen; None: one has skipped it."""
    annotations = [
        {
            "was_cancelled": choice is None,
            **({} if at is None else {"created_at": MONDAY, "updated_at": at}),
            "result": [
                {"from_name": "label", "to_name": "image", "type": "choices", "value": {"choices": [choice]}},
                {"from_name": "box", "to_name": "image", "type": "rectanglelabels", "value": {"x": 1}},
            ],
        }
        for choice in choices
    ]
    return {**task, "id": 7, "annotations": annotations}


class Project:
    """A data set, and the exports that are imported."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.numbers = itertools.count()

    def save(self, content: object) -> Path:
        path = self.folder.parent / f"export-{next(self.numbers)}.json"
        path.write_text(json.dumps(content), encoding="utf-8")
        return path

    def take(self, content: object) -> list[str]:
        """Take over a new export."""
        return self.again(self.save(content))

    def again(self, path: Path) -> list[str]:
        """The report; its first line is cut to the number."""
        first, *others = import_answers(path, Annotations(self.folder), dataset="pets")
        assert first.endswith(f" labels and marks imported from {path}")
        return [first.split()[0], *(line.strip().removeprefix("left as it is: ") for line in others)]

    def label(self, first: str) -> str:
        """Of the image that was at this path at first."""
        return where(self.folder)[first].partition("/")[0]


@pytest.fixture
def project(folder: Path) -> Project:
    return Project(folder)


def test_a_task_shows_the_image_and_the_present_label_and_knows_the_image(folder: Path) -> None:
    Annotations(folder).relabel(["cow/9.jpg"], "cat")
    (folder / "cow" / "1.jpg").write_text("cow/1.jpg")
    written = tasks(folder)
    paths = [task["data"]["path"] for task in written]
    assert sorted(paths) == sorted(where(folder).values())
    assert [parse_qs(urlsplit(task["data"]["image"]).query)["d"] for task in written] == [[f"pets/{p}"] for p in paths]
    chosen = [task["predictions"][0]["result"][0] for task in written]
    assert [c["value"]["choices"] for c in chosen] == [[p.split("/")[0]] for p in paths]
    assert {(c["from_name"], c["to_name"], c["type"]) for c in chosen} == {("label", "image", "choices")}
    assert {task["data"]["first_path"]: task["data"]["path"] for task in written} == where(folder)
    assert all(task["data"]["sha256"] == sha256(folder / task["data"]["path"]) for task in written)


def test_doubtful_labels_come_first_with_what_they_may_be_instead(folder: Path, tmp_path: Path) -> None:
    examples = [Example(p, p.split("/")[0], "train", p, 8, 8, 1, sha256(folder / p)) for p in PATHS]
    doubtful = {"cow/9.jpg": ("cat", 0.9), "cat/ö.png": ("cow", 0.7), "gone.jpg": ("cat", 0.5)}
    texts = describe(examples, dataset="pets", suggested=doubtful)
    made = json.loads(texts["tasks.json"])
    assert [task["data"]["path"] for task in made] == [
        "cow/9.jpg",
        "cat/ö.png",
        *(p for p in PATHS if p not in doubtful),
    ]
    present, suggested = made[0]["predictions"]
    assert present["result"][0]["value"]["choices"] == ["cow"] and "score" not in present
    assert suggested["result"][0]["value"]["choices"] == ["cat"] and suggested["score"] == 0.9
    assert [len(task["predictions"]) for task in made] == [2, 2, 1, 1, 1, 1]
    (tmp_path / "tasks.json").write_text(texts["tasks.json"], encoding="utf-8")
    assert is_ours(tmp_path / "tasks.json"), "it may be written again"
    export = tmp_path / "export.json"
    export.write_text(json.dumps([answered(made[0], "cat", at=TUESDAY)]), encoding="utf-8")
    import_answers(export, Annotations(folder), dataset="pets")
    assert where(folder)["cow/9.jpg"] == "cat/9.jpg"


def test_what_people_have_said(project: Project) -> None:
    report = project.take(
        [
            answered(old_task(PATHS[0]), "dog & big", "dog & big"),
            answered(old_task(PATHS[1]), "cat", "excluded"),
            answered(old_task(PATHS[2]), None),
            answered(old_task(PATHS[3]), "ambiguous", None),
            answered({"data": {"image": "/data/local-files/?d=pets/cow/e.jpg"}}, "cat"),
            answered(old_task("../secret.jpg"), "cat"),
            answered(old_task("cat/\x1b[2J.jpg"), "cat"),
            answered(old_task(PATHS[4]), "horse"),
        ]
    )
    assert report == [
        "2",
        "cow/e.jpg: there is no such image",
        "../secret.jpg: there is no such image",
        "'cat/\\x1b[2J.jpg': there is no such image",
        f"{PATHS[4]}: there is no label 'horse'",
        f"{PATHS[1]}: people disagree",
    ]
    assert {first: now for first, now in where(project.folder).items() if first != now} == {
        PATHS[0]: "dog & big/0-2.jpg"
    }
    annotations = Annotations(project.folder)
    assert annotations.marks == {PATHS[3]: "ambiguous"}
    while annotations.can_undo:
        annotations.undo()
    assert annotations.state is None and where(project.folder) == {path: path for path in PATHS}


def test_the_short_form(project: Project) -> None:
    report = project.take(
        [
            {"image": "/data/local-files/?d=pets/cat/%C3%B6.png", "label": "dog & big", "id": 1, "updated_at": MONDAY},
            {"image": "/data/local-files/?d=pets/cow/9.jpg", "label": {"choices": ["cat"]}, "id": 2},
            {"image": "/data/local-files/?d=pets/dog%20%26%20big/c.jpg", "id": 3},
            {"image": "/data/local-files/?d=pets/cat/0.jpg", "label": "cow", "id": 4, "updated_at": MONDAY},
            {"image": "/data/local-files/?d=pets/cat/0.jpg", "label": "cat", "id": 4, "updated_at": TUESDAY},
        ]
    )
    assert report == ["2", "cat/0.jpg: people disagree"]
    assert project.label("cat/ö.png") == "dog & big" and project.label("cow/9.jpg") == "cat"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("text", "it is not a list of tasks"),
        (7, "it is not a list of tasks"),
        ({}, "it is not a list of tasks"),
        ([1], "task 1: expected "),
        ([{}], "task 1: no 'image'"),
        ([{"data": {}}], "task 1: no 'image'"),
        ([old_task("cat/0.jpg"), {"data": []}], "task 2: expected "),
        ([{"data": {"path": "a"}, "annotations": [[]]}], "task 1: expected "),
        ([{"data": {"path": "a"}, "annotations": 3}], "task 1: expected "),
        ([{"data": {"path": ["a"]}}], "task 1: path is not a text"),
        ([{"data": {"path": "a", "sha256": 1}}], "task 1: sha256 is not a text"),
        ([{"path": "a", "label": 7}], "task 1: a choice is not a text"),
        ([answered(old_task("cat/0.jpg"), "cat", at="yesterday")], "task 1: Invalid isoformat string"),
        ([{**answered(old_task("cat/0.jpg"), "cat"), "created_at": {}}], "task 1: expected a time, found {}"),
        ([answered(old_task("cat/0.jpg"), "cat", at="0001-01-01T00:00:00+10:00")], "task 1: time"),
    ],
    ids=str,
)
def test_another_file_is_refused_by_name(project: Project, content: object, problem: str) -> None:
    with pytest.raises(InputError, match=rf"export-0\.json is not an export of Label Studio in JSON \({problem}"):
        project.take(content)
    assert log(project.folder) == b"" and where(project.folder) == {path: path for path in PATHS}


@pytest.mark.parametrize(
    "content", [b"[" * 200_000, b"\xff\xfe\x00", b"", b"[1e999999"], ids=["deep", "binary", "", "cut"]
)
def test_bytes_that_are_no_json_are_refused(project: Project, content: bytes) -> None:
    path = project.save([])
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"is not an export of Label Studio in JSON \(|is neither UTF-8 nor UTF-16"):
        project.again(path)


def test_an_export_that_is_not_there(project: Project) -> None:
    with pytest.raises(MissingInput, match=r"the export of Label Studio .*none\.json does not exist"):
        project.again(project.folder / "none.json")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_is_not_waited_for(project: Project) -> None:
    path = project.folder.parent / "pipe"
    os.mkfifo(path)
    with pytest.raises(InputError, match="it is not a regular file"):
        project.again(path)


TASKS: tuple[Callable[[Path, str], dict[str, Any]], ...] = (
    lambda folder, path: old_task(path),
    lambda folder, path: next(task for task in tasks(folder) if task["data"]["path"] == path),
)


@pytest.mark.parametrize("at", [None, MONDAY], ids=["without a time", "with its time"])
@pytest.mark.parametrize("task", TASKS, ids=["old task", "task"])
def test_a_second_time_changes_nothing(
    project: Project, task: Callable[[Path, str], dict[str, Any]], at: str | None
) -> None:
    """Two images of the same name swap places."""
    exported = [
        answered(task(project.folder, "cat/0.jpg"), "dog & big", at=at),
        answered(task(project.folder, "dog & big/0.jpg"), "cat", at=at),
        answered(task(project.folder, "cow/9.jpg"), "excluded", at=at),
        answered(task(project.folder, "cat/ö.png"), "cat", at=at),
    ]
    path = project.save(exported)
    assert project.again(path) == ["3"]
    after, annotated = where(project.folder), log(project.folder)
    assert project.label("cat/0.jpg") == "dog & big" and project.label("dog & big/0.jpg") == "cat"
    for _ in range(2):
        assert project.again(path) == ["0"]
        assert where(project.folder) == after and log(project.folder) == annotated
    assert Annotations(project.folder).marks == {"cow/9.jpg": "excluded"}


def test_an_image_that_was_moved_by_hand_is_known(project: Project) -> None:
    new, old = tasks(project.folder), [old_task(path) for path in PATHS]
    Annotations(project.folder).relabel(["cow/9.jpg"], "cat")
    Annotations(project.folder).relabel(["cat/9.jpg", "cat/0.jpg"], "dog & big")
    for written in (new, old):
        exported = [answered(each, "cow") for each in written if each["data"]["path"] in ("cat/0.jpg", "cow/9.jpg")]
        assert project.take(exported) == ["2"]
        assert project.label("cow/9.jpg") == project.label("cat/0.jpg") == "cow"
        Annotations(project.folder).undo()
        assert project.label("cow/9.jpg") == project.label("cat/0.jpg") == "dog & big"


def test_an_old_task_means_the_image_that_was_there_when_it_was_imported(project: Project) -> None:
    annotations = Annotations(project.folder)
    annotations.relabel(["cow/9.jpg"], "cat")
    imported = json.loads(log(project.folder).splitlines()[-1])["time"]
    annotations.relabel(["cat/9.jpg"], "dog & big")
    (project.folder / "cat" / "9.jpg").write_text("cat/9.jpg")  # another image takes the place
    task = {**old_task("cat/9.jpg"), "created_at": imported}
    assert project.take([answered(task, "cow")]) == ["1"]
    assert project.label("cow/9.jpg") == "cow" and project.label("cat/9.jpg") == "cat"


def test_the_content_tells_images_apart_that_had_one_first_path(project: Project) -> None:
    first = tasks(project.folder)
    Annotations(project.folder).relabel(["cow/9.jpg"], "cat")
    (project.folder / "cow" / "9.jpg").write_text("another")
    second = tasks(project.folder)
    assert project.take([answered(old_task("cow/9.jpg"), "dog & big")]) == [
        "0",
        "cow/9.jpg: 2 images have been at this path",
    ]
    (one,) = (task for task in first if task["data"]["path"] == "cow/9.jpg")
    (other,) = (task for task in second if task["data"]["path"] == "cow/9.jpg")
    assert project.take([answered(one, "dog & big"), answered(other, "cat")]) == ["2"]
    assert project.label("cow/9.jpg") == "dog & big" and project.label("another") == "cat"


def test_an_image_that_was_moved_by_another_program_is_known_by_its_content(project: Project) -> None:
    written = {task["data"]["path"]: task for task in tasks(project.folder)}
    (project.folder / "cat" / "0.jpg").rename(project.folder / "dog & big" / "renamed.jpg")
    assert project.take([answered(written["cat/0.jpg"], "cow")]) == ["1"]
    assert where(project.folder)["cat/0.jpg"] == "cow/renamed.jpg"


def test_an_image_whose_file_has_changed_is_known_by_its_path_and_reported(project: Project) -> None:
    written = {task["data"]["path"]: task for task in tasks(project.folder)}
    (project.folder / "cat" / "0.jpg").write_text("turned")
    report = project.take([answered(written["cat/0.jpg"], "cow")])
    assert report == ["1", "1 image changed since the tasks were written: check the labels"]
    assert project.label("turned") == "cow"


def test_a_removed_duplicate_speaks_for_the_image_that_stayed(project: Project) -> None:
    written = {task["data"]["path"]: task for task in tasks(project.folder)}
    removal.remove(project.folder, [Removal("cat/0.jpg", "cow/9.jpg", "near", 3)])
    Annotations(project.folder).relabel(["cow/9.jpg"], "dog & big")
    exported = [answered(written["cat/0.jpg"], "cat"), answered(written["cow/9.jpg"], "excluded")]
    assert project.take(exported[:1]) == ["1"]
    assert where(project.folder)["cow/9.jpg"] == "cat/9.jpg"
    assert project.take(exported) == ["1"], "what was said of itself comes first"
    assert Annotations(project.folder).marks == {"cat/9.jpg": "excluded"}
    (project.folder / ".duplicates" / "removed.csv").unlink()
    report = project.take(exported[:1])
    assert report == ["0", "cat/0.jpg: it was removed as a duplicate: bring it back with --restoreDuplicates"]


def test_exports_of_different_weeks_add_up_in_their_order(project: Project) -> None:
    task = {task["data"]["path"]: task for task in tasks(project.folder)}
    monday = project.save(
        [answered(task["cat/0.jpg"], "cow", at=MONDAY), answered(task["cow/9.jpg"], "cat", at=MONDAY)]
    )
    tuesday = project.save([answered(task["cat/0.jpg"], "dog & big", at=TUESDAY)])
    assert [project.again(path)[0] for path in (monday, tuesday)] == ["2", "1"]
    assert project.label("cat/0.jpg") == "dog & big" and project.label("cow/9.jpg") == "cat"
    report = project.again(monday)
    assert report == ["0", "dog & big/0-2.jpg: the answer 'cow' is older than the last change, at 2026-01-06 12:00 UTC"]
    assert project.again(tuesday) == ["0"]


def test_an_older_export_does_not_undo_what_a_newer_one_has_confirmed(project: Project) -> None:
    task = tasks(project.folder)[0]
    before = where(project.folder)
    assert project.take([answered(task, "cat", at=TUESDAY)]) == ["0"]
    assert project.take([answered(task, "cow", at=MONDAY)])[0] == "0"
    assert where(project.folder) == before
    assert Annotations(project.folder).state is None and not Annotations(project.folder).can_undo


def test_of_two_tasks_about_one_image_the_later_answer_counts(project: Project) -> None:
    task = tasks(project.folder)[0]
    one, other = answered(task, "cow", at=TUESDAY), {**answered(task, "dog & big", "cat", at=MONDAY), "id": 8}
    assert project.take([one, other]) == ["1"]
    assert project.label("cat/0.jpg") == "cow"


@pytest.mark.parametrize("at", [None, MONDAY, "9999-01-01T00:00:00Z"])
def test_what_was_changed_by_hand_later_stays_and_is_reported(project: Project, at: str | None) -> None:
    path = project.save([answered(task, "cow", at=at) for task in tasks(project.folder)[:2]])
    assert project.again(path) == ["2"]
    annotations = Annotations(project.folder)
    annotations.relabel([where(project.folder)["cat/0.jpg"]], "dog & big")
    after, annotated = where(project.folder), log(project.folder)
    report, problem = project.again(path)
    assert report == "0" and problem.startswith(
        "dog & big/0-2.jpg: the answer 'cow' is older than the last change, at 20"
    )
    annotations.undo()
    annotations.undo()
    assert where(project.folder) == {path: path for path in PATHS}, "taken back by hand"
    assert len(project.again(path)) == 3 and where(project.folder) == {path: path for path in PATHS}
    assert after != where(project.folder) and log(project.folder).startswith(annotated)


def test_a_later_answer_counts_more_than_an_earlier_change_by_hand(project: Project) -> None:
    Annotations(project.folder).relabel(["cat/0.jpg"], "dog & big")
    lines = log(project.folder).decode()
    time = json.loads(lines)["time"]
    (project.folder / ANNOTATIONS).write_text(lines.replace(time, "2026-01-05T23:00:00+00:00"))
    task = old_task("cat/0.jpg")
    assert project.take([answered(task, "cow", at=MONDAY)])[0] == "0"
    assert project.take([answered(task, "cow", at=TUESDAY)]) == ["1"]


def test_an_answer_whose_move_has_failed_is_taken_over_the_next_time(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = project.save([answered(task, "cow", at=MONDAY) for task in tasks(project.folder)[:2]])
    replace = Path.replace

    def refuse(self: Path, target: Path) -> Path:
        if self.name == "0.jpg":
            raise PermissionError(13, "Permission denied")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refuse)
    assert project.again(path) == ["1", "cat/0.jpg is left as it is: Permission denied"]
    monkeypatch.undo()
    assert project.again(path) == ["1"]
    assert project.label("cat/0.jpg") == "cow"


def test_a_name_in_another_unicode_form_means_the_same(project: Project) -> None:
    assert project.take([answered(old_task("cat/o\u0308.png"), "dog & big")]) == ["1"]


class Killed(BaseException):
    """Nothing catches it: the disk is left unchanged, as after kill -9."""


def kill_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Let the process die before, or after, the log or a file is changed for the so manieth time."""
    count = itertools.count(1)

    def dying(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> None:
            for moment in (lambda: function(*arguments, **more), lambda: None):
                if next(count) == step:
                    raise Killed
                moment()

        return call

    monkeypatch.setattr(annotations_module, "move", dying(annotations_module.move))
    monkeypatch.setattr(Annotations, "_append", dying(Annotations._append))


@pytest.mark.parametrize("at", [None, MONDAY], ids=["without a time", "with its time"])
def test_killed_anywhere_and_run_again_comes_to_the_same(project: Project, tmp_path: Path, at: str | None) -> None:
    said = {"cat/0.jpg": "dog & big", "dog & big/0.jpg": "cat", "cow/9.jpg": "excluded", "cat/ö.png": "cat"}
    exported = [answered(t, said[t["data"]["path"]], at=at) for t in tasks(project.folder) if t["data"]["path"] in said]
    path, spare = project.save(exported), tmp_path / "spare"
    shutil.copytree(project.folder, spare)
    assert project.again(path) == ["3"]
    expected = where(project.folder), Annotations(project.folder).state
    for step in range(1, 13):  # four lines of the log and two moves, each before and after
        shutil.rmtree(project.folder)
        shutil.copytree(spare, project.folder)
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            kill_at(patch, step)
            project.again(path)
        project.again(path)
        assert (where(project.folder), Annotations(project.folder).state) == expected, step
        assert project.again(path) == ["0"]


@pytest.mark.parametrize("seed", range(20))
def test_no_order_of_changes_by_hand_and_exports_loses_an_image_or_repeats_itself(project: Project, seed: int) -> None:
    """After each export, all images are where people, or a later hand, have put them; and a repeat changes nothing."""
    choose = random.Random(seed)
    labels = ["cat", "cow", "dog & big"]
    for path in PATHS:  # no class is ever empty
        (project.folder / path).with_name(f"stays-{path.replace('/', '-')}").write_text(f"stays {path}")
    for _ in range(6):
        written = [task for task in tasks(project.folder) if "stays" not in task["data"]["path"]]
        annotations = Annotations(project.folder)
        for _ in range(choose.randrange(3)):
            if choose.random() < 0.3:
                annotations.undo()
            else:
                moving = choose.sample([p for p in where(project.folder).values() if "stays" not in p], 2)
                annotations.relabel(moving, choose.choice(labels))
        wanted = {task["data"]["first_path"]: choose.choice(labels) for task in choose.sample(written, 3)}
        path = project.save(
            [answered(task, wanted[f]) for task in written if (f := task["data"]["first_path"]) in wanted]
        )
        project.again(path)
        assert {first: project.label(first) for first in wanted} == wanted
        assert len(where(project.folder)) == 2 * len(PATHS)
        before, annotated = where(project.folder), log(project.folder)
        assert project.again(path) == ["0"]
        assert (where(project.folder), log(project.folder)) == (before, annotated)


def test_a_damaged_log_is_not_built_upon(project: Project) -> None:
    (project.folder / ANNOTATIONS).write_bytes(b"\x00\xff\n")
    with pytest.raises(StorageError, match=r"annotations\.jsonl is damaged in line 1"):
        project.take([answered(old_task("cat/0.jpg"), "cow")])


def test_own_tasks_and_interface_are_distinguished_from_changed_ones(tmp_path: Path) -> None:
    example = Example("a \"b\" & 'c'/<0>.jpg", "a \"b\" & 'c'", "train", "g", 8, 8, 1, "0" * 64)
    for name, text in describe([example], dataset="pets").items():
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        assert is_ours(path)
        others = [text + " ", text.replace("image", "picture"), "[]", "{}", "7", "", "[" * 100_000]
        for changed in [*others, text.replace('choice="single"', 'choice="multiple"')]:
            path.write_text(changed, encoding="utf-8")
            assert is_ours(path) == (changed == text), changed


def test_a_split_on_disk_stays_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "images" / "pets"
    for path in ("train/cat/1.jpg", "train/dog/1.jpg", "test/cat/2.jpg", "test/cat/3.jpg"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(path)
    project = Project(folder)
    said = {"train/cat/1.jpg": "dog", "test/cat/2.jpg": "dog", "test/cat/3.jpg": "cat", "train/dog/1.jpg": "excluded"}
    export = project.save([answered(old_task(path), choice, at=TUESDAY) for path, choice in said.items()])
    assert project.again(export) == ["3"]
    assert where(folder) == {
        "train/cat/1.jpg": "train/dog/1-2.jpg",
        "test/cat/2.jpg": "test/dog/2.jpg",
        "test/cat/3.jpg": "test/cat/3.jpg",
        "train/dog/1.jpg": "train/dog/1.jpg",
    }
    before = log(folder)
    assert project.again(export) == ["0"] and log(folder) == before
    project.take([answered(old_task("test/cat/2.jpg"), "cat", at="2026-01-07T12:00:00Z")])
    assert where(folder)["test/cat/2.jpg"] == "test/cat/2.jpg"


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
@pytest.mark.parametrize("in_export", ["NFC", "NFD"])
def test_names_in_another_form_of_unicode(tmp_path: Path, on_disk: str, in_export: str) -> None:
    folder = tmp_path / "images" / "pets"
    mouse, cat = (unicodedata.normalize(on_disk, name) for name in ("Ma\u00fcs", "K\u00e4tz"))
    for path in (f"{mouse}/\u00e9.jpg", f"{cat}/1.jpg"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("1" if path.endswith("1.jpg") else "e")
    project = Project(folder)

    def task(path: str, choice: str, at: str) -> dict[str, Any]:
        path, choice = (unicodedata.normalize(in_export, text) for text in (path, choice))
        return answered(old_task(path), choice, at=at)

    export = project.save([task("Ma\u00fcs/\u00e9.jpg", "K\u00e4tz", TUESDAY)])
    assert project.again(export) == ["1"] and where(folder)["e"] == f"{cat}/\u00e9.jpg"
    assert project.again(export) == ["0"]
    assert project.take([task("Ma\u00fcs/\u00e9.jpg", "Ma\u00fcs", "2026-01-07T12:00:00Z")]) == ["1"]
    assert where(folder) == {"e": f"{mouse}/\u00e9.jpg", "1": f"{cat}/1.jpg"}


def test_an_export_that_an_editor_has_saved_as_utf_16(project: Project) -> None:
    path = project.save([answered(old_task("cat/0.jpg"), "cow", at=TUESDAY)])
    path.write_bytes(path.read_text().encode("utf-16"))
    assert project.again(path) == ["1"] and project.label("cat/0.jpg") == "cow"
