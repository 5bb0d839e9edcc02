"""A list of (label, URL) → images/<dataset>/<label>/, in parallel, politely, and never twice.

Each URL is fetched by one of many threads, scaled down if it is large, and written under a name that depends only on
the URL. Its outcome is a line in a table, from which the next run continues: what was downloaded, or failed for good,
is not fetched again. A file that the user moved or deleted is not restored, but a label's folder that was deleted as a
whole is filled again. One run at a time per data set.
"""

import contextlib
import functools
import itertools
import logging
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from libraries.base.cluster import NONE, Cluster, connected
from libraries.base.file_system import on_disk, sweep
from libraries.base.pool import Pool, usable_cores
from libraries.base.processes import Work, open_pool
from libraries.data.class_folders import check_label, check_labels
from libraries.web.download.outcomes import Job, Ledger, Pair, UrlOutcome, read_outcomes
from libraries.web.download.saving import Attempt, DownloadOptions, open_saver
from libraries.web.download.schedule import Downloader
from libraries.web.fetch import backoff

_DECODERS = 4  # images decoded at once, in all processes: each takes up to 3 bytes per pixel of memory
_MAX_PROCESSES = 4
_MIN_THREADS = 4  # per process
_PER_CORE = 4  # downloads at once on each core of a cluster
_MIN_JOBS = 500  # per process, as starting one takes as long as some hundred small images

log = logging.getLogger(__name__)


def download(
    urls: Iterable[Pair],
    *,
    folder: Path,
    outcomes: Path,
    options: DownloadOptions | None = None,
    processes: int | None = None,
    cluster: str = NONE,
    wait: Callable[[int, float | None], float | None] = backoff,
    progress: Callable[[int, int, int], None] | None = None,
    told: Callable[[str], object] = lambda size: None,
) -> Iterator[UrlOutcome]:
    """Fetch images into `folder`/<label>/. Another run fetches what is new, and what failed temporarily.

    Args:
        urls: (label, URL) pairs. A URL that occurs several times is fetched once, and written under each label.
        folder: images/<dataset>.
        outcomes: the CSV file for the table of outcomes.
        processes: that share the work; None: as many as the list and the cores are worth; 1: only this process.
        cluster: that does it instead, see `connected`: four downloads at once on each core, but `per_host` in all.
        wait: (n, seconds the server asked for) → seconds to wait after try number n; None: do not try again.
        progress: called with the number of pairs that are done, of all pairs, and of images downloaded.
        told: see `Cluster`.

    Returns:
        One outcome per distinct pair, in the order of `urls`.

    Raises:
        InputError: a label cannot be a folder name, or two differ only in case.
        ParameterError, PipelineError: there is no such cluster, or a node cannot do it.
        StorageError: the disk is full, or a file cannot be written. The next run continues from there.
    """
    _warn_of_proxies()
    options = options or DownloadOptions()
    is_due = _due(folder, retry_failed=options.retry_failed)
    with contextlib.closing(Ledger(outcomes, _checked(urls), is_due=is_due)) as ledger:
        for label in ledger.labels():
            sweep(_folder_of(folder, label))
        record = _recorder(ledger, progress)
        if jobs := ledger.count_jobs():
            with _open_pool(folder, options, jobs=jobs, processes=processes, cluster=cluster, told=told) as pool:
                downloader = Downloader(pool, per_host=options.per_host, retries=options.retries, wait=wait)
                downloader.run(ledger.jobs(), record)
        ledger.finish()
        return itertools.islice(read_outcomes(outcomes), ledger.count)


def _folder_of(folder: Path, label: str) -> Path:
    return folder / on_disk(folder, check_label(label))


def _due(folder: Path, *, retry_failed: bool) -> Callable[[UrlOutcome], bool]:
    """The function that decides whether a pair with this outcome is to be fetched again."""

    @functools.cache
    def has_folder(label: str) -> bool:
        return _folder_of(folder, label).is_dir()

    def is_due(earlier: UrlOutcome) -> bool:
        if earlier.status == "ok":
            return not has_folder(earlier.label)
        return retry_failed or earlier.status == "passing"

    return is_due


def _recorder(
    ledger: Ledger, progress: Callable[[int, int, int], None] | None
) -> Callable[[Sequence[UrlOutcome]], None]:
    """The function that records outcomes and shows the progress; shows the progress so far at once."""
    counts = ledger.counts()

    def show() -> None:
        if progress is not None:
            progress(counts.total(), ledger.count, counts["ok"])

    def record(found: Sequence[UrlOutcome]) -> None:
        ledger.add(found)
        for outcome in found:
            counts[outcome.status] += 1
            show()

    show()
    return record


def _checked(urls: Iterable[Pair]) -> Iterator[Pair]:
    """The pairs; checks the labels after the last one."""
    labels = set()
    for pair in urls:
        labels.add(pair[0])
        yield pair
    check_labels(labels)


@contextlib.contextmanager
def _open_pool(
    folder: Path,
    options: DownloadOptions,
    *,
    jobs: int,
    processes: int | None,
    cluster: str,
    told: Callable[[str], object],
) -> Iterator[Pool[Job, Attempt]]:
    """A cluster; or threads of this process for a short list, several processes with threads for a long one."""
    if cluster != NONE:
        work = _work(folder, options, threads=1, decoders=1)
        with connected(cluster, folder=folder), Cluster(work, told=told, per_core=_PER_CORE) as pool:
            yield pool
        return
    if processes is None:
        processes = min(_MAX_PROCESSES, usable_cores(), options.workers // _MIN_THREADS, jobs // _MIN_JOBS)
    processes = max(1, processes)
    threads = -(-options.workers // processes)
    work = _work(folder, options, threads=threads, decoders=-(-_DECODERS // processes))
    with open_pool(work, processes=processes, threads=threads) as pool:
        yield pool


def _work(folder: Path, options: DownloadOptions, *, threads: int, decoders: int) -> Work[Job, Attempt]:
    settings = {
        "folder": str(folder.absolute()),
        "options": options.to_json(),
        "threads": threads,
        "decoders": decoders,
    }
    return Work(open_saver, settings, lambda job: (job.url, job.labels), Attempt.from_json)


def _warn_of_proxies() -> None:
    if urllib.request.getproxies().keys() & {"http", "https", "all"}:
        log.warning("downloads go straight to the servers: the proxy in the environment is not used")
