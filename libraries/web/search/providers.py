"""From a name to the service."""

import contextlib
from collections.abc import Iterator
from typing import Any

from libraries.base.errors import ParameterError
from libraries.web.search import brave, openverse, serpapi, wikimedia
from libraries.web.search.client import Client, Service
from libraries.web.search.names import LicenceFilter, refuse_retired
from libraries.web.search.paging import Provider

SERVICES: dict[str, Service] = {
    module.SERVICE.name: module.SERVICE for module in (openverse, wikimedia, brave, serpapi)
}
WITHOUT_LICENCES = ("brave", "serpapi")


@contextlib.contextmanager
def open_provider(name: str, *, licence: LicenceFilter = "any", **options: Any) -> Iterator[Provider]:
    """The service of this name; its connection is closed at the end of the block.

    Args:
        name: one of `SERVICES`.
        licence: what the images' licences have to permit.
        options: of the `Client`.

    Raises:
        ParameterError: there is no such service, it has been retired, it tells no licences although they matter, or a
            key or contact is missing.
    """
    try:
        service = SERVICES.get(refuse_retired(name))
    except ValueError as error:
        raise ParameterError(f"searchProvider = {name}: {error}") from None
    if service is None:
        raise ParameterError(f"searchProvider = {name}: expected one of {', '.join(SERVICES)}")
    if licence != "any" and name in WITHOUT_LICENCES:
        raise ParameterError(
            f"searchLicence = {licence}: {name} does not tell the images' licences; use openverse or wikimedia, "
            "or searchLicence = any and look after the licences yourself"
        )
    with contextlib.closing(Client(service, **options)) as client:
        if name == "openverse":
            yield openverse.Openverse(client, licence)
        elif name == "wikimedia":
            yield wikimedia.Wikimedia(client)
        else:
            yield brave.Brave(client) if name == "brave" else serpapi.SerpApi(client)
