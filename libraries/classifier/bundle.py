"""The bundle: ONE folder that classifies an image anywhere, without PyTorch and without pickle.

model.onnx takes images as they are resized by the rule in model.json and gives embedding, scores and calibrated
probabilities; model.json has labels, resize rule, provenance, versions, metrics and the SHA-256 of every file.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from libraries.base.errors import ImageError, StorageError
from libraries.base.storage import Artefact, atomic_path, read_json, sha256, write_json
from libraries.classifier.calibration import Calibration
from libraries.classifier.svm import LinearModel
from libraries.data.images import ResizeRule, fit, load
from libraries.network.engine import Engine

MODEL, MANIFEST = "model.onnx", "model.json"
T = TypeVar("T")


def write_graph(network: Path, target: Path, *, calibration: Calibration, linear: LinearModel | None = None) -> None:
    """Write the network with its classifier and calibration as one ONNX graph.

    Args:
        network: model.onnx of a network folder, with the output `embedding` and, without `linear`, also `scores`.
        target: where the graph goes, with the outputs `embedding`, `scores` and `probabilities`.
        calibration: scores → probabilities.
        linear: the SVM, embedding → scores; None if the network has a head of its own.
    """
    import onnx
    import onnx.utils
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(network)
    if linear is not None:  # a refined network has a head of its own, which the SVM replaces
        model = onnx.utils.Extractor(model).extract_model(["images"], ["embedding"])
    graph = model.graph

    def constant(name: str, value: npt.ArrayLike) -> str:
        graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
        return name

    def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        graph.node.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    if linear is not None:
        x = "embedding"
        if linear.takes_root:
            root = node("Sqrt", [node("Abs", [x], "svm_absolute")], "svm_absolute_root")
            x = node("Mul", [node("Sign", [x], "svm_sign"), root], "svm_root")
        centred = node("Sub", [x, constant("svm_mean", linear.mean)], "svm_centred")
        x = node("Div", [centred, constant("svm_scale", linear.scale)], "svm_scaled")
        if linear.divides_by_norm:
            graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "svm_axis"))
            norm = node("ReduceL2", [x, "svm_axis"], "svm_norm", keepdims=1)
            x = node("Div", [x, node("Max", [norm, constant("svm_tiny", 1e-12)], "svm_norm_safe")], "svm_unit")
        product = node("MatMul", [x, constant("svm_weights", linear.weights)], "svm_product")
        node("Add", [product, constant("svm_bias", linear.bias)], "scores")
        graph.output.append(helper.make_tensor_value_info("scores", TensorProto.FLOAT, [None, len(linear.bias)]))
    sloped = node("Mul", ["scores", constant("calibration_slope", calibration.slope)], "calibration_sloped")
    logits = node("Add", [sloped, constant("calibration_bias", calibration.bias)], "calibration_logits")
    node("Softmax", [logits], "probabilities", axis=1)
    graph.output.append(
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, len(calibration.bias)])
    )
    onnx.checker.check_model(model)
    with atomic_path(target) as temporary:
        onnx.save(model, temporary)


def write_bundle(
    bundle: Artefact,
    network: Artefact,
    *,
    labels: Sequence[str],
    calibration: Calibration,
    linear: LinearModel | None = None,
    settings: Mapping[str, Any],
) -> None:
    """Write the bundle's folder from the network's: graph first, model.json last.

    Args:
        settings: all parameters of the run, for whoever wants to know; those that matter are in the recipe anyway.
    """
    bundle.begin()
    write_graph(network.folder / MODEL, bundle.folder / MODEL, calibration=calibration, linear=linear)
    described = network.read()
    kept = ("architecture", "input_size", "embedding_size", "mean", "std", "resize", "views")
    bundle.commit(
        [bundle.folder / MODEL],
        **{name: described[name] for name in kept},
        labels=list(labels),
        settings={name: value for name, value in settings.items() if name not in ("rootDir", "trackingUri")},
        versions={name: metadata.version(name) for name in ("numpy", "onnx", "openvino", "pillow")},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def write_refined(bundle: Artefact, network: Artefact, *, settings: Mapping[str, Any]) -> None:
    """Write the bundle of a refined network, which with its own head and calibration is a whole classifier."""
    facts = network.read()
    calibration = Calibration(facts["calibration"]["slope"], np.array(facts["calibration"]["bias"]))
    write_bundle(bundle, network, labels=facts["labels"], calibration=calibration, settings=settings)


def add_metrics(bundle: Artefact, metrics: Mapping[str, Any]) -> None:
    """Note in model.json how good the bundle is, as measured on the test images."""
    write_json(bundle.manifest, {**bundle.read(), "metrics": metrics})


@dataclass(frozen=True)
class Prediction:
    """What the classifier says of one image.

    Attributes:
        label: the most probable class.
        probabilities: float32 [K], calibrated, in the order of the classifier's labels.
        scores: float32 [K], before calibration.
        embedding: float32 [D].
    """

    label: str
    probabilities: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    embedding: npt.NDArray[np.float32]


class Classifier:
    """A bundle in use: images in, predictions out.

    Attributes:
        labels: the classes, in the order of scores and probabilities.
        rule: how an image becomes the network's input.
        model: everything model.json says.
    """

    def __init__(self, folder: Path, *, precision: Literal["f32", "bf16"] = "f32") -> None:
        """Load and verify a bundle.

        Raises:
            StorageError: model.json is missing or damaged, or a file is not the one it was written with.
        """
        self.model, self.labels, self.rule = _read_manifest(folder / MANIFEST)
        for name, expected in self.model["files"].items():
            if not (folder / name).exists() or sha256(folder / name) != expected:
                raise StorageError(
                    f"{folder / name} is not the file that {MANIFEST} describes: restore or rebuild the bundle"
                )
        self._engine = Engine(folder / MODEL, precision=precision)
        if self._engine.output_sizes.get("probabilities") != len(self.labels):
            raise StorageError(f"{folder} holds a network without its classifier: take a folder model_*/ instead")

    def predict(self, images: Sequence[npt.NDArray[np.uint8]]) -> list[Prediction]:
        """Classify upright RGB images, each uint8 [H, W, 3] of any size; no images give no predictions."""
        if len(images) == 0:
            return []
        fitted = np.stack([fit(image, self.rule) for image in images])  # [N, S, S, 3]
        outputs = self._engine.run(fitted)
        return [self._prediction({k: v[i] for k, v in outputs.items()}) for i in range(len(images))]

    def predict_files(self, paths: Iterable[Path]) -> Iterator[tuple[Path, Prediction | ImageError]]:
        """Classify image files, in order, decoding and inference in parallel; a bad file gives its error."""
        return self.predict_stream(paths, partial(load, rule=self.rule))

    def predict_stream(
        self, items: Iterable[T], load_item: Callable[[T], npt.NDArray[np.uint8]]
    ) -> Iterator[tuple[T, Prediction | ImageError]]:
        """Classify whatever `load_item` turns into a fitted image uint8 [S, S, 3]."""
        for item, result in self._engine.stream(items, load_item):
            yield item, result if isinstance(result, ImageError) else self._prediction(result)

    def _prediction(self, outputs: dict[str, npt.NDArray[np.float32]]) -> Prediction:
        probabilities = outputs["probabilities"]
        label = self.labels[int(np.argmax(probabilities))]
        return Prediction(label, probabilities, outputs["scores"], outputs["embedding"])


def _read_manifest(path: Path) -> tuple[dict[str, Any], list[str], ResizeRule]:
    """What a bundle's model.json says; its labels; its resize rule."""
    if not path.exists():
        raise StorageError(f"{path} does not exist: a bundle is a folder model_*/, which scripts/4_trainSVM.py writes")
    model = read_json(path)
    try:
        return {**model, "files": dict(model["files"])}, list(model["labels"]), ResizeRule.from_json(model["resize"])
    except (KeyError, TypeError, ValueError) as error:
        raise StorageError(f"{path} does not describe a whole bundle: restore or rebuild it") from error
