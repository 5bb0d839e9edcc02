import csv
import dataclasses
from pathlib import Path

import pytest

from libraries.base.errors import StorageError
from libraries.web.search.files import COLUMNS, Row, Search, SearchLog, read_table, write_results
from libraries.web.search.results import Found

ODD = Found(
    "https://a.example/1.jpg?a=b,c&d",
    page="https://a.example/1",
    title='"quoted", with; commas\u2028and =1+1',
    creator="'; --",
    licence="CC BY 4.0",
    licence_url="https://licence.example/",
    attribution="…",
    width=640,
    height=480,
    provider="openverse",
    rank=3,
)


def test_every_text_comes_back(tmp_path: Path) -> None:
    rows = [Row("käse", "gouda, alt", ODD), Row("dog", "#dog", Found("https://a.example/2.jpg"))]
    write_results(rows, urls=tmp_path / "search.tsv", table=tmp_path / "search.csv")
    assert read_table(tmp_path / "search.csv") == rows
    assert (tmp_path / "search.csv").read_text(encoding="utf-8").splitlines()[0] == ",".join(COLUMNS)
    assert (tmp_path / "search.tsv").read_text(encoding="utf-8").splitlines()[0] == f"käse\t{ODD.url}"


@pytest.mark.parametrize("text", ['=HYPERLINK("http://a")', "+1", "-1", "@SUM(1)", "\t=1", "'=1"])
def test_no_cell_is_a_formula(tmp_path: Path, text: str) -> None:
    rows = [Row("a", "b", Found("https://a.example/1.jpg", title=text, creator=text, attribution=text))]
    write_results(rows, urls=tmp_path / "search.tsv", table=tmp_path / "search.csv")
    with (tmp_path / "search.csv").open(encoding="utf-8", newline="") as file:
        assert {row["title"] for row in csv.DictReader(file)} == {f"'{text}"}
    assert read_table(tmp_path / "search.csv") == rows


def test_a_table_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert read_table(tmp_path / "search.csv") == []


HEADER = ",".join(COLUMNS).encode() + b"\n"


@pytest.mark.parametrize(
    "content", [b"", b"label,url\na,b\n", HEADER + b"a,b,c\n", HEADER + b"x," * 12 + b"x\n", HEADER + b"\xff\n"]
)
def test_a_foreign_table_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "search.csv"
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"search\.csv is not a table of images found: move it away"):
        write_results([Row("a", "b", ODD)], urls=tmp_path / "search.tsv", table=path)
    assert path.read_bytes() == content
    assert not (tmp_path / "search.tsv").exists()


@pytest.mark.parametrize("text", ["käse\thttps://b.example/mine.jpg\n", "no list", "\ufeff"])
def test_a_list_of_the_users_own_is_not_overwritten(tmp_path: Path, text: str) -> None:
    rows = [Row("=käse", "b", Found("https://a.example/1.jpg"))]
    for _ in range(2):
        write_results(rows, urls=tmp_path / "search.tsv", table=tmp_path / "search.csv")
    write_results([], urls=tmp_path / "search.tsv", table=tmp_path / "search.csv")
    write_results(rows, urls=tmp_path / "search.tsv", table=tmp_path / "search.csv")
    assert (tmp_path / "search.tsv").read_text(encoding="utf-8") == "'=käse\thttps://a.example/1.jpg\n"
    (tmp_path / "search.tsv").write_text(text, encoding="utf-8")
    before = (tmp_path / "search.csv").read_bytes()
    with pytest.raises(StorageError, match=r"search\.tsv was not written by this script, or was changed since: move"):
        write_results([], urls=tmp_path / "search.tsv", table=tmp_path / "search.csv")
    assert (tmp_path / "search.tsv").read_text(encoding="utf-8") == text
    assert (tmp_path / "search.csv").read_bytes() == before


# The log of finished searches


CATS = Search("openverse", None, "cats", 50, "any")
DOGS = Search("openverse", None, 'dogs "of war"', 50, "any")
FOUND = [Found("https://a.example/1.jpg", title="Käse\u2028猫", width=3, height=4, provider="openverse", rank=1)]


def test_what_is_finished_is_on_disk_at_once(tmp_path: Path) -> None:
    path = tmp_path / "proc" / "searches.jsonl"
    log = SearchLog(path)
    log.add(CATS, FOUND)
    assert SearchLog(path).get(CATS) == FOUND
    log.add(DOGS, [])
    again = SearchLog(path)
    assert (again.get(CATS), again.get(DOGS)) == (FOUND, [])


@pytest.mark.parametrize(
    "change", [{"provider": "brave"}, {"url": "http://x"}, {"query": "Cats"}, {"count": 49}, {"licence": "modify"}]
)
def test_what_makes_another_search(tmp_path: Path, change: dict[str, object]) -> None:
    SearchLog(tmp_path / "s").add(CATS, FOUND)
    assert SearchLog(tmp_path / "s").get(dataclasses.replace(CATS, **change)) is None


def test_every_way_of_being_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "searches.jsonl"
    log = SearchLog(path)
    log.add(CATS, FOUND)
    first_end = path.stat().st_size
    log.add(DOGS, FOUND)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        log = SearchLog(path)
        assert log.get(CATS) == (FOUND if length >= first_end else None)
        assert log.get(DOGS) is None
        log.add(DOGS, [])
        assert SearchLog(path).get(DOGS) == []


@pytest.mark.parametrize("rubbish", [b"\0" * 50, b"[]", b"{}", b'{"found": 3}', b'{"found": [1]}', b"\xff", b"null"])
def test_damaged_lines_are_dropped(tmp_path: Path, rubbish: bytes) -> None:
    path = tmp_path / "searches.jsonl"
    SearchLog(path).add(CATS, FOUND)
    path.write_bytes(rubbish + b"\n" + path.read_bytes() + rubbish + b"\n")
    assert SearchLog(path).get(CATS) == FOUND
    assert path.read_bytes().count(b"\n") == 1


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    log = SearchLog(tmp_path / "searches.jsonl")
    (tmp_path / "searches.jsonl").mkdir()
    with pytest.raises(StorageError, match="could not be written"):
        log.add(CATS, FOUND)
    with pytest.raises(StorageError):
        SearchLog(tmp_path / "searches.jsonl")
