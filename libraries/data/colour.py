"""Colour profiles (ICC): converts pictures, such as those of phones (Display P3) and cameras (Adobe RGB), to sRGB.

The intent is that of browsers: relative colorimetric, with black point compensation. Colours within sRGB stay the same,
others become the nearest one. The perceptual intent would change all colours, and nearly all profiles have no tables
for it anyway.

A profile that means sRGB costs one look-up. PNG's gAMA, cHRM and cICP, and the numbers that HEIC and AVIF may have
instead of a profile, are ignored: hardly any file has them alone, and many have wrong ones.
"""

import hashlib
import io
import threading
from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

MOST_BYTES = 4 * 2**20  # of a profile; those of printing presses have up to 3 MB
_MOST_CACHED = 16  # conversions; one for a printing press takes about 7 MB
_SAME = 3  # grey levels by which profiles of sRGB may differ: they describe its curve by tables of various lengths
_STEPS = 9  # of red, green and blue, at which profiles are compared
_FLAGS = ImageCms.Flags.BLACKPOINTCOMPENSATION | ImageCms.Flags.NOCACHE  # thread-safe without its cache

Conversion = Callable[[Image.Image], Image.Image]

_cache: OrderedDict[tuple[bytes, str], Conversion | None] = OrderedDict()
_lock = threading.Lock()


def to_srgb(profile: bytes | None, mode: str) -> Conversion | None:
    """The conversion of pictures of a mode from a profile's colours to sRGB; None if none is needed.

    Args:
        profile: its bytes in the file; ignored if damaged, too long, or for another mode.
        mode: of the picture: L and RGB stay what they are, CMYK becomes RGB.
    """
    if not profile or len(profile) > MOST_BYTES:
        return None
    key = (hashlib.sha256(profile).digest(), mode)
    with _lock:
        if key in _cache:
            _cache.move_to_end(key)
            return _cache[key]
    try:
        conversion = _conversion(profile, mode)
    except Exception:  # a damaged profile may raise anything, and is no reason to refuse the pixels
        conversion = None
    with _lock:
        _cache[key] = conversion
        while len(_cache) > _MOST_CACHED:
            _cache.popitem(last=False)
    return conversion


def _conversion(profile: bytes, mode: str) -> Conversion | None:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    space = source.profile.xcolor_space.strip()
    if mode == "CMYK" and space == "CMYK":
        return _transform(source, "CMYK")
    if mode == "RGB" and space == "RGB":
        convert = _transform(source, "RGB")
        levels = np.linspace(0, 255, _STEPS).astype(np.uint8)
        sample = np.stack(np.meshgrid(levels, levels, levels), 3).reshape(_STEPS, -1, 3)
        return None if _is_same(sample, convert(Image.fromarray(sample))) else convert
    if mode == "L" and space in ("GRAY", "RGB"):
        return _of_gray(_transform(source, "L" if space == "GRAY" else "RGB"), is_gray=space == "GRAY")
    return None


def _transform(source: ImageCms.ImageCmsProfile, mode: str) -> Conversion:
    transform = ImageCms.buildTransform(
        source, ImageCms.createProfile("sRGB"), mode, "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC, _FLAGS
    )
    return transform.apply


def _of_gray(convert: Conversion, *, is_gray: bool) -> Conversion | None:
    """The conversion of gray pictures, as a table of 256 levels; None if it changes nothing."""
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    table = np.asarray(convert(ramp if is_gray else ramp.convert("RGB")))[0, :, 1]
    if _is_same(np.asarray(ramp)[0], table):
        return None
    levels = table.tolist()
    return lambda image: image.point(levels)


def _is_same(before: npt.NDArray[np.uint8], after: Image.Image | npt.NDArray[np.uint8]) -> bool:
    return int(np.abs(before.astype(int) - np.asarray(after).astype(int)).max()) <= _SAME
