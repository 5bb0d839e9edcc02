"""A folder in an object store → images/<dataset>/, in parallel, and never twice.

Each object that may be an image is copied under its own path. What became of it is a line in a table, from which the
next run continues. A file that the user moved or deleted, or whose folder was renamed, is not restored; but a data set
without any folder is filled again. The store is only read. One run at a time per data set.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from libraries.base.console import counted
from libraries.base.errors import DownloadError, InputError
from libraries.base.file_system import OnDisk, nfc
from libraries.base.pool import Failed, Threads
from libraries.data.annotations import Annotations
from libraries.data.class_folders import check_labels
from libraries.data.formats import Format, is_told_by_content, kind_by_name
from libraries.data.removal import removed
from libraries.web.fetch import backoff
from libraries.web.store.copying import Copied, Copier, Job, alone
from libraries.web.store.listing import MOST_BYTES, Store, StoredObject, is_hidden, problem_of
from libraries.web.store.outcome import Outcome, readable
from libraries.web.store.record import Known, Record, StoredImage

_POLL = 0.5  # seconds between checks, and at most until Ctrl-C takes effect
_MANY = 20  # temporary failures in a row, after all tries, after which the store is given up
_ALL = 1000  # failures in a row, if nothing else came from the store, after which it is given up

Progress = Callable[[int, int | None], object]


@dataclass(frozen=True, kw_only=True)
class StoreOptions:
    """How to copy.

    Attributes:
        workers: objects copied at once.
        timeout: seconds for one try of an object.
        retries: further tries after a temporary failure.
        max_bytes: of an object; larger ones are left out.
    """

    workers: int = 16
    timeout: float = 60.0
    retries: int = 3
    max_bytes: int = 50_000_000


def copy_store(
    url: str,
    folder: Path,
    table: Path,
    options: StoreOptions,
    *,
    wait: Callable[[int, float | None], float | None] = backoff,
    listed: Callable[[int], object] = lambda count: None,
    progress: Progress = lambda done, total: None,
) -> Outcome:
    """Copy all images below a folder of an object store. Another run copies what is new or changed, or failed.

    Args:
        url: see `address.checked_url`.
        folder: images/<dataset>.
        table: the CSV file for what became of each object.
        wait: (n, None) → seconds to wait after try number n.
        listed: called with the number of objects listed so far, and
        progress: with those that are done, and all.

    Raises:
        InputError: the store cannot be opened or listed, holds nothing, or gives nothing.
        StorageError: the disk is full, or a file cannot be written. The next run continues from there.
    """
    store, outcome = Store(url, timeout=options.timeout), Outcome()
    with alone(folder, table), contextlib.closing(Record(table, url)) as record:
        usable = _usable(store.objects(), outcome, listed)
        for each, other in record.list_objects(usable):
            both = f"{readable(each.path)} and {readable(other)}"
            outcome.leave_out(both, "on some systems they are one file: rename one; the second is taken")
        if not record.count() and not outcome.problems and not outcome.others:
            raise InputError(f"{url} holds nothing: check imgStoreUrl")
        copier = Copier(store, folder, announce=record.announce, retries=options.retries, wait=wait)
        run = _Run(record, folder, outcome, max_bytes=options.max_bytes, progress=progress)
        with Threads(copier, options.workers, name="copy", abandon=True) as pool, contextlib.closing(copier):
            run.copy_all(pool)
        outcome.gone = record.count_gone()
        record.finish()
    run.check()
    return outcome


def _usable(
    objects: Iterator[StoredObject], outcome: Outcome, listed: Callable[[int], object]
) -> Iterator[StoredObject]:
    """The objects that may become files; checks the names of the folders at the top after the last one."""
    tops: set[str] = set()
    for number, each in enumerate(objects, 1):
        listed(number)
        if is_hidden(each.path):
            continue
        name = each.path.rpartition("/")[2]
        kind = kind_by_name(name)
        if problem := problem_of(each.path):
            outcome.leave_out(each.path, problem)
        elif not isinstance(kind, Format) and not (is_told_by_content(name) and each.size):
            outcome.add_other(each.path, kind.name if kind else "")
        elif not 0 < each.size < MOST_BYTES:
            outcome.leave_out(each.path, "its size is impossible" if each.size else "it is empty")
        else:
            tops.add(each.path.partition("/")[0])
            yield each
    try:
        check_labels(sorted(tops))
    except InputError as error:
        raise InputError(f"in the store, {error}") from None


class _Run:
    """Decides for each object what to do about it, has it done, and counts what became of it."""

    def __init__(self, record: Record, folder: Path, outcome: Outcome, *, max_bytes: int, progress: Progress) -> None:
        self._record, self._folder, self._outcome = record, folder, outcome
        self._max_bytes, self._progress = max_bytes, progress
        self._done, self._total = 0, record.count()
        self._failed: DownloadError | None = None  # the last one, and how many since the last success
        self._count_failed = 0
        self._on_disk = OnDisk(folder)
        has = folder.is_dir()
        self._is_empty = not has or not any(e.is_dir() and not e.name.startswith(".") for e in folder.iterdir())
        self._moved = {nfc(old): new for old, new in Annotations(folder).moved.items()} if has else {}
        self._taken_out = set(map(nfc, removed(folder))) if has else set[str]()

    def copy_all(self, pool: Threads[Job, Copied]) -> None:
        """Copy what is to be copied.

        Raises:
            InputError: the store does not answer any more.
            StorageError: a file cannot be written.
        """
        jobs = (job for known in self._record.known() if (job := self._job(known)) and self._is_small(job))
        is_more, in_hand = True, 0
        while is_more or in_hand:
            while is_more and pool.has_room:
                job = next(jobs, None)
                is_more = job is not None
                if job is not None:
                    pool.give(job)
                    in_hand += 1
            done = pool.take(_POLL if in_hand else 0.0)
            in_hand -= len(done)
            self._record.add(row for job, copied in done if (row := self._row(job, copied)))
            errors = [copied.error for _, copied in done if isinstance(copied, Failed)]
            if errors:
                raise errors[0]
            if self._failed and self._count_failed >= (_MANY if self._failed.passing else _ALL):
                raise self._given_up(self._failed)

    def check(self) -> None:
        """Raise InputError if nothing but failures came from the store."""
        if self._failed and not self._outcome.counts:
            raise self._given_up(self._failed)

    def _given_up(self, error: DownloadError) -> InputError:
        advice = "run again to continue" if error.passing else "check whether the credentials may read objects, too"
        failed = counted(self._count_failed, "object")
        return InputError(f"the last {failed} could not be read from the store: {error}: {advice}")

    def _job(self, known: Known) -> Job | None:
        """What to do about an object; None if nothing, which is counted."""
        wanted, earlier = known
        path = wanted.path
        if self._is_empty:
            earlier = None
        if earlier is None or earlier.status == "copying":
            return self._new(wanted, earlier, is_newer=not known.is_unchanged)
        if earlier.status == "kept" and not os.path.lexists(self._folder / self._file(path)):
            return Job(wanted, self._file(path))
        if known.is_unchanged:
            self._count_as_before(path, earlier)
        elif earlier.status == "copied":
            return Job(wanted, self._on_disk(path), replaces=earlier.sha256, is_newer=True)  # not one moved by hand
        elif earlier.status == "there":
            self._leave_out(path, "changed in the store; the file here is not its copy, and stays")
        else:
            return Job(wanted, self._file(path))
        return None

    def _is_small(self, job: Job) -> bool:
        if job.object.size > self._max_bytes:
            self._leave_out(job.object.path, f"more than {self._max_bytes:,} bytes: raise download_maxBytes")
        return job.object.size <= self._max_bytes

    def _new(self, wanted: StoredObject, announced: StoredImage | None, *, is_newer: bool) -> Job | None:
        """What to do about an object that was not copied yet, or of which that is not known."""
        path = wanted.path
        file = self._file(path)
        is_there = os.path.lexists(self._folder / file)
        if announced is not None and is_there:
            return Job(wanted, file, replaces=announced.sha256, is_newer=is_newer)
        if nfc(path) not in self._taken_out and not (nfc(path) in self._moved and is_there):
            return Job(wanted, file)
        self._record.add([StoredImage(self._record.url, path, "there", wanted.size, wanted.version)])
        self._count(path, "there")
        return None

    def _count_as_before(self, path: str, earlier: StoredImage) -> None:
        """Count an object about which nothing is to be done."""
        if earlier.status == "kept":
            self._leave_out(path, "another file is there, and stays")
            return
        if earlier.status == "other":
            self._outcome.add_other(path, earlier.kind)
        self._count(path, "" if earlier.status == "other" else "there")

    def _file(self, path: str) -> str:
        """Where an object's file is, below the folder: where it was moved to by hand, or at its own path."""
        return self._moved.get(nfc(path)) or self._on_disk(path)

    def _row(self, job: Job, copied: Copied | Failed) -> StoredImage | None:
        """Count what became of an object; its row in the table, if that is to be remembered."""
        if isinstance(copied, Failed):
            return None
        path = job.object.path
        self._failed, self._count_failed = copied.failed, self._count_failed + 1 if copied.failed else 0
        if copied.status == "other":
            self._outcome.add_other(path, copied.kind)
        if copied.reason:
            self._leave_out(path, copied.reason)
        else:
            kind = "replaced" if job.is_newer and copied.status == "copied" else copied.status
            self._count(path, "" if kind == "other" else kind)
        if copied.status is None:
            return None
        _, size, version = job.object
        return StoredImage(self._record.url, path, copied.status, size, version, copied.sha256, copied.kind)

    def _leave_out(self, path: str, reason: str) -> None:
        self._outcome.leave_out(path, reason)
        self._count(path, "")

    def _count(self, path: str, kind: str | None) -> None:
        if kind:
            self._outcome.add(path, kind)
        self._done += 1
        self._progress(self._done, self._total)
