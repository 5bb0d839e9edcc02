"""How soon a change of the images that are sent is noticed, and how often one that did not happen.

    python benchmarks/drift.py [--images FOLDER ...] [--seeds 10] [--windows 3000] [--json results.json]

Each set is divided at random: three eighths train the queue's SVM, a quarter are the test images that a bundle
remembers, three eighths are what comes. 'no change': that often, the test images and what comes are divided anew and
compared. 'darker': 0.8 and 0.6 times the brightness, 'blurred': by one pixel in 100, 'another set': images of the next
set. 'more of': a class three times as frequent, up to 90%. What is shown is the share of seeds in which the change was
noticed in as many images, if there are so many.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from common import circumstances, write_results
from embeddings import SUFFIXES, embed
from PIL import Image, ImageEnhance, ImageFilter
from review import letters

from libraries.base.console import table
from libraries.classifier.reference import Reference
from libraries.data.solar_cells import copy_solar_cells
from libraries.review.evidence import evidence

WINDOWS = (100, 250, 500)
TIMES = 3  # as frequent

CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "darker, 0.8": lambda image: ImageEnhance.Brightness(image).enhance(0.8),
    "darker, 0.6": lambda image: ImageEnhance.Brightness(image).enhance(0.6),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(max(image.size) / 100)),
}


class Images:
    """A set: embeddings of the images as they are, and changed."""

    def __init__(self, files: list[Path]) -> None:
        self.labels = np.unique([path.parent.name for path in files], return_inverse=True)[1]
        self.x = embed(files, 224, 1, 1)[0]
        self.changed = {name: changed(files, change) for name, change in CHANGES.items()}
        self.classes = int(self.labels.max()) + 1


def changed(files: list[Path], change: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    """The embeddings of the images after a change."""
    with tempfile.TemporaryDirectory() as temporary:
        written = [Path(temporary) / f"{i}.png" for i in range(len(files))]
        for source, target in zip(files, written, strict=True):
            with Image.open(source) as image:
                change(image.convert("RGB")).save(target, compress_level=1)
        return embed(written, 224, 1, 1)[0]


class Bundle:
    """What a bundle that was trained on a part of a set knows, and what comes."""

    def __init__(self, images: Images, *, seed: int) -> None:
        self.images, self.generator = images, np.random.default_rng(seed)
        order = self.generator.permutation(len(images.x))
        self.training, self.tested, self.coming = np.split(order, [3 * len(order) // 8, 5 * len(order) // 8])

    def answers(self, embeddings: np.ndarray) -> np.ndarray:
        return evidence(
            self.images.x[self.training],
            self.images.labels[self.training],
            np.arange(len(self.training)),
            number_of_classes=self.images.classes,
            others=embeddings,
        ).of_others

    def false_alarms(self, windows: int) -> tuple[int, int]:
        """How many of so many windows look different, and are answered differently."""
        x = self.images.x[np.concatenate([self.tested, self.coming])]
        answers, found = self.answers(x), np.zeros(2, int)
        reference = Reference.of(self.images.x[self.training], x, answers)
        looks = reference.project(x)
        for _ in range(windows):
            tested, coming = np.split(self.generator.permutation(len(x)), [len(self.tested)])
            reference = replace(reference, looks=looks[tested], answers=answers[tested])
            window = coming[: WINDOWS[-1]]
            found += reference.compare(looks[window], answers[window]).kinds
        return int(found[0]), int(found[1])

    def noticed(self, another: Images) -> dict[str, list[bool]]:
        """For each change, whether it is noticed in 100, 250, 500 images."""
        tested, coming = self.tested, self.coming
        comes = {name: x[coming] for name, x in self.images.changed.items()}
        comes["another set"] = another.x[self.generator.permutation(len(another.x))[: WINDOWS[-1]]]
        of_class = np.bincount(self.images.labels)
        for kind, label in (("rarest", of_class.argmin()), ("commonest", of_class.argmax())):
            comes[f"more of the {kind} class"] = self.images.x[self.more_of(label, coming)]
        everything = np.concatenate([self.images.x[tested], *comes.values()])
        answers = np.split(self.answers(everything), np.cumsum([len(tested), *map(len, comes.values())])[:-1])
        reference = Reference.of(self.images.x[self.training], self.images.x[tested], answers[0])
        found = {}
        for (name, x), probabilities in zip(comes.items(), answers[1:], strict=True):
            looks = reference.project(x)
            found[name] = [any(reference.compare(looks[:n], probabilities[:n]).kinds) for n in WINDOWS if n <= len(x)]
        return found

    def more_of(self, label: int, coming: np.ndarray) -> np.ndarray:
        """Some of what comes, in which a class is three times as frequent as before, or 90%."""
        is_of = self.images.labels[coming] == label
        share = min(TIMES * (self.images.labels == label).mean(), 0.9)
        count = min(WINDOWS[-1], int(is_of.sum() / share), int((~is_of).sum() / (1 - share)))
        members, others = coming[is_of][: round(count * share)], coming[~is_of][: round(count * (1 - share))]
        return self.generator.permutation(np.concatenate([members, others]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, nargs="*", default=[], help="folders of images for each class")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--windows", type=int, default=3000, help="without a change, of each set")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    rows, figures = [], []
    with tempfile.TemporaryDirectory() as temporary:
        folders = {"solar cells": Path(temporary) / "cells", "letters": Path(temporary) / "letters"}
        copy_solar_cells(folders["solar cells"])
        letters(folders["letters"])
        folders |= {folder.name: folder for folder in options.images}
        sets = {
            name: Images(sorted(path for path in folder.glob("*/*") if path.suffix.lower() in SUFFIXES))
            for name, folder in folders.items()
        }
    names = list(sets)
    for name, another in zip(names, names[1:] + names[:1], strict=True):
        start = time.perf_counter()
        alarms = Bundle(sets[name], seed=0).false_alarms(options.windows)
        seconds = (time.perf_counter() - start) / options.windows
        found = [Bundle(sets[name], seed=seed).noticed(sets[another]) for seed in range(options.seeds)]
        figures.append({"set": name, "windows": options.windows, "false alarms": alarms, "noticed": found})
        rows.append([name, f"no change, {options.windows:,} windows", "", "", f"{alarms[0]} + {alarms[1]} alarms"])
        for change in found[0]:
            shares = [f"{np.mean(column):.0%}" for column in zip(*(each[change] for each in found), strict=False)]
            rows.append(["", change, *shares, *[""] * (len(WINDOWS) - len(shares))])
        rows.append(["", "seconds for each comparison", "", "", f"{seconds:.2f}"])
    title = f"Changes noticed, of {options.seeds} seeds; alarms by looks + by answers"
    print(table(title, ["images", "change", *(f"in {n} images" for n in WINDOWS)], rows))
    about = circumstances()
    print(f"{about['machine']}; {about['date']}")
    write_results(options.json, {"rows": figures})


if __name__ == "__main__":
    main()
