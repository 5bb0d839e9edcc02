"""Linear SVMs on embeddings, one class against the rest: on all examples, or on several parts of them at once."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from libraries.base import large_arrays
from libraries.base.arrays import Bool, Float32, Float64, Floating, Int
from libraries.base.pool import one_blas_thread, side_by_side
from libraries.classifier.squared_hinge import COLUMNS_AT_ONCE, ColumnBlock, Rows

ClassWeight = Literal["balanced"] | None

NORMALISATIONS = ("l2", "sqrt_l2", "standardise")
FEWEST_COLUMNS = 3  # of a block
ROWS_AT_ONCE = 8192  # bounds the temporary memory of normalising


@dataclass(frozen=True)
class LinearModel:
    """scores = normalise(embeddings) @ weights + bias.

    Attributes:
        normalisation: how an embedding x is prepared.
            'l2': x / |x|.
            'sqrt_l2': sign(x) * sqrt(|x|), then divided by its norm (power normalisation: Perronnin et al. 2010,
            'Improving the Fisher kernel'; on pooled activations, which are >= 0, the Hellinger kernel).
            'standardise': (x - mean) / scale.
        mean, scale: float32 [D]; of the training examples for 'standardise', else zeros and ones. A feature that never
            changes has scale 1.
        weights: float32 [D, K].
        bias: float32 [K].
    """

    normalisation: str
    mean: Float32
    scale: Float32
    weights: Float32
    bias: Float32

    @property
    def takes_root(self) -> bool:
        """Whether the signed square root comes first."""
        return self.normalisation == "sqrt_l2"

    @property
    def divides_by_norm(self) -> bool:
        """Whether rows are divided by their Euclidean norm, last."""
        return self.normalisation in ("l2", "sqrt_l2")

    def normalise(self, embeddings: Float32) -> Float32:
        """What the weights are multiplied with, float32 [N, D]."""
        x = np.sign(embeddings) * np.sqrt(np.abs(embeddings)) if self.takes_root else embeddings
        x = (x - self.mean) / self.scale
        if self.divides_by_norm:
            x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
        return x

    def scores(self, embeddings: npt.ArrayLike) -> Float32:
        """Embeddings [N, D] to scores, float32 [N, K]; two classes have the columns [-s, s]."""
        embeddings = np.asarray(embeddings, np.float32)
        result = np.empty((len(embeddings), len(self.bias)), np.float32)
        for rows in _chunks(len(embeddings)):
            result[rows] = self.normalise(embeddings[rows]) @ self.weights + self.bias
        return result


def fit_path(
    embeddings: Float32,
    labels: Int,
    *,
    number_of_classes: int,
    c_values: Sequence[float],
    normalisation: str,
    class_weight: ClassWeight = "balanced",
) -> Iterator[LinearModel]:
    """The models of ascending C values, one class against the rest, one column where there are two classes.

    Each is scikit-learn's LinearSVC(C, class_weight=class_weight) on the normalised embeddings, fitted to convergence.
    """
    examples = Examples(
        embeddings, labels, normalisation, number_of_classes=number_of_classes, class_weight=class_weight
    )
    parts = Parts(examples, [examples.everything], exactly=True)
    for c in c_values:
        parts.fit(c)
        yield parts.model(0)


class Examples:
    """Examples to train on, prepared once for the SVMs of any of their parts.

    Args:
        embeddings, labels: float32 [N, D] and int [N].
        class_weight: 'balanced' weighs the examples of each class by N / (classes * members), as scikit-learn does.
        folder: where they are kept if they may be too large for memory; see `large_arrays`.
    """

    def __init__(
        self,
        embeddings: Float32,
        labels: Int,
        normalisation: str,
        *,
        number_of_classes: int,
        class_weight: ClassWeight = "balanced",
        folder: Path | None = None,
    ) -> None:
        self.labels, self.number_of_classes, self.class_weight = labels, number_of_classes, class_weight
        mean, scale = _mean_and_scale(embeddings, normalisation)
        self.preparation = LinearModel(normalisation, mean, scale, weights=mean[:, None], bias=mean[:0])
        self.x = large_arrays.empty((len(embeddings), len(mean) + 1), folder=folder)
        self.x[:, -1] = 1  # stands for the bias
        for rows in _chunks(len(embeddings)):
            self.x[rows, :-1] = self.preparation.normalise(embeddings[rows])
        with one_blas_thread():
            self.rows = Rows(self.x)

    @property
    def everything(self) -> Bool:
        """The part that is all of them, [N]."""
        return np.ones(len(self.labels), bool)

    @property
    def first(self) -> int:
        """The class of the first column: of two classes, the second has the only one."""
        return 1 if self.number_of_classes == 2 else 0


class Parts:
    """SVMs on parts of the same examples, for one C after the other, whose columns share wide matrix products.

    Args:
        parts: bool [N] each, the examples that an SVM is trained on.
        start: where all of them begin; this does not change where they end, up to their accuracy.
        exactly: fitted to convergence. Otherwise until the gradient is 1e-2 of the loss's: as the penalty is |w|^2 / 2,
            such weights w are at most about 1e-2 of their length away from the minimum.
    """

    def __init__(
        self, examples: Examples, parts: Sequence[Bool], *, start: LinearModel | None = None, exactly: bool = False
    ) -> None:
        self._examples, self._parts = examples, parts
        self._dtype = np.dtype("float64" if exactly else "float32")
        self._start = None if start is None else np.vstack([start.weights, start.bias])[:, examples.first :]
        preparation = examples.preparation
        own = preparation.normalisation == "standardise" and not all(part.all() for part in parts)
        self._moved = _means_and_scales(examples.x, np.array(parts), preparation.scale) if own else None
        width = examples.number_of_classes - examples.first
        part_of, class_of = np.divmod(np.arange(len(parts) * width), width)
        class_of = class_of + examples.first
        count = max(1, min(2, len(part_of) // FEWEST_COLUMNS), -(-len(part_of) // COLUMNS_AT_ONCE))
        self._blocks: list[ColumnBlock | None] = [None] * count
        self._part_of, self._class_of = np.array_split(part_of, count), np.array_split(class_of, count)

    def fit(self, c: float) -> None:
        """Minimise, from the last solutions; quickest for ascending C."""

        def one(index: int) -> None:
            block = self._blocks[index]
            if block is None:
                block = self._blocks[index] = self._block(self._part_of[index], self._class_of[index])
            block.minimise(c)

        side_by_side([partial(one, index) for index in range(len(self._blocks))])

    def model(self, part: int) -> LinearModel:
        """The SVM of a part."""
        solution = self._both(self._of(part, lambda block: block.solution)).astype(np.float32)
        preparation = self._examples.preparation
        mean, scale = preparation.mean.astype(np.float64), preparation.scale.astype(np.float64)
        if self._moved is not None:
            mean, scale = mean + scale * self._moved[0][part, :-1], scale * self._moved[1][part, :-1]
        return LinearModel(
            preparation.normalisation,
            mean.astype(np.float32),
            scale.astype(np.float32),
            weights=solution[:-1],
            bias=solution[-1],
        )

    def scores(self, part: int) -> Float32:
        """Of all examples by the SVM of a part, [N, K]."""
        return self._both(self._of(part, lambda block: block.scores)).astype(np.float32)

    def _block(self, part_of: Int, class_of: Int) -> ColumnBlock:
        """The columns of these parts and classes, int [k] each."""
        labels, first = self._examples.labels, self._examples.first
        targets, weights = np.ones((2, len(labels), len(part_of)), self._dtype)
        weights[:] = 0
        for number in np.unique(part_of):
            mine = part_of == number
            part = self._parts[number]
            targets[np.ix_(part, mine)], weights[np.ix_(part, mine)] = binary_problems(
                labels[part],
                self._examples.number_of_classes,
                self._examples.class_weight,
                classes=class_of[mine],
            )
        start = None if self._start is None else np.asarray(self._start[:, class_of - first], self._dtype)
        moved = None
        if self._moved is not None:
            shift, scale = (np.ascontiguousarray(each[part_of].T, self._dtype) for each in self._moved)
            moved = shift, scale
        return ColumnBlock(self._examples.rows, targets, weights, start=start, moved=moved)

    def _of(self, part: int, values: Callable[[ColumnBlock], Floating]) -> Floating:
        """The columns of a part, of values [..., k] of a block that has k columns."""
        mine = [part_of == part for part_of in self._part_of]
        fitted = zip(self._blocks, mine, strict=True)
        return np.hstack([values(block)[:, columns] for block, columns in fitted if block and columns.any()])

    def _both(self, column: Floating) -> Floating:
        return np.hstack([-column, column]) if self._examples.first else column


def binary_problems(
    labels: Int, number_of_classes: int, class_weight: ClassWeight, *, classes: Int | None = None
) -> tuple[Floating, Floating]:
    """Targets (+1 or -1) and weights of the examples in each binary problem, [N, K], or [N, 1] for two classes.

    Those of some classes, int [k], are [N, k]; of two classes, the second has a problem.

    As in scikit-learn, the rest against which a class stands has weight one, except where it is a single class.
    """
    members = np.bincount(labels, minlength=number_of_classes)
    balance = np.ones(number_of_classes)
    if class_weight == "balanced":
        balance = len(labels) / (np.count_nonzero(members) * np.maximum(members, 1))
    if classes is None:
        classes = np.arange(1 if number_of_classes == 2 else 0, number_of_classes)
    is_member = labels[:, None] == classes
    of_rest = balance[labels][:, None] if number_of_classes == 2 else 1.0
    return np.where(is_member, 1.0, -1.0), np.where(is_member, balance[classes], of_rest)


def _mean_and_scale(embeddings: Float32, normalisation: str) -> tuple[Float32, Float32]:
    if normalisation != "standardise":
        return np.zeros(embeddings.shape[1], np.float32), np.ones(embeddings.shape[1], np.float32)
    mean = embeddings.mean(axis=0, dtype=np.float64)
    variance = np.zeros_like(mean)
    for rows in _chunks(len(embeddings)):
        variance += ((embeddings[rows] - mean) ** 2).sum(axis=0) / len(embeddings)
    scale = np.sqrt(variance)
    is_constant = scale <= 1e-6 * np.abs(mean)  # to float32's precision
    return mean.astype(np.float32), np.where(is_constant, 1, scale).astype(np.float32)


def _means_and_scales(x: Float32, parts: Bool, scale: Float32) -> tuple[Float64, Float64]:
    """The mean and scale of each feature, and of the column for the bias, in each part, [P, D + 1] of x [N, D + 1].

    Args:
        x: standardised as a whole.
        parts: [P, N].
        scale: that x was divided by, [D]; a feature that never changes in a part is divided by nothing.
    """
    total, squares = np.zeros((2, len(parts), x.shape[1]))
    for rows in _chunks(len(x)):
        chunk = x[rows].astype(np.float64)
        total += parts[:, rows] @ chunk
        squares += parts[:, rows] @ chunk**2
    count = parts.sum(axis=1, keepdims=True)
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
    deviation = np.where(deviation <= 1e-6, 1 / np.append(scale, 1), deviation)
    mean[:, -1], deviation[:, -1] = 0, 1
    return mean, deviation


def _chunks(length: int) -> Iterator[slice]:
    for start in range(0, length, ROWS_AT_ONCE):
        yield slice(start, start + ROWS_AT_ONCE)
