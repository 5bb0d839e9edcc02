"""Brave Search: images of the whole web, with a key, without licences. https://api.search.brave.com"""

from collections.abc import Iterator
from typing import Any

from libraries.web.search.client import SearchClient, SearchService
from libraries.web.search.results import FoundImage, inner, link, pixels, rows, text

MOST = 200  # images per query; there are no further pages


def _pages(client: SearchClient, query: str, count: int) -> Iterator[list[FoundImage]]:
    answer = client.ask({"q": query, "count": min(count, MOST), "safesearch": "strict"})
    yield [image for image in map(_found, rows(answer, "results", client.name)) if image.url]


SERVICE = SearchService(
    name="brave",
    url="https://api.search.brave.com",
    path="/res/v1/images/search",
    interval=1.1,  # one request a second is what the smallest plan allows
    refused="check the key in BRAVE_API_KEY, and that its plan includes images",
    key_variable="BRAVE_API_KEY",
    key_header="X-Subscription-Token",
    has_licences=False,
    pages=_pages,
)


def _found(row: dict[str, Any]) -> FoundImage:
    image = row.get("properties")
    return FoundImage(
        url=link(inner(image, "url")),
        page=link(row.get("url")),
        title=text(row.get("title")),
        width=pixels(inner(image, "width")),
        height=pixels(inner(image, "height")),
    )
