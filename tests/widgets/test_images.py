"""The viewer of images without a browser: its state after each action, and what happens to the files."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from libraries.base.errors import InputError, StorageError
from libraries.base.layout import Layout
from libraries.base.tables import write_csv
from libraries.data.annotations import Annotations
from libraries.data.dataset import read_examples
from libraries.evaluation.renewal import Renewal
from libraries.review.answers import Answers
from libraries.review.queue import QueueRow, Reason, write_queue
from libraries.widgets import images
from libraries.widgets.images import ImageViewer
from libraries.widgets.viewer import PER_PAGE
from tests.conftest import run_main, small_run

WaitFor = Callable[[str], tuple[dict[str, Any], list[bytes]]]


def shown(viewer: ImageViewer) -> list[str]:
    """Label and name of the images on the page."""
    return [f"{item['label']}/{item['name']}" for item in viewer.state["items"]]


def counts(viewer: ImageViewer) -> dict[str, int]:
    return {label["name"]: label["images"] for label in viewer.state["labels"]}


def number(viewer: ImageViewer, path: str) -> int:
    """The number of an image on the page."""
    return next(item["id"] for item in viewer.state["items"] if f"{item['label']}/{item['name']}" == path)


def test_a_page_of_images(layout: Layout) -> None:
    viewer = ImageViewer.of(layout)
    assert counts(viewer) == {"blobs": 16, "checks": 16, "stripes": 16}
    assert shown(viewer)[:2] == ["blobs/00.png", "blobs/01.jpg"] and len(shown(viewer)) == 48
    assert (viewer.state["page"], viewer.state["pages"], viewer.state["matching"]) == (0, 1, 48)
    assert not (viewer.state["canUndo"] or viewer.state["isStale"] or viewer.state["problem"])


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        ({}, 48),
        ({"label": "blobs"}, 16),
        ({"split": "test"}, 12),
        ({"label": "checks", "split": "train"}, 12),
        ({"name": "07.J"}, 3),
        ({"name": "no such"}, 0),
        ({"mark": "excluded"}, 1),
        ({"split": "new"}, 0),
    ],
)
def test_filters(layout: Layout, wanted: dict[str, str], count: int) -> None:
    viewer = ImageViewer.of(layout)
    viewer.act({"do": "mark", "images": [3], "mark": "excluded"})
    viewer.act({"do": "filter", **wanted})
    assert viewer.state["matching"] == count == len(viewer.state["items"])
    for item in viewer.state["items"]:
        assert all(item[key] == value for key, value in wanted.items() if key != "name")


def test_findings_are_shown_the_most_striking_first(layout: Layout, wait_for: WaitFor) -> None:
    rows = [("blobs/03.jpg", "blurred"), ("blobs/01.jpg", "blurred"), ("checks/02.jpg", "dark"), ("gone.jpg", "dark")]
    write_csv(layout.proc / "quality.csv", [{"path": p, "finding": f, "value": 0.1} for p, f in rows])
    viewer = ImageViewer.of(layout)
    assert viewer.state["findings"] == {"blurred": 2, "dark": 2}
    viewer.act({"do": "filter", "finding": "blurred"})
    assert shown(viewer) == ["blobs/03.jpg", "blobs/01.jpg"]
    image = number(viewer, "blobs/03.jpg")
    viewer.act({"do": "relabel", "images": [image], "label": "checks"})
    viewer.act({"do": "filter", "finding": "blurred"})
    assert shown(viewer) == ["checks/03-2.jpg", "blobs/01.jpg"], "it is the same image"
    viewer.act({"do": "look", "image": image})
    assert wait_for("look")[0]["facts"]["worth a look"] == "blurred"
    viewer.act({"do": "filter", "finding": "dark"})
    assert shown(viewer) == ["checks/02.jpg"]


def test_images_of_the_pool_are_shown_where_they_are_asked_for(layout: Layout, wait_for: WaitFor) -> None:
    pool = layout.images.with_name("textures.pool")
    pool.mkdir()
    for name in ("one.png", "two.png", "three.png"):
        Image.new("RGB", (20, 20), "red").save(pool / name)
    rows = [
        QueueRow(".pool/one.png", None, "checks", "label next", 1.0, "pool", None),
        QueueRow(".pool/two.png", "checks", "blobs", "hard negative", 0.3, "pool", None),
    ]
    write_queue(layout.review, rows)
    viewer = ImageViewer.of(layout)
    assert shown(viewer) == ["/one.png", "/two.png"]
    assert (viewer.state["images"], viewer.state["pool"]) == (48, 3)
    one, two = (item["id"] for item in viewer.state["items"])
    viewer.act({"do": "look", "image": two})
    message, (picture,) = wait_for("look")
    assert message["facts"]["to look at"] == "hard negative, like checks: blobs?" and picture
    assert message["facts"]["split"] == "pool: it has no label"
    viewer.act({"do": "accept", "images": [one]})
    assert (layout.images / "checks" / "one.png").exists() and viewer.state["pool"] == 2
    viewer.act({"do": "keep", "images": [two]})
    assert viewer.state["said"] == "two.png: left as it is" and viewer.state["queue"] == {"all": 0}
    viewer.act({"do": "filter", "split": "pool"})
    assert shown(viewer) == ["/three.png", "/two.png"]
    viewer.act({"do": "filter"})
    assert viewer.state["matching"] == 49 and "checks/one.png" in shown(viewer)
    viewer.act({"do": "undo"})
    viewer.act({"do": "undo"})
    assert (pool / "one.png").exists() and viewer.state["queue"] == {"label next": 1, "hard negative": 1, "all": 2}


def test_the_list_is_renewed_in_the_background(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def renewal() -> Renewal:
        made.append(str(Annotations(layout.images).state))
        if len(made) == 3:
            raise StorageError("the disk has gone")
        rows = [in_queue("checks/03-2.jpg", "stripes"), in_queue("stripes/01.jpg", None, "random")]
        return Renewal(rows, Annotations(layout.images).state, ["It is better now."])

    def wait() -> None:
        while viewer.state["isRenewing"]:
            viewer.act({"do": "refresh"})

    queue = [in_queue("blobs/03.jpg", "checks"), in_queue("blobs/01.jpg", "checks")]
    plain = ImageViewer(layout.images, queue=queue, thumbnails=layout.thumbnails)
    assert not plain.state["canRenew"]
    plain.act({"do": "renew"})
    assert plain.state["said"] == "the list cannot be made anew here"
    examples = read_examples(layout.examples.folder / "examples.csv")
    viewer = ImageViewer(layout.images, examples=examples, queue=queue, thumbnails=layout.thumbnails, renew=renewal)
    assert viewer.state["canRenew"] and viewer.state["told"] == []
    monkeypatch.setattr(images, "RENEWED_AFTER", 2)
    viewer.act({"do": "accept", "images": [number(viewer, "blobs/03.jpg")]})
    assert not viewer.state["isRenewing"] and made == []
    viewer.act({"do": "keep", "images": [number(viewer, "blobs/01.jpg")]})
    wait()
    assert (
        len(made) == 1 and viewer.state["told"] == ["It is better now."] and viewer.state["said"] == "the list is new"
    )
    assert shown(viewer) == ["stripes/01.jpg"], "the other one has been decided on"
    drawn = number(viewer, "stripes/01.jpg")
    viewer.act({"do": "keep", "images": [drawn]})
    assert Answers.of(Annotations(layout.images).history).drawn == [False]
    viewer.act({"do": "relabel", "images": [drawn], "label": "blobs"})
    assert Answers.of(Annotations(layout.images).history).drawn == [True], "a second thought counts"
    wait()
    viewer.act({"do": "filter", "label": "stripes"})
    pool = layout.images.with_name("textures.pool")
    pool.mkdir()
    Image.new("RGB", (20, 20), "red").save(pool / "new.png")
    viewer.act({"do": "renew"})
    wait()
    assert viewer.state["filter"]["label"] == "stripes", "who looks at something else stays there"
    assert len(made) == 3 and viewer.state["problem"] == "the disk has gone"


def in_queue(path: str, suggested: str | None, reason: Reason = "mislabelled") -> QueueRow:
    return QueueRow(path, path.split("/")[0], suggested, reason, 0.9, "train", None)


def test_it_opens_at_the_queue_and_takes_answers(layout: Layout, wait_for: WaitFor) -> None:
    rows = [
        in_queue("blobs/03.jpg", "checks"),
        in_queue("checks/02.jpg", "stripes"),
        in_queue("stripes/01.jpg", None, "outlier"),
        in_queue("gone.jpg", "checks"),
    ]
    write_queue(layout.review, rows)
    viewer = ImageViewer.of(layout)
    assert shown(viewer) == ["blobs/03.jpg", "checks/02.jpg", "stripes/01.jpg"]
    assert viewer.state["next"] == "Next: 3 to look at; about 1 minute"
    assert viewer.state["queue"] == {"all": 3, "mislabelled": 2, "outlier": 1}
    first, second, third = (item["id"] for item in viewer.state["items"])
    assert [viewer.state["items"][0][key] for key in ("reason", "suggested", "settled")] == [
        "mislabelled",
        "checks",
        False,
    ]
    viewer.act({"do": "look", "image": first})
    assert wait_for("look")[0]["facts"]["to look at"] == "mislabelled: checks?"

    viewer.act({"do": "later", "images": [first]})
    assert shown(viewer) == ["checks/02.jpg", "stripes/01.jpg", "blobs/03.jpg"]
    viewer.act({"do": "keep", "images": [second]})
    assert viewer.state["said"] == "02.jpg: right as it is" and not viewer.state["isStale"]
    viewer.act({"do": "accept", "images": [first, third]})
    assert (layout.images / "checks" / "03-2.jpg").exists(), "the label that was suggested"
    assert (layout.images / "stripes" / "01.jpg").exists(), "with no suggestion it is right as it is"
    assert [item["settled"] for item in viewer.state["items"]] == [True] * 3
    assert viewer.state["next"] == "" and viewer.state["queue"] == {"all": 0}

    again = ImageViewer.of(layout)
    assert again.state["matching"] == 48, "nothing is asked twice"
    again.act({"do": "undo"})
    assert again.state["said"] == "2 images: undone", "what was accepted together is one step"
    again.act({"do": "filter", "queue": "all"})
    assert len(shown(again)) == 2, "what is undone is asked again"


def test_what_a_person_has_decided_is_not_overridden(layout: Layout) -> None:
    write_queue(layout.review, [in_queue(f"blobs/{i:02d}.jpg", "checks") for i in (1, 3, 5)])
    viewer = ImageViewer.of(layout)
    kept, other, gone = (item["id"] for item in viewer.state["items"])
    viewer.act({"do": "keep", "images": [kept]})
    viewer.act({"do": "relabel", "images": [other], "label": "blobs"})
    assert viewer.state["items"][1]["settled"], "the digit of its own label is an answer, too"
    (layout.images / "blobs" / "05.jpg").unlink()
    viewer.act({"do": "accept", "images": [kept, other, gone]})
    assert "blobs/05.jpg is left as it is" in viewer.state["problem"]
    assert {(layout.images / "blobs" / f"{i:02d}.jpg").exists() for i in (1, 3)} == {True}
    for _ in range(2):
        viewer.act({"do": "later", "images": [kept]})
        viewer.act({"do": "later", "images": [other]})
        assert [item["id"] for item in viewer.state["items"]] == [gone, kept, other], "the last one put off comes last"


def test_a_label_that_is_not_there_stops_no_other_answer(layout: Layout) -> None:
    write_queue(layout.review, [in_queue("blobs/01.jpg", "nosuch"), in_queue("blobs/03.jpg", "checks")])
    viewer = ImageViewer.of(layout)
    viewer.act({"do": "accept", "images": [item["id"] for item in viewer.state["items"]]})
    assert viewer.state["problem"].endswith("has no folder 'nosuch': create it, and open the data set again")
    assert (layout.images / "checks" / "03-2.jpg").exists() and (layout.images / "blobs" / "01.jpg").exists()


def test_what_another_viewer_has_answered_is_answered(layout: Layout) -> None:
    write_queue(layout.review, [in_queue("blobs/01.jpg", "checks"), in_queue("blobs/03.jpg", "checks")])
    one, other = ImageViewer.of(layout), ImageViewer.of(layout)
    first, second = (item["id"] for item in one.state["items"])
    one.act({"do": "accept", "images": [first]})
    other.act({"do": "keep", "images": [second]})
    assert [item["settled"] for item in other.state["items"]] == [True, True] and not other.state["problem"]
    other.act({"do": "accept", "images": [first, second]})
    assert not other.state["problem"] and (layout.images / "blobs" / "03.jpg").exists()


def test_a_damaged_queue_does_not_keep_the_viewer_from_opening(layout: Layout) -> None:
    layout.review.write_bytes(b"\xef\xbb\xbfpath;label\r\na;b\r\n")
    viewer = ImageViewer.of(layout)
    assert viewer.state["matching"] == 48
    assert viewer.state["problem"].endswith("run scripts/5_evaluate.py --review again")


def test_a_queue_follows_images_that_move(layout: Layout) -> None:
    write_queue(layout.review, [in_queue("blobs/03.jpg", "checks"), in_queue("blobs/01.jpg", "stripes", "ambiguous")])
    viewer = ImageViewer.of(layout)
    viewer.act({"do": "relabel", "images": [viewer.state["items"][0]["id"]], "label": "stripes"})
    viewer.act({"do": "undo"})
    second = ImageViewer.of(layout)
    assert shown(second) == ["blobs/03.jpg", "blobs/01.jpg"]
    second.act({"do": "filter", "queue": "ambiguous"})
    assert shown(second) == ["blobs/01.jpg"]


def test_pages(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("libraries.widgets.viewer.PER_PAGE", 20)
    viewer = ImageViewer.of(layout)
    pages = []
    for page in range(3):
        viewer.act({"do": "page", "page": page})
        pages.append(shown(viewer))
    assert [len(page) for page in pages] == [20, 20, 8] and len({path for page in pages for path in page}) == 48
    viewer.act({"do": "page", "page": 99})
    assert viewer.state["page"] == 2 and viewer.state["first"] == 40
    viewer.act({"do": "filter", "label": "blobs"})
    assert (viewer.state["page"], viewer.state["pages"]) == (0, 1)
    assert PER_PAGE == 60


def test_another_label_and_back(layout: Layout) -> None:
    viewer = ImageViewer.of(layout)
    images = [number(viewer, "blobs/00.png"), number(viewer, "stripes/01.jpg")]
    viewer.act({"do": "relabel", "images": images, "label": "checks"})
    assert (layout.images / "checks" / "00-2.png").exists() and (layout.images / "checks" / "01-2.jpg").exists()
    assert counts(viewer) == {"blobs": 15, "checks": 18, "stripes": 15}
    item = next(item for item in viewer.state["items"] if item["id"] == images[0])
    assert (item["label"], item["name"], item["was"]) == ("checks", "00-2.png", "blobs")
    assert viewer.state["said"] == "2 images: checks" and viewer.state["isStale"] and viewer.state["canUndo"]
    viewer.act({"do": "undo"})
    assert (layout.images / "blobs" / "00.png").exists()
    assert viewer.state["said"] == "2 images: undone" and not viewer.state["isStale"]
    assert counts(viewer) == {"blobs": 16, "checks": 16, "stripes": 16}
    viewer.act({"do": "redo"})
    assert counts(viewer) == {"blobs": 15, "checks": 18, "stripes": 15} and viewer.state["isStale"]


def test_an_image_stays_on_the_page_until_the_filter_changes(layout: Layout) -> None:
    viewer = ImageViewer.of(layout)
    viewer.act({"do": "filter", "label": "blobs"})
    image = number(viewer, "blobs/00.png")
    viewer.act({"do": "relabel", "images": [image], "label": "checks"})
    assert viewer.state["items"][0]["id"] == image
    viewer.act({"do": "filter", "label": "blobs"})
    assert image not in [item["id"] for item in viewer.state["items"]]


def test_marks_come_and_go(layout: Layout) -> None:
    viewer = ImageViewer.of(layout)
    viewer.act({"do": "mark", "images": [0, 1], "mark": "ambiguous"})
    assert viewer.state["marks"] == {"ambiguous": 2, "excluded": 0}
    viewer.act({"do": "mark", "images": [1], "mark": "excluded"})
    viewer.act({"do": "mark", "images": [0, 1], "mark": "excluded"})
    assert viewer.state["marks"] == {"ambiguous": 0, "excluded": 2}
    viewer.act({"do": "mark", "images": [0, 1], "mark": "excluded"})
    assert viewer.state["marks"] == {"ambiguous": 0, "excluded": 0}


def test_a_restart_continues_where_it_was(layout: Layout) -> None:
    first = ImageViewer.of(layout)
    first.act({"do": "relabel", "images": [0], "label": "checks"})
    first.close()
    second = ImageViewer.of(layout)
    assert counts(second) == {"blobs": 15, "checks": 17, "stripes": 16} and second.state["isStale"]
    assert second.state["items"][number(second, "checks/00-2.png")]["split"] in ("train", "test")
    second.act({"do": "undo"})
    assert counts(second) == {"blobs": 16, "checks": 16, "stripes": 16} and not second.state["isStale"]


def test_script_1_applies_the_changes(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    viewer = ImageViewer.of(layout)
    viewer.act({"do": "relabel", "images": [0], "label": "checks"})
    viewer.act({"do": "mark", "images": [1, 2], "mark": "excluded"})
    viewer.act({"do": "mark", "images": [3], "mark": "ambiguous"})
    parameters = small_run(layout.root)
    run_main("1_prepareData", parameters)
    said = capsys.readouterr().out
    assert "left out: 2 marked excluded" in said and "left out: 1 marked ambiguous" in said
    again = ImageViewer.of(Layout(parameters))
    assert not again.state["isStale"]
    splits = {f"{item['label']}/{item['name']}": item["split"] for item in again.state["items"]}
    assert splits["checks/00-2.png"] != "new"
    assert [path for path, split in splits.items() if split == "new"] == [
        "blobs/01.jpg",
        "blobs/02.jpg",
        "blobs/03.jpg",
    ]
    Layout(parameters).examples.check()


def test_before_script_1(layout: Layout) -> None:
    layout.examples.begin()
    viewer = ImageViewer.of(layout)
    assert not viewer.state["isPrepared"] and not viewer.state["isStale"]
    assert {item["split"] for item in viewer.state["items"]} == {"new"}


def test_moves_can_be_made_again_on_a_fresh_copy(layout: Layout) -> None:
    viewer = ImageViewer.of(layout)
    viewer.act({"do": "relabel", "images": [0], "label": "checks"})
    viewer.close()
    (layout.images / "checks" / "00-2.png").rename(layout.images / "blobs" / "00.png")
    viewer = ImageViewer.of(layout)
    assert viewer.state["pending"] == 1 and counts(viewer)["checks"] == 16
    viewer.act({"do": "replay"})
    assert viewer.state["pending"] == 0 and counts(viewer)["checks"] == 17
    assert (layout.images / "checks" / "00-2.png").exists()


def test_impossible_actions_are_reported(layout: Layout) -> None:
    viewer = ImageViewer.of(layout)
    viewer.act({"do": "relabel", "images": [0], "label": "no such class"})
    assert "has no folder 'no such class'" in viewer.state["problem"]
    (layout.images / "blobs" / "00.png").unlink()
    viewer.act({"do": "relabel", "images": [0, 1], "label": "checks"})
    assert viewer.state["problem"] == "blobs/00.png is left as it is: No such file or directory"
    assert counts(viewer)["checks"] == 17
    viewer.act({"do": "undo"})
    assert viewer.state["problem"] == ""


@pytest.mark.parametrize(
    "message",
    [None, {}, {"do": "delete"}, {"do": "page"}, {"do": "relabel", "images": [999], "label": "checks"}, "undo", 7],
)
def test_a_foreign_message_does_no_harm(layout: Layout, message: object, caplog: pytest.LogCaptureFixture) -> None:
    viewer = ImageViewer.of(layout)
    before = viewer.state
    viewer._receive(viewer, message, [])
    assert viewer.state == before and "is not understood" in caplog.text


def test_no_folder_names_the_script(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"does not exist: put one folder .* or run scripts/0_downloadData.py"):
        ImageViewer.of(Layout(small_run(tmp_path)))
    (tmp_path / "images" / "textures").mkdir(parents=True)
    with pytest.raises(InputError, match="holds no folder"):
        ImageViewer.of(Layout(small_run(tmp_path)))


def test_another_notebook_has_moved_an_image(layout: Layout) -> None:
    viewer = ImageViewer.of(layout)
    Annotations(layout.images).relabel(["blobs/00.png"], "checks")
    viewer.act({"do": "relabel", "images": [0], "label": "stripes"})
    assert "blobs/00.png is left as it is" in viewer.state["problem"]
    viewer.act({"do": "undo"})  # undoes the other notebook's step
    assert counts(viewer)["blobs"] == 16 and (layout.images / "blobs" / "00.png").exists()


def test_thumbnails_come_as_messages(layout: Layout, wait_for: WaitFor) -> None:
    viewer = ImageViewer.of(layout)
    (layout.images / "blobs" / "01.jpg").write_bytes(b"no image")
    viewer.act({"do": "thumbnails", "images": [0, 1]})
    answers = {content["thumbnail"]: (content, buffers) for content, buffers in (wait_for("thumbnail") for _ in "ab")}
    assert Image.open(io.BytesIO(answers[0][1][0])).format == "JPEG"
    assert answers[1][0]["problem"].startswith("is not a whole")


def test_the_large_view_shows_the_facts(layout: Layout, wait_for: WaitFor) -> None:
    (layout.images / "stripes" / "copy.jpg").write_bytes((layout.images / "stripes" / "01.jpg").read_bytes())
    with Image.open(layout.images / "blobs" / "05.jpg") as picture:
        picture.resize((2 * picture.width, 2 * picture.height)).save(layout.images / "checks" / "larger.png")
    run_main("1_prepareData", small_run(layout.root))
    viewer = ImageViewer.of(layout)
    viewer.act({"do": "look", "image": number(viewer, "checks/larger.png")})
    assert wait_for("look")[0]["facts"]["looks the same"] == "blobs/05.jpg"
    viewer.act({"do": "look", "image": number(viewer, "stripes/copy.jpg")})
    content, (large,) = wait_for("look")
    with Image.open(layout.images / "stripes" / "copy.jpg") as original, Image.open(io.BytesIO(large)) as picture:
        assert picture.size == original.size
        width, height = original.size
    facts = content["facts"]
    assert facts["file"] == "stripes/copy.jpg" and facts["the same file"] == "stripes/01.jpg"
    assert facts["image"].startswith(f"JPEG, RGB, {width} × {height} pixels, ")
    assert facts["split"] in ("training", "test") and facts["group"] == "stripes/01.jpg"
    (layout.images / "blobs" / "00.png").unlink()
    viewer.act({"do": "look", "image": 0})
    content, _ = wait_for("look")
    assert content["problem"] == "does not exist" and content["facts"]["image"] == "does not exist"
