"""Listing a store, of S3 and of other backends, and names that cannot be files."""

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry

from libraries.base.errors import DownloadError, InputError
from libraries.web.store.listing import Store, StoredObject, folded, is_hidden, problem_of
from tests.fake_store import BUCKET, ROOT, FakeStore


class InMemory(MemoryFileSystem):
    """Stands for the backends that give whole lists."""

    protocol = "gs"
    store: dict[str, Any] = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path.removeprefix("gs://").strip("/")

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        top: dict[str, dict[str, Any]] = {}
        prefix = f"{self._strip_protocol(path)}/"
        for name, data in self.store.items():
            if name.startswith(prefix):
                first, slash, _rest = name.removeprefix(prefix).partition("/")
                kind = "directory" if slash else "file"
                top[first] = {"name": prefix + first, "type": kind, "size": len(data), "md5Hash": f"{len(data)}=="}
        if prefix[:-1] in self.store:
            return [{"name": prefix[:-1], "type": "file", "size": 1}]
        if not top:
            raise FileNotFoundError("no-such-bucket, request secret-id-0123")
        return list(top.values())

    def find(self, path: str, detail: bool = False, **_: Any) -> Any:
        found: dict[str, Any] = {}
        for each in self.ls(path):
            found |= self.find(each["name"], detail=True) if each["type"] == "directory" else {each["name"]: each}
        return found

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        assert not options, "backends without a time-out do not know it"
        if (content := self.store.get(path)) is None:
            raise FileNotFoundError(path)
        return content[start:end]


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """The objects of a store that is not S3, by their names."""
    monkeypatch.setitem(_registry, "gs", InMemory)
    monkeypatch.setattr(InMemory, "store", {})
    yield InMemory.store


def listed(url: str = ROOT) -> list[StoredObject]:
    return list(Store(url, timeout=10).objects())


def test_s3_gives_every_object_in_pages(store: FakeStore) -> None:
    for i in range(1500):
        store.put(f"rose/{i:04d}.jpg", b"x")
    store.put("rose/sub/é + b%20.jpg", b"xy")
    store.put("rose/")
    store.put("")
    store.forget()
    found = listed()
    assert len(found) == 1501 and store.listed == 2 and not store.read + store.written
    assert found[0] == StoredObject("rose/0000.jpg", 1, "9dd4e461268c8034f5c8564e155c67a6")  # its MD5
    assert ("rose/sub/é + b%20.jpg", 2) in [each[:2] for each in found]


def test_s3_root_may_be_the_bucket(store: FakeStore) -> None:
    store.put("rose/1.jpg", b"x")
    assert [each.path for each in listed(f"s3://{BUCKET}")] == ["flowers/rose/1.jpg"]


def test_other_backends_give_lists(other: dict[str, bytes]) -> None:
    other |= {
        "b/f/rose/1.jpg": b"x",
        "b/f/rose/sub/2.jpg": b"xy",
        "b/f/top.jpg": b"x",
        "b/f/tulip/": b"",
        "b/g/3.jpg": b"",
    }
    assert sorted(listed("gs://b/f")) == [
        ("rose/1.jpg", 1, "1=="),
        ("rose/sub/2.jpg", 2, "2=="),
        ("top.jpg", 1, "1=="),
    ]
    assert Store("gs://b/f", timeout=10).read("rose/sub/2.jpg", most=1) == b"x"


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_one_object_is_no_folder(store: FakeStore, other: dict[str, bytes], scheme: str) -> None:
    store.put("rose/1.jpg", b"x")
    other[f"{BUCKET}/flowers/rose/1.jpg"] = b"x"
    url = f"{scheme}://{BUCKET}/flowers/rose/1.jpg"
    with pytest.raises(InputError, match="is one object: give the folder above it"):
        listed(url)


def test_what_a_backend_says_is_not_repeated(store: FakeStore, other: dict[str, bytes]) -> None:
    with pytest.raises(InputError) as raised:
        listed("gs://nothing/f")
    assert str(raised.value) == (
        "gs://nothing/f cannot be listed: not found (FileNotFoundError): is its bucket spelled so?"
    )
    store.put("rose/1.jpg", b"x")
    store.answers = lambda key: (403, "SignatureDoesNotMatch")
    with pytest.raises(InputError) as raised:
        listed()
    assert str(raised.value).startswith(f"{ROOT} cannot be listed: access denied (SignatureDoesNotMatch): check the cr")
    with pytest.raises(DownloadError) as denied:
        Store(ROOT, timeout=10).read("rose/1.jpg", most=10)
    assert str(denied.value) == "access denied: SignatureDoesNotMatch"


def test_missing_bucket(store: FakeStore) -> None:
    with pytest.raises(InputError, match=r"cannot be listed: not found \(NoSuchBucket\)"):
        listed("s3://elsewhere/f")


def test_no_credentials(store: FakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(InputError, match=r"no credentials \(NoCredentialsError\): .*FSSPEC_S3_ANON=true"):
        listed()


def test_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError) as raised:
        Store("oci://bucket@namespace/f", timeout=10)
    assert str(raised.value) == "oci:// needs the package ocifs, which is not installed: pip install ocifs"
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(InputError, match="pip install s3fs"):
        Store(ROOT, timeout=10)


@pytest.mark.parametrize(
    "path",
    [
        *("../x.jpg", "a/../x.jpg", "./x.jpg", "/abs/x.jpg", "a//x.jpg", "a/x.jpg/", "a\\b/x.jpg", "a/b\\x.jpg"),
        *("C:/x.jpg", "a/C:x.jpg", "CON/x.jpg", "a/nul.jpg", "a/x\n.jpg", "a/x\x00.jpg", "a/\u202egpj.x", "x.jpg"),
        *(
            f"a/{'x' * 241}",
            f"{'ä' * 51}/x.jpg",
            "a/" + "b/" * 600 + "x.jpg",
            "a/x.jpg?versionId=1",
            "a /x.jpg",
            "a/x. ",
        ),
    ],
)
def test_names_that_cannot_be_files(path: str) -> None:
    assert problem_of(path)


@pytest.mark.parametrize("path", ["a/x.jpg", "käse/b c/é+%20.jpg", f"a/{'x' * 236}.jpg", "train/a/x"])
def test_names_that_can(path: str) -> None:
    assert problem_of(path) is None and not is_hidden(path)


def test_hidden_and_equal_names() -> None:
    assert is_hidden(".git/x") and is_hidden("a/.DS_Store") and not is_hidden("a/../x")
    assert folded("Ä/X.jpg") == folded("a\u0308/x.JPG") != folded("a/x.jpg")
