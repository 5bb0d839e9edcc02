"""Train on image files on the CPU: this project against a plain loop of timm and PyTorch.

The plain loop is what a competent person writes first: timm's model, torchvision's transforms (random crop, mirror,
colours), a DataLoader with two workers, AdamW, float32. Ours is what scripts/2_refineDNN.py does: decode every image
once, augment on whole batches, channels_last, bf16 where the CPU has it, running average of the weights. Same network,
size, batch and files; an epoch each in turn, in processes of their own. Decoding is counted: in the plain loop in every
epoch, in ours as its share of a training of rf_maxEpochs epochs.

    python benchmarks/training.py [--quick] [--batch 16] [--json results.json]
"""

import argparse
import functools
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import timm
import torch
from common import circumstances, interleaved, median_ratio, photographs, write_results
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from libraries.data.images import ResizeRule, load
from libraries.network.augmentation import AREA, JITTER, RATIO, stored_size
from libraries.network.backbones import load_pretrained
from libraries.network.imageset import decode_once
from libraries.network.recipe import RefineOptions
from libraries.network.trainer import Trainer

NETWORK, SIZE, CLASSES = "EfficientNet_Lite0", 224, 2
TARGET = 1.8  # times the plain loop
PLAIN, OURS = "plain loop, f32", "ours"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer images and rounds, within about two minutes")
    parser.add_argument("--images", type=int, help="images per epoch (default: 320, quick 96)")
    parser.add_argument("--rounds", type=int, help="epochs, of which medians are taken (default: 5, quick 2)")
    parser.add_argument("--batch", type=int, default=RefineOptions.batch, help="images per step (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    count = options.images or (96 if options.quick else 320)
    rounds = options.rounds or (2 if options.quick else 5)
    with tempfile.TemporaryDirectory() as folder:
        photographs(Path(folder), count)
        figures = measure(Path(folder), count, rounds=rounds, batch=options.batch)
    show(figures, f"{count} photographs of 533 x 400, batch {options.batch}, {rounds} epochs")
    write_results(options.json, {"images": count, "rounds": rounds, "batch": options.batch, **figures})


def measure(folder: Path, count: int, *, rounds: int, batch: int) -> dict[str, float]:
    """Images per second (medians) and ratios."""
    context = multiprocessing.get_context("spawn")
    starts = {PLAIN: start_plain, OURS: start_ours}
    processes = {
        name: ProcessPoolExecutor(1, context, initializer=start, initargs=(folder, batch))
        for name, start in starts.items()
    }
    contenders = {name: functools.partial(in_process, pool) for name, pool in processes.items()}
    for run in contenders.values():
        run()  # warm
    seconds = interleaved(contenders, rounds=rounds)
    decoding = processes[OURS].submit(decoding_seconds).result()
    for pool in processes.values():
        pool.shutdown()
    epochs = RefineOptions.epochs
    with_share = [epoch + decoding / epochs for epoch in seconds[OURS]]
    return {
        f"{PLAIN}: images/s": count / statistics.median(seconds[PLAIN]),
        f"{OURS}, of {epochs} epochs: images/s": count / statistics.median(with_share),
        f"{OURS}, of 1 epoch: images/s": count / (statistics.median(seconds[OURS]) + decoding),
        f"{OURS} / plain": median_ratio(seconds[PLAIN], with_share),
    }


def in_process(pool: ProcessPoolExecutor) -> None:
    """Train for one epoch in the process of a contender."""
    pool.submit(run_epoch).result()


# In the processes

_epoch: Callable[[], object]
_decoding = 0.0


def run_epoch() -> None:
    _epoch()


def decoding_seconds() -> float:
    return _decoding


def start_plain(folder: Path, batch: int) -> None:
    """timm and PyTorch as their documentation shows them, with the same weights."""
    global _epoch
    network = load_pretrained(NETWORK, input_size=SIZE)
    model = timm.create_model(network.architecture, num_classes=CLASSES)
    model.load_state_dict(network.backbone.state_dict(), strict=False)  # all but the new classifier
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(SIZE, scale=AREA, ratio=RATIO),
            transforms.RandomHorizontalFlip(),
            transforms.ColorJitter(JITTER, JITTER, JITTER),
            transforms.ToTensor(),
            transforms.Normalize(network.mean, network.std),
        ]
    )
    dataset = ImageFolder(str(folder), transform)
    loader = DataLoader(dataset, batch, shuffle=True, num_workers=os.cpu_count() or 1, persistent_workers=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    criterion = torch.nn.CrossEntropyLoss(label_smoothing=0.1)

    def epoch() -> None:
        model.train()
        for images, labels in loader:
            optimizer.zero_grad()
            criterion(model(images), labels).backward()
            optimizer.step()

    _epoch = epoch


def start_ours(folder: Path, batch: int) -> None:
    """What scripts/2_refineDNN.py does."""
    global _epoch, _decoding
    network = load_pretrained(NETWORK, input_size=SIZE)
    network.add_head(CLASSES, dropout=RefineOptions.dropout, seed=0)
    files = sorted(folder.rglob("*.jpg"))
    names = sorted({file.parent.name for file in files})
    rule = ResizeRule(stored_size(SIZE), interpolation="bicubic")
    start = time.perf_counter()
    train, _ = decode_once(
        files,
        [names.index(file.parent.name) for file in files],
        load=functools.partial(load, rule=rule),
        size=rule.size,
        scratch=folder,
    )
    _decoding = time.perf_counter() - start
    trainer = Trainer(network, train, RefineOptions(batch=batch))
    _epoch = functools.partial(trainer.train_epoch, 0)


def show(figures: dict[str, float], title: str) -> None:
    about = circumstances()
    table = Table(title=f"Training {NETWORK}: {title}", caption=f"{about['machine']}; {about['date']}")
    table.add_column("")
    table.add_column("", justify="right")
    for row, value in figures.items():
        table.add_row(row, f"{value:.1f}" if row.endswith("images/s") else f"{value:.2f} (target {TARGET})")
    Console().print(table)


if __name__ == "__main__":
    main()
