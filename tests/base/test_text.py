"""Lists as editors save them: read, or refused by file and line."""

import os
from pathlib import Path

import pytest

from libraries.base.errors import InputError, MissingInput
from libraries.base.text import MAX_LINE, read_lines, read_text

LINES = ["cat\t1.png", "", "Müll\t\u2028 2.png"]


def written(folder: Path, content: bytes) -> Path:
    path = folder / "list.tsv"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_what_editors_save_is_read(tmp_path: Path, encoding: str, end: str) -> None:
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    for last in ("", end):
        path = written(tmp_path, (mark + end.join(LINES) + last).encode(encoding))
        assert list(read_lines(path, what="the list")) == LINES
        assert read_text(path, what="the list", max_bytes=1000) == "\n".join(LINES) + last.replace(end, "\n")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"cat\t1\ndog\tm\xfcll\n", "line 2 is neither UTF-8 nor UTF-16 text: save it with the encoding UTF-8"),
        (b"cat\r\rdog\xff", "line 3 is neither"),
        ("cat\nd\u00f6g\n".encode("utf-16-le"), "line 1 contains NUL characters"),
        (b"\xff\xfec\0\n\0\0\xd8d\0", "line 2 is neither"),
        ("cat\ndog".encode("utf-16")[:-1], "line 2 is neither"),
        ("cat".encode("utf-32"), "line 1 contains NUL characters"),
        (b"cat\n\xed\xb2\x80", "line 2 is neither"),
        (b"a\nb\0", "line 2 contains NUL characters, so it is not text: save it with the encoding UTF-8"),
    ],
    ids=["cp1252", "old Mac", "no mark", "half a pair", "cut off", "UTF-32", "surrogates", "NUL"],
)
def test_what_is_not_text_is_refused_by_file_and_line(tmp_path: Path, content: bytes, problem: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(InputError) as by_line:
        list(read_lines(path, what="the list"))
    with pytest.raises(InputError) as whole:
        read_text(path, what="the list", max_bytes=1000)
    for raised in (by_line, whole):
        assert str(raised.value).startswith(f"{path}, {problem}")


def test_size_is_bounded(tmp_path: Path) -> None:
    path = written(tmp_path, b"a\n" + b"x" * (MAX_LINE + 1))
    with pytest.raises(InputError, match="line 2 has more than 1,000,000 characters: this is not the list"):
        list(read_lines(path, what="the list"))
    with pytest.raises(InputError, match="it has more than 1,000,000 bytes"):
        read_text(path, what="the list", max_bytes=1_000_000)


def test_a_file_that_cannot_be_had(tmp_path: Path) -> None:
    for read in (lambda path: list(read_lines(path, what="the list")), lambda p: read_text(p, what="it", max_bytes=9)):
        with pytest.raises(MissingInput, match=r"none\.tsv does not exist"):
            read(tmp_path / "none.tsv")
        with pytest.raises(InputError, match="cannot be read"):
            read(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_with_a_name_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(path := tmp_path / "list.tsv")
    for read in (lambda path: list(read_lines(path, what="the list")), lambda p: read_text(p, what="it", max_bytes=9)):
        with pytest.raises(InputError, match=r"list\.tsv cannot be read: it is not a regular file"):
            read(path)


@pytest.mark.skipif(os.name != "posix", reason="a pipe with a name")
def test_a_pipe_is_read_once(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, "\n".join(LINES).encode())
    os.close(writing)
    assert list(read_lines(Path(f"/dev/fd/{reading}"), what="the list")) == LINES
    os.close(reading)
