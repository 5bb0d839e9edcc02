"""The bundle: its graph computes what numpy does, it refuses what is not whole, and classifies images of any kind."""

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from libraries.base.errors import ImageError, NetworkError, StorageError
from libraries.base.storage import Artefact, sha256, write_json
from libraries.classifier import svm
from libraries.classifier.bundle import Classifier, Prediction, write_bundle, write_metrics
from libraries.classifier.bundle_files import METRICS
from libraries.classifier.bundle_graph import write_graph
from libraries.classifier.calibration import Calibration
from libraries.classifier.costs import Costs
from libraries.classifier.svm import LinearModel
from libraries.data.images import ResizeRule, fit
from libraries.network.engine import Engine

S, D = 8, 8
RULE = ResizeRule(S, "pad", "bilinear", (0, 0, 0))
LABELS = ["Straße", "日本 語", 'a "quoted" one']
FACTS = {"architecture": "tiny", "input_size": S, "embedding_size": D, "mean": [0.0] * 3, "std": [1.0] * 3, "views": 1}


def write_network(path: Path, *, classes: int | None = None, has_map: bool = False) -> None:
    """A network of uint8 [N, S, S, 3]: the mean colour times a matrix; a black image has the embedding zero.

    Its feature map is what the matrix makes of every pixel.
    """
    generator = np.random.default_rng(1)
    constants = {"axes": np.array([2, 3]), "mix": generator.normal(size=(3, D)).astype(np.float32)}
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["pixels", "mix"], ["mixed"]),
        helper.make_node("Transpose", ["mixed"], ["features"], perm=[0, 3, 1, 2]),
        helper.make_node("ReduceMean", ["features", "axes"], ["embedding"], keepdims=0),
    ]
    outputs = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", D])]
    if has_map:
        outputs.append(helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", D, S, S]))
    if classes is not None:
        constants["head"] = generator.normal(size=(D, classes)).astype(np.float32) / 100
        nodes.append(helper.make_node("MatMul", ["embedding", "head"], ["scores"]))
        outputs.append(helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", classes]))
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", S, S, 3])
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "tiny", [images], outputs, initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


def linear_model(normalisation: str, classes: int) -> LinearModel:
    generator = np.random.default_rng(2)
    standardises = normalisation == "standardise"
    mean = generator.normal(size=D) if standardises else np.zeros(D)
    scale = generator.uniform(50, 150, D) if standardises else np.ones(D)
    weights = generator.normal(size=(D, 1 if classes == 2 else classes))
    bias = generator.normal(size=weights.shape[1])
    if classes == 2:
        weights, bias = np.hstack([-weights, weights]), np.hstack([-bias, bias])
    return LinearModel(normalisation, *(a.astype(np.float32) for a in (mean, scale, weights, bias)))


def calibration(classes: int) -> Calibration:
    bias = np.linspace(-0.5, 0.5, classes)
    return Calibration(slope=1.7, bias=bias - bias.mean())


def images(count: int = 6) -> np.ndarray:
    """Random colours uint8 [N, S, S, 3]; the first one is black, whose embedding has no direction."""
    shades = np.random.default_rng(3).integers(0, 256, (count, 1, 1, 3))
    shades[0] = 0
    return np.broadcast_to(shades, (count, S, S, 3)).astype(np.uint8)


def with_onnx_runtime(path: Path, batch: np.ndarray) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, {"images": batch}), strict=True))


def with_openvino(path: Path, batch: np.ndarray) -> dict[str, np.ndarray]:
    return Engine(path, cores=1).run(batch)


RUNTIMES = pytest.mark.parametrize("run", [with_onnx_runtime, with_openvino])


@RUNTIMES
@pytest.mark.parametrize("head", [None, 7], ids=["no head", "with a head"])
@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("normalisation", svm.NORMALISATIONS)
def test_graph_computes_scores_and_probabilities_as_numpy(
    tmp_path: Path, run: Callable[..., Any], head: int | None, classes: int, normalisation: str
) -> None:
    """Within 1e-5 of the largest score, and 1e-5 in probability."""
    write_network(tmp_path / "network.onnx", classes=head)
    linear, calibrated = linear_model(normalisation, classes), calibration(classes)
    write_graph(tmp_path / "network.onnx", tmp_path / "model.onnx", calibration=calibrated, linear=linear)
    outputs = run(tmp_path / "model.onnx", images())
    assert set(outputs) == {"embedding", "scores", "probabilities"}
    embedding = run(tmp_path / "network.onnx", images())["embedding"]
    np.testing.assert_allclose(outputs["embedding"], embedding, rtol=1e-6, atol=1e-5)
    assert (embedding < 0).any(), "the sign is tested too"
    expected = linear.scores(outputs["embedding"])
    assert np.isfinite(expected).all()
    assert expected.std(axis=0).min() > 0.1, "scores depend on the image"
    np.testing.assert_allclose(outputs["scores"], expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_allclose(outputs["probabilities"], calibrated.probabilities(expected), rtol=0, atol=1e-5)
    assert {v.dtype for v in outputs.values()} == {np.dtype(np.float32)}


@RUNTIMES
def test_network_with_a_head_needs_no_svm(tmp_path: Path, run: Callable[..., Any]) -> None:
    write_network(tmp_path / "network.onnx", classes=5)
    write_graph(tmp_path / "network.onnx", tmp_path / "model.onnx", calibration=calibration(5))
    outputs = run(tmp_path / "model.onnx", images())
    scores = run(tmp_path / "network.onnx", images())["scores"]
    np.testing.assert_allclose(outputs["scores"], scores, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(outputs["probabilities"], calibration(5).probabilities(scores), rtol=0, atol=1e-5)


@pytest.fixture
def network(tmp_path: Path) -> Artefact:
    """A network folder with a head, as 2_refineDNN leaves it."""
    artefact = Artefact("dnn", tmp_path / "dnn" / "model.json", "scripts/2_refineDNN.py", {})
    artefact.folder.mkdir()
    write_network(artefact.folder / "model.onnx", classes=3, has_map=True)
    fitted = calibration(3)
    facts = {"resize": RULE.to_json(), "labels": LABELS, **FACTS}
    described = {"slope": fitted.slope, "bias": fitted.bias.tolist()}
    artefact.commit([artefact.folder / "model.onnx"], **facts, calibration=described)
    return artefact


@pytest.fixture
def bundle(tmp_path: Path, network: Artefact) -> Artefact:
    artefact = Artefact("model", tmp_path / "model" / "model.json", "scripts/4_trainSVM.py", {}, (network,))
    write_bundle(
        artefact,
        network,
        labels=LABELS,
        calibration=calibration(3),
        linear=linear_model("l2", 3),
        settings={"classifier": "svm"},
    )
    return artefact


def pictures(tmp_path: Path) -> dict[Path, np.ndarray]:
    """Images of several sizes and shapes, each saved as PNG."""
    generator = np.random.default_rng(4)
    made = {}
    for height, width in ((8, 8), (1, 1), (40, 25), (25, 40), (3, 200), (9, 8)):
        path = tmp_path / f"{height} × {width}.png"
        made[path] = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(made[path]).save(path)
    return made


def test_images_in_memory_and_in_files_are_classified_alike(tmp_path: Path, bundle: Artefact) -> None:
    classifier = Classifier(bundle.folder)
    made = pictures(tmp_path)
    in_memory = classifier.predict(list(made.values()))
    in_files = list(classifier.predict_files(made))
    assert [path for path, _ in in_files] == list(made)
    assert len({p.probabilities.tobytes() for p in in_memory}) == len(made)
    for one, (_, other) in zip(in_memory, in_files, strict=True):
        assert isinstance(other, Prediction)
        assert one.label == other.label == LABELS[one.probabilities.argmax()]
        for field in ("probabilities", "scores", "embedding"):
            np.testing.assert_array_equal(getattr(one, field), getattr(other, field))


def test_one_fitted_image_is_classified_as_in_company(tmp_path: Path, bundle: Artefact) -> None:
    classifier = Classifier(bundle.folder)
    made = list(pictures(tmp_path).values())
    expected = classifier.predict(made)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(classifier.classify, [fit(image, RULE) for image in made]))
    for one, other in zip(found, expected, strict=True):
        assert one.label == other.label
        for field in ("probabilities", "scores", "embedding"):
            np.testing.assert_array_equal(getattr(one, field), getattr(other, field))
    with pytest.raises(ValueError, match=r"takes uint8 \[8, 8, 3\], got uint8 \[9, 8, 3\]"):
        classifier.classify(np.zeros((9, 8, 3), np.uint8))


@pytest.mark.parametrize("kind", ["svm", "refined"])
def test_embeddings_are_classified_as_their_images(
    tmp_path: Path, bundle: Artefact, network: Artefact, kind: str
) -> None:
    if kind == "refined":
        bundle = Artefact("model", tmp_path / "refined" / "model.json", "scripts/4_trainSVM.py", {}, (network,))
        write_bundle(bundle, network, labels=LABELS, calibration=calibration(3), settings={})
    classifier = Classifier(bundle.folder)
    whole = classifier.predict(list(pictures(tmp_path).values()))
    part = classifier.predict_embeddings(np.stack([one.embedding for one in whole]))
    assert len({one.probabilities.tobytes() for one in whole}) == len(whole)
    for one, other in zip(part, whole, strict=True):
        assert one.label == other.label
        for field in ("probabilities", "scores", "embedding"):
            np.testing.assert_allclose(getattr(one, field), getattr(other, field), rtol=1e-5, atol=1e-6)


def test_softmax_of_the_mean_evidence_is_the_probabilities(tmp_path: Path, bundle: Artefact) -> None:
    """Within 1e-5, from many threads that all want it first."""
    classifier = Classifier(bundle.folder)
    assert classifier.has_evidence
    fitted = [fit(image, RULE) for image in pictures(tmp_path).values()]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(classifier.evidence, fitted))
    for image, evidence in zip(fitted, found, strict=True):
        assert evidence.shape == (3, S, S)
        weights = np.exp(evidence.mean(axis=(1, 2), dtype=np.float64))
        expected = classifier.classify(image).probabilities
        np.testing.assert_allclose(weights / weights.sum(), expected, rtol=0, atol=1e-5)


def test_evidence_of_a_bundle_that_was_replaced_is_refused(bundle: Artefact, network: Artefact) -> None:
    """Its heatmaps would be of another classifier than its predictions."""
    classifier = Classifier(bundle.folder)
    other = Calibration(slope=0.5, bias=np.zeros(3))
    write_graph(network.folder / "model.onnx", bundle.folder / "model.onnx", calibration=other)
    with pytest.raises(StorageError, match=r"model\.onnx is not the file that model\.json describes"):
        classifier.evidence(np.zeros((S, S, 3), np.uint8))


def test_a_network_without_a_map_gives_no_evidence(tmp_path: Path, network: Artefact) -> None:
    write_network(network.folder / "model.onnx", classes=3)
    artefact = Artefact("model", tmp_path / "plain" / "model.json", "scripts/4_trainSVM.py", {}, (network,))
    write_bundle(artefact, network, labels=LABELS, calibration=calibration(3), settings={})
    classifier = Classifier(artefact.folder)
    assert not classifier.has_evidence
    with pytest.raises(NetworkError, match="has the outputs embedding, probabilities, scores, but not evidence"):
        classifier.evidence(np.zeros((S, S, 3), np.uint8))


def test_bad_files_give_their_error_in_their_place(tmp_path: Path, bundle: Artefact) -> None:
    good = next(iter(pictures(tmp_path)))
    (tmp_path / "text.jpg").write_text("no picture")
    paths = [good, tmp_path / "text.jpg", good, tmp_path / "gone.png", good]
    results = list(Classifier(bundle.folder).predict_files(iter(paths)))
    assert [path for path, _ in results] == paths
    assert [type(result) for _, result in results] == [Prediction, ImageError, Prediction, ImageError, Prediction]
    assert "gone.png: does not exist" in str(results[3][1])


def test_no_images_give_no_predictions(bundle: Artefact) -> None:
    classifier = Classifier(bundle.folder)
    assert classifier.predict([]) == []
    assert list(classifier.predict_files([])) == []


def test_model_json_says_everything(bundle: Artefact) -> None:
    model = Classifier(bundle.folder).model
    assert Classifier(bundle.folder).labels == model["labels"] == LABELS
    assert ResizeRule.from_json(model["resize"]) == RULE
    assert model["settings"] == {"classifier": "svm"}
    assert FACTS.items() <= model.items()
    assert model["files"] == {"model.onnx": sha256(bundle.folder / "model.onnx")}
    assert "Straße" in bundle.manifest.read_text(encoding="utf-8"), "readable by people"


DEEP: Any = []
for _ in range(50):
    DEEP = [DEEP]


def test_metrics_are_those_of_the_bundle_as_it_is(bundle: Artefact) -> None:
    as_it_was = bundle.manifest.read_bytes()
    write_metrics(bundle, {"overall_accuracy": 0.9})
    assert bundle.is_current() and bundle.manifest.read_bytes() == as_it_was, "step 4's manifest stays as it is"
    assert Classifier(bundle.folder).model["metrics"] == {"overall_accuracy": 0.9}

    beside = bundle.folder / METRICS
    write_json(beside, {**json.loads(beside.read_text()), "files": {"model.onnx": "0" * 64}})
    assert Classifier(bundle.folder).model["metrics"] is None, "measured with another network"


def test_metrics_of_earlier_versions_are_read(bundle: Artefact) -> None:
    """They stand in model.json."""
    write_json(bundle.manifest, {**bundle.read(), "metrics": {"overall_accuracy": 0.8}})
    assert Classifier(bundle.folder).model["metrics"] == {"overall_accuracy": 0.8}
    write_metrics(bundle, {"overall_accuracy": 0.9})
    assert Classifier(bundle.folder).model["metrics"] == {"overall_accuracy": 0.9}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ("[]", "it is not an object"),
        ('{"metrics": {}}', "there is no 'files'"),
        ('{"files": FILES}', "there is no 'metrics'"),
        ('{"files": FILES, "metrics": [1]}', "metrics is not an object"),
        ('{"files": FILES, "metrics": NaN}', "NaN is not a number"),
        ('{"files": FILES, "metrics": ' + json.dumps(DEEP) + "}", "more than 32 values"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_strangers_metrics_are_not_trusted(
    bundle: Artefact, text: str, problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The classifier works without them."""
    (bundle.folder / METRICS).write_text(text.replace("FILES", json.dumps(bundle.read()["files"])), encoding="utf-8")
    assert Classifier(bundle.folder).model["metrics"] is None
    assert "metrics.json is left out" in caplog.text and problem in caplog.text


def test_refined_network_brings_its_own_labels_and_calibration(tmp_path: Path, network: Artefact) -> None:
    artefact = Artefact("model", tmp_path / "refined" / "model.json", "scripts/4_trainSVM.py", {}, (network,))
    write_bundle(artefact, network, labels=LABELS, calibration=calibration(3), settings={})
    classifier = Classifier(artefact.folder)
    assert classifier.labels == LABELS
    (prediction,) = classifier.predict([images()[1]])
    expected = with_onnx_runtime(network.folder / "model.onnx", images()[1:2])["scores"]
    np.testing.assert_allclose(prediction.probabilities, calibration(3).probabilities(expected)[0], rtol=0, atol=1e-5)


def test_the_answer_is_what_costs_least(bundle: Artefact) -> None:
    """And asking is said wherever it costs less, and of everything unknown."""
    plain = Classifier(bundle.folder).predict(images(60))
    p = np.stack([one.probabilities for one in plain])
    first, second = np.argsort(-p.mean(axis=0))[:2]
    # a mistake costs so much more where it is the second class that half of the answers change
    often = [("*", "*", 1.0), (LABELS[second], "*", float(np.median(p[:, first] / p[:, second])))]
    least = (p @ Costs.of(often, LABELS).matrix).min(axis=1)
    costs = Costs.of([*often, ("*", "ask", float(np.median(least)))], LABELS)
    bundle.manifest.write_text(json.dumps({**bundle.read(), "costs": costs.to_json()}), encoding="utf-8")
    found = Classifier(bundle.folder).predict(images(60))
    changed = [one.label != other.label for one, other in zip(found, plain, strict=True)]
    assert 10 < sum(changed) < 50
    assert [one.label for one in found] == [LABELS[i] for i in costs.answers(p)]
    assert [one.ask for one in found] == costs.asks(p).tolist()
    assert 20 < sum(one.ask is True for one in found) < 40
    assert {one.ask for one in plain} == {None} and "ask" not in plain[0].trusted()
    assert all(one.trusted() == {"ask": one.ask} for one in found)


@pytest.mark.parametrize("damage", [lambda p: p.write_bytes(p.read_bytes() + b"\0"), lambda p: p.unlink()])
def test_file_other_than_the_one_described_is_refused(bundle: Artefact, damage: Callable[[Path], object]) -> None:
    damage(bundle.folder / "model.onnx")
    with pytest.raises(StorageError, match=r"model\.onnx is not the file that model\.json describes: restore"):
        Classifier(bundle.folder)


def test_folder_without_model_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"model\.json does not exist: a bundle is a folder model_\*/, .*4_trainSVM"):
        Classifier(tmp_path)


@pytest.mark.parametrize("text", ['{"files": ', "\x00\xff"])
def test_model_json_cut_short_is_refused(bundle: Artefact, text: str) -> None:
    bundle.manifest.write_text(text, encoding="latin-1")
    with pytest.raises(StorageError, match=r"model\.json cannot be read .* run the script that writes it again"):
        Classifier(bundle.folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": None},
        {"files": None},
        {"files": 3},
        {"resize": None},
        {"resize": {"size": 8}},
        {"resize": {**RULE.to_json(), "colour": "red"}},
    ],
    ids=str,
)
def test_model_json_that_describes_no_bundle_is_refused(bundle: Artefact, changes: dict[str, Any]) -> None:
    write_json(bundle.manifest, {**json.loads(bundle.manifest.read_text(encoding="utf-8")), **changes})
    with pytest.raises(StorageError, match=r"model\.json does not describe a whole bundle: restore or rebuild it"):
        Classifier(bundle.folder)


TURNS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def whole(name: str) -> dict[str, Any]:
    return {"files": {"model.onnx": "0" * 64, name: "0" * 64}}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        *(
            (whole(name), "is not a plain file name")
            for name in ("../x", "/etc/passwd", "a/b", "a\\b", "C:x", "..", "")
        ),
        *((whole(name), "is not a plain file name") for name in ("aux.txt", "NUL", "CON .txt", "a.", "a ", "a?")),
        *((whole(name), "holds control characters") for name in ("a\0b", "a\nb", "\ud800")),
        ({"files": {"model.onnx": "0"}}, "has no SHA-256"),
        ({"files": {"model.onnx": None}}, "has no SHA-256"),
        ({"files": {"other.onnx": "0" * 64}}, "is not among"),
        ({"files": {"model.onnx": "0" * 64, **{str(i): "0" * 64 for i in range(100)}}}, "at most 100"),
        ({"labels": "abc"}, "labels is not a list"),
        ({"labels": []}, "labels is not a list"),
        ({"labels": ["a", "b", ""]}, "label '' is empty"),
        ({"labels": ["a", "b", " "]}, "label ' ' is empty"),
        ({"labels": ["a", "b", "\u200b\u2060"]}, r"label '\u200b\u2060' is empty, or cannot be seen"),
        ({"labels": ["a", "b", "gpj\u2028x"]}, r"label 'gpj\u2028x' holds control characters"),
        *(({"labels": ["a", "b", f"x{turn}gpj"]}, f"label {f'x{turn}gpj'!r} holds control") for turn in TURNS),
        ({"labels": ["a", "b", "a"]}, "label 'a' appears twice"),
        ({"labels": ["a", "b", "\ud800"]}, "half a character"),
        ({"labels": ["a", "b", "c\n"]}, "control characters"),
        ({"labels": ["a", "b", "c" * 1001]}, "at most 1,000 characters"),
        ({"labels": ["a", "b", 7]}, "expected a text"),
        ({"embedding_size": None}, "embedding_size is None"),
        ({"embedding_size": True}, "embedding_size is True"),
        ({"input_size": 7}, "input_size and resize differ"),
        ({"views": "8"}, "views is '8'"),
        ({"views": 3}, "views is 3"),
        ({"resize": {**RULE.to_json(), "size": "8"}}, "resize: size is '8'"),
        ({"resize": {**RULE.to_json(), "size": 10**9}}, "resize: size is 1000000000"),
        ({"resize": {**RULE.to_json(), "size": 8.0}}, "resize: size is 8.0"),
        ({"resize": {**RULE.to_json(), "mode": "blow"}}, "mode is 'blow'"),
        ({"resize": {**RULE.to_json(), "mode": []}}, "mode is"),
        ({"resize": {**RULE.to_json(), "fill": [0, 0]}}, "fill is"),
        ({"resize": {**RULE.to_json(), "fill": [0, 0, 300]}}, "fill is 300"),
        ({"resize": {**RULE.to_json(), "fill": 7}}, "fill is not a list"),
        ({"resize": {**RULE.to_json(), "detail": "1"}}, "detail is not a number"),
        ({"resize": {**RULE.to_json(), "detail": True}}, "detail is not a number"),
        ({"resize": {**RULE.to_json(), "detail": 0.1}}, "detail is 0.1"),
        ({"mean": ["a"]}, "mean is ['a'], expected three numbers"),
        ({"mean": 0.5}, "mean is 0.5, expected three numbers"),
        ({"mean": [0.5, 0.5, True]}, "mean is [0.5, 0.5, True], expected"),
        ({"std": [0, 0, 0]}, "std is [0, 0, 0], expected three numbers above 0"),
        ({"std": [1, 1]}, "std is [1, 1], expected"),
        ({"settings": None}, "settings is not an object"),
        ({"settings": {"datasetName": 7}}, "settings: datasetName is 7"),
        ({"settings": {"classifier": "a\0"}}, "settings: classifier"),
        ({"metrics": [1]}, "metrics is not an object"),
        ({"metrics": {"deep": DEEP}}, "more than 32 values"),
        ({"created": {}}, "created is"),
        ({"costs": []}, "costs is not an object"),
        ({"costs": {"rows": [], "unit": ""}}, "costs is missing"),
        ({"costs": {"rows": [["*", "*", "1"]], "unit": ""}}, "a row is not label, answer, cost"),
        ({"costs": {"rows": [["*", "*"]], "unit": ""}}, "a row is not label, answer, cost"),
        ({"costs": {"rows": [["*", "*", -1]], "unit": ""}}, "-1 is no cost"),
        ({"costs": {"rows": [["*", "*", 1], ["owl", "*", 1]], "unit": ""}}, "'owl' is no class"),
        ({"costs": {"rows": [["*", "*", 1]], "unit": "x" * 101}}, "rows or unit are missing"),
        ({"costs": {"rows": 7, "unit": ""}}, "rows or unit are missing"),
        ({"costs": {"rows": [["*", "*", 1]]}}, "there is no 'unit'"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, str) else "",
)
def test_a_strangers_model_json_is_not_trusted(bundle: Artefact, changes: dict[str, Any], problem: str) -> None:
    text = json.dumps({**json.loads(bundle.manifest.read_text(encoding="utf-8")), **changes})
    bundle.manifest.write_text(text, encoding="utf-8")
    with pytest.raises(StorageError, match="does not describe a whole bundle: restore or rebuild it") as caught:
        Classifier(bundle.folder)
    assert problem in str(caught.value) and len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("text", ["[" * 100_000, '{"metrics": NaN}', '{"metrics": -Infinity}', "[]", "7"])
def test_json_beyond_its_bounds_is_refused(bundle: Artefact, text: str) -> None:
    bundle.manifest.write_text(text, encoding="utf-8")
    with pytest.raises(StorageError, match=r"model\.json (cannot be read|does not describe a whole bundle)"):
        Classifier(bundle.folder)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"labels": ["a", "b"]}, r"gives scores \[3\], and model\.json describes \[2\]"),
        ({"labels": list("abcd")}, r"gives scores \[3\], and model\.json describes \[4\]"),
        ({"embedding_size": 9}, r"gives embedding \[8\], and model\.json describes \[9\]"),
        ({"input_size": 16, "resize": {**RULE.to_json(), "size": 16}}, "takes images of 8 pixels, and .* 16"),
    ],
)
def test_sizes_agree_with_the_network(bundle: Artefact, changes: dict[str, Any], problem: str) -> None:
    write_json(bundle.manifest, {**bundle.read(), **changes})
    with pytest.raises(StorageError, match=problem):
        Classifier(bundle.folder)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def link(path: Path) -> None:
    """To the same content, elsewhere."""
    target = path.parents[1] / "elsewhere.onnx"
    path.rename(target)
    path.symlink_to(target)


def device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def circle(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes and links")
@pytest.mark.parametrize("damage", [pipe, link, device, circle, lambda path: (path.unlink(), path.mkdir())])
@pytest.mark.parametrize("name", ["model.onnx", "model.json"])
def test_what_is_no_file_of_the_bundle_is_refused_and_not_waited_for(
    bundle: Artefact, damage: Callable[[Path], object], name: str
) -> None:
    damage(bundle.folder / name)
    with pytest.raises(StorageError, match=f"{name} (is not the file|cannot be read|does not exist)"):
        Classifier(bundle.folder)


def test_links_inside_the_folder_are_followed(bundle: Artefact) -> None:
    """As Kubernetes mounts a folder."""
    (bundle.folder / "..data").mkdir()
    (bundle.folder / "model.onnx").rename(bundle.folder / "..data" / "model.onnx")
    (bundle.folder / "model.onnx").symlink_to("..data/model.onnx")
    Classifier(bundle.folder)


def test_a_network_that_takes_values_from_other_files_is_refused(bundle: Artefact) -> None:
    path = bundle.folder / "model.onnx"
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    write_json(bundle.manifest, {**bundle.read(), "files": {"model.onnx": sha256(path)}})
    with pytest.raises(StorageError, match=r"model\.onnx takes values from other files, which is refused"):
        Classifier(bundle.folder)


def test_network_folder_is_no_bundle(network: Artefact) -> None:
    with pytest.raises(StorageError, match=r"dnn holds a network without its classifier: take a folder model_\*/"):
        Classifier(network.folder)
