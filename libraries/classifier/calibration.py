"""Scores into probabilities: temperature scaling with a bias per class.

softmax(slope * scores + bias) has K + 1 parameters, too few to overfit and enough to mend the two ways in which scores
go wrong: sharpness, and a tilt towards some classes (Alexandari et al. 2020, 'Maximum likelihood with bias-corrected
calibration is hard-to-beat at label shift adaptation', https://arxiv.org/abs/1901.06852). On the two columns [-s, s]
of a binary classifier it is Platt scaling, sigmoid(2 * slope * s + bias[1] - bias[0]).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from libraries.base.arrays import Float32, Float64, Int
from libraries.classifier.costs import Costs, answers

MAXIMUM_STEPS = 100  # Newton takes 5 to 15
CG_TOLERANCE = 1e-3  # of the residual: Newton gains as much in every step
TOLERANCE = 1e-10  # largest gradient entry of the mean loss
ENOUGH = 10  # independent examples of a class from which on its bias needs no prior
PULL = 10.0  # precision of the normal prior that pulls the bias of a class with half of that towards the mean
SMALLEST_SLOPE = 1e-3  # of standardised scores; scores that point the wrong way are as good as ignored, never inverted


@dataclass(frozen=True)
class Calibration:
    """probabilities = softmax(slope * scores + bias).

    Attributes:
        slope: > 0, the inverse of the temperature.
        bias: float64 [K], of sum zero.
    """

    slope: float
    bias: Float64

    def logits(self, scores: npt.ArrayLike) -> Float64:
        """Scores [N, K] to what the softmax makes probabilities of, float64 [N, K]."""
        return np.asarray(self.slope * np.asarray(scores, np.float64) + self.bias)

    def probabilities(self, scores: npt.ArrayLike) -> Float32:
        """Scores [N, K] to probabilities, float32 [N, K], whose rows sum to one."""
        return _softmax(self.logits(scores)).astype(np.float32)

    def labels(self, scores: npt.ArrayLike, costs: Costs | None = None) -> Int:
        """Scores [N, K] to the answers, int64 [N]: the class of the highest probability, or what costs least."""
        return answers(self.probabilities(scores), costs)

    def heard(self, scores: npt.ArrayLike) -> "Calibration":
        """The same, except that no class is silenced which these scores [N, K] put first and the biases never do.

        Such a class gets the largest of the biases, so that it is the answer wherever its score is the highest.
        """
        scores = np.asarray(scores, np.float64)
        found = self
        for _ in self.bias:  # one that gets the largest bias may silence another, at most all in turn
            silenced = np.setdiff1d(scores.argmax(axis=1), found.labels(scores))
            if not silenced.size:
                break
            bias = found.bias.copy()
            bias[silenced] = bias.max()
            found = Calibration(self.slope, bias - bias.mean())
        return found

    def to_json(self) -> dict[str, Any]:
        return {"slope": self.slope, "bias": self.bias.tolist()}

    @classmethod
    def from_json(cls, described: Mapping[str, Any]) -> "Calibration":
        return cls(described["slope"], np.array(described["bias"]))


def fit_calibration(
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    sample_weight: npt.ArrayLike | None = None,
    evidence: npt.ArrayLike | None = None,
    start: Calibration | None = None,
) -> Calibration:
    """The calibration with the smallest log loss on examples that the classifier was not trained on.

    The targets are smoothed as in Platt 1999 ('Probabilistic outputs for support vector machines'): an example of a
    class with n members counts as (n + 1) / (n + 2) of its class, the rest spread evenly over the others. So separable
    scores keep a finite slope, and a class without examples a finite bias.

    The bias of a class with few independent examples is pulled towards the mean of all biases, more strongly the fewer
    there are, so that a few examples cannot outvote the scores.

    Args:
        scores: [N, K], one column per class; [-s, s] for a binary classifier; logits of a network.
        labels: int [N], 0 <= label < K.
        sample_weight: [N], >= 0; all ones by default.
        evidence: [K], the number of independent examples of each class, such as groups; from ENOUGH on, and by default,
            biases are free.
        start: a calibration that may be near, which saves time.
    """
    scores = np.asarray(scores, np.float64)
    labels = np.asarray(labels, np.int64)
    weight = np.ones(len(labels)) if sample_weight is None else np.asarray(sample_weight, np.float64)
    spread = float(scores.std()) or 1.0
    scores = scores / spread
    targets = _smoothed_targets(labels, weight, number_of_classes=scores.shape[1])
    pull = np.zeros(scores.shape[1]) if evidence is None else _pull(labels, weight, np.asarray(evidence, np.float64))
    share, pull = weight / weight.sum(), pull / weight.sum()
    begin = np.ones(1 + scores.shape[1])
    begin[1:] = 0
    if start is not None:
        begin[0], begin[1:] = start.slope * spread, start.bias
    slope, bias = _newton(scores, targets, share, pull, start=begin, slope_is_free=True)
    if slope < SMALLEST_SLOPE:
        # Useless scores leave only the class frequencies; where even these are hardly known, the scores decide.
        if evidence is not None:
            pull = np.where(np.isfinite(evidence), pull.max(), 0.0) / SMALLEST_SLOPE**2
        slope, bias = _newton(
            SMALLEST_SLOPE * scores, targets, share, pull, start=np.eye(1, len(begin))[0], slope_is_free=False
        )
        slope = SMALLEST_SLOPE
    return Calibration(slope=slope / spread, bias=bias - bias.mean())


def _smoothed_targets(labels: Int, weight: Float64, *, number_of_classes: int) -> Float64:
    """Platt's targets, [N, K]."""
    members = np.bincount(labels, weights=weight, minlength=number_of_classes)
    missing = 1 / (members + 2)
    targets = np.repeat(missing[labels, None] / (number_of_classes - 1), number_of_classes, axis=1)
    targets[np.arange(len(labels)), labels] = 1 - missing[labels]
    return targets


def _pull(labels: Int, weight: Float64, evidence: Float64) -> Float64:
    """The precision of the prior on each bias, [K]: 0 from ENOUGH independent examples on, high where there are none.

    Examples that are not independent count in the loss as if they were, so the prior grows with them.
    """
    independent = np.maximum(evidence, 0.1)
    members = np.bincount(labels, weights=weight, minlength=len(evidence))
    return np.asarray(PULL * np.maximum(ENOUGH / independent - 1, 0) * np.maximum(members / independent, 1))


def _newton(
    scores: Float64, targets: Float64, weight: Float64, pull: Float64, *, start: Float64, slope_is_free: bool
) -> tuple[float, Float64]:
    """Minimise the weighted cross-entropy and the prior, convex in (slope, bias), by Newton's method with halving.

    Args:
        start: [1 + K], the slope and the biases to begin with.
    """
    parameters = start.copy()
    loss, probabilities = _loss(parameters, scores, targets, weight, pull)
    for _ in range(MAXIMUM_STEPS):
        residual = weight[:, None] * (probabilities - targets)
        gradient = np.concatenate(([np.vdot(residual, scores)], residual.sum(axis=0) + _prior(pull, parameters[1:])))
        gradient[0] *= slope_is_free
        if np.abs(gradient).max() <= TOLERANCE:
            break
        step = _newton_step(gradient, scores, probabilities, weight, pull)
        step[0] *= slope_is_free
        length = 1.0
        if gradient @ step <= np.finfo(float).eps * loss:  # what is to gain is below the loss's precision
            parameters = parameters - step
            break
        while True:
            new_loss, new_probabilities = _loss(parameters - length * step, scores, targets, weight, pull)
            if new_loss <= loss or length <= 1e-8:
                break
            length /= 2
        if new_loss > loss:
            break
        parameters, loss, probabilities = parameters - length * step, new_loss, new_probabilities
    return float(parameters[0]), parameters[1:]


def _loss(
    parameters: Float64, scores: Float64, targets: Float64, weight: Float64, pull: Float64
) -> tuple[float, Float64]:
    """The loss, and the probabilities [N, K]."""
    logits = parameters[0] * scores + parameters[1:]
    logits -= logits.max(axis=1, keepdims=True)
    probabilities = np.exp(logits)
    total = probabilities.sum(axis=1, keepdims=True)
    probabilities /= total
    log_loss = np.log(total[:, 0]) - np.einsum("nk,nk->n", targets, logits)
    return float(weight @ log_loss + _prior(pull, parameters[1:]) @ parameters[1:] / 2), probabilities


def _prior(pull: Float64, bias: Float64) -> Float64:
    """The gradient of the prior, [K]: it pulls biases towards their mean."""
    drawn = pull * (bias - bias.mean())
    return np.asarray(drawn - drawn.mean())


def _newton_step(gradient: Float64, scores: Float64, probabilities: Float64, weight: Float64, pull: Float64) -> Float64:
    """The Hessian's inverse times the gradient, [1 + K], by conjugate gradients: with many classes it is too large.

    The loss does not change when all biases shift together; a one added to their block of the Hessian keeps the step,
    and with it the sum of the biases, at zero in that direction without moving the minimum.
    """
    weighted = weight[:, None] * probabilities
    # A constant added to a row of scores changes nothing; without their mean, slope and biases hardly touch each other.
    centred = scores - np.einsum("nk,nk->n", probabilities, scores)[:, None]
    of_bias, of_both = weighted.sum(axis=0), np.einsum("nk,nk->k", weighted, centred)
    of_slope = np.einsum("nk,nk->k", weighted, centred**2).sum() + 1e-12

    def product(vector: Float64) -> Float64:
        slope, bias = vector[0], vector[1:]
        on_bias = slope * of_both + of_bias * bias - (probabilities @ bias) @ weighted
        return np.concatenate(([slope * of_slope + of_both @ bias], on_bias + _prior(pull, bias) + bias.mean()))

    own = of_bias - np.einsum("nk,nk->k", weighted, probabilities)
    diagonal = np.concatenate(([of_slope], own + pull + 1 / len(pull)))
    step, residual = np.zeros_like(gradient), gradient.copy()
    search = residual / diagonal
    size = residual @ search
    enough = CG_TOLERANCE**2 * size
    for _ in range(2 * len(gradient)):
        image = product(search)
        length = size / (search @ image)
        step += length * search
        residual -= length * image
        preconditioned = residual / diagonal
        size, previous = residual @ preconditioned, size
        if size <= enough:
            break
        search = preconditioned + size / previous * search
    return step


def _softmax(logits: Float64) -> Float64:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: Float64 = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities
