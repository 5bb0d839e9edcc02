"""The report: one HTML file with numbers, pictures and mistakes, readable without a server, a network or JavaScript."""

import base64
import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from PIL import Image

from libraries.base.errors import ImageError
from libraries.base.storage import write_text
from libraries.evaluation import wording
from libraries.evaluation.comparison import EarlierRun
from libraries.evaluation.html import cell, embedded, fold, name, paragraphs, scale, text

TEMPLATE = Path(__file__).with_name("report.html")
SCRIPT = Path(__file__).with_name("report.js")
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
        thumbnail: gives a JPEG of the image with that path, of so many pixels; an ImageError leaves a gap.
        parameters: name → value, in the fold-out.
        provenance: versions, hashes and whatever else says what this was made from, in the fold-out.
        earlier: evaluations of the same data set, the newest first.
    """
    notes = notes or {}
    first, *others = [_figure(key, image, notes.get(key, ())) for key, image in figures.items()] or [""]
    sections = [
        _head(title, facts, metrics),
        f'<section class="reading"><h2>In words</h2>{paragraphs(wording.sentences(metrics))}</section>',
        first,
        _classes(metrics),
        _matrix(metrics),
        _confusions(metrics) if len(metrics["labels"]) > 2 else "",
        _mistakes(mistakes, metrics, thumbnail),
        f'<div class="pair">{"".join(others)}</div>',
        _earlier(earlier, metrics) if earlier else "",
        "<section><h2>How this was made</h2>"
        + fold("Parameters", parameters)
        + fold("Provenance", provenance)
        + "</section>",
    ]
    script = SCRIPT.read_text(encoding="utf-8")
    page = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=f"{text(title)}: {wording.percent(metrics['overall_accuracy'])} right",
        body="\n".join(sections),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    write_text(path, page)


def _head(title: str, facts: Mapping[str, str], metrics: Mapping[str, Any]) -> str:
    """The accuracy, what to compare it with, and the other figures."""
    accuracy, interval = metrics["overall_accuracy"], metrics["intervals"]["overall_accuracy"]
    majority = metrics["majority_accuracy"]
    averaged = wording.interval(metrics["intervals"]["class_averaged_accuracy"])
    tiles = [
        ("Class-averaged accuracy", wording.percent(metrics["class_averaged_accuracy"]), averaged),
        ("AUC", wording.decimal(metrics["class_averaged_auc"]), "mean of the classes"),
        ("Average precision", wording.decimal(metrics["class_averaged_average_precision"]), "mean of the classes"),
        ("F1", wording.decimal(metrics["class_averaged_f1"]), "mean of the classes"),
        ("Calibration error", wording.percent(metrics["ece"]), f"log loss {wording.decimal(metrics['log_loss'])}"),
    ]
    return f"""<header>
<p class="overline">{" · ".join(map(text, [title, *facts.values()]))}</p>
<h1><strong>{wording.percent(accuracy)}</strong> of {metrics["number_of_test_images"]:,} test images are right</h1>
{scale(accuracy, interval, majority)}
<p class="legend">
<span><span class="range"></span>95% interval {wording.interval(interval)}</span>
<span><span class="mark"></span>always saying {name(wording.majority_class(metrics))} {wording.percent(majority)}</span>
</p>
</header>
<dl class="tiles">
{"".join(f"<div><dt>{what}</dt><dd>{value}<small>{note}</small></dd></div>" for what, value, note in tiles)}
</dl>"""


def _figure(key: str, image: Path | bytes, notes: Sequence[str]) -> str:
    data = image if isinstance(image, bytes) else image.read_bytes()
    with Image.open(io.BytesIO(data)) as opened:
        width, height = opened.size
    title, caption = CAPTIONS.get(key, (key, ""))
    wide = " wide" if width > WIDE * height else ""
    double = " double" if width > DOUBLE * height else ""
    return f"""<section class="figure{wide}">
<h2>{text(title)}</h2>
{paragraphs(notes)}
<p class="soft">{text(caption)}</p>
<div class="picture{double}">
<img src="{embedded("png", data)}" alt="{text(title)}" width="{round(width / SHARPNESS)}">
</div>
</section>"""


def _classes(metrics: Mapping[str, Any]) -> str:
    """The table of classes, weakest first."""
    accuracy = metrics["accuracy_per_class"]
    order = sorted(metrics["labels"], key=lambda label: 2.0 if accuracy[label] is None else accuracy[label])
    rows = []
    for label in order:
        interval = metrics["intervals"]["accuracy_per_class"][label]
        cells = [
            f"<td>{name(label)}</td>",
            cell(metrics["number_of_test_images_per_class"][label], "{:,}"),
            cell(accuracy[label], "{:.1%}"),
            f'<td class="soft">{wording.interval(interval)}</td>',
            f'<td class="bar">{scale(accuracy[label], interval)}</td>',
            *(cell(metrics[f"{key}_per_class"][label], "{:.3f}") for key in ("auc", "average_precision", "f1")),
        ]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    heads = (
        '<th>class</th><th>test images</th><th aria-sort="ascending">accuracy</th><th data-fixed>95% interval</th>'
        '<th class="bar" data-fixed></th><th>AUC</th><th>average precision</th><th>F1</th>'
    )
    return f"""<section>
<h2>Class by class</h2>
<p class="soft">The weakest first. Accuracy is the fraction of the images of the class that are right.</p>
<div class="scroll{" long" if len(rows) > LONG_TABLE else ""}"><table class="sortable">
<thead><tr>{heads}</tr></thead>
<tbody>{"".join(rows)}</tbody>
</table></div>
</section>"""


def _matrix(metrics: Mapping[str, Any]) -> str:
    """The confusion matrix as a table to sort: by a column, to see what is taken for that class."""
    labels, matrix = metrics["labels"], metrics["confusion_matrix"]
    if not 2 < len(labels) <= MOST_COLUMNS:
        return ""
    heads = "".join(f'<th aria-sort="none">{name(label)}</th>' for label in labels)
    rows = []
    for i, label in enumerate(labels):
        total = sum(matrix[i]) or 1
        cells = (
            f'<td data-value="{images}" class="{"right" if i == j else "wrong"}" '
            f'style="--p:{100 * images / total:.0f}%">{f"{images:,}" if images else ""}</td>'
            for j, images in enumerate(matrix[i])
        )
        rows.append(f'<tr><th scope="row">{name(label)}</th>{"".join(cells)}</tr>')
    return f"""<section>
<h2>What is taken for what</h2>
<p class="soft">A row for each true class, with how many of its images went where. A click on a class sorts the rows by
what is taken for it.</p>
<div class="scroll"><table class="sortable matrix">
<thead><tr><th aria-sort="ascending">true class</th>{heads}</tr></thead>
<tbody>{"".join(rows)}</tbody>
</table></div>
</section>"""


def _confusions(metrics: Mapping[str, Any]) -> str:
    pairs = wording.confusions(metrics)[:MOST_CONFUSIONS]
    if not pairs:
        return ""
    rows = "".join(
        f"<tr><td>{name(pair.true_label)}</td><td>{name(pair.predicted_label)}</td><td>{pair.images:,}</td>"
        f"<td>{wording.percent(pair.fraction)}</td></tr>"
        for pair in pairs
    )
    return f"""<section>
<h2>Most frequent confusions</h2>
<div class="scroll"><table class="pairs">
<thead><tr><th>true class</th><th>taken for</th><th>images</th><th>of the true class</th></tr></thead>
<tbody>{rows}</tbody>
</table></div>
</section>"""


def _mistakes(mistakes: Sequence[Mistake], metrics: Mapping[str, Any], thumbnail: Callable[[str, int], bytes]) -> str:
    if not mistakes:
        return '<section><h2>Mistakes</h2><p class="soft">There are none.</p></section>'
    cards = "".join(_mistake(mistake, metrics["labels"], thumbnail) for mistake in mistakes[:MOST_MISTAKES])
    switch = _EVIDENCE_SWITCH if any(mistake.evidence for mistake in mistakes) else ""
    return (
        '<section><h2>The most confident mistakes</h2><p class="soft">Worth a look: wrong labels, odd images and what '
        "the training images lack show here first. Each with its highest probabilities, the bar of the true class "
        "coloured, and with the training images that are most like it to the network: often they are the reason."
        f'</p>{switch}<ol class="mistakes">{cards}</ol></section>'
    )


_EVIDENCE_SWITCH = (
    '<input type="checkbox" id="evidence"><label for="evidence">Show what speaks <b class="for">for</b> and '
    '<b class="against">against</b> the wrong answer</label>'
)


def _mistake(mistake: Mistake, labels: Sequence[str], thumbnail: Callable[[str, int], bytes]) -> str:
    picture = _picture(mistake.path, thumbnail, THUMBNAIL)
    if mistake.evidence is not None:
        overlay = f'<img class="evidence" src="{embedded("png", mistake.evidence)}" alt="" loading="lazy">'
        picture = f'<div class="shown">{picture}{overlay}</div>'
    ranked = sorted(zip(labels, mistake.probabilities, strict=True), key=lambda pair: -pair[1])
    shown = ranked[:PROBABILITIES] + [pair for pair in ranked[PROBABILITIES:] if pair[0] == mistake.true_label]
    rows = "".join(
        f'<li class="{"truth" if label == mistake.true_label else "other"}">{name(label)}<span>{p:.1%}</span>'
        f'<i style="--p:{100 * p:.1f}%"></i></li>'
        for label, p in shown
    )
    return (
        f"<li>{picture}{name(mistake.true_label)} taken for <b>{name(mistake.predicted_label)}</b><ul>{rows}</ul>"
        f'{_alike(mistake, thumbnail)}<p class="path">{name(mistake.path)}</p></li>'
    )


def _picture(path: str, thumbnail: Callable[[str, int], bytes], side: int) -> str:
    try:
        return f'<img src="{embedded("jpeg", thumbnail(path, side))}" alt="{text(path)}" loading="lazy">'
    except ImageError as error:
        return f'<div class="missing">{text(error.reason)}</div>'


def _alike(mistake: Mistake, thumbnail: Callable[[str, int], bytes]) -> str:
    if not mistake.alike:
        return ""
    cards = "".join(
        f'<li class="{"truth" if label == mistake.true_label else "other"}" title="{text(path)}">'
        f"{_picture(path, thumbnail, SMALL)}{name(label)}</li>"
        for path, label in mistake.alike
    )
    return f'<ol class="alike">{cards}</ol>'


def _earlier(runs: Sequence[EarlierRun], metrics: Mapping[str, Any]) -> str:
    """The table of earlier runs, below this one."""
    present = EarlierRun("this run", (), metrics["overall_accuracy"], metrics["class_averaged_accuracy"], True)
    rows = "".join(
        f"<tr><td>{text(run.when)}</td><td>{'<br>'.join(map(text, run.differences))}</td>"
        f"{cell(run.accuracy, '{:.1%}')}{cell(run.class_averaged, '{:.1%}')}"
        f'<td class="bar">{scale(run.accuracy, None)}</td></tr>'
        for run in (present, *runs)
    )
    heads = "".join(f"<th>{head}</th>" for head in ("evaluated", "different then", "accuracy", "class-averaged"))
    return f"""<section>
<h2>Earlier runs</h2>
<p class="soft">What was different then, and what came of it. Only runs on the same test images can be compared; and the
best of many runs looks better than it is, since it was chosen by the test images.</p>
<div class="scroll"><table class="earlier">
<thead><tr>{heads}<th class="bar"></th></tr></thead>
<tbody>{rows}</tbody>
</table></div>
</section>"""
