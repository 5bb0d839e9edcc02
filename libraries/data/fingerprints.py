"""Fingerprints by which two files are known as one picture: a difference hash of 16 x 16, and its limits.

The difference hash (dhash; N. Krawetz, 'Kind of Like That', 2013) has 256 bits: whether the picture, as 17 x 16 gray
pixels, grows brighter from one pixel to the next in its row. Scaling, compression and colour hardly change it, nor
does brightness where nothing is clipped; cropping, borders and rotation do. It is the same as
`imagehash.dhash(image, hash_size=16)`, on the upright picture.
"""

import numpy as np
import numpy.typing as npt

from libraries.data.decoding import Pixels
from libraries.data.images import TINY

BITS = (TINY[0] - 1) * TINY[1]  # 256

# An image with fewer changes is too plain for its hash to tell it from others: a blank page, a gradient of light, one
# soft spot. Of the 2,624 solar cells, which are plain enough, the least has 61, a soft spot up to 53.
LEAST_CHANGES = 56

Bools = npt.NDArray[np.bool_]


def dhash(tiny: Pixels) -> Bools:
    """Difference hashes, bool [N, 256], of pictures uint8 [N, 16, 17] gray."""
    return (tiny[:, :, 1:] > tiny[:, :, :-1]).reshape(len(tiny), BITS)


def mirrored(tiny: Pixels) -> Pixels:
    """The pictures as a mirror shows them."""
    return tiny[:, :, ::-1]


def is_plain(tiny: Pixels) -> Bools:
    """Whether pictures have too little structure for a hash, bool [N].

    Counted is how often a comparison of two pixels (brighter, equal, darker) differs from the comparison below it or
    to the right of it, of 480. Of a blank image, and of a gradient, all are the same; those of noise are not, but
    noise makes hashes differ.
    """
    trend = np.sign(np.diff(tiny.astype(np.int16), axis=2))
    changes = (np.diff(trend, axis=1) != 0).sum(axis=(1, 2)) + (np.diff(trend, axis=2) != 0).sum(axis=(1, 2))
    return np.asarray(changes < LEAST_CHANGES)
