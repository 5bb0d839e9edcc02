"""Keeps images of requests in the pool of a data set, where they can get a label; by default, none.

An image is a file named by its content, so the same one is kept once: in service/<day>/, with what was answered in
.answers.jsonl beside it; or in feedback/<label>/, if a caller has sent its right label. Both folders together are
bounded in size, and days that are long past are removed from the first; nothing else in the pool is touched.

One thread does it. While it is busy, or the disk is full, images are not kept; no request waits for it.
"""

import hashlib
import io
import json
import logging
import queue
import shutil
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
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

SERVICE, FEEDBACK = "service", "feedback"  # folders in the pool
ANSWERS = ".answers.jsonl"
_WAITING_BYTES = 64 * 2**20  # of images in memory, beyond which further ones are not kept
_DAY = 24 * 3600.0

Outcome = Literal["kept", "known", "full", "busy", "failed"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Keep:
    """Which images are kept, where, and how many.

    Attributes:
        folder: the pool.
        which: uncertain: those whose most probable label is less probable than `below`; sample: a `share` of all, drawn
            by their content, so that an image that comes again is not drawn again.
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
        if self.keep.which == "none" or (self.keep.which == "uncertain" and best >= self.keep.below):
            return
        data = image.copy() if isinstance(image, np.ndarray) else bytes(image)
        digest = hashlib.sha256(data if isinstance(data, bytes) else data.tobytes()).hexdigest()
        if self.keep.which == "uncertain" or int(digest[:8], 16) < self.keep.share * 2**32:
            self._give(_Image(data, digest, {**model, "label": prediction.label, "probability": round(best, 4)}))

    def take_feedback(self, image: bytes, label: str) -> None:
        """Keep an image with its right label; returns at once.

        Args:
            label: a name of a class of the model.
        """
        self._give(_Image(image, hashlib.sha256(image).hexdigest(), label=label))

    def close(self) -> None:
        """Keep what waits, and end the thread."""
        self._todo.put(None)
        self._thread.join(timeout=5)

    def _give(self, image: _Image) -> None:
        with self._lock:
            if self._waiting + image.size > _WAITING_BYTES:
                self.counts["busy"] += 1
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

    def _write(self, image: _Image) -> Outcome:
        folder = self.keep.folder / SERVICE / f"{datetime.now(UTC):%Y-%m-%d}"
        if image.label:
            folder = self.keep.folder / FEEDBACK / image.label
        data, suffix = _encoded(image.image)
        path = folder / f"{image.digest[:32]}{suffix}"
        known = self.keep.folder / SERVICE
        if path.exists() or (not image.label and any(known.glob(f"*/{path.name}"))):
            return "known"
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
            with (folder / ANSWERS).open("a", encoding="utf-8") as answers:
                answers.write(json.dumps(line) + "\n")
                flush(answers)
        return "kept"

    def _tidy(self) -> None:
        """Once a day: remove the days that are long past, and see how much there is."""
        if time.monotonic() - self._tidied < _DAY:
            return
        self._tidied = time.monotonic()
        first = datetime.now(UTC).date() - timedelta(days=self.keep.days)
        for folder in self._days():
            if date.fromisoformat(folder.name) < first:
                shutil.rmtree(folder)
        files = [path for name in (SERVICE, FEEDBACK) for path in (self.keep.folder / name).rglob("*")]
        self._bytes = sum(path.lstat().st_size for path in files if path.is_file() and not path.is_symlink())

    def _days(self) -> list[Path]:
        """The folders of days; nothing else is ever removed."""
        found = (self.keep.folder / SERVICE).glob("[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]")
        return [folder for folder in found if folder.is_dir() and not folder.is_symlink() and _is_date(folder.name)]

    def _complain(self, line: str) -> None:
        if line != self._complaint:
            log.warning("%s", line)
        self._complaint = line


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
