"""Labels as folder names."""

import unicodedata

import pytest

from libraries.base.errors import InputError
from libraries.data.class_folders import check_label, check_labels


@pytest.mark.parametrize("label", ["cat", "t-shirt", "sunny day", "größe", "猫", "a.b", "v1.0-x"])
def test_good_labels_pass(label: str) -> None:
    assert check_label(label) == label


def test_labels_are_normalised() -> None:
    assert check_label(unicodedata.normalize("NFD", "größe")) == "größe"


@pytest.mark.parametrize(
    "label",
    [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "a\\b",
        "a:b",
        "a\nb",
        "a\0b",
        "\u202eabc",
        " a",
        "a ",
        "a.",
        ".hidden",
        "CON",
        "nul.txt",
        "Con .txt",
        "COM¹",
        "x" * 101,
    ],
)
def test_bad_labels_are_refused_in_one_line(label: str) -> None:
    with pytest.raises(InputError, match="cannot be a folder name") as error:
        check_label(label)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("pair", [("Cat", "cat"), ("straße", "STRASSE")])
def test_labels_that_are_one_folder_on_some_systems(pair: tuple[str, str]) -> None:
    with pytest.raises(InputError, match="differ only in case"):
        check_labels(pair)


def test_labels_that_look_alike_are_told_apart_in_the_message() -> None:
    with pytest.raises(InputError) as error:
        check_labels(["M\u00fcll", "Mu\u0308ll"])
    assert "'M\\xfcll'" in str(error.value) and "'Mu\\u0308ll'" in str(error.value)
