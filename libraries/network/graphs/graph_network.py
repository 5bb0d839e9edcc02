"""A network that is a graph in a file, adapted to the pipeline: uint8 images in, embeddings out."""

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import onnx
import onnx.utils
from onnx import TensorProto, helper, numpy_helper

from libraries.base.arrays import Pixels
from libraries.base.errors import NetworkError
from libraries.base.storage import atomic_path
from libraries.data.images import Interpolation
from libraries.network.engine import Engine, Outputs, load_openvino
from libraries.network.graphs.penultimate import PREFIX, LastLayer, feature_map

ONNX, WEIGHTS, MANIFEST = "model.onnx", "weights.safetensors", "model.json"  # files of a network folder
IMAGES, EMBEDDING, SCORES, FEATURES = "images", "embedding", "scores", "features"
CAST = f"{IMAGES}_float"
FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)


@dataclass(frozen=True)
class Preprocessing:
    """The normalisation of pixel values from 0 to 255: (value - mean) / std.

    Attributes:
        order: of the network's input channels.
        mean, std: per channel, in that order.
    """

    order: Literal["rgb", "bgr"] = "rgb"
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)  # ImageNet's, as in torchvision
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)

    def as_rgb(self, values: Sequence[float]) -> tuple[float, ...]:
        """Values per channel in the order red, green, blue."""
        return tuple(values) if self.order == "rgb" else tuple(values)[::-1]


@dataclass(frozen=True)
class GraphNetwork:
    """An ONNX network with the input `images` uint8 [N, S, S, 3] and the output `embedding` float32 [N, D].

    With a head it also outputs `scores` float32 [N, K] and, if the embedding is the mean over a map, that map as
    `features` float32 [N, D, h, w].

    Attributes:
        model: the onnx.ModelProto.
        architecture: the name of the file it came from, or timm's name.
        classes: K; None without a head.
        mean, std: of red, green and blue from 0 to 1, as in an EmbeddingNetwork.
        views, maps: as in an EmbeddingNetwork.
        weights: the state dict of the same EmbeddingNetwork; empty where there is none.
    """

    model: Any
    architecture: str
    input_size: int
    embedding_size: int
    classes: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: Interpolation = "bilinear"
    views: int = 1
    maps: int = 1
    weights: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write the ONNX file, after OpenVINO has run it once.

        Raises:
            NetworkError: OpenVINO cannot run it, or its embeddings are not finite.
            StorageError: the file cannot be written.
        """
        images = np.random.default_rng(0).integers(0, 256, (1, self.input_size, self.input_size, 3), np.uint8)
        if not np.isfinite(self.run(images)[EMBEDDING]).all():
            raise NetworkError(f"{self.architecture} computes embeddings that are not finite: choose another network")
        with atomic_path(path) as temporary:
            onnx.save(self.model, temporary)

    def run(self, images: Pixels) -> Outputs:
        """The outputs, each float32 [N, …], of images uint8 [N, S, S, 3]; raises NetworkError as `engine`."""
        return self.engine().run(images)

    def engine(self) -> Engine:
        """The network, ready to run.

        Raises:
            NetworkError: OpenVINO cannot run it.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            onnx.save(self.model, path)
            try:
                return Engine(path)
            except RuntimeError as error:
                raise NetworkError(f"{self.architecture} cannot be run: {_reason(error)}") from error


class Network(Protocol):
    """What a GraphNetwork and an EmbeddingNetwork have in common."""

    @property
    def architecture(self) -> str: ...
    @property
    def input_size(self) -> int: ...
    @property
    def embedding_size(self) -> int: ...
    @property
    def classes(self) -> int | None: ...
    @property
    def views(self) -> int: ...
    @property
    def maps(self) -> int: ...
    @property
    def mean(self) -> tuple[float, ...]: ...
    @property
    def std(self) -> tuple[float, ...]: ...
    @property
    def interpolation(self) -> Interpolation: ...


def network_facts(network: Network) -> dict[str, Any]:
    """The facts about a network for model.json, of either kind of network."""
    return {
        "architecture": network.architecture,
        "input_size": network.input_size,
        "embedding_size": network.embedding_size,
        "classes": network.classes,
        "views": network.views,
        "maps": network.maps,
        "mean": list(network.mean),
        "std": list(network.std),
        "interpolation": network.interpolation,
    }


def assemble(
    model: Any,
    *,
    name: str,
    size: int,
    last: LastLayer,
    preprocessing: Preprocessing,
    fill: tuple[float, ...],
    with_head: bool,
) -> GraphNetwork:
    """Add the normalisation before a network, and the pipeline's outputs after its last layer.

    Args:
        model: an onnx.ModelProto with one input: images of three channels, first or last. It is changed.
        name: for messages, and as the architecture.
        size: side S of the images [pixels].
        last: where the network ends.
        fill: red, green, blue [0 to 255] for padding an image.
        with_head: whether to output the scores of the last layer, too.

    Raises:
        NetworkError: the pipeline cannot use the input or the embedding.
    """
    if with_head and last.layer is None:
        raise NetworkError(f"{name} does not end in a linear layer, so its own classes cannot be used")
    graph = model.graph
    _prepend(model, size=size, preprocessing=preprocessing)
    features = last.embedding if last.is_map else feature_map(model, last.embedding)
    known = filter(None, (last.embedding, features, last.scores if with_head else None))
    shapes = _shapes(model, list(known), size=size)
    del graph.output[:]
    flat, shape = last.embedding, shapes[last.embedding]
    if len(shape) == 4 and math.prod(shape[2:]) > 1:
        features, shape = flat, (*shape[:2], 1, 1)
        flat = _node(graph, "GlobalAveragePool", [flat], f"{EMBEDDING}_pooled")
    if len(shape) < 2 or shape[0] != 1:
        raise NetworkError(f"{name}: its embedding would be {list(shape)}, not a row of numbers per image")
    width = _give_rows(graph, flat, EMBEDDING, math.prod(shape[1:]))
    classes = _head(graph, last, shapes, shape) if with_head else None
    if features and len(shapes[features]) == 4 and shapes[features][1] == width:
        _node(graph, "Identity", [_as_float(graph, features)], FEATURES)
        _output(graph, FEATURES, *shapes[features][1:])
    _sort(graph)
    return GraphNetwork(
        onnx.utils.Extractor(model).extract_model([IMAGES], [output.name for output in graph.output]),
        architecture=name,
        input_size=size,
        embedding_size=width,
        classes=classes,
        mean=tuple(level / 255 for level in fill),
        std=tuple(value / 255 for value in preprocessing.as_rgb(preprocessing.std)),
    )


def image_input(model: Any) -> Any:
    """The single input of a network, as ONNX describes it.

    Raises:
        NetworkError: there is not exactly one input.
    """
    known = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in known]
    if len(inputs) != 1:
        names = ", ".join(value.name.removeprefix(PREFIX) for value in inputs)
        raise NetworkError(f"its inputs are {names or 'missing'}: one is needed, images")
    return inputs[0]


def _prepend(model: Any, *, size: int, preprocessing: Preprocessing) -> None:
    """Make `images` uint8 [N, S, S, 3] the network's input."""
    graph, old = model.graph, image_input(model)
    kind = old.type.tensor_type
    sizes = [dim.dim_value for dim in kind.shape.dim]  # 0 if variable
    if len(sizes) != 4 or 3 not in (sizes[1], sizes[3]) or kind.elem_type not in FLOATS:
        raise NetworkError(
            f"its input {old.name.removeprefix(PREFIX)} is {sizes}: images of three channels, as floats, are needed"
        )
    first = sizes[1] == 3
    fixed = sizes[2:] if first else sizes[1:3]
    if any(length not in (0, size) for length in fixed):
        raise NetworkError(f"it works at {fixed[0]} x {fixed[1]} pixels only: set rf_inputResolution to that")
    if sizes[0] > 1:
        raise NetworkError(f"its batch size is fixed at {sizes[0]}: export it for 1 image, or for any number")
    graph.input.remove(old)
    graph.input.append(helper.make_tensor_value_info(IMAGES, TensorProto.UINT8, [sizes[0] or None, size, size, 3]))
    x = _node(graph, "Cast", [IMAGES], CAST, to=kind.elem_type)
    if preprocessing.order == "bgr":
        graph.initializer.append(numpy_helper.from_array(np.array([2, 1, 0]), f"{IMAGES}_order"))
        x = _node(graph, "Gather", [x, f"{IMAGES}_order"], f"{IMAGES}_bgr", axis=3)
    dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
    for step, values, neutral in (("Sub", preprocessing.mean, 0.0), ("Div", preprocessing.std, 1.0)):
        if any(value != neutral for value in values):
            constant = f"{IMAGES}_{step.lower()}"
            graph.initializer.append(numpy_helper.from_array(np.array(values, dtype), constant))
            x = _node(graph, step, [x, constant], f"{constant}_result")
    if first:
        _node(graph, "Transpose", [x], old.name, perm=[0, 3, 1, 2])
    else:
        _node(graph, "Identity", [x], old.name)
    _sort(graph)


def _shapes(model: Any, tensors: Sequence[str], *, size: int) -> dict[str, tuple[int, ...]]:
    """The shapes of tensors for one image, inferred by OpenVINO."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    names = list(dict.fromkeys(tensors))
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    try:
        network = load_openvino().Core().read_model(probe.SerializeToString(), b"")
        network.reshape([1, size, size, 3])
        return {name: tuple(output.shape) for name, output in zip(names, network.outputs, strict=True)}
    except RuntimeError as error:
        raise NetworkError(f"it cannot be run at {size} x {size} pixels: {_reason(error)}") from error


def _head(graph: Any, last: LastLayer, shapes: dict[str, tuple[int, ...]], shape: tuple[int, ...]) -> int:
    """Connect the last layer to `embedding` itself, and output its scores; returns the number of classes."""
    source = EMBEDDING
    if _kind(graph) != TensorProto.FLOAT:
        source = _node(graph, "Cast", [source], f"{SCORES}_cast", to=_kind(graph))
    if len(shape) != 2:
        source = _node(graph, "Reshape", [source, _sizes(graph, f"{SCORES}_shape", -1, *shape[1:])], f"{SCORES}_from")
    (layer,) = (node for node in graph.node if last.layer in node.output)
    layer.input[list(layer.input).index(last.embedding)] = source
    return _give_rows(graph, last.scores, SCORES, math.prod(shapes[last.scores][1:]))


def _give_rows(graph: Any, tensor: str, name: str, width: int) -> int:
    """Output a tensor as float32 [N, width] under this name; returns the width."""
    _node(graph, "Reshape", [_as_float(graph, tensor), _sizes(graph, f"{name}_rows", -1, width)], name)
    _output(graph, name, width)
    return width


def _sizes(graph: Any, name: str, *sizes: int) -> str:
    graph.initializer.append(numpy_helper.from_array(np.array(sizes), name))
    return name


def _kind(graph: Any) -> int:
    """ONNX's number of the dtype that the network computes in."""
    (cast,) = (node for node in graph.node if node.name == CAST)
    return int(cast.attribute[0].i)


def _as_float(graph: Any, tensor: str) -> str:
    """The tensor, cast to float32 if the network computes in another dtype."""
    if _kind(graph) == TensorProto.FLOAT:
        return tensor
    return _node(graph, "Cast", [tensor], f"{tensor}_as_float", to=TensorProto.FLOAT)


def _node(graph: Any, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
    graph.node.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
    return output


def _output(graph: Any, name: str, *shape: int) -> None:
    graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, *shape]))


def _sort(graph: Any) -> None:
    """Sort every node after those whose results it needs, as ONNX requires."""
    made = {tensor.name for tensor in graph.initializer} | {value.name for value in graph.input} | {""}
    waiting, ordered = list(graph.node), []
    while waiting:
        later = []
        for node in waiting:
            if made.issuperset(node.input):
                made.update(node.output)
                ordered.append(node)
            else:
                later.append(node)
        if len(later) == len(waiting):
            raise NetworkError("its nodes depend on each other in a loop")
        waiting = later
    del graph.node[:]
    graph.node.extend(ordered)


def _reason(error: Exception) -> str:
    """The last line of OpenVINO's message, which gives the reason."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__
