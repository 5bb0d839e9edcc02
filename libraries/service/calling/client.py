"""A service's client: images in, labels and probabilities out.

client = Client("http://127.0.0.1:8080")
print(client.predict(Path("cell.png").read_bytes()).label)
"""

import base64
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self, TypeVar

from libraries.base.errors import ServiceError
from libraries.service.calling.connection import Connection, Reply, image_refused, not_understood, problem, shown

T = TypeVar("T")

_WHOLE_URIS = ("score", "invocations")  # the last part of a scoring URI: of Azure ML and of this service, of MLflow
_COLUMN = "image base64 string"


@dataclass(frozen=True)
class Score:
    """What a service says of one image.

    Attributes:
        label: the most probable class.
        probability: of the label.
        probabilities: of every class.
        milliseconds: from the request's first byte to the answer's last; earlier, failed tries do not count.
        server_milliseconds: the time that the server says it took.
    """

    label: str
    probability: float
    probabilities: Mapping[str, float]
    milliseconds: float
    server_milliseconds: float

    @property
    def overhead_milliseconds(self) -> float:
        """What network, HTTP and encoding took."""
        return self.milliseconds - self.server_milliseconds


@dataclass(frozen=True)
class Answer(Score):
    """A Score, most probable class first, and the model that gave it: its name and version."""

    model: str


class Client:
    """Calls a service, from any number of threads; a context that closes its connections.

    Args:
        url: the base address of a service (http://127.0.0.1:8080), or the whole scoring URI of a cloud's
            (https://name.region.inference.ml.azure.com/score).
        key: sent as `Authorization: Bearer …`; see `keys.read_key`.
        timeout: seconds for one try, upload and answer included.
        retries: further tries after a failure that may pass (no connection, time-out, 429, 5xx); at most two as long as
            there has never been an answer.
        sleep: waits a number of seconds.

    Raises:
        ParameterError: no such address can be, or the key would travel the internet unencrypted.
        ServiceError: the host is not known. Every method raises it, too, with what went wrong in one line.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        timeout: float = 60.0,
        retries: int = 3,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._connection = Connection(url, key=key, timeout=timeout, retries=retries, sleep=sleep)
        path = self._connection.target.path.rstrip("/")
        base, _, last = path.rpartition("/")
        self._base, self._score_path = (base, path) if last in _WHOLE_URIS else (path, f"{path}/score")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._connection.close()

    def score(self, image: bytes) -> Score:
        """Classify an image file as in the tutorial: base64 in JSON, which this service, Azure ML and MLflow take."""
        table = "dataframe_records" if self._score_path.endswith("/invocations") else "input_df"
        body = json.dumps({table: [{_COLUMN: base64.b64encode(image).decode()}]}).encode()
        return self._ask(_score, "POST", self._score_path, body=body, content_type="application/json")

    def predict(self, image: bytes) -> Answer:
        """Classify an image file, sent as it is."""
        path = f"{self._base}/predict"
        return self._ask(_answer, "POST", path, body=image, content_type="application/octet-stream")

    def model(self) -> dict[str, Any]:
        """What the service tells of its model: name, version, labels and more; see GET /model in its documentation."""
        return self._ask(_model, "GET", f"{self._base}/model")

    def _ask(self, understand: Callable[[Reply], T], method: str, path: str, **request: Any) -> T:
        reply = self._connection.request(method, path, **request)
        try:
            return understand(reply)
        except _UNFIT as error:
            why = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            raise not_understood(self._connection.origin + path, shown(why)) from None


# Answers, checked: whatever a stranger sends that is not as it should be gives one of these errors.

_UNFIT = (KeyError, TypeError, ValueError, IndexError, RecursionError)


def _score(reply: Reply) -> Score:
    content = reply.content
    if isinstance(content, str):  # of a scoring script that returns a string of JSON
        content = json.loads(content)
    if isinstance(content, dict) and "predictions" in content:  # MLflow
        content = content["predictions"]
    if isinstance(content, list):
        (content,) = content
    if "error" in content:
        raise _refused(content["error"])
    names, values = content["Id2Labels"], content["allScores"]
    probabilities = _probabilities((names[str(i)], value) for i, value in enumerate(values))
    server_milliseconds = _number(content["executionTimeMs"])
    return Score(*_top(content["label"], probabilities), probabilities, reply.milliseconds, server_milliseconds)


def _answer(reply: Reply) -> Answer:
    (prediction,) = reply.content["predictions"]
    if "error" in prediction:
        raise _refused(prediction["error"])
    probabilities = _probabilities((p["label"], p["probability"]) for p in prediction["probabilities"])
    server_milliseconds = _number(reply.content["milliseconds"]["total"])
    label = _top(prediction["label"], probabilities)
    model = " ".join(_identity(reply.content["model"]).values())
    return Answer(*label, probabilities, reply.milliseconds, server_milliseconds, model)


def _model(reply: Reply) -> dict[str, Any]:
    labels = reply.content["labels"]
    if not isinstance(labels, list):
        raise TypeError("its labels are no list")
    labels = list(_probabilities((label, 0.0) for label in labels))
    return {**reply.content, **_identity(reply.content), "labels": labels}


def _identity(model: Mapping[str, Any]) -> dict[str, str]:
    return {member: shown(str(model[member]), 100) for member in ("name", "version")}


def _probabilities(pairs: Iterable[tuple[Any, Any]]) -> dict[str, float]:
    """The probability of every label."""
    checked = [(_label(label), _number(value, most=1 + 1e-5)) for label, value in pairs]
    found = dict(checked)
    if not found or len(found) < len(checked):
        raise ValueError("it names no labels, or one twice")
    return found


def _top(label: Any, probabilities: Mapping[str, float]) -> tuple[str, float]:
    return _label(label), probabilities[_label(label)]


def _label(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError(f"{value!r} is no label")
    return shown(value)


def _number(value: Any, *, most: float = 1e12) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise ValueError(f"{value!r} is no number as expected")
    return float(value)


def _refused(error: Any) -> ServiceError:
    """The error of one image inside an answer."""
    title, detail = problem(json.dumps(error).encode())
    return image_refused(title, detail, HTTPStatus.UNPROCESSABLE_ENTITY)
