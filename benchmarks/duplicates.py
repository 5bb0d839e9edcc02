"""Duplicates: recall for each way a picture changes, what is taken for a duplicate on the solar cells, time and memory.

    python benchmarks/duplicates.py [--images 100000] [--json results.json]

Recall and precision are of cuttings of scikit-learn's two photographs and of solar cells, each beside its variant. The
solar cells hold one module twice, sharp and blurred: cells 1734 to 1783 are cells 2276 to 2325 (found by eye, beginning
with what the search named). Targets: 100,000 fingerprints in minutes, under 4 GB; the search runs in a process of its
own, which reports its largest resident size.
"""

import argparse
import importlib.util
import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from common import write_results
from PIL import Image, ImageDraw, ImageEnhance, ImageFont, ImageOps

from libraries.base.console import table
from libraries.data.fingerprints import above_similarity, dhash, is_plain, mirrored, within_distance
from libraries.data.images import fit, tiny
from libraries.network.artefact import resize_rule
from libraries.network.backbones import load_pretrained
from libraries.network.engine import Engine
from libraries.network.export import export_onnx
from libraries.network.runners import INNER_MARGIN
from PARAMETERS import Parameters

PICTURES = 60
RE_SHOTS = [(first, first + 542) for first in range(1734, 1784)]  # cell numbers - 1
DISTANCES = (4, 8, 10, 12, 16, 24)
SIMILARITIES = (0.9, 0.95, 0.97, 0.98, 0.99)
PLANTED = 1000
TARGET_GB = 4.0

Picture = Image.Image
Views = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]  # whole and inner, [N, D] each
Embed = Callable[[Iterable[Picture]], Views]


def compressed(picture: Picture, quality: int) -> Picture:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def scaled(picture: Picture, factor: float) -> Picture:
    size = round(picture.width * factor), round(picture.height * factor)
    return picture.resize(size, Image.Resampling.BICUBIC)


def cropped(picture: Picture, part: float) -> Picture:
    x, y = round(picture.width * part / 2), round(picture.height * part / 2)
    return picture.crop((x, y, picture.width - x, picture.height - y))


def watermarked(picture: Picture) -> Picture:
    picture = picture.copy()
    font = ImageFont.load_default(size=max(8, picture.height // 14))
    place = picture.width * 0.5, picture.height * 0.88
    ImageDraw.Draw(picture, "RGBA").text(place, "© example.org", fill=(255, 255, 255, 170), font=font)
    return picture


VARIANTS: dict[str, Callable[[Picture], Picture]] = {
    "rescaled to 1/2": lambda p: scaled(p, 0.5),
    "rescaled to 1.7": lambda p: scaled(p, 1.7),
    "JPEG, quality 75": lambda p: compressed(p, 75),
    "JPEG, quality 30": lambda p: compressed(p, 30),
    "mirrored": ImageOps.mirror,
    "brightened by 30%": lambda p: ImageEnhance.Brightness(p).enhance(1.3),
    "watermark": watermarked,
    "cropped by 2%": lambda p: cropped(p, 0.02),
    "cropped by 5%": lambda p: cropped(p, 0.05),
    "cropped by 10%": lambda p: cropped(p, 0.1),  # what INNER_MARGIN is made for
    "cropped by 15%": lambda p: cropped(p, 0.15),
    "border of 2%": lambda p: ImageOps.expand(p, round(0.02 * p.width), "white"),
    "border of 5%": lambda p: ImageOps.expand(p, round(0.05 * p.width), "white"),
}


def photographs() -> list[Picture]:
    """Cuttings of two photographs; some overlap, so that they say nothing about precision."""
    from sklearn.datasets import load_sample_images

    generator = np.random.default_rng(0)
    sources = [Image.fromarray(pixels) for pixels in load_sample_images().images]  # 640 x 427
    found = []
    for i in range(PICTURES):
        width, height = generator.uniform(200, 500), generator.uniform(150, 300)
        left, top = generator.uniform(0, 640 - width), generator.uniform(0, 427 - height)
        found.append(sources[i % 2].crop((int(left), int(top), int(left + width), int(top + height))))
    return found


def solar_cells() -> list[Picture]:
    """All of them, in the order of their numbers."""
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None or spec.origin is None:
        sys.exit("the solar cells come in the package elpv-dataset: pip install -r requirements-demo.txt")
    files = sorted((Path(spec.origin).parent / "data" / "images").glob("*.png"))
    return [Image.open(file).convert("RGB") for file in files]


def embedder(folder: Path) -> Embed:
    """Pictures → embeddings of the default network, whole and inner."""
    parameters = Parameters.load()
    network = load_pretrained(parameters.rf_pretrainedModelFilename, input_size=parameters.rf_inputResolution)
    export_onnx(network, folder / "model.onnx")
    engine, rule = Engine(folder / "model.onnx"), resize_rule(network, parameters.rf_resizeMode)

    def embed(pictures: Iterable[Picture]) -> Views:
        views = [view for picture in pictures for view in (picture, cropped(picture, 2 * INNER_MARGIN))]
        rows = engine.stream(views, lambda picture: fit(np.asarray(picture), rule))
        found = np.stack([outputs["embedding"] for _, outputs in rows if isinstance(outputs, dict)])
        return found[::2], found[1::2]

    return embed


def tinies(pictures: Iterable[Picture]) -> npt.NDArray[np.uint8]:
    return np.stack([tiny(np.asarray(picture)) for picture in pictures])


def distances(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Between the rows of two sets of tiny pictures, bits; 256 where one of them is plain."""
    hashes = dhash(other)
    upright, flipped = ((dhash(each) != hashes).sum(axis=1) for each in (one, mirrored(one)))
    return np.where(is_plain(one) | is_plain(other), 256, np.minimum(upright, flipped))


def recall(pictures: list[Picture], embed: Embed) -> dict[str, dict[str, float]]:
    """By variant and threshold, the part of pictures that are found in their variant."""
    small, embeddings = tinies(pictures), embed(pictures)
    found = {}
    for name, change in VARIANTS.items():
        changed = [change(picture) for picture in pictures]
        d, s = distances(small, tinies(changed)), similarities(embeddings, embed(changed))
        found[name] = {f"<= {most}": float((d <= most).mean()) for most in DISTANCES}
        found[name] |= {f">= {least}": float((s >= least).mean()) for least in SIMILARITIES}
    return found


def similarities(one: Views, other: Views) -> npt.NDArray[np.float64]:
    """Between the rows of two sets of embeddings."""
    count = len(one[0])
    pairs = (
        above_similarity([np.stack([a[i], b[i]]) for a, b in zip(one, other, strict=True)], least=-1.0)
        for i in range(count)
    )
    return np.array([pair.measure[0] for pair in pairs], np.float64)


def on_solar_cells(cells: list[Picture], embed: Embed) -> list[tuple[str, int, int, int]]:
    """By threshold: pairs, how many of them are of the module that is there twice, of neighbours, and others."""
    small = tinies(cells)
    near = within_distance(dhash(small), dhash(mirrored(small)), most=max(DISTANCES))
    scene = above_similarity(embed(cells), least=min(SIMILARITIES))
    rows = []
    for text, pairs in [(f"<= {most}", near.chosen(near.measure <= most)) for most in DISTANCES] + [
        (f">= {least}", scene.chosen(scene.measure >= least)) for least in SIMILARITIES
    ]:
        both = set(zip(pairs.one.tolist(), pairs.other.tolist(), strict=True))
        again = both & set(RE_SHOTS)
        beside = {(one, other) for one, other in both if other - one <= 10}
        rows.append((text, len(both), len(again), len(beside - again)))
    return rows


def precision() -> float:
    """Of the pairs found among different photographs and their variants, those that are of one photograph."""
    pictures = photographs_apart()
    everything = pictures + [change(p) for change in VARIANTS.values() for p in pictures]
    small = tinies(everything)
    pairs = within_distance(dhash(small), dhash(mirrored(small)), most=Parameters.load().duplicates_maxDistance)
    return float((pairs.one % len(pictures) == pairs.other % len(pictures)).mean())


def photographs_apart() -> list[Picture]:
    """Cuttings that do not overlap: 5 x 3 of each photograph."""
    from sklearn.datasets import load_sample_images

    boxes = [(x * 128, y * 142, x * 128 + 128, y * 142 + 142) for x in range(5) for y in range(3)]
    return [Image.fromarray(pixels).crop(box) for pixels in load_sample_images().images for box in boxes]


def search(count: int) -> dict[str, float]:
    """Random hashes with planted pairs, upright and mirrored: seconds, peak memory, and how many are found."""
    generator = np.random.default_rng(0)
    bits = generator.integers(0, 2, (count, 16, 16), np.uint8).astype(bool)
    rows = generator.permutation(count)[: 2 * PLANTED].reshape(2, PLANTED)
    most = Parameters.load().duplicates_maxDistance
    for i, (one, other) in enumerate(rows.T):
        copy = bits[one].copy()
        copy.flat[generator.choice(256, i % (most + 1), replace=False)] ^= True
        bits[other] = copy if i % 2 else ~copy[:, ::-1]  # what was brighter to the right is so to the left
    flat, flipped = bits.reshape(count, 256), ~bits[:, :, ::-1].reshape(count, 256)
    start = time.perf_counter()
    pairs = within_distance(flat, flipped, most=most)
    seconds = time.perf_counter() - start
    planted = {tuple(sorted(pair)) for pair in rows.T.tolist()}
    both = set(zip(pairs.one.tolist(), pairs.other.tolist(), strict=True))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {
        "images": count,
        "seconds": seconds,
        "peak_gb": peak / 1e9,
        "found": len(planted & both),
        "others": len(both - planted),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--search", action="store_true", help=argparse.SUPPRESS)  # in a process of its own
    options = parser.parse_args()
    if options.search:
        print(json.dumps(search(options.images)))
        return
    command = [sys.executable, __file__, "--search", "--images", str(options.images)]
    scale = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    cells = solar_cells()
    with tempfile.TemporaryDirectory() as folder:
        embed = embedder(Path(folder))
        recalls = {
            "photographs": recall(photographs(), embed),
            "solar cells": recall(cells[:: len(cells) // 60], embed),
        }
        pairs = on_solar_cells(cells, embed)
    for name, found in recalls.items():
        rows = [[variant, *(f"{part:.0%}" for part in parts.values())] for variant, parts in found.items()]
        print(table(f"Found, of {name}", ["within bits, cosine", *next(iter(found.values()))], rows) + "\n")
    precise = precision()
    print(f"Precision of near among photographs: {precise:.1%}\n")
    header = ["", "pairs", "of the 50 photographed twice", "beside each other"]
    print(table(f"Taken for duplicates among {len(cells):,} solar cells", header, pairs) + "\n")
    print(
        f"{scale['images']:,} fingerprints in {scale['seconds']:.0f} s, peak memory {scale['peak_gb']:.2f} GB (target "
        f"{TARGET_GB}): {scale['found']:,} of {PLANTED:,} planted pairs found, and {scale['others']:,} others"
    )
    write_results(options.json, {"recall": recalls, "precision": precise, "solar_cells": pairs, "scale": scale})


if __name__ == "__main__":
    main()
