"""The header Host: there is one, it is a host, and it is one that the service answers to.

A web page anywhere can have its own name lead to 127.0.0.1 (DNS rebinding); then a browser lets the page talk to
whatever listens there, as if it were the page's own server. But it says in Host which name the page was loaded from.
"""

import re
from collections.abc import Collection, Sequence

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
