"""A folder of images → a CSV file with a service's prediction for each, in the order of their paths."""

import contextlib
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

from libraries.base.errors import ImageError, ImageTooLarge, InputError, ServiceError
from libraries.base.pool import Threads
from libraries.base.storage import atomic
from libraries.base.tables import column_names, csv_line, row_cells
from libraries.data.decoding import MAX_BYTES, read
from libraries.data.formats import Format, NotRead, kind_of, why_not_read
from libraries.service.calling.client import Client, ModelScore
from libraries.service.calling.connection import IMAGE_REFUSED
from libraries.service.calling.journal import ClassifiedRow, Journal

_AHEAD = 16  # results per thread that may wait for their turn to be written
_MOST_FAILURES = 8  # temporary failures of the service in a row, after which the run ends
_IN_WORDS = {"No image": "File is empty"}  # the service's reasons, as said of a file


@dataclass
class Summary:
    """The results for a folder.

    Attributes:
        labels: number of images per predicted label, for every label of the model.
        errors: number of images without a label, per reason.
        models: name and version of the models that answered: one, unless another was put into service meanwhile.
        unknown: number of images that are like none of the classes.
        asked: number of images about which asking a person costs less than an answer.
        known: number of images whose label was known from a run that was stopped.
    """

    labels: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    models: dict[str, None] = field(default_factory=dict)
    unknown: int = 0
    asked: int = 0
    known: int = 0


class _Picture(NamedTuple):
    """An image to be classified, or whose row is known already.

    Attributes:
        name: the path as in the table.
        file: the file's status when it was found; None if that cannot be read.
        row: without the path; None if it is not known.
    """

    path: Path
    name: str
    file: os.stat_result | None
    row: list[str] | None


_UNKNOWN, _ASK = 2, 4  # of the cells of a row, without the path
_Result = ModelScore | list[str] | Exception  # an answer, a row that is known already, or an error


def walk_images(folder: Path, skipped: Counter[NotRead] | None = None) -> Iterator[Path]:
    """The image files in a folder and the folders below it, sorted, without hidden ones.

    Links to folders are followed, but no folder is visited twice, nor one that contains this one. Holds in memory only
    the names in one folder at a time and in its parents, and the paths of the folders.

    Args:
        skipped: counts the other files, by the reason why they are not read.

    Raises:
        InputError: a folder cannot be read.
    """
    above = (*folder.absolute().parents, *folder.resolve().parents)
    return _walk(folder, skipped, {os.path.realpath(place) for place in above})


def _walk(folder: Path, skipped: Counter[NotRead] | None, seen: set[str]) -> Iterator[Path]:
    """See `walk_images`; `seen` are the real paths of the folders that are not to be visited any more."""
    if (real := os.path.realpath(folder)) in seen:
        return
    seen.add(real)
    try:
        with os.scandir(folder) as found:
            entries = sorted((entry.name, entry.is_dir()) for entry in found if not entry.name.startswith("."))
    except OSError as error:
        raise InputError(f"the folder {folder} cannot be read: {error.strerror}") from error
    for name, is_folder in entries:
        if is_folder:
            yield from _walk(folder / name, skipped, seen)
            continue
        kind = kind_of(folder / name)
        if isinstance(kind, Format):
            yield folder / name
        elif skipped is not None:
            skipped[why_not_read(folder / name, kind)] += 1


def classify_folder(
    client: Client, folder: Path, table: Path, *, in_flight: int = 4, progress: Callable[[], None] = lambda: None
) -> Summary:
    """Send every image below a folder to a service, and write a row for each: its label and probabilities, or an error.

    Until the table is written, answers are kept in a journal beside it. So a run after one that was stopped sends only
    images that have no label yet or have changed; or all, if the service has another model.

    Args:
        table: the CSV file; it appears when everything is done, or not at all.
        in_flight: number of requests at once.
        progress: called after every image.

    Raises:
        ServiceError: it is not a service of this project, refuses the key, or has failed several times in a row.
        InputError: a folder cannot be read, or the existing table was not written by this function.
        StorageError: the table cannot be written.
    """
    model = client.model()
    labels: list[str] = model["labels"]
    name = f"{model['name']} {model['version']}"
    summary = Summary(Counter(dict.fromkeys(labels, 0)), models={name: None})
    classify = partial(_result, client, labels=labels, max_bytes=_max_bytes(model))
    with Journal(table, folder=folder, model=name, labels=labels) as journal:
        # abandon: Ctrl-C does not wait for threads, of which one may be in a long wait for the service.
        with atomic(table) as file, Threads(classify, in_flight, abandon=True) as pool:
            writer = _TableWriter(file)
            writer.write(column_names(ClassifiedRow, labels))
            for job, result in _checked(pool.map(_jobs(folder, journal), ahead=_AHEAD * in_flight)):
                row = _row(job.name, result, labels)
                if isinstance(result, ModelScore) and result.model == name and job.file is not None:
                    journal.add(job.name, job.file, row)
                _count(result, summary)
                writer.write([job.name, *row])
                progress()
            journal.will_write(writer.digest.hexdigest())
        journal.has_written()
    return summary


class _TableWriter:
    """Writes rows of CSV to a file.

    Attributes:
        digest: the SHA-256 of what has been written.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.digest = file, hashlib.sha256()

    def write(self, cells: Sequence[str]) -> None:
        """Write a row; bytes in file names that are not UTF-8 become \\udc.. ."""
        line = csv_line(cells).encode("utf-8", "backslashreplace")
        self.digest.update(line)
        self._file.write(line)


def _checked(results: Iterable[tuple[_Picture, _Result]]) -> Iterator[tuple[_Picture, _Result]]:
    """Pass results on; raises an error that is not one image's own, or the last of several temporary ones in a row."""
    failures = 0
    for job, result in results:
        failures = failures + 1 if isinstance(result, ServiceError) and result.passing else 0
        if isinstance(result, Exception) and (_is_fatal(result) or failures == _MOST_FAILURES):
            raise result
        yield job, result


def _jobs(folder: Path, journal: Journal) -> Iterator[_Picture]:
    """A job for every image of a folder."""
    for path in walk_images(folder):
        name, file = path.relative_to(folder).as_posix(), None
        with contextlib.suppress(OSError):
            file = path.stat()
        yield _Picture(path, name, file, journal.row(name, file) if file is not None else None)


def _result(client: Client, job: _Picture, *, labels: Sequence[str], max_bytes: int) -> _Result:
    """The result for an image; an error is returned, for the thread that writes the table to decide."""
    try:
        return _classify(client, job, labels=labels, max_bytes=max_bytes)
    except Exception as error:
        return error


def _classify(client: Client, job: _Picture, *, labels: Sequence[str], max_bytes: int) -> ModelScore | list[str]:
    """The service's prediction for an image, or the row if it is known already."""
    if job.row is not None:
        return job.row
    answer = client.predict(read(job.path, max_bytes=max_bytes))
    if answer.probabilities.keys() != set(labels):
        text = "the service now answers with other labels, of another model: run again"
        raise ServiceError(text, reason="other labels")
    return answer


def _max_bytes(model: dict[str, Any]) -> int:
    """The largest file that the service accepts, as far as it says."""
    limits = model.get("limits")
    megabytes = limits.get("megabytes") if isinstance(limits, dict) else None
    return min(MAX_BYTES, megabytes * 2**20) if isinstance(megabytes, int) and megabytes > 0 else MAX_BYTES


def _is_fatal(error: Exception) -> bool:
    """Whether an error is neither one image's own nor a temporary one of the service."""
    if isinstance(error, ServiceError):
        return not error.passing and error.status not in IMAGE_REFUSED
    return not isinstance(error, ImageError)


def _row(path: str, result: _Result, labels: Sequence[str]) -> list[str]:
    """The cells of a row, without the path: one that is known already as it is."""
    if isinstance(result, list):
        return result
    if isinstance(result, Exception):
        error = result.reason if isinstance(result, ImageError) else str(result)
        row = ClassifiedRow(path, "", None, None, None, None, dict.fromkeys(labels), error)
    else:
        probabilities = {label: result.probabilities[label] for label in labels}
        unknown, ask = _cell(result.unknown), _cell(result.ask)
        likely = None if result.set is None else "|".join(label.replace("|", "/") for label in result.set)
        row = ClassifiedRow(path, result.label, result.probability, unknown, likely, ask, probabilities, "")
    return [cell or "" for cell in row_cells(row).values()][1:]


def _cell(value: bool | None) -> Literal["true", "false"] | None:
    return None if value is None else "true" if value else "false"


def _count(result: _Result, summary: Summary) -> None:
    if isinstance(result, list):
        summary.labels[result[0]] += 1
        summary.unknown += result[_UNKNOWN] == "true"
        summary.asked += result[_ASK] == "true"
        summary.known += 1
    elif isinstance(result, ModelScore):
        summary.labels[result.label] += 1
        summary.unknown += result.unknown is True
        summary.asked += result.ask is True
        summary.models[result.model] = None
    elif isinstance(result, ServiceError):
        summary.errors[_IN_WORDS.get(result.reason, result.reason)] += 1
    else:
        summary.errors["File too large" if isinstance(result, ImageTooLarge) else "File cannot be read"] += 1
