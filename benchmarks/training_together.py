"""A network trained by several processes, as on several nodes: accuracy beside that of one process, over several seeds.

The same images, steps of as many images in all, epochs and recipe: what differs is that batch normalisation sees the
images of one process, and what is drawn at random. The accuracy is that after the last epoch, on the test images.

    python benchmarks/training_together.py [--processes 2] [--seeds 0 1 2] [--epochs 5] [--size 96] [--json file]
"""

import argparse
import functools
import multiprocessing
import socket
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from common import write_results
from training_accuracy import divide, solar_cells, spread, tell

from libraries.base.console import table
from libraries.data.images import ResizeRule, load
from libraries.network.backbones import load_pretrained
from libraries.network.training.recipe import RefineOptions, stored_size
from libraries.network.training.refine import refine
from libraries.network.training.training_sets import ImageSet, decode_once
from libraries.network.training.world import joined

NETWORK = "EfficientNet_Lite0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the splits and of training")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--images", type=int, help="train and test on about so many only")
    parser.add_argument("--size", type=int, default=96, help="of the network's input [pixels]")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    accuracy: dict[int, list[float]] = {1: [], arguments.processes: []}
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        examples = solar_cells(folder / "images", most=arguments.images)
        for seed in arguments.seeds:
            options = RefineOptions(epochs=arguments.epochs, seed=seed)
            task = divide(folder / "images", examples, size=arguments.size, options=options)
            np.savez(folder / "sets.npz", **decoded(task.train, task.test, folder, size=arguments.size))
            for processes, found in accuracy.items():
                found.append(together(processes, folder, options, size=arguments.size))
                tell(f"seed {seed}, {processes} processes: {found[-1]:.1%}")
    several = arguments.processes
    differences = [100 * (more - one) for more, one in zip(accuracy[several], accuracy[1], strict=True)]
    print(
        table(
            f"{NETWORK} at {arguments.size} pixels, batch {RefineOptions.batch}, {arguments.epochs} epochs, "
            f"{len(examples):,} solar cells, {len(arguments.seeds)} splits",
            ["processes", "test accuracy: mean (range)"],
            [(str(count), spread(found, "{:.1%}")) for count, found in accuracy.items()],
            footer=["difference in points", spread(differences, "{:+.1f}")],
        )
    )
    write_results(arguments.json, {"accuracy": {str(count): found for count, found in accuracy.items()}})


def decoded(train: list[Path], test: list[Path], folder: Path, *, size: int) -> dict[str, np.ndarray]:
    """Images and labels of both sets."""
    names = sorted({path.parent.name for path in train})
    found = {}
    for name, paths, side in (("train", train, stored_size(size)), ("test", test, size)):
        labels = [names.index(path.parent.name) for path in paths]
        reader = functools.partial(load, rule=ResizeRule(side))
        images, _ = decode_once(paths, labels, load=reader, size=side, scratch=folder)
        found |= {name: images.images, f"{name}_labels": images.labels}
    return found


def together(processes: int, folder: Path, options: RefineOptions, *, size: int) -> float:
    """The test accuracy after the last epoch."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{found.getsockname()[1]}"
    spawn = multiprocessing.get_context("spawn")
    given = (processes, address, folder, options, size)
    started = [spawn.Process(target=train, args=(rank, *given)) for rank in range(processes)]
    for each in started:
        each.start()
    for each in started:
        each.join()
    return float((folder / "accuracy").read_text(encoding="ascii"))


def train(rank: int, processes: int, address: str, folder: Path, options: RefineOptions, size: int) -> None:
    """One of the processes; the first writes the accuracy."""
    torch.set_num_threads(max(1, (multiprocessing.cpu_count() or 1) // processes))
    data = np.load(folder / "sets.npz")
    with joined(rank, processes, address=address, device="cpu") as world:
        sets = {}
        for name in ("train", "test"):
            mine = np.array(world.share(range(len(data[f"{name}_labels"]))), int)
            sets[name] = ImageSet(data[name][mine], data[f"{name}_labels"][mine])
        checkpoint = folder / f"checkpoint-{processes}-{options.seed}"
        result = refine(
            load_pretrained(NETWORK, input_size=size),
            train=sets["train"],
            validation=sets["test"],  # to be reported alone: nothing is chosen by it here
            classes=int(data["train_labels"].max()) + 1,
            options=replace(options, bf16=None),
            checkpoint=checkpoint,
            world=world,
        )
        if rank == 0:
            (folder / "accuracy").write_text(str(1 - result.history[-1].validation_error), encoding="ascii")


if __name__ == "__main__":
    main()
