"""Do the images that come still look like those that the bundle was tested with? A report on the pool of a data set."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from libraries.base.arrays import Float32, Int, as_slice
from libraries.base.console import table
from libraries.base.errors import ImageError, InputError, StaleInput
from libraries.base.layout import Layout
from libraries.base.pool import ordered_map
from libraries.base.storage import Artefact
from libraries.classifier.bundle import Classifier
from libraries.classifier.explain import nearest
from libraries.classifier.reference import FEWEST, MOST, REFERENCE, Drift, Reference
from libraries.data.annotations import Annotations
from libraries.data.class_folders import image_file, in_pool, pool_of, pooled, within_pool
from libraries.data.exchange.answers import shown
from libraries.data.pool_folders import SERVICE, drawn, told_label
from libraries.evaluation.outputs import thumbnail
from libraries.evaluation.report import SMALL, THUMBNAIL, Thumbnail, small_picture, write_page
from libraries.evaluation.testing import Tested
from libraries.network.embedding_store import Features
from libraries.review.pool import embed_pool, find_pool

if TYPE_CHECKING:
    from libraries.network.runners import RunOptions

STRANGEST = 40  # images in the report
_NEIGHBOURS = 10
_ALIKE = 3  # training images beside a strange one
_ROWS_AT_ONCE = 1024


def reference_of(tested: Tested, features: Features) -> Reference | None:
    """What the bundle's images looked like; None if there are too few test images that are independent.

    Args:
        features: of the training images, and others.
    """
    first = {example.group: row for row, example in reversed([*enumerate(tested.examples)])}
    rows = sorted(np.random.default_rng(0).permutation(sorted(first.values()))[:MOST].tolist())
    training = features.embedding[as_slice(np.array(features.split) == "train")]
    if len(rows) < FEWEST or len(training) < 2:
        return None
    return Reference.of(training, np.stack([tested.embeddings[row] for row in rows]), tested.probabilities[rows])


def remember(bundle: Artefact, reference: Reference | None) -> None:
    """Write the reference into a bundle's folder, or remove one that is no longer true."""
    if reference is None:
        (bundle.folder / REFERENCE).unlink(missing_ok=True)
    else:
        reference.save(bundle.folder, of=bundle.read()["files"])


@dataclass(frozen=True)
class Batch:
    """Images that came together: a folder of the pool, or a day of the service.

    Attributes:
        name: of the folder.
        images: how many.
        drift: how they compare with the test images; None: they were not compared.
        why: why not.
    """

    name: str
    images: int
    drift: Drift | None
    why: str = ""

    def told(self) -> tuple[str, str]:
        """Whether they look the same, and whether the answers for them do, in a few words."""
        if self.drift is None:
            return self.why, ""
        return _words(self.drift.looks, self.drift.looks_differ), _words(self.drift.answers, self.drift.answers_differ)


def _words(p_value: float, is_different: bool) -> str:
    return f"{'different' if is_different else 'no difference'} (p = {p_value:.2g})"


@dataclass(frozen=True)
class StrangeImage:
    """An image that is unlike the training images.

    Attributes:
        path: within the pool.
        distance: the mean cosine distance to the nearest training images, 0 to 2.
        label, probability: the classifier's answer.
        alike: path and label of the most similar training images.
    """

    path: str
    distance: float
    label: str
    probability: float
    alike: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class PoolDrift:
    """How the pool compares with the test images.

    Attributes:
        batches: by name; the first has all images that are a fair sample of what comes.
        strangest: the strangest first.
        left_out: errors of images that cannot be read.
        copies: files that are copies of other images, which count once.
    """

    batches: list[Batch]
    strangest: list[StrangeImage]
    left_out: list[ImageError]
    labels: list[str]
    copies: int

    def sentences(self) -> list[str]:
        """What has changed, or that nothing has."""
        all_images = self.batches[0]
        if all_images.drift is None:
            return [f"The images were not compared: {all_images.why}."]
        told = all_images.drift.told(self.labels, f"the {all_images.images:,} images")
        differ = [batch.name for batch in self.batches[1:] if batch.drift is not None and any(batch.drift.kinds)]
        if differ:
            told.append(f"Different by themselves: {', '.join(map(shown, differ))}.")
        copies = [f"Copies of other images in the pool, which count once: {self.copies:,}."] if self.copies else []
        return [*(told or self._nothing(all_images.images)), *copies]

    @staticmethod
    def _nothing(images: int) -> list[str]:
        return [
            f"As far as {images:,} images can tell, they look like the test images, and the answers for "
            "them are shared among the classes in the same way."
        ]

    def table(self) -> str:
        """The batches as a table for the console."""
        rows = [[shown(batch.name), batch.images, *batch.told()] for batch in self.batches]
        return table("Compared with the test images", ["images of", "images", "their looks", "their answers"], rows)


def pool_drift(
    layout: Layout,
    features: Features,
    options: "RunOptions",
    *,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> PoolDrift:
    """Compare the images of the pool with the test images of the bundle.

    Args:
        features: of the training images, and others.
        options: how the network is run.
        progress: called with how many images of the pool are done, and how many there are.

    Raises:
        InputError: there is no pool.
        StaleInput: the bundle has not been evaluated.
    """
    classifier = Classifier(layout.bundle.folder, precision=options.precision)
    reference = classifier.load_reference()
    if reference is None:
        raise StaleInput(
            f"{layout.bundle.folder} does not say what its test images look like: run scripts/5_evaluate.py first "
            f"(it needs {FEWEST} test images)"
        )
    pool = find_pool(layout, labelled=(), decided=())
    images, embeddings, left_out = embed_pool(layout, pool, options, progress=progress)
    if not images:
        unread = f" (of {len(pool.left_out) + len(left_out)}, none can be read)" if pool.left_out or left_out else ""
        raise InputError(
            f"there are no images in {pool_of(layout.images)}{unread}: put some there, in folders for each day"
        )
    answers = classifier.predict_embeddings(embeddings)
    looks = reference.project(embeddings)
    paths = [image.path for image in images]
    batches = _batches(layout, paths, reference, looks, np.stack([answer.probabilities for answer in answers]))
    is_training = np.array(features.split) == "train"
    training = np.flatnonzero(is_training)
    near, distance = _neighbours(features.embedding[as_slice(is_training)], embeddings)
    strangest = [
        StrangeImage(
            paths[row],
            float(distance[row]),
            answers[row].label,
            float(answers[row].probabilities.max()),
            [(features.path[i], features.label[i]) for i in training[near[row]]],
        )
        for row in _unlike_each_other(np.argsort(-distance, kind="stable"), looks, alike=reference.alike)
    ]
    return PoolDrift(batches, strangest, [*pool.left_out, *left_out], classifier.labels, pool.copies)


def _batches(
    layout: Layout, paths: list[str], reference: Reference, looks: Float32, probabilities: Float32
) -> list[Batch]:
    """Compare the images [M] together, and folder by folder; see `PoolDrift`."""

    def batch(name: str, rows: list[int], why: str = "") -> Batch:
        if why or len(rows) < FEWEST:
            return Batch(name, len(rows), None, why or f"fewer than {FEWEST}")
        return Batch(name, len(rows), reference.compare(looks[rows], probabilities[rows]))

    fair, chosen = _by_folder(pool_of(layout.images), paths)
    labelled = {_folder(within_pool(path)) for path in Annotations(layout.images).moved if in_pool(path)}
    partly = {name: fair.pop(name) for name in labelled & fair.keys()}
    why = "" if fair else "none is a fair sample of what comes"
    batches = [batch("(all of these)", sorted(row for rows in fair.values() for row in rows), why)]
    batches += [batch(name, rows) for name, rows in sorted(fair.items())]
    batches += [batch(name, rows, "chosen, so no fair sample") for name, rows in sorted(chosen.items())]
    batches += [batch(name, rows, "some have got labels, so no fair sample") for name, rows in sorted(partly.items())]
    return batches


def _unlike_each_other(rows: Int, looks: Float32, *, alike: float) -> list[int]:
    """The first of the rows, without those that show the same as one before."""
    chosen: list[int] = []
    for row in rows[: 20 * STRANGEST].tolist():
        away = looks[chosen] - looks[row]
        if not (np.einsum("np,np->n", away, away) <= alike**2).any():
            chosen.append(row)
    return chosen[:STRANGEST]


def _by_folder(pool: Path, paths: list[str]) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """The rows of images by their folder: those that are a fair sample of what comes, and those chosen for a reason."""
    fair, chosen = defaultdict[str, list[int]](list), defaultdict[str, list[int]](list)
    names_of = cache(drawn)
    for row, path in enumerate(paths):
        folder, name = _folder(path), path.rpartition("/")[2]
        is_of_service = folder.startswith(f"{SERVICE}/")
        is_chosen = told_label(path) is not None or (is_of_service and name not in names_of(pool / folder))
        (chosen if is_chosen else fair)[folder].append(row)
    return fair, chosen


def _folder(path: str) -> str:
    """The folder of an image in the pool, as it is called in the report."""
    top, *inside = path.split("/")
    if top == SERVICE and len(inside) == 2:
        return f"{SERVICE}/{inside[0]}"
    return top if inside else "(in no folder)"


def _neighbours(training: Float32, embeddings: Float32) -> tuple[Int, Float32]:
    """The most similar training images of each embedding, and the mean cosine distance to the ten nearest."""
    near = np.zeros((len(embeddings), min(_ALIKE, len(training))), np.int64)
    distance = np.zeros(len(embeddings), np.float32)
    for start in range(0, len(embeddings), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        found, cosines = nearest(training, embeddings[rows], count=_NEIGHBOURS)
        near[rows], distance[rows] = found[:, :_ALIKE], 1 - cosines.mean(axis=1)
    return near, distance


def write_drift(path: Path, found: PoolDrift, layout: Layout, *, white_level: int) -> None:
    """Write the report, one HTML file that needs no server, network or script."""

    def thumbnail_of(pictured: str, side: int) -> Thumbnail:
        return small_picture(
            pictured,
            lambda name, size: thumbnail(
                image_file(layout.images, name), size, white_level=white_level, max_pixels=layout.max_pixels
            ),
            side,
        )

    def card(strange: StrangeImage) -> dict[str, Any]:
        alike = [(thumbnail_of(like, SMALL), label) for like, label in strange.alike]
        return {"image": strange, "thumbnail": thumbnail_of(pooled(strange.path), THUMBNAIL), "alike": alike}

    write_page(
        path,
        "drift.html",
        title=layout.dataset,
        date=datetime.now().strftime("%Y-%m-%d %H:%M"),
        batches=found.batches,
        sentences=found.sentences(),
        cards=[made for _, made in ordered_map(card, found.strangest)],
    )
