"""Services that find images, on this machine: each answers as its documentation says, and misbehaves as told."""

import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np
from PIL import Image

KEY = "a+secret/key-0123456789"


@dataclass
class Request:
    """What was asked."""

    path: str
    parameters: dict[str, str]
    headers: dict[str, str]
    began: float  # on time.monotonic()
    ended: float = 0.0


@dataclass
class Reply:
    """What is answered: bytes as they are, anything else as JSON."""

    body: Any = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


Answer = Callable[[Request], Reply]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body in one packet: in two they would take 40 ms

    def do_GET(self) -> None:
        fake: FakeSearch = self.server.fake
        parts = urlsplit(self.path)
        request = Request(parts.path, dict(parse_qsl(parts.query)), dict(self.headers), time.monotonic())
        with fake.lock:
            fake.all_requests.append(request)
            count = len(fake.requests)
        if parts.path.startswith("/files/"):
            reply = fake.file(request)
        else:
            reply = fake.answers[min(count, len(fake.answers)) - 1](request)
        body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        request.ended = time.monotonic()
        self.send_response(reply.status)
        for name, value in {"Content-Length": str(len(body)), **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    fake: "FakeSearch"

    def handle_error(self, *_: object) -> None:
        pass  # clients that go away are part of the tests


class FakeSearch:
    """The server.

    Attributes:
        answers: to the first, second … question, the last one also to all later ones.
        stopping: set when the test is over.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.all_requests: list[Request] = []
        self.answers: list[Answer] = []
        self.stopping = threading.Event()
        self.server = _Server(("127.0.0.1", 0), _Handler)
        self.server.fake = self
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    @property
    def requests(self) -> list[Request]:
        """The questions, without the images that were fetched."""
        return [request for request in self.all_requests if not request.path.startswith("/files/")]

    def file(self, request: Request) -> Reply:
        """An image, the same for the same path."""
        colours = np.random.default_rng(abs(sum(request.path.encode()))).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(colours).resize((40, 30)).save(file, "JPEG")
        return Reply(file.getvalue())


@contextmanager
def serving() -> Iterator[FakeSearch]:
    """A server for the block."""
    fake = FakeSearch()
    thread = threading.Thread(target=fake.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield fake
    finally:
        fake.stopping.set()
        fake.server.shutdown()
        thread.join()
        fake.server.server_close()


# Openverse


def openverse_image(number: int, query: str = "cat", base: str = "https://images.example", **changes: Any) -> Any:
    """A result of Openverse."""
    name = f"{query.replace(' ', '-')}-{number}"
    return {
        "id": name,
        "title": f"Picture {number} of a {query}",
        "url": f"{base}/files/{name}.jpg",
        "thumbnail": f"https://api.openverse.org/v1/images/{name}/thumb/",
        "foreign_landing_url": f"https://www.flickr.example/photos/{name}",
        "creator": f"Photographer {number}",
        "creator_url": "https://www.flickr.example/people/1",
        "license": ("by", "by-sa", "cc0", "by-nc")[number % 4],
        "license_version": "2.0",
        "license_url": f"https://creativecommons.org/licenses/{number % 4}/2.0/",
        "attribution": f'"Picture {number}" by Photographer {number}.',
        "provider": "flickr",
        "source": "flickr",
        "filesize": None,
        "filetype": "jpg",
        "width": 640,
        "height": 480,
        "mature": False,
    } | changes


def openverse(total: int, base: str = "https://images.example") -> Answer:
    """An Openverse that has so many images for each query."""

    def answer(request: Request) -> Reply:
        page, size = int(request.parameters["page"]), int(request.parameters["page_size"])
        if size > 20:
            return Reply({"detail": "Authentication credentials were not provided."}, 401)
        numbers = range((page - 1) * size + 1, min(page * size, total) + 1)
        images = [openverse_image(number, request.parameters["q"], base) for number in numbers]
        pages = -(-total // size)
        return Reply({"result_count": total, "page_count": pages, "page_size": size, "page": page, "results": images})

    return answer


# Wikimedia Commons


def wikimedia_page(number: int, licence: str = "CC BY-SA 4.0") -> Any:
    """A page of Wikimedia Commons."""
    info = {
        "url": f"https://upload.wikimedia.example/commons/{number}.tif",
        "thumburl": f"https://upload.wikimedia.example/commons/thumb/{number}.jpg",
        "descriptionurl": f"https://commons.wikimedia.example/wiki/File:{number}.tif",
        "width": 4000,
        "height": 3000,
        "mime": "image/tiff",
        "extmetadata": {
            "LicenseShortName": {"value": licence, "source": "commons-desc-page"},
            "LicenseUrl": {"value": "//creativecommons.example/licenses/by-sa/4.0"},
            "Artist": {"value": f'<a href="//x.example/User:A" title="User:A">Ann &amp; Bob</a> {number}'},
        },
    }
    return {"pageid": 1000 + number, "ns": 6, "title": f"File:Cat {number}.tif", "index": number, "imageinfo": [info]}


def wikimedia(total: int) -> Answer:
    """A Wikimedia Commons that has so many images for each query; its pages come in no order."""

    def answer(request: Request) -> Reply:
        limit, offset = int(request.parameters["gsrlimit"]), int(request.parameters["gsroffset"])
        last = min(offset + limit, total)
        pages = {str(1000 + n): wikimedia_page(n) for n in reversed(range(offset + 1, last + 1))}
        found: dict[str, Any] = {"batchcomplete": ""}
        if pages:
            found["query"] = {"pages": pages}
        if last < total:
            found["continue"] = {"gsroffset": last, "continue": "gsroffset||"}
        return Reply(found)

    return answer


# Brave Search


def brave(total: int) -> Answer:
    """A Brave Search that has so many images for each query."""

    def answer(request: Request) -> Reply:
        if request.headers.get("X-Subscription-Token") != KEY:
            detail = "The provided subscription token is invalid."
            return Reply(
                {"type": "ErrorResponse", "error": {"code": "SUBSCRIPTION_TOKEN_INVALID", "detail": detail}}, 401
            )
        results = [
            {
                "type": "image_result",
                "title": f"Cat {n}",
                "url": f"https://pages.example/{n}",
                "source": "pages.example",
                "thumbnail": {"src": f"https://imgs.search.brave.example/{n}", "width": 500, "height": 333},
                "properties": {"url": f"https://pages.example/{n}.jpg", "placeholder": "", "width": 900, "height": 600},
                "confidence": "high",
            }
            for n in range(1, min(total, int(request.parameters["count"])) + 1)
        ]
        return Reply({"type": "images", "query": {"original": "cat"}, "results": results, "extra": {}})

    return answer


# SerpApi


def serpapi(total: int, size: int = 100) -> Answer:
    """A SerpApi that has so many images for each query."""

    def answer(request: Request) -> Reply:
        if request.parameters.get("api_key") != KEY:
            said = f"Invalid API key: {request.parameters.get('api_key')}. Your API key should be here: https://…"
            return Reply({"error": said}, 401)
        page = int(request.parameters["ijn"])
        numbers = range(page * size + 1, min((page + 1) * size, total) + 1)
        found: dict[str, Any] = {"search_metadata": {"status": "Success"}}
        if not numbers:
            return Reply({**found, "error": "Google hasn't returned any results for this query."})
        found["images_results"] = [
            {
                "position": n,
                "thumbnail": f"https://serpapi.example/{n}",
                "original": f"https://pages.example/{n}.jpg",
                "original_width": 900,
                "original_height": 600,
                "title": f"Cat {n}",
                "source": "Pages",
                "link": f"https://pages.example/{n}",
            }
            for n in numbers
        ]
        if numbers[-1] < total:
            found["serpapi_pagination"] = {"current": page, "next": "https://serpapi.com/search.json?ijn=1"}
        return Reply(found)

    return answer
