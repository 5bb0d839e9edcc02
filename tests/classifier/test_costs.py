"""What mistakes cost: the table, the answer that costs least, and the C that is chosen by it."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libraries.base.errors import InputError, MissingInput
from libraries.classifier.costs import Costs, answers, costs_of, read_costs
from libraries.classifier.sweep import sweep

NAMES = ["cat", "dog", "owl"]


def table(folder: Path, text: str) -> Path:
    path = folder / "costs.csv"
    path.write_text(text, encoding="utf-8")
    return path


def drawn(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(3), count).astype(np.float32)


def test_the_more_exact_row_counts(tmp_path: Path) -> None:
    rows = "label,answer,cost [minutes]\n*,*,1\n*,owl,2\ncat,*,3\ncat,dog,4\n*,ask,0.5\nowl,ask,0.25\n"
    costs = read_costs(table(tmp_path, rows), NAMES)
    assert costs.unit == "minutes"
    assert costs.matrix.tolist() == [[0, 4, 3], [1, 0, 2], [1, 1, 0]]
    assert costs.ask is not None and costs.ask.tolist() == [0.5, 0.5, 0.25]
    again = Costs.from_json(json.loads(json.dumps(costs.to_json())), NAMES)
    np.testing.assert_array_equal(again.matrix, costs.matrix)
    np.testing.assert_array_equal(again.ask, costs.ask)
    assert again.unit == "minutes" and again.rows == costs.rows


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_spreadsheets_table_is_read(tmp_path: Path, separator: str) -> None:
    text = "\ufeffLabel,Answer,Cost\r\n*,*,1\r\n\r\ndog, cat ,2.5\r\n".replace(",", separator)
    costs = read_costs(table(tmp_path, text), NAMES)
    assert costs.matrix.tolist() == [[0, 1, 1], [2.5, 0, 1], [1, 1, 0]] and costs.ask is None and costs.unit == ""


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "line 1: expected the header label,answer,cost"),
        ("label,answer\n*,*\n", "line 1: expected the header label,answer,cost"),
        ("label,answer,price\n*,*,1\n", "line 1: expected the header"),
        ("label,answer,cost [min\n*,*,1\n", "line 1: expected the header"),
        ("label,answer,cost\n*,*,1\nmouse,*,1\n", "line 3: 'mouse' is no class: they are cat, dog, owl, or *"),
        ("label,answer,cost\n*,mouse,1\n", "line 2: 'mouse' is no class: they are cat, dog, owl, or *, or ask"),
        ("label,answer,cost\ncat,cat,1\n", "line 2: 'cat' is the right answer to itself, which costs nothing"),
        ("label,answer,cost\n*,*,-1\n", "line 2: -1 is no cost: they are numbers from 0 on"),
        ("label,answer,cost\n*,*,nan\n", "line 2: nan is no cost"),
        ("label,answer,cost\n*,*,inf\n", "line 2: inf is no cost"),
        ("label,answer,cost\n*,*,much\n", "line 2: 'much' is no number"),
        ("label;answer;cost\n*;*;50,5\n", "line 2: '50,5' is no number: write 50.5 with a point"),
        (
            "label,answer,cost\n*,*,1,2\n",
            "line 2 has 4 cells instead of 3: label,answer,cost; a number is written with",
        ),
        ("label,answer,cost\n*,*,1\n*,*,2\n", "the cost of '*,*' is given twice"),
        ("label,answer,cost\ncat,*,1\n", "what the answer 'cat' to 'dog' costs is missing: add it, or *,*,1"),
        ("label,answer,cost\n*,*,1\ncat,ask,1\n", "what asking about 'dog' costs is missing: add it, or *,ask,1"),
        ('label,answer,cost\n"cat,*,1\n', "costs.csv"),
    ],
)
def test_a_wrong_table_is_refused_in_one_line(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(InputError) as caught:
        read_costs(table(tmp_path, text), NAMES)
    assert problem in str(caught.value) and len(str(caught.value).splitlines()) == 1
    with pytest.raises(MissingInput, match=r"the table of costs .* does not exist"):
        read_costs(tmp_path / "clasAveraged", NAMES)


@pytest.mark.parametrize("name", ["ask", "*"])
def test_a_class_of_a_name_that_means_something_else_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"a class is called '(ask|\*)', which means something else"):
        read_costs(table(tmp_path, "label,answer,cost\n*,*,1\n"), ["cat", name])
    with pytest.raises(InputError, match="which means something else"):
        costs_of("classAveraged", np.array([0, 1]), ["cat", name])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_no_other_answer_costs_less(seed: int) -> None:
    """Against the expected costs of every answer, one image and one class at a time."""
    generator = np.random.default_rng(seed)
    given_costs = generator.integers(0, 9, (3, 3)).astype(float)
    rows = [(NAMES[i], NAMES[j], given_costs[i, j]) for i in range(3) for j in range(3) if i != j]
    costs = Costs.of([*rows, ("*", "ask", 1.5)], NAMES)
    p = drawn(40, seed)
    chosen, asks = costs.answers(p), costs.asks(p)
    for image, (answer, asked) in enumerate(zip(chosen, asks, strict=True)):
        expected = [sum(p[image, i] * given_costs[i, j] for i in range(3) if i != j) for j in range(3)]
        assert expected[answer] == pytest.approx(min(expected), abs=1e-5)
        if abs(min(expected) - 1.5) > 1e-4:
            assert asked == (min(expected) > 1.5)


def test_equal_costs_make_the_most_probable_class_the_answer() -> None:
    p = drawn(1000)
    assert answers(p, Costs.of([("*", "*", 7.0)], NAMES)).tolist() == answers(p, None).tolist()
    assert costs_of("equal", np.array([0, 1]), NAMES) is None


def test_class_averaged_costs_weigh_probabilities_by_how_rare_the_class_is() -> None:
    labels = np.repeat([0, 1, 2], [80, 15, 5])
    costs = costs_of("classAveraged", labels, NAMES)
    assert costs is not None
    p = drawn(1000)
    assert costs.answers(p).tolist() == (p / [0.8, 0.15, 0.05]).argmax(axis=1).tolist()
    # what is paid on average is the class-averaged error, where the classes are as frequent as among the labels
    found = np.random.default_rng(1).integers(0, 3, 100)
    by_class = np.mean([(found[labels == k] != k).mean() for k in range(3)])
    assert costs.paid(labels, found, np.zeros(100, bool)).mean() == pytest.approx(by_class)


def test_what_is_paid() -> None:
    costs = Costs.of([("*", "*", 1.0), ("cat", "dog", 5.0), ("*", "ask", 0.5), ("owl", "ask", 2.0)], NAMES)
    labels, found, asked = np.array([0, 0, 1, 2, 2]), np.array([0, 1, 2, 0, 2]), np.array([0, 0, 0, 0, 1], bool)
    assert costs.paid(labels, found, asked).tolist() == [0, 5, 1, 1, 2]


def test_c_is_chosen_for_the_lowest_cost() -> None:
    """Of two overlapping classes, one five times as frequent, mistakes of the rare one cost ten times as much."""
    generator = np.random.default_rng(0)
    y = np.repeat([0, 1], [500, 100])
    x = generator.normal(0, 1, (600, 12)).astype(np.float32) + 0.9 * y[:, None]
    options = {"number_of_classes": 2, "c_values": [1e-4, 1e-2, 1.0, 100.0], "normalisations": ["standardise"]}
    costs = Costs.of([("rare", "often", 10.0), ("often", "rare", 1.0)], ["often", "rare"])
    plain, by_cost = sweep(x, y, **options), sweep(x, y, **options, costs=costs)
    assert all(row.validation_cost is None for row in plain.rows)
    losses = [row.validation_cost for row in by_cost.rows]
    assert losses[by_cost.best] == min(losses)

    def paid(found: np.ndarray) -> float:
        return float(costs.paid(y, found, np.zeros(600, bool)).mean())

    scores = by_cost.out_of_fold_scores[by_cost.best]
    calibration = by_cost.calibrations[by_cost.best]
    assert paid(calibration.labels(scores, costs)) == pytest.approx(losses[by_cost.best], abs=0.05)
    assert paid(calibration.labels(scores, costs)) < 0.8 * paid(calibration.labels(scores))
    found = calibration.labels(scores, costs)
    assert (found[y == 1] == 1).mean() > 0.9 > (plain.calibrations[plain.best].labels(scores)[y == 1] == 1).mean()


def test_examples_that_the_network_has_seen_are_never_judged() -> None:
    """Their embeddings, which tell their labels, would make any SVM look right."""
    generator = np.random.default_rng(0)
    y = generator.integers(0, 3, 400)
    x = generator.normal(0, 1, (400, 20)).astype(np.float32)
    seen = np.arange(400) < 280
    x[seen, :3] += 10 * np.eye(3, dtype=np.float32)[y[seen]]
    options = {"number_of_classes": 3, "c_values": [0.01, 1.0]}
    flattered, honest = sweep(x, y, **options), sweep(x, y, **options, seen=seen)
    assert flattered.rows[flattered.best].validation_accuracy > 0.7
    assert abs(honest.rows[honest.best].validation_accuracy - 1 / 3) < 0.1
    for scores in honest.out_of_fold_scores:
        np.testing.assert_array_equal(np.isnan(scores).any(axis=1), seen)
    everything = sweep(x, y, **options, seen=np.ones(400, bool))
    assert everything.rows[everything.best].validation_accuracy is None, "nothing is left to judge by"


def test_a_class_with_a_single_unseen_example_is_judged_by_it() -> None:
    y = np.repeat([0, 1], 60)
    x = np.random.default_rng(0).normal(0, 1, (120, 5)).astype(np.float32) + y[:, None]
    seen = np.ones(120, bool)
    seen[:30] = False
    seen[60] = False
    options = {"number_of_classes": 2, "c_values": [1.0], "normalisations": ["l2"]}
    found = sweep(x, y, **options, seen=seen)
    assert np.isfinite(found.out_of_fold_scores[0][60]).all()
    one_of_each = np.ones(120, bool)
    one_of_each[[7, 60]] = False
    found = sweep(x, y, **options, seen=one_of_each)
    assert np.flatnonzero(np.isfinite(found.out_of_fold_scores[0][:, 0])).tolist() == [7, 60]
    assert found.rows[0].validation_accuracy in (0.0, 0.5, 1.0)
    only_one = np.arange(120) != 7
    assert sweep(x, y, **options, seen=only_one).rows[0].validation_accuracy is None, "nothing is left to calibrate by"
