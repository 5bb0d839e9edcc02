"""The search for settings: the better candidates stay, within the time, and the winner is not believed blindly."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from libraries.classifier.fitting import FitOptions
from libraries.data.dataset import Example
from libraries.evaluation.tuning import Race, Trial, candidates, changes, rows_of, sentences
from libraries.network.pretrained import NetworkOptions

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
        return Race(self.examples, self.embed, OPTIONS, seconds=seconds, told=said.append, clock=lambda: self.now)


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
    race.nested(finalists)
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

    race = Race(world.examples, embed, OPTIONS, seconds=1e6, told=lambda line: None, clock=lambda: 0.0)
    finalists = race.run(all_of())
    nested = race.nested(finalists)
    assert nested is not None
    assert nested.against.verdict == "same"
    told = " ".join(sentences(finalists, nested))
    assert finalists[0].is_present or "there is no good reason to change" in told


def test_images_of_earlier_rounds_judge_nobody() -> None:
    world = World(3200, lambda options: 2.0)
    race = world.race(10_000)
    finalists = race.run(all_of())
    nested = race.nested(finalists)
    assert nested is not None
    assert nested.images <= 3200 - 802, "a quarter has chosen the finalists"
    assert nested.images > 2000


def test_a_better_one_is_found_better_on_other_images() -> None:
    world = World(1600, lambda options: 3.0 if options.views == 8 else 1.0)
    race = world.race(1e6)
    finalists = race.run(all_of())
    nested = race.nested(finalists)
    assert nested is not None
    assert finalists[0].options.views == 8 and nested.against.verdict == "better"
    assert nested.expected == pytest.approx(nested.against.now)
    told = sentences(finalists, nested)
    assert told[0].startswith("The winner, chosen anew in each fold, is right for ")
    assert not any("no good reason" in line for line in told)


def test_the_lines_for_the_parameters() -> None:
    winner = NetworkOptions("EfficientNet_Lite2", 288, "crop", 2, 3)
    assert changes(PRESENT, winner) == [
        'rf_pretrainedModelFilename = "EfficientNet_Lite2"',
        "rf_inputResolution = 288",
        'rf_resizeMode = "crop"',
        "rf_views = 2",
        "rf_featureMaps = 3",
    ]
    assert changes(winner, PRESENT)[-1] == "rf_featureMaps = None"
    assert changes(PRESENT, PRESENT) == []


def test_few_images_have_one_round() -> None:
    told: list[str] = []
    World(150, lambda options: 2.0).race(1e6, told).run(all_of())
    assert [line for line in told if not line.startswith(" ")] == ["Last round: 5 candidates on 150 training images"]


def test_images_that_are_all_alike_judge_nobody() -> None:
    """Two groups, as where a class is one object: every round sees both."""
    world = World(900, lambda options: 2.0 + options.views)
    world.examples = [
        Example(e.path, e.label, "train", f"g{i % 2}", 8, 8, 1, e.sha256) for i, e in enumerate(world.examples)
    ]
    race = world.race(1e6)
    finalists = race.run(all_of())
    assert race.nested(finalists) is None
    told = sentences(finalists, None)
    assert told == ["There are too few images that are not alike to tell whether the best is really better."]
