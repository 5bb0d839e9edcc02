"""Pictures of more than 8 bits per channel: how far their values reach, and how they become 8 bits.

A 16-bit file says how wide its values are stored, not how far they reach: a camera of 12 bits gives 4,095 at most,
which on the scale of 16 bits is nearly black. So script 1 looks how far the values of all images reach, and takes the
least of 8, 10, 12, 14 and 16 bits that holds them. A level for each image would make dark pictures bright, and pictures
of one camera incomparable. That test images have a say is no leak: the level is a property of the files.

- Values beyond the level become white. Hot pixels do not decide: what up to one pixel in 10,000 of an image has.
- Where a TIFF says its greatest value (MaxSampleValue), that counts. PNG's sBIT does not: there, values are spread over
  all 16 bits however many of them mean something.
- At full range, 65,535, there is no common scale for 32-bit integers outside 0..65535 and floats outside 0..255: each
  such image is stretched from its least to its greatest value. At any other level that one is white for them, too.
- Floats within 0..1 always have 1 for white.

Large pictures are converted strip by strip: a whole one as an array of wide numbers takes many times its memory.
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

PIXELS = 2**16  # at a time: 0.5 MB as float64

Region = tuple[int, int, int, int]  # left, top, right, bottom

FULL_RANGE = 65535  # where nothing is said, as in all bundles and data sets of earlier versions
LEVELS = (255, 1023, 4095, 16383, FULL_RANGE)  # of 8, 10, 12, 14 and 16 bits
_FEW = 10  # one in so many images, or fewer, that decide the level for all are worth a warning
_MAX_SAMPLE_VALUE = (281, 341)  # tags of a TIFF: of integers, of values of any type
_TOLERANCE = 1e-4  # of an image's pixels may be beyond its level
# Of 16-bit colours Pillow keeps the upper bytes. It knows both orders of bytes: read in the wrong one, they are the
# lower bytes. Gray with alpha is read as four bytes, of which the second is the lower one of gray.
_GRAY_WITH_ALPHA = "LA;16B"
_OTHER_ORDER = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}
_LOWER_BYTES = {
    _GRAY_WITH_ALPHA: "RGBA",
    **{f"{mode};16{o}": f"{mode};16{other}" for mode in ("RGB", "RGBX", "RGBA") for o, other in _OTHER_ORDER.items()},
}


def strips(size: tuple[int, int]) -> Iterator[Region]:
    """Parts of `PIXELS` pixels at most, as wide as may be, that make up a picture of this width and height."""
    width, height = size
    across = min(width, PIXELS)
    down = max(1, PIXELS // width)
    for top, left in itertools.product(range(0, height, down), range(0, width, across)):
        yield left, top, min(left + across, width), min(top + down, height)


def in_strips(image: Image.Image, mode: str, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """The picture that `convert` makes, part by part, of a mode of Pillow."""
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
    """How far the values of a picture of more than 8 bits reach.

    Attributes:
        level: the least of LEVELS that holds them; None: they have no part in the choice of the data set's level.
        is_stretched: at full range, it is stretched from its least to its greatest value.
    """

    level: int | None
    is_stretched: bool = False


@dataclass(frozen=True)
class WhiteLevel:
    """What is white in the files of a data set, and why.

    Attributes:
        level: the value.
        is_given: whether a person has said so.
        depths: of all images of more than 8 bits, by path.
    """

    level: int
    is_given: bool
    depths: Mapping[str, Depth]

    @classmethod
    def of(cls, depths: Mapping[str, Depth], *, given: int | None = None) -> "WhiteLevel":
        """The white level of images that belong together; `given`: by a person."""
        measured = max((depth.level for depth in depths.values() if depth.level), default=FULL_RANGE)
        return cls(given or measured, given is not None, depths)

    def to_json(self) -> dict[str, int]:
        """As it stands in examples.json; at full range nothing is said of it, as in earlier versions."""
        return {} if self.level == FULL_RANGE else {"white_level": self.level}

    def summary_lines(self) -> list[str]:
        """What is taken for white, and for which images that is doubtful, in sentences."""
        reaching = {path: depth.level for path, depth in self.depths.items() if depth.level}
        lines = self._lines_if_given(reaching) if self.is_given else self._lines_if_measured(reaching)
        stretched = [path for path, depth in self.depths.items() if depth.is_stretched]
        if stretched and self.level == FULL_RANGE:
            lines.append(
                f"Warning: values of no known range in {counted(len(stretched), 'image')}, e.g. {stretched[0]}: each "
                "is stretched from its least to its greatest value, so that brightness says nothing; whiteLevel gives "
                "all one white"
            )
        return lines

    def _lines_if_given(self, reaching: Mapping[str, int]) -> list[str]:
        if not self.depths:
            return []
        lines = [f"whiteLevel: {self.level:,} is white in {counted(len(self.depths), 'image')} of more than 8 bits"]
        if beyond := [path for path, level in reaching.items() if _below(level) >= self.level]:
            lines.append(f"Warning: {len(beyond):,} of them with brighter pixels, e.g. {beyond[0]}")
        return lines

    def _lines_if_measured(self, reaching: Mapping[str, int]) -> list[str]:
        count = Counter(reaching.values())
        lines = []
        if count and self.level != FULL_RANGE:
            bits = self.level.bit_length()
            lines.append(f"{bits}-bit values in 16-bit files: {self.level:,} is taken for white")
        if len(count) > 1 and count[self.level] * _FEW <= len(reaching):
            second = sorted(count)[-2]
            first = next(path for path, level in reaching.items() if level == self.level)
            lines.append(
                f"Warning: of {len(reaching):,} images of more than 8 bits only {count[self.level]:,} have values "
                f"above {second:,}, e.g. {first}: for their sake {self.level:,} is white, and the others are dark. If "
                f"they come from another camera, leave them out, or set whiteLevel = {second}"
            )
        return lines


def _below(level: int) -> int:
    """The next lower level: a picture that reaches `level` has greater values."""
    return max((lower for lower in LEVELS if lower < level), default=0)


def is_deep_gray(image: Image.Image) -> bool:
    """Whether a picture is gray of 16 or 32 bits."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def has_deep_colours(image: Image.Image) -> bool:
    """Whether a picture, not yet decoded, has 16 bits for each colour."""
    return bool(image.tile) and all(_raw_mode(tile.args) in _LOWER_BYTES for tile in image.tile)  # type: ignore[attr-defined]


def gray_depth(image: Image.Image) -> Depth:
    """How far a deep gray picture reaches."""
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
    if image.mode == "F":  # but for a few pixels its range may be 0..1 or 0..255
        return Depth(level if level > LEVELS[0] else None, is_stretched=True)
    return Depth(level)


def colour_depth(image: Image.Image) -> Depth:
    """How far the colours of a picture of 16 bits for each reach, by their upper bytes."""
    red, green, blue = image.split()[:3]
    brightest = ImageChops.lighter(ImageChops.lighter(red, green), blue).histogram()
    return Depth(_reached({level: sum(brightest[(level + 1) // 256 :]) for level in LEVELS}, image))


def _reached(above: Mapping[int, int], image: Image.Image) -> int:
    """The least level that holds what the file says is its greatest value, and all its values but for a few pixels.

    Args:
        above: how many pixels are beyond each level.
    """
    allowed = _TOLERANCE * image.width * image.height
    return max(_declared(image), next(level for level, count in above.items() if count <= allowed))


def _declared(image: Image.Image) -> int:
    """The level of what a TIFF says is its greatest value; 0 where it says nothing, or no more than its format."""
    tags = getattr(image, "tag_v2", {})
    try:
        said = max(float(np.max(tags[tag])) for tag in _MAX_SAMPLE_VALUE if tag in tags)
    except Exception:  # no such tag, or a damaged one, which raises almost anything
        return 0
    return next((level for level in LEVELS[:-1] if said <= level), 0)


def gray_in_8_bits(image: Image.Image, white_level: int) -> Image.Image:
    """A deep gray picture in mode L."""
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
    """Which values of 32 bits become black and white."""
    low, high = _extrema(image)
    if image.mode == "F" and low >= 0 and high <= 1:
        return 0.0, 1.0
    if white_level != FULL_RANGE:
        return 0.0, float(white_level)
    top = 255.0 if image.mode == "F" else float(FULL_RANGE)
    return (0.0, top) if low >= 0 and high <= top else (low, high)


def _extrema(image: Image.Image) -> tuple[float, float]:
    found = [(values.min(), values.max()) for values in (_values(image.crop(r)) for r in strips(image.size))]
    return float(min(low for low, _ in found)), float(max(high for _, high in found))


def _values(strip: Image.Image) -> npt.NDArray[Any]:
    """The numbers of a deep gray picture, uint16, int32 or float32 [H, W]; what is not finite is 0."""
    values = np.asarray(strip)
    return np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0) if values.dtype.kind == "f" else values


def scale_colours(image: Image.Image, data: bytes, white_level: int) -> None:
    """Scale the colours of a decoded picture with 16 bits for each, in place, so that `white_level` is white.

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
            scaled = upper_bytes.copy()  # with alpha, which has all 16 bits anyway
            values = 256 * upper_bytes[..., :3].astype(np.uint16) + lower_bytes[..., :3]
            white = min(white_level, FULL_RANGE)
            scaled[..., :3] = np.rint(np.minimum(values, white) * np.float32(255 / white_level))
            image.paste(Image.fromarray(scaled), region)


def _raw_mode(arguments: Any) -> str:
    """How Pillow unpacks the pixels of a part of a file, as it names it."""
    return arguments if isinstance(arguments, str) else arguments[0] if arguments else ""


def _of_lower_bytes(arguments: Any) -> Any:
    other = _LOWER_BYTES[_raw_mode(arguments)]
    return other if isinstance(arguments, str) else (other, *arguments[1:])
