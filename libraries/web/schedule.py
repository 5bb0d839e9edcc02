"""In which order, and when, URLs are fetched: a few of each host at once, and again after a while where it may help."""

import heapq
import itertools
import random
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field

from libraries.data.class_folders import check_label

MAX_WAIT = 60.0  # seconds; a server that asks for more is asked again by the next run


@dataclass(eq=False, slots=True)
class Job:
    """A URL to fetch.

    Attributes:
        url: in the one spelling that stands for all equal ones.
        host: of the URL.
        pairs: the (label, URL as given) that its image is for.
        tries: so far.
        seconds: that they took.
    """

    url: str
    host: str
    pairs: list[tuple[str, str]] = field(default_factory=list)
    tries: int = 0
    seconds: float = 0.0

    @property
    def labels(self) -> list[str]:
        """The different folders that its image is for."""
        return list(dict.fromkeys(check_label(label) for label, _ in self.pairs))


class Schedule:
    """Jobs that wait for their time and for their host. Not for use by several threads.

    Args:
        per_host: jobs of one host at once.
    """

    def __init__(self, per_host: int) -> None:
        self._per_host = per_host
        self._due: list[tuple[float, int, Job]] = []  # a heap by time, then by order of arrival
        self._arrivals = itertools.count()
        self._running: Counter[str] = Counter()
        self._queued: defaultdict[str, deque[Job]] = defaultdict(deque)  # due, but their host is busy
        self._paused: dict[str, float] = {}  # until when

    def add(self, job: Job, at: float = 0.0) -> None:
        """Let a job wait for its turn, not before the time `at`."""
        heapq.heappush(self._due, (at, next(self._arrivals), job))

    def pause(self, host: str, until: float) -> None:
        """Start no job of a host before a time: it has asked for it."""
        self._paused[host] = max(until, self._paused.get(host, 0.0))

    def next(self, now: float) -> Job | None:
        """A job to run now; None if all that wait have to. Call `done` when it has run."""
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
        """A job has run: its host has room for another."""
        self._running[job.host] -= 1
        if queued := self._queued.get(job.host):
            self.add(queued.popleft())
        if not self._running[job.host] and not queued:  # there may be as many hosts as jobs
            self._running.pop(job.host)
            self._queued.pop(job.host, None)

    def seconds_to_next(self, now: float) -> float:
        """Seconds until the first waiting job is due; infinite when none waits for a time."""
        return max(0.0, self._due[0][0] - now) if self._due else float("inf")


def backoff(tries: int, retry_after: float | None) -> float | None:
    """Seconds to wait after the try of this number: as the server asks, else about 1, 2, 4 … with jitter.

    None if the server asks for more than `MAX_WAIT`: not worth waiting for.
    """
    if retry_after is not None:
        return retry_after + random.uniform(0.0, 0.5) if retry_after <= MAX_WAIT else None
    return float(min(MAX_WAIT, 2.0 ** (tries - 1)) * random.uniform(0.5, 1.5))
