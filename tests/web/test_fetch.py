"""One try of one URL, against servers that behave and servers that do not."""

import datetime
import gzip
import ssl
import tracemalloc
import zlib
from collections.abc import Callable
from email.utils import format_datetime
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import urllib3

from libraries.base.errors import DownloadError
from libraries.web import addresses
from libraries.web.fetch import MAX_WAIT, Fetcher, Timeouts, backoff, opted_out, retry_after
from tests.certificates import self_signed

Fetch = Callable[..., bytes]


@pytest.fixture
def fetch(request: pytest.FixtureRequest) -> Fetch:
    """Fetch a URL with small limits."""

    def call(url: str, **changes: Any) -> bytes:
        options: dict[str, Any] = {
            "timeouts": Timeouts(connect=5, read=5, total=10),
            "max_bytes": 100_000,
            "allowed_hosts": ["127.0.0.1"],
            "user_agent": "tester/1.0 (someone@example.org)",
            "threads": 2,
        }
        fetcher = Fetcher(**{**options, **changes})
        request.addfinalizer(fetcher.close)
        return fetcher.fetch(url).body

    return call


def failure(fetch: Fetch, url: str, **options: Any) -> DownloadError:
    with pytest.raises(DownloadError) as raised:
        fetch(url, **options)
    return raised.value


def test_the_request(web: Any, fetch: Fetch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    assert fetch(web.give("/a%20b.jpg?x=1", b"picture", Set_Cookie="a=b")) == b"picture"
    assert web.headers["/a%20b.jpg?x=1"] == [
        {
            "Host": f"127.0.0.1:{web.port}",
            "User-Agent": "tester/1.0 (someone@example.org)",
            "Accept": "image/*",
            "Accept-Encoding": "identity",
        }
    ]


def test_connections_are_kept_for_the_next_url(web: Any) -> None:
    fetcher = Fetcher(timeouts=Timeouts(), max_bytes=1000, allowed_hosts=["127.0.0.1"], user_agent="t/1", threads=1)
    seen: set[tuple[str, int]] = set()

    def answer(handler: Any) -> None:
        seen.add(handler.client_address)
        handler.answer(200, b"x" * 500)

    urls = [web.on(f"/{i}", answer) for i in range(4)]
    assert [len(fetcher.fetch(url).body) for url in urls] == [500] * 4
    fetcher.close()
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("status", "reason", "passing"),
    [
        (404, "not found", False),
        (410, "not found", False),
        (401, "refused by the server", False),
        (403, "refused by the server", False),
        (451, "refused by the server", False),
        (204, "refused by the server", False),
        (302, "refused by the server", False),  # without a Location
        (408, "server error", True),
        (429, "too many requests", True),
        (500, "server error", True),
        (503, "server error", True),
        (599, "server error", True),
    ],
)
def test_status(web: Any, fetch: Fetch, status: int, reason: str, passing: bool) -> None:
    error = failure(fetch, web.give("/a", b"", status, Retry_After="7"))
    assert (error.reason, error.passing, error.http_status) == (reason, passing, status)
    assert error.retry_after == (7 if passing else None)


# Redirects


def test_redirects_are_followed(web: Any, fetch: Fetch) -> None:
    web.give("/end/%C3%BC.jpg", b"picture")
    web.on("/c", lambda h: h.raw(b"HTTP/1.1 308 OK\r\nLocation: end/\xc3\xbc.jpg\r\nContent-Length: 0\r\n\r\n"))
    web.redirect("/b", "/c")
    assert fetch(web.redirect("/a", web.url("/b#part"))) == b"picture"


def test_redirects_without_end(web: Any, fetch: Fetch) -> None:
    error = failure(fetch, web.redirect("/a", "/a"))
    assert (error.reason, error.passing) == ("too many redirects", False)
    assert web.requests["/a"] == 6


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("file:///etc/passwd", "not a web address"),
        ("ftp://127.0.0.1/a", "not a web address"),
        ("//user:word@127.0.0.1/a", "not a web address"),
        ("http://[", "not a web address"),
        ("http://10.0.0.1/a", "address not allowed"),
        ("http://169.254.169.254/latest/meta-data/", "address not allowed"),
        ("http://[::1]:{port}/secret", "address not allowed"),
        ("http://localhost:{port}/secret", "address not allowed"),
        ("http://127.0.0.2:{port}/secret", "address not allowed"),
        ("http://[::ffff:127.0.0.1]:{port}/secret", "address not allowed"),
    ],
)
def test_redirects_to_forbidden_addresses(web: Any, fetch: Fetch, location: str, reason: str) -> None:
    web.give("/secret", b"secret")
    error = failure(fetch, web.redirect("/a", location.format(port=web.port)))
    assert (error.reason, error.passing) == (reason, False)
    assert web.requests == {"/a": 1}


@pytest.mark.parametrize("answers", [["127.0.0.1"], ["10.0.0.1", "127.0.0.1"], ["::1"], ["::ffff:127.0.0.1"]])
def test_a_redirect_to_a_name_with_private_addresses(
    web: Any, fetch: Fetch, monkeypatch: pytest.MonkeyPatch, answers: list[str]
) -> None:
    web.give("/secret", b"secret")
    found = {"127.0.0.1": ["127.0.0.1"], "harmless.example": answers}
    monkeypatch.setattr(addresses, "resolve", lambda host, port: found[host])
    monkeypatch.setattr(addresses, "EXTRA_PORTS", frozenset({web.port}))  # not refused because of its port
    error = failure(fetch, web.redirect("/a", web.url("/secret", "harmless.example")))
    assert error.reason == "address not allowed"
    assert error.detail == f"harmless.example is the private or local address {answers[0]}"
    assert web.requests == {"/a": 1}


def test_a_name_that_becomes_private_is_refused_at_its_next_url(
    web: Any, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [["127.0.0.1"], ["127.0.0.1"]]
    public = iter([True, False])  # the first answer passes for a public address, as one of another host would
    monkeypatch.setattr(addresses, "resolve", lambda host, port: answers.pop(0))
    monkeypatch.setattr(addresses, "is_public", lambda address: next(public))
    monkeypatch.setattr(addresses, "EXTRA_PORTS", frozenset({web.port}))
    web.give("/secret", b"secret")
    host = "rebound.example"
    error = failure(fetch, web.redirect("/a", "/secret").replace("127.0.0.1", host), allowed_hosts=[])
    assert (error.reason, error.passing) == ("address not allowed", False)
    assert web.requests == {"/a": 1}
    assert not answers


# Options for searches


def test_other_headers_no_redirects_and_the_body_of_a_refusal(web: Any, fetch: Fetch) -> None:
    options: dict[str, Any] = {"headers": {"Accept": "text/x", "X-Key": "k"}, "redirects": 0, "refusal_bytes": 10}
    assert fetch(web.give("/a", b"answer"), **options) == b"answer"
    sent = web.headers["/a"][0]
    assert (sent["Accept"], sent["X-Key"], sent["Accept-Encoding"]) == ("text/x", "k", "identity")
    assert failure(fetch, web.redirect("/b", "/a"), **options).reason == "too many redirects"
    assert web.requests["/a"] == 1
    refused = failure(fetch, web.give("/c", b"no: your key has expired", 403), **options)
    assert (refused.reason, refused.body) == ("refused by the server", b"no: your k")
    slow = web.on("/d", lambda handler: handler.drip(b"HTTP/1.1 503 No\r\nContent-Length: 9\r\n\r\n", b""))
    refused = failure(fetch, slow, **options, timeouts=Timeouts(connect=5, read=0.2, total=5))
    assert (refused.reason, refused.http_status, refused.body) == ("server error", 503, b"")


def test_an_answer_may_ask_to_wait(web: Any) -> None:
    fetcher = Fetcher(timeouts=Timeouts(), max_bytes=1000, allowed_hosts=["127.0.0.1"], user_agent="t/1", threads=1)
    assert fetcher.fetch(web.give("/a", b"busy", Retry_After="5")).retry_after == 5
    assert fetcher.fetch(web.give("/b", b"here")).retry_after is None
    fetcher.close()


# Addresses


def test_private_addresses_are_called_only_if_allowed_by_name(web: Any, fetch: Fetch) -> None:
    url = web.give("/a", b"secret")
    assert failure(fetch, url, allowed_hosts=[]).reason == "address not allowed"
    assert failure(fetch, url, allowed_hosts=["localhost"]).reason == "address not allowed"
    assert not web.requests
    assert fetch(url, allowed_hosts=["127.0.0.1"]) == b"secret"


def test_a_name_is_resolved_once_and_the_checked_address_connected_to(
    fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [["8.8.8.8"], ["127.0.0.1"]]  # DNS rebinding
    connected: list[str] = []

    def connect(address: tuple[str, int], *_: object, **__: object) -> None:
        connected.append(address[0])
        raise ConnectionRefusedError

    monkeypatch.setattr(addresses, "resolve", lambda host, port: answers.pop(0))
    monkeypatch.setattr(urllib3.util.connection, "create_connection", connect)
    assert failure(fetch, "http://pictures.example/a").reason == "connection failed"
    assert connected == ["8.8.8.8"]


def test_the_next_address_is_tried_and_the_host_named(web: Any, fetch: Fetch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "resolve", lambda host, port: ["127.0.0.2", "127.0.0.1"])  # no server at the first
    web.give("/a", b"picture")
    url = f"http://Pictures.Example:{web.port}/a"
    assert fetch(url, allowed_hosts=["pictures.example"]) == b"picture"
    assert web.headers["/a"][0]["Host"] == f"pictures.example:{web.port}"


# Time


def test_nobody_listens(web: Any, fetch: Fetch) -> None:
    web.server.server_close()
    error = failure(fetch, web.url("/a"))
    assert (error.reason, error.passing) == ("connection failed", True)


@pytest.mark.parametrize(
    ("start", "drop"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"HTTP/1.1 200 OK\r\nX: ", b"x"),
        (b"HTTP/1.1 200 OK\r\n", b"X: x\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=["body", "body without length", "chunks", "header line", "headers", "continue"],
)
def test_slow_senders_are_abandoned(web: Any, fetch: Fetch, start: bytes, drop: bytes) -> None:
    url = web.on("/a", lambda handler: handler.drip(start, drop))
    started = monotonic()
    error = failure(fetch, url, timeouts=Timeouts(connect=5, read=5, total=0.3))
    assert (error.reason, error.passing) in [("time-out", True), ("broken answer", True)]
    assert monotonic() - started < 3


def test_a_server_that_says_nothing(web: Any, fetch: Fetch) -> None:
    url = web.on("/a", lambda handler: handler.server.web.stopping.wait(20))
    error = failure(fetch, url, timeouts=Timeouts(connect=5, read=0.2, total=10))
    assert (error.reason, error.passing) == ("time-out", True)


def test_redirects_share_the_time(web: Any, fetch: Fetch) -> None:
    def slow(handler: Any) -> None:
        handler.server.web.stopping.wait(0.15)
        handler.answer(302, Location="/a")

    error = failure(fetch, web.on("/a", slow), timeouts=Timeouts(connect=5, read=5, total=0.4))
    assert error.reason == "time-out"
    assert 2 <= web.requests["/a"] <= 4


# Size


def test_the_cap_is_exact(web: Any, fetch: Fetch) -> None:
    assert len(fetch(web.give("/a", b"x" * 100_000))) == 100_000
    assert failure(fetch, web.give("/b", b"x" * 100_001)).reason == "too large"


@pytest.mark.parametrize(
    ("start", "drop"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 50_000),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 10_000),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1" * 50_000),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n", b"x" * 50_000),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9" + b"9" * 5000 + b"\r\n\r\n", b"x" * 50_000),
        (b"HTTP/1.1 200 OK\r\n", (b"X: " + b"x" * 60_000 + b"\r\n")),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 2000),
    ],
    ids=["no length", "tiny chunks", "chunk size", "announced", "absurd length", "headers", "continue"],
)
def test_endless_senders_are_abandoned(web: Any, fetch: Fetch, start: bytes, drop: bytes) -> None:
    url = web.on("/a", lambda handler: handler.drip(start, drop))
    tracemalloc.start()
    error = failure(fetch, url)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert error.reason in ("too large", "broken answer")
    assert peak < 3_000_000  # bytes; including the memory of the server itself


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + b"x" * 2000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nxxx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno number\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\nxxx",
        b"\xff\xfe\x00 no HTTP at all\r\n\r\n",
        b"HTTP/1.1 two hundred\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 5000 + b"\r\n",
        b"",
    ],
    ids=["short", "short chunk", "bad chunk", "two lengths", "no HTTP", "no status", "headers", "nothing"],
)
def test_broken_answers_are_temporary(web: Any, fetch: Fetch, answer: bytes) -> None:
    error = failure(fetch, web.on("/a", lambda handler: handler.raw(answer)))
    assert (error.reason, error.passing) == ("broken answer", True)
    assert "\n" not in str(error)


def test_bodies_compressed_without_being_asked(web: Any, fetch: Fetch) -> None:
    body = b"picture" * 100
    assert fetch(web.give("/gzip", gzip.compress(body), Content_Encoding="gzip")) == body
    assert fetch(web.give("/deflate", zlib.compress(body), Content_Encoding="Deflate")) == body
    bomb = gzip.compress(bytes(50_000_000))
    assert len(bomb) < 100_000
    assert failure(fetch, web.give("/bomb", bomb, Content_Encoding="gzip")).reason == "too large"
    assert failure(fetch, web.give("/br", body, Content_Encoding="br")).reason == "damaged image"
    assert failure(fetch, web.give("/lie", body, Content_Encoding="gzip")).reason == "damaged image"
    assert failure(fetch, web.give("/cut", gzip.compress(body)[:-9], Content_Encoding="gzip")).passing


# Opting out


@pytest.mark.parametrize(
    ("tags", "out"),
    [
        (["noai"], True),
        (["noindex, NoImageAI"], True),
        (["noindex", "noai"], True),
        (["tester: noai"], True),
        (["*: noai"], True),
        (["otherbot: noindex, tester: noai"], True),
        (["max-image-preview: large, noai"], True),
        (["unavailable_after: 25 Jun 2030 15:00:00 PST, noimageai"], True),
        (["otherbot: noindex, noai"], False),
        (["noindex, noimageindex"], False),
        (["noairplanes"], False),
        ([], False),
    ],
)
def test_opting_out(tags: list[str], out: bool) -> None:
    assert opted_out(tags, "tester") == out


def test_an_image_whose_owner_opts_out_is_not_read(web: Any, fetch: Fetch) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nX-Robots-Tag: noindex\r\nX-Robots-Tag: noai\r\n\r\nx"
    error = failure(fetch, web.on("/a", lambda handler: handler.raw(answer)))
    assert (error.reason, error.passing, error.http_status) == ("opted out", False, 200)


def test_retry_after_as_a_date() -> None:
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=100)
    assert retry_after(format_datetime(soon, usegmt=True)) == pytest.approx(100, abs=5)
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert retry_after(" 12 ") == 12
    assert retry_after("soon") is retry_after("-5") is retry_after("") is retry_after(None) is None


# TLS


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    return self_signed(tmp_path / "certificate.pem", "pictures.example")


def test_certificates_are_checked_against_the_name(
    web: Any, fetch: Fetch, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    asked_for: list[str | None] = []
    context.sni_callback = lambda _, name, __: asked_for.append(name)
    web.server.socket = context.wrap_socket(web.server.socket, server_side=True)
    web.give("/a", b"picture")
    monkeypatch.setattr(addresses, "resolve", lambda host, port: ["127.0.0.1"])

    def get(host: str) -> bytes:
        return fetch(web.url("/a", host, "https"), allowed_hosts=[host])

    untrusted = failure(lambda host: get(host), "pictures.example")
    assert (untrusted.reason, untrusted.passing) == ("bad certificate", False)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert get("pictures.example") == get("127.0.0.1") == b"picture"
    assert failure(lambda host: get(host), "other.example").reason == "bad certificate"
    assert asked_for == ["pictures.example", "pictures.example", None, "other.example"]
    assert web.requests["/a"] == 2


def test_a_server_without_tls(web: Any, fetch: Fetch) -> None:
    error = failure(fetch, web.url("/a", scheme="https"))
    assert (error.reason, error.passing) == ("connection failed", True)


@pytest.fixture
def jitter(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Set every random number to this fraction of its range."""
    return lambda f: monkeypatch.setattr("random.uniform", lambda low, high: low + f * (high - low))


def test_backoff_doubles_with_jitter_up_to_a_limit(jitter: Callable[[float], None]) -> None:
    jitter(0.5)
    assert [backoff(n, None) for n in (1, 2, 3, 20)] == [1.0, 2.0, 4.0, MAX_WAIT]
    jitter(0.0)
    assert backoff(2, None) == 1.0
    jitter(1.0)
    assert backoff(2, None) == 3.0


def test_backoff_does_as_the_server_asks_within_reason(jitter: Callable[[float], None]) -> None:
    jitter(0.0)
    assert backoff(1, 7.0) == 7.0
    assert backoff(5, 0.0) == 0.0
    assert backoff(1, MAX_WAIT + 1) is None
