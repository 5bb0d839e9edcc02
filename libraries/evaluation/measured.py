"""All figures of a classifier's answers, as in metrics.json, and in words for the console."""

import textwrap
from collections.abc import Mapping
from typing import Any

from libraries.classifier.costs import Costs
from libraries.evaluation import costs, trust
from libraries.evaluation.metrics import metrics
from libraries.evaluation.testing import Tested
from libraries.evaluation.wording import accuracy_table


def measure(
    tested: Tested, *, promised: Mapping[str, Any], of_mistakes: Costs | None, is_averaging: bool, seed: int
) -> dict[str, Any]:
    """The figures.

    Args:
        promised: see `trust_metrics`.
        of_mistakes: what they cost; None: all the same.
        is_averaging: see `cost_metrics`.
        seed: of the bootstrap.
    """
    measured = metrics(
        tested.labels,
        tested.probabilities,
        predictions=tested.predictions,
        names=tested.names,
        groups=tested.groups,
        seed=seed,
    )
    measured["trust"] = trust.trust_metrics(tested, promised)
    if of_mistakes is not None:
        measured["costs"] = costs.cost_metrics(tested, of_mistakes, is_averaging=is_averaging)
    return measured


def told(measured: Mapping[str, Any]) -> str:
    """Sentences and a table."""
    title = "Accuracy, every image tested once" if "folds" in measured else "Accuracy on the test images"
    of_costs, of_trust = (
        [textwrap.fill(sentence, 100) for sentence in of.sentences(measured)] for of in (costs, trust)
    )
    return "\n".join([*of_costs, accuracy_table(measured, title=title), *of_trust])  # what is aimed at comes first
