"""The services that search for images: their common interface, and how to open one by name."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Protocol

from libraries.base.errors import ParameterError
from libraries.web.search import brave, openverse, serpapi, wikimedia
from libraries.web.search.client import SearchClient, SearchService
from libraries.web.search.names import LicenceFilter, permits, refuse_retired
from libraries.web.search.results import FoundImage

MAX_PAGES = 60  # of one query

SERVICES: dict[str, SearchService] = {
    module.SERVICE.name: module.SERVICE for module in (openverse, wikimedia, brave, serpapi)
}
WITHOUT_LICENCES = ("brave", "serpapi")


class Provider(Protocol):
    """A service that finds images by words. To add one, write a module with such a class, and name it here."""

    name: str

    def pages(self, query: str, count: int) -> Iterator[list[FoundImage]]:
        """The images found, page by page, best first; a page is requested only when it is needed.

        Raises:
            SearchError: the service cannot be reached, or refuses; the message says what to do, in one line.
        """


def first_images(provider: Provider, query: str, *, count: int, licence: LicenceFilter = "any") -> list[FoundImage]:
    """The first `count` distinct images whose licence permits what is wanted.

    Ends early at a page without new images: some services repeat their last page for ever.
    """
    seen: set[str] = set()
    wanted: list[FoundImage] = []
    for _, page in zip(range(MAX_PAGES), provider.pages(query, count), strict=False):
        before = len(seen)
        for found in page:
            if found.url not in seen:
                seen.add(found.url)
                if permits(found.licence, licence):
                    wanted.append(replace(found, provider=provider.name, rank=len(seen)))
        if len(seen) == before or len(wanted) >= count:
            break
    return wanted[:count]


@contextlib.contextmanager
def open_provider(name: str, *, licence: LicenceFilter = "any", **options: Any) -> Iterator[Provider]:
    """The service of this name; its connection is closed at the end of the block.

    Args:
        name: one of `SERVICES`.
        licence: what the images' licences must permit.
        options: of the `SearchClient`.

    Raises:
        ParameterError: there is no such service; it has been retired; it does not report licences although a filter
            is set; or a key or contact is missing.
    """
    try:
        service = SERVICES.get(refuse_retired(name))
    except ValueError as error:
        raise ParameterError(f"searchProvider = {name}: {error}") from None
    if service is None:
        raise ParameterError(f"searchProvider = {name}: expected one of {', '.join(SERVICES)}")
    if licence != "any" and name in WITHOUT_LICENCES:
        raise ParameterError(
            f"searchLicence = {licence}: {name} does not report the images' licences; use openverse or "
            "wikimedia, or searchLicence = any and check the licences yourself"
        )
    with contextlib.closing(SearchClient(service, **options)) as client:
        if name == "openverse":
            yield openverse.Openverse(client, licence)
        elif name == "wikimedia":
            yield wikimedia.Wikimedia(client)
        else:
            yield brave.Brave(client) if name == "brave" else serpapi.SerpApi(client)
