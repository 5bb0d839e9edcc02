"""Answers from strangers, made harmless."""

from typing import Any

import pytest

from libraries.base.errors import SearchError
from libraries.web.search.results import link, pixels, plain, rows, text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (" A  cat\n\ton a\u2028mat ", "A cat on a mat"),
        ("\x1b[31mred\x07 \u202eevil \ud800", "[31mred evil"),
        ("x" * 600, "x" * 500),
        (None, ""),
        (["a"], ""),
        ("Käse 猫", "Käse 猫"),
    ],
)
def test_text(value: Any, expected: str) -> None:
    assert text(value) == expected


def test_html_becomes_text() -> None:
    assert plain('<a href="//x" title="y">Ann &amp; Bob</a><br/>&lt;i&gt; 2 < 3') == "Ann & Bob <i> 2 < 3"
    assert plain("<" * 100_000).startswith("<<")
    assert plain({"value": 1}) == ""


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("HTTPS://Example.org:443/a b.jpg?x=1&y=(2)#part", "https://example.org/a%20b.jpg?x=1&y=(2)"),
        ("//example.org/licence", "https://example.org/licence"),
        ("http://example.org/\u732b.jpg", "http://example.org/%E7%8C%AB.jpg"),
        ('http://example.org/"><script>', "http://example.org/%22%3E%3Cscript%3E"),
        ("javascript:alert(1)", ""),
        ("data:image/png;base64,AAAA", ""),
        ("file:///etc/passwd", ""),
        ("http://user:word@example.org/", ""),
        ('http://exa"mple.org/', ""),
        ("http://exa)mple.org/", ""),
        ("http://example.org/\ud800", ""),
        ("http://[", ""),
        ("example.org/a.jpg", ""),
        ("http://example.org/" + "x" * 9000, ""),
        ("", ""),
        (7, ""),
        (None, ""),
    ],
)
def test_link(value: Any, expected: str) -> None:
    assert link(value) == expected


@pytest.mark.parametrize("value", [0, -3, True, "640", 640.0, 10**9, None, [640]])
def test_invalid_numbers_of_pixels(value: Any) -> None:
    assert pixels(value) is None
    assert pixels(640) == 640


@pytest.mark.parametrize("answer", [{}, {"results": None}, {"results": {}}, {"results": [1]}, {"results": "no"}])
def test_results_that_are_not_a_list(answer: dict[str, Any]) -> None:
    with pytest.raises(SearchError, match=r"^openverse gave an answer that is not understood: .* 'results', found"):
        rows(answer, "results", "openverse")
