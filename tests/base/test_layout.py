"""Which parameters make which artefacts stale: a table by hand."""

from pathlib import Path
from typing import Any

import pytest

from libraries.base import storage
from libraries.base.errors import StaleInput
from libraries.base.layout import Layout
from libraries.base.storage import Artefact
from PARAMETERS import Parameters

ALL = ("examples", "network", "features", "svm", "bundle", "evaluation")
NOTHING: tuple[str, ...] = ()
FROM_NETWORK = ("network", "features", "svm", "bundle", "evaluation")
FROM_EXAMPLES = ("examples", "features", "svm", "bundle", "evaluation")  # a fixed network needs no examples
FROM_FEATURES = ("features", "svm", "bundle", "evaluation")
FROM_SVM = ("svm", "bundle", "evaluation")
FROM_BUNDLE = ("bundle", "evaluation")

# Parameter → another value; what becomes stale for 'svm'; what for 'svmDnnRefined'.
TABLE: dict[str, tuple[Any, tuple[str, ...], tuple[str, ...]]] = {
    "randomSeed": (1, FROM_EXAMPLES, ALL),
    "device": ("cpu", NOTHING, NOTHING),
    "storeGigabytes": (1.0, NOTHING, NOTHING),
    "runHistory": (False, NOTHING, NOTHING),
    "cluster": ("local", NOTHING, NOTHING),
    "trackingUri": ("http://localhost", NOTHING, NOTHING),
    "imgUrlsPath": ("list.tsv", NOTHING, NOTHING),
    "imgLabelsPath": ("train.csv", NOTHING, NOTHING),
    "imgLabelsColumns": (("id", "label"), NOTHING, NOTHING),
    "imgFolder": ("train", NOTHING, NOTHING),
    "imgStoreUrl": ("s3://bucket/folder", NOTHING, NOTHING),
    "searchProvider": ("wikimedia", NOTHING, NOTHING),
    "searchContact": ("someone@example.org", NOTHING, NOTHING),
    "searchLicence": ("commercial", NOTHING, NOTHING),
    "searchUrl": ("http://localhost", NOTHING, NOTHING),
    "download_workers": (2, NOTHING, NOTHING),
    "download_timeout": (5.0, NOTHING, NOTHING),
    "download_retries": (1, NOTHING, NOTHING),
    "download_maxBytes": (1000, NOTHING, NOTHING),
    "download_maxSide": (500, NOTHING, NOTHING),
    "download_allowedHosts": (("localhost",), NOTHING, NOTHING),
    "download_retryFailed": (True, NOTHING, NOTHING),
    "ratioTrainTest": (0.5, FROM_EXAMPLES, ALL),
    "imagesSplitBy": ("subdir", FROM_EXAMPLES, ALL),
    "classMap": ("classes.csv", FROM_EXAMPLES, ALL),
    "duplicates": ("exact", FROM_EXAMPLES, ALL),
    "duplicates_maxDistance": (8, FROM_EXAMPLES, ALL),
    "duplicates_minSimilarity": (0.9, NOTHING, NOTHING),  # matters only to scenes
    "importLabels": ("export.json", NOTHING, NOTHING),
    "whiteLevel": (4095, FROM_EXAMPLES, ALL),
    "maxMegapixels": (200, FROM_EXAMPLES, ALL),
    "rf_pretrainedModelFilename": ("ResNet_18.model", FROM_NETWORK, FROM_NETWORK),
    "rf_inputResolution": (96, FROM_NETWORK, FROM_NETWORK),
    "rf_resizeMode": ("crop", FROM_NETWORK, FROM_NETWORK),
    "rf_views": (8, FROM_NETWORK, FROM_NETWORK),
    "rf_featureMaps": (3, FROM_NETWORK, FROM_NETWORK),
    "rf_embeddingNode": ("pool", NOTHING, NOTHING),  # these four matter to .model and .onnx files
    "rf_channelOrder": ("rgb", NOTHING, NOTHING),
    "rf_channelMeans": ((1.0, 2.0, 3.0), NOTHING, NOTHING),
    "rf_channelStds": ((1.0, 2.0, 3.0), NOTHING, NOTHING),
    "rf_labels": (("b", "a"), NOTHING, NOTHING),  # to a network used unchanged
    "rf_dropoutRate": (0.1, NOTHING, FROM_NETWORK),
    "rf_mbSize": (8, NOTHING, FROM_NETWORK),
    "rf_maxEpochs": (3, NOTHING, FROM_NETWORK),
    "rf_maxTrainImages": (100, NOTHING, FROM_NETWORK),
    "rf_lrPerMb": ((0.01, 0.001), NOTHING, FROM_NETWORK),
    "rf_lrPeak": (0.001, NOTHING, FROM_NETWORK),
    "rf_momentumPerMb": (0.8, NOTHING, FROM_NETWORK),
    "rf_l2RegWeight": (0.0, NOTHING, FROM_NETWORK),
    "rf_boFreezeWeights": (True, NOTHING, FROM_NETWORK),
    "rf_boBalanceTrainingSet": (True, NOTHING, FROM_NETWORK),
    "rf_augmentation": ("none", NOTHING, FROM_NETWORK),
    "rf_validationFraction": (0.2, NOTHING, FROM_NETWORK),
    "run_mbSize": (16, NOTHING, NOTHING),
    "run_precision": ("bf16", FROM_FEATURES, FROM_FEATURES),
    "svm_CVals": ((0.1, 1.0), FROM_SVM, FROM_SVM),
    "svm_boL2Normalize": (True, FROM_SVM, FROM_SVM),
    "svm_folds": (3, FROM_SVM, FROM_SVM),
    "unknownRate": (0.1, FROM_BUNDLE, FROM_BUNDLE),
    "coverage": (0.95, FROM_BUNDLE, FROM_BUNDLE),
    "costs": ("classAveraged", FROM_SVM, FROM_SVM),
    "tune_minutes": (1.0, NOTHING, NOTHING),
    "tune_networks": (("ResNet_18.model",), NOTHING, NOTHING),
    "tune_resolutions": ((320,), NOTHING, NOTHING),
    "url": ("http://localhost", NOTHING, NOTHING),
    "imagePath": ("cell.png", NOTHING, NOTHING),
    "calls": (1, NOTHING, NOTHING),
    "folder": ("pictures", NOTHING, NOTHING),
    "requestsInFlight": (1, NOTHING, NOTHING),
    "rightLabel": ("defective", NOTHING, NOTHING),
    "bundle": ("model_svm", NOTHING, NOTHING),
    "serve_similar": ("never", NOTHING, NOTHING),
    "candidate": ("model_svm", NOTHING, NOTHING),
    "host": ("0.0.0.0", NOTHING, NOTHING),
    "port": (80, NOTHING, NOTHING),
    "keyFile": ("key", NOTHING, NOTHING),
    "adminKeyFile": ("key", NOTHING, NOTHING),
    "feedbackKeyFile": ("key", NOTHING, NOTHING),
    "serve_keep": ("sample", NOTHING, NOTHING),
    "serve_keepFolder": ("kept", NOTHING, NOTHING),
    "serve_keepBelow": (0.5, NOTHING, NOTHING),
    "serve_keepShare": (0.5, NOTHING, NOTHING),
    "serve_keepMegabytes": (10, NOTHING, NOTHING),
    "serve_keepDays": (1, NOTHING, NOTHING),
    "serve_maxMegabytes": (1, NOTHING, NOTHING),
    "serve_maxImages": (1, NOTHING, NOTHING),
    "serve_maxMegapixels": (1, NOTHING, NOTHING),
    "serve_maxQueue": (1, NOTHING, NOTHING),
    "serve_timeout": (1.0, NOTHING, NOTHING),
    "serve_requestsPerMinute": (1, NOTHING, NOTHING),
    "serve_trustedProxies": (("10.0.0.1",), NOTHING, NOTHING),
    "serve_allowedHosts": (("example.org",), NOTHING, NOTHING),
    "serve_rootPath": ("/models", NOTHING, NOTHING),
}
FOLDERS = {"classifier", "datasetName", "rootDir"}  # another value means other files


def layout(root: Path, **changes: object) -> Layout:
    return Layout(Parameters.load({"rootDir": root, **changes}))


def artefacts(layout: Layout) -> dict[str, Artefact]:
    """In the order in which they are made; 'dnn' has no SVM."""
    names = [name for name in ALL if not (name == "svm" and layout.classifier == "dnn")]
    return {name: getattr(layout, name) for name in names}


def make_all(layout: Layout) -> None:
    for artefact in artefacts(layout).values():
        file = artefact.folder / f"{artefact.name}.bin"
        storage.write_text(file, artefact.name)
        artefact.commit([file])


def stale(layout: Layout) -> tuple[str, ...]:
    return tuple(name for name, artefact in artefacts(layout).items() if not artefact.is_current())


def test_table_knows_every_parameter() -> None:
    assert set(TABLE) | FOLDERS == set(Parameters.model_fields)


@pytest.mark.parametrize(
    ("changes", "is_current"),
    [
        ({"duplicates": "exact", "duplicates_maxDistance": 3}, True),
        ({"duplicates": "near", "rf_inputResolution": 96}, True),
        ({"duplicates": "scene", "duplicates_minSimilarity": 0.9}, False),
        ({"duplicates": "scene", "rf_inputResolution": 96}, False),
    ],
)
def test_what_matters_to_duplicates_depends_on_the_kind(
    tmp_path: Path, changes: dict[str, object], is_current: bool
) -> None:
    make_all(layout(tmp_path, duplicates=changes["duplicates"]))
    assert layout(tmp_path, **changes).examples.is_current() is is_current


@pytest.mark.parametrize("classifier", ["svm", "svmDnnRefined", "dnn"])
def test_parameters_make_stale_what_depends_on_them_and_nothing_else(tmp_path: Path, classifier: str) -> None:
    made = layout(tmp_path, classifier=classifier)
    make_all(made)
    assert stale(layout(tmp_path, classifier=classifier)) == NOTHING
    for name, (value, for_svm, for_refined) in TABLE.items():
        expected = for_svm if classifier == "svm" else for_refined
        if classifier == "dnn":
            expected = tuple(e for e in expected if e != "svm")
            if name.startswith("svm_"):
                expected = NOTHING
        assert stale(layout(tmp_path, classifier=classifier, **{name: value})) == expected, name


@pytest.mark.parametrize("classifier", ["svm", "dnn"])
def test_a_network_of_an_earlier_version_is_named(tmp_path: Path, classifier: str) -> None:
    made = layout(tmp_path, classifier=classifier)
    make_all(made)
    manifest = made.network.read()
    del manifest["parameters"]["format"]
    storage.write_json(made.network.manifest, manifest)
    with pytest.raises(
        StaleInput, match=r"made with format = none, but now it is 2: run scripts/2_refineDNN\.py again"
    ):
        made.network.check()


def test_the_usual_limit_on_pixels_is_not_recorded_and_another_one_is(tmp_path: Path) -> None:
    make_all(layout(tmp_path))
    assert "maxMegapixels" not in layout(tmp_path).examples.read()["parameters"]  # as in earlier versions
    make_all(layout(tmp_path, maxMegapixels=300))
    assert layout(tmp_path, maxMegapixels=300).examples.is_current()
    with pytest.raises(StaleInput, match="made with maxMegapixels = 300, but now it is 100"):
        layout(tmp_path).examples.check()


def test_classifiers_share_the_examples_and_the_refined_network_alone(tmp_path: Path) -> None:
    paths = {
        name: {a.manifest for a in artefacts(layout(tmp_path, classifier=name)).values()}
        for name in ("svm", "dnn", "svmDnnRefined")
    }
    examples, refined = layout(tmp_path).examples.manifest, layout(tmp_path, classifier="dnn").network.manifest
    assert paths["svm"] & paths["dnn"] == paths["svm"] & paths["svmDnnRefined"] == {examples}
    assert paths["dnn"] & paths["svmDnnRefined"] == {examples, refined}


@pytest.mark.parametrize("change", [{"datasetName": "other"}, {"rootDir": "elsewhere"}], ids=str)
def test_another_data_set_has_folders_of_its_own(tmp_path: Path, change: dict[str, str]) -> None:
    first, second = layout(tmp_path), Layout(Parameters.load({"rootDir": tmp_path, **change}))
    assert first.images != second.images
    assert {a.folder for a in artefacts(first).values()}.isdisjoint(a.folder for a in artefacts(second).values())


def test_scripts_that_errors_name_exist(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    for classifier in ("svm", "dnn", "svmDnnRefined"):
        for artefact in artefacts(layout(tmp_path, classifier=classifier)).values():
            assert (root / artefact.made_by).is_file(), artefact.made_by


@pytest.mark.parametrize("prefix", ["", "resnet18@"])
def test_another_file_of_weights_under_the_same_name_is_another_network(tmp_path: Path, prefix: str) -> None:
    path = tmp_path / "old.model"
    path.write_bytes(b"one")
    changes = {"rf_pretrainedModelFilename": f"{prefix}{path}"}
    make_all(layout(tmp_path, **changes))
    assert stale(layout(tmp_path, **changes)) == NOTHING
    path.write_bytes(b"two")
    assert stale(layout(tmp_path, **changes)) == FROM_NETWORK
    with pytest.raises(StaleInput, match=r'dnn_fixed was made with weights = "7692c3ad3540"?.*2_refineDNN\.py again'):
        layout(tmp_path, **changes).network.check()
    path.unlink()  # the network is made: its file is not needed any more
    assert stale(layout(tmp_path, **changes)) == NOTHING
