"""Watches whether the images that are sent still look like those that the bundle was tested with.

A window of the last images is compared now and then; of each it holds 128 numbers and the probabilities, never the
picture. An image that comes again, or one that is all but the same, counts once: the test images are no copies of each
other either.
"""

import logging
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from libraries.base.arrays import Float32
from libraries.classifier.bundle import Prediction
from libraries.classifier.reference import Drift, Reference

WINDOW = 500  # images, the last ones
EVERY = 100  # new images, after which they are compared; so many there are at the first time
SECONDS = 10.0  # between two comparisons, at least: each takes a tenth of a second

log = logging.getLogger(__name__)


class DriftWatch:
    """The last images that one model has classified.

    Attributes:
        latest: what the latest comparison found; None before the first.
    """

    def __init__(self, reference: Reference, labels: Sequence[str]) -> None:
        self.reference, self.labels = reference, labels
        self.latest: Drift | None = None
        self._lock = threading.Lock()  # guards all of the following
        self._looks = np.zeros((WINDOW, reference.looks.shape[1]), np.float32)
        self._answers = np.zeros((WINDOW, len(labels)), np.float32)
        self._seen = 0  # images, of which the last are in these, in a circle
        self._new = 0  # images since the latest comparison
        self._ended = float("-inf")  # when that was
        self._is_comparing = False

    def see(self, prediction: Prediction) -> None:
        """Take an image into the window; takes some microseconds, and sometimes starts a thread that compares."""
        looks = self.reference.project(prediction.embedding[None])[0]
        if not np.isfinite(looks).all():
            return
        with self._lock:
            if self._is_known(looks):
                return
            self._looks[self._seen % WINDOW], self._answers[self._seen % WINDOW] = looks, prediction.probabilities
            self._seen += 1
            self._new += 1
            if self._new < EVERY or self._is_comparing:
                return
            self._is_comparing = True
        try:
            threading.Thread(target=self._work, name="drift", daemon=True).start()
        except RuntimeError:  # no more threads: another time
            self._is_comparing = False

    @property
    def images(self) -> int:
        """How many are in the window."""
        return min(self._seen, WINDOW)

    def _is_known(self, looks: Float32) -> bool:
        """Whether an image in the window is all but the same."""
        away = self._looks[: self.images] - looks
        return bool((np.einsum("np,np->n", away, away) <= self.reference.alike**2).any())

    def _work(self) -> None:
        """Compare, as long as there are new images enough."""
        try:
            while self._is_comparing:
                time.sleep(max(0.0, self._ended + SECONDS - time.monotonic()))
                self._compare()
                with self._lock:
                    self._ended, self._is_comparing = time.monotonic(), self._new >= EVERY
        except Exception:
            self._is_comparing = False
            raise

    def _compare(self) -> None:
        with self._lock:
            looks, answers = self._looks[: self.images].copy(), self._answers[: self.images].copy()
            self._new = 0
        found = self.reference.compare(looks, answers)
        if self.latest is None or self.latest.kinds != found.kinds:
            for sentence in found.told(self.labels, _these(found)):
                log.warning("%s", sentence)
        self.latest = found

    def describe(self) -> dict[str, Any]:
        """What GET /model says of it."""
        found = self.latest
        if found is None:
            return {"images": self.images, "warnings": [], "looks": None, "answers": None, "shares": None}
        return {
            "images": found.images,
            "warnings": found.told(self.labels, _these(found)),
            "looks": {"p_value": found.looks, "differ": found.looks_differ},
            "answers": {"p_value": found.answers, "differ": found.answers_differ},
            "shares": {
                label: {"now": round(float(now), 4), "in_its_test": round(float(usual), 4)}
                for label, now, usual in zip(self.labels, found.shares, found.usual, strict=True)
            },
        }


def _these(found: Drift) -> str:
    return f"the last {found.images} images"
