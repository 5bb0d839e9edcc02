"""The services that search for images, and how to open one by name.

A new service is one module with a `SERVICE`, one entry in `SERVICES`, and its name in `names.ProviderName`.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from libraries.base.errors import ParameterError
from libraries.web.search import brave, openverse, serpapi, wikimedia
from libraries.web.search.client import SearchClient
from libraries.web.search.names import LicenceFilter, permits, refuse_retired
from libraries.web.search.results import FoundImage

MAX_PAGES = 60  # of one query

SERVICES = {service.name: service for service in (openverse.SERVICE, wikimedia.SERVICE, brave.SERVICE, serpapi.SERVICE)}


@dataclass(frozen=True)
class Provider:
    """A search service that is open.

    Attributes:
        name: one of `SERVICES`.
        pages: (query, number of images wanted) → the images found; see `SearchService`.
    """

    name: str
    pages: Callable[[str, int], Iterator[list[FoundImage]]]


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
    if licence != "any" and not service.has_licences:
        raise ParameterError(
            f"searchLicence = {licence}: {name} does not report the images' licences; use openverse or "
            "wikimedia, or searchLicence = any and check the licences yourself"
        )
    with contextlib.closing(SearchClient(service, licence=licence, **options)) as client:
        yield Provider(name, partial(service.pages, client))
