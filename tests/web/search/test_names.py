import pytest

from libraries.web.search.names import openverse_name, permits


@pytest.mark.parametrize(
    ("code", "version", "name"),
    [
        ("by-sa", "4.0", "CC BY-SA 4.0"),
        ("by-nc-nd", "2.0", "CC BY-NC-ND 2.0"),
        ("cc0", "1.0", "CC0 1.0"),
        ("pdm", "1.0", "Public Domain Mark 1.0"),
        ("by", "", "CC BY"),
        ("", "4.0", ""),
    ],
)
def test_names_of_openverse(code: str, version: str, name: str) -> None:
    assert openverse_name(code, version) == name


@pytest.mark.parametrize(
    ("licence", "commercial", "modify"),
    [
        ("CC BY 4.0", True, True),
        ("CC BY-SA 3.0 de", True, True),
        ("CC-BY-SA-2.5", True, True),
        ("CC BY-NC 2.0", False, True),
        ("CC BY-ND 2.0", True, False),
        ("CC BY-NC-ND 4.0", False, False),
        ("CC0", True, True),
        ("CC0 1.0", True, True),
        ("Public domain", True, True),
        ("Public Domain Mark 1.0", True, True),
        ("PD-old-100", True, True),
        ("GFDL 1.2", True, True),
        ("FAL", True, True),
        ("Attribution", True, True),
        ("No restrictions", True, True),
        ("CC SAMPLING+ 1.0", False, False),
        ("CC NC-SAMPLING+ 1.0", False, False),
        ("Attribution-NonCommercial", False, False),
        ("Fair use", False, False),
        ("All rights reserved", False, False),
        ("", False, False),
    ],
)
def test_what_a_licence_permits(licence: str, commercial: bool, modify: bool) -> None:
    assert permits(licence, "any")
    assert permits(licence, "commercial") == commercial
    assert permits(licence, "modify") == modify
    assert permits(licence, "commercialModify") == (commercial and modify)
