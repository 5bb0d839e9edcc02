"""Work on images in threads, within bounds: who would wait too long is refused at once, and told when to come again.

Under overload a queue without bound makes every request late, and a short one keeps the answers that are given on time.
The bound is a number of images, so that how many callers there may be does not depend on the network.

Requests take turns, each of as many images as there are threads: one with many delays an image of another by about the
time that one takes, and has its share though others come and go. Against the bound counts what would be begun before a
newcomer's last image: behind one with many, a small one is taken, and another with many is refused, not answered late.

Large images wait for memory, in their order, while small ones pass them: no thread waits for anything but work.

Threads cannot be killed. Processes can, but pictures and answers would have to pass between them, each would take 50 MB
of memory, and what a decode may cost is bounded by what is refused by its header (libraries/data) already: no image
that passes takes as long as a request may. Should one do so nevertheless, its thread is replaced while it lasts, so
that the others are served; there are never more than twice as many threads, and when all are stuck, that is told.
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

_WEIGHT = 0.05  # of the newest in the running mean of the seconds that a job takes
_SMALL = 8  # so many small jobs for each thread take as much memory as there is for the large ones


class Workers:
    """Threads, each taking one job after the other from a common queue, in which every request has a lane.

    Not those of concurrent.futures: a future for every job, and one of asyncio for each of them, and what ties them
    together, took a quarter of the event loop's time, during which a core does not compute.

    Attributes:
        memory: bytes that large jobs may take together; small ones take an eighth of it at most.
        seconds: running mean of the time that a job takes once begun.
    """

    def __init__(
        self, *, threads: int, most_waiting: int, memory: int = 2**30, patience: float = 60.0, seconds: float = 0.02
    ) -> None:
        """Start `threads`; refuse requests that would wait for more than `most_waiting` jobs once all are at work.

        Args:
            patience: seconds after which a thread counts as stuck.
        """
        self.threads, self.most_waiting, self.memory, self.seconds = threads, most_waiting, memory, seconds
        self._patience, self._small = patience, memory // (_SMALL * threads)
        self._lock = threading.Condition()  # guards all of the following
        self._lanes: OrderedDict[_Batch[Any, Any], deque[_Job]] = OrderedDict()  # what waits; whose turn it is first
        self._begun: dict[_Job, float] = {}  # when, the oldest first
        self._taken = 0  # bytes, by large jobs
        self._replaced: set[_Job] = set()  # at which a thread is stuck
        self._is_closing = False
        self._crew: set[threading.Thread] = set()
        for _ in range(threads):
            self._start()

    def _start(self) -> None:
        thread = threading.Thread(target=self._work, name="worker", daemon=True)
        self._crew.add(thread)
        thread.start()

    @property
    def waiting(self) -> int:
        """Jobs that no thread has begun."""
        with self._lock:
            return sum(map(len, self._lanes.values()))

    @property
    def at_work(self) -> int:
        """Jobs that a thread has begun and not ended."""
        return len(self._begun)

    def expected_wait(self, count: int = 1) -> float:
        """Seconds that the last of `count` jobs submitted now would wait for those of others; 0 while one is free."""
        with self._lock:
            now, begun = time.perf_counter(), [*self._begun.values()]
            beyond = max(0, self._before(count) - self.threads)
        so_far = (now - sum(begun) / len(begun)) if begun else 0.0
        return beyond * max(self.seconds, so_far) / self.threads

    def _before(self, count: int) -> int:
        """Jobs that are at work, or begun in the turns of others before the last of `count` submitted now."""
        most = count - 1 + self.threads  # in the turns of one of them
        with self._lock:
            return self.at_work - len(self._replaced) + sum(min(len(lane), most) for lane in self._lanes.values())

    @property
    def are_stuck(self) -> bool:
        """Whether every thread has been at the same job for too long; those that can be replaced are."""
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
        """Raise Problem 503 if `count` further jobs would wait for too many of others."""
        if self.are_stuck:
            raise Problem(503, "every thread is busy with an image that takes too long: try again", retry_after=10)
        if self._before(count) >= self.threads + self.most_waiting:
            seconds = max(1, math.ceil(self.expected_wait(count)))
            raise Problem(503, f"the service is busy: try again in {seconds} s", retry_after=seconds)

    async def run(
        self, work: Callable[[T], R], items: Sequence[T], *, memory: Callable[[T], int] = lambda item: 0
    ) -> list[tuple[R, float]]:
        """work(item) of every item, in order, and the seconds it waited before a thread began.

        All items of a request are taken or none: a request is refused for those before it, never for its own number.
        What is cancelled is not begun.

        Args:
            memory: bytes that an item takes at most while it is at work; asked in a thread.

        Raises:
            Problem: 503 too much is waiting.
        """
        self.check(len(items))
        return await self._run(_Batch(work, memory, items))

    async def run_at_once(self, work: Callable[[T], R], item: T, *, memory: Callable[[T], int]) -> R:
        """work(item), before all else that waits: what does not take long, and of which nobody should be refused.

        If it is large, it waits for its turn like others.
        """
        ((result, _),) = await self._run(_Batch(work, memory, [item], is_quick=True))
        return result

    async def _run(self, batch: "_Batch[T, R]") -> list[tuple[R, float]]:
        jobs = deque(_Job(batch, place) for place in range(batch.not_done))
        with self._lock:
            self._lanes[batch] = jobs  # of which the batch knows nothing: no circles
            if batch.is_quick:
                self._lanes.move_to_end(batch, last=False)
            self._lock.notify(len(jobs))
        try:
            return await batch.done
        finally:
            if batch.not_done:
                self._forget(batch)

    def _forget(self, batch: "_Batch[Any, Any]") -> None:
        """If it ended early, nothing more of it is begun."""
        with self._lock:
            batch.is_over = True
            self._lanes.pop(batch, None)
            self._lock.notify_all()  # a large one may have made room for the next

    def close(self, *, seconds: float = 2.0) -> None:
        """End the threads; what waits is not begun, and what is not done within so many seconds is left to itself."""
        with self._lock:
            self._is_closing = True
            self._lanes.clear()
            self._lock.notify_all()
        end = time.monotonic() + seconds
        for thread in [*self._crew]:
            thread.join(max(0.0, end - time.monotonic()))

    def _work(self) -> None:
        while self._do_next():
            pass  # between two calls a thread holds no image
        self._crew.discard(threading.current_thread())

    def _do_next(self) -> bool:
        """Wait for a job and do it; False when there will be no more for this thread."""
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
        """The next job there is memory for, once there is one; None at the end."""
        with self._lock:
            while not self._is_closing:
                if (job := self._take_turn()) is not None:
                    self._begun[job] = time.perf_counter()
                    return job
                self._lock.wait()
        return None

    def _take_turn(self) -> "_Job | None":
        """A job of the first lane with one there is memory for; a lane that has had its turn goes behind the others."""
        free = self.memory - self._taken
        for batch, lane in self._lanes.items():
            job = lane[0]
            if (job.memory or 0) > free:  # no large one passes it; what may be small is at the other end
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
        """Have a large job wait for memory, behind those before it; whether the thread is to go on."""
        with self._lock:
            del self._begun[job]
            if not job.batch.is_over and not self._is_closing:
                self._lanes.setdefault(job.batch, deque()).appendleft(job)
                self._lock.notify()  # should this thread not go on
            return self._is_still_needed(job)

    def _end(self, job: "_Job", error: BaseException | None, *, seconds: float) -> bool:
        """Count a job that is done, and tell who waits for its batch; whether the thread is to go on."""
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
        """Whether no other thread has taken the place of the one that was at this job."""
        is_needed = job not in self._replaced
        self._replaced.discard(job)
        return is_needed


class _Job:
    """An item of a batch.

    Attributes:
        memory: bytes that it takes; None before a thread has looked.
    """

    def __init__(self, batch: "_Batch[Any, Any]", place: int) -> None:
        self.batch, self.place = batch, place
        self.memory: int | None = None


class _Batch(Generic[T, R]):
    """The items of one request.

    Attributes:
        done: the results, or the first error.
        not_done: items; the lock of Workers guards it, and `taken`.
        taken: items that were looked at or begun.
        is_over: it has ended early.
        is_quick: it goes before others, and says nothing of how long they take.
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
        """Bytes of memory that an item takes; 0 where that fails, as its work will, too."""
        try:
            return self._memory(self._items[job.place])
        except Exception:
            return 0

    def do(self, job: _Job, now: float) -> BaseException | None:
        """Do one item, in a thread; what it raised."""
        try:
            self._results[job.place] = self._work(self._items[job.place]), now - self._submitted
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
