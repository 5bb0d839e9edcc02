"""Whole searches: the files afterwards, and what a second run requests."""

import csv
import dataclasses
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from libraries.base.errors import SearchError, StorageError
from libraries.web.download.url_list import read_url_list
from libraries.web.search.queries import Queries, Query
from libraries.web.search.results import FoundImage
from libraries.web.search.search import (
    COLUMNS,
    SearchKey,
    SearchLog,
    SearchResults,
    SearchRow,
    read_results,
    search,
    write_results,
)
from tests import fake_search
from tests.fake_search import FakeSearch, Reply

ODD = FoundImage(
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


LINES = [
    "label,query,url,licence,licence_url,creator,title,page,attribution,provider,rank,width,height",
    'käse,"gouda, alt","https://a.example/1.jpg?a=b,c&d",CC BY 4.0,https://licence.example/,"\'; --",'
    '"""quoted"", with; commas\u2028and =1+1",https://a.example/1,…,openverse,3,640,480',
    "dog,#dog,https://a.example/2.jpg,,,,,,,,0,,",
    "",
]


def test_every_text_comes_back(tmp_path: Path) -> None:
    rows = [SearchRow.of("käse", "gouda, alt", ODD), SearchRow.of("dog", "#dog", FoundImage("https://a.example/2.jpg"))]
    write_results(rows, urls=tmp_path / "search.tsv", table=tmp_path / "search.csv")
    assert read_results(tmp_path / "search.csv") == rows
    assert (tmp_path / "search.csv").read_text(encoding="utf-8").split("\n") == LINES
    assert (tmp_path / "search.tsv").read_text(encoding="utf-8").splitlines()[0] == f"käse\t{ODD.url}"


@pytest.mark.parametrize("text", ['=HYPERLINK("http://a")', "+1", "-1", "@SUM(1)", "\t=1", "'=1"])
def test_no_cell_is_a_formula(tmp_path: Path, text: str) -> None:
    rows = [SearchRow.of("a", "b", FoundImage("https://a.example/1.jpg", title=text, creator=text, attribution=text))]
    write_results(rows, urls=tmp_path / "search.tsv", table=tmp_path / "search.csv")
    with (tmp_path / "search.csv").open(encoding="utf-8", newline="") as file:
        assert {row["title"] for row in csv.DictReader(file)} == {f"'{text}"}
    assert read_results(tmp_path / "search.csv") == rows


def test_a_missing_table_is_empty(tmp_path: Path) -> None:
    assert read_results(tmp_path / "search.csv") == []


HEADER = ",".join(COLUMNS).encode() + b"\n"


@pytest.mark.parametrize(
    "content", [b"", b"label,url\na,b\n", HEADER + b"a,b,c\n", HEADER + b"x," * 12 + b"x\n", HEADER + b"\xff\n"]
)
def test_a_foreign_table_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "search.csv"
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"search\.csv is not a table of images found by a search: move it away"):
        write_results([SearchRow.of("a", "b", ODD)], urls=tmp_path / "search.tsv", table=path)
    assert path.read_bytes() == content
    assert not (tmp_path / "search.tsv").exists()


@pytest.mark.parametrize("text", ["käse\thttps://b.example/mine.jpg\n", "no list", "\ufeff"])
def test_a_list_of_the_users_own_is_not_overwritten(tmp_path: Path, text: str) -> None:
    rows = [SearchRow.of("=käse", "b", FoundImage("https://a.example/1.jpg"))]
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


CATS = SearchKey("openverse", None, "cats", 50, "any")
DOGS = SearchKey("openverse", None, 'dogs "of war"', 50, "any")
FOUND = [FoundImage("https://a.example/1.jpg", title="Käse\u2028猫", width=3, height=4, provider="openverse", rank=1)]


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
def test_what_distinguishes_searches(tmp_path: Path, change: dict[str, object]) -> None:
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


QUERIES = Queries(5, (Query("cat", "tabby cat"), Query("cat", "black cat"), Query("dog", "poodle")))


@pytest.fixture
def run(provider: Callable[..., Any], tmp_path: Path) -> Callable[..., SearchResults]:
    def call(queries: Queries = QUERIES, name: str = "openverse", **changes: Any) -> SearchResults:
        return search(queries, provider(name), folder=tmp_path, **changes)

    return call


def test_the_files(fake: FakeSearch, run: Callable[..., SearchResults], tmp_path: Path) -> None:
    fake.answers = [fake_search.openverse(40)]
    done: list[int] = []
    results = run(progress=done.append)
    assert done == [0, 1, 2]
    assert results.per_label() == [("cat", 2, 10), ("dog", 1, 5)]
    assert results.elsewhere == 0
    rows = read_results(tmp_path / "search.csv")
    assert rows == results.rows
    assert [row.query for row in rows] == ["tabby cat"] * 5 + ["black cat"] * 5 + ["poodle"] * 5
    assert list(read_url_list(tmp_path / "search.tsv")) == [row.pair for row in rows]
    assert rows[1].pair == ("cat", "https://images.example/files/tabby-cat-2.jpg")


def test_a_second_run_asks_nothing(fake: FakeSearch, run: Callable[..., SearchResults], tmp_path: Path) -> None:
    fake.answers = [fake_search.openverse(40)]
    first = run()
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert run() == first
    assert len(fake.requests) == 3
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files
    assert set(files) == {"search.tsv", "search.csv", "searches.jsonl"}

    run(replace(QUERIES, queries=(*QUERIES.queries, Query("dog", "beagle"))))
    assert [request.parameters["q"] for request in fake.requests[3:]] == ["beagle"]
    for change in ({"licence": "modify"}, {"url": fake.url}, {"queries": replace(QUERIES, images=6)}):
        asked = len(fake.requests)
        run(**change)
        assert len(fake.requests) == asked + 3, change


def test_an_image_of_two_labels_stays_with_the_first(
    fake: FakeSearch, run: Callable[..., SearchResults], tmp_path: Path
) -> None:
    numbers = {"tabby cat": (1, 2, 3), "black cat": (3, 4), "poodle": (2, 4, 5)}
    spelling = {"poodle": "HTTPS://images.example:443"}

    def answer(request: fake_search.Request) -> Reply:
        query = request.parameters["q"]
        base = spelling.get(query, "https://images.example")
        images = [fake_search.openverse_image(n, "x", base) for n in numbers[query]]
        return Reply({"results": images, "page_count": 1})

    fake.answers = [answer]
    results = run()
    found = [(row.label, row.query, int(row.url[-5])) for row in results.rows]
    assert found == [
        ("cat", "tabby cat", 1),
        ("cat", "tabby cat", 2),
        ("cat", "tabby cat", 3),
        ("cat", "black cat", 4),
        ("dog", "poodle", 5),
    ]
    assert results.elsewhere == 2
    assert len(list(read_url_list(tmp_path / "search.tsv"))) == 5


def test_results_before_an_error_are_kept_and_the_next_run_continues(
    fake: FakeSearch, run: Callable[..., SearchResults], tmp_path: Path
) -> None:
    fake.answers = [fake_search.openverse(40), fake_search.openverse(40), lambda _: Reply(b"", 403)]
    with pytest.raises(SearchError) as raised:
        run()
    message = str(raised.value)
    assert message.endswith("(at 'poodle'; 2 of 3 queries are finished and kept)") and "\n" not in message
    assert len(list(read_url_list(tmp_path / "search.tsv"))) == len(read_results(tmp_path / "search.csv")) == 10
    fake.answers = [fake_search.openverse(40)]
    assert run().per_label() == [("cat", 2, 10), ("dog", 1, 5)]
    assert [request.parameters["q"] for request in fake.requests] == ["tabby cat", "black cat", "poodle", "poodle"]


def test_an_error_at_the_first_query_leaves_the_files_of_another_provider(
    fake: FakeSearch, run: Callable[..., SearchResults], tmp_path: Path
) -> None:
    fake.answers = [fake_search.openverse(40)]
    run()
    before = (tmp_path / "search.tsv").read_bytes()
    fake.answers = [lambda _: Reply(b"", 403)]
    with pytest.raises(SearchError, match="0 of 3 queries are finished"):
        run(name="wikimedia")
    assert (tmp_path / "search.tsv").read_bytes() == before


def test_rows_of_earlier_queries_stay_only_in_the_table(
    fake: FakeSearch, run: Callable[..., SearchResults], tmp_path: Path
) -> None:
    """Their images may have been downloaded, so their creators must still be named."""
    fake.answers = [fake_search.openverse(40)]
    before = run().rows
    after = run(Queries(5, (Query("dog", "beagle"),))).rows
    assert read_results(tmp_path / "search.csv") == [*after, *before]
    assert list(read_url_list(tmp_path / "search.tsv")) == [row.pair for row in after]


def test_nothing_found(fake: FakeSearch, run: Callable[..., SearchResults], tmp_path: Path) -> None:
    fake.answers = [fake_search.openverse(0)]
    assert run().per_label() == [("cat", 2, 0), ("dog", 1, 0)]
    assert (tmp_path / "search.tsv").read_text() == ""
    run()
    assert len(fake.requests) == 3
