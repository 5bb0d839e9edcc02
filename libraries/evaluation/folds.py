"""Every image tested once: K classifiers, each fitted without one of K folds, answer for the images of that fold.

Where the classifier is an SVM on a network that has not seen the images, the stored embeddings are all that is needed.
A network that is refined is trained anew for each fold (see `refined_folds`).
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np

from libraries.base.arrays import Bool, Float32, Int
from libraries.base.errors import InputError
from libraries.base.tables import Column
from libraries.classifier.calibration import Calibration, fit_calibration
from libraries.classifier.costs import read_costs
from libraries.classifier.cross_validation import NEVER_LEFT_OUT, SweepRow, assign_folds, groups_per_class
from libraries.classifier.decision import Decided
from libraries.classifier.fitting import FitOptions, fit_head, fit_svm
from libraries.classifier.labelled import LabelledEmbeddings
from libraries.data.dataset import Example
from libraries.evaluation.costs import PER
from libraries.evaluation.metrics import accuracy_per_class, confusion_matrix, log_loss, mean_of_known
from libraries.evaluation.testing import PredictionRow, Tested, prediction_rows
from libraries.evaluation.uncertainty import resampled_interval
from libraries.network.embedding_store import Features

MOST_FOLDS = 50


class FoldOutputs(NamedTuple):
    """What a fold's network says of all N images.

    Attributes:
        embedding: float32 [N, D].
        scores: float32 [N, K] of its own head; None: it has none, or it is not used.
        calibration: scores → probabilities; None: an SVM is to be fitted.
        names: K, in the order of the scores.
        seen: paths of the images that the network was trained on.
    """

    embedding: Float32
    scores: Float32 | None = None
    calibration: Calibration | None = None
    names: Sequence[str] | None = None
    seen: Collection[str] = ()


OfFold = Callable[[int, list[Example]], FoldOutputs]  # the fold, and all images with their sides in it


@dataclass(frozen=True)
class FoldRow:
    """A row of folds.csv: one classifier, on the images that it has not seen."""

    fold: Annotated[int, Column("number of the fold, from 1")]
    training_images: Annotated[int, Column("images that it was fitted to")]
    images: Annotated[int, Column("images that it was tested on")]
    accuracy: Annotated[float, Column("fraction of these that are right")]
    class_averaged_accuracy: Annotated[float, Column("mean of the classes' accuracies")]
    log_loss: Annotated[float, Column("of the calibrated probabilities")]
    cost: Annotated[float | None, Column("of the answers, or of asking, on average; empty: there is no table of costs")]
    normalisation: Annotated[str | None, Column("that was chosen; empty: the network's own head")]
    C: Annotated[float | None, Column("that was chosen")]


@dataclass(frozen=True)
class CrossRow(PredictionRow):
    """A row of predictions.csv: an image, and the answer of the classifier that has not seen it."""

    fold: Annotated[int, Column("number of the fold, from 1")] = 0


@dataclass(frozen=True)
class CrossTested:
    """The answers for all images that can be tested.

    Attributes:
        tested: without embeddings, as each fold may have a network of its own.
        fold: int [N], from 0.
        rows: one for each fold.
        untested: how many images are of a class that has no others.
        unit: of costs.
    """

    tested: Tested
    fold: Int
    rows: list[FoldRow]
    untested: int
    unit: str = ""

    def summary(self) -> dict[str, Any]:
        """Mean, standard deviation and interval of the folds' figures, for metrics.json."""
        share = float(np.mean([row.images / row.training_images for row in self.rows]))
        found: dict[str, Any] = {"number": len(self.rows), "untested_images": self.untested}
        has_costs = self.rows[0].cost is not None
        for name in ("accuracy", "class_averaged_accuracy", "log_loss", *(["cost"] if has_costs else [])):
            values = np.array([getattr(row, name) for row in self.rows])
            found[name] = {
                "mean": float(values.mean()),
                "std": float(values.std(ddof=1)),
                "interval": resampled_interval(values, test_share=share, most=1.0 if "accuracy" in name else 1e12),
            }
        if has_costs:
            found["cost"]["unit"] = self.unit
        return found

    def prediction_rows(self) -> list[CrossRow]:
        """The rows of predictions.csv."""
        return [
            CrossRow(**vars(row), fold=fold + 1)
            for row, fold in zip(prediction_rows(self.tested), self.fold.tolist(), strict=True)
        ]


def sentence(summary: dict[str, Any]) -> str:
    """The accuracy in words."""
    accuracy, averaged, cost = (summary.get(name) for name in ("accuracy", "class_averaged_accuracy", "cost"))
    assert accuracy is not None and averaged is not None
    low, high = (100 * bound for bound in accuracy["interval"])
    left_out = summary["untested_images"]
    rest = f" {left_out:,} more, whose class has no others, were not tested." if left_out else ""
    if cost is not None:
        lowest, highest = (PER * bound for bound in cost["interval"])
        paid = f"{PER * cost['mean']:.4g} {cost['unit']}".strip()
        rest += f" {PER} images cost {paid} (95% interval {lowest:.4g} to {highest:.4g})."
    return (
        f"Each image was tested once, by one of {summary['number']} classifiers that had not seen it: "
        f"{accuracy['mean']:.1%} are right (95% interval {low:.1f}–{high:.1f}%, which also counts that other "
        f"training images would have given other classifiers; standard deviation of the folds "
        f"{100 * accuracy['std']:.1f} points), on the mean of the classes {averaged['mean']:.1%}.{rest}"
    )


def deal(examples: Sequence[Example], *, folds: int, seed: int) -> Int:
    """The fold of each example, [N], by class, groups together; see `assign_folds`.

    Raises:
        InputError: there are too few images.
    """
    if not 2 <= folds <= MOST_FOLDS:
        raise InputError(f"--folds {folds}: 2 to {MOST_FOLDS} are possible")
    labels = [example.label for example in examples]
    if len({*labels}) < 2:
        raise InputError("there is nothing to tell apart: two classes need images")
    fold_of = assign_folds(labels, folds=folds, groups=[example.group for example in examples], seed=seed)
    if fold_of.max() < 1:
        raise InputError("there is nothing to test: every class has a single image")
    return fold_of


def cross_test(
    examples: Sequence[Example],
    fold_of: Int,
    of_fold: OfFold,
    options: FitOptions,
    *,
    folder: Path | None = None,
    told: Callable[[FoldRow], object] = lambda row: None,
) -> CrossTested:
    """Fit a classifier without each fold, and let it answer for that.

    Args:
        examples: N images.
        fold_of: int [N].
        of_fold: the network of a fold.
        options: how classifiers are fitted.
        folder: for temporary files, see `sweep`.
        told: called with each row.
    """
    names = sorted({example.label for example in examples})
    count = len(examples)
    probabilities = np.full((count, len(names)), np.nan, np.float32)
    costs = read_costs(options.costs, names) if isinstance(options.costs, Path) else None
    parts: list[tuple[Int, Decided]] = []
    rows: list[FoldRow] = []
    for fold in range(int(fold_of.max()) + 1):
        tested = np.flatnonzero(fold_of == fold)
        sides = [replace(e, split="test" if of == fold else "train") for e, of in zip(examples, fold_of, strict=True)]
        probabilities[tested], decided, chosen = _answered(sides, of_fold(fold, sides), names, options, folder)
        parts.append((tested, decided))
        truth = np.array([names.index(examples[i].label) for i in tested.tolist()])
        paid = None if costs is None else costs.paid(truth, decided.answers, _asked(decided))
        row = _row(fold, len(examples) - len(tested), truth, decided.answers, probabilities[tested], chosen)
        rows.append(replace(row, cost=None if paid is None else float(paid.mean())))
        told(rows[-1])
    kept = np.flatnonzero(fold_of != NEVER_LEFT_OUT)
    answered = _together(parts, count)
    return CrossTested(
        Tested(
            names=names,
            examples=[examples[i] for i in kept.tolist()],
            labels=np.array([names.index(examples[i].label) for i in kept.tolist()]),
            embeddings=[],
            scores=probabilities[kept],
            probabilities=probabilities[kept],
            left_out=[],
            unknown=None if answered.unknown is None else answered.unknown[kept],
            sets=None if answered.sets is None else answered.sets[kept],
            asked=None if answered.ask is None else answered.ask[kept],
            answers=answered.answers[kept],
        ),
        fold_of[kept],
        rows,
        untested=count - len(kept),
        unit="" if costs is None else costs.unit,
    )


def _answered(
    sides: list[Example], outputs: FoldOutputs, names: list[str], options: FitOptions, folder: Path | None
) -> tuple[Float32, Decided, SweepRow | None]:
    """Probabilities [M, K] and answers for the test images of a fold, in the order of `names`, and the SVM's row."""
    data = LabelledEmbeddings.of(
        sides, outputs.embedding, outputs.scores, seen=outputs.seen, names=outputs.names or names
    )
    chosen = None
    if outputs.calibration is None:
        fitted, result = fit_svm(data, options, folder=folder)
        chosen = result.rows[result.best]
    else:
        fitted = fit_head(data, outputs.calibration, options)
    tested = ~data.is_train
    of_head = None if outputs.scores is None else outputs.scores[tested]
    probabilities, decided = fitted.decide(outputs.embedding[tested], of_head)
    order = [data.names.index(name) for name in names]  # a head may have an order of its own
    sets = None if decided.sets is None else decided.sets[:, order]
    decided = replace(decided, answers=np.argsort(order)[decided.answers], sets=sets)
    return probabilities[:, order], decided, chosen


def _asked(decided: Decided) -> Bool:
    return np.zeros(len(decided.answers), bool) if decided.ask is None else decided.ask


def _row(
    fold: int, training: int, truth: Int, answers: Int, probabilities: Float32, chosen: SweepRow | None
) -> FoldRow:
    matrix = confusion_matrix(truth, answers, number_of_classes=probabilities.shape[1])
    return FoldRow(
        fold + 1,
        training,
        len(truth),
        float((answers == truth).mean()),
        mean_of_known(accuracy_per_class(matrix)) or 0.0,
        log_loss(truth, probabilities),
        None,
        None if chosen is None else chosen.normalisation,
        None if chosen is None else chosen.C,
    )


def _together(parts: Sequence[tuple[Int, Decided]], count: int) -> Decided:
    """The answers of all folds, [count]; what one of them cannot tell, nobody can."""

    def joined(name: str, shape: tuple[int, ...]) -> Bool | None:
        values = [getattr(decided, name) for _, decided in parts]
        if any(value is None for value in values):
            return None
        whole = np.zeros((count, *shape), bool)
        for (rows, _), value in zip(parts, values, strict=True):
            whole[rows] = value
        return whole

    answers = np.zeros(count, np.int64)
    for rows, decided in parts:
        answers[rows] = decided.answers
    sets = parts[0][1].sets
    return Decided(
        answers, joined("unknown", ()), joined("sets", () if sets is None else sets.shape[1:]), joined("ask", ())
    )


def of_stored(features: Features, *, names: Sequence[str] | None) -> OfFold:
    """The network of step 3, which has not seen the images, for every fold.

    Args:
        names: the classes of its own head, which is to be used; None: an SVM is fitted.
    """
    scores = features.scores
    if names is None or scores is None:
        return lambda fold, examples: FoldOutputs(features.embedding)

    def with_head(fold: int, examples: list[Example]) -> FoldOutputs:
        training = np.array([example.split == "train" for example in examples])
        labels = np.array([names.index(example.label) for example in examples])
        groups = [example.group for example, mine in zip(examples, training, strict=True) if mine]
        evidence = groups_per_class(labels[training], number_of_classes=len(names), groups=groups)
        calibration = fit_calibration(scores[training], labels[training], evidence=evidence)
        return FoldOutputs(features.embedding, scores, calibration, names)

    return with_head
