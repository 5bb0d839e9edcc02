"""A folder sent to a service: a row per image, in order, whatever happens."""

import csv
import os
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from libraries.base.errors import InputError, ServiceError, StorageError
from libraries.data.formats import NotRead
from libraries.service.calling.client import Client
from libraries.service.calling.folder import Summary, classify_folder, walk_images
from tests.fake_service import MODEL, FakeService, Handler, Request, give, prediction, problem

OF_LABELS = ["probability of defective", "probability of functional"]
HEADER = ["path", "label", "probability", "unknown", "set", "ask", *OF_LABELS, "error"]
GOOD = ["functional", "0.750000", "", "", "", "0.250000", "0.750000", ""]

Classify = Callable[..., Summary]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty files whose content is their number."""
    for i in range(20):
        path = tmp_path / "pictures" / f"{'ab'[i % 2]}" / f"{i:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % i)
    return tmp_path / "pictures"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return tmp_path / "out" / "table.csv"


@pytest.fixture
def classify(fake: FakeService, folder: Path, table: Path) -> Classify:
    def call(**options: int) -> Summary:
        with Client(fake.url, sleep=lambda seconds: None, timeout=10.0, retries=1) as client:
            return classify_folder(client, folder, table, **options)

    return call


def rows(table: Path) -> list[list[str]]:
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def on_image(number: int, behaviour: Callable[[Handler], None]) -> Callable[[Handler, Request], None]:
    """Behave like this for the image of this number, and normally for all others."""

    def answer(handler: Handler, request: Request) -> None:
        if request.body == b"%d" % number:
            behaviour(handler)
        else:
            give(prediction())(handler, request)

    return answer


# The table


def test_rows_are_in_order_although_the_first_image_takes_longest(
    fake: FakeService, classify: Classify, folder: Path, table: Path
) -> None:
    others_done = threading.Event()

    def answer(handler: Handler, request: Request) -> None:
        number = int(request.body)
        if number == 0:
            assert others_done.wait(10)
        elif fake.counts["/predict"] >= 12:
            others_done.set()
        label = "defective" if number % 3 == 0 else "functional"
        give(prediction(label, 0.5 + number / 100))(handler, request)

    fake.on("/predict", answer)
    summary = classify(in_flight=3)
    header, *found = rows(table)
    assert header == HEADER
    assert [row[0] for row in found] == [p.relative_to(folder).as_posix() for p in sorted(folder.rglob("*.jpg"))]
    for path, label, probability, _, _, _, defective, functional, error in found:
        number = int(Path(path).stem)
        assert label == ("defective" if number % 3 == 0 else "functional")
        assert float(probability) == pytest.approx(0.5 + number / 100, abs=1e-6)
        assert probability == (defective if label == "defective" else functional)
        assert float(defective) + float(functional) == pytest.approx(1, abs=2e-6)
        assert error == ""
    assert summary == Summary({"defective": 7, "functional": 13}, {}, {"cells_svm 3f2a9c0d11ee": None})
    assert len({request.peer for request in fake.requests}) <= 4, "connections are kept"


def test_same_table_however_many_requests_in_flight(classify: Classify, table: Path) -> None:
    tables = []
    for in_flight in (1, 2, 64):
        classify(in_flight=in_flight)
        tables.append(table.read_bytes())
    assert tables[0] == tables[1] == tables[2]


def test_images_that_cannot_be_used_are_rows_with_an_error(
    fake: FakeService, classify: Classify, folder: Path, table: Path
) -> None:
    fake.on("/model", give({**MODEL, "limits": {"megabytes": 1}}))
    refusals = {
        b"3": problem(422, "is not a whole JPEG (begins with b'hello')", "Not an image"),
        b"": problem(422, "the request holds no image", "No image"),
        b"4": problem(413, "has 99 pixels, more than the 9 allowed", "Image too large"),
    }

    def answer(handler: Handler, request: Request) -> None:
        refusal = refusals.get(request.body)
        if refusal is None:
            give(prediction())(handler, request)
        else:
            handler.answer(413 if request.body == b"4" else 422, refusal)

    fake.on("/predict", answer)
    (folder / "a" / "00.jpg").write_bytes(b"x" * (2**20 + 1))
    (folder / "a" / "empty.jpg").touch()
    os.mkfifo(folder / "a" / "pipe.jpg")
    (folder / "a" / "link.png").symlink_to("nowhere")
    summary = classify()
    found = {path: (label, error) for path, label, *_, error in rows(table)[1:]}
    assert found["a/00.jpg"] == ("", "has 1,048,577 bytes, more than the 1,048,576 allowed")
    assert found["a/pipe.jpg"] == ("", "is not a regular file")
    assert found["a/link.png"] == ("", "is a broken link to nowhere")
    assert found["b/03.jpg"] == ("", "the image is refused: is not a whole JPEG (begins with b'hello')")
    assert found["a/04.jpg"] == ("", "the image is refused: has 99 pixels, more than the 9 allowed")
    assert sum(value == ("functional", "") for value in found.values()) == 17
    assert all(len(row) == len(HEADER) for row in rows(table))
    assert summary.errors == {
        "File too large": 1,
        "File cannot be read": 2,
        "Not an image": 1,
        "File is empty": 1,
        "Image too large": 1,
    }
    assert max(len(request.body) for request in fake.requests) < 2**20


def test_names_of_any_kind_are_written(classify: Classify, folder: Path, table: Path) -> None:
    for name in (b'a, "b"\nc.JPG', b"\xff\xfe.tif", "Zelle ü.webp".encode()):
        (folder / os.fsdecode(name)).write_bytes(b"x")
    classify()
    paths = {row[0] for row in rows(table)[1:]}
    assert {'a, "b"\nc.JPG', "\\udcff\\udcfe.tif", "Zelle ü.webp"} < paths


def test_another_model_put_into_service_meanwhile_is_reported(fake: FakeService, classify: Classify) -> None:
    fake.on("/predict", *[give(prediction())] * 5, give(prediction(version="new")))
    assert list(classify().models) == ["cells_svm 3f2a9c0d11ee", "cells_svm new"]


# Continuing after a run was stopped


def stopped(fake: FakeService, classify: Classify, number: int) -> None:
    """A run that ends after this many images, one after the other."""
    fake.on("/predict", on_image(number, lambda handler: handler.answer(401, problem(401, "key"))))
    with pytest.raises(ServiceError):
        classify(in_flight=1)
    fake.on("/predict", give(prediction()))
    fake.requests.clear()


def asked(fake: FakeService) -> set[int]:
    """The images that the service was sent."""
    return {int(request.body) for request in fake.requests if request.path == "/predict"}


FIRST = {0, 2, 4, 6, 8}  # images in the order of their paths, before that of number 10


def test_a_run_after_one_that_was_stopped_sends_only_the_rest(
    fake: FakeService, classify: Classify, table: Path
) -> None:
    classify()
    expected = table.read_bytes()
    stopped(fake, classify, 10)
    summary = classify()
    assert asked(fake) == set(range(20)) - FIRST
    assert table.read_bytes() == expected
    assert summary == Summary({"defective": 0, "functional": 20}, {}, {"cells_svm 3f2a9c0d11ee": None}, known=5)
    fake.requests.clear()
    assert classify().known == 0  # a whole run begins a new one
    assert asked(fake) == set(range(20))


def test_images_that_changed_are_sent_again(fake: FakeService, classify: Classify, folder: Path, table: Path) -> None:
    stopped(fake, classify, 10)
    (folder / "a" / "00.jpg").write_bytes(b"100")
    os.utime(folder / "a" / "02.jpg", ns=(1, 1))
    (folder / "a" / "04.jpg").unlink()
    (folder / "a" / "05.jpg").write_bytes(b"105")
    assert classify().known == len({6, 8})
    assert {100, 2, 105} < asked(fake) and not {6, 8} & asked(fake)
    names = [row[0] for row in rows(table)[1:]]
    assert names == sorted(names) and len(names) == 20 and "a/05.jpg" in names


def test_another_model_gets_all_images(fake: FakeService, classify: Classify) -> None:
    stopped(fake, classify, 10)
    fake.on("/model", give({**MODEL, "version": "new"}))
    fake.on("/predict", give(prediction(version="new")))
    assert classify().known == 0
    assert asked(fake) == set(range(20))


def test_images_without_a_label_are_sent_again(fake: FakeService, classify: Classify) -> None:
    answers = [on_image(2, lambda handler: handler.answer(422, problem(422, "no image")))] * 4
    fake.on("/predict", *answers, lambda handler, _: handler.answer(401, problem(401, "key")))
    with pytest.raises(ServiceError):
        classify(in_flight=1)
    fake.on("/predict", give(prediction()))
    fake.requests.clear()
    assert classify().known == 3
    assert 2 in asked(fake)


def test_a_damaged_journal_costs_only_the_damaged_rows(fake: FakeService, classify: Classify, table: Path) -> None:
    classify()
    expected = table.read_bytes()
    journal = table.with_name("table.csv.journal")
    for damage in (b"", b"\x00\xff", b"[1]\n", b'{"tables": 7}\n', b'{"path": "a/00.jpg", "row": ["x"]}\n'):
        table.unlink(missing_ok=True)
        journal.write_bytes(damage)
        assert classify().known == 0
        assert table.read_bytes() == expected
    stopped(fake, classify, 10)
    lines = journal.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if line.strip()]
    assert len(kept) == 1 + len(FIRST)
    journal.write_bytes(b"".join([*kept[:3], b'{"path":"a/04.jpg","row":[]}\n', b"\x00" * 9, *kept[4:5], kept[5][:20]]))
    assert classify().known == 2
    assert table.read_bytes() == expected


def test_the_unfinished_table_of_a_killed_run_is_removed(classify: Classify, table: Path) -> None:
    table.parent.mkdir()
    (table.parent / ".tmp-0a1b2c3d-table.csv").write_text("half")
    (table.parent / ".tmp-0a1b2c3d-other.csv").write_text("of another folder")
    classify()
    assert sorted(left(table)) == [table.parent / ".tmp-0a1b2c3d-other.csv", table]


@pytest.mark.parametrize(
    "content", [b"", b"path,label\na,b\n", b"path,label,probability,mine,error\n", b"\xff\xfe", b'"' + b"x" * 200_000]
)
def test_a_table_that_no_run_has_written_is_not_overwritten(
    fake: FakeService, classify: Classify, table: Path, content: bytes
) -> None:
    table.parent.mkdir()
    table.write_bytes(content)
    with pytest.raises(InputError, match=r"table.csv was not written by this script, .*: rename it, and run again"):
        classify()
    assert table.read_bytes() == content
    assert fake.counts["/predict"] == 0


def test_a_table_that_somebody_has_changed_is_not_overwritten(classify: Classify, table: Path) -> None:
    classify()
    classify()
    changed = table.read_bytes().replace(b"functional", b"defective", 1)
    table.write_bytes(changed)
    with pytest.raises(InputError, match="or was changed since"):
        classify()
    assert table.read_bytes() == changed


def test_a_table_of_an_earlier_version_is_replaced(classify: Classify, table: Path) -> None:
    table.parent.mkdir()
    table.write_text(",".join(HEADER) + "\n", encoding="utf-8")
    classify()
    assert len(rows(table)) == 21


# What ends a run


def left(table: Path) -> list[Path]:
    """Files beside the journal, which is for the next run."""
    found = list(table.parent.iterdir()) if table.parent.exists() else []
    return [path for path in found if path != table.with_name(f"{table.name}.journal")]


def test_failure_of_the_service_over_one_image_is_a_row(fake: FakeService, classify: Classify, table: Path) -> None:
    fake.on("/predict", on_image(7, lambda handler: handler.answer(500, problem(500, "so it is", "Internal"))))
    assert classify().errors == {"Internal": 1}
    assert [row[-1] for row in rows(table) if row[0] == "b/07.jpg"] == [
        f"{fake.url}/predict answers with an error (500: so it is)"
    ]


def test_a_service_that_keeps_failing_ends_the_run_and_an_earlier_table_stays(
    fake: FakeService, classify: Classify, table: Path
) -> None:
    classify()
    before = table.read_bytes()
    fake.on("/predict", *[give(prediction())] * 3, lambda handler, _: handler.reset())
    with pytest.raises(ServiceError, match="broke off"):
        classify()
    assert table.read_bytes() == before
    assert left(table) == [table]
    assert fake.counts["/predict"] < 20 + 3 + 2 * (8 + 4 * 16)


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        (lambda handler: handler.answer(401, problem(401, "key")), "needs a key"),
        (lambda handler: handler.answer(404, b"?"), "does not exist"),
        (lambda handler: handler.answer(302, b"", Location="http://elsewhere.example"), "redirects"),
        (lambda handler: handler.answer(200, b"?"), "is not understood"),
        (
            lambda handler: give(_other_labels())(handler, None),
            "answers with other labels, of another model: run again",
        ),
    ],
    ids=["key", "path", "redirect", "shape", "labels"],
)
def test_a_server_that_is_not_our_service_ends_the_run_at_once(
    fake: FakeService, classify: Classify, table: Path, behaviour: Callable[[Handler], None], message: str
) -> None:
    fake.on("/predict", on_image(10, behaviour))
    with pytest.raises(ServiceError, match=message):
        classify(in_flight=2)
    assert left(table) == []


def _other_labels() -> object:
    other = prediction()
    other["predictions"][0]["probabilities"][1]["label"] = "broken"
    return other


def test_without_a_service_the_run_ends_before_it_begins(fake: FakeService, classify: Classify, table: Path) -> None:
    fake.on("/model", give(problem(401, "key"), 401))
    with pytest.raises(ServiceError, match="needs a key"):
        classify()
    assert left(table) == []
    assert fake.counts["/predict"] == 0


def test_a_table_that_cannot_be_written_ends_the_run(fake: FakeService, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with Client(fake.url) as client, pytest.raises(StorageError, match="could not be written"):
        classify_folder(client, folder, tmp_path / "file" / "table.csv")
    assert fake.counts["/predict"] == 0


# The files


def test_files_that_are_not_images_are_counted_by_kind(folder: Path) -> None:
    for name in ("a.txt", "b/c.TXT", "b/README", ".hidden"):
        (folder / name).write_bytes(b"")
    (folder / "a" / "link").symlink_to("nowhere")
    skipped: Counter[NotRead] = Counter()
    assert len(list(walk_images(folder, skipped))) == 20
    assert {kind.describe(count) for kind, count in skipped.items()} == {
        "2 .txt files (not an image format that is read)",
        "1 file without a suffix (not an image format that is read)",
        "1 broken link (fix it, or remove it)",
    }


def test_image_files_are_sorted_as_paths_are(folder: Path) -> None:
    for name in ("a.jpg", "a-b/z.PNG", "a/b/c.tiff", "B.gif", "a b.bmp", "notes.txt", ".hidden.jpg", ".cache/x.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    (folder / "c.jpg").mkdir()
    (folder / "c.jpg" / "x.jpg").symlink_to(folder / "a.jpg")
    (folder / "loop").symlink_to(folder)
    (folder / "loop.jpg").symlink_to(folder)
    found = list(walk_images(folder))
    assert found == sorted(found)
    names = {p.relative_to(folder).as_posix() for p in found}
    assert {n for n in names if not n[2:4].isdigit()} == {
        *("a.jpg", "a-b/z.PNG", "a/b/c.tiff", "B.gif", "a b.bmp", "c.jpg/x.jpg")
    }
    assert len(names) == 26


def test_links_to_folders_are_followed_once(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "inner").mkdir(parents=True)
    for name in ("1.jpg", "inner/2.jpg"):
        (elsewhere / name).write_bytes(b"")
    before = list(walk_images(folder))
    (folder / "z").symlink_to(elsewhere)
    (folder / "zz").symlink_to(elsewhere)
    (elsewhere / "inner" / "back").symlink_to(elsewhere)
    assert list(walk_images(folder)) == [*before, folder / "z" / "1.jpg", folder / "z" / "inner" / "2.jpg"]


def test_folders_are_read_when_their_turn_comes(folder: Path) -> None:
    found = walk_images(folder)
    assert next(found) == folder / "a" / "00.jpg"
    (folder / "b").rename(folder / "c")
    with pytest.raises(InputError, match=r"the folder .*b cannot be read: No such file"):
        list(found)
    with pytest.raises(InputError, match="nowhere cannot be read"):
        next(walk_images(folder / "nowhere"))
