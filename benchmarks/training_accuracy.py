"""The accuracy that the two loops of training.py reach on the solar cells, and their speed in the same run.

The same for both: network and first weights (also of the new head), splits into training and test images (75/25, one
per seed), input size, batch, number of epochs, AdamW with its weight decay, learning rates and longest gradient, label
smoothing, dropout, and the ranges from which crops, mirror images and colours are drawn. Nothing is chosen: what counts
is the accuracy after the last epoch, in float32, one view of each test image.

What differs is the loop. The plain one decodes and augments image by image with torchvision, in every epoch, computes
in float32, and keeps its last weights. Ours decodes once, to 1.15 times the input size, augments whole batches,
computes in bf16 where the CPU has it fast, and keeps the running average of its weights. Each shrinks its images in its
own way (bilinear and bicubic), for training and for the test. Decoding is counted in both.

    python benchmarks/training_accuracy.py [--quick] [--seeds 0 1 2] [--epochs 5] [--size 160] [--json results.json]
"""

import argparse
import functools
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from common import interleaved, median_ratio, write_results
from training import NETWORK, OURS, PLAIN, TARGET, Task, ask, processes

from libraries.base.console import table
from libraries.base.pool import usable_cores
from libraries.data.checking import check_images
from libraries.data.dataset import Example, draw, scan, split
from libraries.data.solar_cells import SOLAR_CELLS_ABOUT, copy_solar_cells
from libraries.data.split import group_examples
from libraries.network.training.recipe import RefineOptions, has_fast_bf16


@dataclass(frozen=True)
class Run:
    """What the loops reached on one split, by their names.

    Attributes:
        seconds: of every epoch, with its share of the decoding.
    """

    images: int
    accuracy: dict[str, float]
    seconds: dict[str, list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="64 images, 1 epoch, 1 split: to see that it works")
    parser.add_argument("--seeds", type=int, nargs="+", help="of the splits and of training (default: 0 1 2, quick 0)")
    parser.add_argument("--epochs", type=int, help="default: 5, quick 1")
    parser.add_argument("--images", type=int, help="train and test on about so many only (quick: 64)")
    parser.add_argument("--size", type=int, default=160, help="of the network's input (default: %(default)s pixels)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    seeds = options.seeds or ([0] if options.quick else [0, 1, 2])
    epochs = options.epochs or (1 if options.quick else 5)

    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        examples = solar_cells(folder, most=options.images or (64 if options.quick else None))
        runs = []
        for seed in seeds:
            training = RefineOptions(epochs=epochs, seed=seed)
            runs.append(measure(divide(folder, examples, size=options.size, options=training)))
    size = f"{NETWORK} at {options.size} pixels, batch {RefineOptions.batch}"
    print(describe(runs, title=f"Solar cells, {size}, {epochs} epochs, {len(runs)} splits"))
    by_seed = {str(seed): vars(run) for seed, run in zip(seeds, runs, strict=True)}
    write_results(options.json, {"epochs": epochs, "size": options.size, "seeds": by_seed})


def solar_cells(folder: Path, *, most: int | None) -> list[Example]:
    """The images, in `folder`, checked and grouped as scripts/1_prepareData.py does it."""
    tell(SOLAR_CELLS_ABOUT)
    copy_solar_cells(folder)
    examples = check_images(folder, scan(folder), workers=usable_cores()).examples
    return group_examples(draw(examples, most=most, seed=0) if most else examples, "filename")


def divide(folder: Path, examples: Sequence[Example], *, size: int, options: RefineOptions) -> Task:
    """Training and test images, by the seed of the training."""
    sides = split(examples, ratio_train=0.75, seed=options.seed)
    train, test = ([folder / e.path for e in sides if e.split == side] for side in ("train", "test"))
    return Task(folder, train, test, size, options)


def measure(task: Task) -> Run:
    """Train both loops on a split, an epoch each in turn, then test them."""
    with processes(task) as loops:
        contenders = {name: functools.partial(train_epoch, loop, name, task) for name, loop in loops.items()}
        decoding = {name: ask(loop, "decoding_seconds") for name, loop in loops.items()}  # waits until they are ready
        epochs = interleaved(contenders, rounds=task.options.epochs)
        accuracy = {name: ask(loop, "accuracy") for name, loop in loops.items()}
    tell(f"split {task.options.seed}: " + ", ".join(f"{name} {value:.1%}" for name, value in accuracy.items()))
    seconds = {name: [s + decoding[name] / task.options.epochs for s in epochs[name]] for name in epochs}
    return Run(len(task.train), accuracy, seconds)


def train_epoch(loop: ProcessPoolExecutor, name: str, task: Task) -> None:
    start = time.perf_counter()
    ask(loop, "train_epoch")
    seconds = time.perf_counter() - start
    tell(f"split {task.options.seed}: {name}, an epoch of {len(task.train):,} images in {seconds:.1f} s")


def tell(line: str) -> None:
    """Show progress, apart from the result."""
    print(line, file=sys.stderr, flush=True)


def describe(runs: Sequence[Run], *, title: str) -> str:
    """Both loops and their difference; accuracies are paired by split, seconds by epoch."""

    def row(name: str) -> tuple[str, str, str]:
        accuracies = [run.accuracy[name] for run in runs]
        speed = statistics.median(run.images / seconds for run in runs for seconds in run.seconds[name])
        return name, spread(accuracies, "{:.1%}"), f"{speed:.1f}"

    differences = [100 * (run.accuracy[OURS] - run.accuracy[PLAIN]) for run in runs]
    slow, fast = ([s for run in runs for s in run.seconds[name]] for name in (PLAIN, OURS))
    ratio = f"{median_ratio(slow, fast):.2f} x (target {TARGET})"
    precision = "bf16" if has_fast_bf16(torch.device("cpu")) else "f32"
    plain, (_, *ours) = row(PLAIN), row(OURS)
    return table(
        title,
        ["", "test accuracy: mean (range)", "images/s: median"],
        [plain, (f"{OURS}, {precision}", *ours)],
        footer=["difference in points, ratio", spread(differences, "{:+.1f}"), ratio],
    )


def spread(values: Sequence[float], form: str) -> str:
    mean, low, high = (form.format(value) for value in (statistics.mean(values), min(values), max(values)))
    return f"{mean} ({low} to {high})"


if __name__ == "__main__":
    main()
