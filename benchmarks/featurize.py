"""Featurize image files, end to end: this project against a plain loop of timm and PyTorch.

The plain loop is what a competent person writes first: timm's model and transforms, ImageFolder, a DataLoader with as
many workers as cores, batches of 32, inference mode, float32. Ours is what scripts/3_runDNN.py does: read, decode, fit,
network, feature store on disk. Same network, image size and files; building and loading of models is not in the times.
'Careful' is ours with more detail left by the fast first reduction of JPEGs, as once (ResizeRule.detail).

    python benchmarks/featurize.py [--quick] [--json results.json]
"""

import argparse
import dataclasses
import functools
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from common import circumstances, interleaved, median_ratio, photographs, write_results
from rich.console import Console
from rich.table import Table
from timm.data import create_transform, resolve_data_config
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from libraries.base.pool import ordered_map
from libraries.data.images import ResizeRule, load
from libraries.network.backbones import EmbeddingNetwork, load_pretrained
from libraries.network.embedding_store import write_features
from libraries.network.engine import Engine
from libraries.network.export import export_onnx

SIZE = 224
NETWORKS = {"EfficientNet-Lite0": "EfficientNet_Lite0", "ResNet-18 (random weights)": "random:resnet18"}
TARGETS = {
    "EfficientNet-Lite0": (4.0, 7.0),
    "ResNet-18 (random weights)": (1.2, 2.2),
}  # times the plain loop: f32, bf16
EFFICIENCY_TARGET = 0.85  # of what decoding and network could reach together
PRECISIONS = ("f32", "bf16")
CAREFUL = 1.75  # detail


@dataclass(frozen=True)
class Example:
    """An image file as the feature store wants it."""

    path: str
    label: str
    split: str = "train"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer images and rounds, within about three minutes")
    parser.add_argument("--solar-cells", action="store_true", help="the package elpv-dataset's images, not photographs")
    parser.add_argument("--images", type=int, help="images per round (default: 384, quick 128)")
    parser.add_argument("--rounds", type=int, help="rounds, of which medians are taken (default: 7, quick 3)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    count = options.images or (128 if options.quick else 384)
    rounds = options.rounds or (3 if options.quick else 7)
    with tempfile.TemporaryDirectory() as folder:
        make = solar_cells if options.solar_cells else photographs
        files = make(Path(folder) / "images", count)
        figures = {name: measure(source, files, Path(folder), rounds=rounds) for name, source in NETWORKS.items()}
    show(figures, f"{count} {'solar cells' if options.solar_cells else 'photographs of 533 x 400'}, {rounds} rounds")
    write_results(options.json, {"images": count, "rounds": rounds, "networks": figures})


def solar_cells(folder: Path, count: int) -> list[Path]:
    """Links to the first `count` images of the package elpv-dataset, in one class."""
    import elpv_dataset

    (folder / "cells").mkdir(parents=True)
    paths = []
    for source in sorted((Path(elpv_dataset.__file__).parent / "data" / "images").glob("*.png"))[:count]:
        path = folder / "cells" / source.name
        path.symlink_to(source)
        paths.append(path)
    return paths


def measure(source: str, files: list[Path], folder: Path, *, rounds: int) -> dict[str, float]:
    """The figures of one network, in images per second (medians) and as ratios."""
    network = load_pretrained(source, input_size=SIZE)
    onnx = folder / f"{network.architecture}.onnx"
    export_onnx(network, onnx)
    rule = ResizeRule(SIZE, interpolation="bicubic" if network.interpolation == "bicubic" else "bilinear")
    plain = plain_loop(network, files[0].parents[1])
    plain()  # starts the workers, which persist, while this process has no threads of OpenVINO's yet
    engines = {precision: Engine(onnx, precision=precision) for precision in PRECISIONS}
    fit = functools.partial(load, rule=rule)
    careful = functools.partial(load, rule=dataclasses.replace(rule, detail=CAREFUL))
    images = np.stack([fit(path) for path in files[:64]])

    contenders: dict[str, Callable[[], object]] = {
        "plain": plain,
        "decode only": lambda: drain(ordered_map(fit, files, workers=engines["f32"].threads, ahead=64)),
        "decode only, careful": lambda: drain(ordered_map(careful, files, workers=engines["f32"].threads, ahead=64)),
    }
    for precision, engine in engines.items():
        contenders[f"network only {precision}"] = functools.partial(network_only, engine, images, len(files))
        contenders[precision] = functools.partial(featurize, engine, files, fit, folder / "features")
        contenders[f"{precision}, careful"] = functools.partial(featurize, engine, files, careful, folder / "features")
    for run in list(contenders.values())[1:]:
        run()  # warm
    seconds = interleaved(contenders, rounds=rounds)

    figures = {f"{name} images/s": len(files) / statistics.median(values) for name, values in seconds.items()}
    figures["decode only / careful"] = median_ratio(seconds["decode only, careful"], seconds["decode only"])
    for precision in PRECISIONS:
        figures[f"{precision} / careful"] = median_ratio(seconds[f"{precision}, careful"], seconds[precision])
        parts = zip(seconds["decode only"], seconds[f"network only {precision}"], strict=True)
        figures[f"{precision} / plain"] = median_ratio(seconds["plain"], seconds[precision])
        figures[f"{precision} / ideal"] = median_ratio([decode + run for decode, run in parts], seconds[precision])
        figures[f"{precision} difference"] = difference(network, engines[precision], images)
    return figures


def plain_loop(network: EmbeddingNetwork, folder: Path) -> Callable[[], object]:
    """timm and PyTorch as their documentation shows them, with the same weights."""
    model = timm.create_model(network.architecture, num_classes=0).eval()
    model.load_state_dict(network.backbone.state_dict())
    transform = create_transform(**{**resolve_data_config({}, model=model), "input_size": (3, SIZE, SIZE)})
    dataset = ImageFolder(str(folder), transform)
    loader = DataLoader(dataset, batch_size=32, num_workers=os.cpu_count() or 1, persistent_workers=True)

    def run() -> torch.Tensor:
        with torch.inference_mode():
            return torch.cat([model(batch) for batch, _ in loader])

    return run


def featurize(engine: Engine, files: list[Path], fit: Callable[[Path], np.ndarray], folder: Path) -> None:
    """What scripts/3_runDNN.py does with the images."""
    examples = [Example(str(path), path.parent.name) for path in files]
    key = os.urandom(32).hex()  # nothing of an earlier round is kept
    write_features(folder, examples, key=key, run=lambda wanted: engine.stream(wanted, lambda e: fit(Path(e.path))))


def network_only(engine: Engine, images: np.ndarray, count: int) -> None:
    """The engine on images that are in memory."""
    drain(engine.stream(range(count), lambda i: images[i % len(images)]))


def drain(stream: Iterator[object]) -> None:
    for _ in stream:
        pass


def difference(network: EmbeddingNetwork, engine: Engine, images: np.ndarray) -> float:
    """The largest difference from PyTorch's float32 embeddings, in parts of the largest value."""
    with torch.inference_mode():
        expected = network(torch.from_numpy(images))[0].numpy()
    return float(np.abs(engine.run(images)["embedding"] - expected).max() / np.abs(expected).max())


def show(figures: dict[str, dict[str, float]], title: str) -> None:
    """The figures as a table, a network per column."""
    about = circumstances()
    table = Table(title=f"Featurizing: {title}", caption=f"{about['machine']}; {about['date']}")
    table.add_column("")
    for name in figures:
        table.add_column(name, justify="right")
    for row in next(iter(figures.values())):
        table.add_row(row, *(cell(name, row, values[row]) for name, values in figures.items()))
    Console().print(table)


def cell(network: str, row: str, value: float) -> str:
    if row.endswith("difference"):
        return f"{value:.1e}"
    if row.endswith("images/s"):
        return f"{value:.0f}"
    if row.endswith("/ careful"):
        return f"{value:.2f}"
    targets: dict[str, Any] = dict(zip((f"{p} / plain" for p in PRECISIONS), TARGETS[network], strict=True))
    return f"{value:.2f} (target {targets.get(row, EFFICIENCY_TARGET)})"


if __name__ == "__main__":
    main()
