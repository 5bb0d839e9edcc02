"""Names of search services, of licence filters, and of licences with what they permit.

PARAMETERS.py imports them, so this module imports nothing heavy.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

RETIRED = {
    "bing": "Bing's image search was retired on 11 August 2025: use openverse or wikimedia, or with a key brave",
    "google": "Google's Custom Search takes no new customers and ends on 1 January 2027: use openverse or wikimedia, "
    "or with a key serpapi, which asks Google's image search",
}

LicenceFilter = Literal["any", "commercial", "modify", "commercialModify"]
_OPENVERSE = {"cc0": "CC0", "pdm": "Public Domain Mark"}  # all other codes are Creative Commons': by, by-sa, …
# Free licences other than Creative Commons', as named on Wikimedia Commons; all permit both commercial use and changes
# (commons.wikimedia.org, Commons:Licensing: no file there may forbid either).
_FREE = re.compile(
    r"cc0|cc[ -]zero|public domain|pd(-|$)|pdm|no restrictions|gfdl|gnu free|free art|fal\b|attribution( only)?$"
    r"|copyrighted free use|ogl|mit\b|bsd|apache|l?gpl",
    re.IGNORECASE,
)
_CREATIVE_COMMONS = re.compile(r"cc[ -]by\b", re.IGNORECASE)


def refuse_retired(name: Any) -> Any:
    """The name, unless the service has been retired.

    Raises:
        ValueError: it has been retired; says since when, and what to use instead.
    """
    retired = RETIRED.get(name.strip().lower()) if isinstance(name, str) else None
    if retired:
        raise ValueError(retired)
    return name


ProviderName = Annotated[Literal["openverse", "wikimedia", "brave", "serpapi"], BeforeValidator(refuse_retired)]


def openverse_name(code: str, version: str) -> str:
    """The usual name of a licence from Openverse's code: 'by-sa' and '4.0' give 'CC BY-SA 4.0'."""
    if not code:
        return ""
    name = _OPENVERSE.get(code.lower(), f"CC {code.upper()}")
    return f"{name} {version}".strip()


def permits(licence: str, wanted: LicenceFilter) -> bool:
    """Whether a licence of this name permits what is wanted; an unknown one permits nothing."""
    if wanted == "any":
        return True
    terms = set(re.split(r"[^a-z]+", licence.lower()))
    if _CREATIVE_COMMONS.match(licence):
        commercial, modify = not terms & {"nc", "noncommercial"}, not terms & {"nd", "noderivs", "noderivatives"}
    else:
        commercial = modify = _FREE.match(licence) is not None
    return {"commercial": commercial, "modify": modify, "commercialModify": commercial and modify}[wanted]
