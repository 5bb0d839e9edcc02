"""A folder of images → a CSV file of what a service says of each, in the order of their paths."""

import contextlib
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from libraries.base.errors import ImageError, ImageTooLarge, InputError, ServiceError
from libraries.base.pool import Threads
from libraries.base.storage import atomic
from libraries.base.tables import csv_line
from libraries.data.decoding import MAX_BYTES, read
from libraries.data.formats import Format, NotRead, kind_of, why_not_read
from libraries.service.calling.client import Answer, Client
from libraries.service.calling.connection import IMAGE_REFUSED
from libraries.service.calling.journal import Journal, header

_AHEAD = 16  # images per thread that may be done before their turn to be written
_MOST_FAILURES = 8  # of the service, one after the other, after which it is given up


@dataclass
class Summary:
    """What became of a folder.

    Attributes:
        labels: images per predicted label; every label of the model is there.
        errors: images without a label, per reason.
        models: name and version of the models that answered: one, unless another was put in service meanwhile.
        known: images of which a run that was stopped had learned the label.
    """

    labels: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    models: dict[str, None] = field(default_factory=dict)
    known: int = 0


class _Job(NamedTuple):
    """An image that is to be asked for, or whose row is known.

    Attributes:
        name: the path in the table.
        file: as it was found; None if it cannot be looked at.
    """

    path: Path
    name: str
    file: os.stat_result | None
    row: list[str] | None


def image_files(folder: Path, skipped: Counter[NotRead] | None = None) -> Iterator[Path]:
    """The image files in a folder and the folders below it, sorted, none of them hidden.

    In memory are the names in one folder at a time, and in those above it. Links to folders are not followed.

    Args:
        skipped: counts the other files, by why they are none.

    Raises:
        InputError: a folder cannot be read.
    """
    try:
        with os.scandir(folder) as found:
            entries = sorted((e.name, e.is_dir(follow_symlinks=False), e.is_dir()) for e in found)
    except OSError as error:
        raise InputError(f"the folder {folder} cannot be read: {error.strerror}") from error
    for name, is_folder, leads_to_folder in entries:
        if name.startswith("."):
            continue
        if is_folder:
            yield from image_files(folder / name, skipped)
        elif not leads_to_folder:
            kind = kind_of(folder / name)
            if isinstance(kind, Format):
                yield folder / name
            elif skipped is not None:
                skipped[why_not_read(name, kind)] += 1


def classify_folder(
    client: Client, folder: Path, table: Path, *, in_flight: int = 4, progress: Callable[[], None] = lambda: None
) -> Summary:
    """Send every image below a folder to a service, and write a row for each: its label and probabilities, or an error.

    What is answered is remembered beside the table until that is written. So a run after one that was stopped asks only
    for images that have no label yet, or have changed; and for all if the service has another model.

    Args:
        table: the CSV file; it appears when all is done, or not at all.
        in_flight: requests at once.
        progress: called after every image.

    Raises:
        ServiceError: the service is no service of ours, refuses the key, or has failed several times in a row.
        InputError: a folder cannot be read, or the table that is there was not written here.
        StorageError: the table cannot be written.
    """
    model = client.model()
    labels: list[str] = model["labels"]
    name = f"{model['name']} {model['version']}"
    summary = Summary(Counter(dict.fromkeys(labels, 0)), models={name: None})
    classify = partial(_result, client, labels=labels, max_bytes=_max_bytes(model))
    failures, digest = 0, hashlib.sha256()
    with Journal(table, folder=folder, model=name, labels=labels) as journal:
        # Ctrl-C waits for no thread: one may be in the middle of a long wait for the service.
        with atomic(table) as file, Threads(classify, in_flight, abandon=True) as pool:

            def write(cells: Sequence[str]) -> None:
                line = _line(cells)
                digest.update(line)
                file.write(line)

            write(header(labels))
            for job, result in pool.map(_jobs(folder, journal), ahead=_AHEAD * in_flight):
                failures = failures + 1 if isinstance(result, ServiceError) and result.passing else 0
                if isinstance(result, Exception) and (_ends_all(result) or failures == _MOST_FAILURES):
                    raise result
                row = _row(result, labels)
                if isinstance(result, Answer) and result.model == name and job.file is not None:
                    journal.add(job.name, job.file, row)
                _count(result, summary)
                write([job.name, *row])
                progress()
            journal.will_write(digest.hexdigest())
        journal.has_written()
    return summary


def _jobs(folder: Path, journal: Journal) -> Iterator[_Job]:
    """What is to be done with every image of a folder."""
    for path in image_files(folder):
        name, file = path.relative_to(folder).as_posix(), None
        with contextlib.suppress(OSError):
            file = path.stat()
        yield _Job(path, name, file, journal.row(name, file) if file is not None else None)


def _result(client: Client, job: _Job, *, labels: Sequence[str], max_bytes: int) -> Answer | list[str] | Exception:
    """What is known of an image in the end, be it an error: whoever writes the table decides."""
    try:
        return _classify(client, job, labels=labels, max_bytes=max_bytes)
    except Exception as error:
        return error


def _classify(client: Client, job: _Job, *, labels: Sequence[str], max_bytes: int) -> Answer | list[str]:
    """What the service says of an image, or the row if that is known."""
    if job.row is not None:
        return job.row
    answer = client.predict(read(job.path, max_bytes=max_bytes))
    if answer.probabilities.keys() != set(labels):
        text = "the service has begun to answer with other labels, of another model: run again"
        raise ServiceError(text, reason="other labels")
    return answer


def _max_bytes(model: dict[str, Any]) -> int:
    """The largest file that the service takes, as far as it tells."""
    limits = model.get("limits")
    megabytes = limits.get("megabytes") if isinstance(limits, dict) else None
    return min(MAX_BYTES, megabytes * 2**20) if isinstance(megabytes, int) and megabytes > 0 else MAX_BYTES


def _ends_all(error: Exception) -> bool:
    """Whether an error is neither that of one image, nor one of the service that may pass."""
    if isinstance(error, ServiceError):
        return not error.passing and error.status not in IMAGE_REFUSED
    return not isinstance(error, ImageError)


def _row(result: Answer | list[str] | Exception, labels: Sequence[str]) -> list[str]:
    """Label, its probability, that of every label, and the error."""
    if isinstance(result, list):
        return result
    if isinstance(result, Exception):
        return ["", "", *("" for _ in labels), result.reason if isinstance(result, ImageError) else str(result)]
    probabilities = [result.probability, *(result.probabilities[label] for label in labels)]
    return [result.label, *(f"{p:.6f}" for p in probabilities), ""]


def _count(result: Answer | list[str] | Exception, summary: Summary) -> None:
    if isinstance(result, list):
        summary.labels[result[0]] += 1
        summary.known += 1
    elif isinstance(result, Answer):
        summary.labels[result.label] += 1
        summary.models[result.model] = None
    elif isinstance(result, ServiceError):
        summary.errors[result.reason] += 1
    else:
        summary.errors["File too large" if isinstance(result, ImageTooLarge) else "File cannot be read"] += 1


def _line(cells: Sequence[str]) -> bytes:
    """A line of CSV; bytes in file names that are no UTF-8 become \\udc.. ."""
    return csv_line(cells).encode("utf-8", "backslashreplace")
