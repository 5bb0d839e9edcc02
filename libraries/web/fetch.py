"""One URL → its bytes, within limits of time and size, from public addresses only.

urllib3 does the HTTP. Each connection goes to a checked address (`addresses`), with the host name in the Host header
and in TLS, where the certificate is verified against it; the system's certificates (or those of SSL_CERT_FILE) and
certifi's are trusted. Proxies from the environment are not used: a proxy resolves names itself, so that the checked
address would not be the one connected to. There are no cookies and no passwords.

Why not aiohttp (3.14, tried): it is as fast (BENCHMARKS.md), but its limits are weaker. It does not count the bytes of
framing: an endless chunk extension was read at 365 MB/s until the time was up. It does not call its resolver for hosts
that are addresses, so these would have to be checked here anyway. And `bounded` would still be needed for the callers
of the service.
"""

import contextlib
import email.utils
import http.client
import random
import ssl
import time
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urljoin

import certifi
import urllib3
from urllib3 import exceptions

from libraries.base.errors import DownloadError, ParameterError
from libraries.web.addresses import Target, checked_addresses, parse
from libraries.web.bounded import BoundedPoolManager, Budget, current_budget

USER_AGENT = "image-classification-pipeline/0.1"
MAX_REDIRECTS = 5
MAX_WAIT = 60.0  # seconds; if a server asks for more, the next run tries again
OPT_OUTS = frozenset({"noai", "noimageai"})
_CHUNK = 2**20  # bytes
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_NOT_FOUND = frozenset({404, 410})
_TEMPORARY = frozenset({408, 425, 429})  # besides all 5xx
_VALUED_DIRECTIVES = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})


@dataclass(frozen=True)
class Timeouts:
    """Seconds to connect, between two packets, and for one whole try, including redirects."""

    connect: float = 10.0
    read: float = 15.0
    total: float = 60.0


@dataclass(frozen=True)
class FetchResult:
    """A successful response."""

    body: bytes
    http_status: int
    retry_after: float | None = None  # seconds; search services send it even with status 200


class Fetcher:
    """Fetches URLs, from any number of threads; connections are kept open for the next URL of the same host.

    Args:
        timeouts: a try ends within `timeouts.total`, plus the time of the system's resolver.
        max_bytes: of a body, both compressed and uncompressed.
        allowed_hosts: names or addresses, as in the URLs, that may be private and use any port.
        user_agent: the part before the first slash is the name by which X-Robots-Tag addresses this program.
        threads: number of threads that fetch at once.
        headers: in addition to, or instead of, those for an image.
        redirects: number of redirects to follow; 0 where a header or the URL holds a key.
        refusal_bytes: of the body of a refusal, kept with the error.
    """

    def __init__(
        self,
        *,
        timeouts: Timeouts,
        max_bytes: int,
        allowed_hosts: Iterable[str],
        user_agent: str,
        threads: int,
        headers: Mapping[str, str] | None = None,
        redirects: int = MAX_REDIRECTS,
        refusal_bytes: int = 0,
    ) -> None:
        self._timeouts = timeouts
        self._max_bytes = max_bytes
        self._allowed_hosts = frozenset(host.strip("[]").rstrip(".").lower() for host in allowed_hosts)
        self._agent = user_agent.partition("/")[0].lower()
        self._headers = {"User-Agent": user_agent, "Accept": "image/*", "Accept-Encoding": "identity"}
        self._headers |= headers or {}
        self._redirects = redirects
        self._refusal_bytes = refusal_bytes
        context = ssl.create_default_context()
        context.load_verify_locations(certifi.where())
        self._pools = BoundedPoolManager(num_pools=2 * threads, maxsize=threads, ssl_context=context)

    def close(self) -> None:
        """Close the connections that are kept open."""
        self._pools.clear()

    def fetch(self, url: str) -> FetchResult:
        """Try a URL once.

        Raises:
            DownloadError: there is no body of at most `max_bytes`, or the URL must not be fetched.
        """
        deadline = time.monotonic() + self._timeouts.total
        budget = Budget(deadline, self._timeouts.read, self._max_bytes)
        token = current_budget.set(budget)
        try:
            return self._follow(url)
        except (exceptions.HTTPError, http.client.HTTPException, OSError, ValueError) as error:  # no disk is involved
            raise _as_download_error(error) from None
        finally:
            current_budget.reset(token)
            budget.close()

    def _follow(self, url: str) -> FetchResult:
        for _ in range(self._redirects + 1):
            target = parse(url)
            response = self._open(target)
            try:
                location = response.headers.get("Location")
                if response.status in _REDIRECTS and location:
                    url = _joined(target, location)
                    continue
                self._check(response)
                body = self._body(response)
                return FetchResult(body, response.status, retry_after(response.headers.get("Retry-After")))
            except DownloadError as error:
                error.body = self._refusal(response)
                raise
            finally:
                response.close()  # no effect if the body was read to its end, so that the connection can be reused
        raise DownloadError("too many redirects", detail=f"more than {self._redirects}")

    def _open(self, target: Target) -> urllib3.BaseHTTPResponse:
        """The response, its body still unread, from the first of the target's addresses that accepts a connection."""
        unreachable: exceptions.HTTPError | None = None
        for address in checked_addresses(target, self._allowed_hosts):
            pool = self._pools.connection_from_host(
                address, target.port, target.scheme, pool_kwargs={"server_hostname": target.host}
            )
            connect = current_budget.get().seconds(self._timeouts.connect)
            try:
                return pool.urlopen(
                    "GET",
                    target.path,
                    headers={"Host": target.authority, **self._headers},
                    timeout=urllib3.Timeout(connect=connect, read=self._timeouts.read),
                    redirect=False,
                    retries=False,
                    preload_content=False,
                    decode_content=False,
                )
            except (exceptions.NewConnectionError, exceptions.ConnectTimeoutError) as error:
                unreachable = error
        assert unreachable is not None  # there is at least one address
        raise unreachable

    def _check(self, response: urllib3.BaseHTTPResponse) -> None:
        """Raise DownloadError unless the response's body may be used and is small enough."""
        status = response.status
        if status in _TEMPORARY or status >= 500:
            reason = "too many requests" if status == 429 else "server error"
            wait = retry_after(response.headers.get("Retry-After"))
            raise DownloadError(reason, detail=f"HTTP {status}", passing=True, http_status=status, retry_after=wait)
        if status != 200:
            reason = "not found" if status in _NOT_FOUND else "refused by the server"
            raise DownloadError(reason, detail=f"HTTP {status}", http_status=status)
        if opted_out(response.headers.getlist("X-Robots-Tag"), self._agent):
            raise DownloadError("opted out", detail="X-Robots-Tag", http_status=status)
        length = response.headers.get("Content-Length", "")
        if length.isdecimal() and int(length[:20]) > self._max_bytes:
            raise self._too_large(status)

    def _refusal(self, response: urllib3.BaseHTTPResponse) -> bytes:
        """The beginning of a refusal's body; empty if it cannot be read."""
        if not self._refusal_bytes:
            return b""
        with contextlib.suppress(exceptions.HTTPError, http.client.HTTPException, OSError, DownloadError):
            return response.read(self._refusal_bytes, decode_content=False)
        return b""

    def _body(self, response: urllib3.BaseHTTPResponse) -> bytes:
        """The body; uncompressed if the server compressed it although it was not asked to."""
        chunks, size = [], 0
        for chunk in response.stream(min(_CHUNK, self._max_bytes + 1), decode_content=False):
            chunks.append(chunk)
            size += len(chunk)
            if size > self._max_bytes:
                raise self._too_large(response.status)
        body = b"".join(chunks)
        encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding in ("", "identity"):
            return body
        if encoding not in ("gzip", "x-gzip", "deflate"):
            detail = f"compressed with {encoding[:20]}, which was not asked for"
            raise DownloadError("damaged image", detail=detail, http_status=response.status)
        return self._inflated(body, response.status)

    def _inflated(self, body: bytes, status: int) -> bytes:
        inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS + 32)  # + 32: either a gzip or a zlib header
        try:
            inflated = inflater.decompress(body, self._max_bytes + 1)
        except zlib.error as error:
            raise DownloadError("damaged image", detail=str(error), http_status=status) from None
        if len(inflated) > self._max_bytes:
            raise self._too_large(status)
        if not inflater.eof:
            raise DownloadError("broken answer", detail="the compressed body is cut short", passing=True)
        return inflated

    def _too_large(self, status: int) -> DownloadError:
        return DownloadError("too large", detail=f"more than {self._max_bytes:,} bytes", http_status=status)


def retry_after(value: str | None) -> float | None:
    """Seconds to wait, from a Retry-After header, which has seconds or a date (RFC 9110, 10.2.3)."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value.strip()[:10])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def backoff(tries: int, retry_after: float | None) -> float | None:
    """Seconds to wait after try number `tries`: as the server asks, else about 1, 2, 4 … with jitter.

    None if the server asks for more than `MAX_WAIT`.
    """
    if retry_after is not None:
        return retry_after + random.uniform(0.0, 0.5) if retry_after <= MAX_WAIT else None
    return float(min(MAX_WAIT, 2.0 ** (tries - 1)) * random.uniform(0.5, 1.5))


def user_agent(contact: str | None) -> str:
    """The header User-Agent, with the contact if there is one.

    Raises:
        ParameterError: the contact cannot be part of a header.
    """
    if not contact:
        return USER_AGENT
    if not (contact.isascii() and contact.isprintable() and len(contact) <= 200):
        raise ParameterError("searchContact: expected an e-mail address or a web page, in ASCII characters")
    return f"{USER_AGENT} ({contact})"


def opted_out(robots_tags: Iterable[str], agent: str) -> bool:
    """Whether X-Robots-Tag headers, addressed to all or to `agent` (lower case), forbid use for machine learning.

    A header is `[agent:] directive, [agent:] directive …`; a directive without an agent is for the last one named.
    """
    for tag in robots_tags:
        addressee = "*"
        for item in tag.lower().split(","):
            name, colon, directive = item.partition(":")
            if colon and name.strip() not in _VALUED_DIRECTIVES:
                addressee = name.strip()
            if (directive if colon else name).strip() in OPT_OUTS and addressee in ("*", agent):
                return True
    return False


def _joined(target: Target, location: str) -> str:
    """The absolute URL of a Location header, which http.client decodes as Latin-1, but browsers as UTF-8."""
    try:
        return urljoin(target.url, location.encode("latin-1").decode("utf-8", "replace"))
    except ValueError as error:
        raise DownloadError("not a web address", detail=f"redirect to {location[:80]!r}: {error}") from None


def _as_download_error(error: Exception) -> DownloadError:
    cause = error.args[0] if error.args else None
    if isinstance(error, exceptions.SSLError) and isinstance(cause, ssl.SSLCertVerificationError):
        return DownloadError("bad certificate", detail=cause.verify_message)
    if isinstance(error, exceptions.NewConnectionError | exceptions.SSLError):  # the first is a TimeoutError, too
        reason = "connection failed"
    elif isinstance(error, TimeoutError | exceptions.TimeoutError):
        reason = "time-out"
    else:
        reason = "broken answer"
    return DownloadError(reason, detail=str(error.args[-1] if error.args else error), passing=True)
