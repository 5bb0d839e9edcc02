"""Train on image files on the CPU: this project against a plain loop of timm and PyTorch.

The plain loop is what a competent person writes first: timm's model, torchvision's transforms (random crop, mirror,
colours), a DataLoader with as many workers as cores, float32. Ours is what scripts/2_refineDNN.py does: decode every
image once, augment on whole batches, channels_last, bf16 where the CPU has it, running average of the weights. Same
network, size, batch, files and recipe (AdamW, learning rates, dropout, loss); an epoch each in turn, in processes of
their own. Decoding is counted: in the plain loop in every epoch, in ours as its share of a training of rf_maxEpochs
epochs. That both reach the same accuracy is measured by training_accuracy.py.

    python benchmarks/training.py [--quick] [--batch 16] [--json results.json]

--waiting measures ours alone and beside another busy process instead, with threads that wait for each other as the
libraries set it, and by spinning for long, as OpenMP has it by default.
"""

import argparse
import contextlib
import functools
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import libraries.network  # noqa: F401  # sets what PyTorch reads when it is imported

import timm  # isort: skip
import torch
from common import circumstances, interleaved, median_ratio, photographs, write_results
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from libraries.data.images import ResizeRule, load
from libraries.network.backbones import EmbeddingNetwork, load_pretrained
from libraries.network.training.recipe import (
    AREA,
    JITTER,
    RATIO,
    RefineOptions,
    learning_rate,
    make_optimizer,
    stored_size,
)
from libraries.network.training.refine import logits
from libraries.network.training.trainer import CLIP_NORM, Trainer
from libraries.network.training.training_sets import ImageSet, decode_once

NETWORK, SIZE, CLASSES = "EfficientNet_Lite0", 224, 2
TARGET = 1.8  # times the plain loop
PLAIN, OURS = "plain loop, f32", "ours"


@dataclass(frozen=True)
class Task:
    """What both loops do: learn from the files `train`, which lie in one folder per class in `folder`."""

    folder: Path
    train: list[Path]
    test: list[Path]
    input_size: int
    options: RefineOptions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer images and rounds, within about two minutes")
    parser.add_argument("--images", type=int, help="images per epoch (default: 320, quick 96)")
    parser.add_argument("--rounds", type=int, help="epochs, of which medians are taken (default: 5, quick 2)")
    parser.add_argument("--batch", type=int, default=RefineOptions.batch, help="images per step (default: %(default)s)")
    parser.add_argument("--waiting", action="store_true", help="alone and beside another busy process")
    parser.add_argument("--epoch", action="store_true", help=argparse.SUPPRESS)  # a part of --waiting
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    count = options.images or (96 if options.quick else 320)
    rounds = options.rounds or (2 if options.quick else 5)
    if options.epoch:
        print(seconds_of_an_epoch(count))
        return
    if options.waiting:
        figures = waiting(count, rounds=rounds)
        print(f"{count} photographs, {rounds} rounds")
        print("\n".join(f"  {name:<{max(map(len, figures))}}  {value:.2f}" for name, value in figures.items()))
        write_results(options.json, {"images": count, "rounds": rounds, **figures})
        return
    with tempfile.TemporaryDirectory() as folder:
        files = photographs(Path(folder), count)
        task = Task(Path(folder), files, [], SIZE, RefineOptions(batch=options.batch))
        figures = measure(task, rounds=rounds)
    show(figures, f"{count} photographs of 533 x 400, batch {options.batch}, {rounds} epochs")
    write_results(options.json, {"images": count, "rounds": rounds, "batch": options.batch, **figures})


def measure(task: Task, *, rounds: int) -> dict[str, float]:
    """Images per second (medians) and ratios."""
    count, epochs = len(task.train), task.options.epochs
    with processes(task) as loops:
        contenders = {name: functools.partial(ask, loop, "train_epoch") for name, loop in loops.items()}
        for run in contenders.values():
            run()  # warm
        seconds = interleaved(contenders, rounds=rounds)
        decoding = ask(loops[OURS], "decoding_seconds")
    with_share = [epoch + decoding / epochs for epoch in seconds[OURS]]
    return {
        f"{PLAIN}: images/s": count / statistics.median(seconds[PLAIN]),
        f"{OURS}, of {epochs} epochs: images/s": count / statistics.median(with_share),
        f"{OURS}, of 1 epoch: images/s": count / (statistics.median(seconds[OURS]) + decoding),
        f"{OURS} / plain": median_ratio(seconds[PLAIN], with_share),
    }


def waiting(count: int, *, rounds: int) -> dict[str, float]:
    """Images per second (medians), and how many times as long an epoch takes beside a busy process."""

    def epoch(settings: dict[str, str], *, beside: bool) -> None:
        command = [sys.executable, __file__, "--epoch", "--images", str(count)]
        busy = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if beside else None
        try:
            done = subprocess.run(command, env={**os.environ, **settings}, check=True, capture_output=True, text=True)
        finally:
            if busy is not None:
                busy.kill()
                busy.wait()
        seconds.setdefault((bool(settings), beside), []).append(float(done.stdout))

    seconds: dict[tuple[bool, bool], list[float]] = {}
    for _ in range(rounds):
        for settings in ({}, {"GOMP_SPINCOUNT": "300000"}):
            for beside in (False, True):
                epoch(settings, beside=beside)
    figures = {}
    for spins, name in ((False, OURS), (True, f"{OURS}, spinning")):
        alone, beside = seconds[spins, False], seconds[spins, True]
        figures[f"{name}: images/s alone"] = count / statistics.median(alone)
        figures[f"{name}: images/s beside another process"] = count / statistics.median(beside)
        figures[f"{name}: beside / alone [times as long]"] = median_ratio(beside, alone)
    return figures


def seconds_of_an_epoch(count: int) -> float:
    """Of the second epoch, in this process."""
    with tempfile.TemporaryDirectory() as folder:
        loop = OurLoop(Task(Path(folder), photographs(Path(folder), count), [], SIZE, RefineOptions()))
        loop.train_epoch()
        start = time.perf_counter()
        loop.train_epoch()
        return time.perf_counter() - start


# The two loops


class PlainLoop:
    """timm and PyTorch as their documentation shows them."""

    decoding_seconds = 0.0  # apart from the epochs

    def __init__(self, task: Task) -> None:
        self.options, self.epoch = task.options, 0
        network = first_weights(task)
        self.model = timm.create_model(network.architecture, num_classes=CLASSES, drop_rate=self.options.dropout)
        self.model.load_state_dict(network.backbone.state_dict(), strict=False)  # all but the classifier
        self.model.get_classifier().load_state_dict(network.head.state_dict())
        to_tensor = [transforms.ToTensor(), transforms.Normalize(network.mean, network.std)]
        augmented = transforms.Compose(
            [
                transforms.RandomResizedCrop(task.input_size, scale=AREA, ratio=RATIO),
                transforms.RandomHorizontalFlip(),
                transforms.ColorJitter(JITTER, JITTER, JITTER),
                *to_tensor,
            ]
        )
        whole = transforms.Compose([transforms.Resize((task.input_size, task.input_size)), *to_tensor])
        self.train = self._loader(task.folder, task.train, augmented, shuffle=True)
        self.test = self._loader(task.folder, task.test, whole) if task.test else None
        self.optimizer = make_optimizer(self.model, self.options)
        self.criterion = torch.nn.CrossEntropyLoss(label_smoothing=self.options.label_smoothing)
        torch.manual_seed(self.options.seed)

    def train_epoch(self) -> None:
        self.model.train()
        for step, (images, labels) in enumerate(self.train):
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(self.options, epoch=self.epoch, step=step, steps=len(self.train))
            self.optimizer.zero_grad()
            self.criterion(self.model(images), labels).backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP_NORM)
            self.optimizer.step()
        self.epoch += 1

    @torch.inference_mode()
    def accuracy(self) -> float:
        self.model.eval()
        right = [self.model(images).argmax(dim=1) == labels for images, labels in self.test]
        return torch.cat(right).float().mean().item()

    def _loader(
        self, folder: Path, files: list[Path], transform: transforms.Compose, *, shuffle: bool = False
    ) -> DataLoader:
        dataset = ImageFolder(str(folder), transform, is_valid_file=set(map(str, files)).__contains__)
        workers = os.cpu_count() or 1
        return DataLoader(dataset, self.options.batch, shuffle=shuffle, num_workers=workers, persistent_workers=shuffle)


class OurLoop:
    """What scripts/2_refineDNN.py does."""

    def __init__(self, task: Task) -> None:
        self.task, self.epoch = task, 0
        network = first_weights(task)
        start = time.perf_counter()
        train = self._decode(task.train, stored_size(task.input_size), network.interpolation)
        self.decoding_seconds = time.perf_counter() - start
        self.test = self._decode(task.test, task.input_size, network.interpolation)
        self.trainer = Trainer(network, train, task.options)

    def train_epoch(self) -> None:
        self.trainer.train_epoch(self.epoch)
        self.epoch += 1

    def accuracy(self) -> float:
        scores = logits(self.trainer.averaged, self.test.images, bf16=False)
        return float((scores.argmax(axis=1) == self.test.labels).mean())

    def _decode(self, files: list[Path], size: int, interpolation: str) -> ImageSet:
        names = sorted({file.parent.name for file in self.task.train})
        rule = ResizeRule(size, interpolation=interpolation)
        labels = [names.index(file.parent.name) for file in files]
        images, _ = decode_once(
            files, labels, load=functools.partial(load, rule=rule), size=size, scratch=self.task.folder
        )
        return images


def first_weights(task: Task) -> EmbeddingNetwork:
    """The pretrained network with a new head, the same for both loops."""
    network = load_pretrained(NETWORK, input_size=task.input_size)
    network.add_head(CLASSES, dropout=task.options.dropout, seed=task.options.seed)
    return network


# Each in a process of its own, so that neither inherits what the other has set

_loop: PlainLoop | OurLoop


@contextlib.contextmanager
def processes(task: Task) -> Iterator[dict[str, ProcessPoolExecutor]]:
    """A process for each loop, with the loop in it."""
    context = multiprocessing.get_context("spawn")
    with contextlib.ExitStack() as stack:
        yield {
            name: stack.enter_context(ProcessPoolExecutor(1, context, initializer=start, initargs=(loop, task)))
            for name, loop in {PLAIN: PlainLoop, OURS: OurLoop}.items()
        }


def ask(process: ProcessPoolExecutor, what: str) -> Any:
    """Call a method of the loop in a process, or read an attribute, and wait for the answer."""
    return process.submit(answer, what).result()


def start(loop: type[PlainLoop | OurLoop], task: Task) -> None:
    global _loop
    multiprocessing.set_start_method(None, force=True)  # DataLoader's workers start as the system starts processes
    _loop = loop(task)


def answer(what: str) -> Any:
    found = getattr(_loop, what)
    return found() if callable(found) else found


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
