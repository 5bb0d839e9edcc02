"""How strange an image is to a classifier: high for what it was never trained on, from the embedding and the logits.

No single score notices both a class that is missing and a picture of something else altogether, so three are added,
each in units of its spread among images that the model has not seen:

- the energy: no class wants the image (Liu et al. 2020, 'Energy-based out-of-distribution detection');
- the relative Mahalanobis distance: how much less likely it is as one of the classes than as any of the images (Ren et
  al. 2021, 'A simple fix to Mahalanobis distance for improving near-OOD detection', https://arxiv.org/abs/2106.09022),
  on normalised embeddings (Mueller & Hein 2025, Mahalanobis++, https://arxiv.org/abs/2505.18032);
- the residual: the length of what the principal directions do not explain (as in ViM: Wang et al. 2022).

`python benchmarks/trust.py` compares it with each of them, and others.
"""

from dataclasses import dataclass, replace

import numpy as np

from libraries.base.arrays import Float32, Float64, Int

DIRECTIONS = 512  # principal directions at most
RIDGE = 0.1  # of the mean variance, added to that of each direction
WEIGHTS = (1.0, 0.5, 0.5)  # of the three parts
LEAST_SPREAD = 1e-3  # of a part: of images that are all alike, rounding would be strange


@dataclass(frozen=True)
class Strangeness:
    """A fitted score.

    Attributes:
        mean: float32 [D], of normalised embeddings.
        directions: float32 [D, Q], principal directions.
        within: float32 [Q, Q], makes the spread within the classes one in every direction.
        centres: float32 [K, Q], the classes' means, so transformed.
        precision: float32 [Q], one by the variance of all images.
        scale: float32 [3], what each part is multiplied with.
        shift: what is added to the sum.
    """

    mean: Float32
    directions: Float32
    within: Float32
    centres: Float32
    precision: Float32
    scale: Float32
    shift: float

    @classmethod
    def fit(
        cls, embeddings: Float32, labels: Int, *, number_of_classes: int, directions: int = DIRECTIONS
    ) -> "Strangeness":
        """The parts, not yet scaled.

        Args:
            embeddings, labels: float32 [N, D] and int [N] of training images, at least two of them.
            directions: how many at most; never more than half of D, so that there is a residual.
        """
        x = normalised(embeddings)
        mean = x.mean(axis=0)
        x -= mean
        principal = _principal(x, min(directions, len(x), max(1, x.shape[1] // 2)))
        inside = x @ principal
        centres = np.zeros((number_of_classes, inside.shape[1]), np.float32)
        for label in np.unique(labels):
            centres[label] = inside[labels == label].mean(axis=0)
        spread = inside - centres[labels]
        variances, rotation = np.linalg.eigh(spread.T @ spread / len(x))
        within = rotation / np.sqrt(variances.clip(0) + RIDGE * variances.mean() + 1e-12)
        variance = inside.var(axis=0)
        return cls(
            mean,
            principal,
            within.astype(np.float32),
            (centres @ within).astype(np.float32),
            (1 / (variance + RIDGE * variance.mean() + 1e-12)).astype(np.float32),
            np.ones(3, np.float32),
            0.0,
        )

    def parts(self, embeddings: Float32, logits: Float64) -> Float32:
        """The three parts before they are scaled, float32 [N, 3].

        Args:
            embeddings: float32 [N, D].
            logits: calibrated, float64 [N, K].
        """
        x = normalised(embeddings) - self.mean
        inside = x @ self.directions
        of_classes = inside @ self.within
        # |a - b|^2 = |a|^2 - 2 ab + |b|^2, as in the graph
        nearest = (np.square(self.centres).sum(axis=1) - 2 * of_classes @ self.centres.T).min(axis=1)
        relative = np.square(of_classes).sum(axis=1) + nearest - np.square(inside) @ self.precision
        residual = np.sqrt(np.maximum(np.square(x).sum(axis=1) - np.square(inside).sum(axis=1), 0))
        energy = -np.logaddexp.reduce(logits, axis=1)
        return np.stack([energy, relative, residual], axis=1).astype(np.float32)

    def scaled(self, parts: Float32) -> "Strangeness":
        """The same score in units of the spread of these parts [N, 3], of images that it was not fitted to."""
        middle, spread = np.median(parts, axis=0), parts.std(axis=0)
        scale = np.array(WEIGHTS, np.float32) / np.maximum(spread, LEAST_SPREAD)
        return Strangeness(
            self.mean, self.directions, self.within, self.centres, self.precision, scale, -float(middle @ scale)
        )

    def shifted(self, energy: float) -> "Strangeness":
        """The same score for a classifier whose energies are less by so much."""
        return replace(self, shift=self.shift + energy * float(self.scale[0]))

    def score(self, embeddings: Float32, logits: Float64) -> Float32:
        """How strange images are, float32 [N]; 0 is usual. See `parts`."""
        return np.asarray(self.parts(embeddings, logits) @ self.scale + self.shift, np.float32)


def _principal(x: Float32, count: int) -> Float32:
    """The `count` principal directions of the centred x [N, D], the first one first, float32 [D, count].

    From the smaller of the two matrices of products; where x has fewer directions, the others are zero.
    """
    from scipy.linalg import eigh  # type: ignore[import-untyped]

    is_long = len(x) >= x.shape[1]
    products = x.T @ x if is_long else x @ x.T
    size = len(products)
    values, vectors = eigh(products, subset_by_index=[size - count, size - 1])
    if not is_long:
        vectors = x.T @ vectors / np.sqrt(np.maximum(values, 1e-6 * values[-1] + 1e-12))
    return np.ascontiguousarray(vectors[:, ::-1], np.float32)


def normalised(embeddings: Float32) -> Float32:
    """The signed root of each value, and rows of length one: float32 [N, D]."""
    x = np.sign(embeddings) * np.sqrt(np.abs(embeddings))
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12), np.float32)
