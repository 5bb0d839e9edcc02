import csv
from pathlib import Path

import pytest

from libraries.base.errors import StorageError
from libraries.web.search.found import Found
from libraries.web.search.tables import COLUMNS, Row, read_table, write_results

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
