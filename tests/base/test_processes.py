"""Work in other processes: its results, its errors, and processes that die."""

import errno
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from libraries.base.errors import PipelineError, StorageError
from libraries.base.pool import Failed
from libraries.base.processes import Processes, Work, open_pool


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
    monkeypatch.setattr(begin, "__module__", "tests.base.test_processes")


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
