import dataclasses
from pathlib import Path

import pytest

from libraries.base.errors import StorageError
from libraries.data.web.outcomes import COLUMNS, Outcome, OutcomeTable, read_outcomes, summary

OK = Outcome("käse", "http://a/ä,\"1'.jpg", "ok", "downloaded", "käse/1.jpg", 200, 1234, 40, 30, 0.125)
LOST = Outcome("dog", "http://a/2.jpg", "failed", "not found", http_status=404, seconds=1.5, detail="HTTP 404")
LATER = Outcome("dog", "http://a/3.jpg", "passing", "time-out", detail="10 s")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "proc" / "downloads.csv"


def write(path: Path, *outcomes: Outcome) -> None:
    table = OutcomeTable(path)
    table.add(outcomes)
    table.close()


def read(path: Path) -> list[Outcome]:
    table = OutcomeTable(path)
    table.close()
    return list(read_outcomes(path))


def test_what_was_added_is_on_disk_at_once_and_read_back(path: Path) -> None:
    table = OutcomeTable(path)
    for n, outcome in enumerate((OK, LOST, LATER), start=1):
        table.add([outcome])
        lines = path.read_text(encoding="utf-8").splitlines()
        assert (lines[0], len(lines)) == (",".join(COLUMNS), n + 1)
    table.close()
    assert read(path) == [OK, LOST, LATER]


def test_a_later_outcome_takes_the_place_of_an_earlier_one(path: Path) -> None:
    again = dataclasses.replace(LATER, status="ok", reason="downloaded")
    write(path, LATER, OK, again)
    assert read(path) == [again, OK]


def test_the_end_puts_it_in_order_and_keeps_other_lists(path: Path) -> None:
    write(path, LOST, OK, LATER)
    table = OutcomeTable(path)
    table.finish([LATER.pair, OK.pair])
    assert read(path) == [LATER, OK, LOST]
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
    path.write_text("path,label\na,b\n")
    with pytest.raises(StorageError, match=r"downloads\.csv is not a table of downloads: move it away"):
        OutcomeTable(path)
    assert path.read_text() == "path,label\na,b\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_a_full_disk(path: Path) -> None:
    table = OutcomeTable(path)
    table.close()
    table._file = Path("/dev/full").open("ab")  # noqa: SIM115
    with pytest.raises(StorageError, match="the disk is full"):
        table.add([OK])
    table.close()


def test_summary_counts_by_reason() -> None:
    outcomes = [LATER, LOST, OK, LATER, LATER, dataclasses.replace(LOST, reason="broken answer")]
    expected = [("downloaded", 1), ("time-out", 3), ("broken answer", 1), ("not found", 1)]
    assert list(summary(outcomes).items()) == expected
    assert summary([]) == {}
