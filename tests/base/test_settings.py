"""Loading, overriding, checking and explaining parameters."""

import json
import re
import sys
import unicodedata
from pathlib import Path

import pytest

from libraries.base.errors import ParameterError
from libraries.base.layout import Layout
from PARAMETERS import Parameters


def test_defaults_are_those_of_the_tutorial() -> None:
    p = Parameters.load()
    assert (p.classifier, p.datasetName, p.ratioTrainTest, p.imagesSplitBy) == ("svm", "solarCells", 0.75, "filename")
    assert (p.rf_inputResolution, p.rf_dropoutRate, p.rf_mbSize, p.rf_maxEpochs) == (224, 0.5, 16, 45)
    assert (p.rf_momentumPerMb, p.rf_l2RegWeight) == (0.9, 0.0005)
    assert p.svm_CVals == (1e-4, 1e-3, 1e-2, 1e-1, 1, 10, 100)
    assert p.rootDir.is_absolute()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("classifier", "dnn", "dnn"),
        ("rf_maxEpochs", "5", 5),
        ("rf_inputResoluton", "300", 300),  # the tutorial's spelling
        ("cntk_mb_size", "8", 8),
        ("rf_lrPerMb", "auto", "auto"),
        ("rf_lrPerMb", "0.01,0.001", (0.01, 0.001)),
        ("rf_lrPerMb", "[0.01, 0.001]", (0.01, 0.001)),
        ("svm_CVals", "3", (3.0,)),
        ("svm_boL2Normalize", "false", False),
        ("rf_maxTrainImages", "none", None),
        ("datasetName", "my cats, dogs", None),
        ("trackingUri", "http://localhost:5000", "http://localhost:5000"),
        ("download_allowedHosts", "a.example,b.example", ("a.example", "b.example")),
    ],
)
def test_text_is_understood(name: str, text: str, value: object, monkeypatch: pytest.MonkeyPatch) -> None:
    today = Parameters.former_names().get(name, name)
    if name == "datasetName":
        with pytest.raises(ParameterError, match="datasetName = my cats, dogs is invalid"):
            Parameters.load({name: text})
        return
    assert getattr(Parameters.load({name: text}), today) == value
    monkeypatch.setenv(f"PARAMETERS_{name}", text)
    assert getattr(Parameters.load(), today) == value


def test_command_line_wins_over_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARAMETERS_rf_mbSize", "8")
    assert Parameters.load({"cntk_mb_size": "32"}).rf_mbSize == 32


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("clasifier", "svm", "there is no parameter 'clasifier': did you mean classifier?"),
        ("RF_MAXEPOCHS", "5", "did you mean rf_maxEpochs?"),
        ("zzz", "5", r"there is no parameter 'zzz': \(--help lists all\)"),
        ("classifier", "tree", r"parameter classifier = tree is invalid: .* \(expected: svm \| dnn \| svmDnnRefined\)"),
        (
            "rf_maxEpochs",
            "many",
            r"rf_maxEpochs = many is invalid: .*expected: whole number, at least 0, at most 10000",
        ),
        ("rf_maxEpochs", "-1", "rf_maxEpochs = -1 is invalid"),
        ("ratioTrainTest", "1", "ratioTrainTest = 1 is invalid: .*below 1"),
        ("svm_CVals", "-1,1", "svm_CVals = -1 is invalid: .*above 0"),
        ("svm_CVals", "[]", "svm_CVals = .* is invalid"),
        ("svm_CVals", "nan", "svm_CVals = nan is invalid"),
        ("rf_lrPerMb", "fast", "rf_lrPerMb = fast is invalid"),
        ("datasetName", "../other", "datasetName = ../other is invalid"),
        ("datasetName", "", "datasetName =  is invalid"),
    ],
)
def test_bad_names_and_values_are_explained(
    name: str, text: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ParameterError, match=message) as from_call:
        Parameters.load({name: text})
    assert "\n" not in str(from_call.value)
    monkeypatch.setenv(f"PARAMETERS_{name}", text)
    with pytest.raises(ParameterError, match=message):
        Parameters.load()


def test_help_names_every_parameter_with_a_description() -> None:
    text = Parameters.help_text()
    for name, field in Parameters.model_fields.items():
        assert f"--{name} " in text
        assert field.description and field.description in text


def test_reference_has_every_parameter_and_is_the_same_on_every_machine() -> None:
    text = "\n".join(Parameters.reference().values())
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == list(Parameters.model_fields)
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {5}, "four cells"
    assert "| path | ~/imageClassification |" in text and "| path | resources/testImg.jpg |" in text
    assert "; also accepted: `cntk_mb_size` |" in text
    assert "images are in &lt;rootDir>/" in text and "`label<TAB>url`" in text


def test_every_parameter_is_used() -> None:
    """A parameter that no script and no recipe reads does not exist."""
    root = Path(__file__).parents[2]
    sources = [*(root / "scripts").glob("*.py"), *(root / "libraries").rglob("*.py")]
    code = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    handed_on = (root / "PARAMETERS.py").read_text(encoding="utf-8")  # by run_options and its like
    unused = [name for name in Parameters.model_fields if name not in code and f"self.{name}" not in handed_on]
    assert unused == []


def test_parameters_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Parameters.load().classifier = "dnn"


def test_home_folder_that_does_not_exist_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "~")
    with pytest.raises(ParameterError, match=r"rootDir = ~/imageClassification is invalid: this user has no home"):
        Parameters.load()
    assert Parameters.load({"rootDir": "/data"}).rootDir == Path("/data")


def test_what_another_machine_may_know_has_no_paths_and_no_addresses() -> None:
    parameters = Parameters.load({"trackingUri": "https://user:password@server", "bundle": "/home/someone/model"})
    known = parameters.portable()
    assert known["classifier"] == "svm"
    assert not {"rootDir", "trackingUri", "bundle", "imagePath", "url"} & set(known)
    assert "/home" not in json.dumps(known)


def test_what_another_machine_may_know_has_nothing_private() -> None:
    known = Parameters.load({"searchContact": "someone@example.org"}).portable()
    assert "searchContact" not in known
    assert "searchLicence" in known


def test_an_empty_path_is_not_the_present_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ParameterError, match="imgUrlsPath =  is invalid: it is empty"):
        Parameters.load({"imgUrlsPath": ""})
    with monkeypatch.context() as patch, pytest.raises(ParameterError, match="rootDir =  is invalid: it is empty"):
        patch.setenv("PARAMETERS_rootDir", "")
        Parameters.load()
    monkeypatch.setenv("HOME", "")  # '~' would be the root of the file system
    with pytest.raises(ParameterError, match="no home folder"):
        Parameters.load()


@pytest.mark.parametrize("name", ["CON", "aux.2024", "com1", "nul .x", "cells."])
def test_data_sets_have_names_that_windows_can_have(name: str) -> None:
    with pytest.raises(ParameterError, match=r"parameter datasetName = .* is invalid: Windows"):
        Parameters.load({"datasetName": name})
    assert Parameters.load({"datasetName": "console v1.2"}).datasetName == "console v1.2"


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems take both forms for one name")
def test_names_in_another_form_of_unicode(tmp_path: Path) -> None:
    composed, apart = "M\u00fcll", unicodedata.normalize("NFD", "M\u00fcll")
    p = Parameters.load({"datasetName": apart, "rf_labels": f"{apart},b"})
    assert p.datasetName == composed and p.rf_labels == (composed, "b")
    (tmp_path / "images" / apart).mkdir(parents=True)
    assert Parameters.load({"folder": f"{tmp_path}/images/{composed}/a"}).folder == tmp_path / "images" / apart / "a"
    layout = Layout(Parameters.load({"rootDir": tmp_path, "datasetName": composed}))
    assert layout.images == tmp_path / "images" / apart and layout.proc == tmp_path / "proc" / composed


def test_a_number_to_choose_or_none_is_typed_as_any_other() -> None:
    assert Parameters.load({"rf_featureMaps": "3"}).rf_featureMaps == 3
    assert Parameters.load({"rf_featureMaps": "none"}).rf_featureMaps is None
    with pytest.raises(ParameterError, match=r"rf_featureMaps = 4 is invalid: .*expected: 3 \| none"):
        Parameters.load({"rf_featureMaps": "4"})
