"""Pictures of more than 8 bits per channel, as Pillow decodes them: how far they reach, and their 8 bits.

What is white is decided for a whole data set: see `white_level`.
"""

import io
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops

from libraries.data.strips import in_strips, strips
from libraries.data.white_level import FULL_RANGE, LEVELS, Depth

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
    return Depth(_reached(above, image), is_stretched=image.mode == "F")


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
    except (TypeError, ValueError):  # no such tag, or text in it
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
