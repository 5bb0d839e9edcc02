import dataclasses
from pathlib import Path

import pytest

from libraries.base.errors import StorageError
from libraries.web.search.found import Found
from libraries.web.search.log import Search, SearchLog

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
