"""How many planted errors the queue of script 5 finds, and how soon: average precision, and how often it is right.

    python benchmarks/review.py [--images FOLDER ...] [--flips 0.05 0.2] [--seeds 3] [--json results.json]

In each set, some images get another label, any with equal chance. An image's suspicion is one minus the probability of
the label that it has then, by an SVM that has not seen it ('SVM alone') and by that with the votes of its neighbours,
as in the queue. Where cleanlab is installed, its label quality (self-confidence) is measured beside them, on
probabilities by scikit-learn's logistic regression in five folds, as its documentation advises, with C = 30 on the same
normalised embeddings. The sets are the solar cells, printed letters made here, scikit-learn's handwritten digits, and
folders of images for each class.
"""

import argparse
import importlib.util
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from common import circumstances, write_results
from embeddings import SUFFIXES, embed
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from sklearn.metrics import average_precision_score

from libraries.base.console import table
from libraries.data.solar_cells import copy_solar_cells
from libraries.review import evidence as evidence_module
from libraries.review.evidence import evidence

LETTERS = "abcdefghkmnprstuvwxy"
OF_EACH = 100


def letters(folder: Path) -> None:
    """Write pictures of printed letters in many fonts, turned, scaled, blurred and in noise."""
    generator = np.random.default_rng(0)
    fonts = sorted(f.fname for f in font_manager.fontManager.ttflist if "mpl-data" in f.fname)
    fonts = [name for name in fonts if "STIXSiz" not in name and not Path(name).stem.startswith(("cmsy", "cmex"))]
    for letter in LETTERS:
        (folder / letter).mkdir(parents=True)
        for i in range(OF_EACH):
            font = ImageFont.truetype(fonts[generator.integers(len(fonts))], int(generator.integers(90, 150)))
            paper = int(generator.integers(140, 256))
            picture = Image.new("L", (224, 224), paper)
            draw = ImageDraw.Draw(picture)
            draw.text((112, 112), letter, fill=int(generator.integers(0, 120)), font=font, anchor="mm")
            turned = picture.rotate(
                generator.normal(0, 6), Image.Resampling.BICUBIC, fillcolor=picture.getpixel((0, 0))
            )
            pixels = np.asarray(turned.filter(ImageFilter.GaussianBlur(generator.uniform(0, 2))), float)
            pixels += generator.normal(0, generator.uniform(0, 20), pixels.shape)
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / letter / f"{i:03d}.png")


def digits(folder: Path) -> None:
    """Write scikit-learn's handwritten digits, 8 x 8 pixels, enlarged."""
    from sklearn.datasets import load_digits

    loaded = load_digits()
    for i, (pixels, digit) in enumerate(zip(loaded.images, loaded.target, strict=True)):
        (folder / str(digit)).mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray((pixels * 15.9).clip(0, 255).astype(np.uint8))
        picture.resize((224, 224), Image.Resampling.BICUBIC).save(folder / str(digit) / f"{i:04d}.png")


def labelled_files(folders: Iterable[Path]) -> Iterator[tuple[str, list[Path], np.ndarray]]:
    """Name, files and labels of the solar cells, the letters, the digits, and folders of images for each class."""
    with tempfile.TemporaryDirectory() as temporary:
        sets = {name: Path(temporary) / name for name in ("solar cells", "letters", "digits")}
        copy_solar_cells(sets["solar cells"])
        letters(sets["letters"])
        digits(sets["digits"])
        for name, folder in (sets | {folder.name: folder for folder in folders}).items():
            files = sorted(path for path in folder.glob("*/*") if path.suffix.lower() in SUFFIXES)
            yield name, files, np.unique([path.parent.name for path in files], return_inverse=True)[1]


def labelled_sets(folders: Iterable[Path]) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name, embeddings and labels of these sets."""
    for name, files, labels in labelled_files(folders):
        yield name, embed(files, 224, 1, 1)[0], labels


def flipped(labels: np.ndarray, classes: int, share: float, *, seed: int) -> np.ndarray:
    """The labels, a share of them changed to any other."""
    generator = np.random.default_rng(seed)
    chosen = generator.choice(len(labels), round(share * len(labels)), replace=False)
    changed = labels.copy()
    changed[chosen] = (labels[chosen] + generator.integers(1, classes, len(chosen))) % classes
    return changed


def found(embeddings: np.ndarray, labels: np.ndarray, classes: int, share: float, *, seed: int) -> dict[str, float]:
    """What is found of planted errors, by the SVM alone and with the neighbours."""
    given = flipped(labels, classes, share, seed=seed)
    is_wrong, groups, figures = given != labels, np.arange(len(labels)), {}
    for name, vote in (("SVM alone", 0.0), ("queue", evidence_module.VOTE)):
        evidence_module.VOTE, usual = vote, evidence_module.VOTE
        start = time.perf_counter()
        judged = evidence(embeddings, given, groups, number_of_classes=classes, seed=seed)
        evidence_module.VOTE = usual
        figures[f"{name}: seconds"] = time.perf_counter() - start
        figures[name] = average_precision_score(is_wrong, 1 - judged.confidence)
        figures[f"{name}: suggestion right"] = (judged.other == labels)[is_wrong].mean()
        figures[f"{name}: found"] = is_wrong[np.argsort(judged.confidence)[: is_wrong.sum()]].mean()
    if importlib.util.find_spec("cleanlab"):
        quality = by_cleanlab(embeddings, given, seed=seed)
        figures["cleanlab"] = average_precision_score(is_wrong, 1 - quality)
        figures["cleanlab: found"] = is_wrong[np.argsort(quality)[: is_wrong.sum()]].mean()
    return figures


def by_cleanlab(embeddings: np.ndarray, labels: np.ndarray, *, seed: int) -> np.ndarray:
    """cleanlab's quality of each label, 0 to 1."""
    from cleanlab.rank import get_label_quality_scores
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    x = np.sqrt(np.abs(embeddings)) * np.sign(embeddings)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    model = LogisticRegression(C=30, max_iter=1000)
    return get_label_quality_scores(labels, cross_val_predict(model, x, labels, cv=folds, method="predict_proba"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, nargs="*", default=[], help="folders of images for each class")
    parser.add_argument("--flips", type=float, nargs="+", default=[0.05, 0.2])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    rows, figures = [], []
    for name, embeddings, labels in labelled_sets(options.images):
        classes = labels.max() + 1
        for share in options.flips:
            of_seeds = [found(embeddings, labels, classes, share, seed=s) for s in range(options.seeds)]
            mean = {key: float(np.mean([each[key] for each in of_seeds])) for key in of_seeds[0]}
            low, high = (f([each["queue"] for each in of_seeds]) for f in (min, max))
            figures.append({"set": name, "share": share, "seeds": of_seeds})
            rows.append([
                f"{name}: {len(labels):,} of {classes}", f"{share:.0%}",
                f"{mean['cleanlab']:.3f}" if "cleanlab" in mean else "", f"{mean['SVM alone']:.3f}",
                f"{mean['queue']:.3f} ({low:.3f} to {high:.3f})",
                f"{mean['cleanlab: found']:.0%}" if "cleanlab" in mean else "", f"{mean['queue: found']:.0%}",
                f"{mean['queue: suggestion right']:.0%}", f"{mean['queue: seconds']:.1f}",
            ])  # fmt: skip
    header = ["images of classes", "wrong", "cleanlab", "SVM alone", "queue", "found: cleanlab", "queue"]
    title = f"Average precision of planted errors, and the share found in as many looks, {options.seeds} seeds"
    print(table(title, [*header, "suggestion right", "seconds"], rows))
    about = circumstances()
    print(f"{about['machine']}; {about['date']}")
    write_results(options.json, {"rows": figures})


if __name__ == "__main__":
    main()
