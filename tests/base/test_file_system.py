"""The rules of Windows, of network drives and of odd file systems, each imitated on this one."""

import contextlib
import errno
import io
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from libraries.base import file_system, storage
from libraries.base.errors import PipelineError, StorageError
from libraries.data.dataset import read_examples
from libraries.web.download.outcomes import read_outcomes
from libraries.web.search.search import SearchLog, read_results, write_results
from libraries.widgets.results import read_predictions

Replace = Callable[..., None]


def error_of(number: int, *, windows: int | None = None, names: Path | None = None) -> OSError:
    """An error as the system raises it; `windows` is the number that Windows has for it."""
    error = OSError(number, os.strerror(number), *([str(names)] if names else []))
    if windows is not None:
        error.winerror = windows  # type: ignore[attr-defined,unused-ignore]
    return error


@contextlib.contextmanager
def replacing(how: Callable[[Replace, str, str], None]) -> Iterator[None]:
    """Let `how(os.replace, source, target)` take the place of `os.replace`."""
    whole = os.replace
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", lambda source, target: how(whole, os.fspath(source), os.fspath(target)))
        yield


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that would have been made."""
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    return pauses


def test_files_are_flushed_by_handles_that_can_be_written_as_windows_wants_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed = []

    def fsync(descriptor: int) -> None:
        os.write(descriptor, b"")  # raises EBADF where it was opened for reading
        flushed.append(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with storage.atomic_path(tmp_path / "a.onnx") as temporary:
        temporary.write_bytes(b"graph")
    with storage.atomic(tmp_path / "b.csv") as file:
        file.write(b"table")
    assert len(flushed) == 2
    assert (tmp_path / "a.onnx").read_bytes() == b"graph"


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS])
def test_file_systems_that_know_no_flush_are_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fsync(descriptor: int) -> None:
        raise error_of(number)

    monkeypatch.setattr(os, "fsync", fsync)
    storage.write_text(tmp_path / "a.txt", "text")
    with storage.atomic_path(tmp_path / "b.txt") as temporary:
        temporary.write_text("text", encoding="utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b.txt"]


@pytest.mark.parametrize("number", [errno.EEXIST, errno.ENOTSUP, errno.EPERM, errno.EINVAL])
def test_file_systems_that_rename_no_file_over_another(tmp_path: Path, number: int) -> None:
    def only_to_free_names(replace: Replace, source: str, target: str) -> None:
        if os.path.lexists(target):
            raise error_of(number, names=Path(target))
        replace(source, target)

    target, image = tmp_path / "x.txt", tmp_path / "image.jpg"
    image.write_bytes(b"pixels")
    with replacing(only_to_free_names):
        storage.write_text(target, "old")
        storage.write_text(target, "new")
        file_system.move(image, tmp_path / "class" / "image.jpg")
    assert target.read_text(encoding="utf-8") == "new"
    assert (tmp_path / "class" / "image.jpg").read_bytes() == b"pixels"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["class", "image.jpg", "x.txt"]


def test_a_file_that_cannot_even_step_aside_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(replace: Replace, source: str, target: str) -> None:
        raise error_of(errno.EPERM, names=Path(target))

    def rename(path: Path, target: Path) -> Path:
        raise error_of(errno.EPERM, names=path)

    target = tmp_path / "x.txt"
    target.write_text("old", encoding="utf-8")
    monkeypatch.setattr(Path, "rename", rename)
    with replacing(never), pytest.raises(StorageError, match=r"x\.txt could not be written: permission denied; give"):
        storage.write_text(target, "new")
    assert [(path.name, path.read_text(encoding="utf-8")) for path in tmp_path.iterdir()] == [("x.txt", "old")]


@pytest.mark.parametrize("number", [5, 32])
def test_a_file_that_is_open_elsewhere_is_waited_for(tmp_path: Path, no_waiting: list[float], number: int) -> None:
    tries = []

    def in_use_at_first(replace: Replace, source: str, target: str) -> None:
        tries.append(target)
        if len(tries) < 4:
            raise error_of(errno.EACCES, windows=number, names=Path(target))
        replace(source, target)

    with replacing(in_use_at_first):
        storage.write_text(tmp_path / "x.txt", "text")
    assert (tmp_path / "x.txt").read_text(encoding="utf-8") == "text"
    assert len(no_waiting) == 3


def test_a_file_that_stays_open_elsewhere_is_named_after_some_tries(tmp_path: Path, no_waiting: list[float]) -> None:
    def in_use(replace: Replace, source: str, target: str) -> None:
        raise error_of(errno.EACCES, windows=32, names=Path(target))

    target = tmp_path / "x.txt"
    target.write_text("old", encoding="utf-8")
    with replacing(in_use), pytest.raises(StorageError) as caught:
        storage.write_text(target, "new")
    assert str(caught.value) == (
        f"{target} could not be written: permission denied; give your user access, or close the program that has it "
        "open"
    )
    assert 1 < sum(no_waiting) < 5
    assert [path.name for path in tmp_path.iterdir()] == ["x.txt"]


def test_nobody_waits_where_permission_will_not_come(tmp_path: Path, no_waiting: list[float]) -> None:
    def denied(replace: Replace, source: str, target: str) -> None:
        raise error_of(errno.EACCES, names=Path(target))

    with replacing(denied), pytest.raises(StorageError, match="permission denied"):
        storage.write_text(tmp_path / "x.txt", "text")
    assert no_waiting == []


def test_a_folder_in_place_of_a_file_is_reported_and_left(tmp_path: Path) -> None:
    (tmp_path / "x.txt" / "mine").mkdir(parents=True)
    with pytest.raises(StorageError, match=r"x\.txt could not be written: it is a folder; move it away"):
        storage.write_text(tmp_path / "x.txt", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["x.txt"]


def test_what_is_in_the_way_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "proc").symlink_to("nowhere")
    with pytest.raises(StorageError, match=f"because of {tmp_path / 'proc'}: something else has this name"):
        storage.write_text(tmp_path / "proc" / "x.txt", "text")


def two_disks(replace: Replace, source: str, target: str) -> None:
    """Every folder is a separate disk."""
    if Path(source).parent != Path(target).parent:
        raise error_of(errno.EXDEV, names=Path(source))
    replace(source, target)


def test_a_file_moves_to_another_disk_with_its_times(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    source, target = tmp_path / "cat" / "1.jpg", tmp_path / "dog" / "1.jpg"
    source.write_bytes(b"pixels")
    os.utime(source, (1, 1))
    with replacing(two_disks):
        file_system.move(source, target)
    assert [path.name for path in tmp_path.rglob("*.*")] == ["1.jpg"]
    assert (target.read_bytes(), target.stat().st_mtime) == (b"pixels", 1)


def test_a_move_to_a_full_disk_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(descriptor: int) -> None:
        raise error_of(errno.ENOSPC)

    (tmp_path / "cat").mkdir()
    source, target = tmp_path / "cat" / "1.jpg", tmp_path / "dog" / "1.jpg"
    source.write_bytes(b"pixels")
    monkeypatch.setattr(os, "fsync", fsync)
    with replacing(two_disks), pytest.raises(OSError, match="No space left"):
        file_system.move(source, target)
    assert source.read_bytes() == b"pixels"
    assert list(target.parent.iterdir()) == []


def test_moving_never_overwrites(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name, encoding="utf-8")
    with pytest.raises(FileExistsError):
        file_system.move(tmp_path / "a", tmp_path / "b")
    assert [(tmp_path / name).read_text(encoding="utf-8") for name in ("a", "b")] == ["a", "b"]


def test_temporary_names_are_no_longer_than_names_may_be(tmp_path: Path) -> None:
    target = tmp_path / ("🦋" * 60 + ".json")  # 245 bytes of the 255 there may be
    storage.write_text(target, "text")
    assert target.read_text(encoding="utf-8") == "text"


def test_leftovers_that_cannot_be_removed_stop_nobody(tmp_path: Path) -> None:
    (tmp_path / ".tmp-0-folder").mkdir()
    (tmp_path / ".tmp-1-file").touch()
    file_system.sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".tmp-0-folder"]


def test_errors_say_what_to_do() -> None:
    def message(number: int, name: str = "", windows: int | None = None) -> str:
        return file_system.explained(error_of(number, windows=windows, names=Path(name) if name else None))

    assert message(errno.EROFS).startswith("the disk is read-only; make it writable")
    assert message(errno.ENOENT, "x").startswith("it, or a folder above it, does not exist")
    too_long = "its path is too long; choose shorter names, or a shorter rootDir"
    assert message(errno.ENAMETOOLONG, "x") == too_long
    assert message(errno.ENOENT, "C:/" + "x" * 300, windows=3) == too_long
    assert message(errno.ENOENT, "x", windows=206) == too_long
    assert "does not exist" in message(errno.ENOENT, "x" * 300)
    assert message(errno.EXDEV) == os.strerror(errno.EXDEV)
    assert file_system.file_error(io.UnsupportedOperation("read")) is None
    assert file_system.file_error(ConnectionResetError(errno.ECONNRESET, "reset")) is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
@pytest.mark.parametrize(
    "read",
    [
        read_results,
        SearchLog,
        lambda path: write_results([], urls=path, table=path.with_name("none.csv")),
        lambda path: list(read_outcomes(path)),
        read_predictions,
        read_examples,
        lambda path: storage.read_manifest(path, made_by="it"),
    ],
    ids=["found images", "searches", "URLs", "downloads", "predictions", "examples", "manifest"],
)
def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path: Path, read: Callable[[Path], object]) -> None:
    os.mkfifo(path := tmp_path / "list.tsv")
    with pytest.raises(PipelineError, match=r"list\.tsv .*(not a regular file|not written by this script)"):
        read(path)


@pytest.mark.parametrize(
    "content", [b"", b"\0\xff", b'{"half": ', b"[]", b"null", b"{}", b'{"files": 1}', b"[" * 99_999]
)
def test_damaged_manifest_names_the_script_to_run(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.json").write_bytes(content)
    artefact = storage.Artefact("x", tmp_path / "x.json", "scripts/x.py", {})
    with pytest.raises(StorageError, match=r"x\.json cannot be read \(.*\): run scripts/x\.py again") as caught:
        artefact.read()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["[]", "null", '{"a": [1]}', '{"files": 1}', '{"files": {}, "inputs": []}'])
def test_a_manifest_of_another_form_is_damaged(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(StorageError, match=r"x\.json cannot be read \(it is damaged\): run scripts/x\.py again"):
        storage.read_manifest(tmp_path / "x.json", made_by="scripts/x.py")


def test_a_file_in_place_of_a_folder_is_named_when_reading(tmp_path: Path) -> None:
    (tmp_path / "root").touch()
    with pytest.raises(NotADirectoryError) as caught:
        file_system.open_regular(tmp_path / "root" / "images" / "log")
    problem = f"{tmp_path / 'root'} is a file where a folder should be; move it away"
    assert file_system.explained(caught.value) == problem


def test_json_takes_names_that_are_no_unicode(tmp_path: Path) -> None:
    storage.write_json(tmp_path / "x.json", {"path": "a\udcff–", "text": "ö"})
    assert storage.read_json(tmp_path / "x.json") == {"path": "a\udcff–", "text": "ö"}
    assert "ö" in (tmp_path / "x.json").read_text(encoding="utf-8")
