"""A classifier against a release: tests that are right about chance, groups, many slices; and what has flipped."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libraries.base.errors import InputError, ParameterError, StorageError
from libraries.classifier.costs import Costs
from libraries.evaluation import release, testing
from libraries.evaluation.against import comparable, compare
from libraries.evaluation.paired import Difference, difference, exchanged, holm
from libraries.evaluation.uncertainty import mcnemar
from tests.evaluation.test_since import NAMES, answered


def of(then: np.ndarray, now: np.ndarray, groups: np.ndarray | None = None) -> Difference:
    groups = np.arange(len(then)) if groups is None else groups
    return difference("all", "", then.astype(float), now.astype(float), groups, unit=1.0, rng=np.random.default_rng(0))


@pytest.mark.parametrize(("mended", "broken"), [(3, 1), (6, 6), (0, 5), (40, 22), (300, 260)])
def test_for_single_images_the_test_is_mcnemars(mended: int, broken: int) -> None:
    """Exactly for few, within the error of random exchanges for many: two-sided mid-p."""
    then, now = np.zeros(1000, bool), np.zeros(1000, bool)
    now[:mended] = True
    then[mended : mended + broken] = True
    expected = mcnemar(then, now).mid_p_value
    found = of(then, now)
    assert found.p == pytest.approx(expected, abs=1e-9 if mended + broken <= 14 else 0.012)
    assert found.gain == pytest.approx((mended - broken) / 1000)


def test_groups_are_exchanged_as_a_whole() -> None:
    """Twenty copies of one mended picture are one observation."""
    then, now = np.zeros(100, bool), np.zeros(100, bool)
    now[:20] = True
    assert of(then, now).p < 1e-4
    together = np.where(np.arange(100) < 20, 0, np.arange(100))
    assert of(then, now, together).p == 1 / 2 * 1.0, "one group: both signs are as likely, and both are as large"
    assert of(then, now, together).margin > of(then, now).margin


def test_chance_alone_is_called_a_difference_seldom() -> None:
    """Two equally good classifiers, 300 times; and the interval holds the truth as often as it says."""
    generator = np.random.default_rng(1)
    called, held = 0, 0
    for _ in range(300):
        disagree = generator.random(400) < 0.1
        first = generator.random(400) < 0.5
        then, now = disagree & first, disagree & ~first
        found = of(then, now)
        called += found.verdict != "same"
        held += abs(found.gain) <= found.margin
    assert called / 300 < 0.08 and held / 300 > 0.92


def test_the_interval_is_no_point_where_nothing_differs() -> None:
    same = np.ones(200, bool)
    found = of(same, same)
    assert (found.gain, found.p, found.verdict) == (0, 1.0, "same") and 0.005 < found.margin < 0.03


def test_holm_against_the_definition() -> None:
    p = [0.01, 0.04, 0.03, 0.005]
    one = of(np.zeros(9), np.zeros(9))
    assert [each.p for each in holm([replace(one, p=value) for value in p])] == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_exchanges_of_nothing_and_of_few() -> None:
    rng = np.random.default_rng(0)
    assert exchanged(np.array([]), rng=rng) == 1.0
    assert exchanged(np.ones(5), rng=rng) == pytest.approx(1 / 32), "2 of 32, each half"


def pair(then: list[int], now: list[int], labels: list[int]) -> tuple[testing.Tested, testing.Tested]:
    return answered(labels, now), answered(labels, then)


def test_worse_for_one_class_is_worse_though_it_is_better_on_the_whole() -> None:
    labels = [0] * 300 + [1] * 60
    then = [1] * 60 + [0] * 240 + [1] * 60  # sixty cats are wrong
    now = [0] * 300 + [0] * 15 + [1] * 45  # fifteen dogs are
    found = compare(*pair(then, now, labels), release="spring", slices={}, left_out={})
    assert found.whole.verdict == "better" and found.verdict == "worse"
    assert [(each.of, each.verdict) for each in found.slices] == [("cat", "better"), ("dog", "worse")]
    told = found.sentences()
    assert told[0] == "Worse than ‘spring’."
    assert "Of 360 test images that both can be asked about, 83.3% were right and 95.8% are: +12.5 points" in told[1]
    assert "It is worse for ‘dog’ (100.0% then, 75.0% now), all classes and slices considered." in told
    assert "75 answers are different: 60 mended, 15 broken, 0 wrong in another way." in told
    assert [flip.change for flip in found.flips] == ["broken"] * 15 + ["mended"] * 60
    assert "dog" in found.table() and "worse" in found.table()


def test_slices_are_tested_and_small_ones_are_not() -> None:
    labels = [0] * 200
    then, now = [0] * 200, [0] * 150 + [1] * 50
    sources: list[str | None] = ["old"] * 140 + [None] * 5 + ["few"] * 5 + ["new"] * 50
    found = compare(*pair(then, now, labels), release="spring", slices={"folder": sources}, left_out={"of x": 3})
    assert [(each.kind, each.of, each.images) for each in found.slices] == [
        ("class", "cat", 200), ("folder", "new", 50), ("folder", "old", 140)
    ]  # fmt: skip
    assert any("It is worse for ‘cat’ (100.0% then, 75.0% now), folder ‘new’" in line for line in found.sentences())
    assert found.sentences()[-1] == "Left out: 3 of x."


def test_costs_decide_where_there_are_some() -> None:
    """Fewer are right, but the dear mistakes are gone."""
    labels = [0] * 200 + [1] * 40
    then = [0] * 200 + [0] * 20 + [1] * 20
    now = [1] * 30 + [0] * 170 + [1] * 40
    costs = Costs.of([("dog", "cat", 50.0), ("cat", "dog", 1.0)], NAMES, unit="EUR")
    found = compare(*pair(then, now, labels), release="spring", slices={}, left_out={}, costs=costs)
    assert found.costs is not None
    assert found.costs.then == pytest.approx(1000 / 240) and found.costs.now == pytest.approx(30 / 240)
    assert found.costs.verdict == "better" and found.whole.verdict == "same"
    assert found.verdict == "better", "costs weigh the classes"
    assert [(each.of, each.verdict) for each in found.slices] == [("cat", "worse"), ("dog", "better")]
    assert "Cost of 100 test images [EUR], against the release 'spring'" in found.table()
    dear = compare(*pair(now, then, labels), release="spring", slices={}, left_out={}, costs=costs)
    assert dear.verdict == "worse" and any("are lost" in sentence for sentence in dear.sentences())
    assert any(
        "By your costs, which decide, 100 images cost 416.7 EUR then and 12.5 now" in t for t in found.sentences()
    )


def test_images_that_the_release_was_trained_on_and_foreign_classes_are_left_out() -> None:
    tested = answered([0, 0, 1, 1, 0], [0] * 5, groups=["g", "g", "a", "b", "c"])
    examples = tested.examples
    found = comparable(examples, labels=["cat"], trained_on=frozenset([examples[0].sha256, "other"]))
    assert [value.tolist() for value in found.values()] == [
        [True, True, False, False, False],  # with what is in its group
        [False, False, True, True, False],
    ]


def test_classes_of_the_release_may_be_in_another_order() -> None:
    now = answered([0, 1] * 30, [0, 1] * 30)
    then = answered([0, 1] * 30, [1, 0] * 30)
    then = replace(then, names=["dog", "cat"])  # whose answer 1 is a cat
    found = compare(now, then, release="spring", slices={}, left_out={})
    assert found.flips == [] and found.whole.then == 1.0


def test_a_release_whose_answers_have_no_costs_is_told() -> None:
    """It gives a class that is none any more."""
    now = answered([0, 1] * 30, [0, 1] * 30)
    then = replace(answered([0, 1] * 30, [0, 1] * 30), names=["cat", "wolf"])
    found = compare(now, then, release="spring", slices={}, left_out={}, costs=Costs.of([("*", "*", 1.0)], NAMES))
    assert found.costs is None
    assert (
        "The release gives answers that are no classes any more, so that costs cannot be compared." in found.sentences()
    )


@pytest.mark.parametrize("name", ["", "a b", "../x", "v2", "latest", "-x", "1st", "x" * 65, "a.b", "é"])
def test_names_that_no_folder_or_registry_takes_are_refused(name: str) -> None:
    with pytest.raises(ParameterError, match="cannot be the name of a release"):
        release.check_name(name)


class _Layout:
    def __init__(self, root: Path) -> None:
        self.root, self.dataset = root, "cells"


def test_a_release_whose_list_was_changed_is_refused(tmp_path: Path) -> None:
    layout: Any = _Layout(tmp_path)
    with pytest.raises(InputError, match=r"there is no release 'spring' .*: make one with --release NAME"):
        release.find_release(layout, "spring")
    folder = release.folder_of(layout) / "spring"
    folder.mkdir(parents=True)
    (folder / "training_images.txt").write_text("abc\n")
    (folder / "model").mkdir()
    (folder / "model" / "model.json").write_text("{}")
    (folder / "release.json").write_text('{"training_images": "0"}')
    with pytest.raises(StorageError, match="was changed"):
        release.find_release(layout, "spring")
    with pytest.raises(InputError, match="there are spring"):
        release.find_release(layout, "summer")
