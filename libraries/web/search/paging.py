"""Pages of results → the first so many images, whatever the pages are like."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

from libraries.web.search.found import Found
from libraries.web.search.licences import permits
from libraries.web.search.names import LicenceFilter

MAX_PAGES = 60  # of one query


class Provider(Protocol):
    """A service that finds images by words. A new one is a module with such a class, and a line in `providers`."""

    name: str

    def pages(self, query: str, count: int) -> Iterator[list[Found]]:
        """What it finds, page by page, the best first; a page is asked for when it is taken.

        Raises:
            SearchError: it cannot be asked, or refuses; in one line, with what to do.
        """


def first(provider: Provider, query: str, *, count: int, licence: LicenceFilter = "any") -> list[Found]:
    """The first `count` different images whose licence permits what is wanted.

    Ends early at a page that brings nothing new: some services repeat their last page for ever.
    """
    seen: set[str] = set()
    wanted: list[Found] = []
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
