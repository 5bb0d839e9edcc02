"""The images that a search finds, parsed from a stranger's answer: every value is checked, cleaned and limited."""

import html
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from libraries.base.errors import DownloadError, SearchError
from libraries.web.addresses import parse

MAX_TEXT = 500  # characters of a title, a creator, …
_MAX_SIDE = 1_000_000  # pixels
_HOST = re.compile(r"[a-z0-9._:-]+")
_TAG = re.compile(r"<[^<>]{0,2000}>")


@dataclass(frozen=True)
class FoundImage:
    """An image that a service has found. What the service does not report is empty.

    Attributes:
        url: of the image file, http or https, normalized.
        page: the web page about the image.
        title: of the image.
        creator: to be named.
        licence: its name, such as 'CC BY-SA 4.0'.
        licence_url: the URL of its text.
        attribution: the sentence that the service proposes.
        width: of the original, in pixels.
        height: of the original, in pixels.
        provider: the name of the service.
        rank: position among the images for the query, from 1.
    """

    url: str
    page: str = ""
    title: str = ""
    creator: str = ""
    licence: str = ""
    licence_url: str = ""
    attribution: str = ""
    width: int | None = None
    height: int | None = None
    provider: str = ""
    rank: int = 0


def text(value: Any, limit: int = MAX_TEXT) -> str:
    """A text as one line without control characters; empty if the value is not a text."""
    if not isinstance(value, str):
        return ""
    visible = (c if unicodedata.category(c)[0] != "C" else " " for c in value[: 10 * limit])
    return " ".join("".join(visible).split())[:limit].rstrip()


def plain(value: Any, limit: int = MAX_TEXT) -> str:
    """The text of a piece of HTML; empty if the value is not a text."""
    return text(html.unescape(_TAG.sub(" ", value[: 20 * limit])), limit) if isinstance(value, str) else ""


def link(value: Any) -> str:
    """An http(s) URL in ASCII without spaces, quotes or angle brackets; empty if the value is not one."""
    if not isinstance(value, str):
        return ""
    value = value.strip()
    try:
        target = parse(f"https:{value}" if value.startswith("//") else value)
    except (DownloadError, ValueError):  # ValueError: lone surrogates
        return ""
    return target.url if _HOST.fullmatch(target.host) else ""


def pixels(value: Any) -> int | None:
    """A width or height; None if the value cannot be one."""
    return value if type(value) is int and 0 < value <= _MAX_SIDE else None


def inner(value: Any, key: str) -> Any:
    """The value of a key; None if there is none, or if `value` is not an object."""
    return value.get(key) if isinstance(value, dict) else None


def rows(answer: Mapping[str, Any], key: str, provider: str) -> list[dict[str, Any]]:
    """The list of results in an answer.

    Raises:
        SearchError: there is no such list. Names the provider and what was found instead.
    """
    listed = answer.get(key)
    if not isinstance(listed, list) or not all(isinstance(row, dict) for row in listed):
        kind = "nothing" if key not in answer else "something else"
        raise malformed(provider, f"expected a list of results under '{key}', found {kind}")
    return listed


def malformed(provider: str, problem: str) -> SearchError:
    """The error for an answer that does not match the service's documentation."""
    return SearchError(
        f"{provider} gave an answer that is not understood: {problem}; try again later, or use another searchProvider"
    )
