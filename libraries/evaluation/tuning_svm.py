"""Candidates for an SVM on a network as it is: networks, resolutions, fits, views, feature maps; judged by embeddings.

Each is cross-validated, C and the normalisation chosen within. What to expect of the winner is found nested: in each of
some folds, the best of the finalists by the other folds answers for the images of the fold.
"""

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from libraries.base.arrays import Bool, Float32, Int
from libraries.classifier.cross_validation import NEVER_LEFT_OUT, assign_folds
from libraries.classifier.fitting import FitOptions, cross_validate
from libraries.classifier.labelled import LabelledEmbeddings
from libraries.data.dataset import Example
from libraries.data.images import ResizeMode
from libraries.evaluation.paired import difference
from libraries.evaluation.tuning import LEAST, Expected, Trial, TrialRow
from libraries.network.pretrained import NetworkOptions

FOLDS = 5
GROWTH = 0.8  # power of the number of images with which the time of fitting grew, from 250 to 3,000 of them
LEAST_FRESH = 10  # groups that have had no say
MODES: tuple[ResizeMode, ...] = ("pad", "crop", "stretch")
VIEWS, MAPS = (1, 2, 8), (1, 3)

Embed = Callable[[NetworkOptions, list[Example]], tuple[Float32, float | None]]
"""A network and examples → embeddings [N, D], and seconds per image if some were computed."""


def candidates(
    present: NetworkOptions, *, networks: Sequence[str], resolutions: Sequence[int], seed: int
) -> list[Trial]:
    """All combinations in random order, the present settings first."""
    found = [Trial(present, is_present=True)]
    sizes = sorted({present.size, *resolutions})
    for name, size, mode, views, maps in itertools.product(networks, sizes, MODES, VIEWS, MAPS):
        if maps == 1 or name.startswith("EfficientNet_Lite"):
            graph = present.graph if name == present.name else type(present.graph)()
            found.append(Trial(NetworkOptions(name, size, mode, views, maps, graph)))
    order = np.random.default_rng(seed).permutation(len(found) - 1) + 1
    return [found[0], *(found[i] for i in order.tolist() if found[i].options != present)]


class CrossValidation:
    """The judge of these candidates.

    Args:
        examples: training images.
        embed: runs a network over some of them.
        options: how SVMs are fitted.
        clock: seconds.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        embed: Embed,
        options: FitOptions,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._examples, self._embed, self._options, self._clock = list(examples), embed, options, clock
        self._labels = np.unique([example.label for example in examples], return_inverse=True)[1]
        self._groups = np.unique([example.group for example in examples], return_inverse=True)[1]
        self._names = sorted({example.label for example in examples})
        self._per_work: list[float] = []  # seconds of embedding an image, by work
        self._fitted = 0.5, LEAST  # seconds of fitting, to so many images

    def measure(self, trial: Trial, rows: Int) -> None:
        """Judge it on these images."""
        self.judge(trial, rows)

    def seconds(self, trial: Trial, images: int, *, last: bool = False) -> float:
        """For embedding these images and fitting SVMs."""
        seconds, fitted_to = self._fitted
        fitting: float = seconds * (images / fitted_to) ** GROWTH
        return images * self._embedding_seconds(trial) + (2 + FOLDS if last else 1) * fitting

    def _embedding_seconds(self, trial: Trial) -> float:
        if trial.seconds is not None:
            return trial.seconds
        usual = float(np.median(self._per_work)) if self._per_work else 0.006
        return usual * trial.work

    def judge(self, trial: Trial, rows: Int) -> TrialRow:
        """Cross-validate it."""
        x = self._embedded(trial, rows)
        begun = self._clock()
        result, _ = cross_validate(self._data(rows, x), self._options)
        seconds, fitted_to = self._fitted
        is_same_round = len(rows) == fitted_to
        self._fitted = max(self._clock() - begun, seconds if is_same_round else 0.0), len(rows)
        best = result.rows[result.best]
        return TrialRow.of(
            trial,
            images=len(rows),
            accuracy=best.validation_accuracy or 0.0,
            cost=best.validation_cost,
            normalisation=best.normalisation,
            C=best.C,
            milliseconds=1000 * self._embedding_seconds(trial),
        )

    def _embedded(self, trial: Trial, rows: Int) -> Float32:
        x, seconds = self._embed(trial.options, [self._examples[row] for row in rows.tolist()])
        if seconds is not None:
            trial.seconds = seconds
            self._per_work.append(seconds / trial.work)
        return x

    def _data(self, rows: Int, x: Float32) -> LabelledEmbeddings:
        examples = [replace(self._examples[row], split="train") for row in rows.tolist()]
        return LabelledEmbeddings.of(examples, x, None, seen=(), names=self._names)

    def expected(
        self, finalists: list[Trial], *, last: Int, fresh: Bool, progress: Callable[[], object] = lambda: None
    ) -> Expected | None:
        """Judge the choice among the finalists on images that have had no say; None: there are too few.

        Args:
            last, fresh: of the race.
            progress: called len(finalists) * FOLDS times.
        """
        labels, groups = self._labels[last], np.unique(self._groups[last], return_inverse=True)[1]
        judging = np.flatnonzero(fresh[last])
        if len(np.unique(groups[judging])) < LEAST_FRESH:
            return None
        x = [self._embedded(trial, last) for trial in finalists]
        fold_of = np.full(len(last), NEVER_LEFT_OUT)
        seed = self._options.seed
        fold_of[judging] = assign_folds(labels[judging], folds=FOLDS, groups=groups[judging], seed=seed)
        chosen_right, present_right = np.full((2, len(last)), np.nan)
        for fold in np.unique(fold_of[fold_of != NEVER_LEFT_OUT]):
            out = fold_of == fold
            kept, losses, right = np.flatnonzero(~out), [], []
            for of_trial in x:
                result, costs = cross_validate(self._data(last[kept], of_trial[kept]), self._options)
                losses.append(result.rows[result.best].loss)
                scores = result.models[result.best].scores(of_trial[out])
                right.append(result.calibrations[result.best].labels(scores, costs) == labels[out])
                progress()
            chosen_right[out] = right[int(np.argmin(losses))]
            present_right[out] = right[next(i for i, trial in enumerate(finalists) if trial.is_present)]
        tested = np.isfinite(chosen_right)
        if not tested.any():
            return None
        then, now = present_right[tested], chosen_right[tested]
        groups = np.unique(groups[tested], return_inverse=True)[1]
        against = difference("all", "", then, now, groups, unit=1.0, rng=np.random.default_rng(seed))
        own = 0.0 if finalists[0].row is None else finalists[0].row.accuracy
        words = "The winner, chosen anew in each fold,"
        return Expected(int(tested.sum()), words, float(now.mean()), against, own - float(now.mean()))
