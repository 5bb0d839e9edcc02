import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libraries.base.errors import DownloadError
from libraries.web import addresses
from libraries.web.addresses import checked_addresses, is_loopback, is_public, parse

NOT_PUBLIC = [
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "100.127.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "192.88.99.1",
    "168.63.129.16",
    "224.0.0.1",
    "239.1.1.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "fc00::1",
    "fd00:ec2::254",
    "ff02::1",
    "100::1",
    "2001:db8::1",
    "3fff::1",
    "5f00::1",
    "4000::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:100.64.0.1",
    "::127.0.0.1",
    "::8.8.8.8",
    "64:ff9b::127.0.0.1",
    "64:ff9b::10.0.0.1",
    "64:ff9b:1::1",
    "64:ff9b:1::8.8.8.8",
    "2002:7f00:1::",
    "2002:a00:1::",
    "2002:808:808::",
    "2001:0:808:808::1",
    "2001:10::1",
    "2001:20::1",
    "localhost",
    "127.1",
    "0x7f.0.0.1",
    "2130706433",
    "1.2.3.4.5",
]
PUBLIC = [
    "8.8.8.8",
    "93.184.216.34",
    "100.63.255.255",
    "100.128.0.1",
    "172.32.0.1",
    "192.0.1.1",
    "198.20.0.1",
    "223.255.255.254",
    "168.63.129.17",
    "2606:4700::1111",
    "2a00:1450:4001::1",
    "2001:4860:4860::8888",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
]


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public(address: str) -> None:
    assert is_public(address)


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_within_ipv6_is_judged_as_itself(address: ipaddress.IPv4Address) -> None:
    mapped, translated = f"::ffff:{address}", f"64:ff9b::{address}"
    assert is_public(mapped) == is_public(translated) == is_public(str(address))
    assert is_public(str(address)) <= address.is_global


@pytest.mark.parametrize(
    ("url", "spelling"),
    [
        ("http://example.org", "http://example.org/"),
        ("HTTP://Example.ORG:80/A.jpg#part", "http://example.org/A.jpg"),
        ("https://example.org:443/a?b=c&d", "https://example.org/a?b=c&d"),
        ("https://example.org:8443/", "https://example.org:8443/"),
        ("http://example.org./a b/ü%20.jpg", "http://example.org/a%20b/%C3%BC%20.jpg"),
        ("http://bücher.example/", "http://xn--bcher-kva.example/"),
        ("http://[2606:4700::1111]:8080/x", "http://[2606:4700::1111]:8080/x"),
        ("http://example.org/a\\b", "http://example.org/a%5Cb"),
    ],
)
def test_one_spelling(url: str, spelling: str) -> None:
    assert parse(url).url == spelling
    assert parse(spelling) == parse(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "cat.jpg",
        "//example.org/a.jpg",
        "file:///etc/passwd",
        "ftp://example.org/a.jpg",
        "data:image/png;base64,AAAA",
        "javascript:alert(1)",
        "http://",
        "http:///a.jpg",
        "http://user@example.org/",
        "http://user:word@example.org/",
        "http://:@example.org/",
        "http://example.org\\@127.0.0.1/",
        "http://example.org:port/",
        "http://example.org:99999/",
        "http://[::1/",
        "http://exa mple.org/",
        "http://" + "ü" * 80 + ".org/",
        "http://example.org/" + "a" * 9000,
    ],
)
def test_not_a_web_address(url: str) -> None:
    with pytest.raises(DownloadError) as raised:
        parse(url)
    assert raised.value.reason == "not a web address"
    assert not raised.value.passing


def resolver(monkeypatch: pytest.MonkeyPatch, found: list[str]) -> None:
    monkeypatch.setattr(addresses, "resolve", lambda host, port: found)


def test_only_checked_addresses_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver(monkeypatch, ["10.0.0.1", "8.8.8.8", "::1", "2606:4700::1111"])
    assert checked_addresses(parse("http://example.org/")) == ["8.8.8.8", "2606:4700::1111"]


@pytest.mark.parametrize("found", ["127.0.0.1", "169.254.169.254", "::ffff:10.0.0.1"])
def test_a_name_with_a_private_address(monkeypatch: pytest.MonkeyPatch, found: str) -> None:
    resolver(monkeypatch, [found])
    with pytest.raises(DownloadError, match=rf"address not allowed: pictures\.example .*{found}") as raised:
        checked_addresses(parse("http://pictures.example/"))
    assert not raised.value.passing
    assert checked_addresses(parse("http://pictures.example/"), ["pictures.example"]) == [found]


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "127.1", "0"])
def test_odd_spellings_of_loopback(host: str) -> None:
    with pytest.raises(DownloadError) as raised:  # 'not found' on systems that do not know the spelling
        checked_addresses(parse(f"http://{host}/"))
    assert raised.value.reason in ("address not allowed", "host not found")


@pytest.mark.parametrize("port", [22, 25, 6379, 8000, 65535])
def test_ports(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    resolver(monkeypatch, ["8.8.8.8"])
    target = parse(f"http://example.org:{port}/")
    with pytest.raises(DownloadError, match=f"port {port}"):
        checked_addresses(target)
    assert checked_addresses(target, ["example.org"]) == ["8.8.8.8"]
    assert checked_addresses(parse("http://example.org:8080/")) == ["8.8.8.8"]


def test_a_host_that_is_not_found_may_be_found_later(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(DownloadError, match=r"host not found: no\.example") as raised:
        checked_addresses(parse("http://no.example/"))
    assert raised.value.passing


def test_an_invalid_host_name() -> None:
    with pytest.raises(DownloadError, match="host not found"):
        checked_addresses(parse("http://a..b/"))


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True)]
    + [(host, False) for host in ("0.0.0.0", "::", "", "192.0.2.1", "localhost.example.org", "127.0.0.1.example.org")],
)
def test_is_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
