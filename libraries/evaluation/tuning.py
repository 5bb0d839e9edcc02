"""Which network, resolution, fit, views and feature maps suit the images, within a time that is given.

Successive halving (Jamieson & Talwalkar 2016, 'Non-stochastic best arm identification and hyperparameter optimization',
https://arxiv.org/abs/1502.07943): many candidates are cross-validated on few training images, the better half on twice
as many, and the last few on all. C and the normalisation are chosen within. Test images have no say.

The best of many looks better than it is. So the last few are judged once more, nested: in each fold the best of them by
the other folds answers for the images of the fold, which have had no say in any round. That is what to expect of the
winner, and it is compared with the present settings on the same images.
"""

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from libraries.base import figures
from libraries.base.arrays import Bool, Float32, Float64, Int
from libraries.base.console import table
from libraries.base.figures import BLUE, GRAY, INK
from libraries.base.tables import Column
from libraries.classifier.cross_validation import NEVER_LEFT_OUT, assign_folds
from libraries.classifier.fitting import FitOptions, cross_validate
from libraries.classifier.labelled import LabelledEmbeddings
from libraries.classifier.sweep import sample
from libraries.data.dataset import Example
from libraries.data.images import ResizeMode
from libraries.evaluation.paired import Difference, difference
from libraries.network.pretrained import NetworkOptions

SHARES = (1 / 16, 1 / 8, 1 / 4)  # of the training images, in the rounds before the last
LEAST, FEWEST = 200, 20  # images of a round, and of a class among them
TIME = (0.3, 0.15, 0.15)  # of the whole time that these rounds may take; the rest is for the last
DEAREST = 0.2  # of the whole time that a candidate may take for all images
LEAST_NESTED = 10  # groups that have had no say
FINALISTS = 4
FOLDS = 5
RESERVE = 0.85  # of the time that is left is planned for
MODES: tuple[ResizeMode, ...] = ("pad", "crop", "stretch")
VIEWS, MAPS = (1, 2, 8), (1, 3)
WORK = {"EfficientNet_Lite0": 1.0, "EfficientNet_Lite1": 1.7, "EfficientNet_Lite2": 2.4}  # before it is measured


@dataclass(frozen=True)
class TrialRow:
    """A row of tune.csv: a candidate, as far as it came."""

    network: Annotated[str, Column("rf_pretrainedModelFilename")]
    resolution: Annotated[int, Column("rf_inputResolution")]
    resize: Annotated[str, Column("rf_resizeMode")]
    views: Annotated[int, Column("rf_views")]
    maps: Annotated[int, Column("number of feature maps; 1 stands for rf_featureMaps = none")]
    images: Annotated[int, Column("training images that it was cross-validated on: more in each round")]
    accuracy: Annotated[float, Column("fraction of left-out images that are right")]
    cost: Annotated[float | None, Column("of the answers, on average; empty: mistakes have no costs")]
    normalisation: Annotated[str, Column("that was chosen")]
    C: Annotated[float, Column("that was chosen")]
    milliseconds: Annotated[float, Column("for an image, network and fit, on all cores")]


@dataclass
class Trial:
    """A candidate in the race.

    Attributes:
        is_present: whether these are the settings of now, which stay in the race.
        seconds: of embedding an image; None: not measured yet.
    """

    options: NetworkOptions
    is_present: bool = False
    row: TrialRow | None = None
    seconds: float | None = None

    @property
    def loss(self) -> float:
        """What is to be as small as possible."""
        if self.row is None:
            return float("inf")
        return -self.row.accuracy if self.row.cost is None else self.row.cost

    @property
    def work(self) -> float:
        """Roughly how long it takes, in units of EfficientNet-Lite0 at 224 pixels."""
        return WORK.get(self.options.name, 3.0) * (self.options.size / 224) ** 2 * self.options.views

    def __str__(self) -> str:
        o = self.options
        name = o.name.rpartition("/")[2]
        views, maps = (f"{count} {word}{'s' * (count > 1)}" for count, word in ((o.views, "view"), (o.maps, "map")))
        return f"{name}, {o.size} pixels, {o.mode}, {views}, {maps}"


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


@dataclass(frozen=True)
class Nested:
    """What to expect of the winner, on images that had no say in any round.

    Attributes:
        images: how many.
        expected: the fraction of them that is right.
        against: the winner against the present settings.
        flattery: by how much its own cross-validation is better.
    """

    images: int
    expected: float
    against: Difference
    flattery: float


class Race:
    """The search.

    Args:
        examples: N training images.
        embed: runs a network over some of them.
        options: how SVMs are fitted.
        seconds: that it may take.
        told: called with lines about each round.
        clock: seconds.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        embed: Embed,
        options: FitOptions,
        *,
        seconds: float,
        told: Callable[[str], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._examples, self._embed, self._options, self._told = list(examples), embed, options, told
        self._seconds, self._clock, self._started = seconds, clock, clock()
        self._labels = np.unique([example.label for example in examples], return_inverse=True)[1]
        self._groups = np.unique([example.group for example in examples], return_inverse=True)[1]
        self._names = sorted({example.label for example in examples})
        self._per_work: list[float] = []  # seconds of embedding an image, by work
        self._fit_seconds = 2e-3  # of fitting, by image
        self._fresh: Bool = np.ones(len(examples), bool)  # images that no round before the last has seen

    @property
    def _left(self) -> float:
        return self._seconds - (self._clock() - self._started)

    def run(self, trials: list[Trial]) -> list[Trial]:
        """The finalists, best first; every trial that came into the race has a row."""
        for number, (share, time_share) in enumerate(zip(SHARES, TIME, strict=True), 1):
            count = max(LEAST, round(share * len(self._examples)))
            if count >= len(self._examples) / 2:
                break
            seed = self._options.seed
            rows = np.flatnonzero(sample(self._labels, self._groups, most=count, seed=seed, fewest=FEWEST))
            if number == 1:
                self._embedded(trials[0], rows)  # which says how fast this machine is
                most = DEAREST * self._seconds
                trials = [t for t in trials if t.is_present or len(self._labels) * self._embedding_seconds(t) <= most]
            trials = self._affordable(trials, len(rows), self._seconds * time_share)
            self._round(f"Round {number}", trials, rows)
            self._fresh[np.isin(self._groups, self._groups[rows])] = False
            trials = _best(trials, -(-len(trials) // 2))
        trials = _best(trials, len(trials))
        trials = self._affordable(trials, len(self._examples), RESERVE * self._left, fits=2 + FOLDS)[: FINALISTS + 1]
        self._round("Last round", trials, np.arange(len(self._examples)))
        return sorted(trials, key=lambda trial: (trial.loss, trial.seconds or 0))

    def _affordable(self, trials: list[Trial], count: int, seconds: float, *, fits: int = 1) -> list[Trial]:
        """Those that can be done in this time, the first ones first, the present settings always."""
        chosen, spent = list[Trial](), 0.0
        for trial in sorted(trials, key=lambda trial: not trial.is_present):
            cost = count * (self._embedding_seconds(trial) + fits * self._fit_seconds)
            if trial.is_present or spent + cost <= seconds:
                chosen.append(trial)
                spent += cost
        return chosen

    def _embedding_seconds(self, trial: Trial) -> float:
        if trial.seconds is not None:
            return trial.seconds
        usual = float(np.median(self._per_work)) if self._per_work else 0.006
        return usual * trial.work

    def _round(self, title: str, trials: list[Trial], rows: Int) -> None:
        counted = f"{len(trials)} candidate{'s' * (len(trials) != 1)}"
        self._told(f"{title}: {counted} on {len(rows):,} training images")
        for trial in trials:
            x = self._embedded(trial, rows)
            begun = self._clock()
            result, _ = cross_validate(self._data(rows, x), self._options)
            self._fit_seconds = max(self._fit_seconds / 2, (self._clock() - begun) / len(rows))
            best, o = result.rows[result.best], trial.options
            trial.row = TrialRow(
                *(o.name, o.size, o.mode, o.views, o.maps, len(rows)),
                accuracy=best.validation_accuracy or 0.0,
                cost=best.validation_cost,
                normalisation=best.normalisation,
                C=best.C,
                milliseconds=1000 * self._embedding_seconds(trial),
            )
            self._told(f"  {trial.row.accuracy:.1%}  {trial}")

    def _embedded(self, trial: Trial, rows: Int) -> Float32:
        x, seconds = self._embed(trial.options, [self._examples[row] for row in rows.tolist()])
        if seconds is not None:
            trial.seconds = seconds
            self._per_work.append(seconds / trial.work)
        return x

    def _data(self, rows: Int, x: Float32) -> LabelledEmbeddings:
        examples = [replace(self._examples[row], split="train") for row in rows.tolist()]
        return LabelledEmbeddings.of(examples, x, None, seen=(), names=self._names)

    def nested(self, finalists: list[Trial], *, progress: Callable[[], object] = lambda: None) -> Nested | None:
        """Judge the choice among the finalists on images that have had no say; None: there are too few.

        Args:
            progress: called len(finalists) * FOLDS times.
        """
        everything = np.arange(len(self._examples))
        x = [self._embedded(trial, everything) for trial in finalists]
        fold_of = np.full(len(self._examples), NEVER_LEFT_OUT)
        fresh = np.flatnonzero(self._fresh)
        if len(np.unique(self._groups[fresh])) < LEAST_NESTED:
            return None
        fold_of[fresh] = assign_folds(
            self._labels[fresh], folds=FOLDS, groups=self._groups[fresh], seed=self._options.seed
        )
        chosen_right, present_right = np.full((2, len(everything)), np.nan)
        for fold in np.unique(fold_of[fold_of != NEVER_LEFT_OUT]):
            out = fold_of == fold
            kept, losses, right = np.flatnonzero(~out), [], []
            for of_trial in x:
                result, costs = cross_validate(self._data(kept, of_trial[kept]), self._options)
                losses.append(result.rows[result.best].loss)
                scores = result.models[result.best].scores(of_trial[out])
                right.append(result.calibrations[result.best].labels(scores, costs) == self._labels[out])
                progress()
            chosen_right[out] = right[int(np.argmin(losses))]
            present_right[out] = right[next(i for i, trial in enumerate(finalists) if trial.is_present)]
        tested = np.isfinite(chosen_right)
        if not tested.any():
            return None
        then, now = present_right[tested], chosen_right[tested]
        groups = np.unique(self._groups[tested], return_inverse=True)[1]
        against = difference("all", "", then, now, groups, unit=1.0, rng=np.random.default_rng(self._options.seed))
        own = 0.0 if finalists[0].row is None else finalists[0].row.accuracy
        return Nested(int(tested.sum()), float(now.mean()), against, own - float(now.mean()))


def _best(trials: list[Trial], count: int) -> list[Trial]:
    """The best of them, and the present settings."""
    ranked = sorted(trials, key=lambda trial: (trial.loss, trial.work))
    return ranked[:count] + [trial for trial in ranked[count:] if trial.is_present]


def sentences(finalists: list[Trial], nested: Nested | None) -> list[str]:
    """What has come out, and how far to believe it."""
    winner = finalists[0]
    if len(finalists) == 1:
        return ["There was no time to try anything else on all images: raise tune_minutes, or let nothing run beside."]
    if winner.is_present:
        return ["Nothing that was tried is better than the present settings."]
    if nested is None:
        return ["There are too few images that are not alike to tell whether the best is really better."]
    against = nested.against
    low, high = (100 * (against.gain + side * against.margin) for side in (-1, 1))
    told = [
        f"The winner, chosen anew in each fold, is right for {nested.expected:.1%} of {nested.images:,} images that "
        f"had no say; the present settings for {against.then:.1%}: {100 * against.gain:+.1f} points "
        f"({low:+.1f} to {high:+.1f}, p = {against.p:.2g})."
    ]
    if nested.flattery > 0:
        told.append(
            f"Its own cross-validation, {winner.row.accuracy if winner.row else 0:.1%}, flatters it by "
            f"{100 * nested.flattery:.1f} points: it is the best of many."
        )
    if against.verdict != "better":
        told.append("That may be chance: there is no good reason to change.")
    return told


def changes(present: NetworkOptions, winner: NetworkOptions) -> list[str]:
    """The lines of PARAMETERS.py that make the winner of the present settings."""
    lines = {
        "rf_pretrainedModelFilename": (f'"{present.name}"', f'"{winner.name}"'),
        "rf_inputResolution": (present.size, winner.size),
        "rf_resizeMode": (f'"{present.mode}"', f'"{winner.mode}"'),
        "rf_views": (present.views, winner.views),
        "rf_featureMaps": (present.maps if present.maps > 1 else None, winner.maps if winner.maps > 1 else None),
    }
    return [f"{name} = {now}" for name, (then, now) in lines.items() if then != now]


def results_table(trials: Sequence[Trial]) -> str:
    """The candidates that were tried on the most images, for the console."""
    rows = [
        (
            f"{trial}{' (now)' if trial.is_present else ''}",
            f"{trial.row.images:,}",
            f"{trial.row.accuracy:.1%}",
            *([] if trial.row.cost is None else [f"{trial.row.cost:.4g}"]),
            f"{trial.row.milliseconds:.1f}",
        )
        for trial in trials
        if trial.row is not None
    ]
    has_costs = any(trial.row is not None and trial.row.cost is not None for trial in trials)
    header = ["", "images", "cross-validated", *(["cost"] if has_costs else []), "ms/image"]
    return table("The last round", header, rows)


def figure_of(tried: Sequence[Trial], finalists: Sequence[Trial]) -> Figure:
    """Accuracy against time: large, blue and named those of the last round."""
    figure = figures.new_figure(8, 4.6 + 0.22 * len(finalists))
    axes = figure.subplots()
    last = {id(trial) for trial in finalists}

    def points(chosen: Sequence[Trial]) -> tuple[Float64, Float64]:
        rows = [trial.row for trial in chosen if trial.row is not None]
        return np.array([row.milliseconds for row in rows]), np.array([row.accuracy for row in rows])

    axes.plot(*points([t for t in tried if id(t) not in last]), "o", color=GRAY, markersize=4, alpha=0.5)
    for number, trial in enumerate(finalists, 1):
        (x,), (y,) = points([trial])
        said = [*(["the winner"] if number == 1 else []), *(["now"] if trial.is_present else [])]
        words = f" ({', '.join(said)})" if said else ""
        label = f"{number}  {trial}{words}"
        axes.plot(x, y, "o", color=BLUE, markersize=8, label=label)
        axes.annotate(str(number), (x, y), (7, 5), textcoords="offset points", color=INK)
    axes.set_xscale("log")
    for which in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        which(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.margins(y=0.12)
    axes.yaxis.set_major_formatter(figures.percent)
    axes.set(xlabel="milliseconds per image", ylabel="accuracy in cross-validation")
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.14), frameon=False, fontsize=9, handlelength=0.5)
    figures.tidy(axes)
    figures.write_title(axes, "Accuracy and time; gray: only tried on few images")
    return figure


def rows_of(trials: Sequence[Trial]) -> list[TrialRow]:
    """Of those that came into the race, the most images first, then the best."""
    rows: list[Any] = [trial.row for trial in sorted(trials, key=lambda trial: trial.loss) if trial.row is not None]
    return sorted(rows, key=lambda row: -row.images)
