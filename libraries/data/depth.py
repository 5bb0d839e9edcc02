"""Pictures of more than 8 bits per channel: the range of their values, and their conversion to 8 bits.

A 16-bit file does not say how much of its range is used: a 12-bit camera gives 4,095 at most, which is nearly black on
the scale of 16 bits. So script 1 measures the values of all images, and takes the smallest of 8, 10, 12, 14 and 16 bits
that covers them: the white level. A level for each image would make dark pictures bright, and pictures of one camera
incomparable. Including test images is no leak: the level is a property of the files.

- Values above the level become white. Hot pixels do not count: up to one pixel in 10,000 of an image may lie above it.
- If a TIFF declares its largest value (MaxSampleValue), that counts. PNG's sBIT does not: PNG values are spread over
  all 16 bits, however many are significant.
- At full range, 65,535, there is no common scale for 32-bit integers outside 0..65535 and floats outside 0..255: each
  such image is stretched from its smallest to its largest value. At any other level, that is white for them, too.
- In floats within 0..1, white is always 1.

Large pictures are converted in strips: as one array of wide numbers they would take many times their memory.
"""

import io
import itertools
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops

from libraries.base.console import counted

STRIP_PIXELS = 2**16  # 0.5 MB as float64

Region = tuple[int, int, int, int]  # left, top, right, bottom

FULL_RANGE = 65535  # the default, also for bundles and data sets of earlier versions
LEVELS = (255, 1023, 4095, 16383, FULL_RANGE)  # of 8, 10, 12, 14 and 16 bits
_FEW = 10  # warn if one in so many images, or fewer, decides the level for all
_MAX_SAMPLE_VALUE = (281, 341)  # tags of a TIFF: for integers, and for values of any type
_TOLERANCE = 1e-4  # fraction of an image's pixels that may lie above its level
# Of 16-bit colours, Pillow keeps the upper bytes. Read in the opposite byte order, these are the lower bytes. Gray with
# alpha is read as four bytes, of which the second is the lower byte of gray.
_GRAY_WITH_ALPHA = "LA;16B"
_OTHER_ORDER = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}
_LOWER_BYTES = {
    _GRAY_WITH_ALPHA: "RGBA",
    **{f"{mode};16{o}": f"{mode};16{other}" for mode in ("RGB", "RGBX", "RGBA") for o, other in _OTHER_ORDER.items()},
}


def strips(size: tuple[int, int]) -> Iterator[Region]:
    """Yield regions of at most `STRIP_PIXELS`, as wide as possible, that cover a picture of this width and height."""
    width, height = size
    across = min(width, STRIP_PIXELS)
    down = max(1, STRIP_PIXELS // width)
    for top, left in itertools.product(range(0, height, down), range(0, width, across)):
        yield left, top, min(left + across, width), min(top + down, height)


def in_strips(image: Image.Image, mode: str, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """The picture that `convert` makes, strip by strip; `mode` is its mode in Pillow."""
    converted = Image.new(mode, image.size)
    for region in strips(image.size):
        converted.paste(convert(image.crop(region)), region)
    return converted


def rgb_pixels(image: Image.Image) -> npt.NDArray[np.uint8]:
    """A picture of mode L or RGB as uint8 [H, W, 3]."""
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for left, top, right, bottom in strips(image.size):
        pixels[top:bottom, left:right] = np.asarray(image.crop((left, top, right, bottom)).convert("RGB"))
    return pixels


class Depth(NamedTuple):
    """The range of the values of a picture of more than 8 bits.

    Attributes:
        level: the smallest of LEVELS that covers them; None: they do not count for the data set's level.
        is_stretched: whether, at full range, it is stretched from its smallest to its largest value.
    """

    level: int | None
    is_stretched: bool = False


@dataclass(frozen=True)
class WhiteLevel:
    """The value that is white in the files of a data set, and where it comes from.

    Attributes:
        level: the value.
        is_given: whether the user set it.
        depths: of all images of more than 8 bits, by path.
        labels: of these, by path; those of others may be missing.
    """

    level: int
    is_given: bool
    depths: Mapping[str, Depth]
    labels: Mapping[str, str]

    @classmethod
    def of(
        cls, depths: Mapping[str, Depth], *, given: int | None = None, labels: Mapping[str, str] | None = None
    ) -> "WhiteLevel":
        """The white level of a data set: `given` by the user, or else the highest of the depths."""
        measured = max((depth.level for depth in depths.values() if depth.level), default=FULL_RANGE)
        return cls(given or measured, given is not None, depths, labels or {})

    def to_json(self) -> dict[str, int]:
        """Its entry in examples.json; none at full range, as in earlier versions."""
        return {} if self.level == FULL_RANGE else {"white_level": self.level}

    def summary_lines(self) -> list[str]:
        """Lines about the white level, and the images for which it is doubtful."""
        reaching = {path: depth.level for path, depth in self.depths.items() if depth.level}
        lines = self._lines_if_given(reaching) if self.is_given else self._lines_if_measured(reaching)
        stretched = [path for path, depth in self.depths.items() if depth.is_stretched]
        if stretched and self.level == FULL_RANGE:
            lines.append(
                f"Warning: values of unknown range in {counted(len(stretched), 'image')}, e.g. {stretched[0]}: each "
                "is stretched from its smallest to its largest value, so that brightness means nothing; set whiteLevel "
                "to give all the same scale"
            )
        return lines

    def _lines_if_given(self, reaching: Mapping[str, int]) -> list[str]:
        if not self.depths:
            return []
        lines = [f"whiteLevel: {self.level:,} is white in {counted(len(self.depths), 'image')} of more than 8 bits"]
        if beyond := [path for path, level in reaching.items() if _below(level) >= self.level]:
            lines.append(f"Warning: brighter pixels in {len(beyond):,} of them, e.g. {beyond[0]}")
        return lines

    def _lines_if_measured(self, reaching: Mapping[str, int]) -> list[str]:
        count = Counter(reaching.values())
        lines = []
        if count and self.level != FULL_RANGE:
            bits = self.level.bit_length()
            lines.append(f"{bits}-bit values in files of more bits: {self.level:,} is taken as white")
        if len(count) > 1 and count[self.level] * _FEW <= len(reaching):
            second = sorted(count)[-2]
            first = next(path for path, level in reaching.items() if level == self.level)
            lines.append(
                f"Warning: of {len(reaching):,} images of more than 8 bits only {count[self.level]:,} have values "
                f"above {second:,}, e.g. {first}: because of them {self.level:,} is white, and the others are dark. If "
                f"they come from another camera, remove them, or set whiteLevel = {second}"
            )
        else:
            lines += self._lines_by_class(reaching)
        return lines

    def _lines_by_class(self, reaching: Mapping[str, int]) -> list[str]:
        """A warning where the images of a class have a range of their own, as those of another camera do."""
        highest: dict[str, int] = {}
        for path, level in reaching.items():
            if path in self.labels:
                highest[self.labels[path]] = max(level, highest.get(self.labels[path], 0))
        darker = sorted(label for label, level in highest.items() if level < self.level)
        if not darker:
            return []
        brighter = next(label for label, level in highest.items() if level == self.level)
        return [
            f"Warning: values up to {highest[darker[0]]:,} in all images of '{darker[0]}' of more than 8 bits, but up "
            f"to {self.level:,} in '{brighter}': if they come from another camera, brightness alone tells these "
            "classes apart; bring their values to one scale"
        ]


def _below(level: int) -> int:
    """The next lower level, which a picture of this level exceeds."""
    return max((lower for lower in LEVELS if lower < level), default=0)


def is_deep_gray(image: Image.Image) -> bool:
    """Whether a picture is gray of 16 or 32 bits."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def has_deep_colours(image: Image.Image) -> bool:
    """Whether a picture, not yet decoded, has 16 bits per colour."""
    return bool(image.tile) and all(_raw_mode(tile.args) in _LOWER_BYTES for tile in image.tile)  # type: ignore[attr-defined]


def gray_depth(image: Image.Image) -> Depth:
    """The depth of a picture for which `is_deep_gray`."""
    low, high = _extrema(image)
    if low < 0 or high > FULL_RANGE:
        return Depth(None, is_stretched=True)
    if image.mode == "F" and high <= LEVELS[0]:
        return Depth(None)
    above = dict.fromkeys(LEVELS, 0)
    for region in strips(image.size):
        values = _values(image.crop(region))
        for level in LEVELS:
            above[level] += int(np.count_nonzero(values > level))
    level = _reached(above, image)
    if image.mode == "F":  # except for a few pixels, its range may be 0..1 or 0..255
        return Depth(level if level > LEVELS[0] else None, is_stretched=True)
    return Depth(level)


def colour_depth(image: Image.Image) -> Depth:
    """The depth of a picture with 16 bits per colour, from their upper bytes."""
    red, green, blue = image.split()[:3]
    brightest = ImageChops.lighter(ImageChops.lighter(red, green), blue).histogram()
    return Depth(_reached({level: sum(brightest[(level + 1) // 256 :]) for level in LEVELS}, image))


def _reached(above: Mapping[int, int], image: Image.Image) -> int:
    """The smallest level that covers the largest value the file declares, and all values except those of a few pixels.

    Args:
        above: how many pixels are above each level.
    """
    allowed = _TOLERANCE * image.width * image.height
    return max(_declared(image), next(level for level, count in above.items() if count <= allowed))


def _declared(image: Image.Image) -> int:
    """The level of the largest value that a TIFF declares; 0 if there is none, or it is that of the format."""
    tags = getattr(image, "tag_v2", {})
    try:
        largest = max(float(np.max(tags[tag])) for tag in _MAX_SAMPLE_VALUE if tag in tags)
    except Exception:  # no such tag, or a damaged one, which may raise anything
        return 0
    return next((level for level in LEVELS[:-1] if largest <= level), 0)


def gray_in_8_bits(image: Image.Image, white_level: int) -> Image.Image:
    """A picture for which `is_deep_gray`, converted to mode L."""
    black, white = (0.0, float(white_level)) if image.mode not in ("I", "F") else _range(image, white_level)
    scale = 255 / ((white - black) or 1)

    def convert(strip: Image.Image) -> Image.Image:
        values = _values(strip)
        if values.dtype.kind == "u":
            scaled = np.minimum(values, min(white_level, FULL_RANGE)) * np.float32(scale)
        else:
            scaled = (np.clip(values.astype(np.float64), black, white) - black) * scale
        return Image.fromarray(np.rint(scaled).astype(np.uint8))

    return in_strips(image, "L", convert)


def _range(image: Image.Image, white_level: int) -> tuple[float, float]:
    """The 32-bit values that become black and white."""
    low, high = _extrema(image)
    if image.mode == "F" and low >= 0 and high <= 1:
        return 0.0, 1.0
    if white_level != FULL_RANGE:
        return 0.0, float(white_level)
    top = 255.0 if image.mode == "F" else float(FULL_RANGE)
    return (0.0, top) if low >= 0 and high <= top else (low, high)


def _extrema(image: Image.Image) -> tuple[float, float]:
    extrema = [(values.min(), values.max()) for values in (_values(image.crop(r)) for r in strips(image.size))]
    return float(min(low for low, _ in extrema)), float(max(high for _, high in extrema))


def _values(strip: Image.Image) -> npt.NDArray[Any]:
    """The values of a deep gray picture, uint16, int32 or float32 [H, W]; those that are not finite become 0."""
    values = np.asarray(strip)
    return np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0) if values.dtype.kind == "f" else values


def scale_colours(image: Image.Image, data: bytes, white_level: int) -> None:
    """Scale the colours of a decoded picture with 16 bits per colour, in place, so that `white_level` is white.

    Args:
        image: with the upper bytes.
        data: the file's content, from which the lower bytes are decoded.
    """
    with Image.open(io.BytesIO(data), formats=(str(image.format),)) as lower:
        is_gray = _raw_mode(lower.tile[0].args) == _GRAY_WITH_ALPHA
        lower.tile = [tile._replace(args=_of_lower_bytes(tile.args)) for tile in lower.tile]
        lower.decodermaxblock = len(data)
        lower.load()
        for region in strips(image.size):
            upper_bytes = np.asarray(image.crop(region))  # [h, w, 3 or 4]
            lower_bytes = np.asarray(lower.crop(region))[..., 1:2] if is_gray else np.asarray(lower.crop(region))
            scaled = upper_bytes.copy()  # with alpha, which uses all 16 bits anyway
            values = 256 * upper_bytes[..., :3].astype(np.uint16) + lower_bytes[..., :3]
            white = min(white_level, FULL_RANGE)
            scaled[..., :3] = np.rint(np.minimum(values, white) * np.float32(255 / white_level))
            image.paste(Image.fromarray(scaled), region)


def _raw_mode(arguments: Any) -> str:
    """Pillow's name for how it unpacks the pixels of a part of a file."""
    return arguments if isinstance(arguments, str) else arguments[0] if arguments else ""


def _of_lower_bytes(arguments: Any) -> Any:
    other = _LOWER_BYTES[_raw_mode(arguments)]
    return other if isinstance(arguments, str) else (other, *arguments[1:])
