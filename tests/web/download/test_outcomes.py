"""The list of URLs to download, and the table of their outcomes."""

import dataclasses
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from libraries.base.errors import StorageError
from libraries.web.download import outcomes as outcomes_module
from libraries.web.download.outcomes import COLUMNS, Ledger, Pair, UrlOutcome, read_outcomes, summary

OK = UrlOutcome("käse", "http://a/ä,\"1'.jpg", "ok", "downloaded", "käse/1.jpg", 200, 1234, 40, 30, 0.125)
LOST = UrlOutcome("dog", "http://a/2.jpg", "failed", "not found", http_status=404, seconds=1.5, detail="HTTP 404")
LATER = UrlOutcome("dog", "http://a/3.jpg", "passing", "time-out", detail="10 s")
ALL = [OK.pair, LOST.pair, LATER.pair]
LINES = [
    "label,url,status,reason,file,http_status,bytes,width,height,seconds,detail",
    'käse,"http://a/ä,""1\'.jpg",ok,downloaded,käse/1.jpg,200,1234,40,30,0.125,',
    "dog,http://a/2.jpg,failed,not found,,404,,,,1.5,HTTP 404",
    "dog,http://a/3.jpg,passing,time-out,,,,,,0.0,10 s",
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "proc" / "downloads.csv"


def opened(path: Path, pairs: list[Pair] | Iterator[Pair]) -> Ledger:
    return Ledger(path, pairs, is_due=lambda outcome: outcome.status == "passing")


def write(path: Path, *outcomes: UrlOutcome) -> None:
    ledger = opened(path, [])
    ledger.add(outcomes)
    ledger.close()


def read(path: Path) -> list[UrlOutcome]:
    opened(path, []).close()
    return list(read_outcomes(path))


def jobs(ledger: Ledger) -> list[tuple[str, list[Pair]]]:
    return [(job.url, job.pairs) for job in ledger.jobs()]


# The list


def test_pairs_are_counted_once_and_urls_are_one_job_for_all_their_labels(path: Path) -> None:
    a, b = "http://h/a.jpg", "http://h/b.jpg"
    ledger = opened(path, [("x", a), ("x", b), ("y", a), ("x", a), ("x", "HTTP://h/a.jpg#part"), ("x", "ftp://h/a")])
    assert (ledger.count, ledger.count_jobs(), ledger.labels()) == (5, 3, ["x", "y"])
    assert jobs(ledger) == [
        (a, [("x", a), ("y", a), ("x", "HTTP://h/a.jpg#part")]),
        ("ftp://h/a", [("x", "ftp://h/a")]),  # without a host
        (b, [("x", b)]),
    ]
    ledger.close()


def test_hosts_take_turns(path: Path) -> None:
    urls = [f"http://many/{i}" for i in range(4)] + ["http://few/0", "http://few/1", "http://one/0"]
    ledger = opened(path, [("x", url) for url in urls])
    expected = ["many/0", "few/0", "one/0", "many/1", "few/1", "many/2", "many/3"]
    assert [url.removeprefix("http://") for url, _ in jobs(ledger)] == expected
    ledger.close()


def test_finished_urls_are_not_jobs_and_temporary_failures_are(path: Path) -> None:
    new = ("dog", "http://a/new.jpg")
    write(path, OK, LOST, LATER)
    ledger = opened(path, [new, LATER.pair, LOST.pair])
    assert (ledger.count, ledger.counts()) == (3, {"failed": 1})
    assert jobs(ledger) == [(new[1], [new]), (LATER.url, [LATER.pair])]
    ledger.add([dataclasses.replace(LATER, status="ok", reason="downloaded")])
    assert ledger.counts() == {"failed": 1, "ok": 1}
    assert jobs(ledger) == [(new[1], [new])]
    ledger.close()


def test_pairs_of_another_list_are_not_jobs_even_twice_in_the_table(path: Path) -> None:
    """The table as left by a run that was killed after a second failure."""
    write(path, LATER)
    with path.open("ab") as file:
        file.write(path.read_bytes().splitlines(keepends=True)[1])
    ledger = opened(path, [OK.pair])
    assert [pairs for _, pairs in jobs(ledger)] == [[OK.pair]]
    ledger.close()


def test_jobs_can_be_done_while_they_are_read(path: Path) -> None:
    pairs = [("x", f"http://h/{i}") for i in range(5000)]
    ledger = opened(path, iter(pairs))
    seen = []
    for job in ledger.jobs():
        seen += job.pairs
        ledger.add([UrlOutcome(label, url, "ok", "downloaded") for label, url in job.pairs])
    assert seen == pairs
    assert (ledger.count_jobs(), ledger.counts()) == (0, {"ok": 5000})
    ledger.close()


def test_a_list_that_is_wrong_at_its_end_changes_nothing(path: Path) -> None:
    write(path, LATER)
    before = path.read_bytes()

    def pairs() -> Iterator[Pair]:
        yield OK.pair
        raise KeyError("wrong")

    with pytest.raises(KeyError):
        opened(path, pairs())
    assert path.read_bytes() == before


# The table


def test_outcomes_are_on_disk_at_once_and_read_back(path: Path) -> None:
    ledger = opened(path, ALL)
    for n, outcome in enumerate((OK, LOST, LATER), start=1):
        ledger.add([outcome])
        lines = path.read_text(encoding="utf-8").splitlines()
        assert (lines[0], len(lines)) == (",".join(COLUMNS), n + 1)
    ledger.close()
    assert lines == LINES
    assert read(path) == [OK, LOST, LATER]


def test_a_later_outcome_replaces_an_earlier_one(path: Path) -> None:
    again = dataclasses.replace(LATER, status="ok", reason="downloaded")
    write(path, LATER, OK, again)
    assert read(path) == [again, OK]


def test_finish_sorts_the_table_and_keeps_other_lists(path: Path) -> None:
    write(path, LOST, OK, LATER)
    ledger = opened(path, [LATER.pair, OK.pair])
    ledger.finish()
    ledger.close()
    assert list(read_outcomes(path)) == [LATER, OK, LOST]
    assert len(path.read_text(encoding="utf-8").splitlines()) == 4


def test_every_way_of_being_cut_off(path: Path) -> None:
    write(path, OK, LOST)
    whole = path.read_bytes()
    first_end = whole.index(b"\n", whole.index(b"\n") + 1) + 1
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        survivors = read(path)
        assert survivors == ([OK] if length >= first_end else [])
        write(path, LATER)
        assert read(path) == [*survivors, LATER]


@pytest.mark.parametrize("rubbish", [b"\0" * 100 + b"\n", b"a,b\n", b"a,b,ok,c,d,x,y,1,2,3,e\n", b"\xff\xfe\n"])
def test_damaged_lines_are_dropped(path: Path, rubbish: bytes) -> None:
    write(path, OK)
    path.write_bytes(path.read_bytes() + rubbish)
    assert read(path) == [OK]


def test_a_foreign_table_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("path,label\na,b\n", encoding="utf-8")
    with pytest.raises(StorageError, match=r"downloads\.csv is not a table of downloads: move it away"):
        opened(path, ALL)
    assert path.read_text(encoding="utf-8") == "path,label\na,b\n"


# Full disks


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_a_full_disk(path: Path) -> None:
    ledger = opened(path, ALL)
    ledger._file.close()
    ledger._file = Path("/dev/full").open("ab")  # noqa: SIM115
    with pytest.raises(StorageError, match="the disk is full"):
        ledger.add([OK])
    ledger.close()


def test_no_room_for_the_temporary_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = sqlite3.connect

    def small(*args: Any, **options: Any) -> sqlite3.Connection:
        store = connect(*args, **options)
        store.execute("PRAGMA max_page_count = 20")
        return store

    monkeypatch.setattr(outcomes_module.sqlite3, "connect", small)
    with pytest.raises(StorageError, match=r"temporary file in .* is full.*: free some space there"):
        opened(path, (("x", f"http://h/{i}") for i in range(5000)))
    assert not path.exists()


def test_summary_counts_by_reason() -> None:
    ok = UrlOutcome("a", "http://a/1", "ok", "downloaded")
    later = UrlOutcome("a", "http://a/2", "passing", "time-out")
    lost = UrlOutcome("a", "http://a/3", "failed", "not found")
    outcomes = [later, lost, ok, later, later, dataclasses.replace(lost, reason="broken answer")]
    expected = [("downloaded", 1), ("time-out", 3), ("broken answer", 1), ("not found", 1)]
    assert list(summary(outcomes).items()) == expected
    assert summary([]) == {}
