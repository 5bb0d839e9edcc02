"""Keeps images of requests in the pool of a data set, where they can get a label; by default, none.

An image is a file named by its content, so the same one is kept once: in service/<day>/, with what was answered in
.answers.jsonl beside it; or in feedback/<label>/, if a caller has sent its right label. Both folders together are
bounded in size, and days that are long past are removed from the first; nothing else in the pool is touched.

One thread does it. While it is busy, or the disk is full, images are not kept; no request waits for it.
"""

import contextlib
import hashlib
import io
import json
import logging
import queue
import shutil
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image as PillowImage

from libraries.base.arrays import Pixels
from libraries.base.errors import StorageError
from libraries.base.file_system import explained, flush
from libraries.base.storage import atomic
from libraries.classifier.bundle import Prediction
from libraries.data.formats import Format, recognise
from libraries.data.pool_folders import ANSWERS, FEEDBACK, SERVICE

_WAITING_BYTES = 64 * 2**20  # of images in memory, beyond which further ones are not kept
_DAY, _MINUTE = 24 * 3600.0, 60.0

Outcome = Literal["kept", "known", "full", "busy", "failed"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Keep:
    """Which images are kept, where, and how many.

    Attributes:
        folder: the pool.
        which: uncertain: those whose most probable label is less probable than `below`, unknown ones, and those about
            which a person would be asked; sample: a
            `share` of all, drawn by their content, so that an image that comes again is not drawn again.
        most_bytes: of both folders together.
        days: after which an image is removed from service/.
    """

    folder: Path
    which: Literal["none", "uncertain", "sample"] = "none"
    below: float = 0.7
    share: float = 0.01
    most_bytes: int = 10**9
    days: int = 30


@dataclass(frozen=True)
class _Image:
    """What is to be kept: a file, or pixels; and where.

    Attributes:
        answer: what was answered; None for feedback.
        label: the right one, of feedback.
    """

    image: bytes | Pixels
    digest: str
    answer: Mapping[str, Any] | None = None
    label: str = ""
    outcome: "Future[Outcome]" = field(default_factory=Future)

    @property
    def size(self) -> int:
        """Bytes of memory."""
        return self.image.nbytes if isinstance(self.image, np.ndarray) else len(self.image)


class Keeper:
    """Keeps images of one service.

    Attributes:
        counts: images by what became of them: kept, known (kept before), full, busy (too many waiting), failed.
    """

    def __init__(self, keep: Keep) -> None:
        self.keep = keep
        self.counts: dict[Outcome, int] = dict.fromkeys(("kept", "known", "full", "busy", "failed"), 0)
        self._todo: queue.SimpleQueue[_Image | None] = queue.SimpleQueue()
        self._lock = threading.Lock()  # guards the counts, and this:
        self._waiting = 0  # bytes of images in memory
        self._bytes = 0  # on disk
        self._tidied = float("-inf")
        self._complaint = ""
        self._thread = threading.Thread(target=self._work, name="keeper", daemon=True)
        self._thread.start()

    def offer(
        self, image: bytes | bytearray | memoryview | Pixels, prediction: Prediction, model: Mapping[str, str]
    ) -> None:
        """Keep an image, if it is one that is wanted; returns at once.

        Args:
            image: a file, or upright RGB pixels, uint8 [H, W, 3].
            prediction: what was answered.
            model: name and version of the model.
        """
        best = float(prediction.probabilities.max())
        is_sure = best >= self.keep.below and not prediction.unknown and not prediction.ask
        if self.keep.which == "none" or (self.keep.which == "uncertain" and is_sure):
            return
        data = image.copy() if isinstance(image, np.ndarray) else bytes(image)
        digest = _digest(data)
        if self.keep.which == "uncertain" or int(digest[:8], 16) < self.keep.share * 2**32:
            answer = {**model, "label": prediction.label, "probability": round(best, 4), **prediction.trusted()}
            self._give(_Image(data, digest, {**answer, "kept": self.keep.which}))

    def take_feedback(self, image: bytes, label: str) -> "Future[Outcome]":
        """Keep an image with its right label; what becomes of it.

        Args:
            label: a name of a class of the model.
        """
        given = _Image(image, _digest(image), label=label)
        self._give(given)
        return given.outcome

    def close(self) -> None:
        """Keep what waits, and end the thread."""
        self._todo.put(None)
        self._thread.join(timeout=5)

    def _give(self, image: _Image) -> None:
        image.outcome.set_running_or_notify_cancel()  # from now on, a caller who has left cannot cancel it
        with self._lock:
            if self._waiting + image.size > _WAITING_BYTES:
                self.counts["busy"] += 1
                image.outcome.set_result("busy")
                return
            self._waiting += image.size
        self._todo.put(image)

    def _work(self) -> None:
        while (image := self._todo.get()) is not None:
            try:
                self._tidy()
                outcome = self._write(image)
            except (OSError, StorageError) as error:
                outcome = "failed"
                cause = error if isinstance(error, OSError) else error.__cause__
                why = explained(cause) if isinstance(cause, OSError) else str(error)
                self._complain(f"images are not kept in {self.keep.folder}: {why}")
            except Exception:
                outcome = "failed"
                log.exception("an image could not be kept")
            with self._lock:
                self._waiting -= image.size
                self.counts[outcome] += 1
            image.outcome.set_result(outcome)

    def _write(self, image: _Image) -> Outcome:
        top, inside = (FEEDBACK, image.label) if image.label else (SERVICE, f"{datetime.now(UTC):%Y-%m-%d}")
        folder = self.keep.folder / top / inside
        for place in (folder.parent, folder):
            if place.is_symlink():
                raise StorageError(f"{place} is a link, which may lead anywhere: remove it")
        data, suffix = _encoded(image.image)
        path = folder / f"{image.digest[:32]}{suffix}"
        if path.exists() or (not image.label and any(folder.parent.glob(f"*/{path.name}"))):
            return "known"
        if self._bytes + len(data) > self.keep.most_bytes:
            self._tidy(after=_MINUTE)  # perhaps images have got labels, and room has become free
        if self._bytes + len(data) > self.keep.most_bytes:
            self._complain(
                f"no more images are kept in {self.keep.folder}: {self.keep.most_bytes // 10**6:,} MB are full"
            )
            return "full"
        folder.mkdir(parents=True, exist_ok=True)
        with atomic(path) as file:
            file.write(data)
        self._bytes += len(data)
        if image.answer is not None:
            line = {"file": path.name, "time": datetime.now(UTC).isoformat(timespec="seconds"), **image.answer}
            self._bytes += _append(folder / ANSWERS, json.dumps(line).encode())
        return "kept"

    def _tidy(self, *, after: float = _DAY) -> None:
        """Remove the days that are long past, and see how much there is, unless that was done in so many seconds."""
        if time.monotonic() - self._tidied < after:
            return
        first = datetime.now(UTC).date() - timedelta(days=self.keep.days)
        tops = [top for name in (SERVICE, FEEDBACK) if not (top := self.keep.folder / name).is_symlink()]
        for folder in (self.keep.folder / SERVICE).glob("[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]"):
            is_ours = folder.parent in tops and folder.is_dir() and not folder.is_symlink() and _is_date(folder.name)
            if is_ours and date.fromisoformat(folder.name) < first:  # nothing else is ever removed
                shutil.rmtree(folder)
        self._bytes = sum(_size(path) for top in tops for path in top.rglob("*"))
        self._tidied = time.monotonic()

    def _complain(self, line: str) -> None:
        if line != self._complaint:
            log.warning("%s", line)
        self._complaint = line


def _digest(image: bytes | Pixels) -> str:
    if isinstance(image, bytes):
        return hashlib.sha256(image).hexdigest()
    return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()


def _size(path: Path) -> int:
    """Bytes of a file; 0 for all else, and for what has just gone."""
    with contextlib.suppress(OSError):
        return path.lstat().st_size if path.is_file() and not path.is_symlink() else 0
    return 0


def _append(path: Path, line: bytes) -> int:
    """Append a line to a file, whose last line may have been cut off; returns how many bytes were added."""
    with path.open("a+b") as file:
        is_torn = file.seek(0, io.SEEK_END) > 0 and file.seek(-1, io.SEEK_END) >= 0 and file.read(1) != b"\n"
        added = file.write((b"\n" if is_torn else b"") + line + b"\n")
        flush(file)
    return added


def _is_date(text: str) -> bool:
    try:
        return bool(date.fromisoformat(text))
    except ValueError:
        return False


def _encoded(image: bytes | Pixels) -> tuple[bytes, str]:
    """The file of an image, and its suffix; pixels become a PNG."""
    if isinstance(image, bytes):
        kind = recognise(image)
        return image, kind.suffixes[0] if isinstance(kind, Format) else ""
    file = io.BytesIO()
    PillowImage.fromarray(image).save(file, "PNG")
    return file.getvalue(), ".png"
