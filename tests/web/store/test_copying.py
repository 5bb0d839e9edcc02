"""What is copied from a store, what is left out, and what happens to files that stand in the way."""

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from libraries.base.errors import InputError, StorageError
from libraries.base.tables import read_table
from libraries.data.annotations import Annotations
from libraries.web.store import copying
from libraries.web.store.outcome import Outcome
from libraries.web.store.record import Record, StoredImage
from tests.conftest import files
from tests.fake_store import ROOT, FakeStore
from tests.web.conftest import picture

Copy = Callable[..., Outcome]
KINDS = ("copied", "replaced", "there")


def totals(outcome: Outcome) -> tuple[int, ...]:
    """Of images that were copied, replaced, and there before."""
    return tuple(map(outcome.total, KINDS))


def fill(store: FakeStore, count: int = 3) -> None:
    for label in ("rose", "tulip"):
        for i in range(count):
            store.put(f"{label}/{i}.jpg", f"{label} {i}".encode())


def rows(tmp_path: Path) -> dict[str, StoredImage]:
    table = read_table(tmp_path / "proc" / "stored_images.csv", StoredImage, advice="")
    return {row.path: row for row in table}


def test_copies_once(store: FakeStore, copy: Copy, tmp_path: Path) -> None:
    fill(store)
    assert totals(copy()) == (6, 0, 0)
    assert sorted(store.read) == sorted(files(tmp_path / "images")) == sorted(rows(tmp_path))
    assert (tmp_path / "images" / "rose" / "1.jpg").read_bytes() == b"rose 1"
    assert totals(copy()) == (0, 0, 6)
    assert (store.read, store.listed, store.written) == ([], 1, [])


def test_copies_what_is_new_or_changed(store: FakeStore, copy: Copy, tmp_path: Path) -> None:
    fill(store)
    copy()
    store.put("rose/new/9.jpg", b"rose 9")
    store.put("rose/1.jpg", b"another rose")
    store.remove("tulip/2.jpg")
    outcome = copy()
    assert totals(outcome) == (1, 1, 4) and sorted(store.read) == ["rose/1.jpg", "rose/new/9.jpg"]
    assert (tmp_path / "images" / "rose" / "1.jpg").read_bytes() == b"another rose"
    assert "not in the store any more: 1 image copied earlier; the files stay" in outcome.summary_lines()
    assert (tmp_path / "images" / "tulip" / "2.jpg").read_bytes() == b"tulip 2"
    assert totals(copy()) == (0, 0, 6) and not store.read
    store.put("tulip/2.jpg", b"tulip 2")
    assert totals(copy()) == (0, 0, 7) and not store.read, "it is what it was"


def test_a_file_of_yours_stays(store: FakeStore, copy: Copy, tmp_path: Path) -> None:
    fill(store)
    rose = tmp_path / "images" / "rose"
    rose.mkdir(parents=True)
    for name, content in {"0.jpg": b"mine", "1.jpg": b"rose X", "2.jpg": b"rose 2"}.items():
        (rose / name).write_bytes(content)
    for _ in range(2):
        outcome = copy()
        assert outcome.problems == {"another file is there, and stays": (2, ["rose/0.jpg", "rose/1.jpg"])}
        assert [(rose / f"{i}.jpg").read_bytes() for i in range(3)] == [b"mine", b"rose X", b"rose 2"]
    assert totals(outcome) == (0, 0, 4) and not store.read
    assert [rows(tmp_path)[f"rose/{i}.jpg"].status for i in range(3)] == ["kept", "kept", "there"]
    store.put("rose/2.jpg", b"another rose")
    reason = "changed in the store; the file here is not its copy, and stays"
    assert copy().problems[reason] == (1, ["rose/2.jpg"]) and not store.read
    (rose / "0.jpg").unlink()
    assert totals(copy()) == (1, 0, 3) and store.read == ["rose/0.jpg"]


def test_what_was_changed_here_stays(store: FakeStore, copy: Copy, tmp_path: Path) -> None:
    fill(store)
    copy()
    images = tmp_path / "images"
    (images / "rose" / "0.jpg").write_bytes(b"rose Y")
    (images / "rose" / "1.jpg").unlink()
    for i in (0, 1):
        store.put(f"rose/{i}.jpg", b"rose Z")
    for _ in range(2):
        outcome = copy()
        assert outcome.problems == {
            "changed in the store, but here as well": (1, ["rose/0.jpg"]),
            "changed in the store, but here moved, removed or deleted": (1, ["rose/1.jpg"]),
        }
    assert (images / "rose" / "0.jpg").read_bytes() == b"rose Y" and not (images / "rose" / "1.jpg").exists()
    (images / "rose" / "0.jpg").write_bytes(b"rose Z")
    assert totals(copy()) == (0, 1, 4), "both have the same change: as after a kill between renaming and recording"


def test_never_again_what_you_moved_removed_or_deleted(store: FakeStore, copy: Copy, tmp_path: Path) -> None:
    fill(store, 4)
    copy()
    images = tmp_path / "images"
    Annotations(images).relabel(["rose/0.jpg"], "tulip")
    (images / ".duplicates" / "rose").mkdir(parents=True)
    (images / "rose" / "1.jpg").rename(images / ".duplicates" / "rose" / "1.jpg")
    (images / "rose" / "2.jpg").unlink()
    before = files(images)
    assert totals(copy()) == (0, 0, 8) and not store.read and files(images) == before
    (tmp_path / "proc" / "stored_images.csv").unlink()
    assert totals(copy()) == (1, 0, 7), "without the table, the log of labels and the removed duplicates still count"
    assert files(images) - before == {"rose/2.jpg"}


def test_a_folder_that_was_renamed_or_deleted_stays_so(store: FakeStore, copy: Copy, tmp_path: Path) -> None:
    fill(store)
    copy()
    (tmp_path / "images" / "rose").rename(tmp_path / "images" / "roses")
    assert totals(copy()) == (0, 0, 6) and store.read == []
    shutil.rmtree(tmp_path / "images")
    assert totals(copy()) == (6, 0, 0), "without any folder, all begins anew"


def changed(store: FakeStore, path: str, content: bytes) -> bytes:
    store.put(path, content)
    return content


def test_an_edit_while_the_new_version_is_read_stays(store: FakeStore, copy: Copy, tmp_path: Path) -> None:
    fill(store)
    copy()
    changed(store, "rose/1.jpg", b"version 2")
    store.answers = lambda key: (tmp_path / "images" / "rose" / "1.jpg").write_bytes(b"mine") and None if key else None
    assert copy().problems == {"changed in the store, but here as well": (1, ["rose/1.jpg"])}
    assert (tmp_path / "images" / "rose" / "1.jpg").read_bytes() == b"mine"


@pytest.mark.parametrize("before", [True, False])
def test_a_run_that_ends_while_it_replaces_a_file_leaves_it_ours(
    store: FakeStore, copy: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    """The file is the old version, or the new one, of which no row says so; the next version is taken all the same."""
    fill(store)
    copy()
    changed(store, "rose/1.jpg", b"version 2")

    def ends(*_: object) -> None:
        raise StorageError("ends here")

    with monkeypatch.context() as patch:
        patch.setattr(copying, "atomic", ends) if before else patch.setattr(Record, "add", ends)
        with pytest.raises(StorageError, match="ends here"):
            copy()
    path = tmp_path / "images" / "rose" / "1.jpg"
    assert (path.read_bytes() == b"version 2") is not before
    latest = changed(store, "rose/1.jpg", b"version 3 is longer")
    copy()
    assert path.read_bytes() == latest


def test_the_empty_file_of_an_interrupted_move_is_filled(store: FakeStore, copy: Copy, tmp_path: Path) -> None:
    fill(store)
    copy()
    table = tmp_path / "proc" / "stored_images.csv"
    table.write_text(table.read_text().replace("rose/1.jpg,copied", "rose/1.jpg,copying"))
    path = tmp_path / "images" / "rose" / "1.jpg"
    path.write_bytes(b"")
    latest = changed(store, "rose/1.jpg", b"version 2")
    assert totals(copy()) == (0, 1, 5)
    assert path.read_bytes() == latest


def test_one_run_at_a_time(store: FakeStore, copy: Copy, tmp_path: Path) -> None:
    fill(store)
    copy()
    with (
        FileLock(tmp_path / "proc" / ".stored_images.csv.lock"),
        pytest.raises(InputError, match=r"another run is copying into .*/images: wait until it has ended"),
    ):
        copy()


@pytest.mark.parametrize("what", ["file", "broken link"])
def test_a_file_where_the_folder_should_be(store: FakeStore, copy: Copy, tmp_path: Path, what: str) -> None:
    fill(store)
    images = tmp_path / "images"
    images.write_bytes(b"") if what == "file" else images.symlink_to(tmp_path / "gone")
    with pytest.raises(StorageError, match=r"/images could not be written: .*; move it away"):
        copy()


def test_an_endless_body_is_not_read(store: FakeStore, copy: Copy) -> None:
    fill(store)
    sent = itertools.count()
    store.body = lambda key: (bytes(65536) for _ in sent) if key == "rose/1.jpg" else None
    outcome = copy()
    assert outcome.problems == {"changed while it was read: run again": (1, ["rose/1.jpg"])}
    assert next(sent) < 1000, "chunks of 64 KB: what fits into the buffers of two sockets"


def test_a_hostile_list(store: FakeStore, copy: Copy) -> None:
    """Sizes that are none; versions of any length, and with line breaks; labels that look like messages."""
    fill(store)
    entries = [
        ("rose/a.jpg", "-5", "x"),
        ("rose/b.jpg", "10000000000000000000", "x"),
        ("rose/0.jpg", "6", "y" * 200_000),
    ]
    entries += [("rose/1.jpg", "6", "a&#13;,&quot;"), ("rose/2.jpg", "6", "a&#10;b")]
    entries += [(f"a folder name: x{i}/1.jpg", "9", "z") for i in range(30)]
    listed = "".join(
        f"<Contents><Key>flowers/{key}</Key><Size>{size}</Size><ETag>{tag}</ETag></Contents>"
        for key, size, tag in entries
    )
    document = f"<ListBucketResult><IsTruncated>false</IsTruncated>{listed}</ListBucketResult>".encode()
    store.body = lambda key: None if key else [document]
    first = copy()
    assert first.problems["its size is impossible"] == (2, ["rose/a.jpg", "rose/b.jpg"])
    assert [count for reason, (count, _) in first.problems.items() if "holds one of" in reason] == [30]
    assert totals(first)[0] == len(store.read) == 3
    assert totals(copy()) == (0, 0, 3) and store.read == []


def test_a_list_that_never_ends(store: FakeStore, copy: Copy) -> None:
    more = b"<IsTruncated>true</IsTruncated><NextContinuationToken>again</NextContinuationToken>"
    store.body = lambda key: None if key else [b"<ListBucketResult>" + more + b"</ListBucketResult>"]
    with pytest.raises(InputError, match="the store gives one part of its list again and again"):
        copy()


def test_a_damaged_table_is_named(store: FakeStore, copy: Copy, tmp_path: Path) -> None:
    fill(store)
    copy()
    with (tmp_path / "proc" / "stored_images.csv").open("a") as file:
        file.write("x" * 200_000 + "\n")
    with pytest.raises(StorageError, match=r"stored_images\.csv is damaged .*: move it away and run again"):
        copy()


def test_images_are_told_by_suffix_then_by_content(store: FakeStore, copy: Copy, tmp_path: Path) -> None:
    contents = {
        "1.bin": picture(),
        "2": picture(),
        "3.pdf": b"%PDF-1.7",
        "4.xyz": b"???",
        "5.txt": picture(),
        "6.jpg": b"",
    }
    for name, content in contents.items():
        store.put(f"rose/{name}", content)
    store.put("rose/.DS_Store", b"hidden")
    store.put(".cache/7.jpg", b"hidden")
    store.put("rose/")
    for read in (["1.bin", "1.bin", "2", "2", "3.pdf", "4.xyz"], []):
        outcome = copy()
        assert sorted(store.read) == [f"rose/{name}" for name in read]
        assert {other.name: count for other, count in outcome.others.items()} == {
            "PDF document": 1,
            ".xyz file": 1,
            ".txt file": 1,
        }
        assert outcome.problems == {"it is empty": (1, ["rose/6.jpg"])}
    assert files(tmp_path / "images") == {"rose/1.bin", "rose/2"}
    assert "  left out: 1 .txt file (not an image format that is read)" in outcome.summary_lines()


def test_too_large(store: FakeStore, copy: Copy, tmp_path: Path) -> None:
    fill(store)
    store.put("rose/large.jpg", b"x" * 1001)
    outcome = copy(max_bytes=1000)
    assert outcome.problems == {"more than 1,000 bytes: raise download_maxBytes": (1, ["rose/large.jpg"])}
    assert "rose/large.jpg" not in store.read
    assert totals(copy(max_bytes=1001)) == (1, 0, 6)
    assert not copy(max_bytes=1000).problems, "it is here"


def test_hostile_names_stay_outside(store: FakeStore, copy: Copy, tmp_path: Path) -> None:
    fill(store)
    hostile = [
        "../x.jpg",
        "rose/../../x.jpg",
        "/abs.jpg",
        "a\\b/x.jpg",
        "CON/x.jpg",
        "rose/x\x1b.jpg",
        "rose/" + "y" * 300,
    ]
    for name in (*hostile, "x.jpg", "rose//x.jpg"):
        store.put(name, b"x")
    outcome = copy()
    assert totals(outcome) == (6, 0, 0) and len(store.read) == 6
    assert sum(count for count, _ in outcome.problems.values()) == len(hostile) + 2
    assert files(tmp_path) == {"proc/stored_images.csv", "proc/.stored_images.csv.lock"} | {
        f"images/{n}/{i}.jpg" for n in ("rose", "tulip") for i in range(3)
    }
    assert all(line.isprintable() for line in outcome.summary_lines()[1:])


def test_names_that_are_one_on_some_systems(store: FakeStore, copy: Copy, tmp_path: Path) -> None:
    fill(store)
    for name in ("rose/B.jpg", "rose/b.jpg", "rose/a\u0308.jpg", "rose/ä.jpg"):
        store.put(name, name.encode())
    (told,) = copy().problems.values()
    assert told == (2, ["rose/b.jpg and rose/B.jpg", "rose/ä.jpg and rose/a\u0308.jpg"])
    store.put("Rose/1.jpg", b"x")
    with pytest.raises(InputError, match="in the store, labels 'Rose' and 'rose' differ only in case"):
        copy()
    assert not store.read


def test_an_object_called_like_a_folder(store: FakeStore, copy: Copy, tmp_path: Path) -> None:
    fill(store)
    store.put("rose/1.jpg/2.jpg", b"inside")
    outcome = copy(workers=1)
    assert totals(outcome) == (6, 0, 0)
    assert outcome.problems == {
        "a file and a folder have one name, or the name is impossible here": (1, ["rose/1.jpg/2.jpg"])
    }


def test_many_problems_are_counted(store: FakeStore, copy: Copy) -> None:
    fill(store)
    for i in range(25):
        store.put(f"rose/{i:02d} .jpg ", b"x")
    lines = [line for line in copy().summary_lines() if "begins or ends with a blank" in line]
    assert len(lines) == 11 and lines[-1].startswith("  left out: 15 more objects: ")


def test_temporary_failures_are_tried_again(store: FakeStore, copy: Copy) -> None:
    fill(store)
    store.answers = lambda key: (503, "SlowDown") if key == "rose/1.jpg" and len(store.read) < 9 else None
    assert totals(copy(retries=8)) == (6, 0, 0)


def test_failures_are_told_and_tried_by_the_next_run(store: FakeStore, copy: Copy) -> None:
    fill(store)
    store.answers = lambda key: (403, "AccessDenied") if key == "rose/1.jpg" else None
    outcome = copy()
    assert totals(outcome) == (5, 0, 0) and outcome.problems == {"access denied": (1, ["rose/1.jpg"])}
    assert store.read.count("rose/1.jpg") == 1, "trying again would be no use"
    store.answers = lambda key: None
    assert totals(copy()) == (1, 0, 5) and store.read == ["rose/1.jpg"]


def test_nothing_can_be_read(store: FakeStore, copy: Copy) -> None:
    fill(store)
    store.answers = lambda key: (403, "AccessDenied") if key else None
    with pytest.raises(InputError) as raised:
        copy()
    assert str(raised.value) == (
        "the last 6 objects could not be read from the store: access denied: AccessDenied: check whether the "
        "credentials may read objects, too"
    )


def test_a_store_that_is_gone_ends_the_run(store: FakeStore, copy: Copy, tmp_path: Path) -> None:
    fill(store, 100)
    store.answers = lambda key: (500, "InternalError") if key and len(store.read) > 50 else None
    with pytest.raises(InputError, match=r"last 20 objects .*: the store is busy: InternalError: run again"):
        copy(retries=0, workers=1)
    assert len(store.read) < 80
    store.answers = lambda key: None
    assert totals(copy()) == (150, 0, 50)


def test_nothing_there(store: FakeStore, copy: Copy) -> None:
    with pytest.raises(InputError, match=f"{ROOT} holds nothing: check imgStoreUrl"):
        copy()


def test_two_stores_for_one_data_set(store: FakeStore, copy: Copy, tmp_path: Path) -> None:
    """What another store holds under the same path is not a new version of the image."""
    fill(store)
    copy()
    store.put("more/rose/1.jpg", b"not the same")
    store.put("more/rose/7.jpg", b"rose 7")
    outcome = copy(f"{ROOT}/more")
    assert totals(outcome) == (1, 0, 0) and outcome.problems == {
        "another file is there, and stays": (1, ["rose/1.jpg"])
    }
    store.remove("more/rose/1.jpg")
    store.remove("more/rose/7.jpg")
    assert totals(copy()) == (0, 0, 6) and not store.read


def test_foreign_table_is_not_overwritten(store: FakeStore, copy: Copy, tmp_path: Path) -> None:
    fill(store)
    table = tmp_path / "proc" / "stored_images.csv"
    table.parent.mkdir()
    table.write_text("a,b\n1,2\n")
    with pytest.raises(StorageError, match="is not a table of images from a store: move it away"):
        copy()
    assert table.read_text() == "a,b\n1,2\n"


def test_damaged_lines_are_dropped(store: FakeStore, copy: Copy, tmp_path: Path) -> None:
    fill(store)
    copy()
    table = tmp_path / "proc" / "stored_images.csv"
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join([*lines[:-2], "s3://x,y\n", lines[-1][:-40]]))
    assert totals(copy()) == (0, 0, 6), "the files of the lines that are lost are there"
    assert sorted(store.read) == ["tulip/1.jpg", "tulip/2.jpg"]
