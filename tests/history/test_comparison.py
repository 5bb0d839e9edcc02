"""Earlier runs: what was different then, and whether they can be compared."""

from typing import Any

import pytest

from libraries.evaluation.report import EarlierRun
from libraries.history.comparison import earlier_runs
from PARAMETERS import Parameters

PARAMETERS = Parameters.load()
NOW = PARAMETERS.model_dump()


def logged(*, tags: dict[str, str] | None = None, **changes: Any) -> dict[str, Any]:
    """A run as MLflow gives it back: parameters as texts."""
    return {
        "start": 1_795_000_000_000,
        "params": {key: str(value)[:500] for key, value in {**NOW, **changes}.items()},
        "metrics": {"overall_accuracy": 0.875, "class_averaged_accuracy": 0.8},
        "tags": {"data": "d", "test_set": "t"} if tags is None else tags,
    }


def told(run: dict[str, Any]) -> EarlierRun:
    (earlier,) = earlier_runs([run], parameters=PARAMETERS.mattering(), data="d", test_set="t")
    return earlier


def test_only_what_can_change_the_result_is_told() -> None:
    run = told(logged(rf_views=8, classifier="dnn", port=9999, run_mbSize=7))
    assert run.differences == ("classifier = dnn", "rf_views = 8")
    assert (run.accuracy, run.class_averaged, run.is_comparable) == (0.875, 0.8, True)
    assert run.when.startswith("2026-11-1")


@pytest.mark.parametrize(
    ("tags", "differences", "is_comparable"),
    [
        ({"data": "d", "test_set": "t"}, ("nothing",), True),
        ({"data": "other", "test_set": "t"}, ("other training images or labels",), True),
        ({"data": "other", "test_set": "other"}, ("other test images or labels",), False),
        ({}, ("other test images or labels",), False),
    ],
)
def test_other_images_are_told(tags: dict[str, str], differences: tuple[str, ...], is_comparable: bool) -> None:
    run = told(logged(tags=tags))
    assert (run.differences, run.is_comparable) == (differences, is_comparable)


def test_a_run_of_another_version_of_the_project() -> None:
    run = logged()
    del run["params"]["rf_views"], run["metrics"]["class_averaged_accuracy"]
    assert told(run) == EarlierRun(told(run).when, ("nothing",), 0.875, None, True)
