"""Openverse: openly licensed images from many collections, without a key. https://api.openverse.org/v1/"""

from collections.abc import Iterator
from typing import Any

from libraries.web.search.client import SearchClient, SearchService
from libraries.web.search.names import openverse_name
from libraries.web.search.results import FoundImage, link, pixels, rows, text

PAGE_SIZE = 20  # for more, unregistered programs are answered with 401
_MAX_PAGES = 12  # likewise


def _pages(client: SearchClient, query: str, count: int) -> Iterator[list[FoundImage]]:
    for page in range(1, _MAX_PAGES + 1):
        answer = client.ask({"q": query, "page": page, "page_size": min(count, PAGE_SIZE)})
        yield [image for image in map(_found, rows(answer, "results", client.name)) if image.url]
        if answer.get("page_count") == page:
            return


SERVICE = SearchService(
    name="openverse",
    url="https://api.openverse.org",
    path="/v1/images/",
    interval=3.0,  # 20 requests a minute for unregistered programs
    refused="perhaps this network has sent too many requests today: try again tomorrow, or another searchProvider",
    licence_parameters={
        "commercial": {"license_type": "commercial"},
        "modify": {"license_type": "modification"},
        "commercialModify": {"license_type": "commercial,modification"},
    },
    pages=_pages,
)


def _found(row: dict[str, Any]) -> FoundImage:
    return FoundImage(
        url=link(row.get("url")),
        page=link(row.get("foreign_landing_url")),
        title=text(row.get("title")),
        creator=text(row.get("creator")),
        licence=openverse_name(text(row.get("license"), 40), text(row.get("license_version"), 20)),
        licence_url=link(row.get("license_url")),
        attribution=text(row.get("attribution"), 1000),
        width=pixels(row.get("width")),
        height=pixels(row.get("height")),
    )
