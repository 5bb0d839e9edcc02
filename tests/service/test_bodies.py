"""Request bodies: read within limits, counted while in memory, and parsed whatever they contain."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request

from libraries.base.errors import ImageError, InputError
from libraries.service.base64_json import limited_images
from libraries.service.bodies import BodyReader, check_json, memory_to_parse_json, uploads
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


# Parsing


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
def test_file_names(disposition: str | bytes, name: str | None) -> None:
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
    """Complete forms with bytes changed, removed and inserted."""
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
    check_json(b"[1, 2, 3]", most=3, most_keys=0)
    for bomb in (b"[" * 10, b'{"":' * 10, b"1," * 10, b"{}," * 10):
        with pytest.raises(Problem) as problem:
            check_json(bomb, most=9, most_keys=100)
        assert problem.value.status == 413


# Reading


def request(chunks: Iterable[bytes] | AsyncIterator[bytes], headers: Sequence[tuple[str, str]] = ()) -> Request:
    """A request whose body arrives in these chunks; an asynchronous iterator may never end."""
    encoded = [(name.encode(), value.encode()) for name, value in headers]
    waiting = iter(chunks) if isinstance(chunks, Iterable) else None

    async def receive() -> dict[str, Any]:
        if waiting is not None:
            chunk = next(waiting, None)
            return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}
        assert isinstance(chunks, AsyncIterator)
        return {"type": "http.request", "body": await anext(chunks), "more_body": True}

    return Request({"type": "http", "method": "POST", "path": "/", "headers": encoded}, receive)


def reader(
    *, most_bytes: int = 100, most_buffered: int = 150, seconds: float = 30.0, timeout: float = 30.0
) -> BodyReader:
    return BodyReader(most_bytes=most_bytes, most_buffered=most_buffered, seconds=seconds, timeout=timeout)


def problem_of(bodies: BodyReader, asked: Request) -> Problem:
    """The problem raised by reading; afterwards nothing counts as buffered."""

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


def test_large_bodies_that_never_end_make_room_for_small_ones_and_not_for_each_other() -> None:
    bodies = BodyReader(most_bytes=100, most_buffered=150, seconds=30.0, timeout=30.0, small=20)

    async def stuck(size: int) -> AsyncIterator[bytes]:
        yield b"x" * size
        await asyncio.Event().wait()

    async def read(asked: Request) -> int:
        async with bodies.read(asked) as body:
            return len(body)

    async def test() -> None:
        old = asyncio.create_task(read(request(stuck(80))))
        new = asyncio.create_task(read(request(stuck(70))))
        await asyncio.sleep(0)
        assert bodies.buffered == 150
        for large in (request([b"a" * 15]), request([b"a" * 15], [("content-length", "30")])):
            with pytest.raises(Problem, match="receiving too much"):
                await read(large)
        assert await read(request([b"a" * 15], [("content-length", "15")])) == 15
        with pytest.raises(Problem) as problem:
            await old
        assert (problem.value.status, problem.value.retry_after) == (503, 1)
        assert bodies.buffered == 70
        assert not new.done()
        new.cancel()
        await asyncio.wait([new])
        assert bodies.buffered == 0

    asyncio.run(asyncio.wait_for(test(), 30))


def test_too_large_by_declaration_is_refused_unread() -> None:
    async def never() -> AsyncIterator[bytes]:
        raise AssertionError("it was read")
        yield b""

    assert problem_of(reader(), request(never(), [("content-length", "101")])).status == 413
    assert problem_of(reader(), request(never(), [("content-encoding", "gzip")])).status == 415


def test_too_large_without_declaration_is_refused_at_the_first_excess_byte() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 30

    assert problem_of(reader(), request(endless())).status == 413


def test_a_slow_sender_is_408() -> None:
    async def drip() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    assert problem_of(reader(seconds=0.05), request(drip())).status == 408


def test_a_sender_that_disconnects_is_400() -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    asked = Request({"type": "http", "method": "POST", "path": "/", "headers": []}, receive)
    assert problem_of(reader(), asked).status == 400


# Time limits, and clients that disconnect


def outcome(bodies: BodyReader, asked: Request, work: Callable[[], Coroutine[Any, Any, None]]) -> Problem:
    """The problem raised by work on a body that ends early; afterwards nothing counts as buffered."""

    async def handle() -> None:
        async with bodies.read(asked):
            await work()

    with pytest.raises(Problem) as problem:
        asyncio.run(asyncio.wait_for(handle(), 30))
    assert bodies.buffered == 0
    return problem.value


async def for_ever() -> None:
    await asyncio.Event().wait()


def test_work_that_is_late_is_504() -> None:
    assert outcome(reader(timeout=0.01), request([b"a"]), for_ever).status == 504


def test_work_for_a_client_that_has_disconnected_is_dropped() -> None:
    messages = iter([{"type": "http.request", "body": b"a", "more_body": False}, {"type": "http.disconnect"}])

    async def receive() -> dict[str, Any]:
        return next(messages)

    asked = Request({"type": "http", "method": "POST", "path": "/", "headers": []}, receive)
    assert outcome(reader(), asked, for_ever).status == 499


def test_work_beyond_the_end_of_the_service_is_503_and_earlier_lateness_stays_504() -> None:
    bodies = reader()

    async def stop() -> None:
        bodies.stop_within(0.01)
        await asyncio.Event().wait()

    problem = outcome(bodies, request([b"a"]), stop)
    assert (problem.status, problem.retry_after) == (503, 1)
    bodies = reader(timeout=0.01)

    async def stop_later() -> None:
        bodies.stop_within(30)
        await asyncio.Event().wait()

    assert outcome(bodies, request([b"a"]), stop_later).status == 504


# JSON


def test_memory_for_json_grows_with_its_values_and_where_characters_take_more_bytes() -> None:
    assert memory_to_parse_json(b"a" * 100) == 600
    assert memory_to_parse_json(b"\\u0061" * 10) == memory_to_parse_json("äää".encode() * 10) == 540
    assert memory_to_parse_json(b"[{},{}]") == 6 * 7 + 4 * 130


@pytest.mark.parametrize(
    "hostile",
    [
        b"1" * 1_000_000,
        b"-1." + b"1" * 1_000_000,
        b"1e" + b"9" * 1_000_000,
        b'"' + b"\\ud83d" * 100_000 + b'"',
        b'"\xff\xfe"',
        b"\xff\xfe[\x00",
        b"[" * 5_000,
        b'{"input_df":' * 3_000,
        b'{"input_df": [], "input_df": 1}',
        '{"input_df": 1, "x": "😀'.encode() + b"a" * 1_000_000 + b'"}',
    ],
    ids=range(10),
)
def test_hostile_json_is_refused(hostile: bytes) -> None:
    for body in (hostile, bytearray(b'{"input_df": ' + hostile + b"}")):
        with pytest.raises((InputError, Problem)):
            limited_images(body)


def test_non_ascii_text_is_not_base64() -> None:
    body = '{"input_df": [{"image base64 string": "é"}, {"image base64 string": "YQ=="}]}'.encode()
    refused_one, taken = limited_images(body)
    assert isinstance(refused_one, ImageError) and taken == b"a"


def test_many_keys_are_refused_while_many_numbers_are_not() -> None:
    with pytest.raises(Problem) as problem:
        check_json(b'{"a":1}', most=100, most_keys=1)
    assert problem.value.status == 413
    check_json(b"[[1,2,3]]", most=100, most_keys=0)
