"""What is unknown, and which labels are likely: thresholds that keep their promise, in the graph as in NumPy."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from libraries.base.errors import StorageError
from libraries.classifier.bundle import Classifier
from libraries.classifier.bundle_graph import LOGITS, Writer
from libraries.classifier.calibration import fit_calibration
from libraries.classifier.strangeness import Strangeness, normalised
from libraries.classifier.svm import fit_path
from libraries.classifier.sweep import sweep
from libraries.classifier.thresholds import _set_thresholds, fit_trust, quantile
from libraries.classifier.trust import Trust, check, members, needed
from libraries.network.engine import open_part

D, K = 60, 3


def images(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings around a place for each class, and labels."""
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(0, 1.2, (K, D))
    labels = generator.choice(K, count, p=(0.5, 0.3, 0.2))
    x = np.maximum(centres[labels] + generator.normal(0, 1, (count, D)), 0)
    return x.astype(np.float32), labels


def trusted(count: int, seed: int, *, copies: int = 1) -> tuple[Trust, Any]:
    """Of an SVM that was trained on these; each image is there so many times, as one group."""
    x, y = images(count, seed)
    x, y, groups = (np.repeat(each, copies, axis=0) for each in (x, y, np.arange(count)))
    found = sweep(x, y, number_of_classes=K, c_values=[0.1], normalisations=["sqrt_l2"], groups=list(map(str, groups)))
    trust = fit_trust(
        x, y, groups, scores=found.out_of_fold_scores[0], calibration=found.calibrations[0],
        unknown_rate=0.05, coverage=0.9,
    )  # fmt: skip
    return trust, (found.models[0], found.calibrations[0])


def test_the_quantile_is_the_value_that_a_further_one_exceeds_seldom_enough() -> None:
    """Of n + 1 exchangeable values, the last exceeds the k-th smallest of the others with probability 1 - k/(n + 1)."""
    values = np.random.default_rng(0).permutation(99).astype(np.float32)
    groups = np.arange(99)
    assert quantile(values, groups, share=0.05) == 94  # the 95th: 1 - 95 / 100
    assert quantile(values, groups, share=0.01) == 98
    assert quantile(values, groups, share=0.009) == np.inf, "nobody can say"
    assert quantile(values, groups, share=0.045, between=True) == pytest.approx(94.5, abs=1e-6)
    assert quantile(values, groups, share=0.009, between=True) == np.inf
    assert quantile(values[:0], groups[:0], share=0.5) == np.inf
    for share in (0.01, 0.05, 0.1, 0.5):
        count = needed(share)
        assert np.isfinite(quantile(np.arange(count, dtype=np.float32), np.arange(count), share=share))
        assert quantile(np.arange(count - 1, dtype=np.float32), np.arange(count - 1), share=share) == np.inf


def test_groups_count_once_however_many_images_they_have() -> None:
    values, groups = np.arange(99, dtype=np.float32), np.arange(99)
    often, of_group = np.repeat(values, 50), np.repeat(groups, 50)
    assert quantile(often, of_group, share=0.05) == quantile(values, groups, share=0.05)
    one_large = np.concatenate([values, np.full(1000, 500.0, np.float32)])
    assert quantile(one_large, np.append(groups, np.full(1000, 98)), share=0.05) == 94, "it is one of 99, not most"


def test_on_average_over_many_draws_the_quantile_is_exceeded_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    exceeded = [generator.normal() > quantile(generator.normal(size=39), np.arange(39), share=0.1) for _ in range(4000)]
    assert np.mean(exceeded) == pytest.approx(0.1, abs=4 * np.sqrt(0.09 / 4000))


def test_promises_are_kept_on_other_images() -> None:
    unknown, holds, of_class = [], [], []
    for seed in range(8):
        trust, (model, calibration) = trusted(300, seed)
        x, y = images(1000, 100 + seed)
        scores = model.scores(x)
        assert trust.strangeness is not None and len(trust.unknown_above) == K
        limits = np.array(trust.unknown_above)[calibration.labels(scores)]
        unknown.append((trust.strangeness.score(x, calibration.logits(scores)) > limits).mean())
        likely = members(calibration.probabilities(scores), np.array(trust.set_above, np.float32))
        right = likely[np.arange(len(y)), y]
        holds.append(right.mean())
        of_class.append([right[y == k].mean() for k in range(K)])
    assert 0.03 < np.mean(unknown) < 0.06
    assert np.mean(holds) > 0.89
    assert (np.mean(of_class, axis=0) > 0.87).all(), "of every class"


@pytest.mark.parametrize("c", [1e-5, 1e-3])
def test_however_small_c_is_as_many_are_unknown(c: float) -> None:
    """Small C: all scores are near one number, which grows with the images, and calibration makes it large."""
    unknown = []
    for seed in range(3):
        x, y = images(300, seed)
        found = sweep(x, y, number_of_classes=K, c_values=[c], normalisations=["sqrt_l2"])
        model, calibration = found.models[0], found.calibrations[0]
        trust = fit_trust(
            x, y, np.arange(300), scores=found.out_of_fold_scores[0], calibration=calibration,
            classifier=model.scores, unknown_rate=0.05, coverage=0.9,
        )  # fmt: skip
        x, _ = images(1000, 100 + seed)
        assert trust.strangeness is not None
        scores = model.scores(x)
        limits = np.array(trust.unknown_above)[calibration.labels(scores)]
        unknown.append((trust.strangeness.score(x, calibration.logits(scores)) > limits).mean())
    assert 0.01 < np.mean(unknown) < 0.09


def test_what_is_elsewhere_is_unknown() -> None:
    trust, (model, calibration) = trusted(300, 1)
    x = images(200, 7)[0][:, ::-1].copy()  # features of other things
    scores = model.scores(x)
    assert trust.strangeness is not None
    limits = np.array(trust.unknown_above)[calibration.labels(scores)]
    assert (trust.strangeness.score(x, calibration.logits(scores)) > limits).mean() > 0.9


def test_copies_do_not_make_a_promise_firmer() -> None:
    few, _ = trusted(12, 1, copies=20)
    assert few.strangeness is None and few.unknown_above == [], "twelve pictures are no hundred"
    assert few.told(["a", "b", "c"])[0] == (
        "There are too few training images to tell which images are unknown: 19 that are not alike, "
        "in classes of two or more, are needed."
    )


def test_a_class_with_few_images_is_promised_nothing_of_its_own() -> None:
    x, y = images(120, 3)
    keep = (y != 2) | (np.cumsum(y == 2) <= 5)
    x, y = x[keep], y[keep]
    scores = np.eye(K, dtype=np.float32)[y] + np.random.default_rng(0).normal(0, 0.3, (len(y), K)).astype(np.float32)
    trust = fit_trust(
        x, y, np.arange(len(y)), scores=scores, calibration=fit_calibration(scores, y), unknown_rate=0.05, coverage=0.9
    )
    assert trust.on_its_own == [True, True, False]
    assert (
        "for c this is not promised by itself, with fewer than 9 training images of a class"
        in trust.told(["a", "b", "c"])[0]
    )
    hardly = fit_trust(
        x[:8], y[:8], np.arange(8), scores=scores[:8], calibration=fit_calibration(scores, y),
        unknown_rate=0.05, coverage=0.9,
    )  # fmt: skip
    assert hardly.set_above == [] and hardly.strangeness is None and len(hardly.told(["a", "b", "c"])) == 2
    assert hardly.to_json() == {"unknown_rate": 0.05, "coverage": 0.9, "set_above": [], "on_its_own": []}


def test_classes_with_few_images_do_not_lower_the_promise_for_all() -> None:
    """Large classes have thresholds of their own; with that of all for the others, 86% of all images were covered."""
    generator, covered = np.random.default_rng(0), []
    sizes = [60] * 4 + [8] * 20
    for _ in range(30):
        both = []
        for count in (1, 3):  # training, then more images of the same mixture
            y = np.repeat(np.arange(24), [count * size for size in sizes])
            scores = generator.normal(0, 1, (len(y), 24)) + np.where(np.arange(24) == y[:, None], 1.5, 0)
            scores[:, :4] += 1.0  # the large ones are answered more often
            p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
            both.append((p.astype(np.float32), y))
        (p, y), (other, true) = both
        above, own = _set_thresholds(p, y, np.arange(len(y)), share=0.1)
        assert own == [True] * 4 + [False] * 20
        likely = members(other, np.array(above, np.float32))
        covered.append(likely[np.arange(len(true)), true].mean())
    assert np.mean(covered) > 0.893


def test_the_most_probable_label_is_always_likely() -> None:
    p = np.array([[0.4, 0.35, 0.25], [0.05, 0.9, 0.05]], np.float32)
    assert members(p, np.array([0.99, 0.3, 0.99], np.float32)).tolist() == [[True, True, False], [False, True, False]]


@pytest.mark.parametrize("scale", [1.0, 1e-20, 1e6])
def test_the_graph_computes_what_numpy_does(tmp_path: Path, scale: float) -> None:
    x, y = images(200, 5)
    (model,) = fit_path(x, y, number_of_classes=K, c_values=[0.1], normalisation="sqrt_l2")
    fitted = Strangeness.fit(x[:150], y[:150], number_of_classes=K)
    fitted = fitted.scaled(fitted.parts(x[150:], model.scores(x[150:]).astype(np.float64)))
    sizes = {"embedding": D, LOGITS: K}
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", size]) for name, size in sizes.items()]
    graph = helper.make_graph([], "empty", given, [])
    writer = Writer(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10))
    writer.strangeness(fitted)
    onnx.checker.check_model(writer.model)
    onnx.save(writer.model, tmp_path / "model.onnx")
    import onnxruntime

    tested = scale * np.concatenate([images(50, 6)[0], np.zeros((1, D), np.float32)])
    scores = model.scores(tested)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(["strangeness"], {"embedding": tested, LOGITS: scores})
    expected = fitted.score(tested, scores.astype(np.float64))
    assert np.abs(found[:, 0] - expected).max() <= 1e-3 * np.abs(expected).max()
    assert np.allclose(np.linalg.norm(normalised(tested[:-1]), axis=1), 1)


def test_the_bundle_says_the_same_of_images_and_of_embeddings(bundle: Path, pictures: Path) -> None:
    image_files = sorted(path for path in pictures.rglob("*") if path.is_file())
    classifier = Classifier(bundle)
    assert classifier.decision.unknown_above is not None and classifier.decision.set_above is not None
    of_images = [answer for _, answer in classifier.predict_files(image_files)]
    of_embeddings = classifier.predict_embeddings(np.stack([answer.embedding for answer in of_images]))
    assert [(a.unknown, a.set) for a in of_images] == [(a.unknown, a.set) for a in of_embeddings]
    assert all(answer.label in answer.set for answer in of_images)
    assert open_part(bundle / "model.onnx", start="embedding", outputs=("strangeness",)) is not None
    (noise,) = classifier.predict([np.random.default_rng(0).integers(0, 256, (99, 80, 3), np.uint8)])
    assert noise.unknown is True


GOOD = {
    "unknown_above": [1.0, 2.0],
    "unknown_rate": 0.05,
    "coverage": 0.9,
    "set_above": [0.1, 0.2],
    "on_its_own": [True, False],
}
BAD = {
    "a share above one": {"coverage": 1.5},
    "a share of text": {"unknown_rate": "0.05"},
    "a threshold too few": {"set_above": [0.1]},
    "beyond all numbers": {"unknown_rate": 10**400},
    "beyond float32": {"unknown_above": [1e300, 1.0]},
    "no probability": {"set_above": [-0.1, 0.2]},
    "no number": {"set_above": [0.1, "x"]},
    "not finite": {"unknown_above": [float("inf"), 1.0]},
    "no list": {"unknown_above": 3.0},
    "true is no number": {"unknown_above": [True, False]},
    "own too few": {"on_its_own": [True]},
    "own of numbers": {"on_its_own": [1, 0]},
    "missing": {"set_above": None},
}


def test_what_is_written_is_accepted() -> None:
    check(GOOD, classes=2)
    check({**GOOD, "set_above": [], "on_its_own": [], "unknown_above": []}, classes=2)
    trust, _ = trusted(100, 1)
    check(json.loads(json.dumps(trust.to_json())), classes=K)


@pytest.mark.parametrize("what", BAD)
def test_a_stranger_s_thresholds_are_checked(what: str) -> None:
    with pytest.raises(ValueError, match="trust: "):
        check({**GOOD, **BAD[what]}, classes=2)


def test_a_graph_without_strangeness_is_refused(bundle: Path, tmp_path: Path) -> None:
    import shutil

    from libraries.base.storage import sha256

    copy = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    model = onnx.load(copy / "model.onnx")
    (output,) = (each for each in model.graph.output if each.name == "strangeness")
    model.graph.output.remove(output)
    onnx.save(model, copy / "model.onnx")
    manifest = json.loads((copy / "model.json").read_text(encoding="utf-8"))
    manifest["files"]["model.onnx"] = sha256(copy / "model.onnx")
    (copy / "model.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(StorageError, match="gives strangeness"):
        Classifier(copy)
