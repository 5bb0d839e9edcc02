"""Duplicates removed and brought back: the largest stays, nothing is lost, whatever happens in between."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from libraries.data import removal, solar_cells
from libraries.data.annotations import Annotations
from libraries.data.dataset import Example
from libraries.data.duplicates import Duplicates
from libraries.data.fingerprints import Pairs
from libraries.data.removal import REMOVED, Removal, plan, remove, removed, restore


def example(path: str, *, side: int = 10, size: int = 100) -> Example:
    return Example(path, path.split("/")[0], "train", path, side, side, size, path)


def pairs(*rows: tuple[int, int, float]) -> Pairs:
    one, other, measure = (np.array(column) for column in zip(*rows, strict=True)) if rows else ([], [], [])
    return Pairs(np.array(one, np.int64), np.array(other, np.int64), np.array(measure, np.float32))


def found(examples: list[Example], *, exact: Pairs | None = None, near: Pairs | None = None) -> Duplicates:
    return Duplicates(examples, {"exact": exact or pairs(), "near": near or pairs()})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The content of each file says where it was at first."""
    for path in ("cat/1.jpg", "cat/2.jpg", "cat/tom/1.jpg", "cat/tom/2.jpg", "dog/1.jpg"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(path)
    return tmp_path


REMOVALS = [
    Removal("cat/2.jpg", "cat/1.jpg", "exact", 0),
    Removal("cat/tom/1.jpg", "cat/1.jpg", "near", 7),
    Removal("cat/tom/2.jpg", "cat/1.jpg", "near", 8),
]


def files(folder: Path) -> dict[str, str]:
    """Content by path, of images that are not empty."""
    found = [p for p in folder.rglob("*.jpg") if p.stat().st_size]
    return {p.relative_to(folder).as_posix(): p.read_text() for p in found}


def test_the_largest_stays() -> None:
    examples = [
        example("cat/few pixels.jpg", side=9, size=900),
        example("cat/few bytes.jpg", size=99),
        example("cat/second by name.jpg"),
        example("cat/first by name.jpg"),
    ]
    removals, contradicting = plan(found(examples, exact=pairs((1, 2, 0)), near=pairs((0, 1, 3), (1, 3, 5))))
    assert contradicting == []
    assert removals == [
        Removal("cat/second by name.jpg", "cat/first by name.jpg", "near", 5),
        Removal("cat/few bytes.jpg", "cat/first by name.jpg", "near", 5),
    ], "the first is like the second, but not like the one that stays"


def test_a_copy_goes_only_if_it_is_like_the_one_that_stays() -> None:
    chain = [example(f"cat/{i}.jpg", side=20 - i) for i in range(5)]
    removals, _ = plan(found(chain, near=pairs((0, 1, 9), (1, 2, 9), (2, 3, 9), (3, 4, 9))))
    assert [(r.path, r.kept) for r in removals] == [("cat/1.jpg", "cat/0.jpg"), ("cat/3.jpg", "cat/2.jpg")]


def test_exact_copies_of_near_copies_go_too() -> None:
    examples = [example("cat/0.jpg"), example("cat/1.jpg"), example("cat/2.jpg", side=50)]
    removals, _ = plan(found(examples, exact=pairs((0, 1, 0)), near=pairs((0, 2, 4))))
    assert removals == [Removal(f"cat/{i}.jpg", "cat/2.jpg", "near", 4) for i in (0, 1)]


def test_two_labels_leave_the_whole_group_alone() -> None:
    examples = [example(path) for path in ("cat/0.jpg", "cat/1.jpg", "dog/2.jpg", "dog/3.jpg", "dog/4.jpg")]
    removals, contradicting = plan(found(examples, exact=pairs((0, 1, 0), (3, 4, 0)), near=pairs((0, 2, 4))))
    assert contradicting == [["cat/0.jpg", "cat/1.jpg", "dog/2.jpg"]]
    assert [r.path for r in removals] == ["dog/4.jpg"]


def test_pictures_of_a_scene_stay() -> None:
    of_scene = Duplicates([example("cat/0.jpg"), example("cat/1.jpg")], {"exact": pairs(), "scene": pairs((0, 1, 1))})
    assert plan(of_scene) == ([], [])


def test_removed_and_brought_back(folder: Path) -> None:
    before = files(folder)
    moved = remove(folder, REMOVALS)
    assert moved.problems == [] and moved.paths == {r.path: r.path for r in REMOVALS}
    assert set(files(folder)) == {"cat/1.jpg", "dog/1.jpg", *(f"{REMOVED}/{r.path}" for r in REMOVALS)}
    assert sorted(removed(folder)) == sorted(r.path for r in REMOVALS)
    listed = (folder / REMOVED / "removed.csv").read_text().splitlines()
    assert (listed[0], listed[2]) == ("path,kept,kind,distance", "cat/tom/1.jpg,cat/1.jpg,near,7")
    assert len(listed) == 4
    assert restore(folder).problems == []
    assert files(folder) == before and not (folder / REMOVED).exists()
    assert restore(folder).paths == {} and remove(folder, []).paths == {}
    assert not (folder / REMOVED).exists(), "what has nothing to do writes nothing"


def test_the_list_grows(folder: Path) -> None:
    assert remove(folder, REMOVALS[:1]).summary_lines("moved") == ["1 duplicate moved"]
    assert remove(folder, REMOVALS[1:]).summary_lines("moved") == ["2 duplicates moved"]
    assert len((folder / REMOVED / "removed.csv").read_text().splitlines()) == 4


def test_no_file_is_ever_overwritten(folder: Path) -> None:
    contents = sorted([*files(folder).values(), "later", "later still"])
    remove(folder, REMOVALS)
    (folder / "cat" / "2.jpg").write_text("later")
    assert remove(folder, REMOVALS[:1]).paths == {"cat/2.jpg": "cat/2-2.jpg"}
    (folder / "cat" / "2.jpg").write_text("later still")
    restore(folder)
    assert {"cat/2.jpg", "cat/2-2.jpg", "cat/2-3.jpg"} < set(files(folder))
    assert sorted(files(folder).values()) == contents


def test_what_cannot_be_moved_stays_and_is_named(folder: Path) -> None:
    (folder / "cat" / "link.jpg").symlink_to("1.jpg")
    moved = remove(folder, [Removal("cat/link.jpg", "cat/1.jpg", "exact", 0), Removal("cat/no.jpg", "x", "exact", 0)])
    assert moved.paths == {}
    assert moved.problems[0] == "cat/link.jpg is left where it is: it is a relative link, which would break"
    assert moved.problems[1].startswith("cat/no.jpg is left where it is: No such file")
    assert files(folder)["cat/link.jpg"] == "cat/1.jpg"
    assert removed(folder) == []


def test_a_damaged_list_is_no_obstacle(folder: Path) -> None:
    remove(folder, REMOVALS)
    (folder / REMOVED / "removed.csv").write_bytes(b"\xff\x00 what is this")
    assert remove(folder, [Removal("dog/1.jpg", "dog/0.jpg", "exact", 0)]).problems == []
    assert len((folder / REMOVED / "removed.csv").read_text().splitlines()) == 2
    assert len(restore(folder).paths) == 4


KILLED = """
import os, signal, sys
from pathlib import Path
from libraries.data import removal
from tests.data.test_removal import REMOVALS
moves, move = 0, removal.move
def killed(source, target):
    global moves
    moves += 1
    if moves == 2:
        if sys.argv[3] == "claimed":
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    move(source, target)
removal.move = killed
folder = Path(sys.argv[1])
removal.remove(folder, REMOVALS) if sys.argv[2] == "remove" else removal.restore(folder)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs Unix")
@pytest.mark.parametrize("moment", ["before", "claimed"])
@pytest.mark.parametrize("what", ["remove", "restore"])
def test_killed_at_any_moment_nothing_is_lost(folder: Path, what: str, moment: str) -> None:
    before = files(folder)
    if what == "restore":
        remove(folder, REMOVALS)
    command = [sys.executable, "-c", KILLED, str(folder), what, moment]
    done = subprocess.run(command, check=False, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])})
    assert done.returncode == -signal.SIGKILL
    assert sorted(files(folder).values()) == sorted(before.values()), "each file is in one of the two places"
    assert len(files(folder).keys() & before.keys()) not in (2, 5), "it was in the middle"
    if what == "remove":
        there = [r for r in REMOVALS if (folder / r.path).exists()]
        assert len(remove(folder, there).paths) == 2
        assert set(files(folder)) == {"cat/1.jpg", "dog/1.jpg", *(f"{REMOVED}/{r.path}" for r in REMOVALS)}
    assert restore(folder).problems == []
    assert files(folder) == before


def test_a_notebook_that_changes_labels_meanwhile_waits(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = []
    monkeypatch.setattr(removal, "move", lambda source, target: states.append(locked(folder)))
    remove(folder, REMOVALS[:1])
    assert states == [True] and not locked(folder)


def locked(folder: Path) -> bool:
    from filelock import FileLock, Timeout

    lock = FileLock(folder / ".annotations.jsonl.lock", timeout=0, is_singleton=False)
    try:
        with lock:
            return False
    except Timeout:
        return True


def test_labels_changed_by_hand_go_on_as_before(folder: Path) -> None:
    annotations = Annotations(folder)
    annotations.relabel(["cat/1.jpg"], "dog")
    remove(folder, REMOVALS[:1])
    assert Annotations(folder).undo().problems == ()
    restore(folder)
    assert files(folder)["cat/1.jpg"] == "cat/1.jpg" and files(folder)["cat/2.jpg"] == "cat/2.jpg"


def test_packaged_images_that_were_removed_are_not_copied_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "elpv_dataset"
    (package / "data" / "images").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "data" / "labels.csv").write_text("images/a.png 0 mono\nimages/b.png 0 mono\nimages/c.png 1 mono\n")
    for name in "abc":
        (package / "data" / "images" / f"{name}.png").write_text(name)
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = tmp_path / "images"
    assert solar_cells.copy_solar_cells(folder) == 3
    remove(folder, [Removal("functional/b.png", "functional/a.png", "exact", 0)])
    assert solar_cells.copy_solar_cells(folder) == 0
    restore(folder)
    assert (folder / "functional" / "b.png").read_text() == "b"
