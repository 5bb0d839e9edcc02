"""A class more, one less, merged and split: by scripts 1 to 5, without an image through the network again."""

import csv
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libraries.base.errors import InputError, StaleInput
from libraries.base.layout import Layout
from libraries.network.engine import Engine
from libraries.review.queue import read_queue
from PARAMETERS import Parameters
from tests.conftest import STEPS, hashes, texture
from tests.scripts.conftest import FINISHED

Stage = Callable[[str], Callable[..., Parameters]]
Main = Callable[..., None]


@pytest.fixture
def own(stage: Stage) -> Callable[..., Parameters]:
    """A finished run whose images may be changed."""
    parameters = stage(FINISHED)
    images = parameters().rootDir / "images" / "textures"
    source = images.resolve()
    images.unlink()
    shutil.copytree(source, images)
    return parameters


def classes_of(p: Parameters) -> Counter[str]:
    with (Layout(p).examples.folder / "examples.csv").open(encoding="utf-8", newline="") as file:
        return Counter(row["label"] for row in csv.DictReader(file))


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of images that run through a network to be embedded."""
    seen: list[str] = []
    original = Engine.stream

    def watched(engine: Engine, items: Any, load_item: Any) -> Any:
        for item, result in original(engine, items, load_item):
            seen.append(item.path)
            yield item, result

    monkeypatch.setattr(Engine, "stream", watched)
    return seen


def test_merged_split_and_left_out(own: Callable[..., Parameters], main: Main, embedded: list[str]) -> None:
    table = own().rootDir / "classes.csv"
    table.write_text("images,class\nblobs/0*,early\nblobs,late\nstripes,lines\n", encoding="utf-8")
    p = own(classMap=table)
    images = hashes(p.rootDir / "images")
    main("1_prepareData", p)
    assert classes_of(p) == {"early": 10, "late": 6, "checks": 16, "lines": 16}
    before = len(embedded)
    main("2_refineDNN", p)
    main("3_runDNN", p)
    assert len(embedded) == before, "all embeddings are known"
    main("4_trainSVM", p)
    main("5_evaluate", p)
    bundle = json.loads((Layout(p).bundle.folder / "model.json").read_text())
    assert bundle["labels"] == ["checks", "early", "late", "lines"]
    rows = read_queue(Layout(p).review)
    assert {row.label for row in rows} <= {"blobs", "checks", "stripes"}, "folders, where answers can go"
    assert {row.suggested for row in rows} <= {None, "checks", "stripes"}
    assert hashes(p.rootDir / "images") == images, "no image was moved"

    table.write_text("images,class\nblobs,round\nchecks,round\n", encoding="utf-8")
    with pytest.raises(StaleInput, match=r"examples\.csv was made with classMap = .*: run scripts/1_prepareData\.py"):
        main("3_runDNN", p)
    main("1_prepareData", p)
    assert classes_of(p) == {"round": 32, "stripes": 16}
    table.write_text("images,class\nblobs,\n", encoding="utf-8")
    main("1_prepareData", p)
    assert classes_of(p) == {"checks": 16, "stripes": 16}
    table.write_text("images,class\nblob,round\n", encoding="utf-8")
    with pytest.raises(InputError, match="names 'blob', which is no folder: did you mean 'blobs'"):
        main("1_prepareData", p)
    table.write_text("images,class\nblobs,\nchecks,\n", encoding="utf-8")
    with pytest.raises(InputError, match="the table of classes leaves stripes: two classes are needed"):
        main("1_prepareData", p)


def test_a_class_more_and_one_less(own: Callable[..., Parameters], main: Main, embedded: list[str]) -> None:
    p = own()
    folder = p.rootDir / "images" / "textures" / "waves"
    folder.mkdir()
    generator = np.random.default_rng(5)
    for i in range(16):
        texture("stripes", generator).rotate(90, expand=True).save(folder / f"{i:02d}.png")
    for step in STEPS:
        main(step, p)
    new = {path for path in embedded if not path.startswith("waves/")}
    assert {path for path in embedded if path.startswith("waves/")}
    assert len(new) <= 32, "others are only those that check the bundle"
    assert classes_of(p)["waves"] == 16
    shutil.rmtree(folder)
    embedded.clear()
    for step in STEPS:
        main(step, p)
    assert classes_of(p) == {"blobs": 16, "checks": 16, "stripes": 16}
    assert json.loads((Layout(p).bundle.folder / "model.json").read_text())["labels"] == ["blobs", "checks", "stripes"]
    assert len({*embedded}) <= 12, "the test images, which check the bundle"


def test_a_table_that_is_gone_is_told_at_once(own: Callable[..., Parameters], main: Main) -> None:
    table = own().rootDir / "classes.csv"
    table.write_text("images,class\nblobs,round\n", encoding="utf-8")
    p = own(classMap=table)
    for step in STEPS[:4]:
        main(step, p)
    table.unlink()
    for step in STEPS[1:]:
        if step != "2_refineDNN":  # the network of svm is made without images
            with pytest.raises(
                StaleInput, match=r"now it is \"classes.csv \(missing\)\": run scripts/1_prepareData\.py"
            ):
                main(step, p)


def test_costs_that_are_gone_are_in_the_bundle(own: Callable[..., Parameters], main: Main) -> None:
    table = own().rootDir / "costs.csv"
    table.write_text("label,answer,cost\n*,*,1\nblobs,*,5\n", encoding="utf-8")
    p = own(costs=table)
    main("4_trainSVM", p)
    table.unlink()
    assert Layout(p).bundle.is_current()
    other = own(costs=table.with_name("others.csv"))
    assert not Layout(other).bundle.is_current()


def test_images_that_the_table_leaves_out_are_not_new(
    own: Callable[..., Parameters], main: Main, capsys: pytest.CaptureFixture[str]
) -> None:
    table = own().rootDir / "classes.csv"
    table.write_text("images,class\nblobs/0*,\n", encoding="utf-8")
    p = own(classMap=table)
    main("1_prepareData", p)
    assert "By the table of classes: 3 classes, 10 images left out" in capsys.readouterr().out
    main("2_refineDNN", p)
    main("3_runDNN", p)
    assert "Warning" not in capsys.readouterr().out
    assert isinstance(table, Path)
