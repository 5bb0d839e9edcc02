"""Bodies of requests: read within bounds, counted while in memory, and taken apart whatever they hold."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request

from libraries.service.bodies import BodyReader, check_json, uploads
from libraries.service.problems import Problem

FORM = "multipart/form-data; boundary=B"


def part(disposition: str | bytes, content: bytes = b"content", *, more: bytes = b"") -> bytes:
    """A part of a form."""
    name = disposition if isinstance(disposition, bytes) else disposition.encode()
    return b"--B\r\nContent-Disposition: form-data; name=f" + name + b"\r\n" + more + b"\r\n" + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--B--\r\n"


def names(body: bytes, *, most: int = 10) -> list[str | None]:
    return [upload.name for upload in uploads(body, FORM, most=most)]


def refused(body: bytes, content_type: str = FORM, *, most: int = 10) -> Problem:
    with pytest.raises(Problem) as problem:
        uploads(body, content_type, most=most)
    return problem.value


# Taking apart


def test_a_form_gives_its_files_in_order_and_no_other_fields() -> None:
    body = form(part('; filename="b.png"', b"1"), part("", b"a field"), part("; filename=a.png", b"2\r\n-\r\n--\r\n3"))
    assert [(u.name, u.data, u.is_whole_body) for u in uploads(body, FORM, most=2)] == [
        ("b.png", b"1", False),
        ("a.png", b"2\r\n-\r\n--\r\n3", False),
    ]


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ('; filename="Zellen – 電池.png"', "Zellen – 電池.png"),
        ('; filename="a %22quoted%22 name.png"', 'a "quoted" name.png'),  # as browsers write it
        (r'; filename="a \"quoted\" name.png"', 'a "quoted" name.png'),  # as curl does
        ("; filename*=utf-8''%E9%9B%BB%20%22.png", '電 ".png'),  # as urllib3 1 does
        ("; filename=\"x.png\"; filename*=UTF-8''%C3%BC.png", "ü.png"),
        ('; filename=""', None),
        ('; filename="semi;colon=.png"', "semi;colon=.png"),
        (b'; filename="\xff\xfe.png"', "\ufffd\ufffd.png"),
        ('; filename="../../etc/passwd"', "../../etc/passwd"),  # a name to show, never one to open
    ],
)
def test_names_of_files(disposition: str | bytes, name: str | None) -> None:
    assert names(form(part(disposition))) == [name]


def test_raw_bytes_are_one_image() -> None:
    for kind in ("image/png", "IMAGE/PNG", "image/x-whatever; a=b", "application/octet-stream"):
        (upload,) = uploads(b"bytes", kind, most=1)
        assert (upload.data, upload.name, upload.is_whole_body) == (b"bytes", None, True)


@pytest.mark.parametrize(
    ("status", "content_type", "body"),
    [
        (422, "image/png", b""),
        (422, FORM, form(part("", b"a field"))),
        (422, FORM, b"--B--\r\n"),
        (415, "application/json", b"{}"),
        (415, "text/plain; boundary=B", b"hello"),
        (415, "", b"hello"),
        (415, "multipart/mixed; boundary=B", form(part("; filename=a"))),
        (400, "multipart/form-data", form(part("; filename=a"))),
        (400, "multipart/form-data; boundary=", form(part("; filename=a"))),
        (400, "multipart/form-data; boundary=" + "B" * 71, form(part("; filename=a"))),
        (400, "multipart/form-data; boundary=C", form(part("; filename=a"))),
        (400, "multipart/form-data" + ';";' * 20_000, form(part("; filename=a"))),
        (400, FORM, b""),
        (400, FORM, b"hello"),
        (400, FORM, part("; filename=a") + part("; filename=b")[:-5]),  # breaks off within the second
        (400, FORM, part("; filename=a") + b"--B\r\nContent-Disp"),
        (400, FORM, part("; filename=a")),  # the last boundary is missing
        (400, FORM, form(part("; filename=a", more=b"X: " + b"x" * 100_000 + b"\r\n"))),
        (400, FORM, form(part("; filename=a", more=b"x" * 100_000))),
        (400, FORM, form(part("; filename=a", more=b"X: x\r\n" * 1000))),
        (413, FORM, form(*(part("; filename=a") for _ in range(11)))),
    ],
)
def test_refusals(status: int, content_type: str, body: bytes) -> None:
    problem = refused(body, content_type)
    assert problem.status == status
    assert len(problem.detail) < 200


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.data())
def test_any_bytes_give_images_or_a_problem(data: st.DataObject) -> None:
    """Whole forms with bytes changed, cut out and put in."""
    body = bytearray(form(part('; filename="ä.png"', b"1\r\n"), part("; filename*=utf-8''%ff", b"--B"), part("")))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(body)))
        body[at : at + data.draw(st.integers(0, 20))] = data.draw(st.binary(max_size=20))
    try:
        for upload in uploads(bytes(body), FORM, most=10):
            (upload.name or "").encode()
    except Problem as problem:
        assert problem.status in (400, 422)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(st.characters(max_codepoint=255), max_size=200), st.binary(max_size=50))
def test_any_content_type_gives_images_or_a_problem(content_type: str, body: bytes) -> None:
    for kind in (content_type, f"multipart/form-data; {content_type}"):
        try:
            uploads(body, kind, most=10)
        except Problem as problem:
            assert problem.status in (400, 415, 422)


def test_json_with_too_many_values_is_refused_before_it_is_parsed() -> None:
    check_json(b"[1, 2, 3]", most=3)
    for bomb in (b"[" * 10, b'{"":' * 10, b"1," * 10, b"{}," * 10):
        with pytest.raises(Problem) as problem:
            check_json(bomb, most=9)
        assert problem.value.status == 413


# Reading


def request(chunks: Iterable[bytes] | AsyncIterator[bytes], headers: Sequence[tuple[str, str]] = ()) -> Request:
    """A request whose body comes in these chunks; an asynchronous iterator may never end."""
    encoded = [(name.encode(), value.encode()) for name, value in headers]
    waiting = iter(chunks) if isinstance(chunks, Iterable) else None

    async def receive() -> dict[str, Any]:
        if waiting is not None:
            chunk = next(waiting, None)
            return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}
        assert isinstance(chunks, AsyncIterator)
        return {"type": "http.request", "body": await anext(chunks), "more_body": True}

    return Request({"type": "http", "method": "POST", "path": "/", "headers": encoded}, receive)


def reader(*, most_bytes: int = 100, most_buffered: int = 150, seconds: float = 30.0) -> BodyReader:
    return BodyReader(most_bytes=most_bytes, most_buffered=most_buffered, seconds=seconds)


def problem_of(bodies: BodyReader, asked: Request) -> Problem:
    """The problem that reading gives; afterwards nothing counts as buffered."""

    async def read() -> None:
        async with bodies.read(asked):
            raise AssertionError("it was read")

    with pytest.raises(Problem) as problem:
        asyncio.run(read())
    assert bodies.buffered == 0
    return problem.value


def test_a_body_counts_as_buffered_until_the_end_of_the_block() -> None:
    bodies = reader()

    async def read() -> None:
        async with bodies.read(request([b"a" * 40, b"", b"b" * 60])) as body:
            assert body == b"a" * 40 + b"b" * 60
            assert bodies.buffered == 100
            with pytest.raises(Problem) as problem:
                async with bodies.read(request([b"c" * 40, b"c" * 40])):
                    pass
            assert (problem.value.status, problem.value.retry_after) == (503, 1)
            assert bodies.buffered == 100
            async with bodies.read(request([b"d" * 50])):
                assert bodies.buffered == 150
        assert bodies.buffered == 0
        with pytest.raises(ZeroDivisionError):
            async with bodies.read(request([b"e"])):
                raise ZeroDivisionError
        assert bodies.buffered == 0

    asyncio.run(read())


def test_too_large_by_declaration_is_refused_unread() -> None:
    async def never() -> AsyncIterator[bytes]:
        raise AssertionError("it was read")
        yield b""

    assert problem_of(reader(), request(never(), [("content-length", "101")])).status == 413
    assert problem_of(reader(), request(never(), [("content-encoding", "gzip")])).status == 415


def test_too_large_without_declaration_is_refused_at_the_first_byte_too_many() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 30

    assert problem_of(reader(), request(endless())).status == 413


def test_a_slow_sender_is_408() -> None:
    async def drip() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    assert problem_of(reader(seconds=0.05), request(drip())).status == 408


def test_a_sender_who_goes_away_is_400() -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    asked = Request({"type": "http", "method": "POST", "path": "/", "headers": []}, receive)
    assert problem_of(reader(), asked).status == 400


def test_large_bodies_are_parsed_in_a_thread_one_at_a_time() -> None:
    async def test() -> None:
        bodies, at_once, most = reader(), 0, 0
        lock = threading.Lock()

        def parser(body: bytes, plus: int) -> tuple[int, bool]:
            nonlocal at_once, most
            with lock:
                at_once += 1
                most = max(most, at_once)
            sum(range(200_000))  # long enough for another thread to come in
            with lock:
                at_once -= 1
            return len(body) + plus, threading.current_thread() is threading.main_thread()

        assert await bodies.parse(parser, b"small", 1) == (6, True)
        large = await asyncio.gather(*(bodies.parse(parser, bytes(10**6), plus=i) for i in range(20)))
        assert large == [(10**6 + i, False) for i in range(20)]
        assert most == 1

    asyncio.run(test())
