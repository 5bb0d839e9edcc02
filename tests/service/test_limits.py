"""Overload and hostile clients: refusals are clear and arrive, memory stays flat, and others are served."""

import base64
import contextlib
import io
import json
import queue
import re
import socket
import struct
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import requests

from libraries.service.app import create_app
from libraries.service.protocol import BoundedProtocol
from libraries.service.server import Server
from libraries.service.service import Limits, Service
from tests.service.conftest import PAGE, Live, StartService, encoded
from tests.service.test_app import assert_silent

TIMEOUT = 60
GET = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
CLOSING = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


class Running:
    """The service with a real socket, in threads of this process, so that tests can change it."""

    def __init__(self, bundle: Path, limits: Limits) -> None:
        announced: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.service = Service(bundle, limits=limits)
        app = create_app(self.service, page=PAGE)
        self.server = Server(app, self.service, host="127.0.0.1", port=0, announce=announced.put)
        self._thread = threading.Thread(target=self.server.run)
        self._thread.start()
        self.port = int(announced.get(timeout=TIMEOUT).split(":")[2].partition("/")[0])
        self.url = f"http://127.0.0.1:{self.port}"
        assert announced.get(timeout=TIMEOUT).startswith("Ready")

    def stop(self) -> None:
        self.server.should_exit = True
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive()


@pytest.fixture(scope="module")
def running(bundle: Path) -> Iterator[Running]:
    """Low limits: requests of 1 MB, and one second for everything."""
    with pytest.MonkeyPatch.context() as patch:
        for of in ("for_headers", "between_requests", "after_response", "to_read", "to_close"):
            patch.setattr(BoundedProtocol, f"seconds_{of}", 1.0)
        running = Running(bundle, Limits(megabytes=1, queue=1000, arrival=1.0))
        yield running
        running.stop()


def talk(port: int, *parts: bytes) -> bytes:
    """What the service answers to these bytes until it closes the connection."""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as connection:
        for part in parts:
            connection.sendall(part)
        return until_end(connection)


def until_end(connection: socket.socket) -> bytes:
    received = []
    while part := connection.recv(65536):
        received.append(part)
    return b"".join(received)


def answer(connection: socket.socket) -> tuple[int, bytes]:
    """Status and body of the next answer on a connection that stays open."""
    head = b""
    while b"\r\n\r\n" not in head:
        byte = connection.recv(1)
        assert byte, head
        head += byte
    match = re.search(rb"content-length: (\d+)", head)
    assert match is not None
    body = b""
    while len(body) < int(match[1]):
        body += connection.recv(int(match[1]) - len(body))
    return int(head.split()[1]), body


def problem(said: bytes) -> dict[str, Any]:
    """The only answer, a problem, after which the connection was closed."""
    head, _, body = said.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head.lower(), said
    assert b"connection: close" in head.lower(), said
    found = json.loads(body)
    assert int(head.split()[1]) == found["status"]
    assert_silent(body.decode())
    return found  # type: ignore[no-any-return]


def post(path: str, *headers: str, version: str = "1.1") -> bytes:
    lines = [f"POST {path} HTTP/{version}", "Host: localhost", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


# Bodies that are too large, and senders that are too slow


@pytest.mark.parametrize("path", ["/predict", "/score", "/nothing", "/v2/models/none/infer"])
@pytest.mark.parametrize(("version", "chunked"), [("1.0", False), ("1.1", False), ("1.1", True)])
def test_the_answer_to_a_body_that_is_too_large_arrives(
    running: Running, path: str, version: str, chunked: bool
) -> None:
    """The client sends all of its 8 MB although the connection will be closed: it is not reset meanwhile."""
    body = bytes(2**23)
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
    sent = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if chunked else body
    said = talk(running.port, post(path, length, "Connection: close", version=version), sent)
    assert problem(said)["status"] == (413 if path in ("/predict", "/score") else 404)


def test_a_connection_can_be_used_after_a_body_that_was_too_large(running: Running) -> None:
    with socket.create_connection(("127.0.0.1", running.port), TIMEOUT) as connection:
        for _ in range(3):
            connection.sendall(post("/predict", "Content-Length: 4000000") + bytes(4_000_000))
            assert answer(connection)[0] == 413
            connection.sendall(GET)
            assert answer(connection)[0] == 200


def test_a_client_that_sends_expect_is_answered_before_it_sends_the_body(running: Running, picture: bytes) -> None:
    expect = "Expect: 100-continue"
    with socket.create_connection(("127.0.0.1", running.port), TIMEOUT) as connection:
        connection.sendall(post("/predict", f"Content-Length: {len(picture)}", expect))
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(picture)
        assert answer(connection)[0] == 200
        connection.sendall(post("/predict", "Content-Length: 4000000", expect))
        assert answer(connection)[0] == 413


def test_slow_headers_are_408_and_silence_ends(running: Running) -> None:
    assert problem(talk(running.port, b"GET /v2 HTTP/1.1\r\nHos"))["status"] == 408
    assert talk(running.port) == b""
    assert talk(running.port, b"\r\n\r\n") == b""
    assert talk(running.port, GET).startswith(b"HTTP/1.1 200")  # kept open for further requests, but not for long
    assert talk(running.port, GET, b"\r\n").startswith(b"HTTP/1.1 200")


def test_a_kept_connection_outlives_one_that_was_opened_later_and_is_silent(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoundedProtocol, "seconds_between_requests", 75.0)
    with socket.create_connection(("127.0.0.1", running.port), TIMEOUT) as connection:
        for _ in range(2):
            connection.sendall(GET)
            assert answer(connection)[0] == 200
            assert talk(running.port) == b""


def test_a_slow_body_is_408(running: Running) -> None:
    said = talk(running.port, post("/predict", "Content-Length: 1000", "Connection: close"), b"some")
    assert problem(said)["status"] == 408
    said = talk(running.port, post("/score", "Transfer-Encoding: chunked", "Connection: close"), b"4\r\nsome\r\n")
    assert problem(said)["status"] == 408
    assert running.service.bodies.buffered == 0


def test_a_body_that_continues_after_the_answer_is_cut_off(running: Running) -> None:
    with socket.create_connection(("127.0.0.1", running.port), TIMEOUT) as connection:
        connection.sendall(post("/nothing", "Content-Length: 1000000000"))
        with pytest.raises(OSError):  # a reset or a broken pipe
            while True:
                connection.sendall(bytes(2**20))


@pytest.mark.parametrize(
    ("beginning", "again"),
    [
        (b"GET /v2 HTTP/1.1\r\n", b"X: " + b"x" * 1000 + b"\r\n"),
        (b"GET /v2 HTTP/1.1\r\nX: ", b"x" * 1000),
        (b"GET /", b"x" * 1000),
        (post("/predict", "Transfer-Encoding: chunked") + b"1\r\nx\r\n0\r\n", b"X: " + b"x" * 1000 + b"\r\n"),
        (post("/predict", "Transfer-Encoding: chunked") + b"1\r\nx\r\n0\r\nX: ", b"x" * 1000),
        (post("/predict", "Transfer-Encoding: chunked") + b"1;", b"x" * 1000),
    ],
    ids=["headers", "header", "URL", "trailers", "trailer", "chunk extension"],
)
def test_endless_headers_are_cut_off(running: Running, beginning: bytes, again: bytes) -> None:
    assert problem(talk(running.port, beginning, again * 500))["status"] == 400
    with socket.create_connection(("127.0.0.1", running.port), TIMEOUT) as connection:
        connection.sendall(beginning)
        with pytest.raises(OSError):  # a reset or a broken pipe
            while True:
                connection.sendall(again * 100)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # somebody tries TLS
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"hello\r\n\r\n",
        bytes(range(256)),
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET  HTTP/1.1\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"CONNECT example.org:443 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost a\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: \x00\r\n\r\n",
        post("/predict", "Content-Length: -1"),
        post("/predict", "Content-Length: " + "9" * 30),
        post("/predict", "Content-Length: 1", "Content-Length: 2"),
        post("/predict", "Content-Length: 1", "Transfer-Encoding: chunked"),
        post("/predict", "Transfer-Encoding: chunked", "Connection: close") + b"xyz\r\n",
    ],
    ids=range(15),
)
def test_garbage_is_a_problem_too(running: Running, garbage: bytes) -> None:
    assert problem(talk(running.port, garbage))["status"] == 400


def test_pipelined_requests_are_answered_in_order(running: Running, picture: bytes) -> None:
    length = f"Content-Length: {len(picture)}"
    requests_ = [GET, post("/predict", length) + picture, post("/nothing", "Content-Length: 2") + b"ab", CLOSING]
    said = talk(running.port, b"".join(requests_))
    assert re.findall(rb"HTTP/1.1 (\d+)", said) == [b"200", b"200", b"404", b"200"]


def test_an_offer_of_http_2_is_declined_and_the_connection_stays(running: Running, picture: bytes) -> None:
    """As Java's client makes it with its first request."""
    offer = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk")
    with socket.create_connection(("127.0.0.1", running.port), TIMEOUT) as connection:
        for _ in range(2):
            connection.sendall(post("/predict", f"Content-Length: {len(picture)}", *offer) + picture)
            assert answer(connection)[0] == 200
        connection.sendall(GET)
        assert answer(connection)[0] == 200


def test_a_client_that_does_not_read_the_answer_is_disconnected(running: Running) -> None:
    script = b"GET /static-offline-docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.create_connection(("127.0.0.1", running.port), TIMEOUT) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with pytest.raises(OSError):  # a reset or a broken pipe
            while True:
                connection.sendall(script)
    assert requests.get(running.url + "/v2", timeout=TIMEOUT).status_code == 200


@pytest.fixture
def narrow(running: Running, monkeypatch: pytest.MonkeyPatch) -> Running:
    """The service limited to three connections, and one newcomer."""
    monkeypatch.setattr(running.server._limiter, "most", 3)
    monkeypatch.setattr(running.server._limiter, "spare", 1)
    return running


def connections(stack: contextlib.ExitStack, port: int, count: int) -> list[socket.socket]:
    return [stack.enter_context(socket.create_connection(("127.0.0.1", port), TIMEOUT)) for _ in range(count)]


def test_one_active_connection_too_many_is_refused_and_health_is_answered(narrow: Running) -> None:
    with contextlib.ExitStack() as stack:
        for connection in connections(stack, narrow.port, 3):
            connection.sendall(post("/predict", "Content-Length: 5", "Expect: 100-continue"))
            assert connection.recv(100).startswith(b"HTTP/1.1 100")
        said = talk(narrow.port, b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert problem(said)["status"] == 503
        assert b"retry-after: 1\r\n" in said.lower()
        assert talk(narrow.port, CLOSING).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("sent", [b"", GET, b"GET /v2 HTTP/1.1\r\nHost: local"], ids=["silent", "answered", "slow"])
def test_the_connection_that_has_been_idle_for_longest_makes_room(narrow: Running, sent: bytes) -> None:
    with contextlib.ExitStack() as stack:
        first, *others = connections(stack, narrow.port, 3)
        for connection in (first, *others):
            connection.sendall(sent)
            if sent == GET:
                answer(connection)
        for _ in range(2):
            assert talk(narrow.port, CLOSING).startswith(b"HTTP/1.1 200")
        first.settimeout(TIMEOUT)
        with contextlib.suppress(ConnectionResetError):
            assert first.recv(1) == b""
        if sent == GET:
            others[-1].sendall(GET)
            assert answer(others[-1])[0] == 200


# Clients that close their sending side


def half_closed(port: int, *parts: bytes) -> bytes:
    """What the service answers to a client that closes its sending side after this."""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as connection:
        for part in parts:
            connection.sendall(part)
        connection.shutdown(socket.SHUT_WR)
        return until_end(connection)


def test_a_client_that_has_closed_its_sending_side_is_answered(running: Running, picture: bytes) -> None:
    whole = post("/predict", f"Content-Length: {len(picture)}") + picture
    for said in (half_closed(running.port, whole), half_closed(running.port, GET, whole)):
        statuses = re.findall(rb"HTTP/1.1 (\d+)", said)
        assert said.startswith(b"HTTP/1.1 200 OK\r\n") and set(statuses) == {b"200"}
        assert b"connection: close\r\n" in said
        assert b'"probability"' in said


def test_a_client_that_has_closed_its_sending_side_is_waited_for(
    running: Running, picture: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the answer is ready; meanwhile its first line is sent byte by byte, and arrives complete."""
    monkeypatch.setattr(BoundedProtocol, "seconds_to_probe", 0.01)
    open_ = threading.Event()
    classifier = running.service.model.current.classifier
    classify = classifier.classify
    monkeypatch.setattr(classifier, "classify", lambda fitted: open_.wait(TIMEOUT) and classify(fitted))
    with socket.create_connection(("127.0.0.1", running.port), TIMEOUT) as connection:
        connection.sendall(post("/predict", f"Content-Length: {len(picture)}") + picture)
        connection.shutdown(socket.SHUT_WR)
        begun = connection.recv(1) + connection.recv(1)
        open_.set()
        said = begun + until_end(connection)
    assert said.startswith(b"HTTP/1.1 200 OK\r\n") and b'"probability"' in said
    assert half_closed(running.port, post("/predict", "Content-Length: 50"), b"half of it") == b""


def test_a_client_that_is_gone_is_not_waited_for(
    running: Running, picture: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoundedProtocol, "seconds_to_probe", 0.01)
    gone, open_ = threading.Event(), threading.Event()
    lost = BoundedProtocol.connection_lost

    def noticed(protocol: BoundedProtocol, error: Exception | None) -> None:
        lost(protocol, error)
        gone.set()

    classifier = running.service.model.current.classifier
    classify = classifier.classify
    monkeypatch.setattr(classifier, "classify", lambda fitted: open_.wait(TIMEOUT) and classify(fitted))
    with socket.create_connection(("127.0.0.1", running.port), TIMEOUT) as connection:
        monkeypatch.setattr(BoundedProtocol, "connection_lost", noticed)
        connection.sendall(post("/predict", f"Content-Length: {len(picture)}") + picture)
    try:
        assert gone.wait(TIMEOUT), "while its image is being computed"
    finally:
        open_.set()


# Overload


def test_overload_is_refused_quickly_and_what_was_accepted_is_answered(
    bundle: Path, picture: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = Running(bundle, Limits(queue=0))
    try:
        open_, begun = threading.Event(), threading.Semaphore(0)
        classify = running.service.model.current.classifier.classify

        def slow(fitted: Any) -> Any:
            begun.release()
            assert open_.wait(TIMEOUT)
            return classify(fitted)

        monkeypatch.setattr(running.service.model.current.classifier, "classify", slow)
        monkeypatch.setattr(running.service.workers, "seconds", 1.0)
        count = running.service.workers.threads + 5
        many = [("images", (f"{i}", picture)) for i in range(count)]
        with ThreadPoolExecutor(1) as pool:
            accepted = pool.submit(requests.post, running.url + "/predict", files=many, timeout=TIMEOUT)
            for _ in range(running.service.workers.threads):
                assert begun.acquire(timeout=TIMEOUT)
            for _ in range(50):
                refused = requests.post(running.url + "/predict", data=picture, timeout=TIMEOUT)
                assert refused.status_code == 503
                assert int(refused.headers["Retry-After"]) >= 1
                assert refused.elapsed.total_seconds() < 5  # far less on an idle machine; the work never ends
            assert running.service.workers.waiting == 5
            open_.set()
            answered = accepted.result()
        assert answered.status_code == 200 and len(answered.json()["predictions"]) == count
        assert running.service.workers.waiting == 0
        assert requests.post(running.url + "/predict", data=picture, timeout=TIMEOUT).status_code == 200
    finally:
        running.stop()


def test_late_answers_are_504_and_disconnected_clients_are_forgotten(
    bundle: Path, picture: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = Running(bundle, Limits(queue=1000, timeout=0.2))
    open_ = threading.Event()
    try:
        classifier = running.service.model.current.classifier
        classify = classifier.classify
        monkeypatch.setattr(classifier, "classify", lambda fitted: open_.wait(TIMEOUT) and classify(fitted))
        for _ in range(3):
            late = requests.post(running.url + "/predict", files=[("a", picture)] * 9, timeout=TIMEOUT)
            assert late.status_code in (504, 503)  # 503 when the replacement threads are stuck too
            assert running.service.workers.waiting == 0
        assert requests.get(running.url + "/v2/health/live", timeout=TIMEOUT).status_code == 200
        while (ready := requests.get(running.url + "/v2/health/ready", timeout=TIMEOUT)).status_code == 200:
            requests.post(running.url + "/predict", files=[("a", picture)] * 9, timeout=TIMEOUT)
        assert ready.status_code == 503 and "too long" in ready.json()["detail"]
        with socket.create_connection(("127.0.0.1", running.port), TIMEOUT) as leaving:
            leaving.sendall(post("/predict", f"Content-Length: {len(picture)}") + picture)
        again = requests.post(running.url + "/predict", data=picture, timeout=TIMEOUT)
        assert again.status_code == 503  # at once: no thread could do it
        assert running.service.workers.waiting == 0
        assert running.service.bodies.buffered == 0
        open_.set()
        while requests.get(running.url + "/v2/health/ready", timeout=TIMEOUT).status_code != 200:
            pass
    finally:
        open_.set()
        running.stop()


def test_images_of_a_disconnected_client_are_not_begun(
    bundle: Path, picture: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = Running(bundle, Limits(queue=1000))
    open_, begun = threading.Event(), threading.Semaphore(0)
    try:
        classifier = running.service.model.current.classifier
        classify = classifier.classify

        def slow(fitted: Any) -> Any:
            begun.release()
            assert open_.wait(TIMEOUT)
            return classify(fitted)

        monkeypatch.setattr(classifier, "classify", slow)
        part = b'--B\r\nContent-Disposition: form-data; filename="a"\r\n\r\n' + picture + b"\r\n"
        body = part * 20 + b"--B--"
        head = post("/predict", f"Content-Length: {len(body)}", "Content-Type: multipart/form-data; boundary=B")
        with socket.create_connection(("127.0.0.1", running.port), TIMEOUT) as leaving:
            leaving.sendall(head + body)
            for _ in range(running.service.workers.threads):
                assert begun.acquire(timeout=TIMEOUT)
            assert running.service.workers.waiting > 0
        while running.service.workers.waiting or running.service.bodies.buffered:
            assert requests.get(running.url + "/v2/health/ready", timeout=TIMEOUT).status_code == 200
        assert '/predict",status="499"} 1.0' in requests.get(running.url + "/metrics", timeout=TIMEOUT).text
        open_.set()
        assert requests.post(running.url + "/predict", data=picture, timeout=TIMEOUT).status_code == 200
        assert not begun.acquire(timeout=0) or not begun.acquire(timeout=0)  # only that of the last request
    finally:
        open_.set()
        running.stop()


def test_a_form_that_is_slow_to_parse_holds_up_nobody(running: Running, picture: bytes) -> None:
    part = b"--B\r\nContent-Disposition: form-data; a=" + b";" * 3700 + b"\r\n\r\nx\r\n"
    form = {"Content-Type": "multipart/form-data; boundary=B"}
    with ThreadPoolExecutor(3) as pool:
        hostile = [
            pool.submit(requests.post, running.url + "/predict", data=part * 250, headers=form, timeout=TIMEOUT)
            for _ in range(3)
        ]
        files = {"a": picture + bytes(200_000)}
        assert requests.post(running.url + "/predict", files=files, timeout=TIMEOUT).status_code == 200
        assert [future.result().status_code for future in hostile] == [413] * 3


# The real process


def png_bomb(side: int = 30_000) -> bytes:
    """A PNG of side x side black pixels, 112 MB of one bit each, in 110 kB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((side // 8 + 1) * side), 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def hostile() -> list[tuple[str, bytes, dict[str, str], tuple[int, ...]]]:
    """Hostile requests: path, body, headers, and the right statuses."""
    form = {"Content-Type": "multipart/form-data; boundary=B"}
    part = b'--B\r\nContent-Disposition: form-data; name="a"; filename="a.png"\r\n\r\n'
    large = base64.b64encode(bytes(5_000_000)).decode()
    infer = "/v2/models/textures_svm/infer"
    pixels = {"name": "images", "datatype": "UINT8", "shape": [1, 1, 1, 3]}
    return [
        ("/predict", png_bomb(), {}, (413,)),
        ("/predict", encoded((5300, 5000), "PNG"), {}, (200,)),
        ("/predict", bytes(9 * 2**20), {}, (413,)),
        ("/predict", part + bytes(7 * 2**20), form, (400,)),
        ("/predict", part + bytes(7 * 2**20) + b"\r\n--B--\r\n", form, (200,)),
        ("/predict", (part + b"x\r\n") * 80_000 + b"--B--\r\n", form, (413,)),
        ("/predict", b"\r\n--B" * 1_000_000, form, (400,)),
        ("/predict", part[:-2] + b"X: " + b"x" * 7 * 2**20, form, (400,)),
        ("/explain", png_bomb(), {}, (413,)),
        ("/score", b"[" * 100_000, {}, (413,)),
        ("/score", b'{"a":' * 100_000, {}, (413,)),
        ("/score", b'{"input_df": [' + b"{}," * 2_000_000 + b"{}]}", {}, (413,)),
        ("/score", json.dumps({"input_df": [{"image base64 string": large}]}).encode(), {}, (422,)),
        ("/score", b'"' + b"\\ud800" * 1_000_000 + b'"', {}, (400,)),
        ("/score", b'{"image base64 string": "' + b"A" * 100 * 2**20, {}, (413,)),
        (infer, b"[" * 100_000, {}, (400,)),
        (infer, b"{}," * 2_000_000, {}, (400, 413)),
        (infer, json.dumps({"inputs": [{**pixels, "data": [[]] * 2_000_000}]}).encode(), {}, (400, 413)),
        (infer, json.dumps({"inputs": [{**pixels, "data": [1] * 2_000_000}]}).encode(), {}, (400,)),
        (infer, json.dumps({"inputs": [{**pixels, "name": "x" * 7_000_000}]}).encode(), {}, (400,)),
    ]


def test_memory_stays_flat_whatever_strangers_send_and_nothing_is_written(live: Live, picture: bytes) -> None:
    """300 hostile requests, 4 at once, after a warm-up with each kind of request."""
    requests_ = hostile()

    def send(request: tuple[str, bytes, dict[str, str], tuple[int, ...]]) -> None:
        path, body, headers, statuses = request
        found = requests.post(live.url + path, data=body, headers=headers, timeout=TIMEOUT)
        assert found.status_code in statuses, (path, body[:40], found.status_code, found.text[:300])
        assert len(found.text) < 2000
        assert_silent(found.text)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(send, requests_ * 4))
        before = live.megabytes
        list(pool.map(send, requests_ * 15))
    assert live.megabytes < before + 100
    assert requests.post(live.url + "/predict", data=picture, timeout=TIMEOUT).status_code == 200
    assert list(live.folder.iterdir()) == []  # its working folder, and where temporary files would be
    assert "Traceback" not in live.errors


def test_memory_of_large_images_and_bodies_is_bounded_and_given_back(start_service: StartService) -> None:
    live = start_service("--serve_maxQueue=1000")
    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc")
    before = live.megabytes
    zeros = bytes(33_000_000)
    for _ in range(3):
        assert requests.post(live.url + "/predict", data=zeros, timeout=TIMEOUT).status_code == 422
    assert live.megabytes < before + 30
    large = png_bomb(7000)  # of one bit
    wide = encoded((6000, 6000), "PNG", compress_level=1)
    webp = encoded((5800, 5800), "WEBP", lossless=True, quality=0, method=0)

    def status(path: str, image: bytes) -> int:
        return requests.post(live.url + path, data=image, timeout=TIMEOUT).status_code

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(status, ["/explain"] * 4, [wide, wide, large, webp])) == [200, 200, 200, 413]
        buffer = io.BytesIO()
        PIL.Image.new("F", (5000, 5000)).save(buffer, "TIFF", compression="tiff_adobe_deflate")
        assert list(pool.map(status, ["/predict"] * 5, [buffer.getvalue()] * 5)) == [200] * 5
    assert live.peak_megabytes < 800  # 450 of them for images
    assert live.megabytes < before + 60


def test_sixty_slow_images_at_once(start_service: StartService, picture: bytes) -> None:
    """Each is answered or refused, with when to come back; others are not kept out."""
    live = start_service("--serve_maxQueue=1")
    slow = encoded((4000, 3000), "JPEG2000")

    def send(_: int) -> requests.Response:
        return requests.post(live.url + "/predict", data=slow, timeout=TIMEOUT)

    with ThreadPoolExecutor(60) as pool:
        coming = [pool.submit(send, number) for number in range(60)]
        health = [requests.get(live.url + "/v2/health/live", timeout=TIMEOUT).status_code for _ in range(10)]
        answers = [each.result() for each in coming]
    assert health == [200] * 10
    good = [answer for answer in answers if answer.status_code == 200]
    refused = [answer for answer in answers if answer.status_code == 503]
    assert good and refused and len(good) + len(refused) == 60
    assert len({json.dumps(answer.json()["predictions"]) for answer in good}) == 1
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
    assert requests.post(live.url + "/predict", data=picture, timeout=TIMEOUT).status_code == 200
    assert live.peak_megabytes < 1000 and "Traceback" not in live.errors


def test_two_thousand_idle_connections_shut_nobody_out(live: Live, picture: bytes) -> None:
    resource = pytest.importorskip("resource")
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 2500:
        pytest.skip("needs 2,500 open files: ulimit -n")
    with contextlib.ExitStack() as stack:
        for _ in range(2000):
            stack.enter_context(socket.create_connection(("127.0.0.1", live.port), TIMEOUT))
        found = requests.post(live.url + "/predict", data=picture, timeout=TIMEOUT)
        assert found.status_code == 200


def test_paths_are_those_of_the_document_and_no_others(live: Live) -> None:
    for path in ("//model", "/model/", "/%2e%2e/model", "/MODEL", "/predict%00", "/static/../../README.md", "/%"):
        head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        said = talk(live.port, head.encode())
        assert said.split()[1] in (b"307", b"404", b"400"), path


@pytest.mark.parametrize(
    ("path", "status"),
    [
        *((path, 200) for path in ("/", "/docs", "/openapi.json", "/model", "/metrics", "/static/app.js", "/v2")),
        *((path, 200) for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/textures_svm")),
        ("/predict", 405),
        ("/nothing", 404),
        ("/model/", 307),
    ],
)
def test_head_is_answered_like_get_without_the_body(live: Live, path: str, status: int) -> None:
    def ask(method: str) -> tuple[bytes, bytes]:
        said = talk(live.port, f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        head, _, body = said.partition(b"\r\n\r\n")
        return re.sub(rb"content-length: \d+" if path == "/metrics" else rb"\r\ndate: [^\r]*", b"", head), body

    (head, nothing), (expected, _) = ask("HEAD"), ask("GET")
    assert nothing == b""
    assert head.startswith(b"HTTP/1.1 %d " % status)
    if path != "/metrics":
        assert head == expected
