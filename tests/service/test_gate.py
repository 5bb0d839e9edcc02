"""Access: keys, the rate per address, and paths that need neither; metrics count every request."""

import asyncio
from typing import Any

import pytest
from starlette.testclient import TestClient

from libraries.service.gate import OPEN, Access, RateLimiter
from libraries.service.problems import Problem
from libraries.service.service import Limits
from tests.service.conftest import ADMIN_KEY, KEY, NewClient

ADDRESS = "198.51.100.7"


@pytest.fixture(scope="module")
def guarded(new_client: NewClient) -> TestClient:
    return new_client(Limits(queue=1000), access=Access(KEY, ADMIN_KEY))


def bearer(key: str | bytes) -> dict[bytes, bytes]:
    return {b"Authorization": b"Bearer " + (key.encode() if isinstance(key, str) else key)}


@pytest.mark.parametrize("path", ["/predict", "/explain", "/score", "/v2/models/textures_svm/infer"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer(""),
        bearer("wrong"),
        bearer(KEY[:-1]),
        bearer(KEY + "x"),
        bearer(ADMIN_KEY),
        bearer("schlüssel-der-aufrufer"),
        bearer(b"\xff\xfe\x80"),
        bearer("x" * 60_000),
        {b"Authorization": KEY.encode()},
        {b"Authorization": b"Basic " + KEY.encode()},
        {b"X-Authorization": b"Bearer " + KEY.encode()},
    ],
    ids=range(12),
)
def test_without_the_key_nothing_is_read_or_computed(guarded: TestClient, path: str, headers: Any) -> None:
    answer = guarded.post(path, content=b"x", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert KEY not in answer.text and ADMIN_KEY not in answer.text


@pytest.mark.parametrize(
    "path",
    ["/model", "/metrics", "/v2", "/v2/models/textures_svm", "/nothing", "/static", "/static/../model", "/v2/"],
)
def test_all_other_paths_need_the_key(guarded: TestClient, path: str) -> None:
    assert guarded.get(path, follow_redirects=False).status_code == 401


@pytest.mark.parametrize("path", [*sorted(OPEN), "/static/app.js", "/static-offline-docs/swagger-ui-bundle.js"])
def test_open_paths_need_none(guarded: TestClient, path: str) -> None:
    assert guarded.get(path).status_code == 200


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_with_the_key_they_are_answered(guarded: TestClient, picture: bytes, scheme: str) -> None:
    headers = {"Authorization": f"{scheme} {KEY}"}
    assert guarded.get("/model", headers=headers).status_code == 200
    assert guarded.post("/predict", content=picture, headers=headers).status_code == 200


def test_administration_has_a_key_of_its_own(guarded: TestClient) -> None:
    for headers in ({}, bearer(KEY), bearer("wrong")):
        assert guarded.post("/admin/reload", headers=headers).status_code == 401
    assert guarded.post("/admin/reload", headers=bearer(ADMIN_KEY)).status_code == 200
    assert guarded.get("/model", headers=bearer(ADMIN_KEY)).status_code == 401


def test_without_an_admin_key_there_is_no_administration(client: TestClient) -> None:
    assert client.post("/admin/reload").status_code == 404
    assert client.post("/admin/reload", headers=bearer("anything")).status_code == 404


# Rate


def test_a_minutes_worth_at_once_then_429_until_there_is_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("libraries.service.gate.time.monotonic", lambda: now)
    rate = RateLimiter(6)
    for _ in range(6):
        rate.check(ADDRESS)
    with pytest.raises(Problem) as problem:
        rate.check(ADDRESS)
    assert (problem.value.status, problem.value.retry_after) == (429, 10)
    rate.check("198.51.100.8")  # another address
    now += 9.9
    with pytest.raises(Problem) as problem:
        rate.check(ADDRESS)
    assert problem.value.retry_after == 1
    now += 0.2
    rate.check(ADDRESS)
    now += 1e6
    for _ in range(6):
        rate.check(ADDRESS)
    with pytest.raises(Problem):
        rate.check(ADDRESS)


def test_a_world_of_addresses_takes_no_more_memory() -> None:
    rate = RateLimiter(1)
    for number in range(20_000):
        rate.check(str(number))
    assert len(rate._buckets) == 10_000
    with pytest.raises(Problem):
        rate.check("19999")


def test_429_says_when_to_retry_and_open_paths_do_not_count(new_client: NewClient, picture: bytes) -> None:
    client = new_client(Limits(queue=1000), access=Access(requests_per_minute=3))
    statuses = []
    for _ in range(5):
        assert client.get("/v2/health/ready").status_code == 200
        statuses.append(client.post("/predict", content=picture).status_code)
    assert statuses == [200, 200, 200, 429, 429]
    answer = client.get("/model")
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "20")
    assert answer.json()["title"] == "Too Many Requests"


# 503 is answered before the body is read


def test_busy_is_answered_before_the_body_is_read(new_client: NewClient, monkeypatch: pytest.MonkeyPatch) -> None:
    client = new_client(Limits())
    service = client.app.state.service  # type: ignore[attr-defined]
    monkeypatch.setattr(service.workers, "_ahead_of", lambda count: 10_000)
    unread = []

    async def ask(path: str) -> dict[str, Any]:
        sent = []

        async def receive() -> dict[str, Any]:
            unread.append(path)
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "client": None}
        scope["headers"] = [(b"host", b"localhost")]
        await client.app(scope, receive, send)
        return sent[0]

    for path in ("/predict", "/explain", "/score", "/v2/models/textures_svm/infer"):
        start = asyncio.run(ask(path))
        assert start["status"] == 503
        assert int(dict(start["headers"])[b"retry-after"]) > 1
    assert unread == []
    assert client.get("/v2/health/ready").status_code == 200
    assert client.get("/model").status_code == 200
    assert 'rejected_total{reason="Service Unavailable"} 4.0' in client.get("/metrics").text


def test_every_answer_forbids_guessing_its_type(guarded: TestClient) -> None:
    for path in ("/", "/model", "/nothing", "/docs"):
        assert guarded.get(path).headers["X-Content-Type-Options"] == "nosniff"
