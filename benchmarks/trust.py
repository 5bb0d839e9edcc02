"""Are unknown images noticed, better than by the scores that are known for it; and are the promises kept?

    python benchmarks/trust.py [--images FOLDER ...] [--pairs 10] [--splits 20] [--json results.json]
    python benchmarks/trust.py --bundle FOLDER

Unknown: of each set with more than three classes, two are left out, an SVM is trained on six tenths of the others; a
score must tell the rest of these from the images of the two ('near'), from those of all other sets ('far'), from
noise and blank pictures, and from copies of these images themselves that are corrupted as in ImageNet-C at its severest
(Hendrycks & Dietterich 2019: noise, blur, contrast, pixels, JPEG). The figures are areas under the ROC curve (AUROC),
means over random pairs. 'ours' is the strangeness less the threshold of the answer, as the bundle decides. The others
are as in OpenOOD, on normalised embeddings: maximum probability, energy, the tenth nearest neighbour, Mahalanobis and
relative Mahalanobis distance (tied covariance), ViM.

Promises: on each of `--splits` random splits, three quarters for training, how many of the other images are called
unknown (5% at most were promised), and how often the true label is among the likely ones (90% at least); of the
classes, the least mean. As the most probable label is always among them, no set can hold the true one less often than
the classifier is right: 'attainable' is the mean over the classes of what is right of each, or what was promised where
this is more. The sets are those of review.py.

With `--bundle`, the time of a bundle with and without strangeness is compared instead: one image at a time, one core.
"""

import argparse
import io
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from common import circumstances, interleaved, median_ratio, write_results
from embeddings import embed
from PIL import Image, ImageFilter
from review import labelled_files
from sklearn.metrics import roc_auc_score

from libraries.base.console import table
from libraries.classifier.strangeness import normalised
from libraries.classifier.sweep import Sweep, sweep
from libraries.classifier.thresholds import fit_trust
from libraries.classifier.trust import Trust, members
from libraries.network.engine import Engine

C_VALUES = (0.1, 1.0, 10.0)
UNKNOWN_RATE, COVERAGE = 0.05, 0.9
Score = Callable[[np.ndarray], np.ndarray]


def fitted(x: np.ndarray, y: np.ndarray, classes: int, *, seed: int) -> tuple[Sweep, Trust]:
    """The SVM as script 4 trains it, but with fewer values of C, and its thresholds."""
    found = sweep(x, y, number_of_classes=classes, c_values=C_VALUES, normalisations=("sqrt_l2",), seed=seed)
    trust = fit_trust(
        x,
        y,
        np.arange(len(y)),
        scores=found.out_of_fold_scores[found.best],
        calibration=found.calibrations[found.best],
        classifier=found.models[found.best].scores,
        unknown_rate=UNKNOWN_RATE,
        coverage=COVERAGE,
        seed=seed,
    )
    return found, trust


def all_scores(
    x: np.ndarray, y: np.ndarray, classes: int, *, seed: int
) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """By name, what tells how strange images are, of a classifier that was trained on these."""
    found, trust = fitted(x, y, classes, seed=seed)
    model, calibration = found.models[found.best], found.calibrations[found.best]
    z = normalised(x)
    mean = z.mean(axis=0)
    centres = np.stack([z[y == k].mean(axis=0) for k in range(classes)])
    inverse = np.linalg.inv(_shrunk(z - centres[y]))
    of_all = np.linalg.inv(_shrunk(z - mean))
    principal = np.linalg.svd(z - mean, full_matrices=False)[2][: min(512, len(z) // 4)]

    def logits(e: np.ndarray) -> np.ndarray:
        return calibration.logits(model.scores(e))

    def mahalanobis(e: np.ndarray) -> np.ndarray:
        away = normalised(e)[:, None] - centres
        return np.einsum("nkd,nkd->nk", away @ inverse, away).min(axis=1)

    def relative(e: np.ndarray) -> np.ndarray:
        away = normalised(e) - mean
        return mahalanobis(e) - np.einsum("nd,nd->n", away @ of_all, away)

    def residual(e: np.ndarray) -> np.ndarray:
        away = normalised(e) - mean
        return np.sqrt(np.maximum(np.square(away).sum(axis=1) - np.square(away @ principal.T).sum(axis=1), 0))

    alpha = logits(x).max(axis=1).sum() / residual(x).sum()  # ViM scales the residual to the size of the logits

    def strangeness(e: np.ndarray) -> np.ndarray:
        assert trust.strangeness is not None
        return trust.strangeness.score(e, logits(e))

    def ours(e: np.ndarray) -> np.ndarray:
        return strangeness(e) - np.array(trust.unknown_above)[calibration.labels(model.scores(e))]

    return {
        "max. probability": lambda e: -calibration.probabilities(model.scores(e)).max(axis=1),
        "energy": lambda e: -np.logaddexp.reduce(logits(e), axis=1),
        "neighbours": lambda e: -np.sort(normalised(e) @ z.T, axis=1)[:, -10],
        "Mahalanobis": mahalanobis,
        "relative": relative,
        "ViM": lambda e: alpha * residual(e) - np.logaddexp.reduce(logits(e), axis=1),
        "strangeness": strangeness,
        "ours": ours,
    }


def _shrunk(x: np.ndarray, ridge: float = 0.1) -> np.ndarray:
    covariance = x.T @ x / len(x)
    return covariance + ridge * np.trace(covariance) / len(covariance) * np.eye(len(covariance), dtype=x.dtype)


CORRUPTED = 300  # images of a set


def corrupted(files: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of copies of some of the images, each in five ways, and which image each is of."""
    generator, pictures, of = np.random.default_rng(0), list[Image.Image](), list[int]()
    for index in generator.permutation(len(files))[:CORRUPTED]:
        picture = Image.open(files[index]).convert("RGB").resize((224, 224))
        pixels = np.asarray(picture, np.float32) / 255
        noisy = pixels + generator.normal(0, 0.38, pixels.shape)
        flat = (pixels - pixels.mean()) * 0.05 + pixels.mean()
        coarse = io.BytesIO()
        picture.save(coarse, "JPEG", quality=7)
        pictures += [
            *(Image.fromarray((255 * each.clip(0, 1)).astype(np.uint8)) for each in (noisy, flat)),
            picture.filter(ImageFilter.GaussianBlur(8)),
            picture.resize((56, 56), Image.Resampling.BOX).resize((224, 224), Image.Resampling.NEAREST),
            Image.open(coarse),
        ]
        of += 5 * [index]
    return embedded(pictures), np.array(of)


def embedded(pictures: list[Image.Image]) -> np.ndarray:
    with tempfile.TemporaryDirectory() as temporary:
        files = [Path(temporary) / f"{i}.png" for i in range(len(pictures))]
        for picture, path in zip(pictures, files, strict=True):
            picture.save(path)
        return embed(files, 224, 1, 1)[0].astype(np.float32)


def noise_and_blank(count: int = 100) -> np.ndarray:
    """Embeddings of pictures of noise, and of one colour each."""
    generator = np.random.default_rng(0)
    shapes = [(224, 224, 3) if i % 2 else (1, 1, 3) for i in range(count)]
    return embedded([Image.fromarray(generator.integers(0, 256, s, np.uint8)).resize((224, 224)) for s in shapes])


def auroc(known: np.ndarray, unknown: np.ndarray) -> float:
    truth = np.repeat([0, 1], [len(known), len(unknown)])
    return float(roc_auc_score(truth, np.concatenate([known, unknown])))


def noticed(
    x: np.ndarray,
    y: np.ndarray,
    others: list[np.ndarray],
    spoiled: np.ndarray,
    copies: tuple[np.ndarray, np.ndarray],
    *,
    pairs: int,
) -> dict[str, list[float]]:
    """For each score the mean AUROC, near and far, for noise, and for corrupted copies, see `corrupted`."""
    generator, found = np.random.default_rng(0), dict[str, list[list[float]]]()
    for seed in range(pairs):
        out = generator.choice(y.max() + 1, 2, replace=False)
        kept = np.setdiff1d(np.arange(y.max() + 1), out)
        known = generator.permutation(np.flatnonzero(~np.isin(y, out)))
        training, tested = np.split(known, [6 * len(known) // 10])
        far = np.concatenate([other[generator.permutation(len(other))[:300]] for other in others])
        scores = all_scores(x[training], np.searchsorted(kept, y[training]), len(kept), seed=seed)
        for name, score in scores.items():
            of_known = score(x[tested])
            unknown = (x[np.isin(y, out)], far, spoiled, copies[0][np.isin(copies[1], tested)])
            found.setdefault(name, []).append([auroc(of_known, score(each)) for each in unknown])
    return {name: np.mean(values, axis=0).tolist() for name, values in found.items()}


def promises(x: np.ndarray, y: np.ndarray, *, splits: int) -> dict[str, list]:
    """What was kept on each split."""
    classes, kept = int(y.max()) + 1, []
    for seed in range(splits):
        order = np.random.default_rng(seed).permutation(len(y))
        training, tested = np.split(order, [3 * len(y) // 4])
        found, trust = fitted(x[training], y[training], classes, seed=seed)
        assert trust.strangeness is not None
        scores = found.models[found.best].scores(x[tested])
        calibration = found.calibrations[found.best]
        likely = members(calibration.probabilities(scores), np.array(trust.set_above, np.float32))
        holds = likely[np.arange(len(tested)), y[tested]]
        strange = trust.strangeness.score(x[tested], calibration.logits(scores))
        kept.append({
            "unknown": (strange > np.array(trust.unknown_above)[calibration.labels(scores)]).mean(),
            "in the set": holds.mean(),
            "attainable": attainable(calibration.labels(scores) == y[tested], y[tested]),
            "by class": [float(holds[y[tested] == k].mean()) for k in range(classes)],
            "labels": likely.sum(axis=1).mean(),
            "one label": (likely.sum(axis=1) == 1).mean(),
            "right": (calibration.labels(scores) == y[tested]).mean(),
        })  # fmt: skip
    return {name: [each[name] for each in kept] for name in kept[0]}


def attainable(right: np.ndarray, y: np.ndarray) -> float:
    """How often sets that always hold the most probable label hold the true one at least, as promised by class."""
    return float(sum(max(right[y == k].mean(), COVERAGE) * (y == k).mean() for k in np.unique(y)))


def price(bundle: Path, *, rounds: int = 9, images: int = 100) -> None:
    """Say how much longer a bundle takes with strangeness, and how much of its file that is."""
    image = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), np.uint8)
    outputs = ["embedding", "scores", "probabilities"]
    engines = {
        "without": Engine(bundle / "model.onnx", outputs=outputs, cores=1),
        "with": Engine(bundle / "model.onnx", outputs=[*outputs, "strangeness"], cores=1),
    }
    image = image[:, : engines["with"].size, : engines["with"].size]
    runs = {name: partial(_infer, engine, image[0], images) for name, engine in engines.items()}
    seconds = interleaved(runs, rounds=rounds)
    ratio = median_ratio(seconds["with"], seconds["without"])
    print(f"With strangeness an image takes {ratio:.3f} times as long, the median of {rounds} rounds of {images}")


def _infer(engine: Engine, image: np.ndarray, count: int) -> None:
    for _ in range(count):
        engine.infer(image)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, nargs="*", default=[], help="folders of images for each class")
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--bundle", type=Path, help="only compare its time with and without strangeness")
    options = parser.parse_args()
    if options.bundle is not None:
        price(options.bundle)
        return
    sets, copies = {}, {}
    for name, files, y in labelled_files(options.images):
        sets[name] = embed(files, 224, 1, 1)[0].astype(np.float32), y
        copies[name] = corrupted(files) if options.pairs else (np.empty((0, 1)), np.empty(0))
    spoiled = noise_and_blank()
    figures: dict[str, dict[str, object]] = {"unknown": {}, "promises": {}}
    rows = []
    for name, (x, y) in sets.items():
        if y.max() > 2 and options.pairs:
            others = [x for other, (x, _) in sets.items() if other != name]
            found = noticed(x, y, others, spoiled, copies[name], pairs=options.pairs)
            figures["unknown"][name] = found
            for i, kind in enumerate(("near", "far", "noise, blank", "corrupted")):
                rows.append([name if not i else "", kind, *(f"{values[i]:.3f}" for values in found.values())])
    if rows:
        print(table(f"AUROC of unknown images, {options.pairs} pairs of classes", ["images", "", *found], rows))
    rows = []
    for name, (x, y) in sets.items() if options.splits else ():
        kept = promises(x, y, splits=options.splits)
        figures["promises"][name] = kept
        rows.append([
            name,
            *(f"{np.mean(kept[k]):.1%} ({min(kept[k]):.1%} to {max(kept[k]):.1%})" for k in ("unknown", "in the set")),
            f"{np.mean(kept['attainable']):.1%}", f"{np.mean(kept['by class'], axis=0).min():.1%}",
            f"{np.mean(kept['labels']):.2f}", f"{np.mean(kept['one label']):.0%}", f"{np.mean(kept['right']):.1%}",
        ])  # fmt: skip
    header = ["images", "unknown", "in the set", "attainable", "least class", "labels", "one label", "accuracy"]
    print(table(f"Promised: unknown 5% at most, in the set 90% at least; {options.splits} splits", header, rows))
    about = circumstances()
    print(f"{about['machine']}; {about['date']}")
    write_results(options.json, figures)


if __name__ == "__main__":
    main()
