from pathlib import Path

import pytest

from libraries.base.errors import InputError, MissingInput
from libraries.web.download.url_list import read_url_list


def written(folder: Path, content: bytes) -> Path:
    path = folder / "urls.tsv"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "content",
    [
        b"cat\thttp://a/1.jpg\ndog\thttp://a/2.jpg",
        b"\xef\xbb\xbfcat\thttp://a/1.jpg\r\ndog\thttp://a/2.jpg\r\n",
        b"cat\thttp://a/1.jpg\rdog\thttp://a/2.jpg\r",
        "cat\thttp://a/1.jpg\r\ndog\thttp://a/2.jpg\r\n".encode("utf-16"),
        b"# label\turl\n\n  \t \n  cat \t http://a/1.jpg \t640\tmore\n \t\ndog\thttp://a/2.jpg\n",
    ],
    ids=["plain", "byte order mark and CRLF", "CR", "UTF-16", "comments, blanks, columns"],
)
def test_forms_of_a_list(tmp_path: Path, content: bytes) -> None:
    assert list(read_url_list(written(tmp_path, content))) == [("cat", "http://a/1.jpg"), ("dog", "http://a/2.jpg")]


def test_labels_are_composed_and_other_line_separators_are_text(tmp_path: Path) -> None:
    content = "Ka\u0308se\thttp://a/\u2028x\nK\u00e4se\thttp://a/y".encode()
    assert list(read_url_list(written(tmp_path, content))) == [("Käse", "http://a/\u2028x"), ("Käse", "http://a/y")]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"cat\thttp://a\nhttp://b\n", ["line 2", "no tab"]),
        (b"cat\thttp://a\n\ndog\t \n", ["line 3", "no URL"]),
        (b"cat\thttp://a\r\ncaf\xe9\thttp://b\n", ["line 2", "UTF-8"]),
        ("cat\thttp://a".encode("utf-16-le"), ["line 1", "UTF-8"]),
        (b"a/b\thttp://a\n", ["line 1", "a/b"]),
        (b"..\thttp://a\n", ["line 1", "'..'"]),
        (b"a\x07b\thttp://a\n", ["line 1", "control"]),
        (b"CON\thttp://a\n", ["line 1", "CON"]),
        (b"\thttp://a\n", ["line 1", "empty"]),
        (b"Cat\thttp://a\ncat\thttp://b\n", ["'Cat'", "'cat'"]),
        (b"", ["no image"]),
        (b"# nothing\n\n", ["no image"]),
    ],
)
def test_bad_lists_name_file_and_line(tmp_path: Path, content: bytes, words: list[str]) -> None:
    path = written(tmp_path, content)
    with pytest.raises(InputError) as raised:
        list(read_url_list(path))
    message = str(raised.value)
    assert str(path) in message and "\n" not in message
    assert all(word in message for word in words), message


def test_a_missing_list(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match=r"urls\.tsv does not exist"):
        list(read_url_list(tmp_path / "urls.tsv"))
    with pytest.raises(InputError, match="cannot be read"):
        list(read_url_list(tmp_path))
