"""Colour profiles, made from their numbers."""

import itertools
import struct
from collections.abc import Callable, Sequence

import numpy as np

D50 = np.array([0.9642, 1.0, 0.8249])  # the white of profiles
D65 = (0.3127, 0.3290)
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def srgb_curve(value: float) -> float:
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4


def _tags(tags: dict[bytes, bytes], *, space: bytes, of: bytes = b"mntr", to: bytes = b"XYZ ") -> bytes:
    """A profile of version 2 (ICC.1:2001-04)."""
    at, table, body = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, value in tags.items():
        table += name + struct.pack(">II", at + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    length = 128 + len(table) + len(body)
    head = struct.pack(">I4sI4s4s4s12s4s", length, bytes(4), 0x02400000, of, space, to, bytes(12), b"acsp")
    return head + bytes(68 - len(head)) + _fixed(D50) + bytes(128 - 80) + table + body


def _fixed(values: Sequence[float] | np.ndarray) -> bytes:
    return b"".join(struct.pack(">i", round(float(value) * 65536)) for value in values)


def _xyz(values: Sequence[float] | np.ndarray) -> bytes:
    return b"XYZ \0\0\0\0" + _fixed(values)


def _curve(curve: float | Callable[[float], float]) -> bytes:
    if not callable(curve):
        return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(curve * 256))
    levels = [round(65535 * curve(i / 1023)) for i in range(1024)]
    return b"curv\0\0\0\0" + struct.pack(">I1024H", 1024, *levels)


COMMON = {
    b"desc": b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(79),
    b"cprt": b"text\0\0\0\0none\0\0\0\0",
    b"wtpt": _xyz(D50),
}


def rgb_profile(
    primaries: Sequence[tuple[float, float]],
    curve: float | Callable[[float], float],
    white: tuple[float, float] = D65,
) -> bytes:
    """A profile of red, green and blue by their chromaticities x, y, and one curve, or a gamma."""
    adapted = _to_d50(primaries, white)
    colours = {name: _xyz(column) for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), adapted.T, strict=True)}
    curves = dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), _curve(curve))
    return _tags({**COMMON, **colours, **curves}, space=b"RGB ")


def _to_d50(primaries: Sequence[tuple[float, float]], white: tuple[float, float]) -> np.ndarray:
    """The matrix from linear red, green and blue to XYZ under the white of profiles."""

    def xyz(x: float, y: float) -> np.ndarray:
        return np.array([x / y, 1, (1 - x - y) / y])

    columns, whites = np.stack([xyz(*p) for p in primaries], 1), xyz(*white)
    columns = columns * np.linalg.solve(columns, whites)
    adapted: np.ndarray = np.linalg.inv(BRADFORD) @ np.diag(BRADFORD @ D50 / (BRADFORD @ whites)) @ BRADFORD @ columns
    return adapted


def press_profile(inks: dict[tuple[int, int, int, int], tuple[int, int, int]]) -> bytes:
    """A profile of a printing press: the sRGB colour of each of the 16 combinations of full inks, CMYK.

    Its table (lut8, ICC.1:2001-04, 6.5.8) has them in Lab, the last ink varying fastest.
    """
    matrix = _to_d50(SRGB_PRIMARIES, D65)
    table = bytearray()
    for combination in itertools.product((0, 1), repeat=4):
        linear = [srgb_curve(level / 255) for level in inks[combination]]
        x, y, z = (t ** (1 / 3) if t > 216 / 24389 else (24389 / 27 * t + 16) / 116 for t in matrix @ linear / D50)
        table += bytes(round(v) for v in ((116 * y - 16) * 2.55, 500 * (x - y) + 128, 200 * (y - z) + 128))
    straight = bytes(range(256))
    head = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + _fixed(np.eye(3).ravel())
    return _tags({**COMMON, b"A2B0": head + 4 * straight + table + 3 * straight}, space=b"CMYK", of=b"prtr", to=b"Lab ")


def gray_profile(gamma: float) -> bytes:
    return _tags({**COMMON, b"kTRC": _curve(gamma)}, space=b"GRAY")


SRGB_PRIMARIES = [(0.64, 0.33), (0.30, 0.60), (0.15, 0.06)]
SRGB = rgb_profile(SRGB_PRIMARIES, srgb_curve)
DISPLAY_P3 = rgb_profile([(0.68, 0.32), (0.265, 0.69), (0.15, 0.06)], srgb_curve)
ADOBE_RGB = rgb_profile([(0.64, 0.33), (0.21, 0.71), (0.15, 0.06)], 563 / 256)
PROPHOTO = rgb_profile([(0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001)], 1.8, white=(0.3457, 0.3585))
