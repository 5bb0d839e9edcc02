"""One white level for a data set: the least depth that holds all values, and a word where that is doubtful."""

import pytest

from libraries.data.depth import FULL_RANGE, Depth, WhiteLevel


def depths(*levels: int | None) -> dict[str, Depth]:
    return {f"a/{i}.tif": Depth(level) for i, level in enumerate(levels)}


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ([], FULL_RANGE),
        ([None, None], FULL_RANGE),
        ([255, 255], 255),
        ([1023, None, 4095, 255], 4095),
        ([4095, 65535], 65535),
    ],
)
def test_the_least_level_that_holds_all(levels: list[int | None], expected: int) -> None:
    white = WhiteLevel.of(depths(*levels))
    assert (white.level, white.is_given) == (expected, False)
    assert white.to_json() == ({} if expected == FULL_RANGE else {"white_level": expected})


def test_what_a_person_says_counts() -> None:
    white = WhiteLevel.of(depths(4095, 1023), given=1000)
    assert white.level == 1000
    first, warning = white.summary_lines()
    assert first == "whiteLevel: 1,000 is white in 2 images of more than 8 bits"
    assert warning == "Warning: brighter pixels in 1 of them, e.g. a/0.tif"
    assert WhiteLevel.of(depths(4095), given=4095).summary_lines() == [
        "whiteLevel: 4,095 is white in 1 image of more than 8 bits"
    ]
    assert WhiteLevel.of({}, given=4095).summary_lines() == []


def test_what_was_found_is_reported() -> None:
    assert WhiteLevel.of({}).summary_lines() == WhiteLevel.of(depths(65535, 65535)).summary_lines() == []
    assert WhiteLevel.of(depths(4095, 1023)).summary_lines() == [
        "12-bit values in files of more bits: 4,095 is taken as white"
    ]


def test_a_few_images_of_another_camera_are_named() -> None:
    (warning,) = WhiteLevel.of(depths(*[4095] * 40, 65535)).summary_lines()
    assert warning.startswith(
        "Warning: of 41 images of more than 8 bits only 1 have values above 4,095, e.g. a/40.tif: because of them "
    )
    assert warning.endswith("set whiteLevel = 4095")
    assert WhiteLevel.of(depths(*[4095] * 8, 65535)).summary_lines() == [], "one in nine may just be bright"


def test_images_without_a_common_scale_are_named() -> None:
    stretched = {"a/0.tif": Depth(None, is_stretched=True), "a/1.tif": Depth(65535)}
    (warning,) = WhiteLevel.of(stretched).summary_lines()
    assert "values of unknown range in 1 image, e.g. a/0.tif" in warning and "whiteLevel" in warning
    assert not any("range" in line for line in WhiteLevel.of(stretched, given=1000).summary_lines())


def test_classes_of_different_cameras_are_named() -> None:
    labels = {path: "old" if number < 8 else "new" for number, path in enumerate(depths(*[4095] * 8, *[65535] * 8))}
    (warning,) = WhiteLevel.of(depths(*[4095] * 8, *[65535] * 8), labels=labels).summary_lines()
    assert warning == (
        "Warning: values up to 4,095 in all images of 'old' of more than 8 bits, but up to 65,535 in 'new': if they "
        "come from another camera, brightness alone tells these classes apart; bring their values to one scale"
    )
    mixed = depths(*[4095, 65535] * 8)
    assert WhiteLevel.of(mixed, labels=labels).summary_lines() == [], "both classes have bright and dark images"
