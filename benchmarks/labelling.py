"""A person labels images of a pool, in the order that the queue gives them: how many labels are enough?

    python benchmarks/labelling.py [--images FOLDER ...] [--seeds 10] [--at_once 20] [--json results.json]

Played with known labels. A third of each set is tested on, drawn at random; two images of each class have a label at
first, and the person gives `--at_once` more, until the SVM's accuracy is 95% of that with all labels of the pool. The
SVM is that of the queue, and so is its calibration. In 'margin', the least sure images come first, in 'random' any;
where scikit-activeml is installed, so is its 'Badge', on the same probabilities. The sets are those of review.py. The
least step is `--at_once`, so figures are rounded up to it.
"""

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from common import circumstances, write_results
from review import labelled_sets

from libraries.base.console import table
from libraries.review.evidence import Evidence, evidence
from libraries.review.pool import worth_labelling

ENOUGH = 0.95  # of the accuracy with all labels
AT_FIRST = 2  # labels of each class
TESTED = 1 / 3


class Person:
    """Labels a set in some order, until that is enough."""

    def __init__(self, embeddings: np.ndarray, labels: np.ndarray, *, seed: int) -> None:
        order = np.random.default_rng(seed).permutation(len(labels))
        tested, pool = np.split(order, [round(TESTED * len(order))])
        self.x, self.labels, self.tested, self.pool, self.seed = embeddings, labels, tested, pool, seed
        self.classes = int(labels.max()) + 1
        self.with_all = self.accuracy(self.judge(pool, tested))

    def judge(self, labelled: np.ndarray, others: np.ndarray) -> Evidence:
        """What images with a label say about others."""
        return evidence(
            self.x[labelled],
            self.labels[labelled],
            np.arange(len(labelled)),
            number_of_classes=self.classes,
            others=self.x[others],
            seed=self.seed,
        )

    def accuracy(self, found: Evidence) -> float:
        return float((found.of_others[: len(self.tested)].argmax(axis=1) == self.labels[self.tested]).mean())

    def labels_needed(self, choose: Callable[..., list[int]], *, at_once: int) -> int:
        generator = np.random.default_rng(self.seed)
        of_class = [self.pool[self.labels[self.pool] == label] for label in range(self.classes)]
        labelled = np.concatenate([members[:AT_FIRST] for members in of_class])
        while len(labelled) < len(self.pool):
            rest = np.setdiff1d(self.pool, labelled)
            found = self.judge(labelled, np.concatenate([self.tested, rest]))
            if self.accuracy(found) >= ENOUGH * self.with_all:
                break
            likely = found.of_others[len(self.tested) :]
            chosen = choose(likely, self.x[rest], self.x[labelled], found.normalise, at_once, generator)
            labelled = np.concatenate([labelled, rest[chosen]])
        return len(labelled)


def in_queue(probabilities, x, labelled, normalise, most, generator) -> list[int]:  # type: ignore[no-untyped-def]
    return [each.row for each in worth_labelling(probabilities, x, labelled, normalise=normalise, most=most)]


def by_margin(probabilities, x, labelled, normalise, most, generator) -> list[int]:  # type: ignore[no-untyped-def]
    second, first = np.sort(probabilities, axis=1)[:, -2:].T
    return np.argsort(first - second)[:most].tolist()


def at_random(probabilities, x, labelled, normalise, most, generator) -> list[int]:  # type: ignore[no-untyped-def]
    return generator.permutation(len(x))[:most].tolist()


def by_badge(probabilities, x, labelled, normalise, most, generator) -> list[int]:  # type: ignore[no-untyped-def]
    """scikit-activeml's, given our probabilities and embeddings as those of its model."""
    from skactiveml.base import SkactivemlClassifier
    from skactiveml.pool import Badge

    class Ours(SkactivemlClassifier):
        def fit(self, X, y, sample_weight=None):  # type: ignore[no-untyped-def]  # noqa: N803
            return self

        def predict_proba(self, X):  # type: ignore[no-untyped-def]  # noqa: N803
            return probabilities.astype(np.float64)

    ours = Ours(classes=np.arange(probabilities.shape[1]))
    query = Badge(random_state=int(generator.integers(2**31)))
    unknown = np.full(len(x), np.nan)
    chosen = query.query(normalise(x), unknown, clf=ours, fit_clf=False, batch_size=most)
    return [int(row) for row in chosen]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, nargs="*", default=[], help="folders of images for each class")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--at_once", type=int, default=20, help="labels between two queues")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    orders = {"random": at_random, "margin": by_margin, "queue": in_queue}
    if importlib.util.find_spec("skactiveml"):
        orders |= {"scikit-activeml": by_badge}
    rows, figures = [], []
    for name, embeddings, labels in labelled_sets(options.images):
        people = [Person(embeddings, labels, seed=seed) for seed in range(options.seeds)]
        needed, seconds = {}, {}
        for order, choose in orders.items():
            start = time.perf_counter()
            needed[order] = [person.labels_needed(choose, at_once=options.at_once) for person in people]
            seconds[order] = time.perf_counter() - start
        mean = {order: statistics.mean(found) for order, found in needed.items()}
        figures.append({"set": name, "labels": needed, "seconds": seconds})
        rows.append([
            f"{name}: {len(labels):,} of {labels.max() + 1}",
            f"{statistics.mean(person.with_all for person in people):.1%}",
            *(f"{mean[order]:.0f} ({min(needed[order])} to {max(needed[order])})" for order in orders),
            f"{mean['random'] / mean['queue']:.1f} x",
        ])  # fmt: skip
    title = (
        f"Labels until the accuracy is {ENOUGH:.0%} of that with all, {options.at_once} at once; {options.seeds} seeds"
    )
    print(table(title, ["images of classes", "with all", *orders, "random / queue"], rows))
    about = circumstances()
    print(f"{about['machine']}; {about['date']}")
    write_results(options.json, {"rows": figures})


if __name__ == "__main__":
    main()
