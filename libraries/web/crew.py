"""A few threads that each do one job at a time and hand back its result.

Jobs lie ready for those that finish theirs, and results are taken by the handful: where jobs are short, threads that
wait for each other cost more than the work.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Generic, TypeVar

J = TypeVar("J")
R = TypeVar("R")
T = TypeVar("T")


def handful(items: "queue.SimpleQueue[T]", timeout: float, *, gather: float = 0.0) -> list[T]:
    """What is in a queue; empty if nothing comes within `timeout` seconds.

    Args:
        gather: seconds to wait for more, once there is something.
    """
    found = []
    with contextlib.suppress(queue.Empty):
        found.append(items.get(timeout=timeout))
        time.sleep(gather)
        while True:
            found.append(items.get_nowait())
    return found


class Crew(Generic[J, R]):
    """Threads that call `do(job)`; a context, in which one thread gives jobs and takes results.

    At its regular end the threads are waited for. When it ends by an exception (Ctrl-C, a full disk) they are not: they
    are daemons, finish the job in hand, and hold up neither the program nor its exit.

    Args:
        do: its result, or the exception it raised, is what `take` gives.
        size: number of threads.
    """

    def __init__(self, do: Callable[[J], R], size: int) -> None:
        self._do = do
        self._todo: queue.SimpleQueue[J | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[J, R | Exception]] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(size)]
        self._busy = 0

    @property
    def has_room(self) -> bool:
        """Whether a thread is idle, or has no next job lying ready."""
        return self._busy < 2 * len(self._threads)

    def give(self, job: J) -> None:
        """Let a thread do a job, the first that is idle."""
        self._busy += 1
        self._todo.put(job)

    def take(self, timeout: float) -> list[tuple[J, R | Exception]]:
        """The jobs that were done and their results; empty if there is none within `timeout` seconds."""
        done = handful(self._done, timeout)
        self._busy -= len(done)
        return done

    def __enter__(self) -> "Crew[J, R]":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._todo.get_nowait()
        for _ in self._threads:
            self._todo.put(None)
        if error is None:
            for thread in self._threads:
                thread.join()

    def _work(self) -> None:
        while (job := self._todo.get()) is not None:
            try:
                self._done.put((job, self._do(job)))
            except Exception as error:  # not swallowed: whoever takes the result decides
                self._done.put((job, error))
