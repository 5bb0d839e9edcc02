"""The bundle: ONE folder that classifies an image anywhere, without PyTorch and without pickle.

model.onnx takes images as they are resized by the rule in model.json and gives embedding, scores and calibrated
probabilities (see `graph`); model.json has labels, resize rule, provenance, versions and the SHA-256 of every file;
metrics.json, there once the bundle has been evaluated, says how good it is, and reference.npz what its test images look
like (see `reference`).
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from pathlib import Path
from threading import Lock
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from libraries.base.arrays import Float32
from libraries.base.errors import ImageError, StorageError
from libraries.base.storage import Artefact, write_json
from libraries.classifier.bundle_files import DECISIVE, MANIFEST, METRICS, MODEL, check_files, read_manifest
from libraries.classifier.bundle_graph import EMBEDDING, EVIDENCE, PROBABILITIES, SCORES, STRANGENESS, write_graph
from libraries.classifier.calibration import Calibration
from libraries.classifier.costs import Costs
from libraries.classifier.decision import Decision
from libraries.classifier.reference import Reference
from libraries.classifier.svm import LinearModel
from libraries.classifier.trust import Trust
from libraries.data.depth import FULL_RANGE
from libraries.data.images import ResizeRule, fit, load
from libraries.network.engine import Engine, open_part

T = TypeVar("T")

ROWS_AT_ONCE = 8192  # embeddings that are classified in one go: 42 MB at D = 1280


def write_bundle(
    bundle: Artefact,
    network: Artefact,
    *,
    labels: Sequence[str],
    calibration: Calibration,
    linear: LinearModel | None = None,
    trust: Trust | None = None,
    costs: Costs | None = None,
    settings: Mapping[str, Any],
) -> None:
    """Write the bundle's folder from the network's: graph first, model.json last.

    The white level of the data set, which stands in the bundle's recipe, becomes part of the resize rule.

    Args:
        settings: all parameters of the run, for information; those that matter are in the recipe anyway.
    """
    bundle.begin()
    strangeness = None if trust is None else trust.strangeness
    target = bundle.folder / MODEL
    write_graph(network.folder / MODEL, target, calibration=calibration, linear=linear, strangeness=strangeness)
    described = network.read()
    kept = ("architecture", "input_size", "embedding_size", "mean", "std", "views")
    rule = ResizeRule.from_json(described["resize"])
    bundle.commit(
        [bundle.folder / MODEL],
        **{name: described[name] for name in kept},
        resize=replace(rule, white_level=bundle.parameters.get("white_level") or FULL_RANGE).to_json(),
        labels=list(labels),
        **({} if trust is None else {"trust": trust.to_json()}),
        **({} if costs is None else {"costs": costs.to_json()}),
        settings=dict(settings),
        versions={name: metadata.version(name) for name in ("numpy", "onnx", "openvino", "pillow")},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def write_metrics(bundle: Artefact, metrics: Mapping[str, Any]) -> None:
    """Write beside model.json how good the bundle is, as measured on the test images."""
    model = bundle.read()
    decisive = {name: model.get(name) for name in DECISIVE}
    write_json(bundle.folder / METRICS, {"files": model["files"], **decisive, "metrics": metrics})


@dataclass(frozen=True)
class Prediction:
    """The classifier's answer for one image.

    Attributes:
        label: the most probable class; or, if mistakes have costs, the one that costs least.
        probabilities: float32 [K], calibrated, in the order of the classifier's labels.
        scores: float32 [K], before calibration.
        embedding: float32 [D].
        unknown: whether the image is too strange to be one of the classes; None: the bundle cannot tell.
        set: labels of which one is true as often as the bundle promises (see `trust`), in the order of the
            classifier's; None: it promises nothing.
        ask: whether asking a person costs less than this answer, or is all that is left; None: nobody can be asked.
    """

    label: str
    probabilities: Float32
    scores: Float32
    embedding: Float32
    unknown: bool | None = None
    set: tuple[str, ...] | None = None
    ask: bool | None = None

    def trusted(self) -> dict[str, Any]:
        """`unknown`, `set` and `ask`, where the bundle has them, for JSON."""
        likely = None if self.set is None else list(self.set)
        found = {"unknown": self.unknown, "set": likely, "ask": self.ask}
        return {name: value for name, value in found.items() if value is not None}


class Classifier:
    """A bundle in use: images in, predictions out.

    Attributes:
        labels: the classes, in the order of scores and probabilities.
        rule: how an image becomes the network's input.
        model: everything model.json says, and the metrics, if the bundle has been evaluated.
        decision: how probabilities become answers.
    """

    def __init__(self, folder: Path, *, precision: Literal["f32", "bf16"] = "f32") -> None:
        """Load and verify a bundle.

        Raises:
            StorageError: model.json is missing or damaged, or a file is not the one it was written with.
        """
        self.model, self.labels, self.rule = read_manifest(folder / MANIFEST)
        self._folder, self._precision = folder, precision
        self.decision = Decision.described(self.model, self.labels)
        self._engine = self._open()
        self._check_sizes()
        self._evidence_engine: Engine | None = None
        self._one_at_a_time = Lock()

    def predict(self, images: Sequence[npt.NDArray[np.uint8]]) -> list[Prediction]:
        """Classify upright RGB images, each uint8 [H, W, 3] of any size; no images give no predictions."""
        if len(images) == 0:
            return []
        fitted = np.stack([fit(image, self.rule) for image in images])  # [N, S, S, 3]
        outputs = self._engine.run(fitted)
        return [self._prediction({k: v[i] for k, v in outputs.items()}) for i in range(len(images))]

    def classify(self, fitted: npt.NDArray[np.uint8]) -> Prediction:
        """Classify one fitted image, uint8 [S, S, 3], in the calling thread; from as many threads as you like."""
        return self._prediction(self._engine.infer(fitted))

    def load_reference(self) -> Reference | None:
        """What its test images look like; None: nobody knows, since it has not been evaluated, or on too few images."""
        size, classes = self.model["embedding_size"], len(self.labels)
        return Reference.load(self._folder, of=self.model["files"], embedding_size=size, classes=classes)

    @property
    def has_evidence(self) -> bool:
        """Whether the network's embedding is the mean over a map, so that `evidence` can be had."""
        return EVIDENCE in self._engine.left_out

    def evidence(self, fitted: npt.NDArray[np.uint8]) -> Float32:
        """The share of each position of one fitted image, uint8 [S, S, 3], in the logits: float32 [K, h, w].

        Its mean over the positions is the calibrated logits, whose softmax is the probabilities. Any number of threads
        may call it; the first call reads the bundle's files again, which takes about as long as opening it.

        Raises:
            NetworkError: the network has no such map.
            StorageError: the bundle's files have changed since it was opened.
        """
        with self._one_at_a_time:
            if self._evidence_engine is None:
                self._evidence_engine = self._open(outputs=(EVIDENCE,))
        return self._evidence_engine.infer(fitted)[EVIDENCE]

    def _check_sizes(self) -> None:
        """Raise StorageError unless the network takes and gives what model.json says."""
        shapes, classes = self._engine.output_shapes, (len(self.labels),)
        if PROBABILITIES not in shapes:
            raise StorageError(f"{self._folder} holds a network without its classifier: take a folder model_*/ instead")
        expected = {EMBEDDING: (self.model["embedding_size"],), SCORES: classes, PROBABILITIES: classes}
        if self.decision.unknown_above is not None:
            expected[STRANGENESS] = (1,)
        for name, shape in expected.items():
            if shapes.get(name) != shape:
                gives = f"{name} {list(shapes.get(name, ()))}, and {MANIFEST} describes {list(shape)}"
                raise StorageError(f"{self._folder / MODEL} gives {gives}: restore or rebuild the bundle")
        if self._engine.size != self.rule.size:
            takes = f"images of {self._engine.size} pixels, and {MANIFEST} describes {self.rule.size}"
            raise StorageError(f"{self._folder / MODEL} takes {takes}: restore or rebuild the bundle")

    def _open(self, *, outputs: Collection[str] | None = None) -> Engine:
        """An engine for the graph, after making sure that the bundle's files are those it was written with."""
        check_files(self._folder, self.model["files"])
        return Engine(self._folder / MODEL, outputs=outputs, precision=self._precision)

    def predict_embeddings(self, embeddings: Float32) -> list[Prediction]:
        """Classify images by their embeddings, float32 [N, D]: with the part of the graph that comes after them."""
        check_files(self._folder, self.model["files"])
        outputs = (SCORES, PROBABILITIES, *([] if self.decision.unknown_above is None else [STRANGENESS]))
        part = open_part(self._folder / MODEL, start=EMBEDDING, outputs=outputs, precision=self._precision)
        predictions: list[Prediction] = []
        for start in range(0, len(embeddings), ROWS_AT_ONCE):
            rows = embeddings[start : start + ROWS_AT_ONCE]
            found = {EMBEDDING: rows, **part(rows)}
            predictions += (
                self._prediction({name: values[i] for name, values in found.items()}) for i in range(len(rows))
            )
        return predictions

    def predict_files(self, paths: Iterable[Path]) -> Iterator[tuple[Path, Prediction | ImageError]]:
        """Classify image files, in order, decoding and inference in parallel; a bad file gives its error."""
        return self.predict_stream(paths, partial(load, rule=self.rule))

    def predict_stream(
        self, items: Iterable[T], load_item: Callable[[T], npt.NDArray[np.uint8]]
    ) -> Iterator[tuple[T, Prediction | ImageError]]:
        """Classify whatever `load_item` turns into a fitted image uint8 [S, S, 3]."""
        for item, result in self._engine.stream(items, load_item):
            yield item, result if isinstance(result, ImageError) else self._prediction(result)

    def _prediction(self, outputs: dict[str, Float32]) -> Prediction:
        probabilities = outputs[PROBABILITIES]
        found = self.decision.decide(probabilities[None], outputs.get(STRANGENESS))
        likely = None if found.sets is None else tuple(self.labels[i] for i in np.flatnonzero(found.sets[0]))
        return Prediction(
            self.labels[int(found.answers[0])],
            probabilities,
            outputs[SCORES],
            outputs[EMBEDDING],
            None if found.unknown is None else bool(found.unknown[0]),
            likely,
            None if found.ask is None else bool(found.ask[0]),
        )


def find_bundle(folder: Path) -> Path:
    """The folder itself, or the only one in it, three levels deep at most, that is a bundle.

    Raises:
        StorageError: there is none, or more than one; says what there is.
    """
    if (folder / MANIFEST).exists():
        return folder
    found = sorted(path.parent for levels in ("*", "*/*", "*/*/*") for path in folder.glob(f"{levels}/{MANIFEST}"))
    if len(found) == 1:
        return found[0]
    there = [path.relative_to(folder).as_posix() for path in found or sorted(folder.glob("*"))]
    holds = f"{len(found)} bundles" if found else f"no bundle, a folder with {MANIFEST}, but"
    raise StorageError(f"{folder} holds {holds}: {', '.join(there[:5]) or 'nothing at all'}")
