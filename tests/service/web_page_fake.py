"""A small fake of the service over real HTTP: the page's files, and answers that a test configures."""

import contextlib
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

PAGE = Path(__file__).parents[2] / "resources" / "webPage"
KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
POLICY = "default-src 'self'; img-src 'self' blob: data:"


@dataclass(frozen=True)
class Request:
    """What the page sent, and when, in seconds on this process's monotonic clock."""

    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes
    address: str  # as in the request line
    at: float


@dataclass(frozen=True)
class Answer:
    """The answer: JSON with a status and further headers."""

    content: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


def problem(status: int, title: str, detail: str, **headers: str) -> Answer:
    """An error as the service words it (RFC 9457); a header's `_` stands for `-`."""
    content = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return Answer(content, status, {name.replace("_", "-"): value for name, value in headers.items()})


MODEL = {
    "name": "solarCells_svm",
    "version": "3f2a9c0d11ee",
    "labels": ["defective", "functional"],
    "architecture": "tf_efficientnet_lite0",
    "input_size": 224,
    "resize": {"size": 224, "mode": "pad", "interpolation": "bicubic", "fill": [128, 128, 128]},
    "views": 1,
    "metrics": {
        "number_of_test_images": 656,
        "overall_accuracy": 0.8597560975609756,
        "accuracy_per_class": {"defective": 0.6926829268292682, "functional": 0.9356984478935698},
        "intervals": {"overall_accuracy": [0.8328484221198157, 0.8826219512195121]},
    },
    "versions": {"openvino": "2026.4.1"},
    "created": "2026-11-23T06:33:31+00:00",
    "drift": None,
    "keeps": "none",
    "limits": {"megabytes": 32, "images": 64, "megapixels": 50},
}


class FakeService:
    """Serves the page, GET /model, POST /predict and POST /explain; `answers[path]` replaces any of them."""

    def __init__(self) -> None:
        self.model: dict[str, Any] = dict(MODEL)
        self.trusted: dict[str, Any] = {}  # `unknown` and `set` of a prediction
        self.probabilities: dict[str, float] = {"defective": 0.93, "functional": 0.07}
        self.heatmap: list[list[float]] = [[0.0] * 4 for _ in range(4)]
        self.area = {"left": 0.0, "top": 0.0, "right": 1.0, "bottom": 1.0}
        self.size = (300, 200)
        self.answers: dict[str, Callable[[Request], Answer]] = {}
        self.requests: list[Request] = []
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def sent(self, path: str) -> list[Request]:
        """The requests for a path, in order."""
        return [request for request in self.requests if request.path == path]

    def answer(self, request: Request) -> Answer:
        """The service's answer; counts the requests in progress."""
        with self._lock:
            self.requests.append(request)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            usual = {"/model": self.tell_model, "/predict": self.predict, "/explain": self.explain}
            usual["/similar"] = self.similar
            return {**usual, **self.answers}[request.path](request)
        finally:
            with self._lock:
                self._at_once -= 1

    def tell_model(self, _: Request) -> Answer:
        """GET /model."""
        return Answer(self.model)

    def predict(self, _: Request) -> Answer:
        """POST /predict with one picture."""
        ranked = sorted(self.probabilities.items(), key=lambda pair: -pair[1])
        rows = [{"label": label, "probability": probability} for label, probability in ranked]
        prediction = {"name": None, **rows[0], "probabilities": rows, **self.trusted}
        milliseconds = {"queue": 0.3, "decode": 2.1, "compute": 9.8, "total": 12.9}
        return Answer({"model": self.identity(), "predictions": [prediction], "milliseconds": milliseconds})

    def similar(self, _: Request) -> Answer:
        """POST /similar."""
        pixel = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="
        found = [{"label": label, "similarity": 0.5, "picture": pixel} for label in ("functional", "<b>defective")]
        return Answer({"model": self.identity(), "similar": found})

    def explain(self, request: Request) -> Answer:
        """POST /explain?label=NAME."""
        label = request.query.get("label", [max(self.probabilities, key=self.probabilities.__getitem__)])[0]
        return Answer(
            {
                "model": self.identity(),
                "label": label,
                "probability": self.probabilities[label],
                "width": self.size[0],
                "height": self.size[1],
                "heatmap": self.heatmap,
                "area": self.area,
                "method": "class activation map",
                "milliseconds": {"total": 14.2},
            }
        )

    def identity(self) -> dict[str, str]:
        """The name and version of the model."""
        return {"name": self.model["name"], "version": self.model["version"]}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = urlsplit(self.path).path
                if path == "/" or path.startswith("/static/"):
                    file = PAGE / (path.removeprefix("/static/").strip("/") or "index.html")
                    kind = f"{KINDS[file.suffix]}; charset=utf-8"
                    self.reply(file.read_bytes(), kind, 200, {"Content-Security-Policy": POLICY})
                else:
                    self.call()

            def do_POST(self) -> None:
                self.call()

            def call(self) -> None:
                at = time.monotonic()
                address = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                request = Request(address.path, parse_qs(address.query), dict(self.headers), body, self.path, at)
                answer = service.answer(request)
                kind = "application/json" if answer.status < 400 else "application/problem+json"
                self.reply(json.dumps(answer.content).encode(), kind, answer.status, answer.headers)

            def reply(self, content: bytes, kind: str, status: int, headers: dict[str, str]) -> None:
                self.send_response(status)
                for name, value in {**headers, "Content-Type": kind, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                with contextlib.suppress(ConnectionError):  # the page was closed, or aborted the request
                    self.wfile.write(content)

            def log_message(self, *arguments: object) -> None:
                """Log nothing: tests look at `requests`."""

        return Handler
