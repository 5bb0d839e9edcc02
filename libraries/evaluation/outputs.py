"""Everything that an evaluation leaves in its folder: numbers, predictions, pictures, report."""

import io
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from libraries.base import figures
from libraries.base.arrays import Float32, Integer, Pixels, as_slice
from libraries.base.errors import ImageError, StaleInput
from libraries.base.layout import Layout
from libraries.base.pool import ordered_map
from libraries.base.storage import read_json, write_json
from libraries.base.tables import write_table
from libraries.classifier.bundle import Classifier
from libraries.classifier.explain import heatmap_of_fitted, nearest, paint
from libraries.data.dataset import Example, load_example
from libraries.data.depth import FULL_RANGE
from libraries.data.images import ResizeRule, area, load
from libraries.evaluation import costs, plots, report, trust
from libraries.evaluation.folds import CrossRow, CrossTested, FoldRow, sentence
from libraries.evaluation.metrics import confident_mistakes
from libraries.evaluation.report import EarlierRun
from libraries.evaluation.since import Since
from libraries.evaluation.testing import PredictionRow, Tested, prediction_rows
from libraries.network.embedding_store import Features

_EVIDENCE = 112  # pixels of a heatmap's side: it is smooth
_MOST_OCCLUDED = 12  # mistakes, where a heatmap takes an inference for each part of the image

_ALIKE = 3  # training images beside a mistake


def write(
    tested: Tested,
    measured: Mapping[str, Any],
    *,
    classifier: Classifier,
    layout: Layout,
    features: Features,
    settings: Mapping[str, Any],
    earlier: Sequence[EarlierRun] = (),
    since: Since | None = None,
) -> list[Path]:
    """Write the evaluation folder, its manifest last.

    Args:
        features: of the training images, and others.
        settings: all parameters, for the report.
        earlier: evaluations of the same data set, for the report.
        since: what has changed since the evaluation before, for the report.

    Returns:
        metrics.json, predictions.csv, the pictures, and report.html as the last.
    """
    artefact = layout.evaluation
    folder = artefact.folder
    artefact.begin()
    write_json(folder / "metrics.json", measured)
    write_table(folder / "predictions.csv", PredictionRow, prediction_rows(tested))
    pictures = _pictures(tested, measured, folder)
    of_training = {
        "learning_curve": layout.svm.folder / "learning_curve.png",
        "sweep": layout.svm.folder / "sweep.png",
        "training_curves": layout.network.folder / "training.png",
    }
    has_svm = layout.svm.manifest.exists()
    model = read_json(layout.bundle.manifest)
    report.write_report(
        folder / "report.html",
        title=layout.dataset,
        facts={
            "classifier": layout.classifier,
            "network": f"{model['architecture']}, {model['input_size']} × {model['input_size']} pixels",
            "date": datetime.now().strftime("%Y-%m-%d %H:%M"),
        },
        metrics=measured,
        figures=pictures | {name: path for name, path in of_training.items() if path.exists()},
        notes={
            "learning_curve": read_json(layout.svm.manifest).get("advice", []) if has_svm else [],
            "trust": trust.sentences(measured),
        },
        mistakes=_mistakes(tested, classifier, layout, features),
        thumbnail=lambda path, side: thumbnail(
            layout.images / path, side, white_level=classifier.rule.white_level, max_pixels=layout.max_pixels
        ),
        parameters=settings,
        provenance={
            "versions": model["versions"],
            "bundle": model["files"],
            "examples.csv": layout.examples.identity(),
        },
        earlier=earlier,
        remarks=[] if since is None else [since.sentence()],
    )
    files = [folder / "metrics.json", folder / "predictions.csv", *pictures.values(), folder / "report.html"]
    artefact.commit(files, annotations=layout.prepared_state, costs=model.get("costs"))
    return files


def write_folds(
    found: CrossTested,
    measured: Mapping[str, Any],
    *,
    layout: Layout,
    features: Features,
    settings: Mapping[str, Any],
    white_level: int,
) -> list[Path]:
    """Write the folder of a cross-validation, its manifest last; see `write`.

    Args:
        features: of step 3.
        white_level: of the data set, for thumbnails.
    """
    artefact, tested = layout.crossvalidation, found.tested
    folder = artefact.folder
    artefact.begin()
    write_json(folder / "metrics.json", measured)
    write_table(folder / "predictions.csv", CrossRow, found.prediction_rows())
    write_table(folder / "folds.csv", FoldRow, found.rows)
    pictures = _pictures(tested, measured, folder)
    network = layout.network.read()
    report.write_report(
        folder / "report.html",
        title=layout.dataset,
        facts={
            "classifier": f"{layout.classifier}, {len(found.rows)} folds",
            "network": f"{network['architecture']}, {network['input_size']} × {network['input_size']} pixels",
            "date": datetime.now().strftime("%Y-%m-%d %H:%M"),
        },
        metrics=measured,
        figures=pictures,
        notes={"trust": trust.sentences(measured)},
        mistakes=_mistakes_in_folds(found, features),
        thumbnail=lambda path, side: thumbnail(
            layout.images / path, side, white_level=white_level, max_pixels=layout.max_pixels
        ),
        parameters=settings,
        provenance={"examples.csv": layout.examples.identity()},
        remarks=[sentence(measured["folds"])],
    )
    files = [folder / name for name in ("metrics.json", "predictions.csv", "folds.csv")]
    files += [*pictures.values(), folder / "report.html"]
    artefact.commit(files, annotations=layout.prepared_state)
    return files


def _shown(tested: Tested) -> Integer:
    """Indices of the mistakes in the report: where a person is asked instead, there is none."""
    answers = tested.predictions if tested.asked is None else np.where(tested.asked, tested.labels, tested.predictions)
    return confident_mistakes(tested.labels, answers, tested.probabilities, count=report.MOST_MISTAKES)


def _mistakes_in_folds(found: CrossTested, features: Features) -> list[report.Mistake]:
    """The mistakes, beside images like them that the classifier of their fold was fitted to."""
    tested, row_of = found.tested, {path: row for row, path in enumerate(features.path)}
    chosen = _shown(tested)
    rows = np.array([row_of[example.path] for example in tested.examples])
    fold_of = np.full(len(features.path), -1)
    fold_of[rows] = found.fold
    mistakes = {}
    for fold in np.unique(found.fold[chosen]):
        mine = chosen[found.fold[chosen] == fold]
        others = np.flatnonzero(fold_of != fold)
        like, _ = nearest(features.embedding[others], features.embedding[rows[mine]], count=_ALIKE)
        for i, row in zip(mine.tolist(), others[like].tolist(), strict=True):
            mistakes[i] = report.Mistake(
                path=tested.examples[i].path,
                true_label=tested.examples[i].label,
                predicted_label=tested.names[tested.predictions[i]],
                probabilities=tested.probabilities[i].tolist(),
                alike=[(features.path[j], features.label[j]) for j in row],
            )
    return [mistakes[i] for i in chosen.tolist()]


def _pictures(tested: Tested, measured: Mapping[str, Any], folder: Path) -> dict[str, Path]:
    labels, probabilities, names = tested.labels, tested.probabilities, tested.names
    drawn = {
        "roc_and_confusion": plots.roc_and_confusion(labels, tested.predictions, probabilities, names=names),
        "precision_recall": plots.precision_recall(labels, probabilities, names=names),
        "reliability": plots.reliability(labels, probabilities),
        "trust": trust.trust_figure(tested),
    }
    if "costs" in measured:
        drawn["costs"] = costs.cost_figure(measured)
    for name, figure in drawn.items():
        figures.save(figure, folder / f"{name}.png")
    return {name: folder / f"{name}.png" for name in drawn}


def square(side: int, *, white_level: int = FULL_RANGE) -> ResizeRule:
    """The rule by which an image is shown small."""
    return ResizeRule(side, "pad", "bicubic", (255, 255, 255), white_level)


def _mistakes(tested: Tested, classifier: Classifier, layout: Layout, features: Features) -> list[report.Mistake]:
    chosen = _shown(tested)
    alike = _alike([tested.embeddings[i] for i in chosen], features)
    explained = len(chosen) if classifier.has_evidence else _MOST_OCCLUDED
    predictions = tested.predictions

    def mistake(place: int) -> report.Mistake:
        i = chosen[place]
        example, label = tested.examples[i], tested.names[predictions[i]]
        return report.Mistake(
            path=example.path,
            true_label=example.label,
            predicted_label=label,
            probabilities=tested.probabilities[i].tolist(),
            evidence=_evidence(classifier, example, label, layout.images) if place < explained else None,
            alike=alike[place],
        )

    return [found for _, found in ordered_map(mistake, range(len(chosen)))]


def _alike(embeddings: Sequence[Float32], features: Features) -> list[list[tuple[str, str]]]:
    """Path and label of the training images most like each of the embeddings [M, D]."""
    if not embeddings:
        return []
    is_training = np.array(features.split) == "train"
    found, _ = nearest(features.embedding[as_slice(is_training)], np.array(embeddings), count=_ALIKE)
    rows = np.flatnonzero(is_training)[found]
    return [[(features.path[i], features.label[i]) for i in row] for row in rows]


def _evidence(classifier: Classifier, example: Example, label: str, images: Path) -> bytes | None:
    """The evidence for a label as a PNG to lay over the thumbnail; None if the image cannot be read any more."""
    size = example.width, example.height
    try:
        fitted = load_example(example, folder=images, rule=classifier.rule)
    except (ImageError, StaleInput):
        return None
    found = heatmap_of_fitted(classifier, fitted, label, size=size)
    file = io.BytesIO()
    Image.fromarray(paint(found, area(size, square(report.THUMBNAIL)), side=_EVIDENCE)).save(file, "PNG", optimize=True)
    return file.getvalue()


def thumbnail(path: Path, side: int, *, white_level: int, max_pixels: int) -> bytes:
    """A small JPEG of an image file, a square of `side` pixels; raises ImageError."""
    return jpeg(load(path, square(side, white_level=white_level), max_pixels=max_pixels))


def jpeg(pixels: Pixels) -> bytes:
    """A small JPEG of an image uint8 [H, W, 3]."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=82, optimize=True)
    return file.getvalue()


def scalars(measured: Mapping[str, Any]) -> dict[str, float]:
    """The single numbers of metrics.json, for the run history; per class as `accuracy_per_class.<label>`."""

    def walk(prefix: str, value: Any) -> Iterator[tuple[str, float]]:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                yield from walk(f"{prefix}.{key}" if prefix else key, inner)
        elif isinstance(value, int | float):
            yield prefix, float(value)

    return dict(walk("", {k: v for k, v in measured.items() if k not in ("intervals", "interval_method")}))
