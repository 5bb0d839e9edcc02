"""What people's answers say about the labels that nobody has looked at, and the queue that is made anew from them."""

import shutil
from pathlib import Path

import pytest
from scipy.stats import binomtest

from libraries.base.errors import InputError, MissingInput, StaleInput, StorageError
from libraries.base.layout import ANNOTATIONS, Layout
from libraries.data.annotations import Annotations
from libraries.data.class_folders import pool_of
from libraries.evaluation.renewal import renew
from libraries.review.answers import DRAWN, Answers, proportion_interval
from libraries.review.queue import read_queue
from PARAMETERS import Parameters
from tests.conftest import run_main, small_run
from tests.widgets.conftest import evaluated

__all__ = ["evaluated"]


@pytest.mark.parametrize(("count", "of"), [(0, 50), (1, 50), (7, 50), (50, 50), (0, 1), (3, 2000), (1999, 2000)])
def test_the_interval_is_the_exact_one(count: int, of: int) -> None:
    expected = binomtest(count, of).proportion_ci(0.95, "exact")
    assert proportion_interval(count, of) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_answers_become_sentences() -> None:
    assert Answers([True] * 99, [False] * (DRAWN - 1)).told(left=900) == []
    assert Answers([], [True, *[False] * 49]).told(left=1000) == [
        "Of 50 labels drawn at random among those that looked right, 1 was wrong. So of the 1,000 others, about 20 may "
        "be, between 0 and 107."
    ]
    assert Answers([], [False] * 50).told(left=1000) == [
        "Of 50 labels drawn at random among those that looked right, none was wrong. So of the 1,000 others, 72 at "
        "most may be."
    ]
    advice = ["Twice the training images.", "More images of ‘owl’ would help most."]
    many = [True] * 50 + [False] * 197 + [True] * 3
    assert Answers(many, []).told(left=10, advice=advice) == [
        "The last 200 answers changed 3 labels: to look at more brings little.",
        "More images of ‘owl’ would help most.",
    ]
    assert Answers([False] * 94 + [True] * 6, []).told(left=10) == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for path in ("cat/1.jpg", "cat/2.jpg", "cat/3.jpg", "dog/1.jpg"):
        (tmp_path / "images" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / path).write_text(path)
    (tmp_path / "images.pool").mkdir()
    (tmp_path / "images.pool" / "new.jpg").write_text("new")
    return tmp_path / "images"


def test_what_counts_is_what_is_in_effect_for_each_image(folder: Path) -> None:
    def found() -> Answers:
        return Answers.of(Annotations(folder).history)

    annotations = Annotations(folder)
    drawn = ["cat/1.jpg", "cat/2.jpg"]
    annotations.decide(
        {"cat/1.jpg": "cat", "cat/2.jpg": "dog", "dog/1.jpg": "dog", ".pool/new.jpg": "cat"}, drawn=drawn
    )
    annotations.mark(["cat/3.jpg"], "excluded")
    assert found() == Answers([False, True, False, True], [False, True])
    annotations.decide({"dog/2.jpg": "cat"})  # back, under a wrong key before
    annotations.decide({"cat/1.jpg": "dog"})  # a second thought
    annotations.mark(["cat/3.jpg"], None)  # undecided again
    assert found() == Answers([False, False, True], [False, True])
    for _ in range(4):
        annotations.undo()
    assert found() == Answers([False, True, False], [False, True])
    annotations.undo()
    assert found() == Answers([], [])
    annotations.redo()
    assert found() == Answers([False, True, False], [False, True])
    log = folder / ANNOTATIONS
    log.write_text(log.read_text(encoding="utf-8").replace('"drawn": [true', '"drawn": [1'), encoding="utf-8")
    with pytest.raises(StorageError, match=r"damaged in line 1 \(expected in 'drawn' whether each of 4 images was"):
        Annotations(folder)


@pytest.fixture
def parameters(evaluated: Path, tmp_path: Path) -> Parameters:
    """Of a whole run on images of which some have a wrong label, and some are in the pool."""
    shutil.copytree(evaluated, tmp_path / "data")
    parameters = small_run(tmp_path / "data", svm_CVals=(0.01,), svm_boL2Normalize=True)
    folder = Layout(parameters).images
    for name in ("00.png", "03.jpg"):
        (folder / "blobs" / name).rename(folder / "checks" / f"odd-{name}")
    pool_of(folder).mkdir()
    for label in ("blobs", "checks", "stripes"):
        (path := sorted((folder / label).iterdir())[-1]).rename(pool_of(folder) / f"{label}{path.suffix}")
    for step in ("1_prepareData", "3_runDNN", "4_trainSVM", "5_evaluate"):
        run_main(step, parameters)
    return parameters


def test_the_queue_is_made_anew_as_the_scripts_would_make_it(parameters: Parameters) -> None:
    layout = Layout(parameters)
    before = read_queue(layout.review)
    assert "checks/odd-00.png" in {row.path for row in before if row.reason == "mislabelled"}
    same = renew(layout, parameters.run_options(), seed=parameters.randomSeed)
    assert [row.path for row in same.rows] == [row.path for row in before] and same.told == []
    assert [row.score for row in same.rows] == pytest.approx([row.score for row in before], abs=1e-4)

    annotations = Annotations(layout.images)
    new = next(row.path for row in before if row.reason == "label next")
    annotations.decide({"checks/odd-00.png": "blobs", new: Path(new).stem})
    annotations.mark(["checks/odd-03.jpg"], "excluded")
    answered = renew(layout, parameters.run_options(), seed=parameters.randomSeed)
    written = read_queue(layout.review)
    assert [row.path for row in written] == [row.path for row in answered.rows], "as it will be shown tomorrow"
    assert {row.path for row in answered.rows}.isdisjoint({*annotations.moved.values(), "checks/odd-03.jpg", new})

    for step in ("1_prepareData", "3_runDNN", "4_trainSVM", "5_evaluate"):
        run_main(step, parameters)
    after = read_queue(layout.review)
    assert {(r.path, r.reason, r.suggested) for r in answered.rows} == {(r.path, r.reason, r.suggested) for r in after}


def test_files_that_have_gone_do_not_stop_it(parameters: Parameters) -> None:
    layout = Layout(parameters)
    pool, annotations = pool_of(layout.images), Annotations(layout.images)
    first, second, third = sorted(pool.iterdir())
    annotations.decide({f".pool/{first.name}": "blobs", f".pool/{second.name}": "checks"})
    (layout.images / annotations.moved[f".pool/{first.name}"]).unlink()
    third.unlink()
    made = renew(layout, parameters.run_options(), seed=0)
    assert not [row for row in made.rows if row.split == "pool"]


def test_what_cannot_be_compared_is_said(parameters: Parameters) -> None:
    layout = Layout(parameters)
    annotations = Annotations(layout.images)
    paths = [f"{label}/{path.name}" for label in ("blobs", "checks") for path in (layout.images / label).iterdir()]
    annotations.mark(paths, "excluded")
    with pytest.raises(InputError, match=r"^there is nothing to compare: two classes need images$"):
        renew(layout, parameters.run_options(), seed=0)
    annotations.undo()
    other = parameters.model_copy(update={"rf_inputResolution": 96})
    run_main("2_refineDNN", other)
    with pytest.raises(StaleInput, match="run scripts/"):
        renew(Layout(other), other.run_options(), seed=0)
    with pytest.raises(StaleInput, match="run scripts/"):
        renew(layout, parameters.run_options(), seed=0)


@pytest.mark.parametrize("kind", ["data set", "file", "link"])
def test_a_pool_that_is_none_is_refused_by_name(parameters: Parameters, kind: str, tmp_path: Path) -> None:
    layout = Layout(parameters)
    pool = pool_of(layout.images)
    shutil.rmtree(pool)
    if kind == "data set":
        (pool / "cat").mkdir(parents=True)
        layout.proc.with_name("textures.pool").mkdir()
    elif kind == "file":
        pool.write_bytes(b"")
    else:
        pool.symlink_to(tmp_path / "unmounted")
    with pytest.raises(InputError, match=f"^{pool} would be the folder of images without a label, but "):
        run_main("5_evaluate", parameters, review=True)


def test_without_what_the_scripts_write_it_says_what_to_run(parameters: Parameters) -> None:
    layout = Layout(parameters)
    layout.features.manifest.unlink()
    with pytest.raises(MissingInput, match=r"run scripts/3_runDNN\.py first"):
        renew(layout, parameters.run_options(), seed=0)
