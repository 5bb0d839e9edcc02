"""Keys: from the environment or a file, compared completely, never printed."""

import logging
import os
from pathlib import Path

import pytest

from libraries.base.errors import ParameterError
from libraries.service.keys import checked_key, equal, others_may_read, read_key

KEY = "0123456789-secret"
USER = 10001


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text(KEY + "\n")
    path.chmod(0o600)
    return path


def test_no_key_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SERVICE_KEY", raising=False)
    assert read_key(None, "SERVICE_KEY") is None


def test_key_from_file_or_environment_which_comes_first(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert read_key(file, "SERVICE_KEY") == KEY
    monkeypatch.setenv("SERVICE_KEY", "of-the-environment")
    assert read_key(file, "SERVICE_KEY") == "of-the-environment"
    assert caplog.records == []


@pytest.mark.parametrize(
    "content", [b"\xef\xbb\xbf" + KEY.encode() + b"\r\n", KEY.encode(), f"{KEY}\r\n".encode("utf-16")]
)
def test_line_ends_and_byte_order_marks_do_not_belong_to_the_key(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    assert read_key(file, "SERVICE_KEY") == KEY


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty: give a key of at least 16 characters, or leave it out"),
        (b"\n", "is empty"),
        (b"fifteen-letters", "has 15 characters, expected 16 to 4,096"),
        (b"x" * 5000, "has 4,097 characters, expected 16 to 4,096"),
        (b"with blanks within it", "has spaces, control or non-ASCII characters"),
        (b"two-lines-of-text\nand-another-one", "has spaces, control"),
        (b"a-bell-\x07-within-it-all", "has spaces, control"),
        ("schlüssel-mit-umlaut".encode(), "has spaces, control"),
        (b"no-utf-8-\xff\xfe-at-all", "has spaces, control"),
        (KEY.encode("utf-16-le"), "has spaces, control"),
    ],
)
def test_unusable_keys_are_refused_and_not_printed(
    file: Path, content: bytes, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_bytes(content)
    with pytest.raises(ParameterError) as refused:
        read_key(file, "SERVICE_KEY")
    assert problem in str(refused.value)
    assert str(file) in str(refused.value)
    if content.strip():
        assert content.decode("utf-8", "replace")[:8] not in str(refused.value)
    if content in (b"", b"fifteen-letters"):
        monkeypatch.setenv("SERVICE_KEY", content.decode())
        with pytest.raises(ParameterError, match="environment variable SERVICE_KEY"):
            read_key(None, "SERVICE_KEY")


def test_missing_file_and_folder_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(ParameterError, match="cannot be read: "):
            read_key(path, "SERVICE_KEY")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_file_that_others_can_read_is_read_with_a_warning(
    file: Path, mode: int, caplog: pytest.LogCaptureFixture
) -> None:
    file.chmod(mode)
    with caplog.at_level(logging.WARNING):
        assert read_key(file, "SERVICE_KEY") == KEY
    (record,) = caplog.records
    assert f"{file} can be read by others: chmod 600" in record.getMessage()
    assert KEY not in record.getMessage()


@pytest.mark.parametrize(
    ("mode", "owner", "exposed"),
    [(0o440, 0, False), (0o640, 0, False), (0o444, 0, True), (0o440, USER, True), (0o400, USER, False)],
)
def test_the_group_may_read_what_root_gave_it(mode: int, owner: int, exposed: bool) -> None:
    """Kubernetes mounts a secret for a user other than root so, and in no other way."""
    assert others_may_read(mode, owner=owner, user=USER) is exposed


def test_checked_key_is_the_key() -> None:
    assert checked_key(KEY, "here") == KEY


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (KEY, KEY, True),
        (KEY, KEY.encode(), True),
        (b"", "", True),
        (KEY, KEY[:-1], False),
        (KEY, KEY + "x", False),
        (KEY, "", False),
        ("ü", "ü".encode(), True),
        ("ü", "ü".encode("latin-1"), False),
        ("\ud800", "\ud800", True),  # headers can contain characters that cannot be encoded
        ("x" * 100_000, "x" * 99_999, False),
    ],
)
def test_same(one: str | bytes, other: str | bytes, expected: bool) -> None:
    assert equal(one, other) is expected
    assert equal(other, one) is expected


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_not_waited_for_after_the_start(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ParameterError, match="cannot be read: it is not a regular file"):
        read_key(tmp_path / "pipe", "NO_SUCH_VARIABLE", waits=False)
