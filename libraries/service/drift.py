"""Watches whether the images that are sent still look like those that the bundle was tested with.

A window of the last images is compared now and then; of each it holds 128 numbers and the probabilities, never the
picture. An image that comes again counts once, or a camera that has stopped would look like a drift of everything.
"""

import logging
import threading
import time
from collections import OrderedDict
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
        self._window: OrderedDict[bytes, tuple[Float32, Float32]] = OrderedDict()  # looks and answers
        self._new = 0  # images since the latest comparison
        self._ended = float("-inf")  # when that was
        self._is_comparing = False

    def see(self, prediction: Prediction) -> None:
        """Take an image into the window; takes some microseconds, and sometimes starts a thread that compares."""
        looks = self.reference.project(prediction.embedding[None])[0]
        key = looks.tobytes()
        with self._lock:
            if key in self._window:
                return
            self._window[key] = looks, prediction.probabilities
            if len(self._window) > WINDOW:
                self._window.popitem(last=False)
            self._new += 1
            if self._new < EVERY or self._is_comparing:
                return
            self._is_comparing = True
        threading.Thread(target=self._work, name="drift", daemon=True).start()

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
            seen, self._new = [*self._window.values()], 0
        found = self.reference.compare(*(np.stack(values) for values in zip(*seen, strict=True)))
        if self.latest is None or self.latest.kinds != found.kinds:
            for sentence in found.told(self.labels, _these(found)):
                log.warning("%s", sentence)
        self.latest = found

    def describe(self) -> dict[str, Any]:
        """What GET /model says of it."""
        found = self.latest
        if found is None:
            return {"images": len(self._window), "warnings": [], "looks": None, "answers": None, "shares": None}
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
