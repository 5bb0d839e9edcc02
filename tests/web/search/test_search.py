"""Whole searches: what lies on disk afterwards, and what a second run asks."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from libraries.base.errors import SearchError
from libraries.web.download.url_list import read_url_list
from libraries.web.search.files import read_table
from libraries.web.search.queries import Queries, Query
from libraries.web.search.search import Results, search
from tests import fake_search
from tests.fake_search import FakeSearch, Reply

QUERIES = Queries(5, (Query("cat", "tabby cat"), Query("cat", "black cat"), Query("dog", "poodle")))


@pytest.fixture
def run(provider: Callable[..., Any], tmp_path: Path) -> Callable[..., Results]:
    def call(queries: Queries = QUERIES, name: str = "openverse", **changes: Any) -> Results:
        return search(queries, provider(name), folder=tmp_path, **changes)

    return call


def test_the_files(fake: FakeSearch, run: Callable[..., Results], tmp_path: Path) -> None:
    fake.answers = [fake_search.openverse(40)]
    done: list[int] = []
    results = run(progress=done.append)
    assert done == [0, 1, 2]
    assert results.per_label() == [("cat", 2, 10), ("dog", 1, 5)]
    assert results.elsewhere == 0
    rows = read_table(tmp_path / "search.csv")
    assert rows == results.rows
    assert [row.query for row in rows] == ["tabby cat"] * 5 + ["black cat"] * 5 + ["poodle"] * 5
    assert list(read_url_list(tmp_path / "search.tsv")) == [row.pair for row in rows]
    assert rows[1].pair == ("cat", "https://images.example/files/tabby-cat-2.jpg")


def test_a_second_run_asks_nothing(fake: FakeSearch, run: Callable[..., Results], tmp_path: Path) -> None:
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
    fake: FakeSearch, run: Callable[..., Results], tmp_path: Path
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
    found = [(row.label, row.query, int(row.found.url[-5])) for row in results.rows]
    assert found == [
        ("cat", "tabby cat", 1),
        ("cat", "tabby cat", 2),
        ("cat", "tabby cat", 3),
        ("cat", "black cat", 4),
        ("dog", "poodle", 5),
    ]
    assert results.elsewhere == 2
    assert len(list(read_url_list(tmp_path / "search.tsv"))) == 5


def test_what_was_found_before_an_error_is_kept_and_the_next_run_goes_on(
    fake: FakeSearch, run: Callable[..., Results], tmp_path: Path
) -> None:
    fake.answers = [fake_search.openverse(40), fake_search.openverse(40), lambda _: Reply(b"", 403)]
    with pytest.raises(SearchError) as raised:
        run()
    message = str(raised.value)
    assert message.endswith("(at 'poodle'; 2 of 3 queries are finished and kept)") and "\n" not in message
    assert len(list(read_url_list(tmp_path / "search.tsv"))) == len(read_table(tmp_path / "search.csv")) == 10
    fake.answers = [fake_search.openverse(40)]
    assert run().per_label() == [("cat", 2, 10), ("dog", 1, 5)]
    assert [request.parameters["q"] for request in fake.requests] == ["tabby cat", "black cat", "poodle", "poodle"]


def test_an_error_at_the_first_query_leaves_the_files_of_another_provider(
    fake: FakeSearch, run: Callable[..., Results], tmp_path: Path
) -> None:
    fake.answers = [fake_search.openverse(40)]
    run()
    before = (tmp_path / "search.tsv").read_bytes()
    fake.answers = [lambda _: Reply(b"", 403)]
    with pytest.raises(SearchError, match="0 of 3 queries are finished"):
        run(name="wikimedia")
    assert (tmp_path / "search.tsv").read_bytes() == before


def test_rows_of_earlier_queries_stay_in_the_table_alone(
    fake: FakeSearch, run: Callable[..., Results], tmp_path: Path
) -> None:
    """Their images may have been downloaded: their creators still have to be named."""
    fake.answers = [fake_search.openverse(40)]
    before = run().rows
    after = run(Queries(5, (Query("dog", "beagle"),))).rows
    assert read_table(tmp_path / "search.csv") == [*after, *before]
    assert list(read_url_list(tmp_path / "search.tsv")) == [row.pair for row in after]


def test_nothing_found(fake: FakeSearch, run: Callable[..., Results], tmp_path: Path) -> None:
    fake.answers = [fake_search.openverse(0)]
    assert run().per_label() == [("cat", 2, 0), ("dog", 1, 0)]
    assert (tmp_path / "search.tsv").read_text() == ""
    run()
    assert len(fake.requests) == 3
