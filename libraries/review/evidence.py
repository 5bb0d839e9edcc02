"""What a data set says about the labels of its own images, each judged by models and images that are not of its group.

An SVM is fitted without each fold, and says how probable each label of the left-out images is; the nearest other images
vote. Together they find planted errors better than either: `python benchmarks/review.py`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from libraries.base.arrays import Bool, Float32, Int
from libraries.base.pool import side_by_side
from libraries.classifier.calibration import Calibration, fit_calibration
from libraries.classifier.cross_validation import NEVER_LEFT_OUT, assign_folds, groups_per_class
from libraries.classifier.svm import Examples, Parts
from libraries.classifier.sweep import sample

NORMALISATION = "sqrt_l2"
# Below the C that is best for true labels: a wide margin gives wrong ones less weight. Of 0.03 to 3, 0.1 and 0.3 found
# most planted errors among photographs of clothes, 1 among solar cells, whose classes overlap.
C = 0.3
FOLDS = 5
NEIGHBOURS = 10
LEAST_DISTANCE = 0.05  # beyond the upper quartile, of an image unlike all others: copies have no spread
VOTE = 0.2  # weight of the neighbours in the geometric mean with the SVM
MOST_FITTED = 20_000  # images that SVMs are fitted to: a sample of more
MOST_COLUMNS = 512  # of SVMs fitted together, a class and a fold each
MOST_NUMBERS = 5_000_000  # scores that calibrate, likewise
MOST_COMPARED = 10_000  # images among which neighbours are searched for, likewise
_ROWS_AT_ONCE = 512


@dataclass(frozen=True)
class Evidence:
    """Of N images of K classes.

    Attributes:
        labels: int [N].
        probabilities: float32 [N, K], by the SVM and the neighbours together; NaN where neither may judge, since there
            is a single image of the class, or a single group.
        votes: float32 [N, K], the share of the nearest images that have each label.
        strangeness: float32 [N], the mean cosine distance to these, 0 to 2; 0 where there is no other group.
        of_others: float32 [M, K], probabilities of images without a label, by an SVM that has seen all that have one.
        normalise: embeddings float32 [., D] → what is compared by cosine, of length one.
    """

    labels: Int
    probabilities: Float32
    votes: Float32
    strangeness: Float32
    of_others: Float32
    normalise: Callable[[Float32], Float32]

    @property
    def confidence(self) -> Float32:
        """The probability of each image's own label, [N]."""
        return np.asarray(self.probabilities[np.arange(len(self.labels)), self.labels])

    @property
    def other(self) -> Int:
        """The most probable of the other labels, int [N]."""
        others = self.probabilities.copy()
        others[np.arange(len(self.labels)), self.labels] = -1
        return np.asarray(np.nan_to_num(others, nan=-1).argmax(axis=1))


def evidence(
    embeddings: Float32,
    labels: Int,
    groups: Int,
    *,
    number_of_classes: int,
    judged: Float32 | None = None,
    others: Float32 | None = None,
    seed: int = 0,
) -> Evidence:
    """Judge every image.

    Args:
        embeddings: float32 [N, D].
        labels, groups: int [N]; images of one group do not judge each other.
        judged: float32 [N, K], probabilities by networks that have not seen an image, NaN where there are none. They
            alone count then: embeddings by a network that was trained on these labels repeat what it was told.
        others: float32 [M, D], of images without a label.
        seed: of the folds.
    """
    chosen = np.flatnonzero(sample(labels, groups, most=MOST_FITTED, seed=seed))
    examples = Examples(embeddings[chosen], labels[chosen], NORMALISATION, number_of_classes=number_of_classes)
    of_chosen = assign_folds(labels[chosen], folds=FOLDS, groups=groups[chosen], seed=seed)
    fold_of = groups % max(1, int(of_chosen.max()) + 1)  # of the others, whose groups no SVM is fitted to
    fold_of[chosen] = of_chosen
    # A class of a single group is dealt out by its images: they would judge each other.
    single = groups_per_class(labels, number_of_classes=number_of_classes, groups=groups) < 2
    fold_of[single[labels]] = NEVER_LEFT_OUT
    by_svm, calibration = _out_of_fold(embeddings, labels, fold_of, examples, fold_of[chosen])
    of_others = np.zeros((0, number_of_classes), np.float32)
    if others is not None and len(others):
        everything = Parts(examples, [examples.everything])
        everything.fit(C)
        of_others = _probabilities(everything.model(0).scores(others), calibration)
    normalise = examples.preparation.normalise
    votes, strangeness = _neighbours(embeddings, labels, groups, normalise, number_of_classes=number_of_classes)
    smoothed = (NEIGHBOURS * votes + 0.5) / (NEIGHBOURS + 0.5 * number_of_classes)
    together = by_svm ** (1 - VOTE) * smoothed**VOTE
    together /= together.sum(axis=1, keepdims=True)
    if judged is not None:
        together = np.where(np.isfinite(judged), judged, together)
    return Evidence(labels, together.astype(np.float32), votes, strangeness, of_others, normalise)


def _out_of_fold(
    embeddings: Float32, labels: Int, fold_of: Int, examples: Examples, fold_of_examples: Int
) -> tuple[Float32, Calibration | None]:
    """Probabilities [N, K] by SVMs that have not seen an image's fold, NaN for images in none; and their calibration.

    Args:
        examples: all N images, or a sample.
        fold_of_examples: of each of them.
    """
    scores = np.full((len(fold_of), examples.number_of_classes), np.nan, np.float32)
    folds = np.unique(fold_of_examples[fold_of_examples != NEVER_LEFT_OUT])
    if len(folds) < 2:
        return scores, None
    at_once = max(1, MOST_COLUMNS // scores.shape[1])  # which bounds the memory
    for first in range(0, len(folds), at_once):
        mine = folds[first : first + at_once]
        parts = Parts(examples, [fold_of_examples != fold for fold in mine])
        parts.fit(C)
        for i, fold in enumerate(mine):
            scores[fold_of == fold] = parts.model(i).scores(embeddings[fold_of == fold])
    judged = np.flatnonzero(np.isfinite(scores[:, 0]))
    few = judged[:: -(-len(judged) * scores.shape[1] // MOST_NUMBERS)]
    calibration = fit_calibration(scores[few], labels[few])
    return _probabilities(scores, calibration), calibration


def _probabilities(scores: Float32, calibration: Calibration | None) -> Float32:
    """The scores [N, K], changed into probabilities; equal ones where nothing tells how sure they are."""
    if calibration is None:
        scores[:] = 1 / scores.shape[1]
        return scores
    for rows in _blocks(len(scores)):
        scores[rows] = calibration.probabilities(scores[rows])
    return scores


def _neighbours(
    embeddings: Float32,
    labels: Int,
    groups: Int,
    normalise: Callable[[Float32], Float32],
    *,
    number_of_classes: int,
) -> tuple[Float32, Float32]:
    """The votes [N, K] and the mean cosine distance [N] of the nearest images of other groups."""
    count = len(embeddings)
    known = np.sort(np.random.default_rng(0).permutation(count)[:MOST_COMPARED])
    of_known = normalise(embeddings[known])
    votes, strangeness = np.zeros((count, number_of_classes), np.float32), np.zeros(count, np.float32)
    most = min(NEIGHBOURS, len(known) - 1)

    def compare(rows: slice) -> None:
        similarity = normalise(embeddings[rows]) @ of_known.T
        similarity[groups[rows, None] == groups[known]] = -np.inf
        nearest = np.argpartition(-similarity, most - 1, axis=1)[:, :most]
        places = np.arange(len(nearest))[:, None]
        near = similarity[places, nearest]
        weight = np.isfinite(near) / np.maximum(1, np.isfinite(near).sum(axis=1, keepdims=True))
        strangeness[rows] = (weight * (1 - np.where(np.isfinite(near), near, 1))).sum(axis=1)
        np.add.at(votes[rows], (places, labels[known[nearest]]), weight)

    if most:
        side_by_side([partial(compare, rows) for rows in _blocks(count)])
    return votes, strangeness


def _blocks(length: int) -> Iterator[slice]:
    for start in range(0, length, _ROWS_AT_ONCE):
        yield slice(start, min(length, start + _ROWS_AT_ONCE))


def unlike_others(found: Evidence) -> Bool:
    """Which images are far from all others, [N]: beyond Tukey's outer fence, three times the quartiles' distance."""
    low, high = np.percentile(found.strangeness, [25, 75])
    return np.asarray(found.strangeness > high + max(3 * (high - low), LEAST_DISTANCE))
