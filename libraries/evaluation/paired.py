"""Two classifiers on the same images: how much better one is, and whether that may be chance.

Every test is paired, and whole groups are exchanged: by chance alone, each group of images could as well have been
answered the other way round by the two, so signs are flipped at random (a permutation test). What is tested together
is corrected for that (Holm 1979), so that among many classes and slices chance makes none look worse.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from libraries.base.arrays import Float64, Int

Verdict = Literal["better", "same", "worse"]

LEVEL = 0.05  # of the tests
FLIPS = 20_000  # random exchanges
EXACTLY = 14  # groups that differ: up to so many, all exchanges are counted


@dataclass(frozen=True)
class Difference:
    """Two classifiers on some of the test images.

    Attributes:
        of: all images, a class or a slice.
        kind: what it is a slice by; empty: of all.
        then, now: the accuracy, or the mean cost per image.
        gain: what the images gained on average: accuracy, or costs saved.
        margin: half the width of the 95% interval of that.
        p: the probability of such a difference by chance; of slices, for all of them together.
    """

    of: str
    kind: str
    images: int
    then: float
    now: float
    gain: float
    margin: float
    p: float

    @property
    def verdict(self) -> Verdict:
        """Better or worse, unless it may be chance."""
        if self.p > LEVEL or self.gain == 0:
            return "same"
        return "better" if self.gain > 0 else "worse"


def difference(
    of: str, kind: str, then: Float64, now: Float64, groups: Int, *, unit: float, rng: np.random.Generator
) -> Difference:
    """Of what the images are worth, [n].

    The interval is of the mean of correlated images, with one more image on either side that speaks for the one or the
    other (Agresti & Min 2005, 'Simple improved confidence intervals for comparing matched proportions',
    doi:10.1002/sim.1781), so that it is no point where nothing differs, and allows for a dear mistake that none of
    these images happened to be: it can hold 0 where the test finds a difference.

    Args:
        unit: what an image can be worth at most.
    """
    gain, count = now - then, len(now)
    by_group = np.bincount(groups, weights=gain)
    spread = by_group - gain.mean() * np.bincount(groups)
    margin = 1.96 * float(np.sqrt(np.square(spread).sum() + 2 * unit**2)) / (count + 2)
    p = exchanged(by_group[by_group != 0], rng=rng)
    return Difference(of, kind, count, float(then.mean()), float(now.mean()), float(gain.mean()), margin, p)


def exchanged(gains: Float64, *, rng: np.random.Generator) -> float:
    """How often a random exchange makes as large a difference, counting equal ones half (mid-p).

    Args:
        gains: [G], of the groups that differ.
    """
    if not len(gains):
        return 1.0
    if len(gains) <= EXACTLY:
        signs = np.array(list(itertools.product((-1.0, 1.0), repeat=len(gains))))
    else:
        signs = rng.choice((-1.0, 1.0), size=(FLIPS, len(gains)))
    found, there = np.abs(signs @ gains), abs(gains.sum())
    tolerance = 1e-9 * np.abs(gains).sum()
    beyond, equal = (found > there + tolerance).mean(), (np.abs(found - there) <= tolerance).mean()
    return float(min(1.0, beyond + equal / 2 + (0 if len(gains) <= EXACTLY else 1 / FLIPS)))


def holm(found: Sequence[Difference]) -> list[Difference]:
    """The same with the p of all of them together, in the same order."""
    adjusted = [each.p for each in found]
    largest = 0.0
    for rank, i in enumerate(sorted(range(len(found)), key=lambda i: found[i].p)):
        largest = max(largest, min(1.0, (len(found) - rank) * found[i].p))
        adjusted[i] = largest
    return [replace(each, p=p) for each, p in zip(found, adjusted, strict=True)]
