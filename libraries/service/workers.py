"""Work on images in threads, within bounds: who would wait too long is refused at once, and told when to come again.

Under overload a queue without bound makes every request late, and a short one keeps the answers that are given on time.
The bound is a number of images, so that how many callers there may be does not depend on the network.
"""

import asyncio
import contextlib
import math
import threading
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from libraries.service.problems import Problem

T = TypeVar("T")
R = TypeVar("R")

_WEIGHT = 0.05  # of the newest in the running mean of the seconds that a job takes


class Workers:
    """Threads, each taking one job after the other from a common queue.

    Not those of concurrent.futures: a future for every job, and one of asyncio for each of them, and what ties them
    together, took a quarter of the event loop's time, during which a core does not compute.

    Attributes:
        waiting: jobs that no thread has begun.
        at_work: jobs that a thread has begun and not ended.
        seconds: running mean of the time that a job takes once begun.
    """

    def __init__(self, *, threads: int, most_waiting: int, seconds: float = 0.02) -> None:
        """Start `threads`; refuse requests while all are at work and `most_waiting` jobs wait."""
        self.threads, self.most_waiting, self.seconds = threads, most_waiting, seconds
        self.waiting = self.at_work = 0
        self._lock = threading.Lock()
        self._jobs: SimpleQueue[tuple[_Batch[Any, Any], int] | None] = SimpleQueue()
        self._crew = [threading.Thread(target=self._work, name=f"worker_{i}", daemon=True) for i in range(threads)]
        for thread in self._crew:
            thread.start()

    @property
    def expected_wait(self) -> float:
        """Seconds that a job submitted now would wait for a thread; 0 while one is free."""
        beyond = self.waiting + self.at_work - self.threads
        return max(0, beyond) * self.seconds / self.threads

    def check(self) -> None:
        """Raise Problem 503 if too many wait for a further one to join them."""
        if self.waiting + self.at_work >= self.threads + self.most_waiting:
            seconds = max(1, math.ceil(self.expected_wait))
            raise Problem(503, f"the service is busy: try again in {seconds} s", retry_after=seconds)

    async def run(self, work: Callable[[T], R], items: Sequence[T], *, timeout: float) -> list[tuple[R, float]]:
        """work(item) of every item, in order, and the seconds it waited before a thread began.

        All items of a request are taken or none: a request is refused for those before it, never for its own number.

        Raises:
            Problem: 503 too much is waiting; 504 not all done within `timeout` seconds.
        """
        self.check()
        batch = _Batch(work, items)
        with self._lock:
            self.waiting += len(items)
        for place in range(len(items)):
            self._jobs.put((batch, place))
        try:
            async with asyncio.timeout(timeout):
                return await batch.done
        except TimeoutError as error:
            raise Problem(504, f"not done within {timeout:g} s: send fewer or smaller images") from error
        finally:
            with self._lock:  # if it ended early, nothing more of it is begun
                self.waiting -= batch.not_begun
                batch.not_begun = 0

    def close(self) -> None:
        """End the threads, after what they are at; what waits is not begun."""
        while not self._jobs.empty():
            self._jobs.get()
        for _ in self._crew:
            self._jobs.put(None)
        for thread in self._crew:
            thread.join()

    def _work(self) -> None:
        while self._do_next():
            pass  # between two calls a thread holds no image

    def _do_next(self) -> bool:
        """Wait for a job and do it; False when there will be no more."""
        job = self._jobs.get()
        if job is None:
            return False
        batch, place = job
        with self._lock:
            if batch.not_begun == 0:  # it has ended early
                return True
            batch.not_begun -= 1
            self.waiting -= 1
            self.at_work += 1
        begun = time.perf_counter()
        error = batch.do(place, begun)
        with self._lock:
            self.at_work -= 1
            self.seconds += _WEIGHT * (time.perf_counter() - begun - self.seconds)
            batch.not_done -= 1
            is_last = batch.not_done == 0
        if error is not None or is_last:
            batch.end(error)
        return True


class _Batch(Generic[T, R]):
    """The items of one request.

    Attributes:
        done: the results, or the first error.
        not_begun, not_done: items; the lock of Workers guards both.
    """

    def __init__(self, work: Callable[[T], R], items: Sequence[T]) -> None:
        self.not_begun = self.not_done = len(items)
        self._work, self._items = work, items
        self._results: list[Any] = [None] * len(items)
        self._submitted = time.perf_counter()
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[list[tuple[R, float]]] = self._loop.create_future()

    def do(self, place: int, now: float) -> BaseException | None:
        """Do one item, in a thread; what it raised."""
        try:
            self._results[place] = self._work(self._items[place]), now - self._submitted
        except BaseException as error:
            return error
        return None

    def end(self, error: BaseException | None) -> None:
        """Tell the event loop, from a thread, that all is done or that an item has failed."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._end, error)

    def _end(self, error: BaseException | None) -> None:
        if self.done.done():
            return
        if error is None:
            self.done.set_result(self._results)
        else:
            self.done.set_exception(error)
