"""What cross-validation is for: the calibration, the validation accuracy, and how far both can be trusted."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from libraries.classifier.calibration import Calibration, fit_calibration
from libraries.classifier.folds import NEVER_LEFT_OUT, groups_per_class

Float32 = npt.NDArray[np.float32]
Array = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Validation:
    """The folds of N training examples.

    Attributes:
        fold_of: int [N], NEVER_LEFT_OUT for examples that count neither for the calibration nor for the accuracy.
        labels, groups: int [N].
        number_of_classes: K; some may have no training examples.
    """

    fold_of: Int
    labels: Int
    groups: Int
    number_of_classes: int

    @property
    def folds(self) -> range:
        return range(int(self.fold_of.max()) + 1)

    @property
    def is_scored(self) -> Bool:
        """Which examples are left out in some fold, [N]."""
        return np.asarray(self.fold_of != NEVER_LEFT_OUT)

    @property
    def independent(self) -> int:
        """How many groups the scored examples are of."""
        return len(np.unique(self.groups[self.is_scored]))

    def calibrate(self, scores: Float32, *, training_scores: Float32) -> Calibration:
        """The calibration by out-of-fold scores [N, K]; without any, by those of the models on their own examples."""
        if self.is_scored.any():
            return self._calibrate(scores, self.is_scored)
        # Platt's targets keep even these from certainty: of a single example, two thirds.
        return fit_calibration(training_scores, self.labels, evidence=self._evidence)

    def is_right(self, scores: Float32) -> Bool:
        """Whether out-of-fold scores [N, K] are right, in each fold by the calibration of the other folds, [N]."""
        found = np.full_like(self.labels, -1)
        for fold in self.folds:
            chosen = self.fold_of == fold
            found[chosen] = self._calibrate(scores, self.is_scored & ~chosen).labels(scores[chosen])
        return np.asarray(found == self.labels)

    def accuracy(self, is_right: Bool) -> tuple[float | None, float | None]:
        """The accuracy on the scored examples, and the standard deviation of the folds'."""
        if not self.is_scored.any():
            return None, None
        by_fold = [is_right[self.fold_of == fold].mean() for fold in self.folds]
        return float(is_right[self.is_scored].mean()), float(np.std(by_fold))

    def _calibrate(self, scores: Float32, chosen: Bool) -> Calibration:
        return fit_calibration(scores[chosen], self.labels[chosen], evidence=self._evidence)

    @property
    def _evidence(self) -> Array:
        """Groups of each class that are scored; that a class without training examples never comes is sure, [K]."""
        k, scored = self.number_of_classes, self.is_scored
        found = groups_per_class(self.labels[scored], number_of_classes=k, groups=self.groups[scored])
        return np.where(np.bincount(self.labels, minlength=k) > 0, found, np.inf)
