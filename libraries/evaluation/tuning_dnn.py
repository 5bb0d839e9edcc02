"""Candidates for a network that is refined: networks, resolutions, fits and recipes; judged by training them.

Each is trained on three quarters of the images of a round and judged by the others, which also choose its epoch, as in
step 2. A fifth of the training images is kept apart: the winner and the present settings answer for it at the end.
Recipes are drawn at random, near the present one: so few trainings fit into the time that nothing could be learnt from
earlier ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from libraries.base.arrays import Int
from libraries.classifier.cross_validation import assign_folds
from libraries.data.dataset import Example
from libraries.data.images import ResizeMode
from libraries.evaluation.paired import difference
from libraries.evaluation.tuning import Expected, Recipe, Trial, TrialRow, shown
from libraries.network.pretrained import NetworkOptions

if TYPE_CHECKING:
    from libraries.network.training.recipe import Augmentation
    from libraries.network.training.task import Task

VALIDATION = 0.25  # of the images of a round: in a tenth of 200, candidates would hardly differ
PARTS = 5  # of the training images one is kept apart
LEAST_JUDGING = 10  # groups in it
CHANGED = 0.4  # chance of each setting to differ from the present one
MOST = 200  # candidates
MODES: tuple[ResizeMode, ...] = ("pad", "crop", "stretch")
RATES = (5e-5, 1.5e-4, 5e-4, 1.5e-3)
EPOCHS = (1 / 3, 2 / 3, 2.0)  # times the present number
DECAYS, DROPOUTS = (0.0005, 0.05), (0.0, 0.2, 0.5)
AUGMENTATIONS = ("photo", "anyOrientation", "none")


@dataclass(frozen=True)
class Training:
    """What became of one.

    Attributes:
        accuracy: of the images that chose the epoch.
        seconds: of its epochs.
        rest: seconds that all else took, such as decoding; None: an earlier run has done it.
    """

    accuracy: float
    seconds: float
    rest: float | None


Train = Callable[[NetworkOptions, Recipe, list[Example]], Training]
Answer = Callable[[NetworkOptions, Recipe, list[Example], list[Example]], tuple[list[str], float | None]]
"""Settings, the examples that the network was trained on and others → their labels, and seconds for each image."""


def candidates(
    present: NetworkOptions,
    recipe: Recipe,
    *,
    networks: Sequence[str],
    resolutions: Sequence[int],
    seed: int,
) -> list[Trial]:
    """The present settings, and others that differ from them in some respects, in random order."""
    generator = np.random.default_rng(seed)
    epochs = sorted({max(1, round(recipe.epochs * times)) for times in EPOCHS} - {recipe.epochs})
    choices: dict[str, list[Any]] = {
        "name": [name for name in networks if name != present.name],
        "size": [size for size in resolutions if size != present.size],
        "mode": [mode for mode in MODES if mode != present.mode],
        "epochs": epochs,
        "rate": [rate for rate in RATES if rate != recipe.rate],
        "augmentation": [kind for kind in AUGMENTATIONS if kind != recipe.augmentation],
        "decay": [decay for decay in DECAYS if decay != recipe.decay],
        "dropout": [dropout for dropout in DROPOUTS if dropout != recipe.dropout],
    }
    found = {(present, recipe): None}
    for _ in range(10 * MOST):
        drawn = {
            name: others[generator.integers(len(others))]
            for name, others in choices.items()
            if generator.random() < CHANGED and others
        }
        network = {name: drawn.pop(name) for name in ("name", "size", "mode") if name in drawn}
        graph = type(present.graph)() if "name" in network else present.graph
        found[replace(present, **network, graph=graph), replace(recipe, **drawn)] = None
        if len(found) == MOST:
            break
    return [Trial(*settings, is_present=number == 0) for number, settings in enumerate(found)]


def of_recipe(recipe: Recipe, task: "Task") -> "Task":
    """The same task by this recipe, on all images of a round."""
    options = task.options
    if recipe.rate is not None:
        options = replace(options, learning_rates=None, peak=recipe.rate)
    options = replace(
        options,
        epochs=recipe.epochs,
        augmentation=cast("Augmentation", recipe.augmentation),
        l2=recipe.decay,
        dropout=recipe.dropout,
    )
    return replace(task, validation_fraction=VALIDATION, most=None, options=options)


class Trainings:
    """The judge of these candidates.

    Args:
        examples: training images.
        train: see `Train`; what it has made is found by `answer`.

    Attributes:
        rows: indices of the examples that candidates may be trained on; the others are kept apart.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        train: Train,
        answer: Answer,
        *,
        seed: int,
    ) -> None:
        self._examples, self._train, self._answer, self._seed = list(examples), train, answer, seed
        labels, groups = ([getattr(example, name) for example in examples] for name in ("label", "group"))
        apart = assign_folds(labels, folds=PARTS, groups=groups, seed=seed) == 0
        self._apart = np.flatnonzero(apart)
        self.rows: Int = np.flatnonzero(~apart)
        self._per_work: list[float] = []  # seconds of training on an image once, by work
        self._rests: list[float] = []  # seconds of all else

    def measure(self, trial: Trial, rows: Int) -> None:
        """Train for one epoch."""
        assert trial.recipe is not None
        self._trained(replace(trial, recipe=replace(trial.recipe, epochs=1)), rows)

    def seconds(self, trial: Trial, images: int, *, last: bool = False) -> float:
        """For training on them."""
        return images * trial.work * float(np.median(self._per_work)) + float(np.median(self._rests or [0.0]))

    def judge(self, trial: Trial, rows: Int) -> TrialRow:
        """Train it."""
        done = self._trained(trial, rows)
        return TrialRow.of(trial, images=len(rows), accuracy=done.accuracy, seconds=done.seconds)

    def _trained(self, trial: Trial, rows: Int) -> Training:
        assert trial.recipe is not None
        done = self._train(trial.options, trial.recipe, self._of(rows))
        self._per_work.append(done.seconds / (trial.work * len(rows)))
        if done.rest is not None:
            self._rests.append(done.rest)
        return done

    def _of(self, rows: Int) -> list[Example]:
        return [replace(self._examples[row], split="train") for row in rows.tolist()]

    def expected(
        self, finalists: list[Trial], *, last: Int, progress: Callable[[], object] = lambda: None
    ) -> Expected | None:
        """Let the finalists answer for the images that were kept apart; None: there are too few.

        Args:
            last: of the race.
            progress: called for each that is shown.
        """
        apart = self._of(self._apart)
        if len({example.group for example in apart}) < LEAST_JUDGING:
            return None
        right = []
        for trial in (judged := shown(finalists)):
            assert trial.recipe is not None and trial.row is not None
            labels, seconds = self._answer(trial.options, trial.recipe, self._of(last), apart)
            trial.row = replace(trial.row, milliseconds=None if seconds is None else 1000 * seconds)
            right.append(np.array([label == example.label for label, example in zip(labels, apart, strict=True)]))
            progress()
        now, then = right[0], right[next(i for i, trial in enumerate(judged) if trial.is_present)]
        groups = np.unique([example.group for example in apart], return_inverse=True)[1]
        rng = np.random.default_rng(self._seed)
        against = difference("all", "", then.astype(float), now.astype(float), groups, unit=1.0, rng=rng)
        own = 0.0 if finalists[0].row is None else finalists[0].row.accuracy
        return Expected(len(apart), "The winner", float(now.mean()), against, own - float(now.mean()))
