"""Trusted headers: only allowed hosts are answered, and only trusted proxies are believed."""

import socket
from typing import Any

import pytest
import requests

from libraries.base.errors import ParameterError
from libraries.service.gate import OPEN, OWN_SEGMENTS
from libraries.service.problems import Problem
from libraries.service.trusted_headers import LOOPBACK, Proxies, allowed_hosts, check_host, network_of
from tests.service.conftest import KEY, Live, StartService

TIMEOUT = 60


def for_hosts(*hosts: bytes, version: str = "1.1") -> dict[str, Any]:
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
def test_any_host_is_accepted_where_none_is_named(host: bytes) -> None:
    check_host(for_hosts(host), ())


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
def test_invalid_hosts_are_refused(host: bytes) -> None:
    with pytest.raises(Problem) as problem:
        check_host(for_hosts(host), ())
    assert problem.value.status == 400


def test_a_host_is_needed_since_http_1_1() -> None:
    check_host(for_hosts(version="1.0"), ())
    for hosts, version in (((), "1.1"), ((b"a", b"a"), "1.1"), ((b"a", b"b"), "1.0")):
        with pytest.raises(Problem, match="Host: send one") as problem:
            check_host(for_hosts(*hosts, version=version), ())
        assert problem.value.status == 400
    with pytest.raises(Problem):
        check_host(for_hosts(version="1.0"), ["example.org"])


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
        check_host(for_hosts(host), hosts)
    else:
        with pytest.raises(Problem, match="serve_allowedHosts") as problem:
            check_host(for_hosts(host), hosts)
        assert problem.value.status == 400


def test_a_service_for_others_answers_to_any_name_by_default() -> None:
    assert allowed_hosts([], listening_on="127.0.0.1") == allowed_hosts([], listening_on="localhost") == [LOOPBACK]
    assert allowed_hosts([], listening_on="0.0.0.0") == []


@pytest.mark.parametrize("name", ["", "a b", "http://a", "a:80", "a/b", "*.", "a.*", "ü"])
def test_invalid_names_are_refused_at_the_start(name: str) -> None:
    with pytest.raises(ParameterError, match="serve_allowedHosts"):
        allowed_hosts([name], listening_on="127.0.0.1")


# Over a socket


def status(port: int, *lines: str, version: str = "1.1") -> int:
    """The status of the answer to GET with these header lines."""
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


NAMED = ["127.0.0.1", "10.0.0.0/8", "fd00::/8"]


def scope(peer: str = "127.0.0.1", path: str = "/", **headers: str | list[str]) -> dict[str, Any]:
    """A request of this peer; `x_forwarded_for='…'` gives the header."""
    pairs = []
    for name, values in headers.items():
        for value in [values] if isinstance(values, str) else values:
            pairs.append((name.replace("_", "-").encode(), value.encode()))
    return {"type": "http", "scheme": "http", "path": path, "client": (peer, 5), "headers": pairs}


def caller(proxies: Proxies, *given: str, **headers: str | list[str]) -> str:
    return str(proxies.restore(scope(*given, **headers))["client"][0])


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("198.51.100.9, 192.0.2.1", "192.0.2.1"),
        (["198.51.100.9", "192.0.2.1"], "192.0.2.1"),
        ("198.51.100.9, 192.0.2.1, 10.2.3.4", "192.0.2.1"),
        ("192.0.2.1:5678", "192.0.2.1"),
        ("[2001:db8::1]:5678, fd00::5", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("10.9.9.9, 10.2.3.4", "10.9.9.9"),
        ("192.0.2.1, unknown", "127.0.0.1"),
        ("192.0.2.1, unknown, 10.2.3.4", "10.2.3.4"),
        ("", "127.0.0.1"),
        (", ,", "127.0.0.1"),
        ("x" * 5000, "127.0.0.1"),
        (", ".join(["10.0.0.1"] * 5000), "10.0.0.1"),
    ],
)
def test_the_right_most_address_that_is_not_a_trusted_proxy_is_the_caller(told: str | list[str], expected: str) -> None:
    assert caller(Proxies(NAMED), x_forwarded_for=told) == expected


def test_untrusted_proxies_are_not_believed() -> None:
    told = {"x_forwarded_for": "198.51.100.9", "x_forwarded_proto": "https", "x_forwarded_prefix": "/cells"}
    for proxies, peer in ((Proxies(), "127.0.0.1"), (Proxies(NAMED), "192.0.2.1"), (Proxies(["::1"]), "127.0.0.1")):
        seen = proxies.restore(scope(peer, **told))
        assert (seen["client"][0], seen["scheme"], seen["root_path"], seen["path"]) == (peer, "http", "", "/")


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("for=192.0.2.1", "192.0.2.1"),
        ("for=198.51.100.9;proto=https, For=192.0.2.1;by=10.0.0.1", "192.0.2.1"),
        ('proto=https;for="[2001:db8::1]:80", for=10.0.0.2', "2001:db8::1"),
        ("for=192.0.2.1, for=_hidden", "127.0.0.1"),
        ("for=192.0.2.1, proto=http", "127.0.0.1"),
        ("by=10.0.0.1", "127.0.0.1"),
    ],
)
def test_the_standard_header_is_understood_too(told: str, expected: str) -> None:
    assert caller(Proxies(NAMED), forwarded=told) == expected


def test_where_two_headers_disagree_neither_is_believed() -> None:
    proxies = Proxies(NAMED)
    assert caller(proxies, forwarded="for=192.0.2.1", x_forwarded_for="192.0.2.1") == "192.0.2.1"
    assert caller(proxies, forwarded="for=198.51.100.9", x_forwarded_for="192.0.2.1") == "127.0.0.1"


def test_the_scheme_is_the_first_proxy_s() -> None:
    proxies = Proxies(NAMED)
    assert proxies.restore(scope(x_forwarded_proto="https, http"))["scheme"] == "https"
    assert proxies.restore(scope(forwarded="for=a;proto=https"))["scheme"] == "https"
    assert proxies.restore(scope(x_forwarded_proto="gopher"))["scheme"] == "http"


@pytest.mark.parametrize("path", ["/", "/model", "/cells", "/cells/", "/cells/model", "/cellsx", "/v2/health/live"])
def test_paths_begin_with_the_prefix_whether_or_not_the_proxy_removes_it(path: str) -> None:
    whole = path if path == "/cells" or path.startswith("/cells/") else f"/cells{path}"
    told = Proxies(NAMED).restore(scope(path=path, x_forwarded_prefix="/cells/"))
    for seen in (told, Proxies(root_path="/cells").restore(scope(path=path))):
        assert (seen["root_path"], seen["path"]) == ("/cells", whole)


@pytest.mark.parametrize(
    "prefix",
    ["cells", "//evil.example", "/a//b", "/../a", "/a/..", "/a b", "/a?b", '/"><script>', "/a%2f", "/" + "a" * 999],
)
def test_invalid_prefixes_are_refused(prefix: str) -> None:
    with pytest.raises(ParameterError, match="serve_rootPath"):
        Proxies(root_path=prefix)
    with pytest.raises(Problem) as problem:
        Proxies(NAMED).restore(scope(x_forwarded_prefix=prefix))
    assert problem.value.status == 400


def test_a_prefix_must_not_be_one_of_the_services_own_paths() -> None:
    assert {"v2", "predict", "static", "admin", "docs"} <= OWN_SEGMENTS
    for prefix in ("/v2", "/predict/a"):
        with pytest.raises(ParameterError, match="choose another"):
            Proxies(root_path=prefix, own=OWN_SEGMENTS)
    with pytest.raises(Problem):
        Proxies(NAMED).restore(scope(x_forwarded_prefix=["/a", "/b"]))


@pytest.mark.parametrize("name", ["", "proxy", "10.0.0.1/8", "10.0.0.0/33", "*"])
def test_proxies_are_named_by_address_or_network(name: str) -> None:
    with pytest.raises(ParameterError, match="serve_trustedProxies"):
        Proxies([name])


def test_a_network_of_ipv6_is_one_caller() -> None:
    assert network_of("192.0.2.1") == network_of("::ffff:192.0.2.1") == "192.0.2.1"
    assert network_of("2001:db8:0:1::1") == network_of("2001:db8:0:1:ffff::2") == "2001:db8:0:1::/64"
    assert network_of("2001:db8:0:2::1") == "2001:db8:0:2::/64"
    assert network_of("testclient") == "testclient"


# Over a socket


def test_an_invented_address_does_not_evade_the_rate(start_service: StartService) -> None:
    live = start_service("--serve_requestsPerMinute=3", ready=False, FORWARDED_ALLOW_IPS="*")
    statuses = []
    for number in range(5):
        headers = {"X-Forwarded-For": f"198.51.100.{number}", "Forwarded": f"for=198.51.100.{number}"}
        statuses.append(requests.get(live.url + "/metrics", headers=headers, timeout=TIMEOUT).status_code)
    assert statuses == [200, 200, 200, 429, 429]
    assert "FORWARDED_ALLOW_IPS has no effect" in live.errors


def test_callers_behind_a_named_proxy_have_a_rate_each(start_service: StartService) -> None:
    live = start_service("--serve_requestsPerMinute=2", "--serve_trustedProxies=127.0.0.0/8", ready=False)

    def ask(told: str) -> int:
        return requests.get(live.url + "/metrics", headers={"X-Forwarded-For": told}, timeout=TIMEOUT).status_code

    assert [ask("192.0.2.1") for _ in range(3)] == [200, 200, 429]
    assert [ask(f"192.0.2.9{n}, 192.0.2.2") for n in range(3)] == [200, 200, 429]
    assert [ask(f"2001:db8::{n}") for n in range(3)] == [200, 200, 429]


def test_below_a_prefix_the_same_paths_need_the_key(start_service: StartService) -> None:
    live = start_service("--serve_rootPath=/cells", ready=False, SERVICE_KEY=KEY)
    for path in OPEN - {"/v2/health/ready"}:
        assert requests.get(f"{live.url}/cells{path}", timeout=TIMEOUT).status_code == 200
    for path in ("/metrics", "/model", "/nothing", "/cells/metrics", "//metrics"):
        for prefix in ("", "/cells"):
            assert requests.get(live.url + prefix + path, timeout=TIMEOUT).status_code == 401, prefix + path
    assert requests.post(f"{live.url}/cells/admin/reload", timeout=TIMEOUT).status_code == 404
    assert requests.post(f"{live.url}/cells/predict", data=b"x", timeout=TIMEOUT).status_code == 401
