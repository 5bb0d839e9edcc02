"""The thresholds of `Trust`, from the training images, by models that have not seen them.

Conformal prediction (Vovk et al. 2005; across folds: Vovk 2015, 'Cross-conformal predictors'): an image is unknown if
it is stranger than all but a few of the training images; a label is in the set if it is about as probable as the true
one is for these, class by class where a class has images enough.
"""

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from libraries.base.arrays import Bool, Float32, Float64, Int
from libraries.classifier.calibration import Calibration
from libraries.classifier.cross_validation import NEVER_LEFT_OUT, assign_folds
from libraries.classifier.strangeness import DIRECTIONS, Strangeness
from libraries.classifier.sweep import sample
from libraries.classifier.trust import Trust, needed

FOLDS = 10  # with 5, models of so many fewer images find the others strange, and too few of later ones are unknown
NEGLIGIBLE = 0.2  # of the spread of energies: 0.05 to 0.12 were seen with C from 0.01 to 10, 1.5 to 9 below
IMAGES_PER_DIRECTION = 4  # at least
MOST = 4000  # training images that tell what is strange: a sample of more


def fit_trust(
    embeddings: Float32,
    labels: Int,
    groups: Int,
    *,
    scores: Float32,
    calibration: Calibration,
    classifier: Callable[[Float32], Float32] | None = None,
    unknown_rate: float,
    coverage: float,
    seed: int = 0,
) -> Trust:
    """Find the thresholds.

    Args:
        embeddings: float32 [N, D], of training images.
        labels, groups: int [N].
        scores: float32 [N, K], each by a classifier, and a network, that have not seen the image; NaN where there is
            none: such images tell what is usual, but not how strange others seem.
        calibration: scores → probabilities.
        classifier: embeddings [n, D] → scores [n, K], by the one that is to be used; None: the scores are its own.
        unknown_rate, coverage: see `Trust`.
        seed: of the folds.
    """
    is_scored = np.isfinite(scores[:, 0])
    set_above, on_its_own = _set_thresholds(
        calibration.probabilities(scores[is_scored]), labels[is_scored], groups[is_scored], share=1 - coverage
    )
    strangeness, unknown_above = None, list[float]()
    rows = np.concatenate(
        [_at_most(labels, groups, np.flatnonzero(part), seed=seed) for part in (is_scored, ~is_scored)]
    )
    if len(np.unique(groups[is_scored])) >= needed(unknown_rate):
        strangeness, unknown_above = _strangeness(
            embeddings[rows],
            labels[rows],
            groups[rows],
            calibration.logits(scores[rows]),
            own=None if classifier is None else calibration.logits(classifier(embeddings[rows])),
            rate=unknown_rate,
            seed=seed,
        )
    return Trust(strangeness, unknown_above, unknown_rate, coverage, set_above, on_its_own)


def _at_most(labels: Int, groups: Int, rows: Int, *, seed: int) -> Int:
    """MOST of these rows, or all."""
    return rows[sample(labels[rows], np.unique(groups[rows], return_inverse=True)[1], most=MOST, seed=seed)]


def _strangeness(
    x: Float32,
    labels: Int,
    groups: Int,
    logits: Float64,
    *,
    own: Float64 | None,
    rate: float,
    seed: int,
) -> tuple[Strangeness | None, list[float]]:
    """The score, and for each answer the threshold above which at most this share of the known images is.

    Args:
        logits: float64 [n, K]; NaN for images that tell only what is usual.
        own: float64 [n, K], by the classifier that is to be used; None: the same.
    """
    number_of_classes, scored = logits.shape[1], np.isfinite(logits[:, 0])
    fold_of = np.full(len(x), NEVER_LEFT_OUT)
    fold_of[scored] = assign_folds(labels[scored], folds=FOLDS, groups=groups[scored], seed=seed)
    folds = np.unique(fold_of[fold_of != NEVER_LEFT_OUT])
    if not len(folds):
        return None, []
    # As many directions each time: with more of them, distances are larger.
    fewest = len(x) - max(int((fold_of == fold).sum()) for fold in folds)
    count = max(1, min(DIRECTIONS, (fewest - number_of_classes) // IMAGES_PER_DIRECTION))
    fit = partial(Strangeness.fit, number_of_classes=number_of_classes, directions=count)
    parts = np.full((len(x), 3), np.nan, np.float32)
    for fold in folds:
        out = fold_of == fold
        parts[out] = fit(x[~out], labels[~out]).parts(x[out], logits[out])
    known = np.isfinite(parts[:, 0])
    whole = fit(x, labels).scaled(parts[known])
    strange, groups, answers = parts[known] @ whole.scale + whole.shift, groups[known], logits[known].argmax(axis=1)
    of_all = quantile(strange, groups, share=rate)
    if not math.isfinite(of_all):
        return None, []
    # In between, as the share is to be kept, not only not exceeded: with 75 images, the next one would mean 4% for 5%.
    found, _ = _by_class(strange, answers, groups, share=rate, number_of_classes=number_of_classes, between=True)
    if own is not None:
        # Where C is small, the common part of all logits says little, and grows with the number of images.
        more = float(np.median(own[known].mean(axis=1)) - np.median(logits[known].mean(axis=1)))
        if abs(more) * whole.scale[0] > NEGLIGIBLE:
            whole = whole.shifted(more)
    return whole, found


def _set_thresholds(
    probabilities: Float32, labels: Int, groups: Int, *, share: float
) -> tuple[list[float], list[bool]]:
    """For each class the least probability with which it is in the set, and whether it is the class's own."""
    others = 1 - probabilities[np.arange(len(labels)), labels]
    if not math.isfinite(quantile(others, groups, share=share)):
        return [], []
    found, own = _by_class(others, labels, groups, share=share, number_of_classes=probabilities.shape[1])
    return [1 - threshold for threshold in found], own


def _by_class(
    values: Float32, classes: Int, groups: Int, *, share: float, number_of_classes: int, between: bool = False
) -> tuple[list[float], list[bool]]:
    """The quantile of each class, and whether it is that of the class alone.

    Classes with too few images have one together, so that what is promised holds for all images, too; where even these
    are too few, that of all.
    """

    def of(chosen: Bool) -> float:
        return quantile(values[chosen], groups[chosen], share=share, between=between)

    found = np.array([of(classes == k) for k in range(number_of_classes)])
    own = np.isfinite(found)
    together = of(np.isin(classes, np.flatnonzero(~own)))
    found[~own] = together if math.isfinite(together) else of(np.ones(len(values), bool))
    return found.tolist(), own.tolist()


def quantile(values: Float32, groups: Int, *, share: float, between: bool = False) -> float:
    """The threshold that a further value exceeds with this probability at most; infinite where no one can say.

    Groups are exchanged, not values: one more group could be any of them, and its values count as one together (Lee,
    Barber & Willett 2023, 'Distribution-free inference with hierarchical data').

    Args:
        values, groups: [N].
        between: interpolate between two values, so that a further one exceeds it with just this probability, but for
            how the values bend (type 6 of Hyndman & Fan 1996), rather than with this one at most.
    """
    if not len(values):
        return math.inf
    _, group_of, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.argsort(values, kind="stable")
    weight = np.cumsum(1 / sizes[group_of[order]])
    wanted = (1 - share) * (len(sizes) + 1) - 1e-9
    if wanted > weight[-1]:
        return math.inf
    if between:
        return float(np.interp(wanted, weight, values[order]))
    return float(values[order[np.searchsorted(weight, wanted)]])
