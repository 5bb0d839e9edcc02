"""Whole runs: the files afterwards, what a second run does, and what ends a run."""

import csv
import errno
import json
import os
import re
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from libraries.base.errors import InputError, StorageError
from libraries.web import addresses
from libraries.web.download.outcomes import COLUMNS, UrlOutcome, summary
from libraries.web.download.saving import file_stem
from libraries.web.fetch import Timeouts
from tests.web.conftest import download_with

Make = Callable[..., bytes]
_HEADER = b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
PNG_BOMB = (
    b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + _HEADER + struct.pack(">I", zlib.crc32(_HEADER)) + b"\0\0\0\0IDAT"
)


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., list[UrlOutcome]]:
    """Download into tmp_path/images without waiting between tries."""

    def call(urls: list[tuple[str, str]], **changes: Any) -> list[UrlOutcome]:
        options: dict[str, Any] = {
            "folder": tmp_path / "images",
            "outcomes": tmp_path / "proc" / "downloads.csv",
            "workers": 8,
            "max_pixels": 1_000_000,
            "allowed_hosts": ["127.0.0.1"],
            "timeouts": Timeouts(connect=5, read=5, total=10),
            "wait": lambda tries, retry_after: 0.0,
        }
        return list(download_with(urls, **{**options, **changes}))

    return call


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def rows(path: Path) -> list[dict[str, str]]:
    """The table without the times."""
    with path.open(encoding="utf-8", newline="") as file:
        return [{**row, "seconds": ""} for row in csv.DictReader(file)]


def test_a_list_as_lists_are(
    web: Any, run: Callable[..., list[UrlOutcome]], tmp_path: Path, make_picture: Make
) -> None:
    small, large = make_picture(1), make_picture(2, width=1200, height=600)
    jpeg = make_picture(3, width=300, height=300)
    urls = [
        ("cat", web.give("/good%20cat.jpg", small)),
        ("dog", web.give("/large.png", large)),
        ("dog", web.give("/really-a-png.jpg", make_picture(4, form="PNG"))),
        ("cat", web.url("/gone.jpg")),
        ("cat", web.give("/page.jpg", b"<html>404, sort of</html>")),
        ("cat", web.give("/half.jpg", jpeg[: len(jpeg) // 2])),
        ("dog", web.give("/bomb.png", PNG_BOMB)),
        ("dog", web.give("/opt-out.jpg", small, X_Robots_Tag="noai")),
        ("dog", "ftp://example.org/a.jpg"),
        ("dog", web.url("/private.jpg", "localhost")),
        ("dog", web.give("/fat.jpg", bytes(300_000))),
    ]
    outcomes = run(urls, max_bytes=200_000)
    assert [outcome.pair for outcome in outcomes] == urls
    assert [outcome.reason for outcome in outcomes] == [
        "downloaded",
        "downloaded",
        "downloaded",
        "not found",
        "not an image",
        "damaged image",
        "too many pixels",
        "opted out",
        "not a web address",
        "address not allowed",
        "too large",
    ]
    assert [outcome.status for outcome in outcomes] == ["ok"] * 3 + ["failed"] * 8
    assert next(iter(summary(outcomes).items())) == ("downloaded", 3)
    assert web.requests["/private.jpg"] == 0

    cat, dog, png = outcomes[:3]
    assert re.fullmatch(r"cat/good-cat-[0-9a-f]{12}\.jpg", cat.file)
    assert re.fullmatch(r"dog/large-[0-9a-f]{12}\.jpg", dog.file)
    assert re.fullmatch(r"dog/really-a-png-[0-9a-f]{12}\.png", png.file)
    found = files(tmp_path / "images")
    assert found.keys() == {cat.file, dog.file, png.file}
    assert found[cat.file] == small
    assert (cat.http_status, cat.bytes, cat.width, cat.height) == (200, len(small), 40, 30)
    assert (dog.bytes, dog.width, dog.height) == (len(found[dog.file]), 1000, 500)
    assert outcomes[3].http_status == 404
    assert outcomes[5].http_status == 200 and outcomes[5].detail

    table = rows(tmp_path / "proc" / "downloads.csv")
    assert tuple(table[0]) == COLUMNS
    assert [(row["label"], row["url"]) for row in table] == urls
    assert [row["file"] for row in table] == [outcome.file for outcome in outcomes]


def test_a_second_run_fetches_nothing(
    web: Any, run: Callable[..., list[UrlOutcome]], tmp_path: Path, make_picture: Make
) -> None:
    urls = [("a", web.give(f"/{i}.jpg", make_picture(i))) for i in range(5)]
    urls += [("b", web.url("/gone.jpg")), ("b", web.give("/page.jpg", b"<html>"))]
    first = run(urls)
    before, table, asked = files(tmp_path / "images"), rows(tmp_path / "proc" / "downloads.csv"), dict(web.requests)
    assert set(asked.values()) == {1}
    assert run(urls) == first
    assert (files(tmp_path / "images"), rows(tmp_path / "proc" / "downloads.csv")) == (before, table)
    assert web.requests == asked

    new = [("b", web.give("/new.jpg", make_picture(9)))]
    assert run(new + urls)[1:] == first
    assert web.requests == {**asked, "/new.jpg": 1}

    assert run(urls, retry_failed=True) != first  # the times differ
    assert web.requests == {**asked, "/new.jpg": 1, "/gone.jpg": 2, "/page.jpg": 2}


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems take both forms for one name")
def test_a_folder_in_another_unicode_form_is_the_label_s(
    web: Any, run: Callable[..., list[UrlOutcome]], tmp_path: Path, make_picture: Make
) -> None:
    (tmp_path / "images" / "Mu\u0308ll").mkdir(parents=True)
    url = web.give("/1.jpg", make_picture(1))
    for _ in range(2):
        (outcome,) = run([("M\u00fcll", url)])
        assert outcome.status == "ok"
    assert {path.split("/")[0] for path in files(tmp_path / "images")} == {"Mu\u0308ll"}
    assert web.requests["/1.jpg"] == 1


def test_temporary_failures_are_retried_by_the_next_run(
    web: Any, run: Callable[..., list[UrlOutcome]], make_picture: Make
) -> None:
    image = make_picture()
    url = web.on("/a", lambda h: h.answer(503), lambda h: h.answer(503), lambda h: h.answer(200, image))
    [outcome] = run([("a", url)], retries=1)
    assert (outcome.status, outcome.reason, outcome.http_status) == ("passing", "server error", 503)
    [outcome] = run([("a", url)], retries=1)
    assert outcome.status == "ok"
    assert web.requests["/a"] == 3


def test_files_that_the_user_removed(
    web: Any, run: Callable[..., list[UrlOutcome]], tmp_path: Path, make_picture: Make
) -> None:
    urls = [(label, web.give(f"/{label}{i}.jpg", make_picture(i))) for label in "ab" for i in range(2)]
    outcomes = run(urls)
    (tmp_path / "images" / outcomes[0].file).unlink()
    for file in (tmp_path / "images" / "b").iterdir():
        file.unlink()
    (tmp_path / "images" / "b").rmdir()
    run(urls)
    assert files(tmp_path / "images").keys() == {outcome.file for outcome in outcomes[1:]}
    assert web.requests == {"/a0.jpg": 1, "/a1.jpg": 1, "/b0.jpg": 2, "/b1.jpg": 2}


def test_one_url_is_fetched_once(
    web: Any, run: Callable[..., list[UrlOutcome]], tmp_path: Path, make_picture: Make
) -> None:
    url = web.give("/a.jpg", make_picture())
    spellings = [url, url + "#part", url.replace("http", "HTTP")]
    outcomes = run([("a", url), ("b", url), ("a", url), *(("a", other) for other in spellings[1:])])
    assert web.requests == {"/a.jpg": 1}
    assert [outcome.pair for outcome in outcomes] == [
        ("a", url),
        ("b", url),
        *(("a", other) for other in spellings[1:]),
    ]
    a, b = outcomes[:2]
    assert {outcome.file for outcome in outcomes} == {a.file, b.file}
    assert a.file.removeprefix("a/") == b.file.removeprefix("b/")
    assert files(tmp_path / "images") == {a.file: make_picture(), b.file: make_picture()}


# Retries


@pytest.mark.parametrize(
    "fault",
    [
        lambda h: h.answer(500),
        lambda h: h.answer(429),
        lambda h: h.raw(b""),
        lambda h: h.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\nxxx"),
        lambda h: h.drip(b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
    ],
    ids=["500", "429", "no answer", "cut short", "drip"],
)
def test_temporary_failures_are_retried(
    web: Any, run: Callable[..., list[UrlOutcome]], make_picture: Make, fault: Callable[[Any], None]
) -> None:
    url = web.on("/a", fault, lambda h: h.answer(200, make_picture()))
    [outcome] = run([("a", url)], timeouts=Timeouts(connect=5, read=5, total=0.5))
    assert outcome.status == "ok"
    assert web.requests["/a"] == 2


@pytest.mark.parametrize(("status", "times"), [(404, 1), (410, 1), (403, 1), (500, 4), (429, 4)])
def test_number_of_tries(web: Any, run: Callable[..., list[UrlOutcome]], status: int, times: int) -> None:
    [outcome] = run([("a", web.give("/a", b"", status))], retries=3)
    assert (web.requests["/a"], outcome.http_status) == (times, status)


def test_waits_are_as_long_as_the_server_asks(
    web: Any, run: Callable[..., list[UrlOutcome]], make_picture: Make
) -> None:
    asked: list[tuple[int, float | None]] = []

    def wait(tries: int, retry_after: float | None) -> float:
        asked.append((tries, retry_after))
        return 0.0

    answers = [
        lambda h: h.answer(429, Retry_After="17"),
        lambda h: h.answer(500),
        lambda h: h.answer(200, make_picture()),
    ]
    [outcome] = run([("a", web.on("/a", *answers))], wait=wait)
    assert outcome.status == "ok"
    assert asked == [(1, 17.0), (2, None)]


@pytest.mark.parametrize("processes", [1, 2])
def test_a_host_that_asks_for_a_long_wait_is_left_alone(
    web: Any, run: Callable[..., list[UrlOutcome]], processes: int
) -> None:
    urls = [("a", web.give(f"/{i}", b"", 429, Retry_After="3600")) for i in range(20)]
    outcomes = run(urls, processes=processes, per_host=1, wait=lambda tries, seconds: None)
    assert {(outcome.status, outcome.reason) for outcome in outcomes} == {("passing", "too many requests")}
    assert web.requests.total() == 1


@pytest.mark.parametrize("processes", [1, 2])
def test_a_host_gets_a_few_requests_at_once(
    web: Any, run: Callable[..., list[UrlOutcome]], make_picture: Make, processes: int
) -> None:
    lock, now, most, three = threading.Lock(), 0, 0, threading.Event()

    def answer(handler: Any) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        if now == 3:
            three.set()
        assert three.wait(20)  # a process takes its time to start
        handler.server.web.stopping.wait(0.02)
        with lock:
            now -= 1
        handler.answer(200, make_picture())

    urls = [("a", web.on(f"/{i}", answer)) for i in range(20)]
    outcomes = run(urls, workers=16, processes=processes, per_host=3)
    assert summary(outcomes) == {"downloaded": 20}
    assert most == 3


def test_one_slow_host_does_not_hold_up_the_others(
    web: Any, run: Callable[..., list[UrlOutcome]], make_picture: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(addresses, "resolve", lambda host, port: ["127.0.0.1"])
    others_done = threading.Event()

    def slow(handler: Any) -> None:
        others_done.wait(20)
        handler.answer(200, make_picture())

    urls = [("a", web.on(f"/slow{i}", slow)) for i in range(10)]
    for i in range(10):
        web.give(f"/fast{i}", make_picture())
        urls.append(("b", web.url(f"/fast{i}", "fast.example")))

    def progress(done: int, total: int, downloaded: int) -> None:
        assert total == 20
        if done == 10:
            others_done.set()

    outcomes = run(urls, workers=4, per_host=2, allowed_hosts=["127.0.0.1", "fast.example"], progress=progress)
    assert summary(outcomes) == {"downloaded": 20}


# Messages


def test_progress(web: Any, run: Callable[..., list[UrlOutcome]], make_picture: Make) -> None:
    urls = [("a", web.give(f"/{i}.jpg", make_picture(i))) for i in range(3)] + [("a", web.url("/gone"))]
    calls: list[tuple[int, int, int]] = []
    run(urls, progress=lambda *numbers: calls.append(numbers))
    assert [(done, total) for done, total, _ in calls] == [(i, 4) for i in range(5)]
    assert calls[-1] == (4, 4, 3)
    calls.clear()
    run(urls, progress=lambda *numbers: calls.append(numbers))
    assert calls == [(4, 4, 3)]


def test_a_proxy_is_not_used_and_a_warning_says_so(
    web: Any,
    run: Callable[..., list[UrlOutcome]],
    make_picture: Make,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    [outcome] = run([("a", web.give("/a", make_picture()))])
    assert outcome.status == "ok"
    assert "proxy" in caplog.text


@pytest.mark.parametrize(
    ("url", "stem"),
    [
        ("http://a/b/My%20Cat%20(1).JPG", "My-Cat-1"),
        ("http://a/b/%C3%BCber_all.tar.jpeg?size=2", "uber-all-tar"),
        ("http://a/..%2F..%2Fetc%2Fpasswd", "passwd"),
        ("http://a/..", ""),
        ("http://a/", ""),
        ("http://a/%E7%8C%AB.jpg", ""),
        ("http://a/CON.jpg", "CON"),
        ("http://a/" + "long" * 50 + ".jpg", "long" * 10),
    ],
)
def test_names(url: str, stem: str) -> None:
    name = file_stem(url)
    assert re.fullmatch(rf"{stem}-[0-9a-f]{{12}}" if stem else r"[0-9a-f]{12}", name), name
    assert file_stem(url) == name != file_stem(url + "x")


@pytest.mark.parametrize("labels", [["a/b"], [".."], [""], ["a\x00b"], ["a\nb"], ["nul"], ["Cat", "cat"]])
def test_invalid_labels(web: Any, run: Callable[..., list[UrlOutcome]], tmp_path: Path, labels: list[str]) -> None:
    with pytest.raises(InputError):
        run([(label, web.give("/a", b"")) for label in labels])
    assert not web.requests
    assert not files(tmp_path)


# What ends a run, and how the next one continues


def test_a_full_disk_ends_the_run_and_the_next_continues(
    web: Any, run: Callable[..., list[UrlOutcome]], tmp_path: Path, make_picture: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = [("a", web.give(f"/{i}.jpg", make_picture(i))) for i in range(10)]
    flush = os.fsync

    def full_after_four(number: int) -> None:
        if len(files(tmp_path / "images")) > 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(number)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_after_four)
        with pytest.raises(StorageError, match="the disk is full"):
            run(urls, workers=1)
    asked = web.requests.total()
    assert 4 <= asked < 10
    done = len(rows(tmp_path / "proc" / "downloads.csv"))
    assert summary(run(urls)) == {"downloaded": 10}
    assert web.requests.total() - (asked + 10 - done) in (0, 1)  # the thread may have begun the next one
    assert len(files(tmp_path / "images")) == 10


def test_ctrl_c_ends_the_run_at_once_and_the_next_continues(
    web: Any, run: Callable[..., list[UrlOutcome]], tmp_path: Path, make_picture: Make
) -> None:
    urls = [("a", web.give(f"/{i}.jpg", make_picture(i))) for i in range(6)]
    hanging = web.on("/hangs", lambda h: h.server.web.stopping.wait(20), lambda h: h.answer(200, make_picture(9)))

    def interrupt(done: int, total: int, downloaded: int) -> None:
        if done == 6:
            raise KeyboardInterrupt

    started = monotonic()
    with pytest.raises(KeyboardInterrupt):
        run([("b", hanging), *urls], progress=interrupt)
    assert monotonic() - started < 5
    assert len(rows(tmp_path / "proc" / "downloads.csv")) == 6
    assert summary(run([("b", hanging), *urls])) == {"downloaded": 7}
    assert web.requests.total() == 8


PROCESS = """
import json, sys
from pathlib import Path
from libraries.web.download.download import download
from libraries.web.download.saving import DownloadOptions
root, urls = Path(sys.argv[1]), [tuple(pair) for pair in json.loads(sys.argv[2])]
options, processes = DownloadOptions(workers=4, allowed_hosts=["127.0.0.1"]), int(sys.argv[3])
download(urls, folder=root / "images", outcomes=root / "downloads.csv", options=options, processes=processes)
"""


@pytest.mark.parametrize("processes", [1, 2])
def test_kill_9_and_run_again_is_as_if_undisturbed(
    web: Any, tmp_path: Path, make_picture: Make, processes: int
) -> None:
    halfway, go_on = threading.Event(), threading.Event()

    def answer(image: bytes) -> Callable[[Any], None]:
        def call(handler: Any) -> None:
            if web.requests.total() > 12 and not go_on.is_set():
                halfway.set()
                go_on.wait(30)
            handler.answer(200, image)

        return call

    urls = [("a" if i % 3 else "b", web.on(f"/{i}.jpg", answer(make_picture(i, width=1100)))) for i in range(24)]
    urls += [("b", web.url("/gone.jpg")), ("a", urls[0][1])]

    def start(root: Path, **options: Any) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", PROCESS, str(root), json.dumps(urls), str(processes)]
        return subprocess.Popen(command, **options)

    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    process = start(killed, stderr=subprocess.PIPE)
    assert halfway.wait(30)
    process.kill()
    go_on.set()
    process.communicate(timeout=60)  # ends when its processes have ended too, which may request one more image
    assert 9 <= len(files(killed)) - 1 < 24
    known = {row["url"] for row in rows(killed / "downloads.csv")}
    assert known  # of the twelve that were answered, those that the threads were processing are missing
    (killed / "images" / "a" / ".tmp-0123-x.jpg").write_bytes(b"half")  # killed while writing

    asked = web.requests.total()
    assert start(killed).wait(60) == 0
    assert web.requests.total() - asked == len({url for _, url in urls} - known)
    assert start(undisturbed).wait(60) == 0
    assert files(killed / "images") == files(undisturbed / "images")
    assert rows(killed / "downloads.csv") == rows(undisturbed / "downloads.csv")
    assert len(files(killed / "images")) == 25
