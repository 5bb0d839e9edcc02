"""A classifier on embeddings, as script 4 fits it: an SVM or the network's own head, with thresholds and costs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from libraries.base.arrays import Bool, Float32, as_slice
from libraries.classifier.calibration import Calibration
from libraries.classifier.costs import Costs, costs_of
from libraries.classifier.decision import Decided, Decision
from libraries.classifier.labelled import LabelledEmbeddings
from libraries.classifier.svm import LinearModel
from libraries.classifier.sweep import Sweep, sweep
from libraries.classifier.thresholds import fit_trust
from libraries.classifier.trust import Trust


@dataclass(frozen=True)
class FitOptions:
    """What is to be fitted.

    Attributes:
        c_values, normalisations, folds, seed: see `sweep`.
        costs: the parameter.
        unknown_rate, coverage: see `Trust`.
    """

    c_values: Sequence[float]
    normalisations: Sequence[str]
    folds: int
    seed: int
    costs: str | Path
    unknown_rate: float
    coverage: float


@dataclass(frozen=True)
class Fitted:
    """A classifier on embeddings.

    Attributes:
        calibration: scores → probabilities.
        linear: embeddings → scores; None: the scores are those of the network's own head.
    """

    calibration: Calibration
    trust: Trust
    costs: Costs | None
    linear: LinearModel | None = None

    @property
    def decision(self) -> Decision:
        """How its probabilities become answers."""
        return Decision(self.trust.unknown_limits, self.trust.set_limits, self.costs)

    def decide(self, embeddings: Float32, scores: Float32 | None = None) -> tuple[Float32, Decided]:
        """Probabilities [N, K] and answers.

        Args:
            embeddings: float32 [N, D].
            scores: float32 [N, K] of the network's own head, if there is no SVM.
        """
        scores = scores if self.linear is None else self.linear.scores(embeddings)
        if scores is None:
            raise ValueError("neither an SVM nor the scores of a head")
        model = self.trust.strangeness
        strange = None if model is None else model.score(embeddings, self.calibration.logits(scores))
        probabilities = self.calibration.probabilities(scores)
        return probabilities, self.decision.decide(probabilities, strange)


def cross_validate(
    data: LabelledEmbeddings,
    options: FitOptions,
    *,
    folder: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Sweep, Costs | None]:
    """SVMs of every normalisation and C, and what mistakes cost; see `fit_svm`."""
    costs = costs_of(options.costs, data.training[1], data.names)
    result = sweep(
        *data.training,
        number_of_classes=len(data.names),
        c_values=options.c_values,
        normalisations=options.normalisations,
        folds=options.folds,
        groups=data.training_groups,
        seen=data.training_seen,
        costs=costs,
        seed=options.seed,
        folder=folder,
        progress=progress,
    )
    return result, costs


def fit_svm(
    data: LabelledEmbeddings,
    options: FitOptions,
    *,
    folder: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Fitted, Sweep]:
    """An SVM with the normalisation and C that cross-validation chooses, and its thresholds; and all that were tried.

    Args:
        folder, progress: see `sweep`.

    Raises:
        InputError, MissingInput: there is nothing to train on, or the table of costs is wrong.
    """
    result, costs = cross_validate(data, options, folder=folder, progress=progress)
    calibration = result.calibrations[result.best]
    rows = slice(None) if result.chosen_by.all() else result.chosen_by
    model = result.models[result.best]
    trust = _trust(data, rows, result.out_of_fold_scores[result.best], calibration, options, model)
    return Fitted(calibration, trust, costs, model), result


def fit_head(data: LabelledEmbeddings, calibration: Calibration, options: FitOptions) -> Fitted:
    """A network's own head: only thresholds are to be found, by the training images that it was not trained on.

    Raises:
        InputError, MissingInput: the table of costs is wrong.
    """
    if data.scores is None:
        raise ValueError("the network has no head")
    costs = costs_of(options.costs, data.training[1], data.names)
    scores = np.where(data.training_seen[:, None], np.nan, data.scores[as_slice(data.is_train)])
    return Fitted(calibration, _trust(data, slice(None), scores, calibration, options), costs)


def _trust(
    data: LabelledEmbeddings,
    rows: slice | Bool,
    scores: Float32,
    calibration: Calibration,
    options: FitOptions,
    model: LinearModel | None = None,
) -> Trust:
    """The thresholds, by those rows of the training images."""
    embeddings, labels = data.training
    groups = np.unique(data.training_groups, return_inverse=True)[1]
    return fit_trust(
        embeddings[rows],
        labels[rows],
        groups[rows],
        scores=scores,
        calibration=calibration,
        classifier=None if model is None else model.scores,
        unknown_rate=options.unknown_rate,
        coverage=options.coverage,
    )
