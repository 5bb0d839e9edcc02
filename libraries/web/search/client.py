"""Requests to one search service over HTTP: one at a time, with pauses and retries. Its key appears in no message.

The service is not trusted: answers are limited in time and size, come from a public address, and redirects are not
followed, as they could send the key elsewhere (see `fetch`).
"""

import contextlib
import itertools
import json
import logging
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, quote_plus, urlencode

from libraries.base.errors import DownloadError, ParameterError, SearchError
from libraries.web.addresses import is_loopback, parse
from libraries.web.fetch import Fetcher, FetchResult, Timeouts, backoff, user_agent
from libraries.web.search.names import LicenceFilter
from libraries.web.search.results import FoundImage, inner, malformed, text

MAX_BYTES = 10_000_000  # of an answer
_REFUSAL_BYTES = 4000
_MAX_EXPLANATION = 200  # characters of the service's explanation of an error
_LATER = "run the script again later: it continues where it stopped"

Wait = Callable[[int, float | None], float | None]
Pages = Callable[["SearchClient", str, int], Iterator[list[FoundImage]]]


@dataclass(frozen=True)
class SearchService:
    """How to call a search service.

    Attributes:
        name: as in the parameter searchProvider.
        url: scheme and host.
        path: of the search.
        interval: at least this many seconds between two requests.
        refused: what the user can do when the service refuses (401, 403).
        key_variable: the environment variable with the key; empty if none is needed.
        key_header: the header in which the key is sent; or
        key_parameter: the query parameter in which the key is sent.
        needs_contact: whether the User-Agent must have a contact.
        has_licences: whether answers include the images' licences.
        licence_parameters: query parameters that filter by licence, where the service can.
        pages: (client, query, number of images wanted) → the images found, page by page, best first; requests a page
            only when it is needed. Raises SearchError.
    """

    name: str
    url: str
    path: str
    interval: float
    refused: str
    pages: Pages
    key_variable: str = ""
    key_header: str = ""
    key_parameter: str = ""
    needs_contact: bool = False
    has_licences: bool = True
    licence_parameters: Mapping[LicenceFilter, Mapping[str, str]] = field(default_factory=dict)


class SearchClient:
    """Sends requests to a search service.

    Args:
        service: to call.
        url: scheme and host of another server that answers in the same way; None: the service's own. There are no
            pauses between requests to this machine.
        contact: an e-mail address or web page, sent in the User-Agent.
        licence: what the images' licences must permit, if the service can filter by that.
        allowed_hosts: names or addresses, as in the URL, that may be private and use any port.
        timeouts: of one try.
        retries: further tries after a temporary failure.
        wait: (n, seconds the server asked for) → seconds to wait after try number n; None: do not try again.
        sleep: waits a number of seconds.
        clock: gives the time in seconds.

    Raises:
        ParameterError: the URL or contact is invalid, or a contact or key is missing.
    """

    def __init__(
        self,
        service: SearchService,
        *,
        url: str | None = None,
        contact: str | None = None,
        licence: LicenceFilter = "any",
        allowed_hosts: Collection[str] = (),
        timeouts: Timeouts | None = None,
        retries: int = 3,
        wait: Wait = backoff,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if service.needs_contact and not contact:
            raise ParameterError(
                f"{service.name} needs a contact: set searchContact to an e-mail address or a web page"
            )
        self.name = service.name
        self._service = service
        self._base, loopback = _base(url or service.url, with_key=bool(service.key_variable))
        self._key = _key(service)
        key_parameter = {service.key_parameter: self._key} if service.key_parameter else {}
        self._fixed_parameters = {**service.licence_parameters.get(licence, {}), **key_parameter}
        self._interval = 0.0 if loopback else service.interval
        self._retries = retries
        self._wait = wait
        self._sleep = sleep
        self._clock = clock
        self._not_before = 0.0  # on the clock
        key_header = {service.key_header: self._key} if service.key_header else {}
        self._fetcher = Fetcher(
            timeouts=timeouts or Timeouts(),
            max_bytes=MAX_BYTES,
            allowed_hosts=allowed_hosts,
            user_agent=user_agent(contact),
            threads=1,
            headers={"Accept": "application/json", **key_header},
            redirects=0,
            refusal_bytes=_REFUSAL_BYTES,
        )

    def close(self) -> None:
        """Close the connection that is kept open."""
        self._fetcher.close()

    def ask(
        self, parameters: Mapping[str, str | int], *, busy: Callable[[dict[str, Any]], str | None] = lambda _: None
    ) -> dict[str, Any]:
        """The JSON that the service answers; retries where that may help.

        Args:
            parameters: of the query string.
            busy: takes an answer; returns the reason if it means 'try later', else None.

        Raises:
            SearchError: there is no usable answer; the message says why, and what to do.
        """
        url = f"{self._base}{self._service.path}?{urlencode({**parameters, **self._fixed_parameters})}"
        for tries in itertools.count(1):
            try:
                return self._try(url, busy)
            except DownloadError as error:
                pause = self._wait(tries, error.retry_after) if error.passing and tries <= self._retries else None
                if pause is None:
                    raise self._search_error(error) from None
                self._sleep(pause)
        raise AssertionError("not reached")

    def without_key(self, said: Any) -> str:
        """A text from the service as one short line, with the key blanked out; empty if it is not a text."""
        if not isinstance(said, str):
            return ""
        for form in {self._key, quote(self._key), quote_plus(self._key)} - {""}:
            said = said.replace(form, "***")  # before the text is cut, which could leave a part of the key
        return text(said, _MAX_EXPLANATION)

    def _try(self, url: str, busy: Callable[[dict[str, Any]], str | None]) -> dict[str, Any]:
        pause = self._not_before - self._clock()
        if pause > 0:
            self._sleep(pause)
        try:
            with _unlogged(self._key):
                answer = self._fetcher.fetch(url)
        finally:
            self._not_before = self._clock() + self._interval
        found = self._parsed(answer)
        if (reason := busy(found)) is not None:
            raise DownloadError("busy", detail=reason, passing=True, retry_after=answer.retry_after)
        return found

    def _parsed(self, answer: FetchResult) -> dict[str, Any]:
        try:
            found = json.loads(answer.body)
        except (ValueError, RecursionError):
            raise malformed(self.name, "it is not JSON") from None
        if not isinstance(found, dict):
            raise malformed(self.name, f"expected a JSON object, found {type(found).__name__}")
        return found

    def _search_error(self, error: DownloadError) -> SearchError:
        """The error for the user: one line, with what to do."""
        status = error.http_status
        code = f"HTTP {status}{self._explanation(error)}"
        if error.reason == "busy":
            problem = f"is busy ({self.without_key(error.detail)}): {_LATER}"
        elif error.reason == "too many redirects":
            problem = f"has moved away from {self._base}: give its new address with --searchUrl"
        elif error.reason == "address not allowed":
            problem = f"was not called: {error.detail}; if that is intended, add the host to download_allowedHosts"
        elif status is None or status == 200:
            detail = self.without_key(f"{error.reason}: {error.detail}")
            problem = f"gave no answer at {self._base} ({detail}): check the connection, or searchUrl; then {_LATER}"
        elif status in (401, 403):
            problem = f"refuses ({code}): {self._service.refused}"
        elif status == 429:
            asked = f"; it asks to wait {error.retry_after:.0f} s" if error.retry_after else ""
            problem = f"has received too many requests ({code}{asked}): {_LATER}"
        elif error.passing:
            problem = f"is out of order ({code}): {_LATER}"
        else:
            problem = f"rejects this query ({code}): change it, or check searchUrl"
        return SearchError(f"{self.name} {problem}")

    def _explanation(self, error: DownloadError) -> str:
        """The service's explanation of a refusal, as ', "…"'; empty if there is none."""
        try:
            body = json.loads(error.body)
        except (ValueError, RecursionError):
            return ""
        said = inner(body, "detail") or inner(body, "error") or inner(body, "message")
        said = inner(said, "detail") or inner(said, "info") or inner(said, "message") or said
        return f", {words!r}" if (words := self.without_key(said)) else ""


def _base(url: str, *, with_key: bool) -> tuple[str, bool]:
    """The URL without a slash at its end, and whether it is on this machine."""
    try:
        target = parse(url)
    except DownloadError as error:
        raise ParameterError(f"searchUrl: {error}; expected something like https://api.openverse.org") from None
    loopback = is_loopback(target.host)
    if with_key and target.scheme != "https" and not loopback:
        raise ParameterError(f"searchUrl = {target.url}: the key would be sent unencrypted: use https://")
    return target.url.partition("?")[0].rstrip("/"), loopback


def _key(service: SearchService) -> str:
    """The key from the environment; empty if none is needed."""
    if not service.key_variable:
        return ""
    key = os.environ.get(service.key_variable, "").strip()
    if not key:
        raise ParameterError(
            f"{service.name} needs a key: set the environment variable {service.key_variable}, "
            "or use openverse or wikimedia, which need none"
        )
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ParameterError(
            f"{service.key_variable} has characters that are not part of any key: set it to the key alone"
        )
    return key


@contextlib.contextmanager
def _unlogged(key: str) -> Any:
    """Keep the key out of urllib3's debug log within the block."""
    logger = logging.getLogger("urllib3.connectionpool")

    def is_discreet(record: logging.LogRecord) -> bool:
        return not key or (key not in record.getMessage() and quote_plus(key) not in record.getMessage())

    logger.addFilter(is_discreet)
    try:
        yield
    finally:
        logger.removeFilter(is_discreet)
