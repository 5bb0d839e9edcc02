"""What images looked like when a bundle was made, to notice that others come: drift.

reference.npz, beside metrics.json, holds the bundle's test images, each as a few numbers, and its answers for them.
They stand for images to come, as neither network nor classifier was fitted to them. Images are compared along the first
principal directions of the training images: directions found in the test images would fit these best, and any others
would look strange.

Two tests ask whether other images could have been drawn with them: a kernel two-sample test of how they look (maximum
mean discrepancy: Gretton et al. 2012, 'A kernel two-sample test'), and one of the answers, by the class whose mean
probability has changed most. The kernel is the sum of a linear one, which notices that all images have changed a little
in the same way, and a Gaussian, which notices everything else (by random Fourier features: Rahimi & Recht 2007). Each
test compares what it sees with the same of random divisions of all images. So for images that are independent of each
other, as those of a fair sample are, a false alarm is as rare as it is said to be, however many there are. Images that
come in batches, one object or place after another, are different from a shuffled test set, and that is noticed, too.
"""

import io
import json
import logging
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from libraries.base.arrays import Float32, Float64
from libraries.base.file_system import read_regular
from libraries.base.storage import atomic
from libraries.classifier.strangeness import normalised

REFERENCE = "reference.npz"
FEWEST = 30  # images on either side, below which nothing is said
DIRECTIONS = 128
MOST = 1000  # images kept
MOST_FITTED = 1500  # training images that the directions are found in
FREQUENCIES = 256
DIVISIONS = 4000
ALARM = 1 / 2000  # a p-value below it, of each of the two tests: together, a false alarm in 1,000 comparisons at most
_MOST_ANSWERS = 10_000_000  # probabilities kept: fewer images of very many classes
_MAX_BYTES = 2**28  # of the arrays in a file, which may be a stranger's
_AT_ONCE = 500  # divisions
_ROWS_AT_ONCE = 4096

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Drift:
    """How M images compare with those of the reference.

    Attributes:
        images: M.
        looks, answers: p-values of the two tests: how probable such a difference is if nothing has changed.
        shares: the mean probability of each class, float64 [K].
        usual: the same in the reference.
        most: the class whose mean probability has changed most, as the test of the answers measures it.
    """

    images: int
    looks: float
    answers: float
    shares: Float64
    usual: Float64
    most: int

    @property
    def looks_differ(self) -> bool:
        """Whether the images look different."""
        return self.looks < ALARM

    @property
    def answers_differ(self) -> bool:
        """Whether the answers for them are shared differently among the classes."""
        return self.answers < ALARM

    @property
    def kinds(self) -> tuple[bool, bool]:
        """Whether the looks differ, and whether the answers do."""
        return self.looks_differ, self.answers_differ

    def told(self, labels: Sequence[str], these: str) -> list[str]:
        """What there is to say, in sentences; none if nothing has changed.

        Args:
            labels: K names of classes.
            these: what the images are called, e.g. 'the last 500 images'.
        """
        sentences = []
        if self.looks_differ:
            sentences.append(f"{these[0].upper()}{these[1:]} look different from the test images.")
        if self.answers_differ:
            now, usual = (_percent(shares[self.most]) for shares in (self.shares, self.usual))
            sentences.append(
                f"On average, {these} are '{labels[self.most]}' with a probability of {now}, "
                f"the test images with {usual}."
            )
        return sentences


@dataclass(frozen=True)
class Reference:
    """The images that others are compared with.

    Attributes:
        mean: float32 [D], of normalised embeddings of training images.
        directions: float32 [D, P], the first principal directions, scaled.
        looks: float32 [N, P], the test images.
        answers: float32 [N, K], their probabilities.
    """

    mean: Float32
    directions: Float32
    looks: Float32
    answers: Float32

    @classmethod
    def of(cls, training: Float32, tested: Float32, answers: Float32) -> "Reference":
        """
        Args:
            training: embeddings, float32 [T, D], T >= 2.
            tested, answers: embeddings and probabilities of test images that are independent of each other, float32
                [N, D] and [N, K].
        """
        x = normalised(training[_drawn(len(training), MOST_FITTED)])
        mean = x.mean(axis=0)
        _, deviations, directions = np.linalg.svd(x - mean, full_matrices=False)
        count = min(DIRECTIONS, int((deviations > 1e-4 * deviations[0]).sum()))
        scaled = directions[:count].T / deviations[:count]  # so that all have the same weight
        projected = (x - mean) @ scaled
        scale = np.sqrt(2 * projected.var(axis=0).sum()) or 1.0  # so that two images are one apart, in the mean
        rows = _drawn(len(tested), min(MOST, _MOST_ANSWERS // answers.shape[1]))
        empty = cls(mean, (scaled / scale).astype(np.float32), np.zeros((0, count), np.float32), answers[rows])
        return replace(empty, looks=empty.project(tested[rows]))

    def save(self, folder: Path, *, of: Mapping[str, str]) -> None:
        """Write it into the folder of a bundle.

        Args:
            of: the bundle's files with their SHA-256, which it belongs to.
        """
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        with atomic(folder / REFERENCE) as file:
            np.savez(file, allow_pickle=False, files=np.array(_belongs_to(of)), **arrays)

    @classmethod
    def load(cls, folder: Path, *, of: Mapping[str, str], embedding_size: int, classes: int) -> "Reference | None":
        """Read it; None if there is none of these files, or if it cannot be read: a classifier works without it."""
        path = folder / REFERENCE
        try:
            if folder.resolve() != path.resolve().parent:
                raise ValueError("it is a link out of its folder")
            arrays = _read(read_regular(path, most=_MAX_BYTES))
            if str(arrays.pop("files")) != _belongs_to(of):
                raise ValueError("it belongs to another bundle: run scripts/5_evaluate.py")
            reference = cls(**arrays)
            reference._check(embedding_size, classes)
        except FileNotFoundError:
            return None
        except Exception as error:  # zipfile and NumPy raise almost anything for a damaged file
            log.warning("%s is left out, so drift is not noticed: %s", path, error)
            return None
        return reference

    def _check(self, embedding_size: int, classes: int) -> None:
        count, directions = len(self.looks), self.directions.shape[-1]
        if count < FEWEST:
            raise ValueError(f"it has {count} images, and {FEWEST} are needed")
        shapes = [(embedding_size,), (embedding_size, directions), (count, directions), (count, classes)]
        for name, shape in zip(_ARRAYS, shapes, strict=True):
            array = getattr(self, name)
            if array.dtype != np.float32 or array.shape != shape or not np.isfinite(array).all():
                raise ValueError(f"{name} is not finite float32 {list(shape)}")
        if self.answers.min() < 0 or self.answers.max() > 1 + 1e-5:
            raise ValueError("answers are not probabilities")

    def project(self, embeddings: Float32) -> Float32:
        """Embeddings, float32 [M, D], as what is compared, float32 [M, P]."""
        projected = np.empty((len(embeddings), self.directions.shape[1]), np.float32)
        for start in range(0, len(embeddings), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            projected[rows] = (normalised(embeddings[rows]) - self.mean) @ self.directions
        return projected

    @cached_property
    def alike(self) -> float:
        """Two images that are nearer than this show the same thing again: no two test images do."""
        square = np.square(self.looks).sum(axis=1)
        distances = square[:, None] + square - 2 * self.looks @ self.looks.T
        np.fill_diagonal(distances, np.inf)
        return float(np.sqrt(max(0.0, np.quantile(distances.min(axis=1), 0.05))) / 2)

    def compare(self, looks: Float32, answers: Float32) -> Drift:
        """Compare M images with those of the reference, in a tenth of a second.

        Args:
            looks: float32 [M, P], see `project`; M >= FEWEST. Of very many, a sample is compared.
            answers: their probabilities, float32 [M, K].
        """
        rows = _drawn(len(looks), MOST)
        looks, answers = looks[rows], answers[rows]
        generator = np.random.default_rng(0)
        n, m = len(self.looks), len(looks)
        frequencies = generator.normal(0, np.sqrt(2), (looks.shape[1], FREQUENCIES)).astype(np.float32)
        everything, both = np.concatenate([self.looks, looks]), np.concatenate([self.answers, answers])
        angles = everything @ frequencies
        gaussian = np.concatenate([np.cos(angles), np.sin(angles)], axis=1) / np.sqrt(FREQUENCIES)
        seen = np.concatenate([everything, gaussian, both / (both.std(axis=0) + 1e-6)], axis=1)
        seen -= seen.mean(axis=0)  # then the sum over one side is minus that over the other
        is_other = np.repeat(np.array([0, 1], np.float32), [n, m])
        found = _statistics(is_other[None] @ seen, classes=both.shape[1])
        beaten = np.zeros(2, int)
        for _ in range(0, DIVISIONS, _AT_ONCE):
            divided = generator.permuted(np.tile(is_other, (_AT_ONCE, 1)), axis=1)
            beaten += (_statistics(divided @ seen, classes=both.shape[1]) >= found * (1 - 1e-6)).sum(axis=0)
        looks_p, answers_p = (1 + beaten) / (1 + DIVISIONS)
        usual, shares = self.answers.mean(axis=0, dtype=np.float64), answers.mean(axis=0, dtype=np.float64)
        most = int(np.abs((is_other @ seen)[-both.shape[1] :]).argmax())
        return Drift(m, float(looks_p), float(answers_p), shares, usual, most)


_ARRAYS = ("mean", "directions", "looks", "answers")


def _read(content: bytes) -> dict[str, Any]:
    """The arrays of a file of NumPy's, none of them an object, and all together no larger than allowed."""
    with zipfile.ZipFile(io.BytesIO(content)) as members:
        if sum(member.file_size for member in members.infolist()) > _MAX_BYTES:
            raise ValueError(f"it holds more than {_MAX_BYTES:,} bytes")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in ("files", *_ARRAYS)}


def _belongs_to(files: Mapping[str, str]) -> str:
    return json.dumps(files, sort_keys=True)


def _statistics(sums: Float32, *, classes: int) -> Float32:
    """How much the looks and the answers differ, [R, 2], by the sums over one side, [R, . + K]."""
    looks, answers = np.split(sums, [sums.shape[1] - classes], axis=1)
    return np.stack([np.square(looks).sum(axis=1), np.abs(answers).max(axis=1)], axis=1)


def _percent(share: float) -> str:
    return f"{share:.1%}" if share >= 0.01 else f"{100 * share:.2g}%"


def _drawn(count: int, most: int) -> np.ndarray:
    """Up to `most` of the numbers below `count`, drawn at random but always the same."""
    return np.sort(np.random.default_rng(0).permutation(count)[:most])
