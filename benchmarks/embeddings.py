"""What larger pictures, more views and more feature maps bring, and cost: cross-validated accuracy, images per second.

EfficientNet-Lite0 as scripts 2 to 4 use it: image files, decoded and fitted, to embeddings, to the SVM that the sweep
chooses. The accuracy is that of the chosen one in cross-validation, in the mean over random folds; there is no test
set. The images are the solar cells, or a folder of images for each class:

    python benchmarks/embeddings.py [--images FOLDER] [--pixels 224 288] [--views 1 2] [--maps 1 3] [--seeds 3]
"""

import argparse
import functools
import itertools
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from common import write_results

from libraries.base.console import table
from libraries.classifier.sweep import sweep
from libraries.data.images import load
from libraries.data.solar_cells import copy_solar_cells
from libraries.network.artefact import resize_rule
from libraries.network.efficientnet_lite import efficientnet_lite
from libraries.network.engine import Engine

SUFFIXES = {".jpg", ".jpeg", ".png"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="a folder of images for each class (default: the solar cells)")
    parser.add_argument("--pixels", type=int, nargs="+", default=[224, 288])
    parser.add_argument("--views", type=int, nargs="+", choices=[1, 2, 8], default=[1, 2])
    parser.add_argument("--maps", type=int, nargs="+", choices=[1, 3], default=[1, 3])
    parser.add_argument("--seeds", type=int, default=3, help="of the folds")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    rows, figures = [], []
    with tempfile.TemporaryDirectory() as temporary:
        if (folder := options.images) is None:
            folder = Path(temporary)
            copy_solar_cells(folder)
        files = sorted(path for path in folder.glob("*/*") if path.suffix.lower() in SUFFIXES)
        names, labels = np.unique([path.parent.name for path in files], return_inverse=True)
        for pixels, views, maps in itertools.product(options.pixels, options.views, options.maps):
            embeddings, speed = embed(files, pixels, views, maps)
            accuracies = [accuracy(embeddings, labels, len(names), seed=seed) for seed in range(options.seeds)]
            figures.append({"pixels": pixels, "views": views, "maps": maps, "images/s": speed, "accuracy": accuracies})
            low, mean, high = (100 * f(accuracies) for f in (min, statistics.mean, max))
            rows.append([pixels, views, maps, f"{speed:.0f}", f"{mean:.1f}% ({low:.1f} to {high:.1f})"])
    title = f"{len(files):,} images of {len(names)} classes, 5 folds, {options.seeds} seeds"
    print(table(title, ["pixels", "views", "maps", "images/s", "accuracy in cross-validation"], rows))
    write_results(options.json, {"images": len(files), "rows": figures})


def embed(files: list[Path], pixels: int, views: int, maps: int) -> tuple[np.ndarray, float]:
    """Embeddings, float32 [N, D], and images per second."""
    network = efficientnet_lite("tf_efficientnet_lite0", size=pixels, views=views, maps=maps)
    read = functools.partial(load, rule=resize_rule(network, "pad"))
    with tempfile.TemporaryDirectory() as folder:
        network.save(Path(folder) / "model.onnx")
        engine = Engine(Path(folder) / "model.onnx", outputs=["embedding"])
        for _ in engine.stream(files[:64], read):  # warm
            pass
        start = time.perf_counter()
        outputs = [result for _, result in engine.stream(files, read)]
    broken = [result for result in outputs if not isinstance(result, dict)]
    if broken:
        raise SystemExit(str(broken[0]))
    return np.stack([r["embedding"] for r in outputs]), len(files) / (time.perf_counter() - start)


def accuracy(embeddings: np.ndarray, labels: np.ndarray, classes: int, *, seed: int) -> float:
    """Of the SVM that the sweep chooses, on left-out images."""
    result = sweep(embeddings, labels, number_of_classes=classes, c_values=[10.0**e for e in range(-4, 3)], seed=seed)
    return float(result.rows[result.best].validation_accuracy or 0)


if __name__ == "__main__":
    main()
