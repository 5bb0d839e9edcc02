"""The search for settings: the better candidates stay, within the time, and the winner is not believed blindly."""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libraries.base.errors import ParameterError
from libraries.classifier.fitting import FitOptions
from libraries.data.dataset import Example
from libraries.data.images import ResizeRule
from libraries.evaluation import tuning_dnn
from libraries.evaluation.tuning import Expected, Race, Recipe, Trial, changes, rows_of, sentences
from libraries.evaluation.tuning_dnn import Training, Trainings
from libraries.evaluation.tuning_svm import CrossValidation, candidates
from libraries.network.pretrained import NetworkOptions
from libraries.network.training.recipe import RefineOptions
from libraries.network.training.task import Task

OPTIONS = FitOptions((0.01, 1.0), ("l2",), 3, 0, "equal", 0.05, 0.9)
PRESENT = NetworkOptions("EfficientNet_Lite0")


class World:
    """Embeddings whose use depends on the settings, and a clock that only they move.

    Attributes:
        signal: how much of a class is in an embedding, by the settings.
    """

    def __init__(self, count: int, signal: Callable[[NetworkOptions], float], *, seconds: float = 0.01) -> None:
        generator = np.random.default_rng(0)
        self.labels = generator.integers(0, 3, count)
        self.noise = generator.normal(0, 1, (count, 12)).astype(np.float32)
        self.examples = [
            Example(f"{'abc'[label]}/{i}.png", "abc"[label], "train", f"g{i // 2}", 8, 8, 1, str(i))
            for i, label in enumerate(self.labels.tolist())
        ]
        self.signal, self.seconds = signal, seconds
        self.now = 0.0
        self.known: set[tuple[NetworkOptions, str]] = set()
        self.seen: dict[NetworkOptions, int] = {}

    def embed(self, options: NetworkOptions, examples: list[Example]) -> tuple[np.ndarray, float | None]:
        new = [e for e in examples if (options, e.path) not in self.known]
        self.known |= {(options, e.path) for e in new}
        per_image = self.seconds * Trial(options).work
        self.now += len(new) * per_image
        self.seen[options] = self.seen.get(options, 0) + len(new)
        rows = [int(e.sha256) for e in examples]
        x = self.noise[rows].copy()
        x[:, :3] += self.signal(options) * np.eye(3, dtype=np.float32)[self.labels[rows]]
        return x, per_image if new else None

    def race(self, seconds: float, told: list[str] | None = None) -> Race:
        said = [] if told is None else told
        self.judge = CrossValidation(self.examples, self.embed, OPTIONS, clock=lambda: self.now)
        return Race(self.examples, self.judge, seconds=seconds, seed=0, told=said.append, clock=lambda: self.now)

    def expected(self, race: Race, finalists: list[Trial]) -> Expected | None:
        return self.judge.expected(finalists, last=race.last, fresh=race.fresh)


def all_of(networks: list[str] = [PRESENT.name]) -> list[Trial]:  # noqa: B006
    return candidates(PRESENT, networks=networks, resolutions=[224, 288], seed=0)


def test_all_combinations_are_candidates_and_the_present_settings_come_first() -> None:
    trials = all_of(["EfficientNet_Lite0", "x.onnx"])
    assert trials[0].is_present and trials[0].options == PRESENT
    assert len({trial.options for trial in trials}) == len(trials) == 2 * 3 * 3 * 2 + 2 * 3 * 3
    assert not any(trial.options.maps == 3 for trial in trials if trial.options.name == "x.onnx")
    assert [t.options for t in all_of()] == [t.options for t in all_of()], "the same order each time"


def test_the_best_wins_the_race_and_few_see_all_images() -> None:
    def signal(options: NetworkOptions) -> float:
        return 2.0 + (1.0 if options.mode == "crop" else 0) + (1.0 if options.views == 2 else 0)

    world, told = World(3200, signal), list[str]()
    trials = all_of()
    finalists = world.race(10_000, told).run(trials)
    assert finalists[0].options.mode == "crop" and finalists[0].options.views == 2
    assert 4 <= len(finalists) <= 5 and any(trial.is_present for trial in finalists)
    assert sum(count == 3200 for count in world.seen.values()) == len(finalists)
    rounds = [re.match(r"(.+): (\d+) candidates on ([\d,]+) training images", line) for line in told]
    found = [(m[1], int(m[2]), int(m[3].replace(",", ""))) for m in rounds if m]
    assert [name for name, _, _ in found] == ["Round 1", "Round 2", "Round 3", "Last round"]
    assert [count for _, count, _ in found] == [36, 19, 11, 5], "half of them, and the present settings"
    for (_, _, images), expected in zip(found, (200, 400, 800, 3200), strict=True):
        assert images == pytest.approx(expected, abs=30), "groups stay whole"
    rows = rows_of(trials)
    assert len(rows) == 36 and [row.images for row in rows] == sorted((row.images for row in rows), reverse=True)


@pytest.mark.parametrize("minutes", [1, 5, 15])
def test_it_ends_in_time(minutes: int) -> None:
    """With images that take as long as on two cores; the time of fitting is not counted here."""
    world = World(3000, lambda options: 2.0, seconds=0.005)
    race = world.race(60 * minutes)
    finalists = race.run(all_of(["EfficientNet_Lite0", "EfficientNet_Lite1", "EfficientNet_Lite2"]))
    world.expected(race, finalists)
    assert world.now <= 60 * minutes
    assert any(trial.is_present for trial in finalists) and len(finalists) >= (2 if minutes > 1 else 1)


def test_among_equals_the_winner_is_no_better_and_that_is_said() -> None:
    """All candidates are the present settings by another name: the best of them only looks better."""
    generator = np.random.default_rng(3)
    wobble: dict[Any, float] = {}
    world = World(1200, lambda options: 1.0)
    plain = world.embed

    def embed(options: NetworkOptions, examples: list[Example]) -> tuple[np.ndarray, float | None]:
        x, seconds = plain(options, examples)
        noise = np.random.default_rng(abs(hash(options)) % 2**32).normal(0, 1, (1200, 12)).astype(np.float32)
        wobble[options] = generator.random()
        return x + 0.5 * noise[[int(e.sha256) for e in examples]], seconds

    world.embed = embed  # type: ignore[method-assign]
    race = world.race(1e6)
    finalists = race.run(all_of())
    nested = world.expected(race, finalists)
    assert nested is not None
    assert nested.against.verdict == "same"
    told = " ".join(sentences(finalists, nested))
    assert finalists[0].is_present or "there is no good reason to change" in told


def test_images_of_earlier_rounds_judge_nobody() -> None:
    world = World(3200, lambda options: 2.0)
    race = world.race(10_000)
    finalists = race.run(all_of())
    nested = world.expected(race, finalists)
    assert nested is not None
    assert nested.images <= 3200 - 802, "a quarter has chosen the finalists"
    assert nested.images > 2000


def test_a_better_one_is_found_better_on_other_images() -> None:
    world = World(1600, lambda options: 3.0 if options.views == 8 else 1.0)
    race = world.race(1e6)
    finalists = race.run(all_of())
    nested = world.expected(race, finalists)
    assert nested is not None
    assert finalists[0].options.views == 8 and nested.against.verdict == "better"
    assert nested.expected == pytest.approx(nested.against.now)
    told = sentences(finalists, nested)
    assert told[0].startswith("The winner, chosen anew in each fold, is right for ")
    assert not any("no good reason" in line for line in told)


def test_the_lines_for_the_parameters() -> None:
    winner = NetworkOptions("EfficientNet_Lite2", 288, "crop", 2, 3)
    assert changes(Trial(PRESENT), Trial(winner)) == [
        'rf_pretrainedModelFilename = "EfficientNet_Lite2"',
        "rf_inputResolution = 288",
        'rf_resizeMode = "crop"',
        "rf_views = 2",
        "rf_featureMaps = 3",
    ]
    assert changes(Trial(winner), Trial(PRESENT))[-1] == "rf_featureMaps = None"
    assert changes(Trial(PRESENT), Trial(PRESENT)) == []


def test_few_images_have_one_round_of_a_few_candidates() -> None:
    told: list[str] = []
    World(150, lambda options: 2.0).race(1e6, told).run(all_of())
    assert [line for line in told if not line.startswith(" ")] == ["Last round: 8 candidates on 150 training images"]


def test_with_little_time_the_last_round_has_fewer_images_and_with_less_it_is_refused() -> None:
    told: list[str] = []
    world = World(3200, lambda options: 2.0)
    race = world.race(60, told)
    assert len(race.run(all_of())) > 1 and 200 <= len(race.last) < 3200
    assert world.now < 60
    with pytest.raises(ParameterError, match=r"tune_minutes = 0.1 is too short: .* needs about tune_minutes = \d+$"):
        World(3200, lambda options: 2.0).race(6).run(all_of())


class Kitchen:
    """Trainings whose accuracy depends on the recipe, on images of three classes."""

    def __init__(self, count: int, *, seconds: float = 0.001) -> None:
        self.examples = World(count, lambda options: 1.0).examples
        self.seconds, self.now, self.trained = seconds, 0.0, dict[tuple[Any, ...], set[str]]()

    def train(self, options: NetworkOptions, recipe: Recipe, examples: list[Example]) -> Training:
        self.trained[options, recipe, len(examples)] = {e.path for e in examples}
        seconds = self.seconds * recipe.epochs * len(examples)
        self.now += seconds + 1
        return Training(self.accuracy(recipe), seconds, 1.0)

    @staticmethod
    def accuracy(recipe: Recipe) -> float:
        return 0.6 + 0.2 * (recipe.rate == 1.5e-3) + 0.15 * (recipe.augmentation == "none")

    def answer(
        self, options: NetworkOptions, recipe: Recipe, trained_on: list[Example], examples: list[Example]
    ) -> tuple[list[str], float | None]:
        assert (options, recipe, len(trained_on)) in self.trained, "what the race has trained"
        generator = np.random.default_rng(0)
        right = generator.random(len(examples)) < self.accuracy(recipe)
        return [e.label if good else "z" for e, good in zip(examples, right, strict=True)], 0.004

    def judge(self) -> Trainings:
        return Trainings(self.examples, self.train, self.answer, seed=0)


RECIPE = Recipe(6, 5e-4, "photo", 5e-4, 0.5)


def recipes() -> list[Trial]:
    return tuning_dnn.candidates(PRESENT, RECIPE, networks=[PRESENT.name], resolutions=[224, 288], seed=0)


def test_recipes_are_drawn_near_the_present_one() -> None:
    trials = recipes()
    assert trials[0].is_present and (trials[0].options, trials[0].recipe) == (PRESENT, RECIPE)
    assert len({(trial.options, trial.recipe) for trial in trials}) == len(trials) == tuning_dnn.MOST
    assert all(trial.recipe is not None and trial.recipe.epochs in (2, 4, 6, 12) for trial in trials)
    own = tuning_dnn.candidates(
        PRESENT, Recipe(1, None, "photo", 5e-4, 0.5), networks=[PRESENT.name], resolutions=[224], seed=0
    )
    assert own[0].recipe is not None and own[0].recipe.rate is None and "own rates" in str(own[0])
    assert {trial.recipe.rate for trial in own if trial.recipe} == {None, *tuning_dnn.RATES}


def test_the_best_recipe_wins_and_images_kept_apart_say_what_to_expect() -> None:
    kitchen = Kitchen(2000)
    judge, trials = kitchen.judge(), recipes()
    race = Race(
        kitchen.examples, judge, rows=judge.rows, seconds=3600, seed=0, told=lambda line: None,
        clock=lambda: kitchen.now,
    )  # fmt: skip
    finalists = race.run(trials)
    assert kitchen.now <= 3600
    best = finalists[0].recipe
    assert best is not None and (best.rate, best.augmentation) == (1.5e-3, "none")
    expected = judge.expected(finalists, last=race.last)
    assert expected is not None and expected.against.verdict == "better"
    assert expected.images == pytest.approx(400, abs=10) and expected.expected == pytest.approx(0.95, abs=0.03)
    seen = set().union(*kitchen.trained.values())
    assert len(seen) == 2000 - expected.images, "what is kept apart trains nobody"
    assert finalists[0].row is not None and finalists[0].row.milliseconds == 4
    assert 'rf_augmentation = "none"' in changes(trials[0], finalists[0])
    assert "rf_lrPeak = 0.0015" in changes(trials[0], finalists[0])
    assert sentences(finalists, expected)[0].startswith("The winner is right for 9")


def test_a_recipe_with_rates_of_its_own_is_left_for_the_usual_schedule() -> None:
    own, other = Recipe(6, None, "photo", 5e-4, 0.5), Recipe(6, 5e-4, "photo", 5e-4, 0.5)
    assert changes(Trial(PRESENT, own), Trial(PRESENT, other)) == ['rf_lrPerMb = "auto"', "rf_lrPeak = 0.0005"]
    assert changes(Trial(PRESENT, other), Trial(PRESENT, own)) == []
    task = Task(
        Path("examples.csv"), Path("images"), 0.1, 99, 0, ResizeRule(64), RefineOptions(learning_rates=(0.1, 0.2)),
        Path("checkpoint"), "",
    )  # fmt: skip
    kept, changed = tuning_dnn.of_recipe(own, task), tuning_dnn.of_recipe(other, task)
    assert kept.options.learning_rates == (0.1, 0.2)
    assert (changed.options.learning_rates, changed.options.peak, changed.options.epochs) == (None, 5e-4, 6)
    assert (changed.most, changed.validation_fraction) == (None, 0.25), "of the images of a round, all"


def test_how_fast_it_is_is_measured_on_images_that_can_be_divided() -> None:
    """Of a hundred classes, a few images drawn at random would leave some with a single one, or none."""
    kitchen = Kitchen(2000)
    kitchen.examples = [
        Example(e.path, f"class {i % 100}", "train", e.path, 8, 8, 1, e.sha256) for i, e in enumerate(kitchen.examples)
    ]
    judge = kitchen.judge()
    race = Race(kitchen.examples, judge, rows=judge.rows, seconds=3600, seed=0, told=lambda line: None)
    race.run(recipes()[:2])
    by_path = {e.path: e.label for e in kitchen.examples}
    for (_, recipe, _), paths in kitchen.trained.items():
        members = Counter(by_path[path] for path in paths)
        assert len(members) == 100 and min(members.values()) >= 4, recipe


def test_images_that_are_all_alike_judge_nobody() -> None:
    """Two groups, as where a class is one object: every round sees both."""
    world = World(900, lambda options: 2.0 + options.views)
    world.examples = [
        Example(e.path, e.label, "train", f"g{i % 2}", 8, 8, 1, e.sha256) for i, e in enumerate(world.examples)
    ]
    race = world.race(1e6)
    finalists = race.run(all_of())
    assert world.expected(race, finalists) is None
    told = sentences(finalists, None)
    assert told == ["There are too few images that are not alike to tell whether the best is really better."]
