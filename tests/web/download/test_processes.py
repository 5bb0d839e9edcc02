"""Long lists are downloaded by several processes: like threads, and without leaving processes behind."""

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from libraries.base.errors import DownloadError, StorageError
from libraries.web.download import download as download_module
from libraries.web.download.outcomes import UrlOutcome, read_outcomes, summary
from libraries.web.download.saving import Attempt, SavedImage
from libraries.web.fetch import Timeouts
from PARAMETERS import Parameters
from tests.conftest import command_line, hashes
from tests.web.conftest import download_with

Make = Callable[..., bytes]


def run(root: Path, urls: list[tuple[str, str]], *, processes: int | None = 2, **changes: Any) -> list[UrlOutcome]:
    options: dict[str, Any] = {
        "workers": 8,
        "processes": processes,
        "allowed_hosts": ["127.0.0.1"],
        "timeouts": Timeouts(connect=5, read=5, total=10),
        "wait": lambda tries, retry_after: 0.0,
        **changes,
    }
    return list(download_with(urls, folder=root / "images", outcomes=root / "downloads.csv", **options))


def rows(root: Path) -> list[dict[str, str]]:
    """The table without the times."""
    with (root / "downloads.csv").open(encoding="utf-8", newline="") as file:
        return [{**row, "seconds": ""} for row in csv.DictReader(file)]


def test_processes_do_what_threads_do(web: Any, tmp_path: Path, make_picture: Make) -> None:
    urls = [("käse", web.give(f"/{i}.jpg", make_picture(i, width=900 + 10 * i))) for i in range(20)]
    urls += [("b", urls[3][1]), ("b", web.url("/gone.jpg")), ("b", web.give("/page.jpg", b"<html>"))]
    urls += [("b", "ftp://example.org/a.jpg"), ("b", web.url("/private.jpg", "localhost"))]
    urls += [("b", web.on("/busy", *[lambda h: h.answer(503)] * 3, lambda h: h.answer(200, make_picture())))]
    run(tmp_path / "threads", urls, processes=1)
    web.requests.clear()
    outcomes = run(tmp_path / "processes", urls)
    assert [outcome.pair for outcome in outcomes] == urls
    assert summary(outcomes) == {
        "downloaded": 22,
        "address not allowed": 1,
        "not a web address": 1,
        "not an image": 1,
        "not found": 1,
    }
    assert hashes(tmp_path / "processes" / "images") == hashes(tmp_path / "threads" / "images")
    assert rows(tmp_path / "processes") == rows(tmp_path / "threads")
    assert web.requests.pop("/busy") == 4
    assert set(web.requests.values()) == {1}


def test_a_write_error_ends_the_run_and_earlier_outcomes_are_recorded(
    web: Any, tmp_path: Path, make_picture: Make
) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "b").write_bytes(b"not a folder")
    urls = [("a", web.give(f"/{i}.jpg", make_picture(i))) for i in range(10)]
    with pytest.raises(StorageError, match=r"images/b/.* could not be written"):
        run(tmp_path, [*urls, ("b", web.give("/b.jpg", make_picture()))], workers=2)
    had = {outcome.file for outcome in read_outcomes(tmp_path / "downloads.csv")}
    assert had
    asked = web.requests.total()
    (tmp_path / "images" / "b").unlink()
    assert summary(run(tmp_path, urls)) == {"downloaded": 10}
    assert web.requests.total() - asked == 10 - len(had)


@pytest.mark.parametrize(
    "attempt",
    [
        Attempt(SavedImage("a.jpg", 200, 1234, 40, 30), 0.5),
        Attempt(DownloadError("time-out", detail="10 s", passing=True, http_status=429, retry_after=3.0), 0.25),
        Attempt(DownloadError("not an image", detail="begins with b'<html>' \u2028 ü"), 0.25),
    ],
)
def test_attempts_survive_json(attempt: Attempt) -> None:
    arrived = Attempt.from_json(json.loads(json.dumps(attempt.to_json())))
    if isinstance(attempt.result, DownloadError):
        assert isinstance(arrived.result, DownloadError)
        assert (vars(arrived.result), str(arrived.result)) == (vars(attempt.result), str(attempt.result))
        assert arrived.seconds == attempt.seconds
    else:
        assert arrived == attempt


@pytest.mark.parametrize(("cores", "jobs", "count"), [(1, 9999, 1), (2, 400, 1), (2, 1000, 2), (64, 9999, 4)])
def test_number_of_processes(
    web: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int, jobs: int, count: int
) -> None:
    started: list[int] = []

    class Started(Exception):
        pass

    def start(*_: Any, processes: int, threads: int) -> None:
        started.append(processes)
        raise Started

    monkeypatch.setattr(download_module, "usable_cores", lambda: cores)
    monkeypatch.setattr(download_module, "open_pool", start)
    with pytest.raises(Started):
        run(tmp_path, [("a", web.url(f"/{i}")) for i in range(jobs)], workers=16, processes=None)
    assert started == [count]


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals to a group of processes")
def test_ctrl_c_ends_all_processes_with_one_line_and_the_next_run_continues(
    web: Any, tmp_path: Path, make_picture: Make
) -> None:
    """Like Ctrl-C in a terminal, which sends the signal to all processes of the group."""
    image, count = make_picture(), 1500
    halfway, go_on = threading.Event(), threading.Event()

    def answer(handler: Any) -> None:
        if web.requests.total() > count // 2:
            halfway.set()
            go_on.wait(30)
        handler.answer(200, image)

    listed = tmp_path / "urls.tsv"
    listed.write_text("".join(f"a\t{web.on(f'/{i}.jpg', answer)}\n" for i in range(count)))
    values = {"rootDir": tmp_path, "datasetName": "listed", "imgUrlsPath": listed, "runHistory": False}
    command = command_line("0_downloadData", Parameters.load({**values, "download_allowedHosts": ("127.0.0.1",)}))
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert halfway.wait(60)
        os.killpg(process.pid, signal.SIGINT)
        error = process.communicate(timeout=30)[1]
        assert process.returncode == 130
    assert error.strip() == "0_downloadData.py: stopped. Run it again to continue."
    time.sleep(0.5)  # what was sent has arrived
    asked = web.requests.total()
    go_on.set()
    time.sleep(0.5)
    assert web.requests.total() == asked  # no process continues
    done = sum(1 for _ in read_outcomes(tmp_path / "proc" / "listed" / "downloads.csv"))
    assert asked - 40 <= done < count
    subprocess.run(command, check=True, capture_output=True)
    assert web.requests.total() == asked + count - done
    images = [path.name for path in (tmp_path / "images" / "listed" / "a").iterdir()]
    assert len(images) == count
    assert not any(name.startswith(".") for name in images)
