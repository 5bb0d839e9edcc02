"""Labels changed and images marked: nothing lost, nothing overwritten, everything undone and made again."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from libraries.base import storage
from libraries.base.errors import InputError, StorageError
from libraries.base.layout import ANNOTATIONS, Layout
from libraries.data import annotations as module
from libraries.data.annotations import Annotations
from tests.conftest import small_run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three classes; the content of each file says where it was at first."""
    folder = tmp_path / "images" / "textures"
    for path in ("cat/1.jpg", "cat/2.jpg", "cat/tom/1.jpg", "dog/1.jpg", "dog/2.jpg", "cow/9.jpg"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(path)
    return folder


def files(folder: Path) -> dict[str, str]:
    """Content by path, of all that is not hidden and not the log."""
    found = [p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".") and p.name != ANNOTATIONS]
    return {p.relative_to(folder).as_posix(): p.read_text() for p in found}


def whole(outcome: module.StepResult) -> list[tuple[str, str]]:
    """The moves of a step that met no problem."""
    assert outcome.problems == ()
    return [(change.before.path, change.after.path) for change in outcome.changes]


def test_another_label_moves_the_file_and_undo_moves_it_back(folder: Path) -> None:
    before = files(folder)
    annotations = Annotations(folder)
    assert not annotations.can_undo and annotations.state is None
    assert whole(annotations.relabel(["cow/9.jpg", "cat/tom/1.jpg"], "dog")) == [
        ("cow/9.jpg", "dog/9.jpg"),
        ("cat/tom/1.jpg", "dog/tom/1.jpg"),
    ]
    assert files(folder)["dog/tom/1.jpg"] == "cat/tom/1.jpg"
    assert annotations.moved == {"cow/9.jpg": "dog/9.jpg", "cat/tom/1.jpg": "dog/tom/1.jpg"}
    assert annotations.first_path("dog/9.jpg") == "cow/9.jpg"
    changed, state = files(folder), annotations.state
    assert state is not None
    whole(annotations.undo())
    assert files(folder) == before
    assert annotations.state is None and annotations.moved == {} and not annotations.can_undo
    whole(annotations.redo())
    assert files(folder) == changed and annotations.state == state and not annotations.can_redo


def test_no_file_is_ever_overwritten(folder: Path) -> None:
    contents = sorted(files(folder).values())
    annotations = Annotations(folder)
    assert whole(annotations.relabel(["cat/1.jpg"], "dog")) == [("cat/1.jpg", "dog/1-2.jpg")]
    assert whole(annotations.relabel(["dog/1.jpg", "dog/1-2.jpg"], "cow")) == [
        ("dog/1.jpg", "cow/1.jpg"),
        ("dog/1-2.jpg", "cow/1-2.jpg"),
    ]
    assert annotations.first_path("cow/1-2.jpg") == "cat/1.jpg"
    (folder / "dog" / "1.jpg").write_text("came later")
    assert whole(annotations.undo()) == [("cow/1-2.jpg", "dog/1-2.jpg"), ("cow/1.jpg", "dog/1-3.jpg")]
    assert sorted(files(folder).values()) == sorted([*contents, "came later"])
    assert files(folder)["dog/1.jpg"] == "came later"


def test_several_of_one_name_go_to_one_class(folder: Path) -> None:
    annotations = Annotations(folder)
    moves = whole(annotations.relabel(["cat/1.jpg", "dog/1.jpg"], "cow"))
    assert [new for _, new in moves] == ["cow/1.jpg", "cow/1-2.jpg"]
    before = files(folder)
    assert whole(annotations.relabel(["cow/1.jpg"], "cow")) == []
    assert files(folder) == before


def test_marks_move_nothing_and_follow_their_image(folder: Path) -> None:
    before = files(folder)
    annotations = Annotations(folder)
    whole(annotations.mark(["cat/1.jpg", "cat/2.jpg"], "ambiguous"))
    whole(annotations.mark(["cat/2.jpg"], "excluded"))
    assert annotations.marks == {"cat/1.jpg": "ambiguous", "cat/2.jpg": "excluded"}
    assert files(folder) == before
    whole(annotations.relabel(["cat/2.jpg"], "cow"))
    assert annotations.marks == {"cat/1.jpg": "ambiguous", "cow/2.jpg": "excluded"}
    whole(annotations.undo())
    whole(annotations.undo())
    assert annotations.marks == {"cat/1.jpg": "ambiguous", "cat/2.jpg": "ambiguous"}
    whole(annotations.mark(["cat/1.jpg", "cat/2.jpg"], None))
    assert annotations.state is None


def test_everything_survives_a_restart(folder: Path) -> None:
    before = files(folder)
    first = Annotations(folder)
    first.relabel(["cat/1.jpg"], "cow")
    first.mark(["dog/1.jpg"], "excluded")
    first.undo()
    second = Annotations(folder)
    assert (second.state, second.moved, second.marks) == (first.state, first.moved, first.marks)
    assert second.can_undo and second.can_redo
    whole(second.redo())
    assert second.marks == {"dog/1.jpg": "excluded"}
    for _ in range(2):
        whole(second.undo())
    assert files(folder) == before and not second.can_undo
    assert second.undo() == module.StepResult()


def test_moves_since_a_state(folder: Path) -> None:
    annotations = Annotations(folder)
    annotations.relabel(["cat/1.jpg"], "cow")
    then = annotations.state
    assert annotations.moves_since(None) == {"cat/1.jpg": "cow/1.jpg"}
    assert annotations.moves_since(then) == {}
    annotations.relabel(["dog/1.jpg"], "cat")  # the name that was free again
    annotations.relabel(["cow/1.jpg", "cow/9.jpg"], "dog")
    annotations.relabel(["dog/1.jpg"], "cat")
    annotations.undo()
    assert annotations.moves_since(then) == {
        "dog/1.jpg": "cat/1.jpg",
        "cow/1.jpg": "dog/1.jpg",
        "cow/9.jpg": "dog/9.jpg",
    }
    assert Annotations(folder).moves_since(None) == {
        "cat/1.jpg": "dog/1.jpg",
        "dog/1.jpg": "cat/1.jpg",
        "cow/9.jpg": "dog/9.jpg",
    }


def test_a_new_change_leaves_nothing_to_redo(folder: Path) -> None:
    annotations = Annotations(folder)
    annotations.mark(["cat/1.jpg"], "excluded")
    annotations.undo()
    annotations.mark(["cat/2.jpg"], "excluded")
    assert not annotations.can_redo
    annotations.redo()
    assert annotations.marks == {"cat/2.jpg": "excluded"}


def test_all_is_made_again_on_a_fresh_copy(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "fresh")
    annotations = Annotations(folder)
    annotations.relabel(["cat/1.jpg", "cow/9.jpg"], "dog")
    annotations.relabel(["dog/9.jpg"], "cat")
    annotations.mark(["dog/2.jpg"], "ambiguous")
    annotations.mark(["dog/1-2.jpg"], "excluded")
    shutil.copy(folder / ANNOTATIONS, tmp_path / "fresh")
    fresh = Annotations(tmp_path / "fresh")
    assert fresh.pending() == {"cat/1.jpg": "dog/1-2.jpg", "cow/9.jpg": "cat/9.jpg"}
    assert fresh.marks == {"dog/2.jpg": "ambiguous", "dog/1-2.jpg": "excluded"}
    whole(fresh.replay())
    assert files(tmp_path / "fresh") == files(folder)
    assert fresh.pending() == {}


def test_images_that_have_changed_places_do_so_again_on_a_fresh_copy(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "fresh")
    annotations = Annotations(folder)
    annotations.relabel(["dog/1.jpg"], "cow")
    annotations.relabel(["cat/1.jpg"], "dog")
    annotations.relabel(["cow/1.jpg", "cow/9.jpg"], "cat")
    annotations.relabel(["dog/2.jpg"], "cow")
    assert files(folder)["dog/1.jpg"] == "cat/1.jpg" and files(folder)["cat/1.jpg"] == "dog/1.jpg"
    assert annotations.pending() == {}
    shutil.copy(folder / ANNOTATIONS, tmp_path / "fresh")
    fresh = Annotations(tmp_path / "fresh")
    assert fresh.pending() == annotations.moved
    moves = whole(fresh.replay())
    assert dict(moves) == annotations.moved and files(tmp_path / "fresh") == files(folder)
    assert fresh.pending() == {} and Annotations(tmp_path / "fresh").pending() == {}


def test_replay_leaves_another_image_of_the_same_name_alone(folder: Path) -> None:
    annotations = Annotations(folder)
    annotations.relabel(["cow/9.jpg"], "dog")
    (folder / "dog" / "9.jpg").unlink()
    (folder / "cow" / "9.jpg").write_text("another cow")
    outcome = annotations.replay()
    assert outcome.changes == ()
    assert outcome.problems == ("cow/9.jpg is not moved: it is not the image that belongs at dog/9.jpg",)
    assert files(folder)["cow/9.jpg"] == "another cow"


def test_an_image_that_is_gone_is_reported_and_the_others_are_done(folder: Path) -> None:
    annotations = Annotations(folder)
    (folder / "cat" / "1.jpg").unlink()
    outcome = annotations.relabel(["cat/1.jpg", "cat/2.jpg"], "cow")
    assert [change.after.path for change in outcome.changes] == ["cow/2.jpg"]
    assert outcome.problems == ("cat/1.jpg is left as it is: No such file or directory",)
    assert annotations.relabel(["cat/1.jpg"], "cow").changes == ()
    whole(annotations.undo())
    assert files(folder)["cat/2.jpg"] == "cat/2.jpg"


def test_a_file_that_cannot_be_moved_stays_and_the_log_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = Path.replace

    def refuse(self: Path, target: Path) -> Path:
        if self.name == "1.jpg":
            raise PermissionError(13, "Permission denied")
        return replace(self, target)

    before = files(folder)
    annotations = Annotations(folder)
    monkeypatch.setattr(Path, "replace", refuse)
    outcome = annotations.relabel(["cat/1.jpg", "cat/2.jpg"], "cow")
    assert outcome.problems == ("cat/1.jpg is left as it is: Permission denied",)
    assert "cow/1.jpg" not in files(folder), "the empty file that claims the name is taken away"
    monkeypatch.undo()
    again = Annotations(folder)
    assert again.moved == annotations.moved == {"cat/2.jpg": "cow/2.jpg"}
    again.undo()
    assert files(folder) == before and again.state is None


def test_names_that_differ_only_in_case_stay_apart_where_case_does_not_count(folder: Path) -> None:
    (folder / "dog" / "A.JPG").write_text("upper", encoding="utf-8")
    (folder / "cow" / "a.jpg").write_text("lower", encoding="utf-8")
    whole(Annotations(folder).relabel(["dog/A.JPG", "cow/a.jpg"], "cat"))
    assert (folder / "cat" / "A.JPG").read_text(encoding="utf-8") == "upper"
    assert (folder / "cat" / "a-2.jpg").read_text(encoding="utf-8") == "lower"


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_changes_are_made_where_the_file_system_knows_no_flush(
    folder: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fsync(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)
    whole(Annotations(folder).relabel(["cat/1.jpg"], "cow"))
    assert Annotations(folder).moved == {"cat/1.jpg": "cow/1.jpg"}


def test_class_must_exist(folder: Path) -> None:
    with pytest.raises(InputError, match="has no folder 'bird': create it"):
        Annotations(folder).relabel(["cat/1.jpg"], "bird")
    with pytest.raises(InputError, match="cannot be a folder name"):
        Annotations(folder).relabel(["cat/1.jpg"], "../elsewhere")


def test_a_full_disk_changes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    annotations = Annotations(folder)
    annotations.mark(["cat/2.jpg"], "excluded")
    before, log = files(folder), (folder / ANNOTATIONS).read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="the disk is full"):
        annotations.relabel(["cat/1.jpg"], "cow")
    assert files(folder) == before and (folder / ANNOTATIONS).read_bytes() == log
    monkeypatch.undo()
    whole(annotations.relabel(["cat/1.jpg"], "cow"))
    assert Annotations(folder).moved == {"cat/1.jpg": "cow/1.jpg"}


def test_a_line_that_was_cut_off_never_happened(folder: Path) -> None:
    annotations = Annotations(folder)
    annotations.mark(["cat/2.jpg"], "excluded")
    with (folder / ANNOTATIONS).open("ab") as file:
        file.write(b'{"time": "2026-01-01T00:00:00+00:00", "kind": "cha')
    again = Annotations(folder)
    assert again.marks == {"cat/2.jpg": "excluded"}
    again.mark(["cat/1.jpg"], "excluded")
    assert len((folder / ANNOTATIONS).read_text().splitlines()) == 2
    assert Annotations(folder).marks == again.marks


def test_a_last_line_without_its_end_counts_and_is_kept(folder: Path) -> None:
    """As an editor may leave it."""
    Annotations(folder).mark(["cat/2.jpg"], "excluded")
    log = folder / ANNOTATIONS
    log.write_bytes(log.read_bytes().replace(b"\n", b"\r\n").removesuffix(b"\r\n"))
    one, other = Annotations(folder), Annotations(folder)
    assert one.marks == {"cat/2.jpg": "excluded"}
    assert Layout(small_run(folder.parents[1])).examples.parameters["annotations"] == one.state
    one.mark(["cat/1.jpg"], "excluded")
    other.mark(["dog/1.jpg"], "ambiguous")
    assert len(log.read_text().splitlines()) == 3
    assert Annotations(folder).marks == other.marks and len(other.marks) == 3


KILLED = """
import os, signal, sys
from pathlib import Path
from libraries.data import annotations
moves, move = 0, annotations.move
def killed(source, target):
    global moves
    moves += 1
    if moves == 2:
        if sys.argv[2] == "claimed":
            target.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    move(source, target)
annotations.move = killed
annotations.Annotations(Path(sys.argv[1])).relabel(["cat/1.jpg", "cat/2.jpg", "cow/9.jpg"], "dog")
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs Unix")
@pytest.mark.parametrize("moment", ["before", "claimed"])
def test_a_step_that_was_killed_can_be_finished(folder: Path, moment: str) -> None:
    before = files(folder)
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder), moment], check=False)
    assert done.returncode == -signal.SIGKILL
    assert "cat/2.jpg" in files(folder) and "cow/9.jpg" in files(folder)
    annotations = Annotations(folder)
    assert annotations.pending() == {"cat/2.jpg": "dog/2-2.jpg", "cow/9.jpg": "dog/9.jpg"}
    whole(annotations.replay())
    assert sorted(files(folder).values()) == sorted(before.values())
    assert files(folder)["dog/2-2.jpg"] == "cat/2.jpg" and files(folder)["dog/9.jpg"] == "cow/9.jpg"
    whole(annotations.undo())
    assert files(folder) == before


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs Unix")
@pytest.mark.parametrize("step", ["relabel(['dog/1-2.jpg'], 'cow')", "undo()"])
def test_a_killed_step_of_an_image_that_had_moved_before_can_be_finished(folder: Path, step: str) -> None:
    Annotations(folder).relabel(["cat/1.jpg"], "dog")
    assert files(folder)["dog/1-2.jpg"] == "cat/1.jpg"
    code = KILLED.replace("if moves == 2", "if moves == 1").rpartition(".relabel(")[0] + f".{step}"
    done = subprocess.run([sys.executable, "-c", code, str(folder), "before"], check=False)
    assert done.returncode == -signal.SIGKILL and files(folder)["dog/1-2.jpg"] == "cat/1.jpg"
    target = "cat/1.jpg" if step == "undo()" else "cow/1-2.jpg"
    annotations = Annotations(folder)
    assert annotations.pending() == {"dog/1-2.jpg": target}
    whole(annotations.replay())
    assert files(folder)[target] == "cat/1.jpg" and "dog/1-2.jpg" not in files(folder)
    assert annotations.pending() == {}


def test_two_notebooks_on_one_data_set(folder: Path) -> None:
    one, other = Annotations(folder), Annotations(folder)
    one.relabel(["cat/1.jpg"], "cow")
    other.mark(["cow/1.jpg"], "excluded")
    assert other.moved == {"cat/1.jpg": "cow/1.jpg"}
    one.refresh()
    assert one.marks == {"cow/1.jpg": "excluded"}
    whole(one.undo())
    assert Annotations(folder).marks == {} and other.marks == {"cow/1.jpg": "excluded"}
    other.refresh()
    assert other.marks == {}


def test_many_at_once_lose_nothing(folder: Path) -> None:
    def annotate(number: int) -> None:
        annotations = Annotations(folder)
        for i in range(10):
            path = f"cat/{number}-{i}.jpg"
            (folder / path).write_text(path)
            annotations.relabel([path], "cow")

    threads = [threading.Thread(target=annotate, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Annotations(folder).moved) == 40
    assert len([path for path in files(folder) if path.startswith("cow/")]) == 41


def test_a_log_in_use_is_reported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.05)
    annotations = Annotations(folder)
    with module.FileLock(folder / f".{ANNOTATIONS}.lock"), pytest.raises(StorageError, match="in use by another"):
        annotations.mark(["cat/1.jpg"], "excluded")


@pytest.mark.parametrize(
    "changes",
    [
        [["../secret.jpg", None, "cat/1.jpg", None, None]],
        [["cat/1.jpg", None, "/etc/1.jpg", None, None]],
        [["cat/1.jpg", None, "cat/../../1.jpg", None, None]],
        [["cat/1.jpg", None, "dog", None, None]],
        [["cat/1.jpg", None, "dog/\0", None, None]],
        [["cat/1.jpg", "wrong", "cat/1.jpg", None, None]],
        [["cat/1.jpg"]],
        "cat/1.jpg",
        [[1, None, 2, None, None]],
    ],
)
def test_a_strangers_log_is_not_trusted(folder: Path, changes: object) -> None:
    Annotations(folder).mark(["cat/2.jpg"], "excluded")
    with (folder / ANNOTATIONS).open("a") as file:
        file.write(json.dumps({"kind": "change", "changes": changes, "state": None}) + "\n")
    with pytest.raises(StorageError, match=r"annotations.jsonl is damaged in line 2 \("):
        Annotations(folder)


WHOLE = '{"time": "2026-01-01T00:00:00+00:00", "kind": "change", "changes": [], "state": null}'


@pytest.mark.parametrize(
    "line",
    [
        b"no json\n",
        b"[]\n",
        b'{"kind": "format"}\n',
        b"null\n",
        WHOLE[:40].encode() + b"\n",
        WHOLE.replace("null", "7").encode() + b"\n",
        WHOLE.replace(', "state": null', "").encode() + b"\n",
        WHOLE.replace('"change"', '["change"]').encode() + b"\n",
        WHOLE.replace("2026-", "").encode() + b"\n",
        WHOLE.replace("[]", "7").encode() + b"\n",
        WHOLE.replace("[]", "[[]]").encode() + b"\n",
        WHOLE.replace("[]", '[["cat/1.jpg", null, "dog/1.jpg", null, "0"]]').encode() + b"\n",
        WHOLE.replace("null}", 'null, "said": [7]}').encode() + b"\n",
        b"[" * 100_000 + b"\n",
        b"\xff\xfe\x00\r\x00\n",
        b"\x00" * 100,  # without an end, and no beginning of a line
        b"GIF89a\r..",
    ],
    ids=lambda line: repr(line[:60]),
)
def test_a_damaged_log_names_its_line(folder: Path, line: bytes) -> None:
    (folder / ANNOTATIONS).write_bytes(WHOLE.encode() + b"\n\n" + line)
    with pytest.raises(StorageError, match=r"annotations\.jsonl is damaged in line 3 \(.*fix the line") as caught:
        Annotations(folder)
    assert len(str(caught.value).splitlines()) == 1
    assert (folder / ANNOTATIONS).read_bytes().endswith(line)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("[]", "expected an object with kind, changes and state"),
        (WHOLE.replace("[]", "7"), "expected a list of changes, found 7"),
        (WHOLE.replace("[]", "[[], 1]"), r"change 1: expected \[path, mark, new path, new mark, SHA-256\], found \[\]"),
        (WHOLE.replace("null}", 'null, "said": [7]}'), "expected a time in 'said' for each of 0 changes, found"),
        (WHOLE.replace('"2026-01-01T00:00:00+00:00"', "7"), "expected a time, found 7"),
    ],
)
def test_what_is_wrong_with_a_line_is_said_in_words(folder: Path, line: str, problem: str) -> None:
    (folder / ANNOTATIONS).write_text(f"{line}\n")
    with pytest.raises(StorageError, match=rf"damaged in line 1 \({problem}"):
        Annotations(folder)


@pytest.mark.parametrize("line", [b"\xff\xfe\x00\n", b'{"state": 7}\n', b"null\n", b"[" * 100_000 + b"\n", b"\x00"])
def test_the_layout_names_the_line_that_is_damaged(folder: Path, line: bytes) -> None:
    (folder / ANNOTATIONS).write_bytes(WHOLE.encode() + b"\n" + line)
    with pytest.raises(StorageError, match=r"annotations\.jsonl is damaged in line 2 \(.*: fix the line, or move"):
        _ = Layout(small_run(folder.parents[1])).examples


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
@pytest.mark.parametrize("make", [Path.mkdir, lambda path: os.mkfifo(path)], ids=["folder", "pipe"])
def test_a_log_that_is_not_a_file_is_refused(folder: Path, make: Callable[[Path], None]) -> None:
    make(folder / ANNOTATIONS)
    with pytest.raises(StorageError, match=r"annotations\.jsonl cannot be read: it is not a regular file"):
        Annotations(folder)
    with pytest.raises(StorageError, match=r"annotations\.jsonl cannot be read: it is not a regular file"):
        _ = Layout(small_run(folder.parents[1])).examples


@pytest.mark.skipif(sys.platform == "win32", reason="needs links")
def test_a_relative_link_is_not_broken(folder: Path) -> None:
    (folder / "cat" / "link.jpg").symlink_to("1.jpg")
    outcome = Annotations(folder).relabel(["cat/link.jpg"], "dog")
    assert outcome.problems == ("cat/link.jpg is left as it is: it is a relative link, which would break",)
    assert (folder / "cat" / "link.jpg").read_text() == "cat/1.jpg"


def test_examples_are_stale_after_a_change_and_not_after_its_undo(folder: Path) -> None:
    root = folder.parents[1]
    examples = Layout(small_run(root)).examples
    (examples.folder).mkdir(parents=True)
    storage.write_text(examples.folder / "examples.csv", "")
    examples.commit([examples.folder / "examples.csv"])
    annotations = Annotations(folder)
    annotations.relabel(["cat/1.jpg"], "cow")
    with pytest.raises(
        storage.StaleInput,
        match=r'annotations = none, but now it is "1 moved, 0 marked, \w+": run scripts/1_prepareData.py',
    ):
        Layout(small_run(root)).examples.check()
    annotations.undo()
    Layout(small_run(root)).examples.check()


def test_what_is_decided_follows_every_step_and_its_undo(folder: Path) -> None:
    annotations = Annotations(folder)
    cat, other = "cat/1.jpg", "cow/9.jpg"

    def now() -> set[str]:
        again = Annotations(folder).history.state.decided
        assert set(again) == set(annotations.history.state.decided), "the log says the same"
        return set(again)

    assert now() == set()
    annotations.decide({cat: "cat"})
    assert now() == {cat}
    annotations.mark([cat], "excluded")
    annotations.undo()
    assert now() == {cat}, "the first decision still holds"
    annotations.decide({cat: "cat"})
    annotations.undo()
    assert now() == {cat}
    annotations.undo()
    assert now() == set()
    annotations.redo()
    assert now() == {cat}
    moved = annotations.decide({cat: "dog"}).changes[0].after.path
    assert now() == {moved}
    annotations.undo()
    assert now() == {cat}
    annotations.mark([other], "ambiguous")
    assert now() == {cat, other}
    annotations.mark([other], None)
    assert now() == {cat}, "a mark that is taken away again is no answer"


def test_an_image_of_the_pool_gets_a_label_and_goes_back_when_that_is_undone(folder: Path, tmp_path: Path) -> None:
    """Wherever links lead, and whatever the folders are called later."""
    pool = folder.with_name("textures.pool")
    (pool / "new").mkdir(parents=True)
    (pool / "new" / "1.jpg").write_text("from the pool")
    (pool / "2.jpg").write_text("unwanted")
    elsewhere = tmp_path / "elsewhere" / "textures"
    elsewhere.parent.mkdir()
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)
    annotations = Annotations(folder)
    assert whole(annotations.decide({".pool/new/1.jpg": "cat", ".pool/2.jpg": ""})) == [
        (".pool/new/1.jpg", "cat/new/1.jpg"),
        (".pool/2.jpg", ".pool/2.jpg"),
    ]
    assert files(folder)["cat/new/1.jpg"] == "from the pool" and files(pool) == {"2.jpg": "unwanted"}
    assert annotations.history.state.decided == {"cat/new/1.jpg", ".pool/2.jpg"}

    folder.unlink()
    elsewhere.rename(folder.with_name("renamed"))
    pool.rename(folder.with_name("renamed.pool"))
    annotations = Annotations(folder.with_name("renamed"))
    whole(annotations.undo())
    assert files(folder.with_name("renamed.pool")) == {"2.jpg": "unwanted", "new/1.jpg": "from the pool"}
    assert not annotations.history.state.decided


@pytest.mark.parametrize(
    "path", [".pool", ".pool/", ".pool/../cat/1.jpg", ".pool//1.jpg", ".pool/a\u0000b", ".pools/1.jpg"]
)
def test_a_strangers_log_reaches_nothing_beside_the_pool(folder: Path, path: str) -> None:
    changes = [[path, None, "cat/7.jpg", None, None]]
    (folder / ANNOTATIONS).write_text(json.dumps({"kind": "change", "changes": changes, "state": None}) + "\n")
    with pytest.raises(StorageError, match="is damaged in line 1"):
        Annotations(folder)


def test_a_log_that_was_moved_away_meanwhile_is_not_written_to(folder: Path) -> None:
    annotations = Annotations(folder)
    whole(annotations.relabel(["cat/1.jpg"], "dog"))
    before = files(folder)
    for moved in (folder / "aside", None):
        if moved is not None:
            (folder / ANNOTATIONS).rename(moved)
        else:
            (folder / ANNOTATIONS).write_bytes(b"")
        with pytest.raises(
            StorageError, match=r"annotations\.jsonl has been moved away, or replaced: open the data set"
        ):
            annotations.relabel(["cat/2.jpg"], "dog")
    assert (folder / ANNOTATIONS).read_bytes() == b""
    (folder / "aside").unlink()
    assert files(folder) == before


def test_a_mark_that_is_none_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match=r"^there is no mark 'foo': choose from ambiguous, excluded$"):
        Annotations(folder).mark(["cat/1.jpg"], "foo")  # type: ignore[arg-type]
    assert not (folder / ANNOTATIONS).exists()


def test_an_image_of_the_pool_is_a_training_image_where_the_split_is_on_disk(tmp_path: Path) -> None:
    folder = tmp_path / "textures"
    for path in ("dev/cat/1.jpg", "test/cat/2.jpg", "test/dog/2.jpg", "train/cat/3.jpg", "train/dog/3.jpg"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(path)
    pool = folder.with_name("textures.pool")
    pool.mkdir()
    for name in ("a.jpg", "b.jpg"):
        (pool / name).write_text(name)
    outcome = Annotations(folder).decide({".pool/a.jpg": "dog", ".pool/b.jpg": "cat"})
    assert whole(outcome) == [(".pool/a.jpg", "train/dog/a.jpg"), (".pool/b.jpg", "train/cat/b.jpg")]
