"""One function over many items: in order, within bounds, ended cleanly; by threads and by processes alike."""

import errno
import itertools
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from libraries.base import pool as pool_module
from libraries.base.errors import PipelineError, StorageError
from libraries.base.pool import (
    Failed,
    Processes,
    Threads,
    Work,
    open_pool,
    ordered_map,
    side_by_side,
    usable_cores,
)


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


# In processes


class Calculator:
    """What a process does: the numbers of a job, added up."""

    def __init__(self, start: int) -> None:
        self.start = start

    def __call__(self, numbers: Sequence[int]) -> dict[str, Any]:
        sys.stdout.write("a library that prints something\n")
        if sum(numbers) < 0:
            raise STORAGE[sum(numbers)]
        if len(numbers) > 2:
            threading.Event().wait()
        return {"sum": self.start + sum(numbers)}

    def close(self) -> None:
        pass


STORAGE: dict[int, Exception] = {
    -1: StorageError("the disk is full"),
    -2: PermissionError(errno.EACCES, "Permission denied", "/data/images/cat"),
    -3: ZeroDivisionError("by nothing"),
    -4: ConnectionError("not about a file"),
}


def begin(*, start: int) -> Calculator:
    return Calculator(start)


def work(start: int = 0) -> Work[tuple[int, ...], int]:
    return Work(begin, {"start": start}, list, lambda result: int(result["sum"]))


@pytest.fixture
def by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets another process import this module, which pytest imports by its path."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setattr(begin, "__module__", "tests.base.test_pool")


@pytest.mark.usefixtures("by_name")
@pytest.mark.parametrize("processes", [1, 2])
def test_who_gives_the_work_does_not_know_who_does_it(processes: int) -> None:
    jobs = [(i, i + 1) for i in range(40)]
    with open_pool(work(start=100), processes=processes, threads=2) as pool:
        assert list(pool.map(iter(jobs), ahead=7)) == [(job, 100 + sum(job)) for job in jobs]
        for job in jobs:
            pool.give(job)
        had: list[tuple[tuple[int, ...], int | Failed]] = []
        while len(had) < len(jobs):
            had += pool.take(20.0)
        assert sorted(had) == [(job, 100 + sum(job)) for job in jobs]


@pytest.mark.usefixtures("by_name")
@pytest.mark.parametrize(
    ("number", "kind", "text"),
    [
        (-1, StorageError, "the disk is full"),
        (-2, StorageError, "/data/images/cat cannot be used: permission denied;"),
        (-3, RuntimeError, "ZeroDivisionError: by nothing"),
        (-4, RuntimeError, "ConnectionError: not about a file"),
    ],
)
def test_an_error_in_a_process_is_reported(number: int, kind: type[Exception], text: str) -> None:
    with Processes(work(), processes=1, threads=1) as pool:
        pool.give((number,))
        [(_, failed)] = pool.take(20.0)
    assert isinstance(failed, Failed)
    assert type(failed.error) is kind
    assert str(failed.error).startswith(text)


@pytest.mark.usefixtures("by_name")
def test_a_process_that_dies_is_an_error_in_one_line() -> None:
    with Processes(work(), processes=1, threads=1) as pool:
        pool.give((1, 2))
        assert pool.take(20.0) == [((1, 2), 3)]  # it is up
        pool.give((1, 2, 3))
        pool._processes[0]._process.kill()
        [(job, result)] = pool.take(20.0)
    assert job == (1, 2, 3)
    assert isinstance(result, Failed) and isinstance(result.error, PipelineError)
    assert "has died" in str(result.error)


@pytest.mark.usefixtures("by_name")
def test_nobody_waits_for_a_process_that_died_before_its_first_job() -> None:
    with Processes(work(), processes=1, threads=1) as pool:
        pool._processes[0]._process.kill()
        pool._processes[0]._reader.join()
        pool.give(job := (1, 2))
        [(given_back, result)] = pool.take(20.0)
    assert given_back is job
    assert isinstance(result, Failed) and isinstance(result.error, PipelineError)


@pytest.mark.usefixtures("by_name")
def test_a_process_ends_when_its_input_does() -> None:
    with Processes(work(), processes=1, threads=1) as pool:
        pool.give((1, 2, 3))  # for ever
        process = pool._processes[0]._process
        process.stdin.close()
        assert process.wait(20) == 0
        [(_, result)] = pool.take(20.0)
        assert isinstance(result, Failed)


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
