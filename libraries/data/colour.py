"""Colour profiles (ICC): pictures in other colours, as phones (Display P3) and cameras (Adobe RGB) make them, to sRGB.

What browsers do: relative colorimetric, with black point compensation. Colours that sRGB has come out as they are and
the others as the nearest one; the perceptual intent would change them all, and profiles without tables, which nearly
all are, know no other than the colorimetric one anyway.

A profile that means sRGB costs a look-up. PNG's gAMA, cHRM and cICP, and the numbers that HEIC and AVIF may have in
place of a profile, are not heeded: hardly a file has them alone, and many have them wrong.
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
_KEPT = 16  # conversions; one from a press takes about 7 MB
_SAME = 3  # grey levels that sRGB may differ from sRGB: profiles describe its curve by tables of various lengths
_STEPS = 9  # of red, green and blue, where that is seen
_FLAGS = ImageCms.Flags.BLACKPOINTCOMPENSATION | ImageCms.Flags.NOCACHE  # without its cache any thread may use it

Conversion = Callable[[Image.Image], Image.Image]

_kept: OrderedDict[tuple[bytes, str], Conversion | None] = OrderedDict()
_lock = threading.Lock()


def to_srgb(profile: bytes | None, mode: str) -> Conversion | None:
    """What turns pictures of a mode from a profile's colours to sRGB; None if nothing is to be done.

    Args:
        profile: as it stands in the file; one that is damaged, too long, or for other pictures, is not heeded.
        mode: of the picture: L and RGB stay what they are, CMYK becomes RGB.
    """
    if not profile or len(profile) > MOST_BYTES:
        return None
    key = (hashlib.sha256(profile).digest(), mode)
    with _lock:
        if key in _kept:
            _kept.move_to_end(key)
            return _kept[key]
    try:
        conversion = _made(profile, mode)
    except Exception:  # damaged bytes may raise anything, and are no reason to refuse the pixels
        conversion = None
    with _lock:
        _kept[key] = conversion
        while len(_kept) > _KEPT:
            _kept.popitem(last=False)
    return conversion


def _made(profile: bytes, mode: str) -> Conversion | None:
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
    """The same for pictures in gray, by a table of 256 levels."""
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    table = np.asarray(convert(ramp if is_gray else ramp.convert("RGB")))[0, :, 1]
    if _is_same(np.asarray(ramp)[0], table):
        return None
    levels = table.tolist()
    return lambda image: image.point(levels)


def _is_same(before: npt.NDArray[np.uint8], after: Image.Image | npt.NDArray[np.uint8]) -> bool:
    return int(np.abs(before.astype(int) - np.asarray(after).astype(int)).max()) <= _SAME
