"""Threads that work on images, with a bounded queue: a request that would wait too long is refused at once.

Under overload an unbounded queue makes every request late; a short one keeps those that are accepted on time. The bound
is a number of images, so that the number of callers served does not depend on how fast the network is.

Requests take turns; a turn is as many images as there are threads. So a request with many images delays an image of
another request by about the time that one image takes, and still gets its share. Only images that would begin before
the last image of a new request count against the bound: behind a large request, a small one is accepted, and another
large one is refused rather than answered late.

Large images wait for memory, in order, while small ones overtake them: threads wait for nothing but work.

Threads cannot be killed. Processes can, but images and answers would have to pass between them, and each would take
50 MB of memory. Images that would take long to decode are refused by their headers (libraries/data), so that none takes
as long as a request may. Should one do so nevertheless, its thread is replaced until it ends, so that other requests
are served. There are never more than twice as many threads; if all are stuck, requests are refused.
"""

import asyncio
import contextlib
import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from libraries.service.problems import Problem

T = TypeVar("T")
R = TypeVar("R")

_WEIGHT = 0.05  # of the latest job in the running mean of seconds per job
_SMALL = 8  # a job is small if this many per thread fit into the memory for large jobs


class Workers:
    """Threads that take jobs from a common queue, in which every request has a lane.

    Not concurrent.futures: its future per job, asyncio's future for each of those, and what ties them together took a
    quarter of the event loop's time, during which a core does not compute.

    Attributes:
        threads: number of threads, without those that replace stuck ones.
        most_waiting: jobs that may wait.
        memory: bytes that large jobs may take together.
        seconds: running mean of the time that a job takes once it has begun.
    """

    def __init__(
        self, *, threads: int, most_waiting: int, memory: int = 2**30, patience: float = 60.0, seconds: float = 0.02
    ) -> None:
        """Start `threads`; refuse requests that would wait for more than `most_waiting` jobs once all are at work.

        Args:
            memory: bytes that large jobs may take together.
            patience: seconds after which a thread counts as stuck.
            seconds: that a job takes, as a first guess.
        """
        self.threads, self.most_waiting, self.memory, self.seconds = threads, most_waiting, memory, seconds
        self._patience, self._small = patience, memory // (_SMALL * threads)
        self._lock = threading.Condition()  # guards all of the following
        self._lanes: OrderedDict[_Batch[Any, Any], deque[_Job]] = (
            OrderedDict()
        )  # waiting jobs, by request; the next turn first
        self._begun: dict[_Job, float] = {}  # job → when it began; the oldest first
        self._taken = 0  # bytes that large jobs take now
        self._replaced: set[_Job] = set()  # jobs whose stuck thread has been replaced
        self._is_closing = False
        self._alive: set[threading.Thread] = set()
        for _ in range(threads):
            self._start()

    def _start(self) -> None:
        thread = threading.Thread(target=self._work, name="worker", daemon=True)
        self._alive.add(thread)
        thread.start()

    @property
    def waiting(self) -> int:
        """Jobs that have not begun."""
        with self._lock:
            return sum(map(len, self._lanes.values()))

    @property
    def at_work(self) -> int:
        """Jobs that have begun and not ended."""
        return len(self._begun)

    def expected_wait(self, count: int = 1) -> float:
        """Seconds that the last of `count` jobs submitted now would wait for those of others; 0 if a thread is free."""
        with self._lock:
            now, begun = time.perf_counter(), [*self._begun.values()]
            beyond = max(0, self._ahead_of(count) - self.threads)
        so_far = (now - sum(begun) / len(begun)) if begun else 0.0
        return beyond * max(self.seconds, so_far) / self.threads

    def _ahead_of(self, count: int) -> int:
        """Jobs that are at work, or would begin before the last of `count` jobs submitted now."""
        most = count - 1 + self.threads  # of one lane
        with self._lock:
            return self.at_work - len(self._replaced) + sum(min(len(lane), most) for lane in self._lanes.values())

    @property
    def are_stuck(self) -> bool:
        """Whether every thread has been at the same job for too long; replaces stuck threads as far as allowed."""
        now, stuck = time.perf_counter(), 0
        with self._lock:
            for job, begun in self._begun.items():
                if now - begun < self._patience:
                    break
                stuck += 1
                if job not in self._replaced and len(self._replaced) < self.threads and not self._is_closing:
                    self._replaced.add(job)
                    self._start()
            return stuck >= self.threads + len(self._replaced)

    def check(self, count: int = 1) -> None:
        """Raise Problem 503 if `count` further jobs would wait for too many others."""
        if self.are_stuck:
            raise Problem(503, "every thread is busy with an image that takes too long: try again", retry_after=10)
        if self._ahead_of(count) >= self.threads + self.most_waiting:
            seconds = max(1, math.ceil(self.expected_wait(count)))
            raise Problem(503, f"the service is busy: try again in {seconds} s", retry_after=seconds)

    async def run(
        self, work: Callable[[T], R], items: Sequence[T], *, memory: Callable[[T], int] = lambda item: 0
    ) -> list[tuple[R, float]]:
        """work(item) for every item, in order, each with the seconds that it waited before it began.

        Either all items of a request are accepted or none. A request is refused because of those ahead of it, never
        because of its own number of items. If the call is cancelled, items that have not begun are dropped.

        Args:
            memory: bytes that work(item) takes at most; called in a thread.

        Raises:
            Problem: 503 too much is waiting.
        """
        self.check(len(items))
        return await self._run(_Batch(work, memory, items))

    async def run_at_once(self, work: Callable[[T], R], item: T, *, memory: Callable[[T], int]) -> R:
        """work(item), ahead of everything that waits: for quick work that should never be refused.

        If it takes much memory, it waits for its turn like other jobs.
        """
        ((result, _),) = await self._run(_Batch(work, memory, [item], is_quick=True))
        return result

    async def _run(self, batch: "_Batch[T, R]") -> list[tuple[R, float]]:
        jobs = deque(_Job(batch, place) for place in range(batch.not_done))
        with self._lock:
            self._lanes[batch] = jobs  # the batch holds no reference to its jobs, which would be a cycle
            if batch.is_quick:
                self._lanes.move_to_end(batch, last=False)
            self._lock.notify(len(jobs))
        try:
            return await batch.done
        finally:
            if batch.not_done:
                self._forget(batch)

    def _forget(self, batch: "_Batch[Any, Any]") -> None:
        """Drop what has not begun of a batch that ended early."""
        with self._lock:
            batch.is_over = True
            self._lanes.pop(batch, None)
            self._lock.notify_all()  # a lane behind it may be next now

    def close(self, *, seconds: float = 2.0) -> None:
        """End the threads: drop what waits, and wait at most this long for what has begun."""
        with self._lock:
            self._is_closing = True
            self._lanes.clear()
            self._lock.notify_all()
        end = time.monotonic() + seconds
        for thread in [*self._alive]:
            thread.join(max(0.0, end - time.monotonic()))

    def _work(self) -> None:
        while self._do_next():
            pass  # between two calls a thread holds no reference to an image
        self._alive.discard(threading.current_thread())

    def _do_next(self) -> bool:
        """Wait for a job and do it; False if this thread is to end."""
        job = self._next()
        if job is None:
            return False
        if job.memory is None:
            job.memory = min(job.batch.measure(job), self.memory)
            if job.memory > self._small:
                return self._set_aside(job)
        begun = time.perf_counter()
        error = job.batch.do(job, begun)
        return self._end(job, error, seconds=time.perf_counter() - begun)

    def _next(self) -> "_Job | None":
        """Wait for the next job that fits into memory; None when closing."""
        with self._lock:
            while not self._is_closing:
                if (job := self._take_turn()) is not None:
                    self._begun[job] = time.perf_counter()
                    return job
                self._lock.wait()
        return None

    def _take_turn(self) -> "_Job | None":
        """Take a job of the first lane that has one that fits into memory; a lane that has had its turn goes last."""
        free = self.memory - self._taken
        for batch, lane in self._lanes.items():
            job = lane[0]
            if (job.memory or 0) > free:  # no large job may overtake it; jobs at the other end may be small
                free, job = 0, lane[-1]
            if (job.memory or 0) <= free:
                self._taken += job.memory or 0
                lane.remove(job)
                batch.taken += 1
                if not lane:
                    del self._lanes[batch]
                elif batch.taken % self.threads == 0:
                    self._lanes.move_to_end(batch)
                return job
        return None

    def _set_aside(self, job: "_Job") -> bool:
        """Let a large job wait for memory, in order; whether the thread is to go on."""
        with self._lock:
            del self._begun[job]
            if not job.batch.is_over and not self._is_closing:
                self._lanes.setdefault(job.batch, deque()).appendleft(job)
                self._lock.notify()  # in case this thread does not go on
            return self._is_still_needed(job)

    def _end(self, job: "_Job", error: BaseException | None, *, seconds: float) -> bool:
        """Account for a job that has ended, and end its batch if it was the last; whether the thread is to go on."""
        batch = job.batch
        with self._lock:
            del self._begun[job]
            if (job.memory or 0) > self._small:
                self._taken -= job.memory or 0
                self._lock.notify_all()
            if not batch.is_quick:
                self.seconds += _WEIGHT * (seconds - self.seconds)
            batch.not_done -= 1
            is_last = batch.not_done == 0
            is_needed = self._is_still_needed(job)
        if error is not None or is_last:
            batch.end(error)
        return is_needed

    def _is_still_needed(self, job: "_Job") -> bool:
        """Whether the thread that did this job has not been replaced."""
        is_needed = job not in self._replaced
        self._replaced.discard(job)
        return is_needed


class _Job:
    """An item of a batch.

    Attributes:
        place: of the item in its batch.
        memory: bytes that it takes; None before it has been measured.
    """

    def __init__(self, batch: "_Batch[Any, Any]", place: int) -> None:
        self.batch, self.place = batch, place
        self.memory: int | None = None


class _Batch(Generic[T, R]):
    """The items of one request.

    Attributes:
        done: the results, or the first error.
        not_done: number of items; guarded by the lock of Workers, as is `taken`.
        taken: number of items that have been measured or begun.
        is_over: whether it has ended early.
        is_quick: whether it goes ahead of others, and does not count in the mean time of a job.
    """

    def __init__(
        self, work: Callable[[T], R], memory: Callable[[T], int], items: Sequence[T], *, is_quick: bool = False
    ) -> None:
        self.not_done, self.taken, self.is_over, self.is_quick = len(items), 0, False, is_quick
        self._work, self._memory, self._items = work, memory, items
        self._results: list[Any] = [None] * len(items)
        self._submitted = time.perf_counter()
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[list[tuple[R, float]]] = self._loop.create_future()

    def measure(self, job: _Job) -> int:
        """Bytes of memory that an item takes; 0 if that fails, as its work will fail too."""
        try:
            return self._memory(self._items[job.place])
        except Exception:
            return 0

    def do(self, job: _Job, now: float) -> BaseException | None:
        """Do one item, in a thread; returns the error, if any."""
        try:
            self._results[job.place] = self._work(self._items[job.place]), now - self._submitted
        except BaseException as error:
            return error
        return None

    def end(self, error: BaseException | None) -> None:
        """Tell the event loop, from a thread, that all items are done or that one has failed."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits for the results
            self._loop.call_soon_threadsafe(self._end, error)

    def _end(self, error: BaseException | None) -> None:
        if self.done.done():
            return
        if error is None:
            self.done.set_result(self._results)
        else:
            self.done.set_exception(error)
