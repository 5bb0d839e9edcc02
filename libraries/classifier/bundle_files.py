"""The files of a bundle, which may come from a stranger: checked within bounds before they are loaded.

An ONNX file could take values from other files, and a stranger's could name any on the machine: such files are refused.
The file is one protobuf message (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto); only fields that can hold a
tensor are visited, so nothing but this module is needed, and a large network takes milliseconds.
"""

import json
import logging
import math
import re
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from libraries.base.errors import ParameterError, StorageError
from libraries.base.file_system import explained, is_reserved, read_regular
from libraries.base.storage import sha256
from libraries.classifier import trust
from libraries.classifier.costs import Costs
from libraries.data.depth import FULL_RANGE
from libraries.data.images import ResizeRule

log = logging.getLogger(__name__)

MODEL, MANIFEST = "model.onnx", "model.json"
DECISIVE = ("trust", "costs")  # what model.json may have that decides the answers, besides the files
METRICS = "metrics.json"  # how good the bundle is; there once it has been evaluated
VIEWS = (1, 2, 8)  # orientations of each image
MAX_BYTES = 64 * 2**20  # of each of the two JSON files
MAX_FILE_BYTES = 2**31  # of each file that it names: what ONNX can hold
_MAX_FILES, _MAX_DEPTH = 100, 32
_MAX_LABELS, _MAX_LABEL, _MAX_SIZE, _MAX_EMBEDDING = 1_000_000, 1_000, 4096, 2**20

_GRAPH, _FUNCTION, _NODE, _ATTRIBUTE, _TENSOR, _SPARSE, _TRAINING = range(1, 8)
_INSIDE = {  # for each kind of message, the kinds in its fields; the model itself is 0
    0: {7: _GRAPH, 20: _TRAINING, 25: _FUNCTION},
    _GRAPH: {1: _NODE, 5: _TENSOR, 15: _SPARSE},
    _TRAINING: {1: _GRAPH, 2: _GRAPH},
    _FUNCTION: {7: _NODE, 11: _ATTRIBUTE},
    _NODE: {5: _ATTRIBUTE},
    _ATTRIBUTE: {5: _TENSOR, 6: _GRAPH, 10: _TENSOR, 11: _GRAPH, 22: _SPARSE, 23: _SPARSE},
    _SPARSE: {1: _TENSOR, 2: _TENSOR},
    _TENSOR: {},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # of a tensor
_MAX_NESTING = 64

_CONTROL = {"Cc", "Cs", "Zl", "Zp"}  # categories of Unicode
_UNSEEN = {"Cf", "Zs"}
_TURNING = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}  # reorder what is shown (UAX 9, 2)


def read_manifest(path: Path) -> tuple[dict[str, Any], list[str], ResizeRule]:
    """What a bundle's model.json says, and its metrics, if it has been evaluated; its labels; its resize rule.

    Raises:
        StorageError: there is none, or it does not describe a whole bundle; says what is wrong.
    """
    model = _read(path)
    try:
        checked = _checked(model)
    except (KeyError, TypeError, ValueError, ParameterError) as error:
        what = f"there is no {error}" if isinstance(error, KeyError) else error
        raise StorageError(f"{path} does not describe a whole bundle: restore or rebuild it ({what})") from error
    if (beside := path.with_name(METRICS)).exists():
        model["metrics"] = _metrics(beside, of=model)  # earlier versions wrote them into model.json
    return checked


def _read(path: Path) -> Any:
    try:
        if not _is_inside(path):
            raise ValueError("it is a link out of its folder")
        return json.loads(read_regular(path, most=MAX_BYTES).decode("utf-8"), parse_constant=_refuse)
    except FileNotFoundError as error:
        what = "a bundle is a folder model_*/, which scripts/4_trainSVM.py writes"
        raise StorageError(f"{path} does not exist: {what}") from error
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: links in a circle, brackets in brackets
        reason = explained(error) if isinstance(error, OSError) else error
        raise StorageError(
            f"{path} cannot be read ({reason}); delete it and run the script that writes it again"
        ) from error


def _metrics(path: Path, *, of: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The metrics in a file, if they were measured with the bundle's files and thresholds as they are.

    Where they cannot be read, there are none: they are for people, and the classifier works without them.
    """
    try:
        measured = _read(path)
        _check_depth(measured)
        if _object(measured, "it")["files"] != of["files"] or any(measured.get(n) != of.get(n) for n in DECISIVE):
            return None
        return _object(measured["metrics"], "metrics")
    except (StorageError, KeyError, TypeError, ValueError) as error:
        what = f"there is no {error}" if isinstance(error, KeyError) else error
        log.warning("%s is left out, since it holds no metrics: %s", path, what)
        return None


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not a number in JSON")


def _checked(model: Any) -> tuple[dict[str, Any], list[str], ResizeRule]:
    _object(model, "it")
    _check_depth(model)
    for name in _object(model["files"], "files"):
        _check_file_name(name)
        if not re.fullmatch("[0-9a-f]{64}", str(model["files"][name])):
            raise ValueError(f"files: {name} has no SHA-256")
    if MODEL not in model["files"] or len(model["files"]) > _MAX_FILES:  # a file without a hash is not loaded
        raise ValueError(f"files: {MODEL} is not among at most {_MAX_FILES}")
    labels = model["labels"]
    check_labels(labels)
    rule = _resize_rule(_object(model["resize"], "resize"))
    _whole_number(model["embedding_size"], "embedding_size", most=_MAX_EMBEDDING)
    if model.get("input_size", rule.size) != rule.size:
        raise ValueError("input_size and resize differ")
    _whole_number(model.get("views", 1), "views", most=max(VIEWS))
    if model.get("views", 1) not in VIEWS:
        raise ValueError(f"views is {model['views']!r:.50}, expected one of {VIEWS}")
    if "trust" in model:
        trust.check(_object(model["trust"], "trust"), classes=len(labels))
    if "costs" in model:
        Costs.from_json(_object(model["costs"], "costs"), labels)
        _check_text(model["costs"]["unit"], "costs: unit")
    _check_facts(model)
    return model, labels, rule


def _check_facts(model: Mapping[str, Any]) -> None:
    """Check what the classifier does not compute with; a fact may be missing."""
    _check_levels(model.get("mean", [0, 0, 0]), "mean")
    _check_levels(model.get("std", [1, 1, 1]), "std", above=0)
    settings = _object(model.get("settings", {}), "settings")
    for name in ("versions", "metrics", "parameters", "inputs"):
        _object(model.get(name) or {}, name)
    for name in ("datasetName", "classifier"):
        _check_text(settings.get(name, ""), f"settings: {name}")
    for name in ("architecture", "created"):
        _check_text(model.get(name, ""), name)


def _object(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{name} is not an object")
    return value


def _whole_number(value: Any, name: str, *, most: int, least: int = 1) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{name} is {value!r:.50}, expected a whole number from {least} to {most}")


def _check_levels(values: Any, name: str, *, above: float = -math.inf) -> None:
    """Raise ValueError unless it is a number for each of red, green and blue."""
    are_numbers = isinstance(values, list) and {*map(type, values)} <= {int, float}
    if not are_numbers or len(values) != 3 or not all(above < value < math.inf for value in values):
        raise ValueError(f"{name} is {values!r:.50}, expected three numbers{' above 0' if above == 0 else ''}")


def _check_text(text: Any, name: str) -> None:
    """Raise ValueError unless it is text that can be shown, sent and stored."""
    if not isinstance(text, str) or len(text) > _MAX_LABEL:
        raise ValueError(f"{name} is {text!r:.50}, expected a text of at most {_MAX_LABEL:,} characters")
    if any(unicodedata.category(c) in _CONTROL or unicodedata.bidirectional(c) in _TURNING for c in text):
        raise ValueError(f"{name} {text!r:.50} holds control characters, or half a character")


def check_labels(labels: Any) -> None:
    """Raise TypeError or ValueError unless they are names of classes, all different."""
    if not isinstance(labels, list) or not 1 <= len(labels) <= _MAX_LABELS:
        raise TypeError(f"labels is not a list of at most {_MAX_LABELS:,}")
    for label in labels:
        _check_text(label, "label")
        if all(unicodedata.category(c) in _UNSEEN for c in label):
            raise ValueError(f"label {label!r:.50} is empty, or cannot be seen")
    if len(set(labels)) != len(labels):
        twice = next(label for i, label in enumerate(labels) if label in labels[:i])
        raise ValueError(f"label {twice!r:.50} appears twice")


def _resize_rule(value: Mapping[str, Any]) -> ResizeRule:
    _whole_number(value["size"], "resize: size", most=_MAX_SIZE)
    _whole_number(value.get("white_level", FULL_RANGE), "resize: white_level", most=2**31)
    detail = value.get("detail", 1)
    if type(detail) not in (int, float):
        raise TypeError("resize: detail is not a number")
    fill = value.get("fill")
    if not isinstance(fill, list):
        raise TypeError("resize: fill is not a list")
    for level in fill:
        _whole_number(level, "resize: fill", most=255, least=0)
    return ResizeRule.from_json(value)


def _check_file_name(name: str) -> None:
    """Raise ValueError unless it is the plain name of a file, on every system."""
    _check_text(name, "files: name")
    if name in ("", ".", "..") or re.search(r'[/\\:*?"<>|]', name) or name[-1] in ". " or is_reserved(name):
        raise ValueError(f"files: {name!r:.50} is not a plain file name")


def _check_depth(value: Any) -> None:
    waiting = [(value, 0)]
    while waiting:
        inner, depth = waiting.pop()
        if depth > _MAX_DEPTH:
            raise ValueError(f"more than {_MAX_DEPTH} values are inside each other")
        if isinstance(inner, dict | list):
            waiting += [(each, depth + 1) for each in (inner.values() if isinstance(inner, dict) else inner)]


def _is_inside(path: Path) -> bool:
    """Whether a link, if it is one, stays in its folder, as those do with which Kubernetes mounts one."""
    return path.resolve().is_relative_to(path.parent.resolve())


def check_files(folder: Path, files: Mapping[str, str]) -> None:
    """Make sure that a bundle's files are those it was written with, and that its network needs no others.

    Raises:
        StorageError: a file is gone, has changed, is not a regular file in this folder, or is too large.
    """
    for name, expected in files.items():
        path = folder / name
        try:
            is_whole = _is_inside(path) and path.stat().st_size <= MAX_FILE_BYTES and sha256(path) == expected
        except (OSError, RuntimeError):  # the latter: links in a circle
            is_whole = False
        if not is_whole:
            raise StorageError(f"{path} is not the file that {MANIFEST} describes: restore or rebuild the bundle")
    try:
        needs_others = has_external_data(read_regular(folder / MODEL, most=MAX_FILE_BYTES))
    except (OSError, ValueError) as error:
        raise StorageError(f"{folder / MODEL} is not an ONNX file ({error}): restore or rebuild the bundle") from error
    if needs_others:
        raise StorageError(f"{folder / MODEL} takes values from other files, which is refused: rebuild the bundle")


def has_external_data(onnx: bytes) -> bool:
    """Whether any tensor of a network lies in another file.

    Raises:
        ValueError: no whole protobuf message.
    """
    waiting = [(memoryview(onnx), 0, 0)]
    while waiting:
        message, kind, depth = waiting.pop()
        if depth > _MAX_NESTING:
            raise ValueError("its graphs are too deep")
        for field, value in _fields(message):
            if kind == _TENSOR and (field == _EXTERNAL_DATA or (field == _DATA_LOCATION and value != 0)):
                return True
            if isinstance(value, memoryview) and field in _INSIDE[kind]:
                waiting.append((value, _INSIDE[kind][field], depth + 1))
    return False


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of every field, in order: numbers, or bytes."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        size = {1: 8, 5: 4}.get(tag & 7)
        if tag & 7 == 0:
            value, position = _varint(message, position)
            yield tag >> 3, value
            continue
        if tag & 7 == 2:
            size, position = _varint(message, position)
        if size is None or position + size > len(message):
            raise ValueError("it is cut off or damaged")
        yield tag >> 3, message[position : position + size]
        position += size


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """A number of variable length, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            break
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("it is cut off or damaged")
