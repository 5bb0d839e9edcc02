"""What is said of promises that were measured."""

import pytest

from libraries.evaluation import trust


@pytest.mark.parametrize(
    ("share", "images", "is_broken"),
    [(0.05, 1000, False), (0.09, 10_000, False), (0.12, 60, False), (0.2, 60, True), (0.12, 1000, True)],
)
def test_a_promise_that_is_clearly_broken_is_said_to_be(share: float, images: int, is_broken: bool) -> None:
    told = trust.sentences({
        "trust": {"unknown": {"measured": share, "at_most": 0.05}},
        "number_of_test_images": images,
        "number_of_test_images_per_class": {},
    })  # fmt: skip
    assert ("This promise is not kept" in told[0]) == is_broken
