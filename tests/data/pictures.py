"""Varied pictures, and what becomes of pictures as they travel."""

import functools
import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFont, ImageOps

Picture = Image.Image


@functools.cache
def scene(seed: int, *, size: tuple[int, int] = (320, 240)) -> Picture:
    """A different picture for every seed: light, shapes, stripes and grain. Do not draw on it: it is cached."""
    generator = np.random.default_rng(seed)
    width, height = size
    y, x = np.mgrid[:height, :width] / max(size)
    pixels = np.zeros((height, width, 3))
    for _ in range(12):  # waves of every direction and length
        direction, length = generator.uniform(0, np.pi), generator.uniform(0.06, 0.6)
        wave = np.sin(2 * np.pi * (x * np.cos(direction) + y * np.sin(direction)) / length + generator.uniform(0, 6))
        pixels += wave[..., None] * generator.uniform(0, 25, 3)
    picture = Image.fromarray((120 + pixels).clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for _ in range(10):
        left, top = generator.uniform(0, width), generator.uniform(0, height)
        box = (left, top, left + generator.uniform(10, width / 3), top + generator.uniform(10, height / 3))
        colour = tuple(int(level) for level in generator.integers(0, 256, 3))
        (draw.ellipse if generator.uniform() < 0.5 else draw.rectangle)(box, fill=colour)
    grain = generator.normal(0, 4, (height, width, 3))
    return Image.fromarray((np.asarray(picture) + grain).clip(0, 255).astype(np.uint8))


def recompressed(picture: Picture, quality: int) -> Picture:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def rescaled(picture: Picture, factor: float) -> Picture:
    width, height = picture.size
    return picture.resize((round(width * factor), round(height * factor)), Image.Resampling.BICUBIC)


def cropped(picture: Picture, part: float) -> Picture:
    """Without this part of the width and height, half of it on each side."""
    width, height = picture.size
    x, y = width * part / 2, height * part / 2
    return picture.crop((round(x), round(y), round(width - x), round(height - y)))


def watermarked(picture: Picture) -> Picture:
    picture = picture.copy()
    draw = ImageDraw.Draw(picture, "RGBA")
    font = ImageFont.load_default(size=picture.height // 14)
    draw.text((picture.width * 0.5, picture.height * 0.88), "© example.org", fill=(255, 255, 255, 170), font=font)
    return picture


VARIANTS: dict[str, Callable[[Picture], Picture]] = {
    "rescaled to 1/2": lambda p: rescaled(p, 0.5),
    "rescaled to 1.7": lambda p: rescaled(p, 1.7),
    "JPEG, quality 85": lambda p: recompressed(p, 85),
    "JPEG, quality 30": lambda p: recompressed(p, 30),
    "mirrored": ImageOps.mirror,
    "in gray": lambda p: p.convert("L").convert("RGB"),
    "brightened by 30%": lambda p: ImageEnhance.Brightness(p).enhance(1.3),
    "watermark": watermarked,
    "cropped by 2%": lambda p: cropped(p, 0.02),
    "cropped by 10%": lambda p: cropped(p, 0.1),
    "border of 5%": lambda p: ImageOps.expand(p, round(0.05 * p.width), "white"),
}
