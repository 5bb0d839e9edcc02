"""The Open Inference Protocol, version 2, with its binary extension, as used by tritonclient and KServe.

https://github.com/kserve/open-inference-protocol. Send either `files`, BYTES [N], whole image files (in JSON as
base64), or `images`, UINT8 [N, H, W, 3], RGB pixels of any size. By default the outputs are `label` and
`probabilities`.

Anything else that a request asks for (Triton's classification, shared memory, sequences, priority, timeout) is refused
by name: a client that asks for the three best classes must not silently get something else.
"""

import json
import math
import re
import struct
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
from fastapi import FastAPI, Request
from starlette.responses import Response

from libraries.base.errors import ImageError
from libraries.classifier.bundle import Prediction
from libraries.service import answers
from libraries.service.base64_json import from_base64
from libraries.service.bodies import check_json, memory_to_parse_json
from libraries.service.model import LoadedModel
from libraries.service.multipart import Body
from libraries.service.problems import Problem, image_problem
from libraries.service.service import Image, Limits, Service

SERVER = {"name": "image-classification", "version": "1", "extensions": ["binary_tensor_data"]}
HEADER_LENGTH = "Inference-Header-Content-Length"
EXAMPLE = {"inputs": [{"name": "files", "datatype": "BYTES", "shape": [1], "data": ["iVBORw0KGgo..."]}]}
OUTPUTS = ("label", "probabilities", "scores", "embedding", "unknown", "set", "ask")
_DATATYPES = {"label": "BYTES", "unknown": "BOOL", "set": "BOOL", "ask": "BOOL"}  # of outputs; of all others FP32
DEFAULT_OUTPUTS = ("label", "probabilities")
_MOST_VALUES = 2**21  # in JSON: enough for the pixels of an image of 0.7 megapixels
_MOST_KEYS = 10_000

_BINARY = {"type": "string", "format": "binary"}
_INFER_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"type": "object"}, "example": EXAMPLE},
            "application/octet-stream": {"schema": _BINARY},
        },
    }
}
_MODEL_PROBLEMS = answers.problems(401, 404, 429, 503)
_INFER_RESPONSES = {
    **answers.content("application/octet-stream", _BINARY),
    **answers.problems(400, 401, 404, 408, 413, 415, 422, 429, 503, 504),
}

_FindModel = Callable[[str, str | None], LoadedModel]


def describe_model(loaded: LoadedModel) -> dict[str, Any]:
    """The model's metadata: its inputs, of which a request has one, and its outputs."""
    return {
        "name": loaded.name,
        "versions": [loaded.version],
        "platform": "onnx",
        "inputs": [
            {"name": "files", "datatype": "BYTES", "shape": [-1]},
            {"name": "images", "datatype": "UINT8", "shape": [-1, -1, -1, 3]},
        ],
        "outputs": [
            {"name": name, "datatype": _DATATYPES.get(name, "FP32"), "shape": [-1, *size]}
            for name, size in _output_sizes(loaded).items()
        ],
    }


def _output_sizes(loaded: LoadedModel) -> dict[str, list[int]]:
    classifier = loaded.classifier
    classes, embedding = len(classifier.labels), classifier.model["embedding_size"]
    sizes = dict(zip(OUTPUTS, ([], [classes], [classes], [embedding], [], [classes], []), strict=True))
    has = {
        "unknown": classifier.decision.unknown_above is not None,
        "set": classifier.decision.set_above is not None,
        "ask": classifier.decision.can_ask,
    }
    return {name: size for name, size in sizes.items() if has.get(name, True)}


# Requests


@dataclass(frozen=True)
class InferenceRequest:
    """A parsed request.

    Attributes:
        images: to classify.
        outputs: that are wanted: name → whether as binary data.
        id: repeated in the answer.
    """

    images: list[Image]
    outputs: dict[str, bool]
    id: str | None


def memory_to_parse(body: Body, header_length: str | None) -> int:
    """Bytes of memory that `parse_request` takes at most; binary data are not copied."""
    return memory_to_parse_json(_json_part(body, header_length))


def parse_request(body: Body, header_length: str | None, limits: Limits) -> InferenceRequest:
    """Parse a request: JSON, of `header_length` bytes if binary data follow it.

    Raises:
        Problem: 400 it does not match the model's metadata, or asks for something that is not supported; 413 too many
            values, images or pixels.
    """
    request, binary = _json_and_binary(body, header_length)
    _check_members(request, "request", ("id", "parameters", "inputs", "outputs"), ("binary_data_output",))
    identifier = request.get("id")
    if not isinstance(identifier, str | None):
        raise Problem(400, "the request's id is not a string")
    return InferenceRequest(_images(request, binary, limits), _outputs(request), identifier)


def _json_part(body: Body, header_length: str | None) -> Body:
    if header_length is None:
        return body
    if re.fullmatch("[0-9]{1,12}", header_length) is None or int(header_length) > len(body):
        raise Problem(400, f"{HEADER_LENGTH} is not a number of bytes within the body")
    return body[: int(header_length)]


def _json_and_binary(body: Body, header_length: str | None) -> tuple[dict[str, Any], memoryview]:
    head = _json_part(body, header_length)
    check_json(head, most=_MOST_VALUES, most_keys=_MOST_KEYS)
    try:
        request = json.loads(head)
    except (ValueError, RecursionError) as error:
        raise Problem(400, f"the request is not JSON: expected {json.dumps(EXAMPLE)}") from error
    if not isinstance(request, dict):
        raise Problem(400, f"the request is not a JSON object: expected {json.dumps(EXAMPLE)}")
    return request, memoryview(body)[len(head) :]


def _images(request: dict[str, Any], binary: memoryview, limits: Limits) -> list[Image]:
    inputs = request.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise Problem(400, "the request needs one input: 'files' (BYTES) or 'images' (UINT8)")
    tensor = inputs[0]
    _check_members(tensor, "input", ("name", "datatype", "shape", "parameters", "data"), ("binary_data_size",))
    name, datatype = tensor.get("name"), tensor.get("datatype")
    if (name, datatype) not in (("files", "BYTES"), ("images", "UINT8")):
        raise Problem(400, "the input is neither 'files' of 'BYTES' nor 'images' of 'UINT8'")
    shape = _shape(tensor, rank=1 if name == "files" else 4)
    if not 1 <= shape[0] <= limits.images:
        status = 413 if shape[0] else 400
        raise Problem(status, f"the input holds {shape[0]:,} images: send 1 to {limits.images}")
    size, data = _parameter(tensor, "binary_data_size"), tensor.get("data")
    if size is not None:
        if data is not None:
            raise Problem(400, "the input has both data and binary_data_size")
        if type(size) is not int or size != len(binary):
            raise Problem(400, f"binary_data_size is not {len(binary):,}, the number of bytes that follow the JSON")
        return _files(binary, shape[0]) if name == "files" else _pixels(np.frombuffer(binary, np.uint8), shape, limits)
    if not isinstance(data, list):
        raise Problem(400, "the input has neither data nor binary_data_size")
    if len(binary):
        raise Problem(400, f"{len(binary):,} bytes follow the JSON, but the input has no binary_data_size")
    if name == "images":
        return _pixels(_bytes_of_numbers(data), shape, limits)
    if len(data) != shape[0]:
        raise Problem(400, f"the input's shape is {shape}, but its data are {len(data):,}")
    return [from_base64(text) for text in data]


def _outputs(request: dict[str, Any]) -> dict[str, bool]:
    all_binary = bool(_flag(request, "binary_data_output"))
    outputs = request.get("outputs")
    if not outputs:
        return dict.fromkeys(DEFAULT_OUTPUTS, all_binary)
    names = [o.get("name") if isinstance(o, dict) else None for o in outputs] if isinstance(outputs, list) else [None]
    if not all(name in OUTPUTS for name in names):
        raise Problem(400, f"the outputs must be among {', '.join(OUTPUTS)}")
    for output in outputs:
        _check_members(output, "output", ("name", "parameters"), ("binary_data",))
    chosen = [_flag(output, "binary_data") for output in outputs]
    return {str(name): all_binary if c is None else c for name, c in zip(names, chosen, strict=True)}


def _check_members(described: dict[str, Any], what: str, members: Collection[str], parameters: Collection[str]) -> None:
    """Raise Problem 400 if a request, an input or an output has members or parameters that are not supported."""
    if not isinstance(described.get("parameters"), dict | None):
        raise Problem(400, f"the parameters of the {what} are not a JSON object")
    others = [(name, "member") for name in described if name not in members]
    others += [(name, "parameter") for name in described.get("parameters") or () if name not in parameters]
    for name, kind in others:
        raise Problem(400, f"the {kind} {name[:60]!r} of the {what} is not supported: leave it out")


def _parameter(described: dict[str, Any], name: str) -> Any:
    """A parameter of a request, an input or an output; None if there is none."""
    return (described.get("parameters") or {}).get(name)


def _flag(described: dict[str, Any], name: str) -> bool | None:
    """A parameter that is true or false; None if there is none."""
    value = _parameter(described, name)
    if not isinstance(value, bool | None):
        raise Problem(400, f"the parameter '{name}' is neither true nor false")
    return value


def _shape(tensor: dict[str, Any], *, rank: int) -> list[int]:
    shape = tensor.get("shape")
    if not isinstance(shape, list) or len(shape) != rank or not all(type(n) is int and 0 <= n < 2**31 for n in shape):
        raise Problem(400, f"the input's shape is {str(shape)[:60]}: expected {rank} non-negative integers")
    return shape


def _pixels(values: npt.NDArray[np.uint8], shape: list[int], limits: Limits) -> list[Image]:
    _, height, width, channels = shape
    if channels != 3 or height < 1 or width < 1:
        raise Problem(400, f"the input's shape is {shape}: expected [N, H, W, 3]")
    if height * width > limits.megapixels * 10**6:
        raise Problem(
            413, f"images of {width:,} x {height:,} pixels: at most {limits.megapixels:,} million are allowed"
        )
    if values.size != math.prod(shape):
        raise Problem(400, f"the input's shape is {shape}, but its data are {values.size:,}")
    return list(values.reshape(shape))


def _bytes_of_numbers(data: list[Any]) -> npt.NDArray[np.uint8]:
    try:
        while data and isinstance(data[0], list):
            data = list(chain.from_iterable(data))
        return np.frombuffer(bytes(data), np.uint8)
    except (ValueError, TypeError) as error:
        raise Problem(400, "the input's data are not integers from 0 to 255 in the order of its shape") from error


def _files(binary: memoryview, count: int) -> list[Image]:
    """Elements of type BYTES: each is preceded by its length, 4 bytes, little endian."""
    found: list[Image] = []
    at = 0
    for _ in range(count):
        if at + 4 > len(binary):
            break
        (length,) = struct.unpack_from("<I", binary, at)
        at += 4 + length
        found.append(binary[at - length : at])
    if len(found) != count or at != len(binary):
        raise Problem(400, f"the binary data are not {count} elements, each preceded by its length")
    return found


# Answers


def answer(
    request: InferenceRequest, loaded: LoadedModel, results: Sequence[Prediction | ImageError]
) -> tuple[dict[str, Any], list[bytes]]:
    """The JSON of an answer, and the binary data that follow it.

    Raises:
        Problem: 400 the model has no such output; 413 or 422 an image cannot be used: the protocol has no errors for
            single images.
    """
    predictions: list[Prediction] = []
    for i, result in enumerate(results):
        if isinstance(result, ImageError):
            problem = image_problem(result)
            raise Problem(problem.status, f"image {i}: {problem.detail}", title=problem.title)
        predictions.append(result)
    outputs, parts, sizes = [], [], _output_sizes(loaded)
    for name, as_binary in request.outputs.items():
        if name not in sizes:
            raise Problem(400, f"this model has no output '{name}': choose from {', '.join(sizes)}")
        values = _values(name, predictions, loaded.classifier.labels)
        output: dict[str, Any] = {
            "name": name,
            "datatype": _DATATYPES.get(name, "FP32"),
            "shape": [len(predictions), *sizes[name]],
        }
        if as_binary:
            parts.append(_binary(values))
            output["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            output["data"] = values if isinstance(values, list) else values.tolist()
        outputs.append(output)
    answered = {"model_name": loaded.name, "model_version": loaded.version, "outputs": outputs}
    if request.id is not None:
        answered["id"] = request.id
    return answered, parts


def _values(name: str, predictions: Sequence[Prediction], labels: Sequence[str]) -> list[str] | npt.NDArray[Any]:
    """The values of an output, in the order of its shape: texts, or numbers as they are in binary data."""
    if name == "label":
        return [p.label for p in predictions]
    if name in ("unknown", "ask"):
        return np.array([getattr(p, name) for p in predictions], bool)
    if name == "set":
        return np.array([label in (p.set or ()) for p in predictions for label in labels], bool)
    return np.concatenate([getattr(p, name) for p in predictions]).astype("<f4")


def _binary(values: list[str] | npt.NDArray[Any]) -> bytes:
    if isinstance(values, list):
        encoded = [value.encode() for value in values]
        return b"".join(struct.pack("<I", len(value)) + value for value in encoded)
    return values.tobytes()


# Paths


def add_paths(app: FastAPI, service: Service) -> None:
    """Add everything below /v2 to the application."""

    def named(name: str, version: str | None) -> LoadedModel:
        loaded = service.model.current
        if name != loaded.name or version not in (None, loaded.version):
            raise Problem(404, f"there is no such model: this service has {loaded.name}, version {loaded.version}")
        return loaded

    _add_health(app, service)
    _add_metadata(app, service, named)
    _add_infer(app, service, named)


def _add_health(app: FastAPI, service: Service) -> None:
    @app.get("/v2", responses=answers.problems(401, 429))
    async def server() -> dict[str, Any]:
        """The server and what it supports."""
        return SERVER

    @app.get("/v2/health/live")
    async def live() -> dict[str, bool]:
        """Whether the service runs."""
        return {"live": True}

    @app.get("/v2/health/ready", responses=answers.problems(503))
    async def ready() -> dict[str, bool]:
        """Whether it can answer: the bundle is loaded and warm, and there are threads to compute."""
        return {"ready": bool(service.check_ready())}


def _add_metadata(app: FastAPI, service: Service, named: _FindModel) -> None:
    @app.get("/v2/models/{name}", responses=_MODEL_PROBLEMS)
    @app.get("/v2/models/{name}/versions/{version}", responses=_MODEL_PROBLEMS)
    async def metadata(name: str, version: str | None = None) -> dict[str, Any]:
        """The model's inputs and outputs."""
        return describe_model(named(name, version))

    @app.get("/v2/models/{name}/ready", responses=_MODEL_PROBLEMS)
    @app.get("/v2/models/{name}/versions/{version}/ready", responses=_MODEL_PROBLEMS)
    async def model_ready(name: str, version: str | None = None) -> dict[str, Any]:
        """Whether this model can answer."""
        return {"name": named(name, version).name, "ready": bool(service.check_ready())}


def _add_infer(app: FastAPI, service: Service, named: _FindModel) -> None:
    @app.post("/v2/models/{name}/infer", responses=_INFER_RESPONSES, openapi_extra=_INFER_BODY)
    @app.post("/v2/models/{name}/versions/{version}/infer", responses=_INFER_RESPONSES, openapi_extra=_INFER_BODY)
    async def infer(request: Request, name: str, version: str | None = None) -> Response:
        """Classify images: input `files` (BYTES) or `images` (UINT8, RGB)."""
        named(name, version)
        async with service.bodies.read(request) as body:
            length = request.headers.get(HEADER_LENGTH)
            parsed = await service.parse(
                lambda body: parse_request(body, length, service.limits),
                body,
                memory=lambda body: memory_to_parse(body, length),
            )
            del body  # the images hold what is needed of it
            loaded, results = await service.classify(parsed.images)
        content, parts = answer(parsed, loaded, [timed.result for timed in results])
        text = json.dumps(content).encode()
        if not parts:
            return Response(text, media_type="application/json")
        headers = {HEADER_LENGTH: str(len(text))}
        return Response(b"".join([text, *parts]), media_type="application/octet-stream", headers=headers)
