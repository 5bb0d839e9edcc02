"""Earlier evaluations of a data set, as the report tells them: what was different, and what came of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class EarlierRun:
    """One evaluation of the run history.

    Attributes:
        when: it was made, in local time.
        differences: what was different from now.
        accuracy, class_averaged: on the test images of then.
        is_comparable: whether these were the test images of now.
    """

    when: str
    differences: tuple[str, ...]
    accuracy: float | None
    class_averaged: float | None
    is_comparable: bool


def earlier_runs(
    runs: Sequence[Mapping[str, Any]], *, parameters: Mapping[str, Any], data: str, test_set: str
) -> list[EarlierRun]:
    """What is worth telling of runs of the history (`tracking.recent_runs`).

    Args:
        parameters: those of now that can change what comes out (`Settings.mattering`).
        data, test_set: identities of all images, and of the test images with their labels, now.
    """
    return [_earlier(run, parameters, data, test_set) for run in runs]


def _earlier(run: Mapping[str, Any], parameters: Mapping[str, Any], data: str, test_set: str) -> EarlierRun:
    then, tags = run["params"], run["tags"]
    differences = [
        f"{name} = {then[name]}"
        for name, value in parameters.items()
        if name in then and then[name] != str(value)[:500]
    ]
    is_comparable = tags.get("test_set") == test_set
    if not is_comparable:
        differences.insert(0, "other test images or labels")
    elif tags.get("data") != data:
        differences.insert(0, "other training images or labels")
    return EarlierRun(
        datetime.fromtimestamp(run["start"] / 1000).strftime("%Y-%m-%d %H:%M"),
        tuple(differences) or ("nothing",),
        run["metrics"].get("overall_accuracy"),
        run["metrics"].get("class_averaged_accuracy"),
        is_comparable,
    )
