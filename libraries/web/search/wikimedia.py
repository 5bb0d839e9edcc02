"""Wikimedia Commons: free images, without a key. https://commons.wikimedia.org/w/api.php

Its etiquette (https://www.mediawiki.org/wiki/API:Etiquette): one request at a time, a User-Agent with a contact, and
`maxlag`, which makes busy servers refuse the request.
"""

from collections.abc import Iterator
from typing import Any

from libraries.base.errors import SearchError
from libraries.web.search.client import SearchClient, SearchService
from libraries.web.search.results import FoundImage, inner, link, malformed, pixels, plain, text

PAGE_SIZE = 50
_WIDTH = 1200  # pixels; the largest width to download, as the servers prefer
_MAX_LAG = 5  # seconds
_BUSY = ("maxlag", "ratelimited", "readonly")


def _pages(client: SearchClient, query: str, count: int) -> Iterator[list[FoundImage]]:
    offset = 0
    while True:
        answer = client.ask(_question(query, min(count, PAGE_SIZE), offset), busy=_busy)
        if (error := answer.get("error")) is not None:
            said = text(inner(error, "info"), 200) or "without a reason"
            raise SearchError(f"{client.name} rejects this query ({said!r}): change it")
        yield [image for image in map(_found, _in_order(answer)) if image.url]
        following = inner(answer.get("continue"), "gsroffset")
        if type(following) is not int or following <= offset:
            return
        offset = following


SERVICE = SearchService(
    name="wikimedia",
    url="https://commons.wikimedia.org",
    path="/w/api.php",
    interval=1.0,
    refused="set searchContact to an e-mail address or web page that is really yours",
    needs_contact=True,
    pages=_pages,
)


def _question(query: str, limit: int, offset: int) -> dict[str, str | int]:
    return {
        "action": "query",
        "format": "json",
        "maxlag": _MAX_LAG,
        "generator": "search",
        "gsrsearch": f"{query} filetype:bitmap",
        "gsrnamespace": 6,
        "gsrlimit": limit,
        "gsroffset": offset,
        "prop": "imageinfo",
        "iiprop": "url|size|mime|extmetadata",
        "iiurlwidth": _WIDTH,
    }


def _busy(answer: dict[str, Any]) -> str | None:
    code = inner(answer.get("error"), "code")
    return text(code) if code in _BUSY else None


def _in_order(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """The pages of an answer, best first; none if nothing was found."""
    query = answer.get("query", {})
    pages = query.get("pages", {}) if isinstance(query, dict) else None
    if not isinstance(pages, dict) or not all(isinstance(page, dict) for page in pages.values()):
        raise malformed(SERVICE.name, "expected a table of pages under 'query.pages', found something else")
    last = len(pages)
    return sorted(pages.values(), key=lambda page: index if type(index := page.get("index")) is int else last)


def _found(page: dict[str, Any]) -> FoundImage:
    """The image of a page; without a URL if there is none, for example because the file was deleted."""
    infos = page.get("imageinfo")
    info = infos[0] if isinstance(infos, list) and infos and isinstance(infos[0], dict) else {}
    metadata = info.get("extmetadata")
    licence = plain(inner(inner(metadata, "LicenseShortName"), "value"))
    creator = plain(inner(inner(metadata, "Artist"), "value"))
    title = text(page.get("title")).removeprefix("File:")
    return FoundImage(
        url=link(info.get("thumburl")) or link(info.get("url")),
        page=link(info.get("descriptionurl")),
        title=title,
        creator=creator,
        licence=licence,
        licence_url=link(inner(inner(metadata, "LicenseUrl"), "value")),
        attribution=", ".join(part for part in (creator, title, licence, "via Wikimedia Commons") if part),
        width=pixels(info.get("width")),
        height=pixels(info.get("height")),
    )
