"""How many errors in a data set are found per image looked at, by the lists of this project and of cleanlab.

    python benchmarks/looking.py [--images FOLDER ...] [--seeds 3] [--json results.json]

Errors are planted in a copy of each set: 5% of the images get another label, 2% are there again, compressed, under
another label, 1% are spoiled (blank, very dark, blurred, or noise), and 1% are pictures of the next set. A person looks
at the images in the order of the lists. 'project': review.csv of script 5, then quality.csv of script 1. 'cleanlab':
Datalab's label issues, near duplicates, outliers and, as it calls CleanVision for images, its issues of images, each
the worst first; 'CleanVision' these alone. It gets the project's embeddings, and probabilities by scikit-learn's
logistic regression in five folds, as its documentation advises, C = 30. An error counts as found when its image, or the
copy, has been looked at. Needs cleanlab, cleanvision and datasets; the sets are those of review.py.
"""

import argparse
import contextlib
import csv
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common import circumstances, user_environment, versions, write_results
from embeddings import SUFFIXES
from PIL import Image, ImageFilter
from review import letters
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from libraries.base.console import table
from libraries.data.solar_cells import copy_solar_cells
from libraries.network.embedding_store import read_features

SCRIPTS = Path(__file__).parents[1] / "scripts"
SHARES = {"wrong label": 0.05, "copy with another label": 0.02, "spoiled": 0.01, "foreign": 0.01}
OF_IMAGES = ("dark", "light", "blurry", "low_information", "odd_aspect_ratio", "odd_size")  # CleanVision's


@dataclass(frozen=True)
class Planted:
    """A set with errors: for each image that is one, its number; a copy and its original have the same."""

    folder: Path
    errors: dict[str, int]
    kinds: list[str]

    @classmethod
    def make(cls, source: Path, other: Path, folder: Path, *, seed: int) -> "Planted":
        generator = random.Random(seed)
        files, foreign = (sorted(p for p in f.glob("*/*") if p.suffix.lower() in SUFFIXES) for f in (source, other))
        labels = sorted({path.parent.name for path in files})
        generator.shuffle(files)
        chosen = iter(files)
        planted = cls(folder, {}, [])
        for kind, share in SHARES.items():
            for _ in range(round(share * len(files))):
                path = next(chosen)
                another = generator.choice([label for label in labels if label != path.parent.name])
                planted.plant(kind, path, another, generator.choice(foreign), generator)
        for path in chosen:
            planted.place(path, path.parent.name)
        return planted

    def plant(self, kind: str, path: Path, another: str, foreign: Path, generator: random.Random) -> None:
        number = len(self.kinds)
        self.kinds.append(kind)
        if kind == "wrong label":
            names = [self.place(path, another)]
        elif kind == "foreign":
            names = [self.place(foreign, path.parent.name, stem=f"foreign {number}"), ""]
            self.place(path, path.parent.name)
        elif kind == "spoiled":
            names = [self.place(path, path.parent.name)]
            spoil(self.folder / names[0], generator.choice(("blank", "dark", "blurred", "noise")))
        else:
            names = [self.place(path, path.parent.name), f"{another}/copy {number}.jpg"]
            (self.folder / another).mkdir(parents=True, exist_ok=True)
            with Image.open(path) as image:
                image.convert("RGB").save(self.folder / names[1], quality=80)
        self.errors.update(dict.fromkeys(filter(None, names), number))

    def place(self, path: Path, label: str, *, stem: str = "") -> str:
        name = f"{label}/{stem or path.stem}{path.suffix}"
        (self.folder / label).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, self.folder / name)
        return name

    def found(self, order: Iterable[str], looks: int) -> np.ndarray:
        """How many errors of each kind are found by looking at so many images."""
        seen = {self.errors[path] for path in [*dict.fromkeys(order)][:looks] if path in self.errors}
        return np.array([sum(self.kinds[number] == kind for number in seen) for kind in SHARES])


def spoil(path: Path, how: str) -> None:
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    if how == "blank":
        image = Image.new("RGB", image.size, (200, 200, 200))
    elif how == "dark":
        image = image.point(lambda value: value // 12)
    elif how == "blurred":
        image = image.filter(ImageFilter.GaussianBlur(max(image.size) / 20))
    else:
        image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*image.size[::-1], 3), np.uint8))
    image.save(path)


def by_project(root: Path) -> list[str]:
    """The order of the project's lists."""
    proc = root / "proc" / "planted"
    for step, *flags in (
        ("1_prepareData",), ("2_refineDNN",), ("3_runDNN",), ("5_evaluate", "--review"),
    ):  # fmt: skip
        command = [sys.executable, str(SCRIPTS / f"{step}.py"), "--rootDir", str(root), "--datasetName", "planted"]
        subprocess.run(
            [*command, "--runHistory", "false", *flags], check=True, capture_output=True, env=user_environment()
        )
    order = []
    for name in ("review.csv", "quality.csv"):
        with (proc / name).open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row.get("reason") != "random"]
        order += [row["path"] for row in rows]
    return order


def by_cleanlab(root: Path) -> tuple[list[str], list[str]]:
    """The order of Datalab's lists, and of CleanVision's alone."""
    from cleanlab import Datalab
    from datasets import Dataset
    from datasets import Image as ImageColumn

    features = read_features(root / "proc" / "planted" / "features_svm")
    x = np.sqrt(np.abs(features.embedding)) * np.sign(features.embedding)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    labels = np.unique(features.label, return_inverse=True)[1]
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    model = LogisticRegression(C=30, max_iter=1000)
    probabilities = cross_val_predict(model, x, labels, cv=folds, method="predict_proba")
    files = [str(root / "images" / "planted" / path) for path in features.path]
    data = Dataset.from_dict({"image": files, "label": features.label}).cast_column("image", ImageColumn())
    with (
        Path(os.devnull).open("w", encoding="utf-8") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        lab = Datalab(data=data, label_name="label", image_key="image", verbosity=0)
        lab.find_issues(features=x, pred_probs=probabilities)
    issues, order, of_images = lab.get_issues(), [], []
    for kind in ("label", "near_duplicate", "outlier", *OF_IMAGES):
        if f"is_{kind}_issue" in issues:
            rows = issues[issues[f"is_{kind}_issue"]].sort_values(f"{kind}_score").index
            order += [features.path[row] for row in rows]
            of_images += [features.path[row] for row in rows if kind in OF_IMAGES]
    return order, of_images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, nargs="*", default=[], help="folders of images for each class")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    rows, figures = [], []
    with tempfile.TemporaryDirectory() as temporary:
        sets = {"solar cells": Path(temporary) / "cells", "letters": Path(temporary) / "letters"}
        copy_solar_cells(sets["solar cells"])
        letters(sets["letters"])
        sets |= {folder.name: folder for folder in options.images}
        names = list(sets)
        for name, another in zip(names, names[1:] + names[:1], strict=True):
            of_seeds = []
            for seed in range(options.seeds):
                root = Path(temporary) / f"{name} {seed}"
                planted = Planted.make(sets[name], sets[another], root / "images" / "planted", seed=seed)
                start = time.perf_counter()
                orders = {"project": by_project(root)}
                seconds = {"project": time.perf_counter() - start}
                start = time.perf_counter()
                orders["cleanlab"], orders["CleanVision"] = by_cleanlab(root)
                seconds["cleanlab"] = time.perf_counter() - start
                count = len(planted.kinds)
                of_seeds.append({
                    tool: {
                        "in as many looks": planted.found(order, count).tolist(),
                        "in twice as many": planted.found(order, 2 * count).tolist(),
                        "in all": planted.found(order, len(order)).tolist(),
                        "listed": len(dict.fromkeys(order)),
                        "planted": [planted.kinds.count(kind) for kind in SHARES],
                        "seconds": seconds.get(tool),
                    }
                    for tool, order in orders.items()
                })  # fmt: skip
                shutil.rmtree(root)
            figures.append({"set": name, "seeds": of_seeds})
            for tool in of_seeds[0]:
                mine = [each[tool] for each in of_seeds]
                total = np.sum([each["planted"] for each in mine], axis=0)
                first, twice, everything = (
                    np.sum([each[when] for each in mine], axis=0)
                    for when in ("in as many looks", "in twice as many", "in all")
                )
                rows.append([
                    name if tool == "project" else "", tool,
                    *(f"{some / planted:.0%}" for some, planted in zip(first, total, strict=True)),
                    f"{first.sum() / total.sum():.0%}", f"{twice.sum() / total.sum():.0%}",
                    f"{everything.sum() / total.sum():.0%} of {np.mean([each['listed'] for each in mine]):.0f}",
                ])  # fmt: skip
    header = ["images", "lists of", *SHARES, "all", "in twice as many", "in all listed"]
    print(table(f"Errors found in as many looks as there are errors, {options.seeds} seeds", header, rows))
    about = circumstances()
    print(f"{versions('cleanlab', 'cleanvision')}; {about['machine']}; {about['date']}")
    write_results(options.json, {"rows": figures})


if __name__ == "__main__":
    main()
