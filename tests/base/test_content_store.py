"""Results by content: what is kept, and what happens when files are damaged, deleted, or the store is full."""

import hashlib
import itertools
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Generator, Iterable
from pathlib import Path

import numpy as np
import pytest

from libraries.base.content_store import MOST_SMALL_PARTS, ROWS_PER_PART, ContentStore, Row
from tests.unprivileged import denied

ENOUGH = 10**9


def key(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def row(number: int) -> Row:
    return {
        "embedding": np.random.default_rng(number).normal(size=5).astype(np.float32),
        "tiny": np.full((2, 3), number % 256, np.uint8),
        "size": np.array([number, 2**40], np.int64),
    }


def assert_same(found: Row | None, expected: Row) -> None:
    assert found is not None and list(found) == list(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value)


def fill(folder: Path, numbers: Iterable[int], *, most_bytes: int = ENOUGH) -> None:
    with ContentStore(folder, most_bytes=most_bytes) as store:
        for number in numbers:
            store.put(key(number), row(number))


def parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*"))


class Computer:
    """Computes rows, and remembers for which numbers; negative ones have no row."""

    def __init__(self) -> None:
        self.done: list[int] = []

    def __call__(self, numbers: Iterable[int]) -> Generator[tuple[int, Row | str]]:
        for number in numbers:
            self.done.append(number)
            yield number, row(number) if number >= 0 else "no image"


def through(folder: Path, numbers: Iterable[int]) -> tuple[list[tuple[int, Row | str]], list[int]]:
    """What comes out for these numbers, and for which of them it was computed."""
    compute = Computer()
    with ContentStore(folder, most_bytes=ENOUGH) as store:
        return [(n, r) for n, r in store.through(numbers, compute, key=key)], compute.done


def test_rows_are_found_again(tmp_path: Path) -> None:
    fill(tmp_path / "a", range(2 * ROWS_PER_PART + 10))
    assert len(parts(tmp_path / "a")) == 3
    with ContentStore(tmp_path / "a", most_bytes=ENOUGH) as store:
        for number in (0, ROWS_PER_PART - 1, ROWS_PER_PART, 2 * ROWS_PER_PART + 9):
            assert_same(store.get(key(number)), row(number))
        assert store.get(key(-5)) is None


def test_only_what_is_missing_is_computed_in_the_order_asked_for(tmp_path: Path) -> None:
    fill(tmp_path / "a", [1, 3, 5, 6])
    asked = [0, 1, 2, 3, -4, 5, 6]
    results, done = through(tmp_path / "a", asked)
    assert [number for number, _ in results] == asked
    assert done == [0, 2, -4]
    assert results[4][1] == "no image"
    for number, result in results:
        if not isinstance(result, str):
            assert_same(result, row(number))
    assert through(tmp_path / "a", asked)[1] == [-4]  # what has no row is tried again


def test_nothing_is_run_if_nothing_is_missing(tmp_path: Path) -> None:
    fill(tmp_path / "a", range(5))
    with ContentStore(tmp_path / "a", most_bytes=ENOUGH) as store:
        results = list(store.through(range(5), lambda items: pytest.fail("run"), key=key))  # type: ignore[arg-type]
    assert [number for number, _ in results] == list(range(5))


@pytest.mark.parametrize("damage", ["cut off", "emptied", "a byte changed", "another file", "a folder"])
def test_damage_is_computed_again(tmp_path: Path, damage: str) -> None:
    fill(tmp_path / "a", range(20))
    (path,) = parts(tmp_path / "a")
    content = path.read_bytes()
    match damage:
        case "cut off":
            path.write_bytes(content[: len(content) // 2])
        case "emptied":
            path.write_bytes(b"")
        case "a byte changed":
            place = content.index(row(7)["embedding"].tobytes()) + 3
            path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        case "another file":
            path.write_bytes(b"PK\x03\x04 not Arrow at all" * 50)
        case "a folder":
            path.unlink()
            path.mkdir()
    results, done = through(tmp_path / "a", range(20))
    assert done == ([7] if damage == "a byte changed" else list(range(20)))
    for number, result in results:
        assert not isinstance(result, str)
        assert_same(result, row(number))


def test_every_byte_of_a_part_may_be_wrong(tmp_path: Path) -> None:
    fill(tmp_path / "a", range(3))
    (path,) = parts(tmp_path / "a")
    content = path.read_bytes()
    for place in range(0, len(content), 3):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :])
        with ContentStore(tmp_path / "a", most_bytes=ENOUGH) as store:
            for number in range(3):
                if (found := store.get(key(number))) is not None:
                    assert_same(found, row(number))


def test_a_part_that_goes_during_the_run_is_computed_again(tmp_path: Path) -> None:
    fill(tmp_path / "a", range(5))
    compute = Computer()
    with ContentStore(tmp_path / "a", most_bytes=ENOUGH) as store:
        for path in parts(tmp_path / "a"):
            path.unlink()
        results = list(store.through(range(5), compute, key=key))
    assert compute.done == [0, 1, 2, 3, 4]
    assert [number for number, _ in results] == compute.done


def test_small_parts_become_one(tmp_path: Path) -> None:
    runs = 3 * MOST_SMALL_PARTS
    for number in range(runs):
        fill(tmp_path / "a", [number])
    assert len(parts(tmp_path / "a")) <= MOST_SMALL_PARTS
    assert through(tmp_path / "a", range(runs))[1] == []


def test_the_oldest_parts_of_all_stores_go_first(tmp_path: Path) -> None:
    for place, name in enumerate("abc"):
        fill(tmp_path / name, range(ROWS_PER_PART))
        (part,) = parts(tmp_path / name)
        os.utime(part, ns=(place, place))
    size = part.stat().st_size
    with ContentStore(tmp_path / "a", most_bytes=ENOUGH) as store:  # so 'b' is the one not used for longest
        assert store.get(key(1)) is not None
    fill(tmp_path / "d", range(ROWS_PER_PART), most_bytes=3 * size + 100)
    assert [name for name in "abcd" if parts(tmp_path / name)] == ["a", "c", "d"]


def test_the_limit_holds_even_for_one_run(tmp_path: Path) -> None:
    fill(tmp_path / "a", range(ROWS_PER_PART))
    size = parts(tmp_path / "a")[0].stat().st_size
    fill(tmp_path / "b", range(5 * ROWS_PER_PART), most_bytes=2 * size + 100)
    assert sum(path.stat().st_size for path in tmp_path.rglob("part-*")) <= 2 * size + 100


def test_rows_that_had_to_make_room_are_missing_and_not_looked_for(tmp_path: Path) -> None:
    fill(tmp_path / "a", range(ROWS_PER_PART))
    (part,) = parts(tmp_path / "a")
    os.utime(part, ns=(1, 1))
    with ContentStore(tmp_path / "a", most_bytes=part.stat().st_size + 100) as store:
        for number in range(ROWS_PER_PART, 2 * ROWS_PER_PART):
            store.put(key(number), row(number))
        assert key(0) not in store and key(ROWS_PER_PART) in store


def test_a_limit_of_nothing_keeps_nothing(tmp_path: Path) -> None:
    fill(tmp_path / "a", range(2000), most_bytes=0)
    assert not (tmp_path / "a").exists()


def test_an_exception_loses_nothing_that_was_put(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), ContentStore(tmp_path / "a", most_bytes=ENOUGH) as store:
        store.put(key(1), row(1))
        raise KeyboardInterrupt
    assert through(tmp_path / "a", [1])[1] == []


def test_a_store_that_cannot_be_written_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with denied(tmp_path, 0o500):
        fill(tmp_path / "a", range(3 * ROWS_PER_PART))
    (message,) = caplog.messages
    assert message.startswith("what is computed is not remembered: ") and str(tmp_path / "a") in message


def test_a_file_in_the_place_of_a_store_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a").write_text("mine")
    fill(tmp_path / "a", range(3 * ROWS_PER_PART))
    assert len(caplog.messages) == 1
    assert (tmp_path / "a").read_text() == "mine"


def _fill_again_and_again(folder: Path, start: int) -> None:
    for first in itertools.count(start, 400):
        fill(folder, range(first, first + 400))


def test_a_kill_leaves_only_whole_parts(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    for start in (0, 10**6, 2 * 10**6):
        before = set(parts(tmp_path / "a"))
        process = context.Process(target=_fill_again_and_again, args=(tmp_path / "a", start))
        process.start()
        while len(set(parts(tmp_path / "a")) - before) < 3:
            assert process.is_alive()
        process.kill()
        process.join()
        with ContentStore(tmp_path / "a", most_bytes=ENOUGH) as store:
            for number in range(start, start + 400):
                assert_same(store.get(key(number)), row(number))


def test_two_runs_at_once_share_a_store(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.base.test_content_store import fill; "
        "[fill(Path(sys.argv[1]), range(start, start + 300)) for start in range(0, 6000, 150)]"
    )
    runs = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "a")]) for _ in range(2)]
    assert [run.wait(timeout=120) for run in runs] == [0, 0]
    assert through(tmp_path / "a", range(6150))[1] == []


@pytest.mark.parametrize("name", ["sha256", "crc32"])
def test_no_array_takes_the_place_of_a_column(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=name), ContentStore(tmp_path / "kind", most_bytes=10**6) as store:
        store.put(64 * "0", {name: np.zeros(32, np.uint8)})
