"""The header Host: one, well-formed, and of a host that the service answers to."""

import socket
from typing import Any

import pytest

from libraries.base.errors import ParameterError
from libraries.service.host_names import LOOPBACK, allowed_hosts, check_host
from libraries.service.problems import Problem
from tests.service.conftest import Live, StartService

TIMEOUT = 60


def scope(*hosts: bytes, version: str = "1.1") -> dict[str, Any]:
    return {"type": "http", "http_version": version, "headers": [(b"host", host) for host in hosts]}


@pytest.mark.parametrize(
    "host",
    [
        b"a",
        b"localhost:8080",
        b"example.org.",
        b"10.0.0.1:80",
        b"[::1]:8080",
        b"[2001:db8::1]",
        b"my_pod",
        b"x:",
        b"a%20",
    ],
)
def test_any_host_will_do_where_none_is_named(host: bytes) -> None:
    check_host(scope(host), ())


@pytest.mark.parametrize(
    "host",
    [
        b"",
        b" ",
        b":80",
        b"a b",
        b"a/b",
        b"a@b",
        b"a:b",
        b"a:80:80",
        b"a:123456",
        b"[::1",
        b"::1",
        b"[a]x",
        b"\xff",
        b"a,b",
    ],
)
def test_what_is_no_host_is_refused(host: bytes) -> None:
    with pytest.raises(Problem) as problem:
        check_host(scope(host), ())
    assert problem.value.status == 400


def test_one_is_needed_since_http_1_1() -> None:
    check_host(scope(version="1.0"), ())
    for hosts, version in (((), "1.1"), ((b"a", b"a"), "1.1"), ((b"a", b"b"), "1.0")):
        with pytest.raises(Problem, match="Host: send one") as problem:
            check_host(scope(*hosts, version=version), ())
        assert problem.value.status == 400
    with pytest.raises(Problem):
        check_host(scope(version="1.0"), ["example.org"])


@pytest.mark.parametrize(
    ("allowed", "host", "is_allowed"),
    [
        (["example.org"], b"EXAMPLE.org:8080", True),
        (["Example.org"], b"example.org.", True),
        (["example.org"], b"a.example.org", False),
        (["example.org"], b"localhost", False),
        (["*.example.org"], b"a.example.org:443", True),
        (["*.example.org"], b"example.org", False),
        (["*.example.org"], b"evilexample.org", False),
        (["[2001:db8::1]", "10.0.0.1"], b"[2001:DB8::1]:80", True),
        (["[2001:db8::1]", "10.0.0.1"], b"10.0.0.1", True),
        ([], b"localhost:1", True),
        ([], b"127.0.0.1", True),
        ([], b"127.8.0.1:80", True),
        ([], b"[::1]:8080", True),
        ([], b"rebound.example:8080", False),
        ([], b"localhost.example", False),
        ([], b"10.0.0.1", False),
        (["*"], b"anything", True),
    ],
)
def test_only_hosts_that_are_allowed_are_answered(allowed: list[str], host: bytes, is_allowed: bool) -> None:
    hosts = allowed_hosts(allowed, listening_on="127.0.0.1")
    if is_allowed:
        check_host(scope(host), hosts)
    else:
        with pytest.raises(Problem, match="serve_allowedHosts") as problem:
            check_host(scope(host), hosts)
        assert problem.value.status == 400


def test_a_service_for_others_answers_to_any_name_by_default() -> None:
    assert allowed_hosts([], listening_on="127.0.0.1") == allowed_hosts([], listening_on="localhost") == [LOOPBACK]
    assert allowed_hosts([], listening_on="0.0.0.0") == []


@pytest.mark.parametrize("name", ["", "a b", "http://a", "a:80", "a/b", "*.", "a.*", "ü"])
def test_names_that_are_none_are_refused_at_the_start(name: str) -> None:
    with pytest.raises(ParameterError, match="serve_allowedHosts"):
        allowed_hosts([name], listening_on="127.0.0.1")


# Over a socket


def status(port: int, *lines: str, version: str = "1.1") -> int:
    """Of the answer to GET with these header lines."""
    path = "/model"
    if lines and lines[0].startswith("/"):
        path, *lines = lines  # type: ignore[assignment]
    request = "\r\n".join([f"GET {path} HTTP/{version}", *lines, "Connection: close", "", ""])
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as connection:
        connection.sendall(request.encode())
        return int(connection.makefile("rb").readline().split()[1])


def test_a_page_whose_name_was_rebound_to_this_machine_gets_nothing(live: Live) -> None:
    for host in ("localhost", f"localhost:{live.port}", "127.0.0.1", "[::1]:80"):
        assert status(live.port, f"Host: {host}") == 200
    assert status(live.port, "Host: rebound.example") == 400
    assert status(live.port, "/", "Host: rebound.example") == 400
    assert status(live.port, f"Host: rebound.example:{live.port}", "X-Forwarded-Host: localhost") == 400
    assert status(live.port) == status(live.port, "Host: localhost", "Host: localhost") == 400
    assert status(live.port, "Host: a b") == 400


def test_probes_find_a_service_that_answers_to_few_names(start_service: StartService) -> None:
    live = start_service("--serve_allowedHosts=cells.example.org,*.internal")
    assert status(live.port, "Host: cells.example.org") == status(live.port, "Host: a.internal:80") == 200
    assert status(live.port, "Host: 10.1.2.3:8080") == status(live.port, "Host: localhost") == 400
    for path in ("/v2/health/live", "/v2/health/ready"):
        assert status(live.port, path, "Host: 10.1.2.3:8080") == 200
        assert status(live.port, path) == 400
