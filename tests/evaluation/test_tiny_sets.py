"""A handful of test images: classes without any, all right, all wrong, one group. Nothing divides by zero or warns.

Warnings are errors in these tests, so that a 0/0 in numpy fails them.
"""

import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from libraries.base import figures
from libraries.evaluation import plots, report, wording
from libraries.evaluation.metrics import confident_mistakes, metrics
from libraries.evaluation.uncertainty import accuracy_intervals

often = settings(max_examples=150, deadline=None, database=None)
Tiny = dict[str, Any]


@st.composite
def tiny(draw: st.DrawFn) -> Tiny:
    """Labels, probabilities and groups of 1 to 6 test images of 2 to 4 classes; groups may cross classes."""
    k = draw(st.integers(2, 4))
    n = draw(st.integers(1, 6))
    labels = np.array(draw(st.lists(st.integers(0, k - 1), min_size=n, max_size=n)))
    kind = draw(st.sampled_from(["right", "wrong", "any"]))
    any_class = np.array(draw(st.lists(st.integers(0, k - 1), min_size=n, max_size=n)))
    predicted = {"right": labels, "wrong": (labels + 1) % k, "any": any_class}[kind]
    sureness = np.array(draw(st.lists(st.sampled_from([0.0, 0.1, 1.0]), min_size=n, max_size=n)))
    even = np.full((n, k), 1 / k)
    p = sureness[:, None] * np.eye(k)[predicted] + (1 - sureness[:, None]) * even
    groups = draw(st.none() | st.lists(st.sampled_from(["", "a", "b"]), min_size=n, max_size=n) | st.just(["one"] * n))
    return {"labels": labels, "probabilities": p, "groups": groups, "names": [f"class {c}" for c in range(k)]}


def measured(case: Tiny) -> dict[str, Any]:
    return metrics(case["labels"], case["probabilities"], names=case["names"], groups=case["groups"])


def numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from numbers(inner)
    elif isinstance(value, int | float):
        yield value


@given(case=tiny())
@often
def test_metrics_are_in_range_or_unknown(case: Tiny) -> None:
    result = measured(case)
    json.dumps(result, allow_nan=False)
    assert all(math.isfinite(number) for number in numbers(result))
    fractions = {key: value for key, value in result.items() if "accuracy" in key or "auc" in key or "f1" in key}
    fractions |= {key: result[key] for key in ("brier", "ece", "intervals")}
    assert all(0 <= number <= 1 for number in numbers(fractions))
    for low, high in filter(None, [*result["intervals"]["accuracy_per_class"].values()]):
        assert low <= high
    assert wording.accuracy_table(result)
    assert all(sentence and "nan" not in sentence for sentence in wording.sentences(result))


def test_an_interval_is_unknown_where_only_the_mixture_of_classes_varies() -> None:
    """Each class all right or all wrong, one group of both: resamples differ only in which classes they have."""
    labels, predicted = np.array([0, 1, 2, 2, 2]), np.array([0, 0, 2, 2, 2])
    groups = ["same picture", "same picture", "", "", ""]
    result = accuracy_intervals(labels, predicted, number_of_classes=3, groups=groups)
    assert result.class_averaged is None
    assert result.overall is not None
    few = accuracy_intervals(labels[:3], predicted[:3], number_of_classes=3, groups=groups[:3])
    assert few.overall is None, "of two groups, one of them half wrong, an interval would be 50 to 100%"
    assert [result.per_class[c][0] == 0 or result.per_class[c][1] == 1 for c in range(3)] == [True] * 3  # type: ignore[index]


@pytest.mark.parametrize(
    ("labels", "predicted"), [([1], [0]), ([0, 0, 2], [0, 0, 2])], ids=["one image, wrong", "no image of a class"]
)
def test_pictures_and_report_are_made(labels: list[int], predicted: list[int], tmp_path: Path) -> None:
    names, truth, p = ["a", "b", "c"], np.array(labels), np.eye(3)[predicted]
    drawn = {
        "roc_and_confusion": plots.roc_and_confusion(truth, p.argmax(axis=1), p, names=names),
        "precision_recall": plots.precision_recall(truth, p, names=names),
        "reliability": plots.reliability(truth, p),
    }
    pixel = io.BytesIO()
    Image.new("RGB", (1, 1)).save(pixel, "JPEG")
    for name, figure in drawn.items():
        figures.save(figure, tmp_path / f"{name}.png")
    report.write_report(
        tmp_path / "report.html",
        title="tiny",
        facts={},
        metrics=metrics(truth, p, names=names, groups=["one"] * len(truth)),
        figures={name: tmp_path / f"{name}.png" for name in drawn},
        mistakes=[
            report.Mistake(str(i), names[truth[i]], names[p[i].argmax()], p[i].tolist())
            for i in confident_mistakes(truth, p.argmax(axis=1), p, count=9)
        ],
        thumbnail=lambda path, side: pixel.getvalue(),
        parameters={},
        provenance={},
    )
    assert (tmp_path / "report.html").stat().st_size > 10_000
