"""What can be installed: the requirements files, and the extras that are made of them."""

import tomllib
from typing import Any

import pytest
from packaging.requirements import Requirement

from libraries.base import command
from tests.conftest import ROOT

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
DYNAMIC = PROJECT["tool"]["setuptools"]["dynamic"]
EXTRAS: dict[str, list[str]] = {name: extra["file"] for name, extra in DYNAMIC["optional-dependencies"].items()}


def lines(name: str) -> list[str]:
    """A requirements file without its comments."""
    text = (line.partition("#")[0].strip() for line in (ROOT / name).read_text(encoding="utf-8").splitlines())
    return [line for line in text if line]


@pytest.mark.parametrize(
    "name", sorted({*DYNAMIC["dependencies"]["file"], *(f for files in EXTRAS.values() for f in files)})
)
def test_files_of_the_extras_are_lists_of_packages(name: str) -> None:
    """Setuptools, unlike pip, takes no line such as `-r other.txt`."""
    assert lines(name)
    for line in lines(name):
        Requirement(line)


def test_requirements_are_those_of_the_extras() -> None:
    included = {line.removeprefix("-r ") for line in lines("requirements.txt")}
    assert included == {*EXTRAS["serve"], *EXTRAS["train"], *EXTRAS["notebooks"]}
    assert {*EXTRAS["refine"]} == {*EXTRAS["train"], "requirements-refine.txt"}
    assert {*EXTRAS["store"]} == {*EXTRAS["train"], "requirements-store.txt"}
    assert {*EXTRAS["cluster"]} == {*EXTRAS["train"], "requirements-cluster.txt"}
    assert {*EXTRAS["dev"], *EXTRAS["serve"]} == {*included, *EXTRAS["refine"], "requirements-dev.txt"}


def test_the_default_needs_no_pytorch() -> None:
    refine = {Requirement(line).name for line in lines("requirements-refine.txt")}
    assert "torch" in refine
    assert refine == set(command._REFINE), "whoever lacks one of them is told where it comes from"
    for name in (*EXTRAS["serve"], *EXTRAS["train"], *EXTRAS["notebooks"]):
        assert not refine & {Requirement(line).name for line in lines(name)}


def test_makefile_installs_again_when_one_of_them_changes() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    names = makefile.partition("INCLUDED := $(patsubst %,requirements-%.txt,")[2].partition(")")[0].split()
    assert [f"-r requirements-{name}.txt" for name in names] == lines("requirements.txt")


def test_license_is_the_one_that_is_named() -> None:
    assert PROJECT["project"]["license"] == "MIT"
    assert [
        (ROOT / name).read_text(encoding="utf-8").splitlines()[0] for name in PROJECT["project"]["license-files"]
    ] == ["MIT License"]
