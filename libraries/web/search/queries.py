"""The file of queries: the words to search for, per label. An example is `resources/fashionTextureQueries.toml`."""

import itertools
import math
import re
import tomllib
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from libraries.base.errors import InputError
from libraries.base.text import read_text
from libraries.data.class_folders import check_label, check_labels

IMAGES = 50  # per query, by default
MAX_IMAGES = 500
MAX_QUERIES = 500
MAX_LENGTH = 200  # characters of a query
MAX_WORDS = 50  # of a query: Brave's limit, the lowest of all
_MAX_BYTES = 1_000_000  # of the file
_KEYS = ("images", "labels", "words")
_PLACE = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Query:
    """The words to search for, and the label of the images found."""

    label: str
    text: str


@dataclass(frozen=True)
class Queries:
    """The queries of a file, label by label, and the number of images wanted per query."""

    images: int
    queries: tuple[Query, ...]


def read_queries(path: Path) -> Queries:
    """Read queries: every `{word}` is replaced by each of its words, several by every combination.

    A query that occurs twice for one label is sent once.

    Raises:
        MissingInput: there is no such file.
        InputError: the file is not TOML, or breaks a rule. Names the file and the key.
    """
    table = _table(path)
    unknown = [key for key in table if key not in _KEYS]
    if unknown:
        raise InputError(f"{path}, {unknown[0]}: there is no such key; the keys are {', '.join(_KEYS)}")
    images = table.get("images", IMAGES)
    if type(images) is not int or not 1 <= images <= MAX_IMAGES:
        raise InputError(f"{path}, images: expected a whole number from 1 to {MAX_IMAGES}, found {str(images)[:40]!r}")
    words = {name: _texts(path, f"words.{name}", value) for name, value in _section(path, table, "words").items()}
    queries: dict[str, Query] = {}
    for name, value in _section(path, table, "labels").items():
        for query in _of_label(path, name, value, words):
            other = queries.setdefault(query.text.casefold(), query)
            if other.label != query.label:
                where = f"{path}, labels.{name}"
                raise InputError(
                    f"{where}: the query {query.text!r} is also one of '{other.label}': remove it from one of them"
                )
            if len(queries) > MAX_QUERIES:
                raise InputError(f"{path}, labels.{name}: more than {MAX_QUERIES} queries in all: use fewer words")
    try:
        check_labels(query.label for query in queries.values())
    except InputError as error:
        raise InputError(f"{path}, labels: {error}") from None
    if not queries:
        raise InputError(f'{path}, labels: there are none; write one per line, like striped = ["striped shirt"]')
    return Queries(images, tuple(queries.values()))


def _table(path: Path) -> dict[str, Any]:
    text = read_text(path, what="the file of queries", max_bytes=_MAX_BYTES)
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not TOML: {error}") from None


def _section(path: Path, table: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = table.get(name, {})
    if not isinstance(section, dict):
        raise InputError(f"{path}, {name}: expected a section [{name}], found {str(section)[:40]!r}")
    return section


def _texts(path: Path, key: str, value: Any) -> list[str]:
    """A list of texts, checked: neither it nor any of them is empty."""
    if not isinstance(value, list) or not value or not all(isinstance(text, str) for text in value):
        raise InputError(f'{path}, {key}: expected a list of texts, such as ["one", "two"]')
    texts = [" ".join(text.split()) for text in value]
    if not all(texts):
        raise InputError(f"{path}, {key}: an empty text")
    return texts


def _of_label(path: Path, name: str, value: Any, words: Mapping[str, list[str]]) -> list[Query]:
    """The queries of one label."""
    key = f"labels.{name}"
    try:
        label = check_label(name)
    except InputError as error:
        raise InputError(f"{path}, {key}: {error}") from None
    if label.startswith("#"):
        raise InputError(f"{path}, {key}: begins with '#', which marks comments in lists of URLs")
    found: list[Query] = []
    for template in _texts(path, key, value):
        found += [Query(label, _checked(path, key, text)) for text in _expanded(path, key, template, words)]
    return found


def _expanded(path: Path, key: str, template: str, words: Mapping[str, list[str]]) -> list[str]:
    names = list(dict.fromkeys(_PLACE.findall(template)))
    for name in names:
        if name not in words:
            known = f"the words are {', '.join(words)}" if words else "the section [words] has none"
            raise InputError(f"{path}, {key}: there is no word {{{name}}}; {known}")
    if set("{}") & set(_PLACE.sub("", template)):
        raise InputError(f"{path}, {key}: an unmatched brace in {template!r}; write words as {{name}}")
    if math.prod(len(words[name]) for name in names) > MAX_QUERIES:  # checked before they are built
        raise InputError(f"{path}, {key}: more than {MAX_QUERIES} queries: use fewer words")
    combinations = itertools.product(*(words[name] for name in names))
    chosen = (dict(zip(names, combination, strict=True)) for combination in combinations)
    return [_PLACE.sub(lambda place, of=of: of[place[1]], template) for of in chosen]  # type: ignore[misc]


def _checked(path: Path, key: str, text: str) -> str:
    if len(text) > MAX_LENGTH or len(text.split()) > MAX_WORDS:
        limits = f"{MAX_LENGTH} characters or {MAX_WORDS} words"
        raise InputError(f"{path}, {key}: a query of more than {limits}: {text[:40]!r}")
    if any(unicodedata.category(c).startswith("C") for c in text):
        raise InputError(f"{path}, {key}: control characters in {text!r}")
    return text
