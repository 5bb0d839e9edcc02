"""Forms from strangers: parts, headers and names are limited, and parsing takes time linear in the length."""

import time

import pytest

from libraries.service.bodies import uploads
from libraries.service.multipart import parameters, parts
from libraries.service.problems import Problem

FORM = "multipart/form-data; boundary=B"


def part(*headers: bytes, content: bytes = b"x") -> bytes:
    return b"--B\r\n" + b"".join(header + b"\r\n" for header in headers) + b"\r\n" + content + b"\r\n"


def refused(body: bytes) -> int:
    with pytest.raises(Problem) as problem:
        uploads(body + b"--B--\r\n", FORM, most=10)
    assert len(problem.value.detail) < 200
    return problem.value.status


def test_parts_that_are_not_files_are_counted_and_their_headers_cost_nothing() -> None:
    """With a parser that backtracks in headers, these took minutes."""
    semicolons = part(b"Content-Disposition: form-data; a=" + b";" * 3700)
    quotes = part(b"Content-Disposition: form-data" + b'; a="' * 1500)
    backslashes = part(b'Content-Disposition: form-data; filename="' + b"\\" * 7001)
    blanks = part(b"Content-Disposition: form-data; a" + b" " * 7000)
    begun = time.perf_counter()
    for hostile in (semicolons, quotes, backslashes, blanks):
        assert refused(hostile * 1000) in (400, 413)
    assert time.perf_counter() - begun < 10
    assert refused(b"--B\r\n\r\n\r\n" * 1_000_000) == 413
    assert uploads(part(b"A: b") * 100 + part(b'Content-Disposition: form-data; filename="a"') + b"--B--", FORM, most=1)


@pytest.mark.parametrize(
    "headers",
    [
        [b"X: " + b"x" * 9000],
        [b"X: x"] * 17,
        [b"no colon"],
        [b"X: x", b" folded"],
        [b"Content-Disposition: form-data; filename=" + b"a" * 1025],
        [b"Content-Disposition: form-data; name=" + b"a" * 1025],
        [b"Content-Disposition: form-data; filename*=utf-8''" + b"a" * 1025],
    ],
)
def test_headers_and_names_that_are_too_long_are_refused(headers: list[bytes]) -> None:
    assert refused(part(*headers)) == 400


def test_an_image_without_a_file_name_is_accepted_and_a_field_is_not() -> None:
    body = b"".join(
        (
            part(b"Content-Disposition: form-data; name=a", b"Content-Type: image/png", content=b"1"),
            part(b"Content-Disposition: form-data; name=a", b"content-type: application/octet-stream", content=b"2"),
            part(b"Content-Disposition: form-data; name=a", b"Content-Type: text/plain; charset=utf-8", content=b"3"),
            part(b"Content-Disposition: form-data; name=a", content=b"4"),
        )
    )
    assert [(u.name, u.data) for u in uploads(body + b"--B--", FORM, most=2)] == [(None, b"1"), (None, b"2")]


def test_contents_are_views_of_the_body_and_end_where_the_boundary_begins() -> None:
    body = bytearray(b"preamble\r\n" + part(content=b"\r\n--A\r\n-\r\r\n\n") + b"--B \t\r\n\r\n\r\n--B--epilogue")
    found = list(parts(body, b"B", most=2))
    assert [bytes(p.content) for p in found] == [b"\r\n--A\r\n-\r\r\n\n", b""]
    assert all(p.content.obj is body for p in found)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"form-data", {}),
        (b'Form-Data ; Name = "a;b" ;filename=c d ', {b"name": b"a;b", b"filename": b"c d"}),
        (rb'x; a="1\"2\\3\4"; A="other"', {b"a": rb'1"2\3\4'}),
        (rb'x; filename="C:\folder\"', {b"filename": b"C:\\folder\\"}),  # as browsers write a backslash
        (b'x; a=1; b="open', {b"a": b"1", b"b": b""}),
        (b"x; a=;;; b=1", {b"a": b""}),
    ],
)
def test_parameters_of_headers(value: bytes, expected: dict[bytes, bytes]) -> None:
    kind, found = parameters(value)
    assert kind == value.partition(b";")[0].strip().lower()
    assert found == expected
