"""The notebooks' viewers on large data sets: how long opening takes, a page of thumbnails, and a step by keyboard.

    python benchmarks/viewing.py [--rounds 5] [--json results.json]

Each data set is of 10 classes with the same photographs under many names, as script 1 leaves it, and an evaluation of a
quarter of them. Target: opening 50,000 images takes under 2 seconds more than opening 500.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from common import photographs, write_results

from libraries.base.console import table
from libraries.base.layout import Layout
from libraries.data.dataset import Example, write_examples
from libraries.widgets.images import ImageViewer
from libraries.widgets.results import Predictions, ResultsViewer
from libraries.widgets.viewer import PER_PAGE
from PARAMETERS import Parameters

SIZES = (500, 50_000, 100_000)
CLASSES = 10
TARGET_SECONDS = 2.0
FILES = 64


def data_set(root: Path, count: int, sources: list[Path]) -> Layout:
    """A data set of `count` images that script 1 has seen."""
    layout = Layout(Parameters.load({"rootDir": root, "datasetName": f"n{count}"}))
    examples = []
    for i in range(count):
        path = f"class{i % CLASSES}/{i:06d}.jpg"
        target = layout.images / path
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(sources[i % len(sources)], target)
        split = "test" if i // CLASSES % 4 == 0 else "train"
        examples.append(Example(path, f"class{i % CLASSES}", split, path, 533, 400, 1, f"{i:064x}"))
    write_examples(layout.examples.folder / "examples.csv", examples)
    layout.examples.commit([layout.examples.folder / "examples.csv"])
    return layout


def evaluation(count: int) -> Predictions:
    """Of a quarter of the images."""
    generator = np.random.default_rng(0)
    p = generator.dirichlet(np.ones(CLASSES) / 4, count // 4).astype(np.float32)
    labels = np.where(generator.uniform(size=len(p)) < 0.9, p.argmax(axis=1), generator.integers(0, CLASSES, len(p)))
    names = [f"class{i}" for i in range(CLASSES)]
    return Predictions(names, [f"class{i}/{n:06d}.jpg" for n, i in enumerate(labels)], labels, p.argmax(axis=1), p)


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def measure(layout: Layout, predictions: Predictions) -> dict[str, float]:
    """Seconds of everything, once."""
    found: dict[str, float] = {}
    opened: list[ImageViewer] = []
    found["open the images"] = seconds(lambda: opened.append(ImageViewer.of(layout)))
    viewer = opened[0]
    thumbnails, page = viewer._thumbnails, [viewer.path(item["id"]) for item in viewer.state["items"]]
    layout.thumbnails.unlink()
    thumbnails.close()
    fresh = type(thumbnails)(layout.images, layout.thumbnails)
    found[f"{PER_PAGE} thumbnails, made"] = seconds(lambda: [fresh.get(path) for path in page])
    found[f"{PER_PAGE} thumbnails, kept"] = seconds(lambda: [fresh.get(path) for path in page])
    fresh.close()
    found["filter by name"] = seconds(lambda: viewer.act({"do": "filter", "name": "77"}))
    found["another label"] = seconds(lambda: viewer.act({"do": "relabel", "images": [0], "label": "class9"}))
    found["undo"] = seconds(lambda: viewer.act({"do": "undo"}))
    viewer.close()
    options = {"images": layout.images, "bundle": layout.proc, "features": layout.proc, "thumbnails": layout.thumbnails}
    results: list[ResultsViewer] = []
    found["open the results"] = seconds(lambda: results.append(ResultsViewer(predictions, **options, title="")))
    found["sort them"] = seconds(lambda: results[0].act({"do": "filter", "order": "margin"}))
    results[0].close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sources = photographs(Path(folder) / "sources", FILES)
        sets = [(data_set(Path(folder), count, sources), evaluation(count)) for count in SIZES]
        rounds = [[measure(*each) for each in sets] for _ in range(options.rounds)]
    medians = [{key: statistics.median(r[i][key] for r in rounds) for key in rounds[0][0]} for i in range(len(SIZES))]
    rows = [[key, *(f"{each[key]:.3f}" for each in medians)] for key in medians[0]]
    print(table("Seconds (median)", ["images", *(f"{count:,}" for count in SIZES)], rows))
    more = medians[1]["open the images"] - medians[0]["open the images"]
    print(f"\nOpening {SIZES[1]:,} takes {more:.2f} s more than {SIZES[0]} (target {TARGET_SECONDS})")
    write_results(options.json, {"seconds": dict(zip(map(str, SIZES), medians, strict=True)), "more": more})


if __name__ == "__main__":
    main()
