"""A candidate in the shadow of the bundle in service: it classifies what comes, too, and only the answers are compared.

It never delays an answer: it computes in one thread of its own, while no image waits for the service; until then some
images are kept, and those beyond are skipped.
"""

import logging
import os
import queue
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from libraries.base.arrays import Pixels
from libraries.base.errors import ImageError
from libraries.classifier.bundle import Prediction
from libraries.data.images import fit, load_with_size, memory_to_load
from libraries.service.model import LoadedModel

log = logging.getLogger(__name__)

_MOST_WAITING = 2**25  # bytes of images that wait: about 200 as the network sees them
_PAUSE = 0.02  # seconds, while the service is busy
_MOST_BYTES = 2**23  # of a file, or of pixels, that are fitted again, by another rule
_MOST_MEMORY = 2**28  # bytes, for decoding it
_MOST_PAIRS, _TOLD = 10_000, 20  # different answers that are counted, and told
_NICENESS = 10


class Shadow:
    """The candidate and what has come out up to now.

    Attributes:
        candidate: its bundle.
        counts: images by what became of them: agree, differ, skipped (there was no time, or it cannot be read).
    """

    def __init__(
        self, candidate: LoadedModel, champion: LoadedModel, *, is_busy: Callable[[], bool], max_pixels: int
    ) -> None:
        """
        Args:
            champion: that answers.
            is_busy: whether images wait for the service.
            max_pixels: of an image that is decoded.
        """
        self.candidate, self._champion = candidate, champion
        self._is_busy, self._max_pixels = is_busy, max_pixels
        self._has_same_rule = candidate.classifier.rule == champion.classifier.rule
        self.counts: Counter[str] = Counter(agree=0, differ=0, skipped=0)
        self._pairs: Counter[tuple[str, str]] = Counter()
        self._unknown: Counter[str] = Counter()
        self._lock = threading.Lock()  # guards the counters
        self._todo: queue.Queue[tuple[Pixels | bytes, Prediction] | None] = queue.Queue()
        self._waiting = 0  # bytes of images in it
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="candidate", daemon=True)
        self._thread.start()

    def is_of(self, champion: LoadedModel) -> bool:
        """Whether it is compared with this one."""
        return self._champion.version == champion.version

    def offer(self, image: Any, fitted: Pixels, prediction: Prediction) -> None:
        """Take an image, if there is time; returns at once.

        Args:
            image: the file, or upright RGB pixels, uint8 [H, W, 3].
            fitted: the same as the champion has seen it.
            prediction: the champion's.
        """
        given: Pixels | bytes = fitted
        if not self._has_same_rule:
            if (image.nbytes if isinstance(image, np.ndarray) else len(image)) > _MOST_BYTES:
                self._count("skipped")
                return
            given = image.copy() if isinstance(image, np.ndarray) else bytes(image)
        size = given.nbytes if isinstance(given, np.ndarray) else len(given)
        with self._lock:
            if self._waiting + size > _MOST_WAITING:
                self.counts["skipped"] += 1
                return
            self._waiting += size
        self._todo.put((given, prediction))

    def describe(self) -> dict[str, Any]:
        """How they compare, as JSON."""
        with self._lock:
            counts, pairs, unknown = dict(self.counts), self._pairs.most_common(_TOLD), dict(self._unknown)
        compared = counts["agree"] + counts["differ"]
        return {
            **self.candidate.identity,
            "images": compared,
            "agreement": counts["agree"] / compared if compared else None,
            "skipped": counts["skipped"],
            "differ": [{"label": one, "candidate": other, "images": count} for (one, other), count in pairs],
            "unknown": {"both": unknown.get("both", 0), "only_now": unknown.get("now", 0)}
            | {"only_candidate": unknown.get("candidate", 0)},
        }

    def close(self) -> None:
        """Let the thread end, after the image that it is looking at; returns at once."""
        self._is_closed.set()
        self._todo.put(None)

    def _work(self) -> None:
        if sys.platform == "linux":  # niceness is a thread's own there
            try:
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
            except OSError:
                log.debug("the candidate computes at the usual priority")
        while (item := self._todo.get()) is not None:
            while self._is_busy() and not self._is_closed.is_set():
                self._is_closed.wait(_PAUSE)
            if self._is_closed.is_set():
                return
            given, prediction = item
            with self._lock:
                self._waiting -= given.nbytes if isinstance(given, np.ndarray) else len(given)
            try:
                self._compare(given, prediction)
            except ImageError:
                self._count("skipped")
            except Exception as error:  # the service answers without it
                self._count("skipped")
                log.error("the candidate fails: %s", " ".join(str(error).split())[:300])

    def _compare(self, given: Pixels | bytes, prediction: Prediction) -> None:
        classifier = self.candidate.classifier
        if isinstance(given, bytes):
            memory = memory_to_load(given, classifier.rule, max_pixels=self._max_pixels)
            if memory > _MOST_MEMORY:
                self._count("skipped")
                return
            given, _ = load_with_size(given, classifier.rule, max_pixels=self._max_pixels)
        elif not self._has_same_rule:
            given = fit(given, classifier.rule)
        found = classifier.classify(given)
        with self._lock:
            if found.label == prediction.label:
                self.counts["agree"] += 1
            else:
                self.counts["differ"] += 1
                pair = prediction.label, found.label
                if pair in self._pairs or len(self._pairs) < _MOST_PAIRS:
                    self._pairs[pair] += 1
            if prediction.unknown or found.unknown:
                who = "both" if prediction.unknown and found.unknown else "now" if prediction.unknown else "candidate"
                self._unknown[who] += 1

    def _count(self, outcome: str) -> None:
        with self._lock:
            self.counts[outcome] += 1


def outcomes(shadow: Shadow | None) -> Mapping[str, int]:
    """Its counts; none without it."""
    return {"agree": 0, "differ": 0, "skipped": 0} if shadow is None else shadow.counts
