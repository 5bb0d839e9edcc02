"""Which settings suit the images, within a time that is given.

Successive halving (Jamieson & Talwalkar 2016, 'Non-stochastic best arm identification and hyperparameter optimization',
https://arxiv.org/abs/1502.07943): many candidates are judged on few training images, the better half on twice as many,
and the last few on all, or on as many as there is time for. Test images have no say. Who judges: `tuning_svm`,
`tuning_dnn`.

The best of many looks better than it is. So the winner, and the present settings, are judged once more on images that
have had no say in any round: that is what to expect.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from libraries.base import figures
from libraries.base.arrays import Bool, Float64, Int
from libraries.base.console import table
from libraries.base.errors import ParameterError
from libraries.base.figures import BLUE, GRAY, INK
from libraries.base.tables import Column
from libraries.classifier.sweep import sample
from libraries.data.dataset import Example
from libraries.evaluation.paired import Difference
from libraries.network.pretrained import NetworkOptions

SHARES = (1 / 16, 1 / 8, 1 / 4)  # of the training images, in the rounds before the last
LEAST, FEWEST = 200, 20  # images of a round, and of a class among them
TIME = (0.3, 0.15, 0.15)  # of the whole time that these rounds may take; the rest is for the last
DEAREST = 0.2  # of the whole time that judging a candidate may take in the last round
FINALISTS, COMPARED = 4, 2  # candidates of the last round, and how many of them must have time in it
UNTRIED = 7  # of a last round that is the only one: of more, on so few images, the luckiest would win
RESERVE = 0.85  # of the time that is left is planned for
WORK = {"EfficientNet_Lite0": 1.0, "EfficientNet_Lite1": 1.7, "EfficientNet_Lite2": 2.4}  # before it is measured


@dataclass(frozen=True)
class Recipe:
    """What differs between trainings of a network, see `RefineOptions`; as in PARAMETERS.py.

    Attributes:
        rate: the highest learning rate, of rf_lrPerMb = auto; None: rf_lrPerMb has a list of them.
    """

    epochs: int
    rate: float | None
    augmentation: str
    decay: float
    dropout: float

    def __str__(self) -> str:
        rate = "own rates" if self.rate is None else f"rate {self.rate:.2g}"
        return (
            f"{self.epochs} epoch{'s' * (self.epochs != 1)}, {rate}, {self.augmentation}, "
            f"decay {self.decay:g}, dropout {self.dropout:g}"
        )


@dataclass(frozen=True)
class TrialRow:
    """A row of tune.csv: a candidate, as far as it came."""

    network: Annotated[str, Column("rf_pretrainedModelFilename")]
    resolution: Annotated[int, Column("rf_inputResolution")]
    resize: Annotated[str, Column("rf_resizeMode")]
    views: Annotated[int, Column("rf_views")]
    maps: Annotated[int, Column("number of feature maps; 1 stands for rf_featureMaps = none")]
    epochs: Annotated[int | None, Column("rf_maxEpochs; this and the next four are empty for an SVM")]
    rate: Annotated[float | None, Column("rf_lrPeak; empty also where rf_lrPerMb is a list")]
    augmentation: Annotated[str | None, Column("rf_augmentation")]
    decay: Annotated[float | None, Column("rf_l2RegWeight")]
    dropout: Annotated[float | None, Column("rf_dropoutRate")]
    images: Annotated[int, Column("training images of its last round")]
    accuracy: Annotated[float, Column("fraction that is right of images that were left out among these")]
    cost: Annotated[float | None, Column("of the answers, on average; empty: it does not choose")]
    normalisation: Annotated[str | None, Column("that was chosen; empty: the network's own head")]
    C: Annotated[float | None, Column("that was chosen")]
    seconds: Annotated[float | None, Column("that the training took; empty: no network was trained")]
    milliseconds: Annotated[float | None, Column("for an image, network and fit, on all cores; empty: not measured")]

    @classmethod
    def of(cls, trial: "Trial", **found: Any) -> "TrialRow":
        """The row of a candidate, with what was found out."""
        o, recipe = trial.options, trial.recipe
        fields = ("epochs", "rate", "augmentation", "decay", "dropout")
        usual = {"cost": None, "normalisation": None, "C": None, "seconds": None, "milliseconds": None}
        settings: dict[str, Any] = {name: getattr(recipe, name, None) for name in fields}
        return cls(o.name, o.size, o.mode, o.views, o.maps, **settings, **(usual | found))


@dataclass
class Trial:
    """A candidate in the race.

    Attributes:
        recipe: how the network is trained; None: it is used as it is.
        is_present: whether these are the settings of now, which stay in the race.
        seconds: of embedding an image; None: not measured yet.
    """

    options: NetworkOptions
    recipe: Recipe | None = None
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
        """Roughly how long an image takes, in units of one pass through EfficientNet-Lite0 at 224 pixels."""
        passes = self.options.views if self.recipe is None else self.recipe.epochs
        return WORK.get(self.options.name, 3.0) * (self.options.size / 224) ** 2 * passes

    def __str__(self) -> str:
        o = self.options
        name = o.name.rpartition("/")[2]
        if self.recipe is not None:
            return f"{name}, {o.size} pixels, {o.mode}, {self.recipe}"
        views, maps = (f"{count} {word}{'s' * (count > 1)}" for count, word in ((o.views, "view"), (o.maps, "map")))
        return f"{name}, {o.size} pixels, {o.mode}, {views}, {maps}"


@dataclass(frozen=True)
class Expected:
    """What to expect of the winner, on images that had no say in any round.

    Attributes:
        images: how many.
        words: who was judged.
        expected: the fraction of them that is right.
        against: the winner against the present settings.
        flattery: by how much better it looks on those that chose it.
    """

    images: int
    words: str
    expected: float
    against: Difference
    flattery: float


class Judge(Protocol):
    """How good a candidate is, and how long it takes to find out."""

    def measure(self, trial: Trial, rows: Int) -> None:
        """Find out how fast this machine is, by some of these images."""

    def seconds(self, trial: Trial, images: int, *, last: bool = False) -> float:
        """How long judging takes on so many images, and with what follows the last round."""

    def judge(self, trial: Trial, rows: Int) -> TrialRow:
        """Find out how good it is on these training images."""


class Race:
    """The search.

    Args:
        examples: training images.
        judge: of candidates.
        seconds: that it may take.
        seed: of the samples.
        rows: indices of the N examples that may be used; None: all.
        told: called with lines about each round.
        clock: seconds.

    Attributes:
        last: indices of the examples of the last round.
        fresh: bool [N of all], examples that no round before the last has used.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        judge: Judge,
        *,
        seconds: float,
        seed: int,
        told: Callable[[str], object],
        rows: Int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._judge, self._seed, self._told = judge, seed, told
        self._rows = np.arange(len(examples)) if rows is None else rows
        self._labels = np.unique([example.label for example in examples], return_inverse=True)[1]
        self._groups = np.unique([example.group for example in examples], return_inverse=True)[1]
        self._seconds, self._clock, self._started = seconds, clock, clock()
        self.last = self._rows
        self.fresh: Bool = np.ones(len(examples), bool)

    @property
    def _left(self) -> float:
        return self._seconds - (self._clock() - self._started)

    def run(self, trials: list[Trial]) -> list[Trial]:
        """The finalists, best first; every trial that came into the race has a row.

        Raises:
            ParameterError: there is too little time to compare anything.
        """
        present, count = trials[0], len(self._rows)
        self._judge.measure(present, self._sample(min(LEAST, count)))
        for number, (wanted, of_time) in enumerate(_rounds(count), 1):
            in_the_end, _ = self._largest([present, present], (1 - sum(TIME)) * self._left)
            if wanted >= in_the_end / 2:
                break
            if number == 1:
                most = DEAREST * self._seconds
                trials = [t for t in trials if t.is_present or self._judge.seconds(t, in_the_end) <= most]
            rows = self._sample(wanted)
            trials = self._affordable(trials, len(rows), self._seconds * of_time)
            self._round(f"Round {number}", trials, rows)
            self.fresh[np.isin(self._groups, self._groups[rows])] = False
            trials = _best(trials, max(FINALISTS, -(-len(trials) // 2)))
        trials = trials[: 1 + UNTRIED] if present.row is None else trials
        others = [trial for trial in _best(trials, len(trials)) if not trial.is_present]  # without rows: by their work
        in_the_end, needed = self._largest([present, *others[: COMPARED - 1]], self._left)
        if present.row is not None:
            trials = _best(trials, FINALISTS)
        elif needed > self._left:
            raise ParameterError(
                f"tune_minutes = {self._seconds / 60:g} is too short: on this machine, comparing your present settings "
                f"with others on {in_the_end:,} images needs about tune_minutes = "
                f"{math.ceil((self._seconds - self._left + needed) / 60)}"
            )
        self.last = self._sample(in_the_end)
        trials = self._affordable(trials, len(self.last), RESERVE * self._left, last=True)
        self._round("Last round", trials, self.last)
        return sorted(trials, key=lambda trial: (trial.loss, trial.seconds or 0))

    def _sample(self, count: int) -> Int:
        labels, groups = self._labels[self._rows], np.unique(self._groups[self._rows], return_inverse=True)[1]
        return self._rows[sample(labels, groups, most=count, seed=self._seed, fewest=FEWEST)]

    def _largest(self, trials: list[Trial], seconds: float) -> tuple[int, float]:
        """On how many images these can be judged at last, all or LEAST at the least, and the seconds that it takes."""
        count = len(self._rows)
        while True:
            needed = sum(self._judge.seconds(trial, count, last=True) for trial in trials) / RESERVE
            if needed <= seconds or count <= LEAST:
                return count, needed
            count = max(LEAST, count // 2)

    def _affordable(self, trials: list[Trial], count: int, seconds: float, *, last: bool = False) -> list[Trial]:
        """Those that can be done in this time, the first ones first, the present settings always."""
        chosen, spent = list[Trial](), 0.0
        for trial in sorted(trials, key=lambda trial: not trial.is_present):
            cost = self._judge.seconds(trial, count, last=last)
            if trial.is_present or spent + cost <= seconds:
                chosen.append(trial)
                spent += cost
        return chosen

    def _round(self, title: str, trials: list[Trial], rows: Int) -> None:
        counted = f"{len(trials)} candidate{'s' * (len(trials) != 1)}"
        self._told(f"{title}: {counted} on {len(rows):,} training images")
        for trial in trials:
            trial.row = self._judge.judge(trial, rows)
            self._told(f"  {trial.row.accuracy:.1%}  {trial}")


def _rounds(count: int) -> list[tuple[int, float]]:
    """Images, and the share of the time, of the rounds before the last."""
    found: dict[int, float] = {}
    for share, of_time in zip(SHARES, TIME, strict=True):
        images = max(LEAST, round(share * count))
        found[images] = found.get(images, 0.0) + of_time
    return list(found.items())


def _best(trials: list[Trial], count: int) -> list[Trial]:
    """The best of them, and the present settings."""
    ranked = sorted(trials, key=lambda trial: (trial.loss, trial.work))
    return ranked[:count] + [trial for trial in ranked[count:] if trial.is_present]


def shown(finalists: list[Trial]) -> list[Trial]:
    """The first ones of the finalists, and the present settings."""
    return [trial for place, trial in enumerate(finalists) if place <= FINALISTS or trial.is_present]


def sentences(finalists: list[Trial], found: Expected | None) -> list[str]:
    """What has come out, and how far to believe it."""
    winner = finalists[0]
    if len(finalists) == 1:
        return ["There was no time to try anything else on all images: raise tune_minutes, or let nothing run beside."]
    if winner.is_present:
        return ["Nothing that was tried is better than the present settings."]
    if found is None:
        return ["There are too few images that are not alike to tell whether the best is really better."]
    against = found.against
    low, high = (100 * (against.gain + side * against.margin) for side in (-1, 1))
    told = [
        f"{found.words} is right for {found.expected:.1%} of {found.images:,} images that "
        f"had no say; the present settings for {against.then:.1%}: {100 * against.gain:+.1f} points "
        f"({low:+.1f} to {high:+.1f}, p = {against.p:.2g})."
    ]
    if found.flattery > 0:
        told.append(
            f"The {winner.row.accuracy if winner.row else 0:.1%} that chose it flatter it by "
            f"{100 * found.flattery:.1f} points: it is the best of many."
        )
    if against.verdict != "better":
        told.append("That may be chance: there is no good reason to change.")
    return told


def changes(present: Trial, winner: Trial) -> list[str]:
    """The lines of PARAMETERS.py that make the winner of the present settings."""
    then, now = _lines(present), _lines(winner)
    return [f"{name} = {value}" for name, value in now.items() if value is not None and value != then[name]]


def _lines(trial: Trial) -> dict[str, str | None]:
    """The settings by their names, as in PARAMETERS.py; None: it stays as it is."""
    o, recipe = trial.options, trial.recipe
    lines: dict[str, str | None] = {
        "rf_pretrainedModelFilename": f'"{o.name}"',
        "rf_inputResolution": str(o.size),
        "rf_resizeMode": f'"{o.mode}"',
        "rf_views": str(o.views),
        "rf_featureMaps": str(o.maps if o.maps > 1 else None),
    }
    if recipe is not None:
        lines |= {
            "rf_maxEpochs": str(recipe.epochs),
            "rf_lrPerMb": None if recipe.rate is None else '"auto"',
            "rf_lrPeak": None if recipe.rate is None else f"{recipe.rate:.2g}",
            "rf_augmentation": f'"{recipe.augmentation}"',
            "rf_l2RegWeight": f"{recipe.decay:g}",
            "rf_dropoutRate": f"{recipe.dropout:g}",
        }
    return lines


def results_table(trials: Sequence[Trial]) -> str:
    """The finalists, for the console."""
    columns: dict[str, Callable[[TrialRow], str | None]] = {
        "images": lambda row: f"{row.images:,}",
        "accuracy": lambda row: f"{row.accuracy:.1%}",
        "cost": lambda row: None if row.cost is None else f"{row.cost:.4g}",
        "training [s]": lambda row: None if row.seconds is None else f"{row.seconds:.0f}",
        "ms/image": lambda row: None if row.milliseconds is None else f"{row.milliseconds:.1f}",
    }
    shown = [(trial, trial.row) for trial in trials if trial.row is not None]
    columns = {name: cell for name, cell in columns.items() if any(cell(row) for _, row in shown)}
    rows = [
        [f"{trial}{' (now)' if trial.is_present else ''}", *(cell(row) or "" for cell in columns.values())]
        for trial, row in shown
    ]
    return table("The last round", ["", *columns], rows)


def figure_of(tried: Sequence[Trial], finalists: Sequence[Trial]) -> Figure:
    """Accuracy against time, of training where networks were trained: large, blue and named the finalists."""
    figure = figures.new_figure(8, 4.6 + 0.22 * len(finalists))
    axes = figure.subplots()
    last, is_trained = {id(trial) for trial in finalists}, finalists[0].recipe is not None

    def points(chosen: Sequence[Trial]) -> tuple[Float64, Float64]:
        rows = [trial.row for trial in chosen if trial.row is not None]
        times = [1000 * (row.seconds or 0) / row.images if is_trained else row.milliseconds for row in rows]
        return np.array(times, float), np.array([row.accuracy for row in rows])

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
    time = "seconds of training on 1,000 images" if is_trained else "milliseconds per image"
    axes.set(xlabel=time, ylabel="accuracy on images left out")
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.14), frameon=False, fontsize=9, handlelength=0.5)
    figures.tidy(axes)
    figures.write_title(axes, "Accuracy and time; gray: others that were tried")
    return figure


def rows_of(trials: Sequence[Trial]) -> list[TrialRow]:
    """Of those that came into the race, the most images first, then the best."""
    rows: list[Any] = [trial.row for trial in sorted(trials, key=lambda trial: trial.loss) if trial.row is not None]
    return sorted(rows, key=lambda row: -row.images)
