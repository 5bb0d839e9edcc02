"""HTTP requests to one service: limited in time and bytes, never redirected, retried where that may help.

The key is sent only to the service's own address; unencrypted only to this machine or, with a warning, into a private
network. Proxies from the environment are used, except to reach this machine.
"""

import http.client
import itertools
import json
import logging
import re
import ssl
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

import certifi
import urllib3
from urllib3 import exceptions

from libraries.base.errors import DownloadError, ParameterError, ServiceError
from libraries.service.keys import checked_key
from libraries.web.addresses import Target, is_loopback, is_public, parse, resolve
from libraries.web.bounded import BoundedPoolManager, BoundedProxyManager, Budget, current_budget
from libraries.web.fetch import backoff, retry_after

MAX_ANSWER = 2**20  # bytes
MAX_WAITING = 120.0  # seconds, the sum of the waits between the tries of one request
MOST_IN_VAIN = 2  # retries until the service has answered for the first time: the address may be wrong
IMAGE_REFUSED = frozenset({413, 415, 422})  # these say that the image is bad, not the service
_TEMPORARY = frozenset({408, 425, 429})  # besides all 5xx
_BUSY = frozenset({429, 503})
_CONNECTIONS = 64  # kept open
_CHUNK = 64 * 1024  # bytes

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reply:
    """A successful answer: its JSON, and the milliseconds from the request's first byte to the answer's last."""

    content: Any
    milliseconds: float


class Connection:
    """Requests to one service, from any number of threads; connections are kept open for the next one.

    Attributes:
        target: the given URL, parsed.
        origin: scheme, host and port.
    """

    def __init__(
        self, url: str, *, key: str | None, timeout: float, retries: int, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        """Does not connect yet; see `Client` for the arguments.

        Raises:
            ParameterError: the URL is invalid, or the key would be sent over the internet unencrypted.
            ServiceError: the host is unknown.
        """
        try:
            self.target = parse(url)
        except DownloadError as error:
            raise ParameterError(f"url = {one_line(url)} is not the address of a service: {error.detail}") from None
        if "?" in self.target.path:
            raise ParameterError(f"url = {one_line(url)} has a query ('?…'): leave it out")
        self.origin = f"{self.target.scheme}://{self.target.authority}"
        self._headers = {"User-Agent": "image-classification-pipeline/0.1", "Accept-Encoding": "identity"}
        if key is not None:
            self._headers["Authorization"] = f"Bearer {checked_key(key, 'the argument key')}"
            _check_key_is_safe(self.target)
        self._timeout, self._retries, self._sleep = timeout, retries, sleep
        self._has_answered = self._closed = False
        self._pools = _pools(self.target)

    def close(self) -> None:
        """Close the connections that are kept open; requests in progress are not retried."""
        self._closed = True
        self._pools.clear()

    def request(self, method: str, path: str, *, body: bytes = b"", content_type: str = "") -> Reply:
        """Send a request; retry where it may help, when the service says so or after about 1, 2, 4 … seconds.

        Raises:
            ServiceError: there is no answer, or it is an error, or it is not JSON.
        """
        waited = 0.0
        for tries in itertools.count(1):
            try:
                return self._try(method, self.origin + path, body, content_type)
            except ServiceError as error:
                retries = self._retries if self._has_answered else min(self._retries, MOST_IN_VAIN)
                pause = backoff(tries, error.retry_after) if error.passing and tries <= retries else None
                if pause is None or self._closed or waited + pause > MAX_WAITING:
                    raise
            self._sleep(pause)
            waited += pause
        raise AssertionError("not reached")

    def _try(self, method: str, url: str, body: bytes, content_type: str) -> Reply:
        started = time.monotonic()
        budget = Budget(started + self._timeout, self._timeout, MAX_ANSWER)
        token = current_budget.set(budget)
        try:
            response = self._send(method, url, body, content_type, budget)
            try:
                answer = _read(response)
            finally:
                response.close()  # no effect if the body was read to its end, so that the connection can be reused
        except (exceptions.HTTPError, http.client.HTTPException, OSError) as error:
            is_slow = budget.received > budget.deadline - self._timeout / 2
            raise self._failure(error, url, is_slow=is_slow) from None
        except (DownloadError, ValueError) as error:  # invalid framing or headers
            raise not_understood(url, str(error)) from None
        finally:
            current_budget.reset(token)
            budget.close()
        milliseconds = 1000 * (time.monotonic() - started)
        self._has_answered = True
        if response.status != HTTPStatus.OK:
            raise self._refusal(response, url, answer)
        return Reply(_parsed(answer, url), milliseconds)

    def _send(self, method: str, url: str, body: bytes, content_type: str, budget: Budget) -> urllib3.BaseHTTPResponse:
        headers = dict(self._headers)
        if body:
            headers |= {"Content-Type": content_type, "Content-Length": str(len(body))}
        return self._pools.urlopen(
            method,
            url,
            body=_blocks(body, budget) if body else None,
            headers=headers,
            timeout=urllib3.Timeout(connect=min(10.0, self._timeout), read=self._timeout),
            redirect=False,
            retries=False,
            preload_content=False,
            decode_content=False,
        )

    def _failure(self, error: Exception, url: str, *, is_slow: bool) -> ServiceError:
        """The error for a missing or incomplete answer; one that arrives too slowly is not retried."""
        causes = [error, *(cause for cause in error.args if isinstance(cause, Exception))]
        detail = one_line(str(causes[-1]))
        if isinstance(error, exceptions.ProxyError):
            return ServiceError(f"the proxy for {url} fails ({detail})", reason="no connection", passing=True)
        if isinstance(error, exceptions.SSLError):
            text = f"no secure connection to {url} ({detail}): check --url, https:// included"
            return ServiceError(text, reason="no secure connection")
        if isinstance(error, exceptions.NameResolutionError):
            text = f"there is no host {self.target.host}: check --url, and the connection to the network"
            return ServiceError(text, reason="no connection", passing=True)
        if isinstance(error, exceptions.NewConnectionError):
            what_to_do = "start one with python scripts/deploymain.py, or check --url"
            return ServiceError(
                f"no service answers at {self.origin}: {what_to_do}", reason="no connection", passing=True
            )
        if any(isinstance(cause, TimeoutError | exceptions.TimeoutError) for cause in causes):
            if is_slow:
                text = f"the answer of {url} arrives too slowly: it is incomplete after {self._timeout:g} s"
                return ServiceError(text, reason="answer too slow")
            text = f"{url} gave no answer within {self._timeout:g} s: try again later"
            return ServiceError(text, reason="no answer in time", passing=True)
        return ServiceError(
            f"the connection to {url} broke off ({detail})", reason="the connection broke off", passing=True
        )

    def _refusal(self, response: urllib3.BaseHTTPResponse, url: str, answer: bytes) -> ServiceError:
        """The error for an answer other than 200, with what to do about it."""
        status = _status(response)
        title, detail = title_and_detail(answer)
        title = title or (HTTPStatus(status).phrase if status in set(HTTPStatus) else f"HTTP {status}")
        said = f"{status}: {detail or title}"
        if status in IMAGE_REFUSED:
            return image_refused(title, detail, status)
        if status in _BUSY:
            text = f"{url} is too busy ({said}): try again later"
        elif status == HTTPStatus.UNAUTHORIZED or status == HTTPStatus.FORBIDDEN:
            text = f"{url} refuses the key ({said}): check SERVICE_KEY or --keyFile"
            if "Authorization" not in self._headers:
                text = f"{url} needs a key: set the environment variable SERVICE_KEY, or give a file with --keyFile"
        elif status in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED):
            text = f"{url} does not exist ({said}): is --url the address of a service of scripts/deploymain.py?"
        elif 300 <= status < 400:
            location = one_line(response.headers.get("Location") or "elsewhere")
            text = f"{url} redirects to {location}; redirects are not followed: give the right address with --url"
        else:
            text = f"{url} answers with an error ({said})"
        passing = status in _TEMPORARY or status >= 500
        wait = retry_after(response.headers.get("Retry-After")) if passing else None
        return ServiceError(text, reason=title, status=status, passing=passing, retry_after=wait)


def _status(response: urllib3.BaseHTTPResponse) -> int:
    """The status of an answer; the model's own where Azure ML replaced it by 424 and reports it in a header."""
    reported = response.headers.get("ms-azureml-model-error-statuscode", "")
    is_replaced = response.status == HTTPStatus.FAILED_DEPENDENCY and re.fullmatch("[45][0-9]{2}", reported)
    return int(reported) if is_replaced else response.status


def _check_key_is_safe(target: Target) -> None:
    """Make sure that the key is not sent over the internet unencrypted."""
    if target.scheme == "https" or is_loopback(target.host):
        return
    try:
        addresses = resolve(target.host, target.port)
    except DownloadError as error:
        raise ServiceError(f"there is no host {error.detail}: check --url", reason="no connection") from None
    if any(is_public(address) for address in addresses):
        raise ParameterError(f"url = {target.url}: the key would be sent unencrypted: use https://")
    log.warning("the key is sent to %s unencrypted: use https:// unless you trust this network", target.url)


def _pools(target: Target) -> urllib3.PoolManager:
    """A pool of connections to the target, through a proxy if the environment names one."""
    options: dict[str, Any] = {"maxsize": _CONNECTIONS}
    if target.scheme == "https":
        options["ssl_context"] = ssl.create_default_context()
        options["ssl_context"].load_verify_locations(certifi.where())
    proxies = urllib.request.getproxies()
    proxy = proxies.get(target.scheme) or proxies.get("all")
    if not proxy or is_loopback(target.host) or urllib.request.proxy_bypass(target.host):
        return BoundedPoolManager(**options)
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    try:
        login = urllib3.util.parse_url(proxy).auth
        headers = urllib3.make_headers(proxy_basic_auth=unquote(login)) if login else None
        return BoundedProxyManager(proxy, proxy_headers=headers, **options)
    except exceptions.HTTPError:
        raise ParameterError("the proxy in the environment is not http:// or https://: correct or unset it") from None


def _blocks(body: bytes, budget: Budget) -> Iterator[bytes]:
    """The body in pieces, so that a slow upload is limited by the deadline of the whole request."""
    for start in range(0, len(body), _CHUNK):
        budget.seconds(budget.read_timeout)
        yield body[start : start + _CHUNK]


def _read(response: urllib3.BaseHTTPResponse) -> bytes:
    body = bytearray()
    for chunk in response.stream(_CHUNK, decode_content=False):
        body += chunk
        if len(body) > MAX_ANSWER:
            raise ValueError(f"it has more than {MAX_ANSWER:,} bytes")
    return bytes(body)


def _parsed(answer: bytes, url: str) -> Any:
    try:
        return json.loads(answer)
    except (ValueError, RecursionError):
        start = one_line(answer[:60].decode("utf-8", "replace"))
        raise not_understood(url, f"expected JSON, got {start!r}") from None


def title_and_detail(answer: bytes) -> tuple[str, str]:
    """Title and detail of an error: a JSON problem (RFC 9457), the JSON of Azure ML or MLflow, or plain text."""
    try:
        content = json.loads(answer)
    except (ValueError, RecursionError):
        content = {"detail": answer[:400].decode("utf-8", "replace")}
    if not isinstance(content, dict):
        return "", one_line(str(content)[:400])
    nested = content.get("error")
    members = nested | content if isinstance(nested, dict) else content
    title, detail = (next((str(members[n]) for n in names if members.get(n)), "") for names in _MEMBERS)
    return one_line(title, 60), one_line(detail)


_MEMBERS = (("title", "error_code"), ("detail", "message"))


def image_refused(title: str, detail: str, status: int) -> ServiceError:
    """The error for an image that the service refuses."""
    return ServiceError(f"the image is refused: {detail or title}", reason=title or "image refused", status=status)


def not_understood(url: str, why: str) -> ServiceError:
    """The error for an answer that is not one of this project's service."""
    text = f"the answer of {url} is not understood: {why}; is --url the address of a service of this project?"
    return ServiceError(text, reason="answer not understood")


def one_line(text: str, most: int = 200) -> str:
    """A stranger's text made safe to show: one line, no control characters, at most `most` characters."""
    text = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * most]).split())
    return text if len(text) <= most else text[: most - 1] + "…"
