"""The steps as data: whole, in order, and about scripts and parameters that exist."""

from pathlib import Path
from typing import get_args

import pytest

from libraries.base import stages
from libraries.base.settings import group
from libraries.base.stages import STAGES, Output, Subject
from PARAMETERS import Parameters

ROOT = Path(__file__).parents[2]


def test_every_script_is_a_stage() -> None:
    assert sorted(stage.script for stage in STAGES) == sorted(path.stem for path in (ROOT / "scripts").glob("*.py"))


def test_what_an_output_is_made_from_is_made_before_it() -> None:
    made: list[str] = []
    for stage in STAGES:
        for output in stage.outputs:
            for name in output.made_from:
                sources = ("dnn_fixed", "dnn_refined") if name == "network" else (name,)
                assert set(sources) <= set(made), f"{output.name} is made from {name}, which no step has made by then"
            made.append(output.name)


def test_every_subject_is_used_by_parameters_and_outputs() -> None:
    of_parameters = set().union(*Parameters.subjects().values())
    used = {subject for _, output in stages.outputs() for subject in output.depends_on}
    assert of_parameters == used == set(get_args(Subject))


def test_a_parameter_has_to_say_what_it_matters_to() -> None:
    parameter = group("All scripts")
    with pytest.raises(TypeError, match="'a thing' must say what it matters to"):
        parameter(1, "a thing")
    assert parameter(1, "a thing", matters_to="svm").json_schema_extra["matters_to"] == ["svm"]
    assert group("4_trainSVM", matters_to="svm")(1, "a thing").json_schema_extra["matters_to"] == ["svm"]


@pytest.mark.parametrize(
    ("name", "classifier", "script"), [("model_dnn", "dnn", "4_trainSVM"), ("model_svm", "svm", "4_trainSVM")]
)
def test_who_makes_the_bundle(name: str, classifier: str, script: str) -> None:
    assert stages.find(name, classifier)[0].script == script


def test_a_step_is_described_by_what_it_reads_and_writes() -> None:
    (stage,) = (stage for stage in STAGES if stage.script == "3_runDNN")
    lines = stages.described(stage).splitlines()
    assert lines[0] == "Reads:" and lines[1] == "  images/<datasetName>/<label>/*: the images"
    assert any(line.startswith("  proc/<datasetName>/examples.csv: path, label, split") for line in lines)
    assert any(line.startswith("  proc/<datasetName>/features_<classifier>: part-*.parquet") for line in lines)
    assert max(map(len, lines)) <= 118
    assert all(isinstance(output, Output) for output in stage.outputs)


def test_the_picture_has_every_step_and_every_output() -> None:
    picture = stages.flowchart()
    boxes = {"examples", "network", "model", "features", "svm", "evaluation"}
    assert all(f"{stage.script}([" in picture for stage in STAGES)
    assert all(f'{box}["' in picture and f"--> {box}" in picture for box in boxes)
    assert "images --> 2_refineDNN" in picture and "dnn_fixed -->" not in picture


def test_the_table_has_every_step() -> None:
    rows = stages.table().splitlines()
    assert [row.split("|")[1].strip(" `") for row in rows[2:]] == [stage.script for stage in STAGES]
