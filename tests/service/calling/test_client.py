"""The client against a service on loopback that answers well, badly, slowly and wrongly."""

import base64
import contextlib
import email.utils
import json
import logging
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from libraries.base.errors import ParameterError, ServiceError
from libraries.service.calling.client import Client
from libraries.service.calling.connection import MAX_ANSWER, MAX_WAITING, MOST_IN_VAIN
from tests.certificates import self_signed
from tests.fake_service import (
    MODEL,
    SCORE,
    Behaviour,
    FakeService,
    Handler,
    Request,
    give,
    prediction,
    problem,
    running,
)

IMAGE = b"the bytes of an image"
KEY = "0123456789-secret"

Make = Callable[..., Client]


@pytest.fixture
def sleeps() -> list[float]:
    """The seconds that the client would have slept."""
    return []


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove proxies from the environment."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def client(fake: FakeService, sleeps: list[float]) -> Make:
    """Makes clients of the fake service that do not really sleep."""
    random.seed(0)

    def make(path: str = "", **options: Any) -> Client:
        return Client(fake.url + path, **{"sleep": sleeps.append, "timeout": 10.0, **options})

    return make


def refused(call: Callable[[], object]) -> ServiceError:
    """The error of a call, which is one line of printable characters."""
    with pytest.raises(ServiceError) as raised:
        call()
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 600
    return raised.value


# Requests, and how answers are parsed


def test_predict_sends_the_image_unchanged(fake: FakeService, client: Make) -> None:
    answer = client(key=KEY).predict(IMAGE)
    assert (answer.label, answer.probability) == ("functional", 0.75)
    assert list(answer.probabilities.items()) == [("functional", 0.75), ("defective", 0.25)]
    assert answer.model == "cells_svm 3f2a9c0d11ee"
    assert answer.server_milliseconds == 0.001
    assert answer.overhead_milliseconds == answer.milliseconds - 0.001 > 0
    (request,) = fake.requests
    assert (request.method, request.path, request.body) == ("POST", "/predict", IMAGE)
    assert request.headers["Content-Type"] == "application/octet-stream"
    assert request.headers["Authorization"] == f"Bearer {KEY}"
    assert request.headers["Accept-Encoding"] == "identity"


def test_score_speaks_the_tutorials_contract(fake: FakeService, client: Make) -> None:
    score = client().score(IMAGE)
    assert (score.label, score.probability) == ("functional", 0.75)
    assert score.probabilities == {"defective": 0.25, "functional": 0.75}
    (request,) = fake.requests
    assert (request.method, request.headers["Content-Type"]) == ("POST", "application/json")
    assert json.loads(request.body) == {"input_df": [{"image base64 string": base64.b64encode(IMAGE).decode()}]}
    assert "Authorization" not in request.headers


@pytest.mark.parametrize(
    ("given", "score", "predict"),
    [
        ("", "/score", "/predict"),
        ("/", "/score", "/predict"),
        ("/score", "/score", "/predict"),
        ("/score/", "/score", "/predict"),
        ("/cells", "/cells/score", "/cells/predict"),
        ("/api/v1/score", "/api/v1/score", "/api/v1/predict"),
        ("/invocations", "/invocations", "/predict"),
    ],
)
def test_base_address_and_scoring_uri_both_work(
    fake: FakeService, client: Make, given: str, score: str, predict: str
) -> None:
    fake.on(score, give(SCORE))
    fake.on(predict, give(prediction()))
    client(given).score(IMAGE)
    client(given).predict(IMAGE)
    assert [request.path for request in fake.requests] == [score, predict]
    table = "dataframe_records" if given == "/invocations" else "input_df"
    assert list(json.loads(fake.requests[0].body)) == [table]


@pytest.mark.parametrize(
    "content", [SCORE, [SCORE], json.dumps(SCORE), {"predictions": [SCORE]}, {**SCORE, "score": 0.7500001, "more": 1}]
)
def test_score_understands_azure_and_mlflow(fake: FakeService, client: Make, content: object) -> None:
    fake.on("/score", give(content))
    assert client().score(IMAGE).probabilities == {"defective": 0.25, "functional": 0.75}


def test_model(fake: FakeService, client: Make) -> None:
    fake.on("/model", give({**MODEL, "metrics": {"overall_accuracy": 0.86}}))
    assert client().model() == {**MODEL, "metrics": {"overall_accuracy": 0.86}}
    assert fake.requests[0].method == "GET"


def test_large_images_arrive_whole_and_connections_are_kept(fake: FakeService, client: Make) -> None:
    large = random.Random(0).randbytes(3_000_001)
    with client() as kept:
        for image in (large, IMAGE, b""):
            kept.predict(image)
    assert [request.body for request in fake.requests] == [large, IMAGE, b""]
    assert len({request.peer for request in fake.requests}) == 1


# Retries


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_temporary_failures_are_retried(fake: FakeService, client: Make, sleeps: list[float], status: int) -> None:
    fake.on("/predict", give(problem(status, "a moment"), status), give(prediction()))
    assert client().predict(IMAGE).label == "functional"
    assert [request.body for request in fake.requests] == [IMAGE, IMAGE]
    assert len(sleeps) == 1
    assert 0.5 <= sleeps[0] <= 1.5


def test_retries_wait_longer_each_time_and_end(fake: FakeService, client: Make, sleeps: list[float]) -> None:
    fake.on("/predict", give(problem(503, "the queue is full", "Busy"), 503))
    error = refused(lambda: client(retries=4).predict(IMAGE))
    assert str(error) == f"{fake.url}/predict is too busy (503: the queue is full): try again later"
    assert (error.status, error.reason, error.passing) == (503, "Busy", True)
    assert len(fake.requests) == 5
    assert all(0.5 * 2**i <= pause <= 1.5 * 2**i for i, pause in enumerate(sleeps))
    assert len(sleeps) == 4


def test_closed_client_does_not_retry(fake: FakeService, client: Make, sleeps: list[float]) -> None:
    asking = client()

    def closes(handler: Handler, _: Request) -> None:
        with asking:
            pass
        handler.reset()

    fake.on("/predict", closes)
    assert refused(lambda: asking.predict(IMAGE)).passing
    assert (len(fake.requests), sleeps) == (1, [])


@pytest.mark.parametrize(("told", "status"), [("422", 422), ("503", 503), ("200", 424), ("4x2", 424), ("", 424)])
def test_status_that_azure_reports_in_a_header(fake: FakeService, client: Make, told: str, status: int) -> None:
    header = {"ms_azureml_model_error_statuscode": told}
    fake.on("/score", give(problem(status, "no picture"), 424, **header))
    error = refused(lambda: client(retries=0).score(IMAGE))
    assert (error.status, error.passing) == (status, status == 503)
    assert ("the image is refused" in str(error)) == (status == 422)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_honoured(fake: FakeService, client: Make, sleeps: list[float], status: int, form: str) -> None:
    value = "20" if form == "seconds" else email.utils.formatdate(time.time() + 20, usegmt=True)
    fake.on("/predict", give(b"", status, Retry_After=value), give(prediction()))
    client().predict(IMAGE)
    assert len(sleeps) == 1
    assert 18 <= sleeps[0] <= 20.5


@pytest.mark.parametrize("value", ["3600", "9" * 5000, "Fri, 01 Jan 2100 00:00:00 GMT"])
def test_a_long_retry_after_is_not_waited_for(fake: FakeService, client: Make, sleeps: list[float], value: str) -> None:
    fake.on("/predict", give(b"", 503, Retry_After=value))
    refused(lambda: client().predict(IMAGE))
    assert len(fake.requests) == 1
    assert sleeps == []


@pytest.mark.parametrize("value", ["", "soon", "-5", "1e9", "Thu, 99 Jan 2026 00:00:00 GMT"])
def test_an_invalid_retry_after_is_ignored(fake: FakeService, client: Make, sleeps: list[float], value: str) -> None:
    fake.on("/predict", give(b"", 503, Retry_After=value), give(prediction()))
    client().predict(IMAGE)
    assert 0.5 <= sleeps[0] <= 1.5


def test_the_sum_of_the_waits_of_a_request_is_bounded(fake: FakeService, client: Make, sleeps: list[float]) -> None:
    fake.on("/predict", give(b"", 503, Retry_After="50"))
    refused(lambda: client(retries=100).predict(IMAGE))
    assert len(sleeps) == 2
    assert sum(sleeps) <= MAX_WAITING


@pytest.mark.parametrize("behaviour", [Handler.reset, lambda handler: handler.raw(b"")], ids=["reset", "closed"])
def test_broken_connections_are_reopened(
    fake: FakeService, client: Make, sleeps: list[float], behaviour: Callable[[Handler], None]
) -> None:
    fake.on("/predict", lambda handler, _: behaviour(handler), give(prediction()))
    assert client().predict(IMAGE).label == "functional"
    assert len(sleeps) == 1
    fake.on("/predict", lambda handler, _: behaviour(handler))
    error = refused(lambda: client(retries=1).predict(IMAGE))
    assert f"the connection to {fake.url}/predict broke off" in str(error)
    assert error.reason == "the connection broke off"


def test_a_request_is_sent_again_whose_kept_connection_is_closed_meanwhile(fake: FakeService, client: Make) -> None:
    fake.on("/predict", give(prediction()), lambda handler, _: handler.raw(b""), give(prediction()))
    with client() as kept:
        for _ in range(2):
            kept.predict(IMAGE)
    first, second, again = fake.requests
    assert first.peer == second.peer != again.peer
    assert second.body == again.body == IMAGE


def test_a_connection_closed_while_idle_is_reopened(fake: FakeService, client: Make) -> None:
    def answer_and_leave(handler: Handler, _: Request) -> None:
        handler.answer(200, json.dumps(prediction()).encode())
        handler.close_connection = True

    fake.on("/predict", answer_and_leave)
    with client() as kept:
        for _ in range(3):
            kept.predict(IMAGE)
    assert len({request.peer for request in fake.requests if request.path == "/predict"}) == 3


def test_without_a_service_the_error_says_how_to_start_it(sleeps: list[float]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    error = refused(lambda: Client(f"http://127.0.0.1:{port}", sleep=sleeps.append).predict(IMAGE))
    assert f"no service answers at http://127.0.0.1:{port}: start one with python scripts/deploymain.py" in str(error)
    assert error.reason == "no connection"
    assert len(sleeps) == MOST_IN_VAIN == 2


def test_service_that_has_answered_once_is_waited_for_longer(
    fake: FakeService, client: Make, sleeps: list[float]
) -> None:
    fake.on("/predict", give(prediction()), lambda handler, _: handler.reset())
    with client(retries=5) as kept:
        kept.predict(IMAGE)
        refused(lambda: kept.predict(IMAGE))
    assert len(sleeps) == 5


# Refusals

FINAL = {
    301: "redirects to elsewhere; redirects are not followed",
    400: "answers with an error (400: so it is)",
    402: "answers with an error (402: so it is)",
    401: "needs a key: set the environment variable SERVICE_KEY, or give a file with --keyFile",
    403: "needs a key",
    404: "does not exist (404: so it is): is --url the address of a service of scripts/deploymain.py?",
    405: "does not exist (405: so it is)",
    413: "the image is refused: so it is",
    415: "the image is refused: so it is",
    422: "the image is refused: so it is",
    204: "answers with an error (204",
}


@pytest.mark.parametrize(("status", "text"), FINAL.items())
@pytest.mark.parametrize("method", ["predict", "score"])
def test_permanent_failures_are_reported_at_once(
    fake: FakeService, client: Make, sleeps: list[float], method: str, status: int, text: str
) -> None:
    fake.on(f"/{method}", give(problem(status, "so it is", "A problem") if status != 204 else b"", status))
    error = refused(lambda: getattr(client(), method)(IMAGE))
    assert text in str(error)
    assert error.status == status
    assert error.reason == ("A problem" if status != 204 else "No Content")
    assert not error.passing
    assert (len(fake.requests), sleeps) == (1, [])


def test_wrong_key_is_reported_and_not_printed(fake: FakeService, client: Make) -> None:
    fake.on("/predict", give(problem(401, "wrong key"), 401))
    error = refused(lambda: client(key=KEY).predict(IMAGE))
    assert str(error) == f"{fake.url}/predict refuses the key (401: wrong key): check SERVICE_KEY or --keyFile"


def test_redirects_are_not_followed_and_keys_are_not_sent_elsewhere(fake: FakeService, client: Make) -> None:
    with running() as stranger:
        for status in (301, 302, 303, 307, 308):
            fake.on("/predict", give(b"", status, Location=f"{stranger.url}/predict"))
            error = refused(lambda: client(key=KEY).predict(IMAGE))
            assert f"redirects to {stranger.url}/predict; redirects are not followed" in str(error)
        assert stranger.requests == []


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"message": "run() failed"}', "run() failed"),  # azureml-inference-server-http
        (b'{"error_code": "BAD_REQUEST", "message": "no schema"}', "no schema"),  # MLflow
        (b'{"error": {"message": "nested"}}', "nested"),
        (b"<html>\r\n\tBad   gateway</html>", "<html> Bad gateway</html>"),
        (b'["a list"]', "['a list']"),
        (b"", "Bad Gateway"),
        (b"[" * 100_000, "[[[["),
        (problem(502, "\x1b[2J\x07red\u202e\nalert\x00" * 3), "[2J red alert [2J red"),
        (problem(502, "long " * 10_000), "long long…)"),
    ],
)
def test_errors_of_other_servers_are_shown_without_control_characters(
    fake: FakeService, client: Make, body: bytes, said: str
) -> None:
    fake.on("/predict", give(body, 502))
    assert said in str(refused(lambda: client(retries=0).predict(IMAGE)))


# Invalid answers


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>Welcome</html>",
        b"\xff\xfe\x00",
        b'{"label": "functional"',
        b"[" * 500_000,
        b"1" * 10_000,
        b"null",
        b"true",
        b"[]",
        b"{}",
        b'"text"',
        b'"' + b"[" * 10_000 + b'"',
        *(json.dumps({**SCORE, **change}).encode() for change in ({"label": "other"}, {"label": None}, {"label": 7})),
        *(
            json.dumps({**SCORE, "allScores": values}).encode()
            for values in ([], [1], [0.2, 0.3, 0.5], "ab", [True, 1])
        ),
        *(
            json.dumps({**SCORE, "allScores": [value, 0.5]}).encode()
            for value in (-0.1, 1.1, "0.5", None, float("nan"))
        ),
        *(
            json.dumps({**SCORE, "Id2Labels": names}).encode()
            for names in (["a"], {"0": "a", "1": "a"}, {"0": 1}, None)
        ),
        *(json.dumps({**SCORE, "executionTimeMs": ms}).encode() for ms in (None, "fast", -1, float("inf"), 10**400)),
    ],
)
def test_answers_of_the_wrong_shape_are_not_understood(fake: FakeService, client: Make, body: bytes) -> None:
    fake.on("/score", give(body))
    error = refused(lambda: client().score(IMAGE))
    assert f"the answer of {fake.url}/score is not understood: " in str(error)
    assert "is --url the address of a service of this project?" in str(error)
    assert error.reason == "answer not understood"
    assert len(fake.requests) == 1


@pytest.mark.parametrize(
    "content",
    [
        SCORE,
        [],
        {"predictions": []},
        {"predictions": [prediction()["predictions"][0]] * 2},
        {**prediction(), "model": "cells"},
        {**prediction(), "milliseconds": {}},
        {"predictions": [{"label": "a", "probabilities": [{"label": "b", "probability": 1}]}]},
        {"predictions": [{"label": "a", "probabilities": [{"label": "a"}]}]},
    ],
)
def test_predictions_of_the_wrong_shape_are_not_understood(fake: FakeService, client: Make, content: object) -> None:
    fake.on("/predict", give(content))
    assert "/predict is not understood: " in str(refused(lambda: client().predict(IMAGE)))


@pytest.mark.parametrize(
    "content",
    [
        [],
        {},
        {**MODEL, "labels": []},
        {**MODEL, "labels": ["a", "a"]},
        {**MODEL, "labels": "ab\x00"},
        {"labels": ["a"]},
    ],
)
def test_models_of_the_wrong_shape_are_not_understood(fake: FakeService, client: Make, content: object) -> None:
    fake.on("/model", give(content))
    assert "/model is not understood: " in str(refused(lambda: client().model()))


def test_labels_lose_their_control_characters(fake: FakeService, client: Make) -> None:
    fake.on(
        "/score", give({**SCORE, "Id2Labels": {"0": "de\x1b[31mfective", "1": "func\ntional"}, "label": "func\ntional"})
    )
    assert client().score(IMAGE).probabilities == {"de [31mfective": 0.25, "func tional": 0.75}


@pytest.mark.parametrize("error", [{"title": "Not an image", "detail": "begins with b'hello'"}, "begins with b'hello'"])
def test_error_inside_an_answer_is_the_image_s(fake: FakeService, client: Make, error: object) -> None:
    fake.on("/score", give([{"error": error}]))
    fake.on("/predict", give({**prediction(), "predictions": [{"name": None, "error": error}]}))
    for call in (client().score, client().predict):
        found = refused(lambda call=call: call(IMAGE))
        assert str(found) == "the image is refused: begins with b'hello'"
        assert found.status == 422


HEAD = b"HTTP/1.1 200 OK\r\n"
DRIPS: dict[str, Behaviour] = {
    "nothing": lambda handler, _: handler.hang(),
    "header": lambda handler, _: handler.endless(HEAD, b"X", 0.02),
    "headers": lambda handler, _: handler.endless(HEAD, b"X: y\r\n", 0.02),
    "body": lambda handler, _: handler.endless(HEAD + b"Content-Length: 99999\r\n\r\n", b" ", 0.02),
    "chunks": lambda handler, _: handler.endless(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n", 0.02),
    "informational": lambda handler, _: handler.endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.02),
}


@pytest.mark.parametrize("drip", DRIPS)
def test_answers_without_end_are_abandoned(fake: FakeService, client: Make, drip: str) -> None:
    fake.on("/predict", DRIPS[drip])
    started = time.monotonic()
    error = refused(lambda: client(timeout=0.3, retries=1).predict(IMAGE))
    assert time.monotonic() - started < 3
    if drip == "nothing":
        assert str(error) == f"{fake.url}/predict gave no answer within 0.3 s: try again later"
        assert error.passing
    elif drip != "informational":  # the most that http.client accepts
        assert str(error) == f"the answer of {fake.url}/predict arrives too slowly: it is incomplete after 0.3 s"
        assert not error.passing
        assert fake.counts["/predict"] == 1, "nor would it be faster the next time"


FLOODS: dict[str, Behaviour] = {
    "declared": lambda handler, _: handler.answer(200, b" " * (MAX_ANSWER + 1)),
    "chunked": lambda handler, _: handler.endless(
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b" " * 65_536 + b"\r\n", 0
    ),
    "until it closes": lambda handler, _: handler.endless(HEAD + b"Connection: close\r\n\r\n", b" " * 65_536, 0),
    "an error": lambda handler, _: handler.answer(400, b" " * (MAX_ANSWER + 1)),
    "headers": lambda handler, _: handler.endless(HEAD, b"X: " + b"y" * 60_000 + b"\r\n", 0),
    "framing": lambda handler, _: handler.endless(
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n", (b"1;" + b"x" * 4000 + b"\r\n \r\n") * 16, 0
    ),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_answers_are_bounded_in_size(fake: FakeService, client: Make, flood: str) -> None:
    fake.on("/predict", FLOODS[flood])
    error = refused(lambda: client(retries=0).predict(IMAGE))
    assert error.reason in ("answer not understood", "the connection broke off")
    if flood in ("declared", "chunked", "until it closes", "an error"):
        assert "it has more than 1,048,576 bytes" in str(error)


def test_answers_are_not_decompressed(fake: FakeService, client: Make) -> None:
    fake.on("/predict", give(b"\x1f\x8b compressed without being asked", Content_Encoding="gzip"))
    assert "is not understood: expected JSON" in str(refused(lambda: client().predict(IMAGE)))


# Addresses, keys and proxies


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8080",
        "ftp://127.0.0.1",
        "http://",
        "http://:8080",
        "http://host:port",
        "http://user:password@host",
        "http://host/score?code=1",
        "http://ho st",
        "http://host\r\nX: y",
        "http://[::1",
        "http://" + "x" * 9000,
    ],
)
def test_invalid_urls_are_refused_in_one_line(url: str) -> None:
    with pytest.raises(ParameterError) as raised:
        Client(url)
    assert str(raised.value).startswith("url = ")
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize("key", ["", "short", KEY + "\r\nX: y", "schlüssel-mit-umlaut"])
def test_invalid_keys_are_refused(key: str) -> None:
    with pytest.raises(ParameterError, match="key"):
        Client("http://127.0.0.1", key=key)


@pytest.mark.parametrize("url", ["http://8.8.8.8", "http://[2606:4700::1111]/score", "http://cells.example:8080"])
def test_keys_are_not_sent_over_the_internet_unencrypted(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *a, **k: resolve(host.replace("cells.example", "8.8.8.8"), *a, **k)
    )
    with pytest.raises(ParameterError, match="the key would be sent unencrypted: use https://"):
        Client(url, key=KEY)
    Client(url)
    Client(url.replace("http:", "https:"), key=KEY)


def test_keys_are_not_sent_to_an_unknown_host(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    assert "there is no host nowhere.example" in str(refused(lambda: Client("http://nowhere.example", key=KEY)))
    error = refused(lambda: Client("http://nowhere.example", retries=0).predict(IMAGE))
    assert str(error) == "there is no host nowhere.example: check --url, and the connection to the network"


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        ("http://127.0.0.1:1", False),
        ("http://[::1]:1", False),
        ("http://localhost:1", False),
        ("https://10.0.0.1", False),
        ("http://10.0.0.1", True),
        ("http://192.168.1.5:8080/score", True),
    ],
)
def test_keys_go_unencrypted_into_private_networks_with_a_warning(
    url: str, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        Client(url, key=KEY)
    assert [KEY in record.getMessage() for record in caplog.records] == [False] * warned
    assert all("the key is sent to http://" in record.getMessage() for record in caplog.records)


def test_no_secure_connection(fake: FakeService) -> None:
    error = refused(lambda: Client(fake.url.replace("http:", "https:"), key=KEY).predict(IMAGE))
    assert "no secure connection to https://127.0.0.1:" in str(error)
    assert "check --url, https:// included" in str(error)


@pytest.mark.parametrize("name", ["http_proxy", "all_proxy"])
def test_this_machine_is_reached_without_a_proxy_and_others_through_it(
    fake: FakeService, client: Make, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with running() as proxy:
        proxy.on("http://cells.example/predict", give(prediction()))
        monkeypatch.setenv(name, proxy.url.replace("http://", "http://user:pass%20word@"))
        assert client().predict(IMAGE).label == "functional"
        assert proxy.requests == []
        assert Client("http://cells.example").predict(IMAGE).label == "functional"
        (request,) = proxy.requests
        login = base64.b64encode(b"user:pass word").decode()
        assert request.headers["Proxy-Authorization"] == f"Basic {login}"
        assert request.headers["Host"] == "cells.example"
        monkeypatch.setenv("no_proxy", "cells.example")
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [])
        refused(lambda: Client("http://cells.example", retries=0).predict(IMAGE))
        assert len(proxy.requests) == 1


def tunnel(address: tuple[str, int]) -> Behaviour:
    """What a proxy does with CONNECT: it passes on bytes, both ways, without understanding them."""

    def pass_on(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def connect(handler: Handler, _: Request) -> None:
        handler.raw(b"HTTP/1.1 200 Connection established\r\nX: y\r\n\r\n")
        with socket.create_connection(address) as far:
            back = threading.Thread(target=pass_on, args=(far, handler.connection))
            back.start()
            pass_on(handler.connection, far)
            back.join()

    return connect


def test_a_cloud_behind_a_proxy(fake: FakeService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = self_signed(tmp_path / "certificate.pem", "cells.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    fake.server.socket = context.wrap_socket(fake.server.socket, server_side=True)

    def predict(host: str) -> str:
        with Client(f"https://{host}", key=KEY, retries=0) as client:
            return client.predict(IMAGE * 10_000).label

    with running() as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        for host in ("cells.example", "other.example"):
            proxy.on(f"{host}:443", tunnel(fake.server.server_address))
        assert "certificate verify failed" in str(refused(lambda: predict("cells.example")))
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert predict("cells.example") == "functional"
        assert "no secure connection to https://other.example" in str(refused(lambda: predict("other.example")))
        (request,) = fake.requests
        assert (request.headers["Authorization"], request.body) == (f"Bearer {KEY}", IMAGE * 10_000)
        assert all("Authorization" not in request.headers for request in proxy.requests)
        proxy.on("cells.example:443", give(b"", 407))
        error = refused(lambda: predict("cells.example"))
        assert "the proxy for https://cells.example/predict fails (Tunnel connection failed: 407" in str(error)


def test_proxies_that_fail_or_cannot_be_used_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    monkeypatch.setenv("https_proxy", f"127.0.0.1:{port}")
    error = refused(lambda: Client("https://cells.example", key=KEY, retries=0).predict(IMAGE))
    assert "the proxy for https://cells.example/predict fails" in str(error)
    monkeypatch.setenv("https_proxy", "socks5://127.0.0.1:1")
    with pytest.raises(ParameterError, match="the proxy in the environment is not http"):
        Client("https://cells.example")
