"""Script 0 and an object store: stopped, killed, on a full disk, refused; and what comes after it goes on as ever."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from libraries.base.errors import StorageError
from libraries.base.file_system import TEMPORARY
from libraries.base.layout import Layout
from libraries.base.tables import csv_records
from PARAMETERS import Parameters
from tests.conftest import command_line, files, run_main, small_run
from tests.fake_store import ROOT, FakeStore, serving, used
from tests.scripts.test_disk_full import disk

Process = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def served() -> Iterator[FakeStore]:
    with serving() as store:
        yield store


@pytest.fixture
def store(served: FakeStore, whole: dict[str, bytes]) -> Iterator[FakeStore]:
    """Holds the pictures, a folder per class."""
    served.reset()
    for path, content in whole.items():
        served.put(path, content)
    with used(served):
        yield served
    assert not served.written, "a store is only read"


@pytest.fixture(scope="module")
def whole(pictures: Path) -> dict[str, bytes]:
    """What the store holds, and the data set shall."""
    return {path.relative_to(pictures).as_posix(): path.read_bytes() for path in sorted(pictures.rglob("*.*"))}


@pytest.fixture
def parameters(tmp_path: Path) -> Parameters:
    return small_run(tmp_path / "data", imgStoreUrl=ROOT, download_workers=4, runHistory=False)


def there(parameters: Parameters) -> dict[str, bytes]:
    images = Layout(parameters).images
    return {name: (images / name).read_bytes() for name in files(images)}


def outcomes(parameters: Parameters) -> list[dict[str, str]]:
    with (Layout(parameters).proc / "stored_images.csv").open(encoding="utf-8", newline="") as file:
        return list(csv_records(file))


def test_from_the_store_to_a_data_set(
    store: FakeStore, whole: dict[str, bytes], parameters: Parameters, process: Process
) -> None:
    copied = process("0_downloadData", parameters)
    assert copied.returncode == 0, copied.stderr
    assert there(parameters) == whole
    assert "next: scripts/1_prepareData.py" in copied.stdout
    prepared = process("1_prepareData", parameters)
    assert prepared.returncode == 0, prepared.stderr
    store.forget()
    again = process("0_downloadData", parameters)
    assert again.returncode == 0
    assert (store.read, store.listed) == ([], 1)


def test_ctrl_c_ends_it_with_one_line_and_the_next_run_goes_on(
    store: FakeStore, whole: dict[str, bytes], parameters: Parameters
) -> None:
    stuck, halfway = threading.Event(), threading.Event()

    def answer(key: str) -> None:
        if key and len(store.read) > len(whole) // 2:
            halfway.set()
            stuck.wait(30)

    store.answers = answer
    with subprocess.Popen(
        command_line("0_downloadData", parameters), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        assert halfway.wait(60)
        start = time.monotonic()
        run.send_signal(signal.SIGINT)
        error = run.communicate(timeout=30)[1]
        assert time.monotonic() - start < 5
    stuck.set()
    assert (run.returncode, error.strip()) == (130, "0_downloadData.py: stopped. Run it again to continue.")
    before = there(parameters)
    assert before
    assert len(before) < len(whole)
    store.forget()
    store.answers = lambda key: None
    run_main("0_downloadData", parameters)
    assert there(parameters) == whole
    assert not before.keys() & set(store.read), "never twice"


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
@pytest.mark.parametrize("after", [1, 7, 20])
def test_killed_at_any_time(store: FakeStore, whole: dict[str, bytes], parameters: Parameters, after: int) -> None:
    """Nothing is lost or doubled, and a file of the user's own stays."""
    reached = threading.Event()

    def answer(key: str) -> None:
        if key and len(store.read) >= after:
            reached.set()

    store.answers = answer
    with subprocess.Popen(
        command_line("0_downloadData", parameters), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as run:
        assert reached.wait(60)
        run.kill()
    assert run.returncode == -signal.SIGKILL
    images = Layout(parameters).images
    # A file that is being moved into place may be empty: the next run knows it for its own.
    copied = {name: data for name, data in there(parameters).items() if data and TEMPORARY not in name}
    assert copied == {name: whole[name] for name in copied}
    mine = next(name for name in reversed(whole) if not (images / name).exists())
    (images / mine).parent.mkdir(parents=True, exist_ok=True)
    (images / mine).write_bytes(b"my own picture")
    run_main("0_downloadData", parameters)
    assert there(parameters) == whole | {mine: b"my own picture"}
    assert [row["path"] for row in outcomes(parameters)] == sorted(whole)
    assert [row["path"] for row in outcomes(parameters) if row["status"] == "kept"] == [mine]


def test_full_disk_and_then_space_again(
    store: FakeStore, whole: dict[str, bytes], parameters: Parameters, tmp_path: Path
) -> None:
    for room in (1, 9):
        with disk(room_for=room), pytest.raises(StorageError, match=r"the disk is full: .* could not be written"):
            run_main("0_downloadData", parameters)
        for _ in range(100):  # other threads may still be writing; a process would have ended here
            rubbish = [name for name in files(tmp_path) if TEMPORARY in name]
            if not rubbish:
                break
            time.sleep(0.05)
        assert not rubbish
    run_main("0_downloadData", parameters)
    assert there(parameters) == whole
    assert {row["path"]: row["sha256"] for row in outcomes(parameters)} == {
        name: hashlib.sha256(data).hexdigest() for name, data in whole.items()
    }


@pytest.mark.parametrize(
    ("option", "error"),
    [
        ("--imgStoreUrl=s3://key:word@pictures/flowers", "imgStoreUrl holds a user name or password: leave it out"),
        ("--imgStoreUrl=ftp://pictures/flowers", "imgStoreUrl: expected an address such as s3://bucket/folder"),
        ("--imgStoreUrl=s3://not-there/flowers", "cannot be listed: not found (NoSuchBucket)"),
        ("--imgStoreUrl=s3://pictures/empty", "s3://pictures/empty holds nothing: check imgStoreUrl"),
        ("--imgUrlsPath=list.tsv", "imgUrlsPath and imgStoreUrl are 2 sources: give only one of them"),
    ],
)
def test_refused_in_one_line(
    store: FakeStore, parameters: Parameters, process: Process, option: str, error: str
) -> None:
    done = process("0_downloadData", parameters, option)
    assert done.returncode in (1, 2)
    assert error in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "key:word" not in done.stdout + done.stderr
    assert not os.path.lexists(Layout(parameters).images)
