"""The viewer of results without a browser: orders and filters against plain loops; real evidence and neighbours."""

import io
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from libraries.base.errors import InputError, MissingInput
from libraries.base.layout import Layout
from libraries.base.tables import write_table
from libraries.data.annotations import Annotations
from libraries.data.dataset import Example
from libraries.evaluation import testing
from libraries.widgets.results import Predictions, ResultsViewer, read_predictions
from tests.conftest import run_main, small_run

WaitFor = Callable[[str], tuple[dict[str, Any], list[bytes]]]


def drawn(n: int = 90, k: int = 3) -> Predictions:
    """Random predictions, some right, some wrong."""
    generator = np.random.default_rng(0)
    p = generator.dirichlet(np.ones(k), n).astype(np.float32)
    labels = generator.integers(0, k, n)
    names = [f"class {i}" for i in range(k)]
    return Predictions(
        names, [f"{names[label]}/{i}.jpg" for i, label in enumerate(labels)], labels, p.argmax(axis=1), p
    )


def viewer_of(predictions: Predictions, folder: Path, **changes: Any) -> ResultsViewer:
    options: dict[str, Any] = {
        "images": folder,
        "bundle": folder / "bundle",
        "features": folder / "features",
        "thumbnails": folder / "kept.sqlite",
        "title": "textures, svm",
    }
    return ResultsViewer(predictions, **{**options, **changes})


def matching(viewer: ResultsViewer, **wanted: Any) -> list[int]:
    """All images that pass a filter, in the order shown."""
    viewer.act({"do": "filter", **wanted})
    found = []
    for page in range(viewer.state["pages"]):
        viewer.act({"do": "page", "page": page})
        found += [item["id"] for item in viewer.state["items"]]
    assert len(found) == viewer.state["matching"]
    return found


def test_mistakes_come_first_and_the_worst_of_them(tmp_path: Path) -> None:
    of = drawn()
    viewer = viewer_of(of, tmp_path)
    assert viewer.state["filter"]["right"] is False
    loss = [-math.log(of.probabilities[i, of.labels[i]]) for i in range(90)]
    wrong = [i for i in range(90) if of.labels[i] != of.predictions[i]]
    assert matching(viewer, right=False) == sorted(wrong, key=lambda i: -loss[i])
    assert sum(map(sum, viewer.state["matrix"])) == 90
    assert viewer.state["matrix"][1][2] == sum(of.labels[i] == 1 and of.predictions[i] == 2 for i in range(90))


@pytest.mark.parametrize(
    ("order", "key"),
    [
        ("margin", lambda p, answer: sorted(p)[-1] - sorted(p)[-2]),
        ("most confident", lambda p, answer: -p[answer]),
        ("least confident", lambda p, answer: p[answer]),
    ],
)
def test_orders(tmp_path: Path, order: str, key: Callable[[list[float], int], float]) -> None:
    of = drawn()
    found = matching(viewer_of(of, tmp_path), order=order)
    assert sorted(found) == list(range(90))
    values = [key(of.probabilities[i].tolist(), int(of.predictions[i])) for i in found]
    assert values == sorted(values)


def test_a_cell_of_the_confusion_matrix(tmp_path: Path) -> None:
    of = drawn()
    viewer = viewer_of(of, tmp_path)
    cell = [i for i in range(90) if of.labels[i] == 2 and of.predictions[i] == 0]
    assert cell and sorted(matching(viewer, truth=2, predicted=0)) == cell
    assert sorted(matching(viewer, truth=2)) == [i for i in range(90) if of.labels[i] == 2]
    assert sorted(matching(viewer, predicted=0, right=True)) == [
        i for i in range(90) if of.labels[i] == 0 and of.predictions[i] == 0
    ]
    assert matching(viewer, name="CLASS 1/3", order="name") == [
        i for i in range(90) if of.paths[i].startswith("class 1/3")
    ]


def test_the_threshold_counts_what_a_decision_gets_right(tmp_path: Path) -> None:
    of = drawn()
    of.probabilities[0] = [0.25, 0.5, 0.25]  # exactly on a threshold
    viewer = viewer_of(of, tmp_path)
    viewer.act({"do": "threshold", "label": 1})
    threshold = viewer.state["threshold"]
    assert threshold["positives"] == sum(of.labels == 1)
    for step in (0, 137, 500, 501, 999, 1000):
        said = [i for i in range(90) if of.probabilities[i, 1] >= step / 1000 - 1e-9]
        assert threshold["truePositives"][step] == sum(of.labels[i] == 1 for i in said)
        assert threshold["falsePositives"][step] == sum(of.labels[i] != 1 for i in said)
    decision = {"label": 1, "threshold": 0.4}
    missed = [i for i in range(90) if of.labels[i] == 1 and of.probabilities[i, 1] < 0.4]
    alarms = [i for i in range(90) if of.labels[i] != 1 and of.probabilities[i, 1] >= 0.4]
    assert sorted(matching(viewer, at={**decision, "kind": "missed"})) == missed
    assert sorted(matching(viewer, at={**decision, "kind": "false alarm"})) == alarms


def test_among_many_classes_the_best_and_the_true_one_are_shown(tmp_path: Path) -> None:
    of = drawn(k=140)
    viewer = viewer_of(of, tmp_path)
    image = int(np.argmin(of.probabilities[np.arange(90), of.labels]))
    message, _ = viewer.facts(image)
    bars = message["bars"]
    assert len(bars) == 100 and message["others"] == 40
    assert [bar["label"] for bar in bars if bar["isTrue"]] == [of.names[of.labels[image]]] == [bars[-1]["label"]]
    assert bars[0]["isPredicted"] and bars[0]["probability"] == pytest.approx(of.probabilities[image].max())


def test_without_mistakes_all_images_are_shown(tmp_path: Path) -> None:
    of = drawn()
    viewer = viewer_of(of._replace(labels=of.predictions), tmp_path)
    assert viewer.state["filter"]["right"] is None and viewer.state["matching"] == 90


def test_unknown_and_ambiguous_images_are_filtered(tmp_path: Path) -> None:
    of = drawn()
    assert viewer_of(of, tmp_path).state["trust"] == []
    unknown, sets = np.arange(90) % 9 == 0, ["class 0|class 1" if i % 7 == 0 else "class 0" for i in range(90)]
    asked = np.arange(90) % 5 == 0
    viewer = viewer_of(of._replace(unknown=unknown, sets=sets, asked=asked), tmp_path)
    assert viewer.state["trust"] == ["unknown", "ambiguous", "ask"]
    assert sorted(matching(viewer, trust="ask")) == np.flatnonzero(asked).tolist()
    assert sorted(matching(viewer, trust="unknown")) == np.flatnonzero(unknown).tolist()
    assert sorted(matching(viewer, trust="ambiguous")) == [i for i in range(90) if i % 7 == 0]
    assert viewer.facts(0)[0]["facts"] | {"unknown": "yes", "likely": "class 0, class 1"} == viewer.facts(0)[0]["facts"]


def test_predictions_are_read_as_they_were_written(tmp_path: Path) -> None:
    of = drawn()
    names = ['with, comma "', "Größe", "c"]
    examples = [Example(path, names[i], "test", path, 1, 1, 1, "") for path, i in zip(of.paths, of.labels, strict=True)]
    tested = testing.Tested(
        names, examples, of.labels, of.probabilities, of.probabilities, of.probabilities, [],
        unknown=np.arange(90) % 9 == 0, sets=of.probabilities > 0.3, asked=np.arange(90) % 5 == 0,
    )  # fmt: skip
    write_table(tmp_path / "predictions.csv", testing.PredictionRow, testing.prediction_rows(tested))
    again = read_predictions(tmp_path / "predictions.csv")
    assert (again.names, again.paths) == (names, of.paths)
    np.testing.assert_array_equal(again.labels, of.labels)
    np.testing.assert_array_equal(again.predictions, of.predictions)
    np.testing.assert_allclose(again.probabilities, of.probabilities, atol=5e-7)
    np.testing.assert_array_equal(again.unknown, tested.unknown)
    np.testing.assert_array_equal(again.asked, tested.asked)
    likely = [[name for name, p in zip(names, row, strict=True) if p > 0.3] for row in of.probabilities]
    assert again.sets == ["|".join(each) for each in likely]


@pytest.mark.parametrize(
    "text", ["", "path,label\n", "path,label,predicted,probability of a\nx,b,a,1\n", "a,b,c,d\n1,d,d,x"]
)
def test_a_damaged_table_names_the_script(tmp_path: Path, text: str) -> None:
    (tmp_path / "predictions.csv").write_text(text)
    with pytest.raises(InputError, match=r"cannot be read .*run scripts/5_evaluate.py again"):
        read_predictions(tmp_path / "predictions.csv")


@pytest.fixture
def layout(evaluated: Path, tmp_path: Path) -> Layout:
    """The same, to change."""
    shutil.copytree(evaluated, tmp_path / "data")
    return Layout(small_run(tmp_path / "data", svm_CVals=(0.01,), svm_boL2Normalize=True))


def test_an_image_large_with_its_scores_and_neighbours(layout: Layout, wait_for: WaitFor) -> None:
    viewer = ResultsViewer.of(layout)
    assert viewer.state["stale"] == "" and viewer.state["images"] == 12
    assert viewer.state["title"].startswith("textures, svm: ")
    viewer.act({"do": "filter"})
    image = viewer.state["items"][0]["id"]
    viewer.act({"do": "look", "image": image})
    message, (large, *alike) = wait_for("look")
    assert Image.open(io.BytesIO(large)).format == "JPEG" and message["problem"] == ""
    assert sum(bar["probability"] for bar in message["bars"]) == pytest.approx(1, abs=1e-5)
    assert len(alike) == len(message["alike"]) == 5
    assert {Image.open(io.BytesIO(picture)).format for picture in alike} == {"JPEG"}
    assert message["alike"][0]["label"] == viewer.state["items"][0]["label"]  # textures are easy


def test_evidence_for_each_class(layout: Layout, wait_for: WaitFor) -> None:
    viewer = ResultsViewer.of(layout)
    viewer.act({"do": "look", "image": 0})
    maps = []
    for label in range(3):
        viewer.act({"do": "evidence", "image": 0, "label": label})
        message, (png,) = wait_for("evidence")
        assert (message["evidence"], message["label"], message["problem"]) == (0, label, "")
        assert message["method"] == "class activation map"
        with Image.open(io.BytesIO(png)) as picture:
            assert picture.mode == "RGBA"
            maps.append(np.asarray(picture))
    assert all(drawn[..., 3].max() > 200 for drawn in maps)
    assert not np.array_equal(maps[0], maps[1])


def test_missing_files_are_reported_and_the_rest_works(layout: Layout, wait_for: WaitFor) -> None:
    viewer = ResultsViewer.of(layout)
    shutil.rmtree(layout.features.folder)
    shutil.rmtree(layout.bundle.folder)
    (layout.images / viewer.path(0)).unlink()
    viewer.act({"do": "look", "image": 0})
    message, _ = wait_for("look")
    assert message["problem"] == "does not exist" and message["alike"] == [] and len(message["bars"]) == 3
    viewer.act({"do": "evidence", "image": 0, "label": 1})
    assert "does not exist" in wait_for("evidence")[0]["problem"]
    viewer.act({"do": "look", "image": 1})
    wait_for("look")
    viewer.act({"do": "evidence", "image": 1, "label": 1})
    assert "model.json" in wait_for("evidence")[0]["problem"]


def test_a_label_changed_since_is_reported(layout: Layout, wait_for: WaitFor) -> None:
    before = ResultsViewer.of(layout)
    path = before.path(0)
    Annotations(layout.images).relabel([path], "stripes" if path.startswith("blobs") else "blobs")
    viewer = ResultsViewer.of(Layout(small_run(layout.root, svm_CVals=(0.01,), svm_boL2Normalize=True)))
    assert "run scripts/1_prepareData.py again" in viewer.state["stale"]
    assert (layout.images / viewer.path(0)).exists() and viewer.path(0) != path
    viewer.act({"do": "look", "image": 0})
    message, _ = wait_for("look")
    assert message["problem"] == "" and message["facts"]["is now"] == viewer.path(0)


def test_a_label_is_corrected_in_the_results(layout: Layout) -> None:
    viewer = ResultsViewer.of(layout)
    path, other = viewer.path(0), next(i for i, name in enumerate(viewer.state["names"]) if name != "blobs")
    assert path.startswith("blobs/") and not viewer.state["canUndo"] and not viewer.state["isStale"]
    viewer.act({"do": "filter", "order": "name"})
    viewer.act({"do": "relabel", "image": 0, "label": other})
    moved, name = viewer.path(0), viewer.state["names"][other]
    assert moved.startswith(f"{name}/") and (layout.images / moved).exists()
    assert not (layout.images / path).exists()
    assert viewer.state["items"][0]["now"] == name and viewer.state["isStale"]
    assert viewer.state["said"] == f"{moved}: {name}"
    viewer.act({"do": "undo"})
    assert (layout.images / path).exists() and viewer.path(0) == path and not viewer.state["isStale"]


def test_results_from_before_script_1_ran_again_still_find_their_images(layout: Layout) -> None:
    path = ResultsViewer.of(layout).path(0)
    Annotations(layout.images).relabel([path], "stripes" if path.startswith("blobs") else "blobs")
    parameters = small_run(layout.root, svm_CVals=(0.01,), svm_boL2Normalize=True)
    run_main("1_prepareData", parameters)
    viewer = ResultsViewer.of(Layout(parameters))
    assert viewer.path(0) != path and (layout.images / viewer.path(0)).exists()
    assert viewer.state["isStale"]


@pytest.mark.parametrize("label", [-1, 3])
def test_only_existing_labels_can_be_given(layout: Layout, label: int) -> None:
    viewer = ResultsViewer.of(layout)
    path = layout.images / viewer.path(0)
    viewer._receive(viewer, {"do": "relabel", "image": 0, "label": label}, [])
    assert path.exists() and not viewer.state["canUndo"]


def test_before_script_5_the_script_is_named(layout: Layout) -> None:
    layout.evaluation.begin()
    with pytest.raises(MissingInput, match=r"run scripts/5_evaluate.py first"):
        ResultsViewer.of(layout)


def test_the_new_label_of_an_image_where_the_split_is_on_disk(tmp_path: Path) -> None:
    for path in ("train/cat/1.png", "train/dog/1.png", "test/cat/2.png", "test/dog/3.png"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / path)
    p = np.full((2, 2), 0.5, np.float32)
    of = Predictions(["cat", "dog"], ["test/cat/2.png", "test/dog/3.png"], np.array([0, 1]), np.array([0, 0]), p)
    viewer = viewer_of(of, tmp_path)
    viewer.act({"do": "relabel", "image": 0, "label": 1})
    assert viewer.path(0) == "test/dog/2.png" and viewer.item(0)["now"] == "dog" and viewer.item(1)["now"] is None
    viewer.close()
