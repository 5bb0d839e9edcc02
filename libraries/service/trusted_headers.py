"""Headers that say which host a request is for and who sent it, and whether they are to be trusted.

Host: a web page anywhere can make its own name resolve to 127.0.0.1 (DNS rebinding); a browser then lets the page talk
to whatever listens there, as if that were the page's own server. But Host still names the host that the page came from.

X-Forwarded-For and its kin: anyone can send them, so they are believed only from proxies that were named. A proxy
appends the address that called it, so the right-most entry that is not a named proxy is the caller; anything to its
left may be invented. uvicorn's own rule is switched off: it trusts this machine, and whatever the environment variable
FORWARDED_ALLOW_IPS names.
"""

import ipaddress
import re
from collections.abc import Collection, Iterator, Sequence

from starlette.datastructures import Headers
from starlette.types import Scope

from libraries.base.errors import ParameterError
from libraries.service.problems import Problem
from libraries.web.addresses import is_loopback

LOOPBACK = "loopback"  # in a list of allowed hosts: all names of this machine that lead nowhere else
_NAME = rb"(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._~!$&'()+;=%-]{1,255})"  # RFC 3986, 3.2.2
_HOST = re.compile(rb"(%b)(?::[0-9]{0,5})?" % _NAME)

_MOST_HOPS = 32  # entries of a list that are read
_IPV6_NETWORK = 64  # bits: a home or a rented machine has a whole network of addresses
_PREFIX = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*){1,16}")
_LONGEST_PREFIX = 200  # characters
_FOR = re.compile(r'(?:^|;)\s*for\s*=\s*(?:"([^"]*)"|([^;]*))', re.IGNORECASE)
_PROTO = re.compile(r'(?:^|;)\s*proto\s*=\s*"?(https?)"?\s*(?:;|$)', re.IGNORECASE)

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def allowed_hosts(names: Sequence[str], *, listening_on: str) -> list[str]:
    """The hosts for `check_host`; an empty list allows any.

    Args:
        names: the hosts to allow; `*` allows any. If empty: this machine's names where only this machine can connect,
            else any.
        listening_on: the address that the service listens on.

    Raises:
        ParameterError: a name is not a host.
    """
    for name in names:
        if name != "*" and not re.fullmatch(rb"(?:\*\.)?" + _NAME, name.encode()):
            raise ParameterError(
                f"serve_allowedHosts: {name} is not a host; give names or addresses without port, or *.name for all "
                "hosts below a name"
            )
    if "*" in names:
        return []
    if not names and is_loopback(listening_on):
        return [LOOPBACK]
    return [name.lower().strip("[]").rstrip(".") for name in names]


def check_host(scope: Scope, allowed: Collection[str]) -> None:
    """Check that a request names one host, and that it is allowed; an empty collection allows any.

    Args:
        allowed: names in lower case, `*.example.org` for all below one, `LOOPBACK`. The port does not matter.

    Raises:
        Problem: 400 no host, several, not a host (RFC 9112, 3.2), or a host that is not allowed.
    """
    given = [value for name, value in scope["headers"] if name == b"host"]
    if not given and scope.get("http_version", "1.1") == "1.0" and not allowed:
        return  # HTTP/1.0 has no header Host
    if len(given) != 1:
        raise Problem(400, f"the request has {'no' if not given else 'more than one'} header Host: send one")
    match = _HOST.fullmatch(given[0].strip())
    if match is None:
        raise Problem(400, "the header Host is not a host: send the name or address of the service")
    if allowed and not _is_allowed(match[1].decode("ascii").lower().strip("[]").rstrip("."), allowed):
        raise Problem(400, "the service does not answer to this host: its operator can add it to serve_allowedHosts")


def _is_allowed(host: str, allowed: Collection[str]) -> bool:
    if host in allowed or (LOOPBACK in allowed and is_loopback(host)):
        return True
    return any(pattern.startswith("*.") and host.endswith(pattern[1:]) for pattern in allowed)


class Proxies:
    """The proxies that are trusted, and the path under which they publish the service.

    Attributes:
        root_path: the beginning of every path, as callers see it; '' if there is none.
    """

    def __init__(self, trusted: Sequence[str] = (), *, root_path: str = "", own: Collection[str] = ()) -> None:
        """Trust proxies with these addresses, or in these networks.

        Args:
            own: the first segments of the service's own paths, with which `root_path` must not begin.

        Raises:
            ParameterError: not an address or network, or not a usable path.
        """
        self._networks = [_network(text) for text in trusted]
        self._own = frozenset(own)
        try:
            self.root_path = self._checked(root_path)
        except Problem as problem:
            raise ParameterError(f"serve_rootPath = {root_path}: {problem.detail}") from None

    def restore(self, scope: Scope) -> Scope:
        """The request as the caller sent it: `client`, `scheme`, `root_path` and, beginning with that, `path`.

        Some proxies remove the prefix from the path and some keep it; both work.

        Raises:
            Problem: 400 a trusted proxy sends a prefix that is not usable.
        """
        root_path, restored, client = self.root_path, {**scope}, scope.get("client")
        if client and self._trusts(_address(client[0])):
            headers = Headers(scope=scope)
            restored["client"] = (self._caller(client[0], headers), 0)
            restored["scheme"] = _scheme(headers) or scope.get("scheme", "http")
            prefixes = headers.getlist("x-forwarded-prefix")
            if len(prefixes) > 1:
                raise Problem(400, "the request has more than one X-Forwarded-Prefix")
            root_path = self._checked(prefixes[0]) if prefixes else root_path
        restored["root_path"] = root_path
        if root_path and not f"{scope['path']}/".startswith(f"{root_path}/"):
            restored["path"] = root_path + scope["path"]
            restored["raw_path"] = root_path.encode() + scope.get("raw_path", b"")
        return restored

    def _trusts(self, address: _Address | None) -> bool:
        return address is not None and any(address in network for network in self._networks)

    def _caller(self, proxy: str, headers: Headers) -> str:
        """The address whose request a trusted proxy forwards; the proxy's own where two headers disagree.

        A proxy writes one of the two headers and forwards the other as the caller sent it, possibly invented.
        """
        lists = [_x_forwarded_for(headers), _forwarded_for(headers)]
        callers = {self._last_untrusted(proxy, entries) for entries in lists if entries}
        return callers.pop() if len(callers) == 1 else proxy

    def _last_untrusted(self, proxy: str, entries: Sequence[str]) -> str:
        caller = proxy
        for entry in list(reversed(entries))[:_MOST_HOPS]:
            address = _address(_without_port(entry))
            if address is None:  # such as 'unknown': the proxy that wrote it is the last one known
                return caller
            caller = str(address)
            if not self._trusts(address):
                return caller
        return caller

    def _checked(self, prefix: str) -> str:
        prefix = prefix.rstrip("/")
        if not prefix:
            return ""
        if len(prefix) > _LONGEST_PREFIX or _PREFIX.fullmatch(prefix) is None:
            raise Problem(400, "the path prefix is not like /some/path, of letters, digits and -._~")
        if prefix.split("/")[1] in self._own:
            raise Problem(400, "the path prefix begins like one of the service's own paths: choose another")
        return prefix


def network_of(address: str) -> str:
    """What counts as one caller: an IPv4 address, or the network of an IPv6 address."""
    found = _address(address)
    if found is None or found.version == 4:
        return str(found or address)
    return str(ipaddress.ip_network((found, _IPV6_NETWORK), strict=False))


def _network(text: str) -> _Network:
    try:
        return ipaddress.ip_network(text.strip())
    except ValueError as error:
        raise ParameterError(
            f"serve_trustedProxies: {error}; give addresses or networks, e.g. 10.0.0.5 or 10.0.0.0/8"
        ) from None


def _address(text: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address


def _without_port(entry: str) -> str:
    """The address in '192.0.2.1:80' or '[2001:db8::1]:80', or an address that has no port."""
    entry = entry.strip()
    if entry.startswith("["):
        return entry[1:].partition("]")[0]
    return entry.partition(":")[0] if entry.count(":") == 1 else entry


def _x_forwarded_for(headers: Headers) -> list[str]:
    return list(_entries(headers.getlist("x-forwarded-for")))


def _forwarded_for(headers: Headers) -> list[str]:
    """The callers in `Forwarded` (RFC 7239), one per proxy; '' where a proxy names none."""
    matches = [_FOR.search(element) for element in _entries(headers.getlist("forwarded"))]
    return [(match[1] or match[2] or "") if match else "" for match in matches]


def _scheme(headers: Headers) -> str | None:
    """The scheme by which the first of several proxies was called."""
    for value in _entries(headers.getlist("x-forwarded-proto")):
        return value.lower() if value.lower() in ("http", "https") else None
    for element in _entries(headers.getlist("forwarded")):
        match = _PROTO.search(element)
        return match[1].lower() if match else None
    return None


def _entries(values: Sequence[str]) -> Iterator[str]:
    for value in values:
        for entry in value.split(","):
            yield entry.strip()
