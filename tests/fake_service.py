"""A service on loopback that answers, or misbehaves, as told."""

import contextlib
import json
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = {"name": "cells_svm", "version": "3f2a9c0d11ee", "labels": ["defective", "functional"]}
SCORE = {
    "label": "functional",
    "score": 0.75,
    "allScores": [0.25, 0.75],
    "Id2Labels": {"0": "defective", "1": "functional"},
    "executionTimeMs": 0.001,
}


def prediction(label: str = "functional", probability: float = 0.75, *, version: str = "3f2a9c0d11ee") -> Any:
    """The answer of POST /predict."""
    other = "defective" if label == "functional" else "functional"
    return {
        "model": {"name": "cells_svm", "version": version},
        "predictions": [
            {
                "name": None,
                "label": label,
                "probability": probability,
                "probabilities": [
                    {"label": label, "probability": probability},
                    {"label": other, "probability": 1 - probability},
                ],
            }
        ],
        "milliseconds": {"queue": 0, "decode": 0, "compute": 0, "total": 0.001},
    }


def problem(status: int, detail: str, title: str = "Problem") -> bytes:
    return json.dumps({"type": "about:blank", "title": title, "status": status, "detail": detail}).encode()


@dataclass(frozen=True)
class Request:
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    peer: int  # the port of the client, which tells connections apart


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Server"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        request = Request(
            self.command,
            self.path,
            {name.title(): value for name, value in self.headers.items()},
            body,
            self.client_address[1],
        )
        with self.server.fake.lock:
            self.server.fake.requests.append(request)
            self.server.fake.counts[self.path] += 1
            count = self.server.fake.counts[self.path]
        answers = self.server.fake.answers.get(self.path)
        if answers is None:
            self.answer(404, problem(404, "nothing here", "Not Found"))
        else:
            answers[min(count, len(answers)) - 1](self, request)

    do_GET = do_CONNECT = do_POST  # noqa: N815

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """An orderly response; `Retry_After='3'` gives the header Retry-After."""
        self.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def raw(self, data: bytes) -> None:
        """Any bytes instead of a response; then the connection ends."""
        self.wfile.write(data)
        self.close_connection = True

    def reset(self) -> None:
        """The connection is torn down, without an answer."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def endless(self, start: bytes, again: bytes, pause: float) -> None:
        """The same bytes again and again, until the client goes away."""
        self.close_connection = True
        self.wfile.write(start)
        while not self.server.fake.stopping.wait(pause):
            self.wfile.write(again)

    def hang(self) -> None:
        """No answer at all."""
        self.close_connection = True
        self.server.fake.stopping.wait()

    def log_message(self, *_: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64
    fake: "FakeService"

    def handle_error(self, *_: object) -> None:
        pass  # clients that go away are what these tests are about


Behaviour = Callable[[Handler, Request], None]


class FakeService:
    """The service, what it was asked, and how it answers.

    Attributes:
        requests: in the order in which they came.
        counts: of requests per path.
        answers: for each path those to the first, second … request; the last one also to all later ones.
        stopping: set when the test is over.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.requests: list[Request] = []
        self.counts: Counter[str] = Counter()
        self.answers: dict[str, tuple[Behaviour, ...]] = {}
        self.stopping = threading.Event()
        self.server = _Server(("127.0.0.1", 0), Handler)
        self.server.fake = self
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def on(self, path: str, *answers: Behaviour) -> None:
        """Answer the first, second … request for a path like this, and all later ones like the last."""
        self.answers[path] = answers


def give(content: Any, status: int = 200, **headers: str) -> Behaviour:
    """An orderly answer: bytes, or anything that becomes JSON."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return lambda handler, _: handler.answer(status, body, **headers)


@contextlib.contextmanager
def running() -> Iterator[FakeService]:
    """A fake service that answers as it should, until told otherwise."""
    fake = FakeService()
    fake.on("/predict", give(prediction()))
    fake.on("/score", give(SCORE))
    fake.on("/model", give(MODEL))
    thread = threading.Thread(target=fake.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield fake
    finally:
        fake.stopping.set()
        fake.server.shutdown()
        thread.join()
        fake.server.server_close()
