"""Atomic writing, and artefacts that know when they are stale."""

import errno
import os
import sys
from pathlib import Path

import pytest

from libraries.base import storage
from libraries.base.errors import MissingInput, StaleInput, StorageError
from libraries.base.file_system import sweep
from libraries.base.storage import Artefact


def test_atomic_leaves_the_old_file_when_the_block_fails(tmp_path: Path) -> None:
    target = tmp_path / "a" / "x.txt"
    storage.write_text(target, "old")
    with pytest.raises(ValueError), storage.atomic(target) as file:
        file.write(b"new, but")
        raise ValueError
    assert target.read_text() == "old"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize(
    ("code", "message"), [(errno.ENOSPC, "the disk is full: .*free some space"), (errno.EIO, "x.txt could not")]
)
def test_full_disk_is_a_storage_error_and_leaves_no_rubbish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, message: str
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageError, match=message):
        storage.write_text(tmp_path / "x.txt", "text")
    assert list(tmp_path.iterdir()) == []


def test_sweeping_takes_away_what_was_half_written_and_nothing_else(tmp_path: Path) -> None:
    for name in (".tmp-0123-a.jpg", "a.jpg", ".hidden"):
        (tmp_path / name).write_bytes(b"x")
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"a.jpg", ".hidden"}
    sweep(tmp_path / "nothing")
    sweep(tmp_path / "a.jpg")
    assert (tmp_path / "a.jpg").exists()


def test_json_refuses_nan_and_names_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        storage.write_json(tmp_path / "x.json", float("nan"))
    (tmp_path / "x.json").write_text('{"half": ')
    with pytest.raises(StorageError, match=r"x\.json cannot be read"):
        storage.read_json(tmp_path / "x.json")


def chain(tmp_path: Path, *, ratio: float = 0.75, size: int = 224) -> tuple[Artefact, Artefact]:
    examples = Artefact("examples.csv", tmp_path / "examples.json", "scripts/1_prepareData.py", {"ratio": ratio})
    features = Artefact(
        "features", tmp_path / "f" / "manifest.json", "scripts/3_runDNN.py", {"size": size}, (examples,)
    )
    return examples, features


def make(artefact: Artefact, content: str) -> None:
    path = artefact.folder / f"{artefact.name}.bin"
    storage.write_text(path, content)
    artefact.commit([path])


def test_check_names_what_is_missing_or_stale_and_the_script_to_run(tmp_path: Path) -> None:
    examples, features = chain(tmp_path)
    with pytest.raises(MissingInput, match=r"examples\.json does not exist: run scripts/1_prepareData\.py first"):
        features.check()
    make(examples, "one")
    with pytest.raises(MissingInput, match=r"run scripts/3_runDNN\.py first"):
        features.check()
    make(features, "embeddings")
    assert features.is_current()

    with pytest.raises(
        StaleInput, match=r"features was made with size = 224, but now it is 300: run scripts/3_runDNN\.py again"
    ):
        chain(tmp_path, size=300)[1].check()
    with pytest.raises(
        StaleInput, match=r"examples\.csv was made with ratio = 0\.75, .*run scripts/1_prepareData\.py again"
    ):
        chain(tmp_path, ratio=0.8)[1].check()
    make(examples, "two")
    with pytest.raises(StaleInput, match=r"examples\.csv has changed since features was made from it"):
        features.check()
    make(features, "embeddings")
    (features.folder / "features.bin").unlink()
    with pytest.raises(StaleInput, match=r"features\.bin is gone"):
        features.check()


def test_begin_makes_it_unfinished(tmp_path: Path) -> None:
    examples, _ = chain(tmp_path)
    make(examples, "one")
    examples.begin()
    assert not examples.is_current()


def test_key_depends_on_parameters_and_content_of_inputs(tmp_path: Path) -> None:
    examples, features = chain(tmp_path)
    make(examples, "one")
    first = features.key()
    assert first == chain(tmp_path)[1].key()
    assert first != chain(tmp_path, size=300)[1].key()
    make(examples, "two")
    assert first != features.key()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
def test_a_library_that_keeps_its_file_to_itself_does_not_decide_who_may_read_it(tmp_path: Path) -> None:
    with storage.atomic_path(tmp_path / "weights") as temporary:
        temporary.unlink()
        temporary.touch(0o600)
    (tmp_path / "usual").touch()
    assert (tmp_path / "weights").stat().st_mode == (tmp_path / "usual").stat().st_mode
