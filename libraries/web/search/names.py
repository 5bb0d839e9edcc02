"""The names that parameters give: of the services that find images, and of the filters on licences."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

RETIRED = {
    "bing": "Bing's image search was retired on 11 August 2025: use openverse or wikimedia, or with a key brave",
    "google": "Google's Custom Search takes no new customers and ends on 1 January 2027: use openverse or wikimedia, "
    "or with a key serpapi, which asks Google's image search",
}


def refuse_retired(name: Any) -> Any:
    """The name, unless it is that of a service that has been retired.

    Raises:
        ValueError: it is; says since when, and what to use instead.
    """
    retired = RETIRED.get(name.strip().lower()) if isinstance(name, str) else None
    if retired:
        raise ValueError(retired)
    return name


ProviderName = Annotated[Literal["openverse", "wikimedia", "brave", "serpapi"], BeforeValidator(refuse_retired)]
LicenceFilter = Literal["any", "commercial", "modify", "commercialModify"]
