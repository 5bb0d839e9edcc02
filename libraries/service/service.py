"""The service without HTTP: images in, outcomes out, within limits, counted."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from libraries.base.cores import usable_cores
from libraries.base.errors import ImageError, ImageTooLarge
from libraries.classifier.bundle import Prediction
from libraries.data.images import decode, fit, load_bytes
from libraries.evaluation.heatmaps import Heatmap, heatmap
from libraries.service.bodies import BodyReader
from libraries.service.metrics import Metrics
from libraries.service.model import LoadedModel, ServedModel
from libraries.service.problems import Problem, image_problem
from libraries.service.workers import Workers

log = logging.getLogger(__name__)

_BUFFERED = 8  # bodies of the largest size that may be in memory at once

_LARGE = 25 * 10**6  # pixels

Pixels = npt.NDArray[np.uint8]
Image = bytes | Pixels | ImageError
"""An image file; or upright RGB pixels, uint8 [H, W, 3]; or why there is neither."""


@dataclass(frozen=True)
class Limits:
    """What a request may ask for.

    Attributes:
        megabytes: of a request.
        images: in a request.
        megapixels: of an image.
        queue: images per core; requests are refused while so many wait.
        timeout: seconds for a request to be computed.
        arrival: seconds for a request to arrive.
    """

    megabytes: int = 32
    images: int = 64
    megapixels: int = 50
    queue: int = 6
    timeout: float = 30.0
    arrival: float = 20.0


@dataclass(frozen=True)
class Outcome:
    """What came of an image, and how long it waited, was decoded and was computed, in seconds."""

    result: Prediction | ImageError
    waited: float = 0.0
    decoded: float = 0.0
    computed: float = 0.0


@dataclass(frozen=True)
class Explanation:
    """A prediction, what speaks for one of the labels, and the height and width of the upright picture."""

    prediction: Prediction
    heatmap: Heatmap
    size: tuple[int, ...]


class Service:
    """A bundle at work for many callers.

    Images are computed one per core, not in batches: on a CPU a batch is no faster (libraries/network/engine.py), and
    an image waits for no other.

    Attributes:
        failure: why the bundle could not be loaded at the start; the service is of no use then.
    """

    def __init__(
        self, bundle: Path, *, precision: Literal["f32", "bf16"] = "f32", limits: Limits | None = None
    ) -> None:
        self.limits = limits or Limits()
        self.failure: Exception | None = None
        self.model = ServedModel(bundle, precision=precision)
        self.metrics = Metrics()
        self._one_large = Lock()
        most = self.limits.megabytes * 2**20
        self.bodies = BodyReader(most_bytes=most, most_buffered=_BUFFERED * most, seconds=self.limits.arrival)
        cores = usable_cores()
        # one thread more than cores: while one is between two images, the others compute
        self.workers = Workers(threads=cores + 1, most_waiting=cores * self.limits.queue)
        self.metrics.queue.set_function(lambda: self.workers.waiting)

    async def start(self) -> None:
        """Load the bundle for the first time; what hinders it stands in `failure`."""
        try:
            await self.load()
        except Exception as error:
            self.failure = error

    async def reload(self) -> bool:
        """Load the bundle again; if it is refused, the log says why, and the present one goes on."""
        try:
            await self.load()
        except Exception as error:  # whatever a bundle may be: damaged ones make OpenVINO raise almost anything
            log.error("the bundle is refused, the one in service goes on: %s", " ".join(str(error).split()))
            return False
        return True

    async def load(self) -> LoadedModel:
        """Load the bundle and answer with it from now on; raises an error if it is refused."""
        loaded = await self.model.load()
        self.metrics.model.clear()
        self.metrics.model.labels(loaded.name, loaded.version).set(1)
        return loaded

    async def classify(self, images: Sequence[Image]) -> tuple[LoadedModel, list[Outcome]]:
        """Classify image files or pixels; what is an error already, or cannot be decoded, gives its error.

        Raises:
            Problem: 503 not ready or too busy, 504 not done in time.
        """
        loaded = self.model.current
        classifier, rule = loaded.classifier, loaded.classifier.rule

        def work(image: Image) -> Outcome:
            if isinstance(image, ImageError):
                return Outcome(image)
            begun = time.perf_counter()
            try:
                fitted = self._decode(load_bytes, image, rule) if isinstance(image, bytes) else fit(image, rule)
            except ImageError as error:
                return Outcome(error, decoded=time.perf_counter() - begun)
            decoded = time.perf_counter()
            prediction = classifier.classify(fitted)
            return Outcome(prediction, decoded=decoded - begun, computed=time.perf_counter() - decoded)

        done = await self.workers.run(work, images, timeout=self.limits.timeout)
        outcomes = [Outcome(o.result, waited, o.decoded, o.computed) for o, waited in done]
        self._count(outcomes)
        return loaded, outcomes

    async def explain(self, image: bytes, label: str | None) -> tuple[LoadedModel, Explanation]:
        """What in an image file speaks for `label`, or for the one that is predicted.

        Raises:
            Problem: 400 no such label, 413 or 422 no usable image, 503 not ready or too busy, 504 not done in time.
        """
        loaded = self.model.current
        classifier = loaded.classifier
        if label is not None and label not in classifier.labels:
            raise Problem(400, f"there is no such label: choose from {', '.join(classifier.labels)}")

        def work(image: bytes) -> Explanation:
            pixels = self._decode(partial(decode, white_level=classifier.rule.white_level), image)
            prediction = classifier.classify(fit(pixels, classifier.rule))
            return Explanation(prediction, heatmap(classifier, pixels, label or prediction.label), pixels.shape[:2])

        try:
            ((explanation, _),) = await self.workers.run(work, [image], timeout=self.limits.timeout)
        except ImageError as error:
            raise image_problem(error) from error
        return loaded, explanation

    def _decode(self, decoder: Callable[..., Pixels], image: bytes, *arguments: Any) -> Pixels:
        """decoder(image, ...), of large images one at a time: each takes 4 bytes of memory per pixel or more."""
        most = self.limits.megapixels * 10**6
        try:
            return decoder(image, *arguments, max_pixels=min(most, _LARGE))
        except ImageTooLarge:
            if most <= _LARGE:
                raise
            with self._one_large:
                return decoder(image, *arguments, max_pixels=most)

    def _count(self, outcomes: Sequence[Outcome]) -> None:
        self.metrics.images.observe(len(outcomes))
        for outcome in outcomes:
            for stage, seconds in (
                ("queue", outcome.waited),
                ("decode", outcome.decoded),
                ("compute", outcome.computed),
            ):
                self.metrics.stages[stage].observe(seconds)
            if isinstance(outcome.result, ImageError):
                self.metrics.image_errors.inc()
            else:
                self.metrics.predictions.labels(outcome.result.label).inc()

    def close(self) -> None:
        """End the threads."""
        self.workers.close()
