"""Downloading lists of URLs from a server on loopback: script 0 beside img2dataset, and memory over 100,000 URLs.

    python benchmarks/download.py [--img2dataset PYTHON] [--urls 5000] [--rounds 3] [--only speed | --only memory]
                                  [--json results.json]

speed:  'cameras' are photographs of 2 to 24 megapixels, which both scale down to a longer side of 1,000 pixels (JPEG,
        quality 95), and 'pages' pictures of 1,024 to 1,920 pixels, likewise; 'small' are pictures of 500 to 1,000
        pixels, which both decode and then keep as they are. For pages an 8th of --urls, for cameras a 15th. One
        program after the other, in rounds; ratios are medians of those within a round. img2dataset does nothing beyond
        that (no EXIF, no hashes) and has the best of several numbers of processes and threads; script 0 its defaults.
        Rates count from the first request until the last image is written: starting programs does not.
memory: the largest resident size of script 0, of the largest of its processes, over lists of tiny images: the first
        run, and another when all is done.

img2dataset runs in an environment of its own: that of the Python that is given, or a new one, which needs the network.
The hosts of the URLs are 127.0.0.1 to 127.0.0.16: Linux has them all.
"""

import argparse
import io
import itertools
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import circumstances, median_ratio, write_results
from downloading.contenders import (
    IMG2DATASET,
    Run,
    Web,
    img2dataset,
    new_environment,
    ours,
    peak_memory,
    serving,
    timed,
)
from PIL import Image, ImageOps

from libraries.base.console import table

PARTS = ("speed", "memory")
SIZES = {
    "cameras": ((6000, 4000), (4032, 3024), (3264, 2448), (2592, 1944), (1920, 1080)),
    "pages": ((1024, 768), (1200, 800), (1280, 960), (1600, 1067), (1920, 1280)),
    "small": ((1000, 750), (1000, 667), (800, 600), (640, 480), (500, 375)),
    "tiny": ((40, 30),),
}
SHARE = {"cameras": 15, "pages": 8, "small": 1}  # so many times fewer URLs than --urls
VARIANTS = 3  # files of each size
WORKERS = 16  # what script 0 has by default
CHOICES = ((1, 16), (2, 8), (2, 16), (4, 8))  # processes, threads of each
TARGET = 1.5
LISTS = (1_000, 10_000, 30_000, 100_000)  # URLs
MB = 2**20


def mosaic(size: tuple[int, int], seed: int) -> bytes:
    """A JPEG as a camera writes it: details of photographs at their own scale, about 2 bits per pixel."""
    from sklearn.datasets import load_sample_images

    generator = np.random.default_rng(seed)
    sources = [Image.fromarray(pixels) for pixels in load_sample_images().images]  # 640 x 427
    canvas = Image.new("RGB", size)
    for x, y in itertools.product(range(0, size[0], 600), range(0, size[1], 400)):
        left, top = generator.integers(0, 40), generator.integers(0, 27)
        tile = sources[generator.integers(2)].crop((left, top, left + 600, top + 400))
        canvas.paste(ImageOps.mirror(tile) if generator.integers(2) else tile, (x, y))
    file = io.BytesIO()
    canvas.save(file, "JPEG", quality=90)
    return file.getvalue()


def photographs(folder: Path) -> dict[str, list[str]]:
    """Write the photographs of all lists; gives the names of each list's."""
    folder.mkdir()
    names: dict[str, list[str]] = {}
    for name, sizes in SIZES.items():
        for i, size in itertools.product(range(VARIANTS), sizes):
            file = folder / f"{size[0]}x{size[1]}-{i}.jpg"
            file.write_bytes(mosaic(size, i))
            names.setdefault(name, []).append(file.name)
    return names


def speed(
    python: Path, web: Web, names: dict[str, list[str]], folder: Path, *, urls: int, rounds: int
) -> dict[str, Any]:
    """Script 0 and img2dataset in turn, for every list; prints them as they come."""
    figures: dict[str, Any] = {}
    for name, share in SHARE.items():
        listed = web.urls(names[name], max(len(names[name]), urls // share))
        root = Path(tempfile.mkdtemp(dir=folder))  # stays: ext4 is slow for minutes where many files were deleted
        half = partial(timed, web=web, urls=listed[: len(listed) // 2], root=root)
        tried = {choice: half(theirs(python, choice)) for choice in CHOICES}
        best = max(tried, key=lambda choice: tried[choice].rate)
        contenders = {"img2dataset": theirs(python, best), "ours": partial(ours, workers=WORKERS)}
        halves = {"img2dataset": tried[best], "ours": half(contenders["ours"])}
        runs: dict[str, list[Run]] = {key: [] for key in contenders}
        for _ in range(rounds):
            for key, contender in contenders.items():
                runs[key].append(timed(contender, web=web, urls=listed, root=root))
        bare = web.bare_rate(names[name], min(2000, len(listed)))
        figures[name] = {
            "urls": len(listed),
            "bare": bare,
            "best": best,
            "rates": {key: [run.rate for run in each] for key, each in runs.items()},
            "cpu": {key: processor_time(each, halves[key]) for key, each in runs.items()},
            "ratio": median_ratio([1 / r.rate for r in runs["img2dataset"]], [1 / r.rate for r in runs["ours"]]),
        }
        figures[name]["cpu_ratio"] = figures[name]["cpu"]["img2dataset"] / figures[name]["cpu"]["ours"]
        title = (
            f"{name}: {len(listed):,} URLs, {rounds} rounds; img2dataset {best[0]} x {best[1]}, ours {WORKERS} threads"
        )
        rows = [row(key, each, figures[name]["cpu"][key]) for key, each in runs.items()]
        rows.append(["throwing all away", f"{bare:.0f}", "", ""])
        ratios = f"{figures[name]['ratio']:.2f} (target {TARGET})", f"{figures[name]['cpu_ratio']:.2f}", ""
        print(
            table(title, ["", "URLs/s (range)", "ms of CPU per URL", "kB per image"], rows, footer=["ratio", *ratios])
        )
        print(flush=True)
    return figures


def theirs(python: Path, choice: tuple[int, int]) -> Callable[[list[str], Path], list[Path]]:
    return partial(img2dataset, python, processes=choice[0], threads=choice[1])


def processor_time(runs: list[Run], half: Run) -> float:
    """Seconds per URL that a longer list takes more: so the start of a program does not count."""
    return (statistics.median(run.cpu for run in runs) - half.cpu) / (runs[0].urls - half.urls)


def row(title: str, runs: list[Run], cpu: float) -> list[str]:
    rates = [run.rate for run in runs]
    rate = f"{statistics.median(rates):.0f} ({min(rates):.0f} to {max(rates):.0f})"
    return [title, rate, f"{1000 * cpu:.1f}", f"{runs[0].bytes / runs[0].urls / 1000:.0f}"]


def memory(web: Web, names: list[str], root: Path) -> dict[str, dict[int, float]]:
    """MB that script 0 takes at most, by the number of URLs."""
    figures: dict[str, dict[int, float]] = {"first run": {}, "run again": {}}
    for count in LISTS:
        with tempfile.TemporaryDirectory(dir=root) as folder:
            for name in figures:
                figures[name][count] = peak_memory(web.urls(names, count), Path(folder), workers=WORKERS) / MB
    rows = [[name, *(f"{value:.0f}" for value in each.values())] for name, each in figures.items()]
    print(table("Peak memory [MB]", ["URLs", *(f"{count:,}" for count in LISTS)], rows))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--img2dataset", type=Path, metavar="PYTHON", help="the Python that has img2dataset")
    parser.add_argument("--urls", type=int, default=5000, help="of the list 'small'")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=PARTS, action="append", help="one part")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    parts = options.only or PARTS
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        names = photographs(root / "photographs")
        with serving(root / "photographs") as web:
            if "speed" in parts:
                python = options.img2dataset or new_environment(root / "img2dataset")
                figures["speed"] = speed(python, web, names, root, urls=options.urls, rounds=options.rounds)
                print(f"{IMG2DATASET}; {circumstances()['machine']}\n")
            if "memory" in parts:
                figures["memory"] = memory(web, names["tiny"], root)
    write_results(options.json, figures)


if __name__ == "__main__":
    main()
