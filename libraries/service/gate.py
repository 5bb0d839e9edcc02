"""Checks that every request passes before its body is read: host, key, rate, and whether the service is busy."""

import asyncio
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from libraries.base.errors import ParameterError
from libraries.service import keys
from libraries.service.problems import Problem, response
from libraries.service.protocol import HEALTH
from libraries.service.service import Service
from libraries.service.trusted_headers import Proxies, check_host, network_of

OPEN = frozenset({"/", "/docs", "/openapi.json", *HEALTH})  # need no key
_OPEN_FOLDERS = ("/static/", "/static-offline-docs/")
COMPUTING = frozenset({"/predict", "/explain", "/similar", "/score"})
_OTHERS = frozenset({"/model", "/metrics", "/admin/reload", "/admin/promote", "/admin/rollback", "/feedback"})
OWN_SEGMENTS = frozenset(path.split("/")[1] for path in (*OPEN, *_OPEN_FOLDERS, *COMPUTING, *_OTHERS))
_MOST_CLIENTS = 10_000  # addresses whose rate is remembered

log = logging.getLogger(__name__)


@dataclass
class Access:
    """Who may do what.

    Attributes:
        key: needed for all but the open paths; None: everyone may call them.
        admin_key: needed for /admin; None: nobody may call it.
        feedback_key: likewise for /feedback.
        requests_per_minute: per address, or per network of IPv6 addresses; None: unlimited.
        hosts: that requests may be for, see `check_host`; if empty, any.
        proxies: that are trusted to say who sent a request.
        read_keys: reads the three keys again, where they can have changed.
    """

    key: str | None = None
    admin_key: str | None = None
    feedback_key: str | None = None
    requests_per_minute: int | None = None
    hosts: Collection[str] = ()
    proxies: Proxies = field(default_factory=Proxies)
    read_keys: Callable[[], tuple[str | None, str | None, str | None]] | None = None

    async def reload(self) -> bool:
        """Read the keys again; if one is refused, the log says why, and the present ones stay in use."""
        if self.read_keys is None:
            return True
        try:
            self.key, self.admin_key, self.feedback_key = await asyncio.to_thread(self.read_keys)
        except ParameterError as error:
            log.error("the keys are refused, the present ones stay in use: %s", error)
            return False
        return True


class Gate:
    """ASGI middleware: refuses requests that are not allowed, and records metrics of all."""

    def __init__(self, app: ASGIApp, *, service: Service, access: Access) -> None:
        self.app, self.service, self.access = app, service, access
        rate = access.requests_per_minute
        self._rate_limiter = None if rate is None else RateLimiter(rate)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 500

        async def observe(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-content-type-options", b"nosniff")]
            await send(message)

        try:
            scope = self.access.proxies.restore(scope)
            self._admit(scope)
        except Problem as problem:
            await response(problem)(scope, receive, observe)
        else:
            await self.app(scope, receive, observe)
        finally:
            path = _metric_label(_path(scope))
            if status in (429, 503):
                self.service.metrics.rejected.labels(HTTPStatus(status).phrase).inc()
            self.service.metrics.requests.labels(path, status).inc()
            self.service.metrics.seconds.labels(path).observe(time.perf_counter() - begun)

    def _admit(self, scope: Scope) -> None:
        path = _path(scope)
        # Health probes name the address of the container, whatever the service's names, and learn nothing from it.
        check_host(scope, () if path in HEALTH else self.access.hosts)
        if path in OPEN or path.startswith(_OPEN_FOLDERS):
            return
        if self._rate_limiter is not None:
            self._rate_limiter.check(network_of(scope["client"][0]) if scope["client"] else "")
        given = Headers(scope=scope).get("authorization", "")
        if path.startswith("/admin/"):
            if self.access.admin_key is None:
                raise Problem(404, "administration is off: start the service with an admin key")
            self._authorise(given, self.access.admin_key)
        elif path == "/feedback":
            if self.access.feedback_key is None:
                raise Problem(404, "feedback is off: start the service with a feedback key")
            self._authorise(given, self.access.feedback_key)
        elif self.access.key is not None:
            self._authorise(given, self.access.key)
        if scope["method"] == "POST" and (path in {*COMPUTING, "/feedback"} or path.endswith("/infer")):
            _ = self.service.model.current  # raises Problem 503 while it is being loaded
            self.service.workers.check()

    def _authorise(self, given: str, key: str) -> None:
        kind, _, value = given.partition(" ")
        if kind.lower() != "bearer" or not keys.equal(value.strip(), key):
            raise Problem(401, "the key is missing or wrong: send the header 'Authorization: Bearer KEY'")


class RateLimiter:
    """A token bucket per address, which allows bursts of up to a minute's worth of requests."""

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self._buckets: OrderedDict[str, tuple[float, float]] = (
            OrderedDict()
        )  # address → tokens, and when they were counted

    def check(self, address: str) -> None:
        """Count a request; raise Problem 429 if it is beyond the rate."""
        now = time.monotonic()
        tokens, then = self._buckets.pop(address, (float(self.per_minute), now))
        tokens = min(self.per_minute, tokens + (now - then) * self.per_minute / 60)
        allowed = tokens >= 1
        self._buckets[address] = (tokens - allowed, now)
        if len(self._buckets) > _MOST_CLIENTS:
            self._buckets.popitem(last=False)
        if not allowed:
            wait = math.ceil((1 - tokens) * 60 / self.per_minute)
            raise Problem(
                429, f"more than {self.per_minute} requests a minute: try again in {wait} s", retry_after=wait
            )


def _path(scope: Scope) -> str:
    """The path within the service, without the prefix that callers see."""
    return scope["path"][len(scope.get("root_path", "")) :] or "/"


def _metric_label(path: str) -> str:
    """The path as metrics name it: one of a few, so that strangers cannot create more."""
    if path in OPEN or path in COMPUTING or path in _OTHERS:
        return path
    if path.endswith("/infer"):
        return "/v2/models/{name}/infer"
    return "other"
