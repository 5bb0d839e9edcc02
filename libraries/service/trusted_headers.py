"""What proxies before the service say of a request, believed only of those that were named.

Anyone can send `X-Forwarded-For`. A proxy appends the address it was called from, so that the right-most entry that is
no named proxy is the caller; what stands left of it may be invented. uvicorn's own rule is off: it trusts whatever the
environment variable FORWARDED_ALLOW_IPS says, and this machine.
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


def allowed_hosts(names: Sequence[str], *, listening_on: str) -> list[str]:
    """The hosts for `check_host`: those named; none: this machine's where nobody else can call, else any, like `*`.

    Raises:
        ParameterError: a name that is none.
    """
    for name in names:
        if name != "*" and not re.fullmatch(rb"(?:\*\.)?" + _NAME, name.encode()):
            raise ParameterError(
                f"serve_allowedHosts: {name} is no host; give names or addresses without port, or *.name for all below"
            )
    if "*" in names:
        return []
    if not names and is_loopback(listening_on):
        return [LOOPBACK]
    return [name.lower().strip("[]").rstrip(".") for name in names]


def check_host(scope: Scope, allowed: Collection[str]) -> None:
    """Make sure that a request names one host, and one of those allowed; none given: any.

    Args:
        allowed: names in lower case, `*.example.org` for all below one, `LOOPBACK`. The port does not matter.

    Raises:
        Problem: 400 no host, several, something else (RFC 9112, 3.2), or a host that is not allowed.
    """
    given = [value for name, value in scope["headers"] if name == b"host"]
    if not given and scope.get("http_version", "1.1") == "1.0" and not allowed:
        return  # which knows no hosts
    if len(given) != 1:
        raise Problem(400, f"the request has {'no' if not given else 'more than one'} header Host: send one")
    match = _HOST.fullmatch(given[0].strip())
    if match is None:
        raise Problem(400, "the header Host is no host: send the name or address of the service")
    if allowed and not _is_allowed(match[1].decode("ascii").lower().strip("[]").rstrip("."), allowed):
        raise Problem(400, "the service does not answer to this host: whoever runs it may add it to serve_allowedHosts")


def _is_allowed(host: str, allowed: Collection[str]) -> bool:
    if host in allowed or (LOOPBACK in allowed and is_loopback(host)):
        return True
    return any(pattern.startswith("*.") and host.endswith(pattern[1:]) for pattern in allowed)


_MOST_HOPS = 32  # entries of a list that are looked at
_IPV6_NETWORK = 64  # bits; a home or a rented machine has a whole network of them
_PREFIX = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*){1,16}")
_LONGEST_PREFIX = 200  # characters
_FOR = re.compile(r'(?:^|;)\s*for\s*=\s*(?:"([^"]*)"|([^;]*))', re.IGNORECASE)
_PROTO = re.compile(r'(?:^|;)\s*proto\s*=\s*"?(https?)"?\s*(?:;|$)', re.IGNORECASE)

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Proxies:
    """The proxies that are believed, and where the service is found behind them.

    Attributes:
        root_path: the beginning of every path, as callers see it; '' for none.
    """

    def __init__(self, trusted: Sequence[str] = (), *, root_path: str = "", own: Collection[str] = ()) -> None:
        """Believe proxies with these addresses, or in these networks; `own` are the service's own first path segments.

        Raises:
            ParameterError: no address or network, or no path that a service can have.
        """
        self._networks = [_network(text) for text in trusted]
        self._own = frozenset(own)
        try:
            self.root_path = self._checked(root_path)
        except Problem as problem:
            raise ParameterError(f"serve_rootPath = {root_path}: {problem.detail}") from None

    def seen(self, scope: Scope) -> Scope:
        """The request as its caller meant it: `client`, `scheme`, `root_path`, `path`, which begins with the latter.

        Some proxies take the prefix off the path and some pass it on; both are understood.

        Raises:
            Problem: 400 a named proxy says something that is none.
        """
        root_path, found, client = self.root_path, {**scope}, scope.get("client")
        if client and self._trusts(_address(client[0])):
            headers = Headers(scope=scope)
            found["client"] = (self._caller(client[0], headers), 0)
            found["scheme"] = _scheme(headers) or scope.get("scheme", "http")
            told = headers.getlist("x-forwarded-prefix")
            if len(told) > 1:
                raise Problem(400, "the request has more than one X-Forwarded-Prefix")
            root_path = self._checked(told[0]) if told else root_path
        found["root_path"] = root_path
        if root_path and not f"{scope['path']}/".startswith(f"{root_path}/"):
            found["path"] = root_path + scope["path"]
            found["raw_path"] = root_path.encode() + scope.get("raw_path", b"")
        return found

    def _trusts(self, address: _Address | None) -> bool:
        return address is not None and any(address in network for network in self._networks)

    def _caller(self, proxy: str, headers: Headers) -> str:
        """Whose request a named proxy passed on; the proxy itself where two headers do not agree on it.

        A proxy writes one of the two and passes on the other as it came: from the caller, who may have invented it.
        """
        lists = [_x_forwarded_for(headers), _forwarded_for(headers)]
        callers = {self._last_stranger(proxy, entries) for entries in lists if entries}
        return callers.pop() if len(callers) == 1 else proxy

    def _last_stranger(self, proxy: str, entries: Sequence[str]) -> str:
        caller = proxy
        for entry in list(reversed(entries))[:_MOST_HOPS]:
            address = _address(_without_port(entry))
            if address is None:  # 'unknown', say: the proxy that wrote it is the last that is known
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
            raise Problem(400, "the path before the service's own is not like /some/path, of plain characters")
        if prefix.split("/")[1] in self._own:
            raise Problem(400, "the path before the service's own begins like one of its own: choose another")
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
    """The address in '192.0.2.1:80', '[2001:db8::1]:80', or one without a port."""
    entry = entry.strip()
    if entry.startswith("["):
        return entry[1:].partition("]")[0]
    return entry.partition(":")[0] if entry.count(":") == 1 else entry


def _x_forwarded_for(headers: Headers) -> list[str]:
    return list(_entries(headers.getlist("x-forwarded-for")))


def _forwarded_for(headers: Headers) -> list[str]:
    """The callers in `Forwarded` (RFC 7239), one for each proxy; one that says none is unknown."""
    matches = [_FOR.search(element) for element in _entries(headers.getlist("forwarded"))]
    return [(match[1] or match[2] or "") if match else "" for match in matches]


def _scheme(headers: Headers) -> str | None:
    """How the first of several proxies was called."""
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
