"""Whose request it is: proxies are believed when they were named, and nobody else."""

from typing import Any

import pytest
import requests

from libraries.base.errors import ParameterError
from libraries.service.gate import OPEN, OWN_SEGMENTS
from libraries.service.problems import Problem
from libraries.service.proxies import Proxies, network_of
from tests.service.conftest import KEY, StartService

TIMEOUT = 60
NAMED = ["127.0.0.1", "10.0.0.0/8", "fd00::/8"]


def scope(peer: str = "127.0.0.1", path: str = "/", **headers: str | list[str]) -> dict[str, Any]:
    """A request of this peer; `x_forwarded_for='…'` gives the header."""
    pairs = []
    for name, values in headers.items():
        for value in [values] if isinstance(values, str) else values:
            pairs.append((name.replace("_", "-").encode(), value.encode()))
    return {"type": "http", "scheme": "http", "path": path, "client": (peer, 5), "headers": pairs}


def caller(proxies: Proxies, *given: str, **headers: str | list[str]) -> str:
    return str(proxies.seen(scope(*given, **headers))["client"][0])


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
def test_the_right_most_address_that_is_no_named_proxy_is_the_caller(told: str | list[str], expected: str) -> None:
    assert caller(Proxies(NAMED), x_forwarded_for=told) == expected


def test_strangers_are_not_believed() -> None:
    told = {"x_forwarded_for": "198.51.100.9", "x_forwarded_proto": "https", "x_forwarded_prefix": "/cells"}
    for proxies, peer in ((Proxies(), "127.0.0.1"), (Proxies(NAMED), "192.0.2.1"), (Proxies(["::1"]), "127.0.0.1")):
        seen = proxies.seen(scope(peer, **told))
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


def test_where_two_headers_do_not_agree_one_was_invented() -> None:
    proxies = Proxies(NAMED)
    assert caller(proxies, forwarded="for=192.0.2.1", x_forwarded_for="192.0.2.1") == "192.0.2.1"
    assert caller(proxies, forwarded="for=198.51.100.9", x_forwarded_for="192.0.2.1") == "127.0.0.1"


def test_the_scheme_is_that_of_the_first_proxy() -> None:
    proxies = Proxies(NAMED)
    assert proxies.seen(scope(x_forwarded_proto="https, http"))["scheme"] == "https"
    assert proxies.seen(scope(forwarded="for=a;proto=https"))["scheme"] == "https"
    assert proxies.seen(scope(x_forwarded_proto="gopher"))["scheme"] == "http"


@pytest.mark.parametrize("path", ["/", "/model", "/cells", "/cells/", "/cells/model", "/cellsx", "/v2/health/live"])
def test_paths_begin_with_the_prefix_whether_or_not_the_proxy_takes_it_off(path: str) -> None:
    whole = path if path == "/cells" or path.startswith("/cells/") else f"/cells{path}"
    told = Proxies(NAMED).seen(scope(path=path, x_forwarded_prefix="/cells/"))
    for seen in (told, Proxies(root_path="/cells").seen(scope(path=path))):
        assert (seen["root_path"], seen["path"]) == ("/cells", whole)


@pytest.mark.parametrize(
    "prefix",
    ["cells", "//evil.example", "/a//b", "/../a", "/a/..", "/a b", "/a?b", '/"><script>', "/a%2f", "/" + "a" * 999],
)
def test_what_can_be_no_prefix_is_refused(prefix: str) -> None:
    with pytest.raises(ParameterError, match="serve_rootPath"):
        Proxies(root_path=prefix)
    with pytest.raises(Problem) as problem:
        Proxies(NAMED).seen(scope(x_forwarded_prefix=prefix))
    assert problem.value.status == 400


def test_a_prefix_is_none_of_the_services_own_paths() -> None:
    assert {"v2", "predict", "static", "admin", "docs"} <= OWN_SEGMENTS
    for prefix in ("/v2", "/predict/a"):
        with pytest.raises(ParameterError, match="choose another"):
            Proxies(root_path=prefix, own=OWN_SEGMENTS)
    with pytest.raises(Problem):
        Proxies(NAMED).seen(scope(x_forwarded_prefix=["/a", "/b"]))


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


def test_an_invented_address_evades_no_rate(start_service: StartService) -> None:
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
