"""SerpApi: the results of Google's image search, with a key, without licences. https://serpapi.com"""

import itertools
from collections.abc import Iterator
from typing import Any

from libraries.base.errors import SearchError
from libraries.web.search.client import SearchClient, SearchService
from libraries.web.search.results import FoundImage, inner, link, pixels, rows, text


def _pages(client: SearchClient, query: str, count: int) -> Iterator[list[FoundImage]]:
    for page in itertools.count():
        answer = client.ask({"engine": "google_images", "q": query, "ijn": page})
        if "images_results" not in answer and (said := client.without_key(answer.get("error"))):
            if "any results" in said:  # "Google hasn't returned any results for this query."
                return
            raise SearchError(f"{client.name} could not answer ({said!r}): run the script again later")
        yield [image for image in map(_found, rows(answer, "images_results", client.name)) if image.url]
        if not inner(answer.get("serpapi_pagination"), "next"):
            return


SERVICE = SearchService(
    name="serpapi",
    url="https://serpapi.com",
    path="/search",
    interval=1.0,
    refused="check the key in SERPAPI_API_KEY",
    key_variable="SERPAPI_API_KEY",
    key_parameter="api_key",  # there is no header for it
    has_licences=False,
    pages=_pages,
)


def _found(row: dict[str, Any]) -> FoundImage:
    return FoundImage(
        url=link(row.get("original")),
        page=link(row.get("link")),
        title=text(row.get("title")),
        width=pixels(row.get("original_width")),
        height=pixels(row.get("original_height")),
    )
