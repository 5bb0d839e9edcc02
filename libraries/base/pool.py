"""One function over many items in parallel: in order (`ordered_map`), or with jobs given and results taken one by one.

There are three kinds of `Pool`: `Threads` of this process, `Processes` for work that holds the GIL (`processes`), and a
`Cluster` (`cluster`). The last two take `Work`, which can be sent to another process without pickle.
"""

import contextlib
import itertools
import os
import queue
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Generic, Self, TypeVar

from libraries.base.errors import PipelineError

J = TypeVar("J")
R = TypeVar("R")

_AHEAD = 32  # items per worker, so that all stay busy while the consumer is briefly occupied
_POLL = 0.5  # seconds until Ctrl-C is noticed, at most


def usable_cores(limit: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """How many cores this process may use: fewer than the machine has under `taskset`, or in a limited container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        microseconds, period = map(int, limit.read_text(encoding="ascii").split())  # "max 100000" if unlimited
    except (OSError, ValueError):
        return cores
    return max(1, min(cores, round(microseconds / period)))


def ordered_map(
    function: Callable[[J], R], items: Iterable[J], *, workers: int | None = None, ahead: int | None = None
) -> Generator[tuple[J, R]]:
    """Yield (item, function(item)) in the order of `items`, computed by threads; see `Pool.map`.

    However the iteration ends (exhausted, an exception, Ctrl-C, the generator closed), waiting work is cancelled, and
    the threads have ended when control returns.

    Args:
        workers: number of threads; by default one per usable core.
        ahead: see `Pool.map`.
    """
    with Threads(function, workers or usable_cores(), name="ordered_map") as pool:
        yield from pool.map(items, ahead=ahead)


def side_by_side(tasks: Sequence[Callable[[], None]]) -> None:
    """Run independent calculations, in one thread per usable core; see `one_blas_thread`."""
    with one_blas_thread():
        for _ in ordered_map(lambda task: task(), tasks, workers=min(len(tasks), usable_cores())):
            pass


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Within it, NumPy's linear algebra has one thread, in all threads of this process.

    Products of a few columns are too small to split between cores, and synchronizing costs more than it saves, ten
    times as much on a busy machine. And a sum depends, in its last digits, on how it is split.
    """
    from threadpoolctl import threadpool_limits  # not installed where bundles are only used

    with threadpool_limits(1, user_api="blas"):
        yield


class WorkerLost(PipelineError):
    """The process that did a job has died, or its machine has gone."""


@dataclass(frozen=True)
class Failed:
    """In place of a result: the exception that the job raised."""

    error: BaseException


class Pool(ABC, Generic[J, R]):
    """Workers that each do one job at a time. A context manager, in which one thread gives jobs and takes results.

    Left normally, it finishes all jobs; left by an exception (Ctrl-C, a full disk), it drops those not yet started.

    Args:
        workers: number of jobs done at once.
    """

    gather = 0.0  # seconds to wait for more results, once there is one
    goes_on = False  # whether others take the place of a lost worker

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._numbers = itertools.count()
        self._in_hand: dict[int, J] = {}  # given and not taken yet
        self._done: queue.SimpleQueue[tuple[int, R | Failed]] = queue.SimpleQueue()

    @property
    def has_room(self) -> bool:
        """Whether a worker is idle, or has no further job queued."""
        return len(self._in_hand) < 2 * self._workers

    def give(self, job: J) -> int:
        """Queue a job for the first idle worker; returns the job's number."""
        number = next(self._numbers)
        self._in_hand[number] = job
        self._start(number, job)
        return number

    def take(self, timeout: float) -> list[tuple[J, R | Failed]]:
        """Finished jobs with their results; empty if none finishes within `timeout` seconds."""
        return [(self._in_hand.pop(number), result) for number, result in self._take(timeout)]

    def map(self, items: Iterable[J], *, ahead: int | None = None) -> Iterator[tuple[J, R]]:
        """Yield each item with its result, in order; an exception is raised in place of its item's result.

        Not to be mixed with `give` and `take`.

        Args:
            ahead: how many items are taken from `items` but not yet yielded, at most; this bounds memory.
        """
        items, ahead = iter(items), ahead or _AHEAD * self._workers
        pending: deque[int] = deque()
        done: dict[int, R | Failed] = {}
        while True:
            given = [self.give(item) for item in itertools.islice(items, min(self._workers, ahead - len(pending)))]
            pending.extend(given)
            if not pending:
                return
            if pending[0] not in done:
                done.update(self._take(0.0 if given else _POLL))
                continue
            number = pending.popleft()
            result, item = done.pop(number), self._in_hand.pop(number)
            if isinstance(result, Failed):
                raise result.error
            yield item, result

    def close(self) -> None:
        """Finish all jobs, and end the workers."""
        while self._in_hand:
            self.take(_POLL)
        self._end()

    def cancel(self) -> None:
        """Drop the jobs not yet started, and end the workers."""
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.cancel()

    def _take(self, timeout: float) -> list[tuple[int, R | Failed]]:
        results = []
        with contextlib.suppress(queue.Empty):
            results.append(self._done.get(timeout=timeout))
            time.sleep(self.gather)
            while True:
                results.append(self._done.get_nowait())
        return results

    @abstractmethod
    def _start(self, number: int, job: J) -> None:
        """Start a job; its number and result go into `_done`."""

    @abstractmethod
    def _end(self) -> None:
        """End the workers."""


class Threads(Pool[J, R]):
    """Threads of this process, started when needed.

    Args:
        function: does a job.
        name: of the threads, for debugging.
        abandon: after an exception, do not wait for running jobs, which may be waiting for a slow server. They delay
            neither the program nor its exit.
    """

    def __init__(self, function: Callable[[J], R], workers: int, *, name: str = "pool", abandon: bool = False) -> None:
        super().__init__(workers)
        self._function = function
        self._name, self._abandon = name, abandon
        self._todo: queue.SimpleQueue[tuple[int, J] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def _start(self, number: int, job: J) -> None:
        self._todo.put((number, job))
        if len(self._threads) < min(self._workers, len(self._in_hand)):
            thread = threading.Thread(target=self._work, name=f"{self._name} {len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def cancel(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._todo.get_nowait()
        self._end(wait=not self._abandon)

    def _end(self, *, wait: bool = True) -> None:
        for _ in self._threads:
            self._todo.put(None)
        for thread in self._threads if wait else ():
            thread.join()

    def _work(self) -> None:
        while (given := self._todo.get()) is not None:
            number, job = given
            result: R | Failed
            try:
                result = self._function(job)
            except BaseException as error:  # not swallowed: the caller gets it as the result
                result = Failed(error)
            self._done.put((number, result))
