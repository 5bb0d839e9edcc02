"""Which URLs may be fetched: those of public hosts, over http and https.

A list of URLs from somebody else must not make this machine read what only it can reach: its own services, the local
network, the metadata service of a cloud. Therefore a host name is resolved once, every address is checked, and the
connection goes to a checked address, not to the name: changing the name's address in between gains nothing.
(OWASP, Server-Side Request Forgery Prevention Cheat Sheet.)
"""

import ipaddress
import socket
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from libraries.base.errors import DownloadError

PORTS = {"http": 80, "https": 443}
EXTRA_PORTS = frozenset({8080, 8443})  # for public hosts; a host that is allowed by name may use any port
MAX_URL_LENGTH = 8000  # characters
MAX_ADDRESSES = 4  # per host, tried in turn

_IPv4 = ipaddress.IPv4Address
_IPv6 = ipaddress.IPv6Address
_PUBLIC_IPV6 = ipaddress.ip_network("2000::/3")  # all that IANA has allocated for global unicast
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052: an IPv4 address in the last 32 bits
# Networks that `ipaddress` (in some version of Python) calls global although they lead to no public host:
_SPECIAL = tuple(
    map(
        ipaddress.ip_network,
        (
            "100.64.0.0/10",  # carrier-grade NAT, RFC 6598
            "168.63.129.16/32",  # Azure's host agent
            "192.0.0.0/24",  # protocol assignments; Oracle Cloud's metadata service
            "192.88.99.0/24",  # 6to4 relays, RFC 7526
            "2001::/23",  # protocol assignments, Teredo among them
            "2002::/16",  # 6to4, which embeds any IPv4 address
            "3fff::/20",  # documentation, RFC 9637
        ),
    )
)


@dataclass(frozen=True)
class Target:
    """The parts of an http(s) URL, each as it is sent."""

    scheme: str
    host: str  # lower case, IDNA, no brackets
    port: int
    path: str  # with the query, percent-encoded

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The normalized URL: the same for all spellings that mean the same."""
        return f"{self.scheme}://{self.authority}{self.path}"


def parse(url: str) -> Target:
    """Parse a URL; the fragment is dropped.

    Raises:
        DownloadError: not a URL, not http or https, without a host, or with a user name or password.
    """
    try:
        parts = urlsplit(url)
        scheme, host, port = parts.scheme.lower(), (parts.hostname or "").rstrip("."), parts.port
        host = host.encode("idna").decode("ascii").lower() if not host.isascii() else host.lower()
    except ValueError as error:  # UnicodeError of the IDNA encoding is one
        raise DownloadError("not a web address", detail=str(error)) from None
    if scheme not in PORTS:
        raise DownloadError("not a web address", detail="only http and https are fetched")
    if not host or len(url) > MAX_URL_LENGTH or any(c <= " " or c == "\x7f" for c in host):
        raise DownloadError("not a web address", detail="no host, or too long")
    if parts.username is not None or parts.password is not None:
        raise DownloadError("not a web address", detail="a user name or password in the URL")
    path = parts.path or "/"
    query = f"?{parts.query}" if parts.query else ""
    return Target(scheme, host, port or PORTS[scheme], quote(path + query, safe="/%?:@!$&'()*+,;=~-._[]|"))


def checked_addresses(target: Target, allowed_hosts: Collection[str] = ()) -> list[str]:
    """The addresses of the target's host that may be connected to, at most `MAX_ADDRESSES`, in the resolver's order.

    The look-up is limited only by the resolver's own time-out.

    Args:
        allowed_hosts: hosts (in lower case, as in the URL) that may have any address and any port.

    Raises:
        DownloadError: the host is not found or has only private addresses, or the port is not one of the web's.
    """
    by_name = target.host in allowed_hosts
    if not by_name and target.port not in EXTRA_PORTS.union(PORTS.values()):
        raise DownloadError("address not allowed", detail=f"port {target.port} of {target.host}")
    found = resolve(target.host, target.port)
    good = [address for address in found if by_name or is_public(address)]
    if not good:
        raise DownloadError("address not allowed", detail=f"{target.host} is the private or local address {found[0]}")
    return good[:MAX_ADDRESSES]


def resolve(host: str, port: int) -> list[str]:
    """The distinct addresses of a host; an IP address gives itself.

    Raises:
        DownloadError: the host is not found. Counts as temporary, because an offline machine fails in the same way.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        detail = getattr(error, "strerror", None) or str(error)
        raise DownloadError("host not found", detail=f"{host}: {detail}", passing=True) from None
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, _IPv6):
        embedded = ip.ipv4_mapped or (_IPv4(int(ip) & 0xFFFFFFFF) if ip in _NAT64 else None)
        if embedded is None:
            return ip in _PUBLIC_IPV6 and _is_ordinary(ip)
        ip = embedded
    return _is_ordinary(ip)


def _is_ordinary(ip: _IPv4 | _IPv6) -> bool:
    special = any(ip in network for network in _SPECIAL if network.version == ip.version)
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified or special)


def is_loopback(host: str) -> bool:
    """Whether a host name or address can only be this machine."""
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761, 6.3
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
