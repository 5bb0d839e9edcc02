"""The service without HTTP: images in, predictions out, within limits, with metrics."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from libraries.base.arrays import Pixels
from libraries.base.errors import ImageError, ImageTooLarge
from libraries.base.pool import usable_cores
from libraries.classifier.bundle import Prediction
from libraries.classifier.explain import Heatmap, heatmap_of_fitted
from libraries.data.images import ResizeRule, fit, load_with_size, memory_to_load
from libraries.service.bodies import BodyReader
from libraries.service.drift import DriftWatch
from libraries.service.keeping import Keep, Keeper
from libraries.service.model import LoadedModel, ServedModel, load_model
from libraries.service.multipart import Body
from libraries.service.problems import Problem, image_problem
from libraries.service.shadow import Shadow, outcomes
from libraries.service.similar import Similar
from libraries.service.workers import Workers

_BUFFERED = 5  # bodies of the largest size that may be in memory at once
_PER_PIXEL = 9  # bytes allowed per pixel of the largest image; a 48-megapixel HEIC from a phone needs 8 to 10
_SPARE = 16 * 2**20  # bytes, for the tiles in which images are converted
_IN_A_THREAD = 100_000  # bytes of a body beyond which parsing would hold up the event loop
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_STAGES = ("queue", "decode", "compute")

log = logging.getLogger(__name__)

T = TypeVar("T")
Image = bytes | bytearray | memoryview | Pixels | ImageError
"""An image file; or upright RGB pixels, uint8 [H, W, 3]; or the reason why there is neither."""


@dataclass(frozen=True)
class Limits:
    """What a request may ask for.

    Attributes:
        megabytes: size of a request.
        images: number of images in a request.
        megapixels: size of an image.
        queue: images per core; a request that would wait behind more is refused.
        timeout: seconds for parsing and computing a request.
        arrival: seconds for a request to arrive.
    """

    megabytes: int = 32
    images: int = 64
    megapixels: int = 50
    queue: int = 6
    timeout: float = 30.0
    arrival: float = 20.0

    @property
    def bytes(self) -> int:
        """Size of a request."""
        return self.megabytes * 2**20

    @property
    def pixels(self) -> int:
        """Size of an image."""
        return self.megapixels * 10**6

    @property
    def memory(self) -> int:
        """Bytes for decoding images and parsing texts: enough for the largest of each."""
        return _PER_PIXEL * self.pixels + 2 * self.bytes + _SPARE


@dataclass(frozen=True)
class TimedResult:
    """The result for an image, and the seconds it spent waiting, being decoded and being computed."""

    result: Prediction | ImageError
    waited: float = 0.0
    decoded: float = 0.0
    computed: float = 0.0


@dataclass(frozen=True)
class Explanation:
    """A prediction, the evidence for one of the labels, and the height and width of the upright image."""

    prediction: Prediction
    heatmap: Heatmap
    size: tuple[int, ...]


@dataclass
class _QueuedImage:
    """An image of a request, and the bytes of memory that decoding it takes, once `measure` has run."""

    image: Image
    memory: int = 0

    def measure(self, rule: ResizeRule, *, max_pixels: int) -> int:
        """Estimate the memory from the image's header."""
        if isinstance(self.image, bytes | bytearray | memoryview):
            self.memory = memory_to_load(bytes(self.image), rule, max_pixels=max_pixels)
        elif isinstance(self.image, np.ndarray):
            self.memory = 3 * self.image.nbytes  # a copy, and Pillow's four bytes per pixel
        return self.memory


class Metrics:
    """Prometheus metrics of one service, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("requests", "Requests answered", ["path", "status"], registry=self.registry)
        self.seconds = Histogram(
            "request_seconds", "Whole time of a request", ["path"], buckets=_SECONDS, registry=self.registry
        )
        stages = Histogram(
            "stage_seconds", "Time of a stage, per image", ["stage"], buckets=_SECONDS, registry=self.registry
        )
        self.stages = {stage: stages.labels(stage) for stage in _STAGES}
        self.images = Histogram(
            "images_per_request", "Images in a request", buckets=(1, 2, 4, 8, 16, 32, 64), registry=self.registry
        )
        self.rejected = Counter("rejected", "Requests turned away", ["reason"], registry=self.registry)
        self.predictions = Counter("predictions", "Images classified, by label", ["label"], registry=self.registry)
        self.image_errors = Counter("image_errors", "Images that could not be used", registry=self.registry)
        self.queue = Gauge("queue_images", "Images waiting for a thread", registry=self.registry)
        self.model = Gauge("model", "The bundle in service", ["name", "version"], registry=self.registry)

    def watch_drift(self, current: Callable[[], DriftWatch | None]) -> None:
        """Show how the last images compare with the test images; NaN before there is anything to say."""
        p_value = Gauge("drift_p_value", "Probability of such a difference by chance", ["of"], registry=self.registry)
        is_drift = Gauge("drift", "1: the last images differ from the test images", ["of"], registry=self.registry)
        for of in ("looks", "answers"):
            p_value.labels(of).set_function(partial(_latest, current, of))
            is_drift.labels(of).set_function(partial(_latest, current, f"{of}_differ"))

    def watch_candidate(self, counts: Callable[[], Mapping[str, int]]) -> None:
        """Show how often the candidate agrees."""
        compared = Gauge("candidate_images", "Images, by what the candidate says", ["outcome"], registry=self.registry)
        for outcome in counts():
            compared.labels(outcome).set_function(partial(_count, counts, outcome))

    def watch(self, keeper: Keeper) -> None:
        """Show what became of the images that were to be kept."""
        kept = Gauge("images_kept", "Images for the pool, by what became of them", ["outcome"], registry=self.registry)
        for outcome in keeper.counts:
            kept.labels(outcome).set_function(partial(keeper.counts.__getitem__, outcome))

    def count_results(self, results: Sequence[TimedResult]) -> None:
        """Count the images of one request."""
        self.images.observe(len(results))
        for timed in results:
            for stage, seconds in zip(_STAGES, (timed.waited, timed.decoded, timed.computed), strict=True):
                self.stages[stage].observe(seconds)
            if isinstance(timed.result, ImageError):
                self.image_errors.inc()
            else:
                self.predictions.labels(timed.result.label).inc()

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class Service:
    """A bundle that classifies images for many callers.

    Images are computed one per core, not in batches: on a CPU a batch is no faster (libraries/network/engine.py), and
    no image waits for another.

    Attributes:
        failure: why the bundle could not be loaded at the start; the service cannot be used then.
    """

    def __init__(
        self,
        bundle: Path,
        *,
        precision: Literal["f32", "bf16"] = "f32",
        limits: Limits | None = None,
        keep: Keep | None = None,
        candidate: Path | None = None,
        similar: Similar | None = None,
    ) -> None:
        """
        Args:
            keep: which images are kept; None: none, and no feedback.
            candidate: a bundle whose answers are compared, and not given.
            similar: training images that may be shown; None: none.
        """
        self.keeper = None if keep is None else Keeper(keep)
        self.limits = limits or Limits()
        self.failure: Exception | None = None
        self.model = ServedModel(bundle, precision=precision)
        self.shadow: Shadow | None = None
        self._similar = similar
        self._candidate, self._precision = candidate, precision
        self._promoted: LoadedModel | None = None
        self.metrics = Metrics()
        self.bodies = BodyReader(
            most_bytes=self.limits.bytes,
            most_buffered=_BUFFERED * self.limits.bytes,
            seconds=self.limits.arrival,
            timeout=self.limits.timeout,
        )
        cores = usable_cores()
        self.workers = Workers(
            threads=cores + 1,  # one more than cores, so that none is idle while a thread is between two images
            most_waiting=cores * self.limits.queue,
            memory=self.limits.memory,
            patience=self.limits.timeout,
        )
        self.metrics.queue.set_function(lambda: self.workers.waiting)
        self.metrics.watch_drift(lambda: self.model.current.drift if self.model.is_ready else None)
        if candidate is not None:
            self.metrics.watch_candidate(lambda: outcomes(self.shadow))
        if self.keeper is not None:
            self.metrics.watch(self.keeper)

    async def start(self) -> None:
        """Load the bundle for the first time; if that fails, `failure` says why."""
        try:
            await self.load()
        except Exception as error:
            self.failure = error
            return
        await self._start_shadow()

    async def _start_shadow(self) -> None:
        """Load the candidate; if it is refused, the log says why, and the service answers without it."""
        if self._candidate is None:
            return
        try:
            loaded = await asyncio.to_thread(load_model, self._candidate, precision=self._precision)
        except Exception as error:  # any kind, as in `reload`
            log.error("the candidate is refused: %s", " ".join(str(error).split()))
            return
        self._shadow_with(loaded)

    def _shadow_with(self, candidate: LoadedModel | None) -> None:
        """Compare the model in service with this one from now on; None: with none."""
        if self.shadow is not None:
            self.shadow.close()
        self.shadow = None
        if candidate is not None:
            self.shadow = Shadow(
                candidate,
                self.model.current,
                is_busy=lambda: self.workers.waiting > 0,
                max_pixels=self.limits.pixels,
            )
            log.info("comparing with %s, version %s, from %s", candidate.name, candidate.version, candidate.folder)

    async def promote(self) -> LoadedModel:
        """Put the candidate into service.

        Raises:
            Problem: 409 there is none.
        """
        if self.shadow is None:
            raise Problem(409, f"there is no candidate: {self._why_no_candidate()}")
        self._promoted = self.shadow.candidate
        await self.model.promote(self._promoted)
        self._shadow_with(None)
        return self._told(self._promoted)

    def _why_no_candidate(self) -> str:
        if self._candidate is None:
            return "start the service with --candidate"
        if self._promoted is not None:
            return "it is in service already, and a rollback takes it out again"
        return "it was refused when the service started: its log says why"

    async def roll_back(self) -> LoadedModel:
        """Put the model before into service again; raises Problem 409 if there is none.

        If a candidate had been promoted, it is the candidate again.
        """
        left = self.model.current
        loaded = await self.model.roll_back()
        if self._promoted is not None and self._promoted.version == left.version:  # it may have been loaded again
            self._shadow_with(left)
        else:
            self._shadow_with(None if self.shadow is None else self.shadow.candidate)
        return self._told(loaded)

    async def reload(self) -> bool:
        """Load the bundle again; if it is refused, the log says why, and the present one stays in service."""
        try:
            await self.load()
        except Exception as error:  # any kind: OpenVINO raises almost anything for a damaged bundle
            log.error("the bundle is refused, the present one stays in service: %s", " ".join(str(error).split()))
            return False
        return True

    async def load(self) -> LoadedModel:
        """Load the bundle and answer with it from now on; raises an error if it is refused."""
        loaded = await self.model.load()
        if self.shadow is not None and not self.shadow.is_of(loaded):
            self._shadow_with(self.shadow.candidate)
        return self._told(loaded)

    def _told(self, loaded: LoadedModel) -> LoadedModel:
        """The same, with its version among the metrics."""
        self.metrics.model.clear()
        self.metrics.model.labels(loaded.name, loaded.version).set(1)
        return loaded

    def check_ready(self) -> LoadedModel:
        """The model in service; raises Problem 503 if there is none yet, or no thread that could compute."""
        loaded = self.model.current
        if self.workers.are_stuck:
            raise Problem(503, "every thread is busy with an image that takes too long", retry_after=10)
        return loaded

    async def parse(self, parser: Callable[[Body], T], body: Body, *, memory: Callable[[Body], int]) -> T:
        """parser(body); a large body is parsed in a thread, once `memory(body)` bytes are available."""
        if len(body) < _IN_A_THREAD:
            return parser(body)
        return await self.workers.run_at_once(parser, body, memory=memory)

    async def classify(
        self, images: Sequence[Image], *, is_usual: bool = True
    ) -> tuple[LoadedModel, list[TimedResult]]:
        """Classify image files or pixels; an error among them, or an image that cannot be decoded, gives an error.

        Args:
            is_usual: whether they are some of those that come, which may be kept, and whose drift is watched.

        Raises:
            Problem: 503 not ready or too busy.
        """
        loaded = self.model.current
        classifier, rule = loaded.classifier, loaded.classifier.rule

        def work(item: _QueuedImage) -> TimedResult:
            begun = time.perf_counter()
            try:
                fitted, _ = self._fit(item, rule)
            except ImageError as error:
                return TimedResult(_without_traceback(error), decoded=time.perf_counter() - begun)
            decoded = time.perf_counter()
            prediction = classifier.classify(fitted)
            computed = time.perf_counter() - decoded
            if is_usual and loaded.drift is not None:
                loaded.drift.see(prediction)
            shadow = self.shadow
            if is_usual and shadow is not None and shadow.is_of(loaded):
                shadow.offer(item.image, fitted, prediction)
            if is_usual and self.keeper is not None and not isinstance(item.image, ImageError):
                self.keeper.offer(item.image, prediction, loaded.identity)
            return TimedResult(prediction, decoded=decoded - begun, computed=computed)

        measure = partial(_QueuedImage.measure, rule=rule, max_pixels=self.limits.pixels)
        done = await self.workers.run(work, [_QueuedImage(image) for image in images], memory=measure)
        results = [TimedResult(r.result, waited, r.decoded, r.computed) for r, waited in done]
        self.metrics.count_results(results)
        return loaded, results

    async def take_feedback(self, image: Image, label: str) -> None:
        """Keep an image file with its right label.

        Raises:
            Problem: 404 nothing is kept; 503 this one could not be.
        """
        if self.keeper is None or not isinstance(image, bytes | bytearray | memoryview):
            raise Problem(404, "feedback is off: start the service with a feedback key")
        outcome = await asyncio.wrap_future(self.keeper.take_feedback(bytes(image), label))
        if outcome not in ("kept", "known"):
            raise Problem(503, "the image could not be kept: the service's log says why", retry_after=60)

    @property
    def similar(self) -> Similar | None:
        """The training images of the model in service, if they may be shown."""
        is_ready = self._similar is not None and self.model.is_ready and self._similar.is_of(self.model.current)
        return self._similar if is_ready else None

    async def find_similar(self, image: Image) -> tuple[LoadedModel, list[dict[str, Any]]]:
        """Find the training images most like an image.

        Raises:
            Problem: 404 they are not shown; 413 or 422 no usable image; 503 not ready or too busy.
        """
        if (similar := self.similar) is None:
            raise Problem(404, "training images are not shown: see serve_similar")
        loaded, (timed,) = await self.classify([image], is_usual=False)
        if isinstance(timed.result, ImageError):
            raise image_problem(timed.result)
        return loaded, await asyncio.to_thread(similar.to, timed.result.embedding)

    async def explain(self, image: Image, label: str | None) -> tuple[LoadedModel, Explanation]:
        """Find the evidence in an image for `label`, or for the predicted label.

        Raises:
            Problem: 400 no such label; 413 or 422 no usable image; 503 not ready or too busy.
        """
        loaded = self.model.current
        classifier, rule = loaded.classifier, loaded.classifier.rule
        if label is not None and label not in classifier.labels:
            raise Problem(400, f"there is no such label: choose from {', '.join(classifier.labels)}")

        def work(item: _QueuedImage) -> Explanation | ImageError:
            try:
                fitted, size = self._fit(item, rule)
            except ImageError as error:
                return _without_traceback(error)
            prediction = classifier.classify(fitted)
            heatmap = heatmap_of_fitted(classifier, fitted, label or prediction.label, size=size)
            return Explanation(prediction, heatmap, size[::-1])

        measure = partial(_QueuedImage.measure, rule=rule, max_pixels=self.limits.pixels)
        ((explanation, _),) = await self.workers.run(work, [_QueuedImage(image)], memory=measure)
        if isinstance(explanation, ImageError):
            raise image_problem(explanation)
        return loaded, explanation

    def _fit(self, item: _QueuedImage, rule: ResizeRule) -> tuple[Pixels, tuple[int, int]]:
        """The image resized by the rule, uint8 [S, S, 3], and the width and height of the upright image."""
        image = item.image
        if isinstance(image, ImageError):
            raise image
        if isinstance(image, np.ndarray):
            return fit(image, rule), (image.shape[1], image.shape[0])
        if item.memory > self.limits.memory:
            raise ImageTooLarge(
                f"takes about {item.memory // 10**6:,} MB of memory to decode, but only "
                f"{self.limits.memory // 10**6:,} MB are allowed: send it smaller, or as JPEG or PNG, or raise "
                "serve_maxMegapixels"
            )
        return load_with_size(bytes(image), rule, max_pixels=self.limits.pixels)

    def close(self) -> None:
        """End the threads."""
        self.workers.close()
        if self.shadow is not None:
            self.shadow.close()
        if self.keeper is not None:
            self.keeper.close()


def _count(counts: Callable[[], Mapping[str, int]], outcome: str) -> int:
    return counts()[outcome]


def _latest(current: Callable[[], DriftWatch | None], name: str) -> float:
    """A number of the latest comparison; NaN if there is none."""
    watch = current()
    return float("nan") if watch is None or watch.latest is None else float(getattr(watch.latest, name))


def _without_traceback(error: ImageError) -> ImageError:
    """The error without its traceback, whose frames would keep the image in memory."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)
