"""A list of (label, URL) → images/<dataset>/<label>/, in parallel, politely, and never twice.

Each URL is fetched by one of many threads, shrunk if it is large, and written under a name that depends on the URL
alone. What became of it is a line in a table, from which the next run goes on: what was had, and what failed for good,
is not fetched again. A file that the user moved or deleted stays so; a label's folder that was deleted as a whole is
filled anew. One run at a time for each data set.
"""

import contextlib
import hashlib
import logging
import re
import threading
import time
import unicodedata
import urllib.request
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from libraries.base.errors import DownloadError
from libraries.base.storage import atomic, sweep
from libraries.data.decoding import MAX_PIXELS
from libraries.data.labels import check_label, check_labels
from libraries.data.web.addresses import parse
from libraries.data.web.crew import Crew
from libraries.data.web.fetch import Answer, Fetcher, Timeouts
from libraries.data.web.outcomes import Outcome, OutcomeTable, Pair, Status
from libraries.data.web.schedule import MAX_WAIT, Job, Schedule, backoff
from libraries.data.web.shrink import keep

USER_AGENT = "image-classification-pipeline/0.1"
MAX_DETAIL = 200  # characters
_DECODERS = 4  # images decoded at once: each takes up to 3 bytes times `max_pixels` of memory
_POLL = 0.5  # seconds between looks at the clock; Ctrl-C is noticed at the latest then

log = logging.getLogger(__name__)


def download(
    urls: Sequence[Pair],
    *,
    folder: Path,
    outcomes: Path,
    workers: int = 16,
    per_host: int = 6,
    timeouts: Timeouts | None = None,
    retries: int = 3,
    max_bytes: int = 50_000_000,
    max_pixels: int = MAX_PIXELS,
    max_side: int = 1000,
    allowed_hosts: Collection[str] = (),
    user_agent: str = USER_AGENT,
    retry_failed: bool = False,
    wait: Callable[[int, float | None], float | None] = backoff,
    progress: Callable[[int, int, int], None] | None = None,
) -> Iterator[Outcome]:
    """Fetch images into `folder`/<label>/. Run again, it fetches what is new, and what failed in a way that may pass.

    Args:
        urls: (label, URL) pairs. A URL that stands there several times is fetched once, and written under each label.
        folder: images/<dataset>.
        outcomes: the CSV file for the table of outcomes.
        workers: downloads at once.
        per_host: of them, from one host (browsers take 6).
        timeouts: of one try; None for the usual ones.
        retries: further tries after a failure that may pass: time-out, no connection, 408, 425, 429, 5xx.
        max_bytes: of one file as downloaded.
        max_pixels: width times height; larger images are refused before they are decoded.
        max_side: images whose longer side has more pixels are scaled down to it; all others stay as they are.
        allowed_hosts: host names or addresses that may be private or local, and use any port.
        user_agent: sent to every server; some want a way to contact you in it.
        retry_failed: fetch URLs again that failed for good in an earlier run.
        wait: seconds to wait after try number n, given what the server asked for; None: do not try again.
        progress: called with the number of URLs that are done, of all, and of images had.

    Returns:
        One outcome for each different pair, in the order of `urls`.

    Raises:
        InputError: a label cannot be a folder name, or two differ only in case.
        StorageError: the disk is full, or a file cannot be written. The next run goes on from there.
    """
    labels = {label for label, _ in urls}
    check_labels(labels)
    for label in labels:
        sweep(folder / check_label(label))
    _warn_of_proxies()
    pairs = list(dict.fromkeys(urls))
    fetcher = Fetcher(
        timeouts=timeouts or Timeouts(),
        max_bytes=max_bytes,
        allowed_hosts=allowed_hosts,
        user_agent=user_agent,
        threads=workers,
    )
    with contextlib.closing(fetcher), contextlib.closing(OutcomeTable(outcomes)) as table:
        due: list[Pair] = []
        counts: Counter[Status] = Counter()
        for pair in pairs:
            earlier = table.get(pair)
            if earlier is None or _is_due(earlier, folder, retry_failed=retry_failed):
                due.append(pair)
            else:
                counts[earlier.status] += 1

        def record(found: Sequence[Outcome]) -> None:
            table.add(found)
            for outcome in found:
                counts[outcome.status] += 1
                show()

        def show() -> None:
            if progress is not None:
                progress(counts.total(), len(pairs), counts["ok"])

        show()
        task = _Task(fetcher, folder, max_pixels=max_pixels, max_side=max_side)
        if due:
            _run(_jobs(due), task, record, workers=workers, per_host=per_host, retries=retries, wait=wait)
        table.finish(pairs)
        return filter(None, map(table.get, pairs))


def _is_due(earlier: Outcome, folder: Path, *, retry_failed: bool) -> bool:
    """Whether a pair with this outcome is to be fetched again."""
    if earlier.status == "passing":
        return True
    if earlier.status == "ok":
        return not (folder / check_label(earlier.label)).is_dir()
    return retry_failed


def _jobs(pairs: Iterable[Pair]) -> list[Job]:
    """One job for each different URL."""
    jobs: dict[str, Job] = {}
    hosts: dict[str, str] = {}  # each name once in memory
    for pair in pairs:
        _, url = pair
        try:
            target = parse(url)
            spelling, host = target.url if target.url != url else url, target.host  # one text in memory, not two
        except DownloadError:  # will be raised again, and recorded, when its turn comes
            spelling, host = url, ""
        if (job := jobs.get(spelling)) is None:
            jobs[spelling] = Job(spelling, hosts.setdefault(host, host), [pair])
        else:
            job.pairs.append(pair)
    return list(jobs.values())


def _run(
    jobs: Sequence[Job],
    task: "_Task",
    record: Callable[[Sequence[Outcome]], None],
    *,
    workers: int,
    per_host: int,
    retries: int,
    wait: Callable[[int, float | None], float | None],
) -> None:
    """Do all jobs, and those that may succeed later again; record the outcomes as they come."""
    schedule = Schedule(per_host)
    for job in jobs:
        schedule.add(job)
    unfinished = len(jobs)
    del jobs  # each is let go when it is done
    with contextlib.closing(task), Crew(task, min(workers, unfinished)) as crew:
        while unfinished:
            now = time.monotonic()
            while crew.has_room and (due := schedule.next(now)):
                crew.give(due)
            found: list[Outcome] = []
            for job, result in crew.take(min(_POLL, schedule.seconds_to_next(now)) if crew.has_room else _POLL):
                schedule.done(job)
                if isinstance(result, DownloadError):
                    pause = wait(job.tries, result.retry_after) if result.passing and job.tries <= retries else None
                    if pause is not None:
                        at = time.monotonic() + pause
                        if result.retry_after is not None:
                            schedule.pause(job.host, at)
                        schedule.add(job, at)
                        continue
                elif isinstance(result, Exception):
                    raise result
                found += [_outcome(pair, job, result) for pair in job.pairs]
                unfinished -= 1
            if found:
                record(found)


@dataclass(frozen=True)
class _Saved:
    """An image that was had: its file's name in each label's folder, and what the table tells of it."""

    name: str
    http_status: int
    bytes: int
    width: int
    height: int


class _Task:
    """What a worker does with a job: fetch, check, shrink, write. Called by many threads."""

    def __init__(self, fetcher: Fetcher, folder: Path, *, max_pixels: int, max_side: int) -> None:
        self._fetcher = fetcher
        self._folder = folder
        self._max_pixels = max_pixels
        self._max_side = max_side
        self._decoding = threading.Semaphore(_DECODERS)
        self._refusing: dict[str, float] = {}  # hosts that want to be left alone for longer than a run, in seconds
        self._closed = threading.Event()

    def close(self) -> None:
        """Write nothing any more, not even what is under way."""
        self._closed.set()

    def __call__(self, job: Job) -> _Saved:
        """Fetch a URL once and write its image under each of its labels.

        Raises:
            DownloadError: there is no image.
            StorageError: it cannot be written.
        """
        job.tries += 1
        started = time.monotonic()
        try:
            return self._save(job, self._fetch(job))
        finally:
            job.seconds += time.monotonic() - started

    def _fetch(self, job: Job) -> Answer:
        if (seconds := self._refusing.get(job.host)) is not None:
            detail = f"the host has asked to wait {seconds:.0f} s"
            raise DownloadError("too many requests", detail=detail, passing=True, retry_after=seconds)
        try:
            return self._fetcher.fetch(job.url)
        except DownloadError as error:
            if error.retry_after is not None and error.retry_after > MAX_WAIT:
                self._refusing[job.host] = error.retry_after
            raise

    def _save(self, job: Job, answer: Answer) -> _Saved:
        try:
            with self._decoding:
                kept = keep(answer.body, max_pixels=self._max_pixels, max_side=self._max_side)
        except DownloadError as error:
            error.http_status = answer.http_status
            raise
        name, size = file_stem(job.url) + kept.suffix, 0
        for label in dict.fromkeys(check_label(label) for label, _ in job.pairs):
            if not self._closed.is_set():
                with atomic(self._folder / label / name) as file:
                    kept.write(file)
                    size = file.tell()
        return _Saved(name, answer.http_status, size, kept.width, kept.height)


def _outcome(pair: Pair, job: Job, result: _Saved | DownloadError) -> Outcome:
    label, url = pair
    seconds = round(job.seconds, 3)
    if isinstance(result, DownloadError):
        status: Status = "passing" if result.passing else "failed"
        detail = result.detail[:MAX_DETAIL]
        return Outcome(
            label, url, status, result.reason, http_status=result.http_status, seconds=seconds, detail=detail
        )
    file = f"{check_label(label)}/{result.name}"
    return Outcome(
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


def file_stem(url: str) -> str:
    """The name, without suffix, of a URL's file: what can be read of the URL's own, and a hash that makes it unique."""
    name = unquote(urlsplit(url).path).rstrip("/").rpartition("/")[2]
    name = re.sub(r"\.[A-Za-z]{2,5}$", "", name)  # the suffix comes from the content
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    readable = re.sub(r"[^A-Za-z0-9]+", "-", ascii_name)[:40].strip("-")
    digest = hashlib.sha256(url.encode()).hexdigest()[:12]
    return f"{readable}-{digest}" if readable else digest


def _warn_of_proxies() -> None:
    if urllib.request.getproxies().keys() & {"http", "https", "all"}:
        log.warning("downloads go straight to the servers: the proxy of the environment is not used")
