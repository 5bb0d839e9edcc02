"""Files that this project wrote are written again, and nobody else's."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from libraries.base.errors import StorageError
from libraries.data.exchange import export
from libraries.data.exchange.export import OwnFiles


def files(folder: Path) -> OwnFiles:
    return OwnFiles(folder / "proc" / "record.json", is_ours=lambda path: path.read_bytes() == b"earlier version")


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def test_own_files_are_written_again(tmp_path: Path) -> None:
    one, other = tmp_path / "one.csv", tmp_path / "other.json"
    other.write_text("earlier version")
    assert files(tmp_path).write({one: "1", other: "2"}) == [one, other]
    files(tmp_path).write({one: "3", other: "4"})
    one.unlink()
    files(tmp_path).check([one, other])
    files(tmp_path).write({one: "5", other: "6"})
    assert contents(tmp_path) == {"one.csv": b"5", "other.json": b"6"}


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_text("edited"),
        lambda path: path.write_bytes(b""),
        lambda path: (path.unlink(), path.mkdir()),
        lambda path: (path.unlink(), path.symlink_to("nowhere")),
        pytest.param(
            lambda path: (path.unlink(), os.mkfifo(path)),
            marks=pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes"),
        ),
    ],
)
def test_a_changed_file_belongs_to_the_user(tmp_path: Path, change: Callable[[Path], object]) -> None:
    own = OwnFiles(tmp_path / "proc" / "record.json", is_ours=lambda path: False)
    one, other = tmp_path / "one.csv", tmp_path / "other.json"
    own.write({one: "1", other: "2"})
    record = (tmp_path / "proc" / "record.json").read_bytes()
    change(other)
    before = contents(one.parent) if other.is_file() else None
    for attempt in (lambda: own.check([one, other]), lambda: own.write({one: "3", other: "4"})):
        with pytest.raises(StorageError, match=r"other\.json was not written by this script, or has been changed"):
            attempt()
    assert one.read_text() == "1" and (tmp_path / "proc" / "record.json").read_bytes() == record
    assert before is None or contents(one.parent) == before


def test_killed_between_two_files_and_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = OwnFiles(tmp_path / "proc" / "record.json", is_ours=lambda path: False)
    texts = {tmp_path / "one.csv": "1", tmp_path / "other.json": "2"}
    own.write(texts)
    write_text = export.write_text

    def die(path: Path, text: str) -> None:
        if path.name == "other.json":
            raise KeyboardInterrupt
        write_text(path, text)

    monkeypatch.setattr(export, "write_text", die)
    with pytest.raises(KeyboardInterrupt):
        own.write({path: text + "new" for path, text in texts.items()})
    monkeypatch.undo()
    own.write({path: text + "newer" for path, text in texts.items()})
    assert contents(tmp_path) == {"one.csv": b"1newer", "other.json": b"2newer"}


@pytest.mark.parametrize("record", ["[]", '{"one.csv": 7}', "no json"])
def test_a_damaged_record_is_named(tmp_path: Path, record: str) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "record.json").write_text(record)
    with pytest.raises(StorageError, match=r"record\.json"):
        files(tmp_path).check([tmp_path / "one.csv"])
