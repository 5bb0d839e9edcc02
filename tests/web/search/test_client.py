"""The client: polite, persistent, and without revealing the key."""

import logging
from collections.abc import Callable
from typing import Any

import pytest

from libraries.base.errors import ParameterError, SearchError
from libraries.web import addresses
from libraries.web.fetch import Timeouts
from libraries.web.search.client import SearchClient, user_agent
from libraries.web.search.openverse import SERVICE
from libraries.web.search.providers import SERVICES, first_images, open_provider
from tests import fake_search
from tests.fake_search import KEY, FakeSearch, Reply

Open = Callable[..., Any]
Waits = list[tuple[int, float | None]]


def failure(provider: Any) -> str:
    with pytest.raises(SearchError) as raised:
        first_images(provider, "cat", count=5)
    assert "\n" not in str(raised.value)
    return str(raised.value)


# Refusals


@pytest.mark.parametrize(
    ("name", "status", "body", "message"),
    [
        (
            "openverse",
            400,
            {"error": "InputError", "detail": "Invalid input given.", "fields": ["q"]},
            "openverse rejects this query (HTTP 400, 'Invalid input given.'): change it, or check searchUrl",
        ),
        ("openverse", 404, b"<html>", "openverse rejects this query (HTTP 404): change it, or check "),
        (
            "openverse",
            401,
            {"detail": "Authentication credentials were not provided."},
            "openverse refuses (HTTP 401, 'Authentication credentials were not provided.'): perhaps this network",
        ),
        ("wikimedia", 403, b"Please set a user-agent", "wikimedia refuses (HTTP 403): set searchContact to "),
        (
            "brave",
            401,
            {"type": "ErrorResponse", "error": {"code": "X", "detail": f"The token {KEY} is invalid."}},
            "brave refuses (HTTP 401, 'The token *** is invalid.'): check the key in BRAVE_API_KEY",
        ),
        ("brave", 422, {"error": {"detail": "too long"}}, "brave rejects this query (HTTP 422, 'too long')"),
        (
            "serpapi",
            401,
            {"error": f"Invalid API key: {KEY}."},
            "serpapi refuses (HTTP 401, 'Invalid API key: ***.'): check the key in SERPAPI_API_KEY",
        ),
        ("serpapi", 403, {"error": ["\x1b[2J"]}, "serpapi refuses (HTTP 403): check the key in SERPAPI_API_KEY"),
    ],
)
def test_refusals_end_the_search_at_once(
    fake: FakeSearch, provider: Open, waits: Waits, name: str, status: int, body: Any, message: str
) -> None:
    fake.answers = [lambda _: Reply(body, status)]
    assert failure(provider(name)).startswith(message)
    assert len(fake.requests) == 1
    assert not waits


def test_openverse_refuses_large_pages_and_none_is_requested(fake: FakeSearch, provider: Open) -> None:
    """The fake answers like the service; a client that requests 50 at once would fail here."""
    fake.answers = [fake_search.openverse(100)]
    assert len(first_images(provider("openverse"), "cat", count=50)) == 50


# Temporary failures


@pytest.mark.parametrize("name", list(SERVICES))
@pytest.mark.parametrize(("status", "retry_after"), [(429, "7"), (429, None), (500, None), (503, "2"), (502, "soon")])
def test_temporary_failures_are_retried(
    fake: FakeSearch, provider: Open, waits: Waits, name: str, status: int, retry_after: str | None
) -> None:
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    working = getattr(fake_search, name)(3)
    fake.answers = [
        lambda _: Reply(b"", status, headers),
        lambda _: Reply({"detail": "later"}, status, headers),
        working,
    ]
    assert len(first_images(provider(name), "cat", count=5)) == 3
    asked = float(retry_after) if retry_after and retry_after.isdecimal() else None
    assert waits == [(1, asked), (2, asked)]
    assert len(fake.requests) == 3


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (
            429,
            "openverse has received too many requests (HTTP 429, 'Request was throttled.'; it asks to wait 9 s): run",
        ),
        (
            503,
            "openverse is out of order (HTTP 503, 'Request was throttled.'): run the script again later: it",
        ),
    ],
)
def test_retries_end(fake: FakeSearch, provider: Open, waits: Waits, status: int, message: str) -> None:
    fake.answers = [lambda _: Reply({"detail": "Request was throttled."}, status, {"Retry-After": "9"})]
    assert failure(provider("openverse", retries=2)).startswith(message)
    assert len(fake.requests) == 3
    assert waits == [(1, 9.0), (2, 9.0)]


def test_a_long_wait_is_left_to_the_next_run(fake: FakeSearch, provider: Open) -> None:
    fake.answers = [lambda _: Reply(b"", 429, {"Retry-After": "86400"})]
    assert "it asks to wait 86400 s): run the script again later" in failure(provider("openverse"))
    assert len(fake.requests) == 1


def test_a_slow_service(fake: FakeSearch, provider: Open, waits: Waits) -> None:
    def slow(_: fake_search.Request) -> Reply:
        fake.stopping.wait(20)
        return Reply({})

    fake.answers = [slow, fake_search.openverse(3)]
    short = {"timeouts": Timeouts(connect=5, read=0.5, total=5), "retries": 1}
    assert len(first_images(provider("openverse", **short), "cat", count=5)) == 3
    assert waits == [(1, None)]
    fake.answers = [slow]
    assert "gave no answer at http://127.0.0.1:" in (message := failure(provider("openverse", **short)))
    assert "(time-out: " in message and "check the connection, or searchUrl" in message


def test_an_answer_without_end(fake: FakeSearch, provider: Open) -> None:
    fake.answers = [lambda _: Reply(b'{"results": [' + b"1," * 6_000_000)]
    assert "(too large: more than 10,000,000 bytes)" in failure(provider("openverse"))
    assert len(fake.requests) == 1


def test_a_service_that_cannot_be_reached(fake: FakeSearch, provider: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    client = provider("openverse")
    fake.server.server_close()
    assert f"openverse gave no answer at {fake.url} (connection failed: " in failure(client)

    def unknown(*_: object, **__: object) -> None:
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr(addresses.socket, "getaddrinfo", unknown)
    message = failure(provider("openverse", url=None, sleep=lambda _: None))
    assert message == (
        "openverse gave no answer at https://api.openverse.org (host not found: api.openverse.org: Name or service not "
        "known): check the connection, or searchUrl; then run the script again later: it continues where it stopped"
    )


def test_private_addresses_are_called_only_if_named(fake: FakeSearch, provider: Open) -> None:
    message = failure(provider("openverse", allowed_hosts=[]))
    assert message.startswith("openverse was not called: port ") and "add the host to download_allowedHosts" in message
    assert not fake.requests


def test_redirects_are_not_followed(fake: FakeSearch, provider: Open) -> None:
    """They could send the key to another server."""
    fake.answers = [lambda _: Reply(b"", 302, {"Location": f"{fake.url}/elsewhere"}), fake_search.brave(3)]
    assert failure(provider("brave")).startswith(f"brave has moved away from {fake.url}: give its new address with")
    assert len(fake.requests) == 1


# Intervals between requests


def test_requests_keep_an_interval_and_never_overlap(fake: FakeSearch) -> None:
    now = 100.0
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        nonlocal now
        slept.append(seconds)
        now += seconds

    fake.answers = [lambda _: Reply({"results": []})]
    client = SearchClient(SERVICE, url=fake.url, allowed_hosts=["127.0.0.1"], sleep=sleep, clock=lambda: now)
    client._interval = SERVICE.interval  # as for a server elsewhere
    for pause in (0.0, 1.0, 10.0):
        now += pause
        client.ask({"q": "cat"})
    client.close()
    assert slept == [2.0]  # 3 seconds after the first, one of which had passed; none were left before the third
    assert all(a.ended <= b.began for a, b in zip(fake.requests, fake.requests[1:], strict=False))


def test_services_are_called_as_often_as_they_allow() -> None:
    assert {name: service.interval for name, service in SERVICES.items()} == {
        "openverse": 3.0,
        "wikimedia": 1.0,
        "brave": 1.1,
        "serpapi": 1.0,
    }


@pytest.mark.parametrize(
    ("url", "pause"), [(None, 3.0), ("https://mirror.example", 3.0), ("http://localhost:8000", 0.0)]
)
def test_only_a_server_on_this_machine_is_called_without_pauses(url: str | None, pause: float) -> None:
    client = SearchClient(SERVICE, url=url)
    client.close()
    assert client._interval == pause


def test_the_user_agent(fake: FakeSearch, provider: Open) -> None:
    fake.answers = [fake_search.openverse(1)]
    first_images(provider("openverse", contact="https://example.org/me"), "cat", count=1)
    headers = fake.requests[0].headers
    assert headers["User-Agent"] == "image-classification-pipeline/0.1 (https://example.org/me)"
    assert headers["Accept"] == "application/json"
    assert user_agent(None) == user_agent("") == "image-classification-pipeline/0.1"


@pytest.mark.parametrize("contact", ["a\r\nX: y", "käse@example.org", "x" * 201])
def test_invalid_contacts(contact: str) -> None:
    with pytest.raises(ParameterError, match="searchContact: expected"):
        user_agent(contact)


def test_wikimedia_needs_a_contact() -> None:
    with pytest.raises(ParameterError, match="wikimedia needs a contact: set searchContact"):
        SearchClient(SERVICES["wikimedia"])


# Keys


@pytest.mark.parametrize(("name", "variable"), [("brave", "BRAVE_API_KEY"), ("serpapi", "SERPAPI_API_KEY")])
def test_missing_and_invalid_keys(monkeypatch: pytest.MonkeyPatch, name: str, variable: str) -> None:
    for value, words in [(None, f"set the environment variable {variable}"), ("", variable), ("a\nX: b", "characters")]:
        if value is None:
            monkeypatch.delenv(variable, raising=False)
        else:
            monkeypatch.setenv(variable, value)
        with pytest.raises(ParameterError, match=words), open_provider(name):
            pass


@pytest.mark.parametrize("name", ["brave", "serpapi"])
def test_keys_are_not_sent_unencrypted(fake: FakeSearch, name: str) -> None:
    with (
        pytest.raises(ParameterError, match=r"http://elsewhere\.example/: the key would be sent unencrypted"),
        open_provider(name, url="http://elsewhere.example"),
    ):
        pass


@pytest.mark.parametrize("name", ["brave", "serpapi"])
def test_keys_appear_in_no_log_and_no_error(
    fake: FakeSearch, provider: Open, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    echo = {"error": f"{KEY} a%2Bsecret%2Fkey-0123456789"}
    cut = {"error": "x" * 190 + KEY}  # where a message is cut off
    replies = [
        Reply(cut, 403),
        Reply(cut),
        Reply(echo, 401),
        Reply(echo, 429),
        Reply(echo, 500),
        Reply(echo, 418),
        Reply(b"", 302),
    ]
    for reply in replies:
        reply.headers["Location"] = f"http://127.0.0.1/?api_key={KEY}"
        fake.answers = [lambda _, reply=reply: reply]
        assert "secret" not in failure(provider(name))
    fake.answers = [getattr(fake_search, name)(3)]
    first_images(provider(name), "cat", count=5)
    fake.server.server_close()
    fake.server.shutdown()
    assert "secret" not in failure(provider(name))
    assert caplog.records  # of urllib3, at its most talkative
    assert "secret" not in caplog.text


@pytest.mark.parametrize("url", ["api.openverse.org", "ftp://api.openverse.org", "http://", "http://a:b@c/"])
def test_invalid_addresses(url: str) -> None:
    with pytest.raises(ParameterError, match="searchUrl: not a web address"):
        SearchClient(SERVICE, url=url)


def test_a_base_with_a_path(fake: FakeSearch, provider: Open) -> None:
    fake.answers = [fake_search.openverse(1)]
    first_images(provider("openverse", url=f"{fake.url}/mirror/"), "cat", count=1)
    assert fake.requests[0].path == "/mirror/v1/images/"
