"""A web server on loopback that serves images, and misbehaves as configured."""

import dataclasses
import io
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from PIL import Image

from libraries.web.download.download import download
from libraries.web.download.outcomes import UrlOutcome
from libraries.web.download.saving import DownloadOptions


def download_with(urls: list[tuple[str, str]], **arguments: Any) -> Iterator[UrlOutcome]:
    """`download` with its options among its other arguments."""
    names = {field.name for field in dataclasses.fields(DownloadOptions)}
    options = DownloadOptions(**{name: arguments.pop(name) for name in names & arguments.keys()})
    return download(urls, options=options, **arguments)


def picture(seed: int = 0, *, width: int = 40, height: int = 30, form: str = "JPEG", **options: Any) -> bytes:
    """An image file of smooth random colours: the same for the same seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(file, form, **options)
    return file.getvalue()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        web: FakeWeb = self.server.web
        with web.lock:
            web.requests[self.path] += 1
            web.headers[self.path].append(dict(self.headers))
            count = web.requests[self.path]
        answers = web.answers.get(self.path)
        if answers is None:
            self.answer(404, b"nothing here")
        else:
            answers[min(count, len(answers)) - 1](self)

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """A regular response; `Retry_After='3'` gives the header Retry-After."""
        self.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def raw(self, data: bytes) -> None:
        """Any bytes instead of a response; then the connection ends."""
        self.wfile.write(data)
        self.close_connection = True

    def drip(self, start: bytes, drop: bytes) -> None:
        """A few bytes again and again, until the client disconnects."""
        self.close_connection = True
        self.wfile.write(start)
        while not self.server.web.stopping.wait(0.01):
            self.wfile.write(drop)

    def log_message(self, *_: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64
    web: "FakeWeb"

    def handle_error(self, *_: object) -> None:
        pass  # disconnecting clients are part of these tests


Answer = Callable[[_Handler], None]


class FakeWeb:
    """The server and the requests that it has received.

    Attributes:
        requests: path → number of requests.
        headers: path → headers of its requests.
        stopping: set when the test is over.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.requests: Counter[str] = Counter()
        self.headers: defaultdict[str, list[dict[str, str]]] = defaultdict(list)
        self.answers: dict[str, tuple[Answer, ...]] = {}
        self.stopping = threading.Event()
        self.server = _Server(("127.0.0.1", 0), _Handler)
        self.server.web = self
        self.port: int = self.server.server_address[1]

    def url(self, path: str, host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"

    def on(self, path: str, *answers: Answer) -> str:
        """Answer the first, second, … request for a path with these, later ones with the last; returns the URL."""
        self.answers[path] = answers
        return self.url(path)

    def give(self, path: str, body: bytes, status: int = 200, **headers: str) -> str:
        """Answer every request for a path with this; returns the URL."""
        return self.on(path, lambda handler: handler.answer(status, body, **headers))

    def redirect(self, path: str, location: str) -> str:
        return self.give(path, b"", 302, Location=location)


@pytest.fixture
def web() -> Iterator[FakeWeb]:
    fake = FakeWeb()
    thread = threading.Thread(target=fake.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield fake
    fake.stopping.set()
    fake.server.shutdown()
    thread.join()
    fake.server.server_close()


@pytest.fixture
def make_picture() -> Callable[..., bytes]:
    return picture
