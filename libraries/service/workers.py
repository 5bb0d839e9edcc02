"""Work on images in threads, within bounds: who would wait too long is refused at once, and told when to come again.

Under overload a queue without bound makes every request late, and a bounded one keeps the answers that are given on
time. The bound is a time rather than a number, since a picture takes 5 ms on one network and 500 ms on another.
"""

import asyncio
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from libraries.service.problems import Problem

T = TypeVar("T")
R = TypeVar("R")

_WEIGHT = 0.05  # of the newest in the running mean of the seconds that a job takes


class Workers:
    """Threads, each taking one job after the other from a common queue.

    Attributes:
        waiting: jobs that no thread has begun.
        seconds: running mean of the time that a job takes once begun.
    """

    def __init__(self, *, threads: int, longest_wait: float, seconds: float = 0.02) -> None:
        """Start with `threads`; refuse what would wait for more than `longest_wait` seconds."""
        self.threads, self.longest_wait, self.seconds = threads, longest_wait, seconds
        self.waiting = 0
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="worker")

    @property
    def expected_wait(self) -> float:
        """Seconds that a job submitted now would wait for a thread."""
        return self.waiting * self.seconds / self.threads

    def check(self) -> None:
        """Raise Problem 503 if a further request would wait for too long."""
        if self.expected_wait > self.longest_wait:
            seconds = max(1, math.ceil(self.expected_wait))
            raise Problem(503, f"the service is busy: try again in {seconds} s", retry_after=seconds)

    async def run(self, work: Callable[[T], R], items: Sequence[T], *, timeout: float) -> list[tuple[R, float]]:
        """work(item) of every item, in order, and the seconds it waited before a thread began.

        All items of a request are taken or none: a request is refused for those before it, never for its own number.

        Raises:
            Problem: 503 too much is waiting; 504 not all done within `timeout` seconds.
        """
        self.check()
        submitted = time.perf_counter()

        def job(item: T) -> tuple[R, float]:
            begun = time.perf_counter()
            self._count(-1)
            try:
                return work(item), begun - submitted
            finally:
                with self._lock:
                    self.seconds += _WEIGHT * (time.perf_counter() - begun - self.seconds)

        self._count(len(items))
        futures = [self._pool.submit(job, item) for item in items]
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.gather(*(asyncio.wrap_future(future) for future in futures))
        except TimeoutError as error:
            raise Problem(504, f"not done within {timeout:g} s: send fewer or smaller images") from error
        finally:
            for future in futures:
                future.cancel()  # what no thread has begun, if the request ended early
            self._count(-sum(future.cancelled() for future in futures))

    def _count(self, change: int) -> None:
        with self._lock:
            self.waiting += change

    def close(self) -> None:
        """End the threads, after what they are at."""
        self._pool.shutdown(wait=True, cancel_futures=True)
