"""A client of the service: images in, labels and probabilities out.

client = Client("http://127.0.0.1:8080")
print(client.predict(Path("cell.png").read_bytes()).label)
"""

import base64
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlencode

from libraries.base.errors import ServiceError
from libraries.service.calling.connection import (
    Connection,
    Reply,
    image_refused,
    not_understood,
    one_line,
    title_and_detail,
)

T = TypeVar("T")

_SCORING_PATHS = ("score", "invocations")  # ends of a scoring URI: of Azure ML and this service; of MLflow
_COLUMN = "image base64 string"


@dataclass(frozen=True)
class Score:
    """A service's prediction for one image.

    Attributes:
        label: the answer: the most probable class, or what costs least.
        probability: of the label.
        probabilities: of every class.
        milliseconds: from the request's first byte to the answer's last, without earlier, failed tries.
        server_milliseconds: the time that the server reports.
        unknown, set, ask: see `Prediction`; None: the service does not say.
    """

    label: str
    probability: float
    probabilities: Mapping[str, float]
    milliseconds: float
    server_milliseconds: float
    unknown: bool | None = field(default=None, kw_only=True)
    set: tuple[str, ...] | None = field(default=None, kw_only=True)
    ask: bool | None = field(default=None, kw_only=True)

    @property
    def overhead_milliseconds(self) -> float:
        """The time for network, HTTP and encoding."""
        return self.milliseconds - self.server_milliseconds


@dataclass(frozen=True)
class ModelScore(Score):
    """A Score, the most probable class first, with the name and version of the model."""

    model: str


class Client:
    """Calls a service, from any number of threads; a context manager that closes its connections.

    Args:
        url: the base URL of a service (http://127.0.0.1:8080), or the scoring URI of a service in a cloud
            (https://name.region.inference.ml.azure.com/score).
        key: sent as `Authorization: Bearer …`; see `keys.read_key`.
        timeout: seconds for one try, including upload and answer.
        retries: further tries after a temporary failure (no connection, time-out, 429, 5xx); at most two until the
            service has answered for the first time.
        sleep: waits a number of seconds.

    Raises:
        ParameterError: the URL is invalid, or the key would be sent over the internet unencrypted.
        ServiceError: the host is unknown. Every method raises it, too; its message says in one line what went wrong.
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
        self._base, self._score_path = (base, path) if last in _SCORING_PATHS else (path, f"{path}/score")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._connection.close()

    def score(self, image: bytes) -> Score:
        """Classify an image file as in the tutorial: base64 in JSON, as this service, Azure ML and MLflow accept it."""
        table = "dataframe_records" if self._score_path.endswith("/invocations") else "input_df"
        body = json.dumps({table: [{_COLUMN: base64.b64encode(image).decode()}]}).encode()
        return self._call(_parse_score, "POST", self._score_path, body=body, content_type="application/json")

    def predict(self, image: bytes) -> ModelScore:
        """Classify an image file, sent as it is."""
        path = f"{self._base}/predict"
        return self._call(_parse_prediction, "POST", path, body=image, content_type="application/octet-stream")

    def feedback(self, image: bytes, label: str) -> str:
        """Send an image file with its right label, to a client's key for feedback; what the service says it is."""
        path = f"{self._base}/feedback?{urlencode({'label': label})}"
        return self._call(_parse_feedback, "POST", path, body=image, content_type="application/octet-stream")

    def model(self) -> dict[str, Any]:
        """The service's model: name, version, labels and more; see GET /model in the service's documentation."""
        return self._call(_parse_model, "GET", f"{self._base}/model")

    def _call(self, parse: Callable[[Reply], T], method: str, path: str, **request: Any) -> T:
        reply = self._connection.request(method, path, **request)
        try:
            return parse(reply)
        except _INVALID as error:
            why = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            raise not_understood(self._connection.origin + path, one_line(why)) from None


# Parsers of answers: an answer that is not as expected gives one of these errors.

_INVALID = (KeyError, TypeError, ValueError, IndexError, RecursionError)


def _parse_score(reply: Reply) -> Score:
    content = reply.content
    if isinstance(content, str):  # from a scoring script that returns JSON as a string
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
    top, trusted = _top(content["label"], probabilities), _trusted(content)
    return Score(*top, probabilities, reply.milliseconds, server_milliseconds, **trusted)


def _parse_prediction(reply: Reply) -> ModelScore:
    (prediction,) = reply.content["predictions"]
    if "error" in prediction:
        raise _refused(prediction["error"])
    probabilities = _probabilities((p["label"], p["probability"]) for p in prediction["probabilities"])
    server_milliseconds = _number(reply.content["milliseconds"]["total"])
    top = _top(prediction["label"], probabilities)
    model = " ".join(_identity(reply.content["model"]).values())
    trusted = _trusted(prediction)
    return ModelScore(*top, probabilities, reply.milliseconds, server_milliseconds, model, **trusted)


def _parse_feedback(reply: Reply) -> str:
    return _label(reply.content["label"])


def _parse_model(reply: Reply) -> dict[str, Any]:
    labels = reply.content["labels"]
    if not isinstance(labels, list):
        raise TypeError("its labels are not a list")
    labels = list(_probabilities((label, 0.0) for label in labels))
    return {**reply.content, **_identity(reply.content), "labels": labels}


def _identity(model: Mapping[str, Any]) -> dict[str, str]:
    return {member: one_line(str(model[member]), 100) for member in ("name", "version")}


def _probabilities(pairs: Iterable[tuple[Any, Any]]) -> dict[str, float]:
    """The probability of every label."""
    checked = [(_label(label), _number(value, most=1 + 1e-5)) for label, value in pairs]
    found = dict(checked)
    if not found or len(found) < len(checked):
        raise ValueError("it has no labels, or one of them twice")
    return found


def _top(label: Any, probabilities: Mapping[str, float]) -> tuple[str, float]:
    return _label(label), probabilities[_label(label)]


def _trusted(content: Mapping[str, Any]) -> dict[str, Any]:
    """What an answer says of how far it can be relied on."""
    unknown, likely, ask = (content.get(name) for name in ("unknown", "set", "ask"))
    if not isinstance(unknown, bool | None) or not isinstance(ask, bool | None) or not isinstance(likely, list | None):
        raise TypeError("unknown or ask is not true or false, or set is no list")
    return {"unknown": unknown, "set": None if likely is None else tuple(map(_label, likely)), "ask": ask}


def _label(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError(f"{value!r} is not a label")
    return one_line(value)


def _number(value: Any, *, most: float = 1e12) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise ValueError(f"{value!r} is not a number from 0 to {most:g}")
    return float(value)


def _refused(error: Any) -> ServiceError:
    """The error for one image inside an answer."""
    title, detail = title_and_detail(json.dumps(error).encode())
    return image_refused(title, detail, HTTPStatus.UNPROCESSABLE_ENTITY)
