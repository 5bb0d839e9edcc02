"""A few threads that each do one job at a time and hand back its result."""

import queue
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Generic, TypeVar

J = TypeVar("J")
R = TypeVar("R")


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
        """Whether a thread is idle."""
        return self._busy < len(self._threads)

    def give(self, job: J) -> None:
        """Let a thread do a job."""
        self._busy += 1
        self._todo.put(job)

    def take(self, timeout: float) -> tuple[J, R | Exception] | None:
        """A job that was done and its result; None if there is none within `timeout` seconds."""
        try:
            done = self._done.get(timeout=timeout)
        except queue.Empty:
            return None
        self._busy -= 1
        return done

    def __enter__(self) -> "Crew[J, R]":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
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
