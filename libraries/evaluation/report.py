"""The report: one HTML file with numbers, pictures and mistakes, readable without a server, a network or JavaScript."""

import base64
import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from libraries.base.errors import ImageError
from libraries.base.pool import ordered_map
from libraries.base.storage import write_text
from libraries.evaluation import costs, wording

PAGES = Path(__file__).with_name("pages")
MOST_MISTAKES = 60  # in the gallery, so that the file stays small
MOST_CONFUSIONS = 10
MOST_COLUMNS = 40  # of the confusion matrix as a table
THUMBNAIL, SMALL = 224, 96  # pixels of the longer side, of mistakes and of the images like them
SHARPNESS = 1.6  # pixels of a picture for one of the page
WIDE, DOUBLE = 1.3, 1.75  # width by height of a picture that takes both columns, and of two pictures side by side
LONG_TABLE = 40  # rows: longer ones scroll
PROBABILITIES = 3  # of a mistake, the highest ones shown; that of the true class always

# Name of a figure → its heading and how to read it.
CAPTIONS = {
    "roc_and_confusion": (
        "Which classes are told apart",
        "Left: how many of a class are found (up) at the price of how many false alarms (right), as the threshold goes "
        "down. The area under the curve (AUC) is the chance that an image of the class gets a higher probability for "
        "it than another image; 0.5 is guessing. Right: for each true class (row), how many images went where.",
    ),
    "precision_recall": (
        "Precision and recall",
        "Of the images taken for a class, how many are right (up), against how many of the class are found (right). "
        "Average precision is the area under the curve.",
    ),
    "reliability": (
        "Can the probabilities be trusted?",
        "Of the images to which it gives 80%, 80% should be right. Points below the dashed line: too confident; above: "
        "too cautious. Each point stands for equally many images; the bars say how far chance alone can move it.",
    ),
    "trust": (
        "When to trust it",
        "If only the images that it is surest of are answered (fewer and fewer from right to left), how many answers "
        "are wrong; the others are left to a person. An image is unknown if it is stranger than almost all training "
        "images; the likely labels are those that are about as probable as the true ones of training images. What is "
        "promised holds for images like these, and for no others.",
    ),
    "costs": (
        "What mistakes cost",
        "What answers like these cost, by the costs that were set: against always giving the same answer, against "
        "asking a person about every image, and against the most probable labels.",
    ),
    "sweep": (
        "Choosing C",
        "C was chosen by cross-validation within the training images (validation); the test images were not consulted.",
    ),
    "learning_curve": (
        "Would more images help?",
        "The accuracy on the test images of SVMs trained on parts of the training images: of all images (black, with "
        "its range over random choices of a part), and of each class.",
    ),
    "training_curves": (
        "Training",
        "The epoch was chosen on a validation part of the training images; the test images were not consulted.",
    ),
}


@dataclass(frozen=True)
class Mistake:
    """A wrongly classified test image.

    Attributes:
        path: as in examples.csv.
        true_label, predicted_label: names of classes.
        probabilities: [K], in the order of the labels in the metrics.
        evidence: for the predicted label, a PNG to lay over the thumbnail; None: there is none.
        alike: path and label of the training images most like it.
    """

    path: str
    true_label: str
    predicted_label: str
    probabilities: Sequence[float]
    evidence: bytes | None = None
    alike: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class EarlierRun:
    """One evaluation of the run history.

    Attributes:
        when: local time of the evaluation.
        differences: what was different from now.
        accuracy, class_averaged: on the test images of that run.
        is_comparable: whether these were the present test images.
    """

    when: str
    differences: tuple[str, ...]
    accuracy: float | None
    class_averaged: float | None
    is_comparable: bool


def write_report(
    path: Path,
    *,
    title: str,
    facts: Mapping[str, str],
    metrics: Mapping[str, Any],
    figures: Mapping[str, Path | bytes],
    notes: Mapping[str, Sequence[str]] | None = None,
    mistakes: Sequence[Mistake],
    thumbnail: Callable[[str, int], bytes],
    parameters: Mapping[str, Any],
    provenance: Mapping[str, Any],
    earlier: Sequence[EarlierRun] = (),
    remarks: Sequence[str] = (),
) -> None:
    """Write the report, whole or not at all.

    Args:
        path: of the HTML file.
        title: what was evaluated, e.g. the name of the data set.
        facts: a few facts for the head, e.g. classifier, network, date.
        metrics: of `libraries.evaluation.metrics.metrics`.
        figures: PNG files or bytes by name; those named in CAPTIONS come with a heading and an explanation.
        notes: sentences to stand above the figure of that name.
        mistakes: the most confident ones first; the first 60 are shown.
        thumbnail: path and side in pixels → a JPEG of that image, called in threads; an ImageError leaves a gap.
        parameters: name → value, in the fold-out.
        provenance: versions, hashes and whatever else says what this was made from, in the fold-out.
        earlier: evaluations of the same data set, the newest first.
        remarks: further sentences about the result.
    """
    accuracy = metrics["accuracy_per_class"]
    script = (PAGES / "report.js").read_text(encoding="utf-8")
    card = partial(_card, labels=metrics["labels"], thumbnail=thumbnail)
    write_page(
        path,
        "report.html",
        title=title,
        overline=[title, *facts.values()],
        metrics=metrics,
        headline=_headline(metrics),
        tiles=_tiles(metrics),
        sentences=[*costs.sentences(metrics), *wording.sentences(metrics), *remarks],
        figures=[_figure(key, image, (notes or {}).get(key, ())) for key, image in figures.items()],
        classes=sorted(metrics["labels"], key=lambda label: 2.0 if accuracy[label] is None else accuracy[label]),
        confusions=wording.confusions(metrics)[:MOST_CONFUSIONS],
        mistakes=[card for _, card in ordered_map(card, mistakes[:MOST_MISTAKES])],
        earlier=[_this_run(metrics), *earlier] if earlier else [],
        parameters=parameters,
        provenance=provenance,
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def write_page(path: Path, template: str, **values: Any) -> None:
    """Write the page that a template in pages/ makes of these values; whatever is text is escaped."""
    environment = Environment(
        loader=FileSystemLoader(PAGES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(percent=wording.percent, interval=wording.interval)
    environment.globals.update(LONG_TABLE=LONG_TABLE, MOST_COLUMNS=MOST_COLUMNS)
    page = environment.get_template(template).render(values)
    write_text(path, page.encode("utf-8", "replace").decode())  # file names need not be Unicode


@dataclass(frozen=True)
class _Tile:
    """A figure of the head: what it is, as text, and a note below."""

    what: str
    value: str
    note: str


@dataclass(frozen=True)
class _Headline:
    """What is aimed at.

    Attributes:
        value: as text.
        words: that go on after it.
        accuracy: the same as a number from 0 to 1, to be drawn; None: it is none.
        interval: of that, or as text.
        compared: what other answers would come to: names and values as text.
        mark: the first of these as a number, to be drawn.
    """

    value: str
    words: str
    accuracy: float | None
    interval: Sequence[float] | str | None
    compared: Mapping[str, str]
    mark: float | None = None


def _headline(metrics: Mapping[str, Any]) -> _Headline:
    images, of_costs = f"{metrics['number_of_test_images']:,} test images", metrics.get("costs")
    if of_costs is None:
        accuracy, majority = metrics["overall_accuracy"], metrics["majority_accuracy"]
        compared = {f"always saying {wording.majority_class(metrics)}": wording.percent(majority)}
        interval = metrics["intervals"]["overall_accuracy"]
        return _Headline(wording.percent(accuracy), f"of {images} are right", accuracy, interval, compared, majority)
    if costs.is_averaging(metrics):
        accuracy, usual = (
            metrics["class_averaged_accuracy"],
            of_costs["class_averaged_accuracy_of_most_probable"],
        )
        words = f"is the mean of the classes’ accuracies, on {images}"
        interval = metrics["intervals"]["class_averaged_accuracy"]
        compared = {"of the most probable labels": wording.percent(usual)}
        return _Headline(wording.percent(accuracy), words, accuracy, interval, compared, usual)
    cost, margin = (costs.PER * of_costs[name] for name in ("answers", "answers_margin"))
    others = {"the most probable labels": "most_probable", "asking about all": "always_asking"}
    compared = {name: of_costs[key] for name, key in others.items() if of_costs[key] is not None}
    return _Headline(
        f"{cost:.4g} {of_costs['unit']}".strip(),
        f"is what {costs.PER} images cost, measured on {images}",
        None,
        f"{max(0.0, cost - margin):.3g}–{cost + margin:.3g}",
        {name: f"{costs.PER * value:.4g}" for name, value in compared.items()},
    )


def _tiles(metrics: Mapping[str, Any]) -> list[_Tile]:
    percent, decimal, of_classes = wording.percent, wording.decimal, "mean of the classes"
    averaged = wording.interval(metrics["intervals"]["class_averaged_accuracy"])
    overall = wording.interval(metrics["intervals"]["overall_accuracy"])
    precision = decimal(metrics["class_averaged_average_precision"])
    return [
        *([_Tile("Accuracy", percent(metrics["overall_accuracy"]), overall)] if "costs" in metrics else []),
        _Tile("Class-averaged accuracy", percent(metrics["class_averaged_accuracy"]), averaged),
        _Tile("AUC", decimal(metrics["class_averaged_auc"]), of_classes),
        *([] if "costs" in metrics else [_Tile("Average precision", precision, of_classes)]),
        _Tile("F1", decimal(metrics["class_averaged_f1"]), of_classes),
        _Tile("Calibration error", percent(metrics["ece"]), f"log loss {decimal(metrics['log_loss'])}"),
    ]


@dataclass(frozen=True)
class _Figure:
    """A PNG with its explanation; `width` in pixels of the page."""

    title: str
    caption: str
    notes: Sequence[str]
    source: str
    width: int
    is_wide: bool
    is_double: bool


def _figure(key: str, image: Path | bytes, notes: Sequence[str]) -> _Figure:
    data = image if isinstance(image, bytes) else image.read_bytes()
    with Image.open(io.BytesIO(data)) as opened:
        width, height = opened.size
    return _Figure(
        *CAPTIONS.get(key, (key, "")),
        notes,
        source=_embedded("png", data),
        width=round(width / SHARPNESS),
        is_wide=width > WIDE * height,
        is_double=width > DOUBLE * height,
    )


@dataclass(frozen=True)
class Thumbnail:
    """A small picture of an image; without `source` the reason why there is none."""

    path: str
    source: str = ""
    reason: str = ""


@dataclass(frozen=True)
class _Card:
    """A mistake as it is shown, pictures inside; `probabilities` and `alike` with their labels."""

    path: str
    true_label: str
    predicted_label: str
    thumbnail: Thumbnail
    evidence: str
    probabilities: Sequence[tuple[str, float]]
    alike: Sequence[tuple[Thumbnail, str]]


def _card(mistake: Mistake, labels: Sequence[str], thumbnail: Callable[[str, int], bytes]) -> _Card:
    ranked = sorted(zip(labels, mistake.probabilities, strict=True), key=lambda pair: -pair[1])
    return _Card(
        mistake.path,
        mistake.true_label,
        mistake.predicted_label,
        thumbnail=small_picture(mistake.path, thumbnail, THUMBNAIL),
        evidence="" if mistake.evidence is None else _embedded("png", mistake.evidence),
        probabilities=ranked[:PROBABILITIES]
        + [pair for pair in ranked[PROBABILITIES:] if pair[0] in (mistake.true_label, mistake.predicted_label)],
        alike=[(small_picture(path, thumbnail, SMALL), label) for path, label in mistake.alike],
    )


def small_picture(path: str, thumbnail: Callable[[str, int], bytes], side: int) -> Thumbnail:
    """The thumbnail of an image; see `write_report`."""
    try:
        return Thumbnail(path, source=_embedded("jpeg", thumbnail(path, side)))
    except ImageError as error:
        return Thumbnail(path, reason=error.reason)


def _this_run(metrics: Mapping[str, Any]) -> EarlierRun:
    return EarlierRun("this run", (), metrics["overall_accuracy"], metrics["class_averaged_accuracy"], True)


def _embedded(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
