"""A classifier's predictions for the test images, to explore: every score, every mistake, and the evidence."""

import csv
import io
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from libraries.base.arrays import Bool, Float32, Float64, Int
from libraries.base.errors import ImageError, InputError, MissingInput, PipelineError, StaleInput
from libraries.base.file_system import nfc, open_text
from libraries.base.layout import Layout
from libraries.base.storage import read_json
from libraries.base.tables import csv_rows
from libraries.classifier.bundle import Classifier
from libraries.classifier.explain import heatmap, nearest, paint
from libraries.data.annotations import Annotations, StepResult
from libraries.data.decoding import MAX_PIXELS
from libraries.data.depth import FULL_RANGE
from libraries.data.images import ResizeRule
from libraries.network.embedding_store import read_features
from libraries.widgets.viewer import PAGES, Message, Viewer, displayed, page_code

Trusted = Literal["unknown", "ambiguous", "ask"]
Order = Literal["loss", "margin", "most confident", "least confident", "name"]

_ALIKE = 5  # similar training images shown for an image
_BARS = 100  # classes shown, those with the highest probabilities
_STEPS = 1000  # of the threshold
_EVIDENCE = 256  # pixels of a heatmap's side; heatmaps are smooth


class Predictions(NamedTuple):
    """The content of predictions.csv: element i of every field but `names` belongs to test image i.

    Attributes:
        names: of the K classes.
        labels: true classes, int [N].
        predictions: predicted classes, int [N].
        probabilities: float32 [N, K].
        unknown: bool [N], called unknown; None: the bundle cannot tell.
        sets: N texts, the likely labels joined by |; None: the bundle promises nothing.
        asked: bool [N], a person would be asked; None: nobody can be.
    """

    names: list[str]
    paths: list[str]
    labels: Int
    predictions: Int
    probabilities: Float32
    unknown: Bool | None = None
    sets: list[str] | None = None
    asked: Bool | None = None


def read_predictions(path: Path) -> Predictions:
    """Read predictions.csv as 5_evaluate wrote it.

    Raises:
        InputError: it is not such a table.
    """
    try:
        with open_text(path, errors="surrogateescape") as file:
            header, *rows = csv_rows(file)
        if not rows:
            raise ValueError("it has no rows")
        of_names = [i for i, column in enumerate(header) if i > 2 and column not in ("unknown", "set", "ask")]
        names = [header[i].removeprefix("probability of ") for i in of_names]
        number = {name: i for i, name in enumerate(names)}
        labels, predictions = (np.array([number[row[column]] for row in rows]) for column in (1, 2))
        probabilities = np.array([[row[i] for i in of_names] for row in rows], np.float32)
        unknown, sets, asked = (_cells(rows, header, name) for name in ("unknown", "set", "ask"))
    except (OSError, ValueError, KeyError, IndexError, csv.Error) as error:
        raise InputError(f"{path} cannot be read ({error}): run scripts/5_evaluate.py again") from error
    is_unknown, is_asked = (
        None if cells is None else np.array([cell == "true" for cell in cells]) for cells in (unknown, asked)
    )
    paths = [row[0] for row in rows]
    return Predictions(names, paths, labels, predictions, probabilities, is_unknown, sets, is_asked)


def _cells(rows: Sequence[Sequence[str]], header: Sequence[str], name: str) -> list[str] | None:
    """A column; None if there is none, or if it is empty."""
    cells = [row[header.index(name)] for row in rows] if name in header else []
    return cells if any(cells) else None


class ResultsViewer(Viewer):
    """The test images of one evaluation, with their predictions."""

    _esm = page_code("parts.js", "results.js")
    _css = PAGES / "viewer.css"

    def __init__(
        self,
        predictions: Predictions,
        *,
        images: Path,
        bundle: Path,
        features: Path,
        thumbnails: Path,
        title: str,
        tested: str | None = None,
        white_level: int = FULL_RANGE,
        stale: str = "",
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        """
        Args:
            images: the data set's folder.
            bundle: the classifier's folder, for evidence; opened when first needed.
            features: the embedding store, for the most similar training images; read when first needed.
            thumbnails: the file that stores them.
            title: the classifier and its accuracy.
            tested: the state of the annotations at the evaluation.
            white_level: of the classifier.
            stale: why the evaluation does not match the present data and parameters; empty if it does.
            max_pixels: larger images are not shown.
        """
        super().__init__(images, thumbnails, white_level=white_level, max_pixels=max_pixels)
        self._predictions = predictions
        self._bundle, self._store = bundle, features
        self._title, self._tested, self._stale = title, tested, stale
        self._annotations = Annotations(images)
        self._moved = self._annotations.moves_since(tested)  # path at the evaluation → present path
        self._row = np.arange(len(predictions.paths))
        self._matrix = _confusion_matrix(predictions)
        self._computing = threading.Lock()
        self._filter: dict[str, Any] = {}
        self._threshold: Message | None = None
        self._said = ""
        self._apply_filter(right=False if self._matrix.sum() > np.trace(self._matrix) else None)
        self._sweep_threshold(0)
        self.show()

    @classmethod
    def of(cls, layout: Layout) -> "ResultsViewer":
        """A viewer of the evaluation of the classifier of these parameters.

        Raises:
            MissingInput: script 5 has not evaluated it.
        """
        evaluated = layout.evaluation.read()
        try:
            layout.evaluation.check()
            stale = ""
        except (StaleInput, MissingInput) as error:
            stale = str(error)
        metrics = read_json(layout.evaluation.folder / "metrics.json")
        return cls(
            read_predictions(layout.evaluation.folder / "predictions.csv"),
            images=layout.images,
            bundle=layout.bundle.folder,
            features=layout.features.folder,
            thumbnails=layout.thumbnails,
            max_pixels=layout.max_pixels,
            title=f"{layout.dataset}, {layout.classifier}: {metrics['overall_accuracy']:.1%} of "
            f"{metrics['number_of_test_images']:,} test images right",
            tested=evaluated.get("annotations"),
            white_level=ResizeRule.from_json(layout.bundle.read()["resize"]).white_level,
            stale=stale,
        )

    def actions(self) -> dict[str, Callable[..., None]]:
        return {
            **super().actions(),
            "filter": self._apply_filter,
            "threshold": self._sweep_threshold,
            "evidence": self._show_evidence,
            "relabel": self._relabel,
            "undo": lambda: self._take_over(self._annotations.undo(), "undone"),
        }

    # What the front end shows

    def path(self, image: int) -> str:
        path = self._predictions.paths[image]
        return self._moved.get(path, path)

    def item(self, image: int) -> Message:
        of = self._predictions
        predicted = int(of.predictions[image])
        return {
            "name": displayed(of.paths[image]),
            "label": of.names[of.labels[image]],
            "predicted": of.names[predicted],
            "probability": float(of.probabilities[image, predicted]),
            "isRight": predicted == int(of.labels[image]),
            "now": self._annotations.folders.label(self.path(image)) if self.path(image) != of.paths[image] else None,
        }

    def facts(self, image: int) -> tuple[Message, list[bytes]]:
        of = self._predictions
        p = of.probabilities[image]
        wanted = {int(of.labels[image]), int(of.predictions[image])}
        others = [i for i in np.argsort(-p, kind="stable").tolist() if i not in wanted]
        kept = sorted([*wanted, *others[: _BARS - len(wanted)]], key=lambda i: (-p[i], i))
        facts = {
            "file": displayed(of.paths[image]),
            "loss": f"{self._loss[image]:.2f}",
            "margin": f"{100 * self._margin[image]:.1f} points",
        }
        if of.unknown is not None:
            facts["unknown"] = "yes" if of.unknown[image] else "no"
        if of.asked is not None:
            facts["ask"] = "a person" if of.asked[image] else "no"
        if of.sets is not None:
            facts["likely"] = of.sets[image].replace("|", ", ")
        if self.path(image) != of.paths[image]:
            facts["is now"] = displayed(self.path(image))
        bars = [
            {
                "label": of.names[i],
                "probability": float(p[i]),
                "isTrue": i == int(of.labels[image]),
                "isPredicted": i == int(of.predictions[image]),
            }
            for i in kept
        ]
        alike, pictures = [], []
        for path, label in self._alike(image):
            try:
                pictures.append(self._thumbnails.get(self._moved.get(path, path)))
                alike.append({"name": displayed(path), "label": label})
            except ImageError:
                continue  # the image has been removed
        return {"facts": facts, "bars": bars, "others": len(of.names) - len(bars), "alike": alike}, pictures

    def summary(self) -> Message:
        return {
            "title": self._title,
            "names": self._predictions.names,
            "matrix": self._matrix.tolist(),
            "images": len(self._predictions.paths),
            "filter": self._filter,
            "trust": [
                kind
                for kind, known in (
                    ("unknown", self._predictions.unknown),
                    ("ambiguous", self._predictions.sets),
                    ("ask", self._predictions.asked),
                )
                if known is not None
            ],
            "threshold": self._threshold,
            "stale": self._stale,
            "said": self._said,
            "canUndo": self._annotations.can_undo,
            "isStale": self._annotations.state != self._tested,
        }

    # Actions

    def _apply_filter(
        self,
        *,
        truth: int | None = None,
        predicted: int | None = None,
        right: bool | None = None,
        trust: Trusted | None = None,
        name: str = "",
        order: Order = "loss",
        at: Mapping[str, Any] | None = None,
    ) -> None:
        """Show the images of a row, column or cell of the confusion matrix, right or wrong, in an order.

        Args:
            trust: the unknown ones, those with several likely labels, or those about which a person would be asked.
            at: {"kind": "missed" or "false alarm", "label": number, "threshold": fraction}: the mistakes of this
                decision.
        """
        self._filter = {
            "truth": truth,
            "predicted": predicted,
            "right": right,
            "trust": trust,
            "name": str(name),
            "order": order,
            "at": at and dict(at),
        }
        kept = self._matches(truth=truth, predicted=predicted, right=right, name=str(name), at=at)
        of = self._predictions
        if trust in ("unknown", "ask"):
            chosen = of.unknown if trust == "unknown" else of.asked
            kept &= np.zeros(len(kept), bool) if chosen is None else chosen
        elif trust == "ambiguous":
            kept &= np.array(["|" in likely for likely in of.sets or [""] * len(kept)])
        confidence = of.probabilities[self._row, of.predictions]
        key: Mapping[Order, npt.NDArray[Any]] = {
            "loss": -self._loss,
            "margin": self._margin,
            "most confident": -confidence,
            "least confident": confidence,
            "name": self._row,
        }
        self._show_matching([int(i) for i in np.argsort(key[order], kind="stable") if kept[i]])

    def _matches(
        self, *, truth: int | None, predicted: int | None, right: bool | None, name: str, at: Mapping[str, Any] | None
    ) -> npt.NDArray[np.bool_]:
        """Which images match a filter, bool [N]; see `_apply_filter`."""
        of = self._predictions
        kept = np.ones(len(self._row), bool)
        if truth is not None:
            kept &= of.labels == truth
        if predicted is not None:
            kept &= of.predictions == predicted
        if right is not None:
            kept &= (of.labels == of.predictions) == right
        if at:
            is_of_class = of.labels == at["label"]
            says_so = of.probabilities[:, at["label"]] >= at["threshold"]
            kept &= is_of_class & ~says_so if at["kind"] == "missed" else ~is_of_class & says_so
        if wanted := nfc(name).casefold():
            kept &= np.array([wanted in nfc(path).casefold() for path in of.paths], bool)
        return kept

    def _sweep_threshold(self, label: int) -> None:
        """Count the true and false positives of a class for every threshold on its probability."""
        p, is_of_class = self._predictions.probabilities[:, label].astype(np.float64), self._predictions.labels == label
        steps = np.arange(_STEPS + 1) / _STEPS

        def at_least(values: Float64) -> list[int]:
            counts: list[int] = (len(values) - np.searchsorted(np.sort(values), steps - 1e-9)).tolist()
            return counts

        self._threshold = {
            "label": label,
            "truePositives": at_least(p[is_of_class]),
            "falsePositives": at_least(p[~is_of_class]),
            "positives": int(is_of_class.sum()),
        }

    def _relabel(self, image: int, label: int) -> None:
        """Correct the label of an image (see `data.annotations`)."""
        if label not in range(len(self._predictions.names)):
            raise IndexError(label)
        name = self._predictions.names[label]
        self._take_over(self._annotations.relabel([self.path(image)], name), name)

    def _take_over(self, outcome: StepResult, what: str) -> None:
        """Update the paths after a step of the annotations, and report it."""
        self._moved = self._annotations.moves_since(self._tested)
        self._said = "; ".join(f"{displayed(change.after.path)}: {what}" for change in outcome.changes[:1])
        self._problem = " ".join(outcome.problems[:3])

    def _show_evidence(self, image: int, label: int) -> None:
        self._in_background(self._send_evidence, image, label)

    def _send_evidence(self, image: int, label: int) -> None:
        with self._computing:
            if image != self._large_image:
                return
            message: Message = {"evidence": image, "label": label, "method": "", "problem": ""}
            try:
                pixels = self._pixels(image)
                found = heatmap(self._classifier, pixels, self._predictions.names[label])
            except PipelineError as error:
                self.send({**message, "problem": str(error)}, [b""])
                return
        file = io.BytesIO()
        Image.fromarray(paint(found, (0.0, 0.0, 1.0, 1.0), side=_EVIDENCE)).save(file, "PNG")
        self.send({**message, "method": found.method}, [file.getvalue()])

    # Slow to load or compute, so only when first needed

    @cached_property
    def _classifier(self) -> Classifier:
        return Classifier(self._bundle)

    @cached_property
    def _embeddings(self) -> tuple[Float32, list[tuple[str, str]], Float32, dict[str, int]]:
        """Embeddings of the training images, their paths and labels; embeddings of the test images, path → row."""
        features = read_features(self._store)
        is_training = np.array(features.split) == "train"
        training, test = np.flatnonzero(is_training).tolist(), np.flatnonzero(~is_training).tolist()
        named = [(features.path[i], features.label[i]) for i in training]
        rows = {features.path[i]: row for row, i in enumerate(test)}
        return features.embedding[training], named, features.embedding[test], rows

    def _alike(self, image: int) -> Sequence[tuple[str, str]]:
        """Path and label of the training images most similar to a test image in the network's embedding."""
        try:
            with self._computing:
                training, named, test, rows = self._embeddings
        except PipelineError:
            return []  # the embedding store has been removed
        row = rows.get(self._predictions.paths[image])
        if row is None or not named:
            return []
        return [named[i] for i in nearest(training, test[[row]], count=_ALIKE)[0][0]]

    @cached_property
    def _loss(self) -> Float32:
        """−log of the true class's probability, float32 [N]."""
        p = self._predictions.probabilities[self._row, self._predictions.labels]
        loss: Float32 = -np.log(np.maximum(p, 1e-6))  # predictions.csv has six digits
        return loss

    @cached_property
    def _margin(self) -> Float32:
        """The highest probability minus the second, float32 [N]."""
        second, first = np.sort(self._predictions.probabilities, axis=1)[:, -2:].T
        margin: Float32 = first - second
        return margin


def _confusion_matrix(predictions: Predictions) -> npt.NDArray[np.int64]:
    """The number of images by true class (rows) and predicted class (columns), int64 [K, K]."""
    matrix = np.zeros((len(predictions.names),) * 2, np.int64)
    np.add.at(matrix, (predictions.labels, predictions.predictions), 1)
    return matrix
