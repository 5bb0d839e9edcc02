"""Small ONNX classifiers, of the kinds people have, for the tests of this folder."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

CHANNELS, CLASSES = 6, 4
WEIGHTS = {
    "kernel": np.random.default_rng(0).normal(size=(CHANNELS, 3, 3, 3)),
    "dense": np.random.default_rng(1).normal(size=(CHANNELS, CLASSES)),
    "bias": np.random.default_rng(2).normal(size=CLASSES),
}


def write(
    path: Path,
    *,
    end: str = "gemm",
    layout: str = "nchw",
    opset: int = 18,
    size: int | None = None,
    batch: int | None = None,
    kind: int = TensorProto.FLOAT,
    channels: int = 3,
    inputs: int = 1,
) -> Path:
    """A convolution, a ReLU and a last layer for 4 classes, as an ONNX file.

    Args:
        end: 'gemm' and 'matmul' (with softmax) behind a global pooling; 'conv', a convolution of the pooled map;
            'maps', as in SqueezeNet: a convolution to the classes, then the pooling; 'relu', 'twice': nothing linear;
            'mean': a ReduceMean instead of the pooling.
        size, batch: of the images, where they are not left open.
    """
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    nodes: list[Any] = []

    def node(operation: str, taken: list[str], given: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(operation, taken, [given], name=f"{given}_node", **attributes))
        return given

    x = "image" if layout == "nchw" else node("Transpose", ["image"], "first", perm=[0, 3, 1, 2])
    x = node("Relu", [node("Conv", [x, "kernel"], "convolved", strides=[2, 2])], "features")
    constants = {name: values.astype(dtype) for name, values in WEIGHTS.items()}
    if end == "maps":
        constants["classes"] = WEIGHTS["dense"].T[:, :, None, None].astype(dtype)
        x = node("Relu", [node("Conv", [node("Dropout", [x], "dropped"), "classes"], "maps")], "positive")
        x = node("Flatten", [node("GlobalAveragePool", [x], "pooled")], "flat")
        node("Softmax", [x], "scores", axis=1)
    elif end in ("relu", "twice"):
        x = node("Flatten", [node("GlobalMaxPool", [x], "pooled")], "flat")
        node("Relu", [x], "scores") if end == "relu" else node("Mul", [x, x], "scores")
    else:
        axes = {"axes": [2, 3]} if opset < 18 else {}
        if end == "mean" and opset >= 18:
            constants["axes"] = np.array([2, 3])
        means = {"mean": lambda: node("ReduceMean", ["features", "axes"][: 2 - bool(axes)], "pooled", **axes)}
        pooled = means.get(end, lambda: node("GlobalAveragePool", ["features"], "pooled"))()
        if end == "conv":
            constants["classes"] = WEIGHTS["dense"].T[:, :, None, None].astype(dtype)
            node("Flatten", [node("Conv", [pooled, "classes", "bias"], "maps")], "scores")
        else:
            flat = node("Flatten", [pooled], "flat")
            if end == "matmul":
                x = node("Add", [node("MatMul", [flat, "dense"], "product"), "bias"], "logits")
                node("Softmax", [x], "scores", axis=1)
            else:
                node("Gemm", [flat, "dense", "bias"], "scores")
    used = {name for made in nodes for name in made.input}
    shape = [batch or "batch", channels, size or "height", size or "width"]
    shape = shape if layout == "nchw" else [shape[0], *shape[2:], channels]
    given = [helper.make_tensor_value_info("image", kind, shape)]
    given += [helper.make_tensor_value_info(f"more{i}", kind, [1]) for i in range(1, inputs)]
    graph = helper.make_graph(
        nodes,
        "classifier",
        given,
        [helper.make_tensor_value_info("scores", kind, [batch or "batch", None])],
        [numpy_helper.from_array(values, name) for name, values in constants.items() if name in used],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, path)
    return path


def expected(
    images: NDArray[np.uint8], mean: tuple[float, ...], std: tuple[float, ...], order: str
) -> dict[str, NDArray[Any]]:
    """What the network computes of images uint8 [N, S, S, 3], by NumPy in float64."""
    pixels = images[..., ::-1] if order == "bgr" else images
    x = ((pixels - np.array(mean)) / np.array(std)).transpose(0, 3, 1, 2)
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))[:, :, ::2, ::2]
    features = np.maximum(np.einsum("nchwij,kcij->nkhw", windows, WEIGHTS["kernel"]), 0)
    embedding = features.mean((2, 3))
    return {
        "features": features,
        "embedding": embedding,
        "scores": embedding @ WEIGHTS["dense"] + WEIGHTS["bias"],
    }
