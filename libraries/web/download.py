"""A list of (label, URL) → images/<dataset>/<label>/, in parallel, politely, and never twice.

Each URL is fetched by one of many threads, shrunk if it is large, and written under a name that depends on the URL
alone. What became of it is a line in a table, from which the next run goes on: what was had, and what failed for good,
is not fetched again. A file that the user moved or deleted stays so; a label's folder that was deleted as a whole is
filled anew. One run at a time for each data set.
"""

import contextlib
import functools
import itertools
import logging
import urllib.request
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from libraries.base.file_system import on_disk, sweep
from libraries.base.pool import Pool, Work, open_pool, usable_cores
from libraries.data.class_folders import check_label, check_labels
from libraries.data.decoding import MAX_PIXELS
from libraries.web.dispatcher import Dispatcher
from libraries.web.fetch import Timeouts
from libraries.web.ledger import Ledger
from libraries.web.outcomes import Outcome, Pair, read_outcomes
from libraries.web.schedule import Job, backoff
from libraries.web.task import Attempt, Limits, begin

USER_AGENT = "image-classification-pipeline/0.1"
_DECODERS = 4  # images decoded at once, in all processes: each takes up to 3 bytes times `max_pixels` of memory
_MAX_PROCESSES = 4
_MIN_THREADS = 4  # of a process
_MIN_JOBS = 500  # for a process, whose start takes as long as some hundred small images

log = logging.getLogger(__name__)


def download(
    urls: Iterable[Pair],
    *,
    folder: Path,
    outcomes: Path,
    workers: int = 16,
    processes: int | None = None,
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
        processes: that share them; None: as many as the list and the machine are large. One: threads of this process.
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
        progress: called with the number of pairs that are done, of all, and of images had.

    Returns:
        One outcome for each different pair, in the order of `urls`.

    Raises:
        InputError: a label cannot be a folder name, or two differ only in case.
        StorageError: the disk is full, or a file cannot be written. The next run goes on from there.
    """
    _warn_of_proxies()
    timeouts = timeouts or Timeouts()
    limits = Limits(
        str(folder.absolute()),
        timeouts.connect,
        timeouts.read,
        timeouts.total,
        max_bytes=max_bytes,
        max_pixels=max_pixels,
        max_side=max_side,
        allowed_hosts=list(allowed_hosts),
        user_agent=user_agent,
    )

    def folder_of(label: str) -> Path:
        return folder / on_disk(folder, check_label(label))

    @functools.cache
    def has_folder(label: str) -> bool:
        return folder_of(label).is_dir()

    def is_due(earlier: Outcome) -> bool:
        if earlier.status == "ok":
            return not has_folder(earlier.label)
        return retry_failed or earlier.status == "passing"

    with contextlib.closing(Ledger(outcomes, _checked(urls), is_due=is_due)) as ledger:
        for label in ledger.labels():
            sweep(folder_of(label))
        counts = ledger.counts()

        def record(found: Sequence[Outcome]) -> None:
            ledger.add(found)
            for outcome in found:
                counts[outcome.status] += 1
                show()

        def show() -> None:
            if progress is not None:
                progress(counts.total(), ledger.count, counts["ok"])

        show()
        if jobs := ledger.count_jobs():
            with _open_pool(limits, jobs=jobs, workers=workers, processes=processes) as pool:
                Dispatcher(pool, per_host=per_host, retries=retries, wait=wait).run(ledger.jobs(), record)
        ledger.finish()
        return itertools.islice(read_outcomes(outcomes), ledger.count)


def _checked(urls: Iterable[Pair]) -> Iterator[Pair]:
    """The pairs; the labels are checked at their end."""
    labels = set()
    for pair in urls:
        labels.add(pair[0])
        yield pair
    check_labels(labels)


def _open_pool(
    limits: Limits, *, jobs: int, workers: int, processes: int | None
) -> contextlib.AbstractContextManager[Pool[Job, Attempt]]:
    """Threads of this process for a short list, several processes of them for a long one."""
    if processes is None:
        processes = min(_MAX_PROCESSES, usable_cores(), workers // _MIN_THREADS, jobs // _MIN_JOBS)
    processes = max(1, processes)
    threads, decoders = -(-workers // processes), -(-_DECODERS // processes)
    settings = {"limits": asdict(limits), "threads": threads, "decoders": decoders}
    work: Work[Job, Attempt] = Work(begin, settings, lambda job: (job.url, job.labels), Attempt.from_json)
    return open_pool(work, processes=processes, threads=threads)


def _warn_of_proxies() -> None:
    if urllib.request.getproxies().keys() & {"http", "https", "all"}:
        log.warning("downloads go straight to the servers: the proxy of the environment is not used")
