"""Images worth a second look: small, blurred, dark, bright, almost uniform, of odd shape, or the only ones in colour.

No image is left out for this: in some data sets, images are rightly dark, blurred or tiny. The limits for light, shape
and information are those of CleanVision (https://github.com/cleanlab/cleanvision); sharpness is relative to an image's
own contrast, so that dim and bright pictures are judged alike.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from PIL import Image, ImageChops

from libraries.base.arrays import Float32, Float64, Pixels
from libraries.base.tables import Column, read_table
from libraries.data.images import SMALL

Finding = Literal["small", "blurred", "dark", "bright", "uniform", "odd shape", "odd colour"]

MIN_SIDE = 64  # pixels of the shorter side of the picture
MIN_SHARPNESS = 0.004  # see Measures; photographs blurred by 1/100 of their side have 0.001, solar cells 0.01 and more
MAX_DARK, MIN_BRIGHT = 0.32, 0.95  # of `dark` and `bright`, see Measures
MIN_ENTROPY = 3.0  # bits
MIN_SHAPE = 0.35  # shorter / longer side
MOST = 0.95  # if this share of a data set is in colour, or gray, the others are odd
COLOURFUL = 6  # gray levels between the channels; smaller differences come from JPEG's rounding


@dataclass(frozen=True, slots=True)
class Measures:
    """The measurements of an image.

    Attributes:
        width, height: of the upright picture, pixels.
        sharpness: variance of the Laplacian by the variance of the gray levels; None where they hardly vary.
        dark, bright: 99th and 5th percentile of the gray levels, 0..1.
        entropy: of the histogram of gray levels, bits.
        is_gray: whether all channels are nearly equal.
    """

    width: int
    height: int
    sharpness: float | None
    dark: float
    bright: float
    entropy: float
    is_gray: bool


def measure(image: Pixels, *, size: tuple[int, int]) -> Measures:
    """Measure an upright RGB image, uint8 [H, W, 3], at one scale for all (see `images.inspect`).

    Takes about a millisecond.

    Args:
        size: width and height of the original picture [pixels].
    """
    small = Image.fromarray(image)
    small.thumbnail((SMALL, SMALL), Image.Resampling.BICUBIC, reducing_gap=2.0)
    gray = small.convert("L")
    shares = np.array(gray.histogram()) / (gray.width * gray.height)
    red, green, blue = small.split()
    highest = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    lowest = ImageChops.darker(ImageChops.darker(red, green), blue)
    spread = np.array(ImageChops.difference(highest, lowest).histogram()) / (gray.width * gray.height)
    return Measures(
        *size,
        sharpness=_sharpness(np.asarray(gray, np.float32)),
        dark=_level(shares, 0.99) / 255,
        bright=_level(shares, 0.05) / 255,
        entropy=float(-(shares[shares > 0] * np.log2(shares[shares > 0])).sum()),
        is_gray=_level(spread, 0.99) < COLOURFUL,
    )


def _level(shares: Float64, fraction: float) -> int:
    """The gray level that this fraction of the pixels does not exceed."""
    return int(np.searchsorted(shares.cumsum(), fraction - 1e-9))


def _sharpness(gray: Float32) -> float | None:
    variance = float(gray.var())
    if variance < 1 or min(gray.shape) < 3:
        return None
    laplacian = -4 * gray[1:-1, 1:-1]
    for neighbours in (gray[1:-1, :-2], gray[1:-1, 2:], gray[:-2, 1:-1], gray[2:, 1:-1]):
        laplacian += neighbours
    return float(laplacian.var()) / variance


@dataclass(frozen=True)
class QualityRow:
    """A row of quality.csv: a finding about an image."""

    path: Annotated[str, Column("path of the image, relative to the folder of the data set")]
    finding: Annotated[Finding, Column("what is unusual about it")]
    value: Annotated[
        float,
        Column("the measured value; for 'odd colour', 1 is gray, 0 is in colour"),
    ]


def findings(measures: Measures) -> dict[Finding, float]:
    """The findings about one image, each with the value that exceeds its limit."""
    shorter, longer = sorted((measures.width, measures.height))
    values: dict[Finding, float] = {}
    if shorter < MIN_SIDE:
        values["small"] = shorter
    if shorter < MIN_SHAPE * longer:
        values["odd shape"] = shorter / longer
    if measures.entropy < MIN_ENTROPY:
        values["uniform"] = measures.entropy
    elif measures.sharpness is not None and measures.sharpness < MIN_SHARPNESS:
        values["blurred"] = measures.sharpness
    if measures.dark < MAX_DARK:
        values["dark"] = measures.dark
    if measures.bright > MIN_BRIGHT:
        values["bright"] = measures.bright
    return values


def review(measured: Mapping[str, Measures]) -> list[QualityRow]:
    """The rows of quality.csv, by finding, the most extreme first."""
    rows = [
        QualityRow(path, finding, round(value, 4))
        for path, measures in measured.items()
        for finding, value in findings(measures).items()
    ]
    kinds = Counter(measures.is_gray for measures in measured.values())
    if len(kinds) == 2:
        (most, count), (_, others) = kinds.most_common()
        if count >= MOST * (count + others):
            odd = ((path, measures.is_gray) for path, measures in measured.items() if measures.is_gray != most)
            rows += [QualityRow(path, "odd colour", int(is_gray)) for path, is_gray in odd]
    return sorted(rows, key=lambda row: (row.finding, -row.value if row.finding == "bright" else row.value))


def summary(rows: Sequence[QualityRow]) -> str:
    """How many images have each finding, as a sentence."""
    counts = Counter(row.finding for row in rows)
    found = ", ".join(f"{images:,} {finding}" for finding, images in counts.items())
    return f"Worth a second look: {found or 'nothing'}" + (" (showImages.ipynb shows them)" if found else "")


def read_review(path: Path) -> dict[str, list[str]]:
    """The paths in quality.csv by finding, in its order; empty if there is no such file."""
    paths: dict[str, list[str]] = {}
    if path.exists():
        for row in read_table(path, _PathAndFinding, advice="run scripts/1_prepareData.py again"):
            paths.setdefault(row.finding, []).append(row.path)
    return paths


@dataclass(frozen=True)
class _PathAndFinding:
    """The columns of quality.csv that are needed; earlier versions wrote its values differently."""

    path: str
    finding: str
