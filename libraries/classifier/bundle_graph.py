"""The network with its classifier and calibration as one ONNX graph.

Where the embedding is the mean over a map of features, the graph also gives `evidence` float32 [N, K, h, w]: the share
that each position has in the calibrated logits, which are the mean of it over the positions, exactly. It is the class
activation map (Zhou et al. 2016, 'Learning deep features for discriminative localization'), to which Grad-CAM reduces
for such networks, carried through the SVM's normalisation with the image's own factors (norm, square roots) held at
what they are. The biases are in it: an image that was one position all over would have, with the same factors, that
position's evidence as its logits.
"""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from libraries.base.arrays import Float32
from libraries.base.storage import atomic_path
from libraries.classifier.calibration import Calibration
from libraries.classifier.strangeness import Strangeness
from libraries.classifier.svm import LinearModel

IMAGES, FEATURES, EMBEDDING = "images", "features", "embedding"  # of the network
SCORES, PROBABILITIES, EVIDENCE, STRANGENESS = "scores", "probabilities", "evidence", "strangeness"
LOGITS = "calibration_logits"  # within the graph


def write_graph(
    network: Path,
    target: Path,
    *,
    calibration: Calibration,
    linear: LinearModel | None = None,
    strangeness: Strangeness | None = None,
) -> None:
    """Write the graph.

    Args:
        network: model.onnx of a network folder, with the outputs `embedding`, without `linear` also `scores`, and where
            the embedding is the mean over a map, that as `features`.
        target: where the graph goes, with the outputs `embedding`, `scores` and `probabilities`, and with `evidence`
            where the network has `features`.
        calibration: scores → probabilities.
        linear: the SVM, embedding → scores; None if the network has a head of its own.
        strangeness: embedding and logits → the output `strangeness`, [N, 1]; None: there is none.
    """
    import onnx
    import onnx.utils

    model = onnx.load(network)
    has_map = FEATURES in [output.name for output in model.graph.output]
    writer = Writer(model)
    if linear is not None:  # a refined network has a head of its own, which the SVM replaces
        kept = [EMBEDDING, FEATURES] if has_map else [EMBEDDING]
        writer = Writer(onnx.utils.Extractor(model).extract_model([IMAGES], kept))
        writer.svm(linear)
    writer.probabilities(calibration)
    if strangeness is not None:
        writer.strangeness(strangeness)
    if has_map:
        weights, bias = (linear.weights, linear.bias) if linear is not None else head(model)
        writer.evidence(weights, bias, calibration, linear)
    onnx.checker.check_model(writer.model)
    with atomic_path(target) as temporary:
        onnx.save(writer.model, temporary)


def head(model: Any) -> tuple[Float32, Float32]:
    """Weights [D, K] and bias [K] of a network's linear head, from its outputs for the unit vectors and zero."""
    import onnx.utils
    from onnx.reference import ReferenceEvaluator

    part = onnx.utils.Extractor(model).extract_model([EMBEDDING], [SCORES])
    size = part.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    run = ReferenceEvaluator(part).run
    bias = run([SCORES], {EMBEDDING: np.zeros((1, size), np.float32)})[0]
    return run([SCORES], {EMBEDDING: np.eye(size, dtype=np.float32)})[0] - bias, bias[0]


class Writer:
    """Adds nodes to the graph of a model."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def svm(self, linear: LinearModel) -> None:
        """embedding → scores."""
        x = EMBEDDING
        if linear.takes_root:
            x = self._node("Mul", [x, self._root_factor()], "svm_root")
        centred = self._node("Sub", [x, self._constant("svm_mean", linear.mean)], "svm_centred")
        x = self._node("Div", [centred, self._constant("svm_scale", linear.scale)], "svm_scaled")
        if linear.divides_by_norm:
            axis = self._constant("svm_axis", [1], np.int64)
            norm = self._node("ReduceL2", [x, axis], "svm_any_norm", keepdims=1)
            norm = self._node("Max", [norm, self._constant("svm_tiny_norm", 1e-12)], "svm_norm")
            x = self._node("Div", [x, norm], "svm_unit")
        product = self._node("MatMul", [x, self._constant("svm_weights", linear.weights)], "svm_product")
        self._node("Add", [product, self._constant("svm_bias", linear.bias)], SCORES)
        self._output(SCORES, len(linear.bias))

    def probabilities(self, calibration: Calibration) -> None:
        """scores → probabilities."""
        slope, bias = self._constant("calibration_slope", calibration.slope), calibration.bias
        sloped = self._node("Mul", [SCORES, slope], "calibration_sloped")
        logits = self._node("Add", [sloped, self._constant("calibration_bias", bias)], LOGITS)
        self._node("Softmax", [logits], PROBABILITIES, axis=1)
        self._output(PROBABILITIES, len(calibration.bias))

    def strangeness(self, model: Strangeness) -> None:
        """embedding and calibrated logits → strangeness, step by step as in `Strangeness.parts`."""
        numbers = itertools.count()

        def step(kind: str, *inputs: str, **attributes: Any) -> str:
            return self._node(kind, [*inputs], f"strange_{next(numbers)}", **attributes)

        def constant(value: npt.ArrayLike) -> str:
            return self._constant(f"strange_{next(numbers)}", value)

        axis = self._constant("strange_axis", [1], np.int64)
        root = step("Mul", step("Sign", EMBEDDING), step("Sqrt", step("Abs", EMBEDDING)))
        length = step("Max", step("ReduceL2", root, axis, keepdims=1), constant(1e-12))
        x = step("Sub", step("Div", root, length), constant(model.mean))
        inside = step("MatMul", x, constant(model.directions))
        of_classes = step("MatMul", inside, constant(model.within))
        products = step("MatMul", of_classes, constant(-2 * model.centres.T))
        distances = step("Add", products, constant(np.square(model.centres).sum(axis=1)))
        nearest = step("ReduceMin", distances, axis, keepdims=1)
        of_all = step("MatMul", step("Mul", inside, inside), constant(model.precision[:, None]))
        relative = step("Sub", step("Add", step("ReduceSumSquare", of_classes, axis, keepdims=1), nearest), of_all)
        explained = step("ReduceSumSquare", inside, axis, keepdims=1)
        outside = step("Sub", step("ReduceSumSquare", x, axis, keepdims=1), explained)
        residual = step("Sqrt", step("Max", outside, constant(0.0)))
        energy = step("Neg", step("ReduceLogSumExp", LOGITS, axis, keepdims=1))
        parts = step("Concat", energy, relative, residual, axis=1)
        scaled = step("MatMul", parts, constant(model.scale[:, None]))
        self._node("Add", [scaled, constant(model.shift)], STRANGENESS)
        self._output(STRANGENESS, 1)

    def evidence(
        self,
        weights: Float32,
        bias: Float32,
        calibration: Calibration,
        linear: LinearModel | None,
    ) -> None:
        """features → evidence: every position the whole way of the embedding, with the embedding's factors."""
        outputs = self.model.graph.output
        (features,) = (output for output in outputs if output.name == FEATURES)
        outputs.remove(features)
        *_, height, width = (size.dim_value for size in features.type.tensor_type.shape.dim)
        x = FEATURES
        if linear is not None:
            if linear.takes_root:
                x = self._node("Mul", [x, self._at_every_position("svm_root_factor")], "evidence_root")
            mean = self._constant("evidence_mean", linear.mean[:, None, None])
            centred = self._node("Sub", [x, mean], "evidence_centred")
            scale = self._constant("evidence_scale", linear.scale[:, None, None])
            x = self._node("Div", [centred, scale], "evidence_scaled")
            if linear.divides_by_norm:
                x = self._node("Div", [x, self._at_every_position("svm_norm")], "evidence_unit")
        kernel = calibration.slope * weights.T[:, :, None, None]  # [K, D, 1, 1]
        shift = calibration.slope * bias + calibration.bias  # [K]
        constants = [self._constant("evidence_weights", kernel), self._constant("evidence_bias", shift)]
        self._node("Conv", [x, *constants], EVIDENCE)
        self._output(EVIDENCE, len(shift), height, width)

    def _root_factor(self) -> str:
        """1 / sqrt(|x|) of the embedding [N, D], which makes the signed square root of it; 0 of 0."""
        absolute = self._node("Abs", [EMBEDDING], "svm_absolute")
        root = self._node("Sqrt", [absolute], "svm_absolute_root")
        tiny = self._constant("svm_tiny", 1e-30)
        return self._node("Div", [root, self._node("Max", [absolute, tiny], "svm_divisor")], "svm_root_factor")

    def _at_every_position(self, name: str) -> str:
        """[N, D] → [N, D, 1, 1]."""
        axes = self._constant(f"{name}_axes", [2, 3], np.int64)
        return self._node("Unsqueeze", [name, axes], f"{name}_at_every_position")

    def _constant(self, name: str, value: npt.ArrayLike, dtype: npt.DTypeLike = np.float32) -> str:
        from onnx import numpy_helper

        self.model.graph.initializer.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def _node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        from onnx import helper

        self.model.graph.node.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def _output(self, name: str, *shape: int) -> None:
        from onnx import TensorProto, helper

        self.model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, *shape]))
