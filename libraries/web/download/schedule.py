"""Which URL is fetched when: a few per host at once, again where that may help, later where a host asks for it."""

import heapq
import itertools
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence

from libraries.base.errors import DownloadError
from libraries.base.pool import Failed, Pool, WorkerLost
from libraries.data.class_folders import check_label
from libraries.web.download.outcomes import Job, Pair, Status, UrlOutcome
from libraries.web.download.saving import Attempt, SavedImage
from libraries.web.fetch import MAX_WAIT

MAX_DETAIL = 200  # characters
_AT_HAND = 2048  # jobs in memory; the others stay in the iterator
_POLL = 0.5  # seconds between checks of the clock, and at most until Ctrl-C takes effect
Done = tuple[Job, Attempt | Failed]


class Schedule:
    """Jobs that wait until they are due and their host is free. Not thread-safe.

    Args:
        per_host: jobs per host at once.
    """

    def __init__(self, per_host: int) -> None:
        self._per_host = per_host
        self._due: list[tuple[float, int, Job]] = []  # a heap by time, then by order of arrival
        self._arrivals = itertools.count()
        self._running: Counter[str] = Counter()
        self._queued: defaultdict[str, deque[Job]] = defaultdict(deque)  # due, but the host is busy
        self._paused: dict[str, float] = {}  # host → until when

    def add(self, job: Job, at: float = 0.0) -> None:
        """Add a job, to be started not before the time `at`."""
        heapq.heappush(self._due, (at, next(self._arrivals), job))

    def pause(self, host: str, until: float) -> None:
        """Start no job of a host before a time, because the host asked for that."""
        self._paused[host] = max(until, self._paused.get(host, 0.0))

    def next(self, now: float) -> Job | None:
        """A job to run now; None if all must wait. Call `done` when it has run."""
        while self._due and self._due[0][0] <= now:
            _, _, job = heapq.heappop(self._due)
            until = self._paused.get(job.host, 0.0)
            if until > now:
                self.add(job, until)
            elif self._running[job.host] >= self._per_host:
                self._queued[job.host].append(job)
            else:
                self._running[job.host] += 1
                return job
        return None

    def done(self, job: Job) -> None:
        """Record that a job has run, so that its host is free for another."""
        self._running[job.host] -= 1
        if queued := self._queued.get(job.host):
            self.add(queued.popleft())
        if not self._running[job.host] and not queued:  # forget the host: there may be as many hosts as jobs
            self._running.pop(job.host)
            self._queued.pop(job.host, None)

    def seconds_to_next(self, now: float) -> float:
        """Seconds until the first job is due; infinite if none waits for a time."""
        return max(0.0, self._due[0][0] - now) if self._due else float("inf")


class Downloader:
    """Runs all jobs, and retries those that may succeed later.

    Args:
        per_host: jobs per host at once.
        retries: further tries after a temporary failure.
        wait: (n, seconds the server asked for) → seconds to wait after try number n; None: do not try again.
    """

    def __init__(
        self,
        pool: Pool[Job, Attempt],
        *,
        per_host: int,
        retries: int,
        wait: Callable[[int, float | None], float | None],
    ) -> None:
        self._pool = pool
        self._schedule = Schedule(per_host)
        self._retries = retries
        self._wait = wait
        self._resting: dict[str, float] = {}  # host → seconds it asked to be left alone, more than a run waits

    def run(self, jobs: Iterator[Job], record: Callable[[Sequence[UrlOutcome]], None]) -> None:
        """Run jobs, which are read as needed; `record` is called with a few outcomes at a time.

        Raises:
            Exception: a worker's error, after the outcomes so far have been recorded.
        """
        at_hand = 0
        while True:
            for job in itertools.islice(jobs, _AT_HAND - at_hand):
                self._schedule.add(job)
                at_hand += 1
            if not at_hand:
                return
            found: list[UrlOutcome] = []
            failures: list[BaseException] = []
            for job, attempt in self._done():
                self._schedule.done(job)
                if isinstance(attempt, Failed) and isinstance(attempt.error, WorkerLost) and self._pool.goes_on:
                    attempt = Attempt(DownloadError("worker lost", detail=str(attempt.error), passing=True), 0.0)
                if isinstance(attempt, Failed):
                    failures.append(attempt.error)
                elif not self._retries_later(job, attempt):
                    found += [_outcome(pair, job, attempt.result) for pair in job.pairs]
                    at_hand -= 1
            if found:
                record(found)
            if failures:
                raise failures[0]

    def _done(self) -> list[Done]:
        """Start jobs while the pool has room; returns those that have been done since."""
        now = time.monotonic()
        done: list[Done] = []
        while self._pool.has_room and (job := self._schedule.next(now)):
            job.tries += 1
            if (seconds := self._resting.get(job.host)) is None:
                self._pool.give(job)
            else:
                done.append((job, _left_alone(seconds)))
        pause = min(_POLL, self._schedule.seconds_to_next(now)) if self._pool.has_room else _POLL
        return done + self._pool.take(0.0 if done else pause)

    def _retries_later(self, job: Job, attempt: Attempt) -> bool:
        """Schedule another try of a job if this attempt calls for one; whether it does."""
        job.seconds += attempt.seconds
        error = attempt.result
        if not isinstance(error, DownloadError):
            return False
        if error.retry_after is not None and error.retry_after > MAX_WAIT:
            self._resting[job.host] = error.retry_after
        if not error.passing or job.tries > self._retries:
            return False
        seconds = self._wait(job.tries, error.retry_after)
        if seconds is None:
            return False
        at = time.monotonic() + seconds
        if error.retry_after is not None:
            self._schedule.pause(job.host, at)
        self._schedule.add(job, at)
        return True


def _left_alone(seconds: float) -> Attempt:
    detail = f"the host has asked to wait {seconds:.0f} s"
    return Attempt(DownloadError("too many requests", detail=detail, passing=True, retry_after=seconds), 0.0)


def _outcome(pair: Pair, job: Job, result: SavedImage | DownloadError) -> UrlOutcome:
    label, url = pair
    seconds = round(job.seconds, 3)
    if isinstance(result, DownloadError):
        status: Status = "passing" if result.passing else "failed"
        detail = result.detail[:MAX_DETAIL]
        return UrlOutcome(
            label, url, status, result.reason, http_status=result.http_status, seconds=seconds, detail=detail
        )
    file = f"{check_label(label)}/{result.name}"
    return UrlOutcome(
        label,
        url,
        "ok",
        "downloaded",
        file=file,
        http_status=result.http_status,
        bytes=result.bytes,
        width=result.width,
        height=result.height,
        seconds=seconds,
    )
