"""One function over many items: in order, within bounds, ended cleanly; by threads and by processes alike."""

import itertools
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from libraries.base import pool as pool_module
from libraries.base.pool import Threads, ordered_map, side_by_side, usable_cores


def ordered_map_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("ordered_map")]


@pytest.fixture(autouse=True)
def no_thread_survives() -> Iterator[None]:
    """Every test also checks that whatever way the map ended, its threads have."""
    yield
    assert not ordered_map_threads()


# In order


def test_order_holds_when_later_items_finish_first() -> None:
    later_done = threading.Event()

    def work(index: int) -> int:
        if index == 0:
            assert later_done.wait(timeout=10)
        if index == 5:
            later_done.set()
        return index * index

    assert list(ordered_map(work, range(9), workers=2, ahead=6)) == [(i, i * i) for i in range(9)]


def test_no_more_is_taken_than_was_promised() -> None:
    taken = []

    def items() -> Iterator[int]:
        for index in itertools.count():
            taken.append(index)
            yield index

    results = ordered_map(lambda i: i, items(), workers=3, ahead=8)
    for index, _ in itertools.islice(results, 50):
        assert len(taken) <= index + 1 + 8
    results.close()


def test_a_stream_of_any_length_takes_bounded_memory() -> None:
    taken = itertools.count()

    def items() -> Iterator[int]:
        yield from taken

    first_may_end = threading.Event()

    def work(item: int) -> int:
        if item == 0:
            assert first_may_end.wait(10)
        if item == 60:
            first_may_end.set()
        return item * item

    stream = ordered_map(work, items(), workers=4, ahead=64)
    assert [next(stream) for _ in range(1000)] == [(i, i * i) for i in range(1000)]
    assert next(taken) <= 1000 + 64
    stream.close()


def test_no_more_threads_are_started_than_there_is_work() -> None:
    with closing(ordered_map(lambda i: i, range(2), workers=16)) as results:
        next(results)
        assert len(ordered_map_threads()) <= 2


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_an_exception_is_raised_in_its_place_and_what_waits_is_not_begun(error: type[BaseException]) -> None:
    begun = []

    def work(index: int) -> int:
        begun.append(index)
        if index == 3:
            raise error
        return index

    results, had = ordered_map(work, itertools.count(), workers=1, ahead=5), []
    with pytest.raises(error):
        had.extend(item for item, _ in results)
    assert had == [0, 1, 2]
    assert len(begun) < 10 and not ordered_map_threads()


def test_an_exception_that_is_a_result_is_none_that_is_raised() -> None:
    result = ValueError("returned, not raised")
    assert list(ordered_map(lambda _: result, "ab", workers=2)) == [("a", result), ("b", result)]


def test_an_exception_of_the_items_is_raised_when_those_before_it_are_had() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(ordered_map(lambda i: i, items(), workers=2))


def test_calculations_side_by_side_have_one_thread_of_blas_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "usable_cores", lambda: 2)
    np.ones((2, 2)) @ np.ones((2, 2))
    seen: list[int] = []

    def look() -> None:
        seen.extend(each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas")

    side_by_side([look, look])
    assert set(seen) == {1}
    side_by_side([look])
    assert set(seen) == {1}, "a single one, too: results must not depend on the number of threads"


def test_what_waits_is_not_begun_after_an_error_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "usable_cores", lambda: 2)
    begun: list[int] = []

    def fail() -> None:
        begun.append(1)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        side_by_side([fail] * 500)
    assert len(begun) < 500


# As they come, in threads


def test_an_error_waits_for_no_thread_that_is_abandoned() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def hang(_: int) -> None:
        begun.set()
        go_on.wait(20)

    with pytest.raises(KeyboardInterrupt), Threads(hang, 1, abandon=True) as pool:
        pool.give(1)
        assert begun.wait(20)
        raise KeyboardInterrupt
    assert not go_on.is_set()
    go_on.set()


def test_at_the_regular_end_all_is_done() -> None:
    done: list[int] = []
    with Threads(done.append, 3) as pool:
        for number in range(50):
            pool.give(number)
    assert sorted(done) == list(range(50))


def test_there_is_room_until_every_thread_has_a_next_job() -> None:
    go_on = threading.Event()
    with Threads(lambda _: go_on.wait(20), 2) as pool:
        given = 0
        while pool.has_room:
            pool.give(given)
            given += 1
        assert given == 4
        assert pool.take(0.0) == []
        go_on.set()
        assert [job for job, _ in pool.take(20.0)]


# How many


@pytest.mark.parametrize(
    ("limit", "cores"), [("150000 100000", 2), ("100000 100000", 1), ("1000 100000", 1), ("10000000 100000", None)]
)
def test_cores_are_those_the_container_is_limited_to(tmp_path: Path, limit: str, cores: int | None) -> None:
    everything = usable_cores(tmp_path / "none")
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert usable_cores(tmp_path / "cpu.max") == everything
    (tmp_path / "cpu.max").write_text(limit + "\n")
    assert usable_cores(tmp_path / "cpu.max") == min(cores or everything, everything)
