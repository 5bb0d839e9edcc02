"""Runs an ONNX network over a stream of images on the CPU, as fast as possible (OpenVINO; no PyTorch).

Each thread takes an image all the way from file to embedding: it loads the image, then runs the network on it in an
OpenVINO stream of one core. There is one stream and there are two threads per core, so that one loads an image while
the other computes; both release the GIL, and the image is still in the cache when the network reads it. Batches gain
nothing: a CPU computes single images as fast as several (and faster than 8, whose activations outgrow the cache), and
the fixed shape saves about 10%. It also makes an image's result independent, to the bit, of the other images.
"""

import sys
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal, TypeVar

import numpy as np

from libraries.base.arrays import Float32, Pixels
from libraries.base.errors import ImageError, NetworkError
from libraries.base.pool import ordered_map, usable_cores

T = TypeVar("T")

Outputs = dict[str, Float32]
Precision = Literal["f32", "bf16"]
THREADS_PER_CORE = 2
AHEAD_PER_CORE = 32  # keeps the threads busy while the consumer writes a part of the feature store


def checked_load(load: Callable[[T], Pixels], item: T, size: int) -> Pixels:
    """The image of `item`, uint8 [size, size, 3], C-contiguous; raises ValueError if `load` returns anything else."""
    image = load(item)
    if image.shape != (size, size, 3) or image.dtype != np.uint8:
        raise ValueError(f"{item}: the network takes uint8 [{size}, {size}, 3], got {image.dtype} {list(image.shape)}")
    return np.ascontiguousarray(image)


def load_or_error(load: Callable[[T], Pixels], item: T, size: int) -> Pixels | ImageError:
    """The image of `item` as from `checked_load`, or its ImageError."""
    try:
        return checked_load(load, item, size)
    except ImageError as error:
        return error


class Engine:
    """A network compiled for this machine's cores.

    Attributes:
        size: S, the side of the images it takes.
        cores, threads: how many it computes on, and how many load images.
        output_shapes: of one image, by name, e.g. {"embedding": (1280,)}.
        left_out: the file's other outputs.
        precision: used for computing; f32 if bf16 was requested and the processor has no bf16.
    """

    def __init__(
        self,
        onnx_path: str | Path,
        *,
        outputs: Collection[str] | None = None,
        precision: Precision = "f32",
        cores: int | None = None,
    ) -> None:
        """Read and compile `onnx_path`: input `images` uint8 [N, S, S, 3], outputs float32 [N, ...] by name.

        Args:
            outputs: those to compute, the others cost nothing; by default all that are a row of numbers per image.
            precision: f32 is true float32 on every processor; bf16 halves the time if the processor has it.
            cores: how many to use; by default all that this process may use.

        Raises:
            NetworkError: the file is missing or damaged, has another input, or lacks one of `outputs`.
        """
        self.cores = cores or usable_cores()
        self.threads = THREADS_PER_CORE * self.cores
        model = _read(Path(onnx_path))
        self.left_out = _keep(model, outputs)
        compiled = _compile(model, precision=precision, streams=self.cores)
        self.size: int = compiled.input(0).shape[1]
        # Not the names in `compiled`: if OpenVINO removes an operation, an output has several names there.
        names = [output.any_name for output in model.outputs]
        self.output_shapes: dict[str, tuple[int, ...]] = {
            name: tuple(output.shape)[1:] for name, output in zip(names, compiled.outputs, strict=True)
        }
        self.precision: Precision = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        self._requests: SimpleQueue[_Request] = SimpleQueue()
        for _ in range(self.cores):
            self._requests.put(_request(compiled, names))

    def stream(self, items: Iterable[T], load: Callable[[T], Pixels]) -> Generator[tuple[T, Outputs | ImageError]]:
        """Yield, in order, each item with its outputs, each float32 of its `output_shapes`, or with its ImageError.

        Args:
            items: consumed when needed, by the thread that iterates.
            load: item → uint8 [S, S, 3]; called in threads. An ImageError is the item's result; other errors are
                raised.
        """

        def work(item: T) -> Outputs | ImageError:
            image = load_or_error(load, item, self.size)
            return image if isinstance(image, ImageError) else self.infer(image)

        return ordered_map(work, items, workers=self.threads, ahead=AHEAD_PER_CORE * self.cores)

    def run(self, images: Pixels) -> Outputs:
        """The outputs, each float32 [N, *output_shapes], of images uint8 [N, S, S, 3]; N may be 0."""
        if images.ndim != 4 or images.shape[1:] != (self.size, self.size, 3) or images.dtype != np.uint8:
            expected = f"uint8 [N, {self.size}, {self.size}, 3]"
            raise ValueError(f"the network takes {expected}, got {images.dtype} {list(images.shape)}")
        results = {name: np.empty((len(images), *shape), np.float32) for name, shape in self.output_shapes.items()}
        for row, outputs in self.stream(range(len(images)), lambda i: images[i]):
            assert isinstance(outputs, dict)  # this load raises no ImageError
            for name, values in outputs.items():
                results[name][row] = values
        return results

    def infer(self, image: Pixels) -> Outputs:
        """The outputs of one image uint8 [S, S, 3], each float32 of its `output_shapes`.

        Any number of threads may call it; each computes on one core, and those beyond `cores` wait for their turn.

        Raises:
            ValueError: `image` is not uint8 [S, S, 3].
        """
        if image.shape != (self.size, self.size, 3) or image.dtype != np.uint8:
            expected = f"uint8 [{self.size}, {self.size}, 3]"
            raise ValueError(f"the network takes {expected}, got {image.dtype} {list(image.shape)}")
        request = self._requests.get()
        try:
            return request.run(image)
        finally:
            self._requests.put(request)


@dataclass(frozen=True)
class _Request:
    """An OpenVINO InferRequest that reads and writes these arrays: uint8 [1, S, S, 3], each output float32 [1, ...].

    They are bound once, by the thread that creates the engine. Passing an array to each inference takes longer and, in
    OpenVINO 2026.4, can deadlock if two threads first do so at the same time: one holds the lock of a C++ static and
    waits for the GIL, the other holds the GIL and waits for the static.
    """

    request: Any
    image: Pixels
    outputs: Outputs

    def run(self, image: Pixels) -> Outputs:
        self.image[0] = image
        self.request.start_async()
        self.request.wait()  # without the GIL, like `infer`
        return {name: values[0].copy() for name, values in self.outputs.items()}


def load_openvino() -> Any:
    """The package openvino without its telemetry, which reports every import to Google Analytics and writes to HOME."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: importing it fails
    import openvino

    return openvino


def open_part(
    onnx_path: Path, *, start: str, outputs: Sequence[str], precision: Precision = "f32"
) -> Callable[[Float32], Outputs]:
    """The part of a network behind one of its outputs: values of `start` float32 [N, D] → `outputs` float32 [N, K].

    Raises:
        NetworkError: the file is missing or damaged.
    """
    openvino = load_openvino()
    model = _read(onnx_path)
    source = model.output(start).get_node().input(0).get_source_output()
    values = openvino.opset13.parameter([-1, source.get_partial_shape()[1].get_length()], np.float32)
    for target in source.get_target_inputs():
        if target.get_node().get_type_name() != "Result":
            target.replace_source_output(values.output(0))
    part = openvino.Model([model.output(name).get_node() for name in outputs], [values])
    compiled = openvino.Core().compile_model(part, "CPU", {"INFERENCE_PRECISION_HINT": precision})

    def run(given: Float32) -> Outputs:
        results = compiled(np.ascontiguousarray(given, np.float32))
        return {name: results[i].copy() for i, name in enumerate(outputs)}

    return run


def supported(precision: Precision) -> Precision:
    """The precision that an `Engine` really computes with: f32 instead of bf16 if the processor has no bf16."""
    if precision == "f32":
        return precision
    openvino = load_openvino()
    return "bf16" if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"


def _request(compiled: Any, names: list[str]) -> _Request:
    openvino = load_openvino()

    request = compiled.create_infer_request()
    image = np.zeros(tuple(compiled.input(0).shape), np.uint8)
    request.set_input_tensor(openvino.Tensor(image, shared_memory=True))
    outputs: Outputs = {}
    for index, (name, output) in enumerate(zip(names, compiled.outputs, strict=True)):
        outputs[name] = np.zeros(tuple(output.shape), np.float32)
        request.set_output_tensor(index, openvino.Tensor(outputs[name], shared_memory=True))
    return _Request(request, image, outputs)


def _read(path: Path) -> Any:
    """The network at `path` as an OpenVINO Model for one image at a time, uint8 [1, S, S, 3]."""
    openvino = load_openvino()

    if not path.is_file():
        raise NetworkError(f"{path} does not exist: a network as an ONNX file is needed there")
    try:
        model = openvino.Core().read_model(path)
    except RuntimeError as error:
        raise NetworkError(f"{path} is not a readable ONNX file: write or copy it again") from error
    inputs = [(i.get_element_type().get_type_name(), [d.to_string() for d in i.partial_shape]) for i in model.inputs]
    if len(inputs) != 1 or inputs[0][0] != "u8" or inputs[0][1][1:] != [inputs[0][1][1], inputs[0][1][1], "3"]:
        raise NetworkError(f"{path} has the inputs {inputs}: one is needed, uint8 [N, S, S, 3]")
    model.reshape([1, *model.input(0).partial_shape[1:]])
    return model


def _keep(model: Any, outputs: Collection[str] | None) -> frozenset[str]:
    """Remove all other outputs from the model, by default all but rows of numbers; returns the removed ones."""
    offered = {output.any_name: output for output in model.outputs}
    if outputs is None:
        outputs = [name for name, output in offered.items() if len(output.partial_shape) == 2]
    if missing := sorted(set(outputs) - set(offered)):
        raise NetworkError(f"the network has the outputs {', '.join(sorted(offered))}, but not {', '.join(missing)}")
    left_out = frozenset(offered) - set(outputs)
    for name in left_out:
        model.remove_result(offered[name].get_node())
    return left_out


def _compile(model: Any, *, precision: Precision, streams: int) -> Any:
    """The model as an OpenVINO CompiledModel that computes `streams` images at once."""
    openvino = load_openvino()

    settings = {
        "INFERENCE_PRECISION_HINT": precision,  # by default OpenVINO uses bf16 if the processor has AMX
        "PERFORMANCE_HINT": "THROUGHPUT",
        "NUM_STREAMS": streams,
        "INFERENCE_NUM_THREADS": streams,
        "ENABLE_CPU_PINNING": False,  # else the workers of a machine, each with one thread, all take the same core
    }
    return openvino.Core().compile_model(model, "CPU", settings)
