"""What the answers to the test images cost, and what is said about it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from libraries.classifier.costs import Costs
from libraries.evaluation import testing
from libraries.evaluation.costs import cost_figure, cost_metrics, margin, sentences
from libraries.evaluation.metrics import metrics
from libraries.evaluation.outputs import _shown
from libraries.evaluation.report import _headline
from tests.evaluation.test_since import answered

NAMES = ["cat", "dog"]


def measured(tested: testing.Tested, costs: Costs, *, is_averaging: bool = False) -> dict[str, Any]:
    found = metrics(tested.labels, tested.probabilities, predictions=tested.predictions, names=NAMES)
    return {**found, "costs": cost_metrics(tested, costs, is_averaging=is_averaging)}


def answered_by(costs: Costs, p_of_dog: list[float], labels: list[int]) -> testing.Tested:
    p = np.stack([1 - np.array(p_of_dog), p_of_dog], axis=1).astype(np.float32)
    plain = answered(labels, [0] * len(labels))
    return testing.Tested(
        NAMES, plain.examples, plain.labels, plain.embeddings, p, p, [],
        answers=costs.answers(p), asked=None if costs.ask is None else costs.asks(p),
    )  # fmt: skip


def test_costs_are_those_of_the_images() -> None:
    costs = Costs.of([("dog", "cat", 10.0), ("cat", "dog", 2.0), ("*", "ask", 1.0)], NAMES, unit="EUR")
    labels = [1, 1, 0, 0, 0]
    tested = answered_by(costs, [0.95, 0.3, 0.05, 0.01, 0.6], labels)
    # the costs expected of cat are 10 p, of dog 2 (1 - p), of asking 1: dog, dog or rather ask, cat, cat, dog
    assert tested.predictions.tolist() == [1, 1, 0, 0, 1]
    assert tested.asked is not None and tested.asked.tolist() == [False, True, False, False, False]
    found = measured(tested, costs)
    told = found["costs"]
    assert told["answers"] == pytest.approx((0 + 1 + 0 + 0 + 2) / 5)
    assert told["most_probable"] == pytest.approx((0 + 10 + 0 + 0 + 2) / 5), "the second is most probably a cat"
    assert told["saved"] == pytest.approx(9 / 5)
    assert (told["always_the_same"], told["always_the_same_label"]) == (pytest.approx(6 / 5), "dog")
    assert (told["always_asking"], told["asked"], told["accuracy_of_answered"]) == (1, 0.2, 0.75)
    assert found["overall_accuracy"] == 0.8, "of all answers, asked or not"
    assert sentences(found) == [
        "By your costs, 100 images like these cost 60 EUR. The most probable labels would cost 240 EUR: 180 EUR are "
        f"saved (95% interval {180 - 100 * told['margin']:.3g} to {180 + 100 * told['margin']:.3g}: it may be chance). "
        "Always saying ‘dog’ would cost 120 EUR.",
        "A person would be asked about 20.0% of the images; of the others, 75.0% are right. Asking about all of them "
        "would cost 100 EUR.",
    ]
    figure = cost_figure(found)
    bars = [bar.get_width() for bar in figure.axes[0].patches]
    assert bars == pytest.approx([120, 100, 240, 60])


def test_for_the_class_averaged_accuracy_that_is_told() -> None:
    labels = [0] * 8 + [1] * 2
    costs = Costs.averaging(np.array(labels), NAMES)
    tested = answered_by(costs, [0.1] * 7 + [0.4, 0.4, 0.9], labels)
    found = measured(tested, costs, is_averaging=True)
    assert sentences(found) == [
        "The answers aim at the class-averaged accuracy, which is 93.8%; that of the most probable labels would be "
        "75.0%."
    ]
    assert found["class_averaged_accuracy"] == pytest.approx((7 / 8 + 1) / 2)


def test_what_is_aimed_at_leads() -> None:
    costs = Costs.of([("dog", "cat", 10.0), ("cat", "dog", 2.0), ("*", "ask", 1.0)], NAMES, unit="EUR")
    found = measured(answered_by(costs, [0.95, 0.3, 0.05, 0.01, 0.6], [1, 1, 0, 0, 0]), costs)
    headline = _headline(found)
    assert (headline.value, headline.accuracy) == ("60 EUR", None)
    assert headline.compared == {"the most probable labels": "240", "asking about all": "100"}
    margin_of_answers = 100 * found["costs"]["answers_margin"]
    assert headline.interval == f"0–{60 + margin_of_answers:.3g}"

    averaging = Costs.averaging(np.array([0] * 8 + [1] * 2), NAMES)
    p_of_dog = [0.05] * 6 + [0.3, 0.3, 0.4, 0.6]
    found = measured(answered_by(averaging, p_of_dog, [0] * 8 + [1] * 2), averaging, is_averaging=True)
    headline = _headline(found)
    assert headline.accuracy == found["class_averaged_accuracy"] and headline.value == f"{headline.accuracy:.1%}"
    assert headline.words == "is the mean of the classes’ accuracies, on 10 test images"
    plain = {name: value for name, value in found.items() if name != "costs"}
    assert _headline(plain).accuracy == found["overall_accuracy"]


def test_where_a_person_is_asked_there_is_no_mistake_to_show() -> None:
    costs = Costs.of([("dog", "cat", 10.0), ("cat", "dog", 2.0), ("*", "ask", 1.0)], NAMES)
    tested = answered_by(costs, [0.95, 0.3, 0.05, 0.01, 0.6], [1, 0, 0, 0, 0])
    assert (tested.predictions != tested.labels).tolist() == [False, True, False, False, True]
    assert _shown(tested).tolist() == [4] and _shown(replace(tested, asked=None)).tolist() == [1, 4]


def test_without_costs_nothing_is_told() -> None:
    assert sentences({}) == []


def test_images_of_a_group_are_one_draw() -> None:
    differences = np.repeat(np.random.default_rng(0).normal(size=50), 4)
    alone, together = margin(differences, [""] * 200), margin(differences, [f"g{i // 4}" for i in range(200)])
    assert together == pytest.approx(2 * alone)
    assert alone == pytest.approx(1.96 * differences.std() / np.sqrt(200))
