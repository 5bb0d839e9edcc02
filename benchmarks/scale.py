"""Seconds and peak memory of scripts 1, 3, 4 and 5 on many images, with embeddings that are not computed but drawn.

    python benchmarks/scale.py [--images 200000] [--classes 10] [--json results.json]

The images are tiny, so that what is measured is what the project does beside decoding and running the network: listing,
tables, the search for duplicates, the split, the store, the classifier, the report. Linux only.
"""

import argparse
import contextlib
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from common import circumstances, user_environment, write_results
from PIL import Image

from libraries.base.console import table
from libraries.base.content_store import write_rows
from libraries.base.layout import Layout
from libraries.data.dataset import read_examples, read_white_level
from libraries.data.images import ResizeRule
from libraries.network.runners import Embeddings
from PARAMETERS import Parameters

ROOT = Path(__file__).parents[1]
DATASET = "many"
SIDE = 24  # pixels
DIMENSION = 1280
EVALUATE = """
import runpy, sys
from libraries.evaluation import testing
testing.check_agreement = lambda *tested, **about: 0.0  # drawn embeddings are not those of the network
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
AT_ONCE = 1000  # images
POLL = 0.1  # seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        parameters = Parameters.load(
            {"rootDir": folder, "datasetName": DATASET, "storeGigabytes": 100.0, "runHistory": False}
        )
        draw_images(parameters, options.images, options.classes)
        rows = [("1_prepareData", *measured("1_prepareData", parameters))]
        rows.append(("again", *measured("1_prepareData", parameters)))
        measured("2_refineDNN", parameters)
        draw_embeddings(parameters, options.classes)
        rows += [(step, *measured(step, parameters)) for step in ("3_runDNN", "4_trainSVM", "5_evaluate")]
    title = f"{options.images:,} images of {options.classes} classes"
    shown = [(name, f"{s:.0f}", f"{resident:.2f}", f"{anonymous:.2f}") for name, s, resident, anonymous in rows]
    print(table(title, ["", "seconds", "peak [GB]", "without mapped files"], shown))
    about = circumstances()
    print(f"{about['machine']}; {about['date']}")
    write_results(options.json, {"rows": rows})


def draw_images(parameters: Parameters, count: int, classes: int) -> None:
    """Noise, in sub-folders of each class."""
    with multiprocessing.Pool() as pool:
        work = partial(draw_part, folder=Layout(parameters).images, classes=classes, count=count)
        pool.map(work, range(0, count, AT_ONCE))


def draw_part(first: int, *, folder: Path, classes: int, count: int) -> None:
    generator = np.random.default_rng(first)
    for number in range(first, min(first + AT_ONCE, count)):
        place = folder / f"class {number % classes:04d}" / f"{number // 10_000:03d}"
        place.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        Image.fromarray(pixels).save(place / f"{number:07d}.png", compress_level=1)


def draw_embeddings(parameters: Parameters, classes: int) -> None:
    """Put embeddings into the store: noise around a mean for each class, so close that some are taken for others."""
    layout, generator = Layout(parameters), np.random.default_rng(0)
    examples = read_examples(layout.examples.folder / "examples.csv")
    rule = ResizeRule.from_json(layout.network.check()["resize"])
    rule = replace(rule, white_level=read_white_level(layout.examples))
    means = 0.05 * generator.normal(size=(classes, DIMENSION))
    with Embeddings(layout, layout.network, rule, parameters.run_options()) as embeddings:
        for part in parts(examples):
            noise = generator.normal(size=(len(part), DIMENSION))
            drawn = np.abs(noise + means[[int(example.label[-4:]) for example in part]]).astype(np.float32)
            rows = {example.sha256: {"embedding": row} for example, row in zip(part, drawn, strict=True)}
            write_rows(embeddings.store, rows)


def parts(items: list) -> Iterator[list]:
    for first in range(0, len(items), AT_ONCE):
        yield items[first : first + AT_ONCE]


def measured(step: str, parameters: Parameters) -> tuple[float, float, float]:
    """Seconds, the largest resident size of the script, and the largest without files that are mapped [GB]."""
    script = ["-c", EVALUATE, f"scripts/{step}.py"] if step == "5_evaluate" else [f"scripts/{step}.py"]
    options = [f"--rootDir={parameters.rootDir}", f"--datasetName={DATASET}", "--storeGigabytes=100"]
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *script, *options, "--runHistory=false"],
        cwd=ROOT,
        env=user_environment(PYTHONPATH=str(ROOT)),
        stdout=subprocess.DEVNULL,
    )
    status = Path(f"/proc/{process.pid}/status")
    largest = [0, 0]
    while process.poll() is None:
        with contextlib.suppress(OSError):
            sizes = dict(line.split(":") for line in status.read_text(encoding="utf-8").splitlines())
            found = [int(sizes.get(name, "0 kB").split()[0]) for name in ("VmHWM", "RssAnon")]
            largest = list(map(max, largest, found))
        time.sleep(POLL)
    if process.returncode:
        sys.exit(f"{step} failed")
    resident, anonymous = (size * 1024 / 1e9 for size in largest)
    return time.perf_counter() - start, resident, anonymous


if __name__ == "__main__":
    main()
