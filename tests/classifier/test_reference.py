"""What a bundle remembers of its test images: false alarms are rare, changes are noticed, bad files are left out."""

import io
import logging
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libraries.classifier.reference import DIRECTIONS, FEWEST, MOST, REFERENCE, Reference

OF = {"model.onnx": "0" * 64}
D, K = 40, 3


def images(count: int, seed: int, *, shift: float = 0.0, shares: tuple[float, ...] = (0.5, 0.4, 0.1)) -> Any:
    """Embeddings as a network gives them, none negative, around a place for each class; and probabilities."""
    generator = np.random.default_rng(seed)
    labels = generator.choice(K, count, p=shares)
    centres = np.random.default_rng(99).normal(0, 1, (K, D))
    x = np.maximum(centres[labels] + generator.normal(0, 1, (count, D)), 0) + shift
    probabilities = np.full((count, K), 0.05, np.float32)
    probabilities[np.arange(count), labels] = 0.9
    return x.astype(np.float32), probabilities


def reference(seed: int = 1, tested: int = 400) -> Reference:
    return Reference.of(images(600, 0)[0], *images(tested, seed))


def test_it_keeps_so_many_images_and_directions_as_there_are() -> None:
    found = reference()
    assert found.looks.shape == (400, D) and found.answers.shape == (400, K) and D < DIRECTIONS
    assert reference(tested=3 * MOST).looks.shape == (MOST, D)
    few = Reference.of(images(5, 0)[0], *images(FEWEST, 1))
    assert few.looks.shape == (FEWEST, 4), "five images span four directions"


def test_nothing_is_noticed_where_nothing_has_changed() -> None:
    """On 150 divisions of the same images, p-values are as small as they say: 5% of them below 5%."""
    x, answers = images(500, 5)
    whole = Reference.of(images(600, 0)[0], x, answers)
    generator, p_values = np.random.default_rng(0), []
    for _ in range(150):
        tested, coming = np.split(generator.permutation(500), [300])
        again = replace(whole, looks=whole.looks[tested], answers=whole.answers[tested])
        drift = again.compare(whole.looks[coming], answers[coming])
        p_values.append((drift.looks, drift.answers))
        assert drift.kinds == (False, False)
    share = (np.array(p_values) < 0.05).mean(axis=0)
    assert (share < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 150)).all() and (share > 0).all()


def test_images_that_look_different_are_noticed() -> None:
    found = reference()
    x, answers = images(200, 7, shift=0.3)
    drift = found.compare(found.project(x), answers)
    assert drift.kinds == (True, False)
    assert drift.told(["a", "b", "c"], "the last 200 images") == [
        "The last 200 images look different from the test images."
    ]


def test_other_shares_of_classes_are_noticed_and_the_class_is_named() -> None:
    found = reference()
    x, answers = images(300, 8, shares=(0.4, 0.3, 0.3))
    drift = found.compare(found.project(x), answers)
    assert drift.answers_differ and drift.images == 300
    said = drift.told(["a", "b", "c"], "the last 300 images")[-1]
    now, usual = answers[:, 2].mean(), found.answers[:, 2].mean()
    assert said == (
        f"On average, the last 300 images are 'c' with a probability of {now:.1%}, the test images with {usual:.1%}."
    )


def test_very_many_images_are_compared_by_a_sample() -> None:
    found = reference()
    x, answers = images(20 * MOST, 9)
    assert found.compare(found.project(x), answers).images == MOST


def test_it_survives_being_written(tmp_path: Path) -> None:
    found = reference()
    found.save(tmp_path, of=OF)
    again = Reference.load(tmp_path, of=OF, embedding_size=D, classes=K)
    assert again is not None
    x, answers = images(200, 7)
    assert again.compare(again.project(x), answers).kinds == (False, False)
    assert np.array_equal(again.project(x), found.project(x))


def test_that_of_another_bundle_is_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert Reference.load(tmp_path, of=OF, embedding_size=D, classes=K) is None
    reference().save(tmp_path, of=OF)
    assert Reference.load(tmp_path, of={"model.onnx": "1" * 64}, embedding_size=D, classes=K) is None
    assert "it belongs to another bundle: run scripts/5_evaluate.py" in caplog.text


def arrays(path: Path) -> dict[str, Any]:
    with np.load(path) as loaded:
        return dict(loaded)


def rewritten(path: Path, **changed: Any) -> None:
    held = {**arrays(path), **changed}
    with path.open("wb") as file:
        np.savez(file, **held)


class Opened:
    """Unpickled, it leaves a file."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, ("unpickled", "w")


def pickled(path: Path) -> None:
    holder = np.empty(1, object)
    holder[0] = Opened()
    held = arrays(path)
    with path.open("wb") as file:
        np.savez(file, allow_pickle=True, **{**held, "mean": holder})


def bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name in ("files", "mean", "directions", "looks", "answers"):
            file.writestr(f"{name}.npy", bytes(80 * 2**20))


def endless(path: Path) -> None:
    """A header that says that 10 ** 18 numbers follow."""
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {"descr": "<f4", "fortran_order": False, "shape": (10**18,)})
    held = arrays(path)
    with path.open("wb") as file:
        np.savez(file, **held)
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w") as file:
        for name, data in members.items():
            file.writestr(name, content.getvalue() if name == "mean.npy" else data)


def linked(path: Path) -> None:
    elsewhere = path.parent.parent / "elsewhere.npz"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


BAD: dict[str, Callable[[Path], Any]] = {
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-200]),
    "empty": lambda path: path.write_bytes(b""),
    "a pickle": lambda path: path.write_bytes(pickle.dumps(Opened())),
    "pickled inside": pickled,
    "a bomb": bomb,
    "endless": endless,
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a link out": linked,
    "an array too few": lambda path: _without(path, "looks"),
    "not finite": lambda path: rewritten(path, mean=np.full(D, np.nan, np.float32)),
    "another size": lambda path: rewritten(path, mean=np.zeros(D + 1, np.float32)),
    "another type": lambda path: rewritten(path, mean=np.zeros(D, np.float64)),
    "other classes": lambda path: rewritten(path, answers=np.zeros((400, K + 1), np.float32)),
    "other rows": lambda path: rewritten(path, answers=np.zeros((401, K), np.float32)),
    "too few images": lambda path: rewritten(
        path, answers=np.zeros((3, K), np.float32), looks=np.zeros((3, D), np.float32)
    ),
    "no probabilities": lambda path: rewritten(path, answers=np.full((400, K), 7, np.float32)),
    "an unknown compression": lambda path: overwritten(path, b"PK\x01\x02", 10, 99),
    "encrypted": lambda path: overwritten(path, b"PK\x01\x02", 8, 1),
    "no header of an array": lambda path: overwritten(path, b"\x93NUMPY", 12, ord("(")),
    "a link to itself": lambda path: (path.unlink(), path.symlink_to(path.name)),
    "numbers": lambda path: rewritten(path, directions=np.float32(3)),
}


def overwritten(path: Path, after: bytes, offset: int, value: int) -> None:
    """Change one byte."""
    content = bytearray(path.read_bytes())
    content[content.find(after) + offset] = value
    path.write_bytes(content)


def _without(path: Path, name: str) -> None:
    held = arrays(path)
    del held[name]
    with path.open("wb") as file:
        np.savez(file, **held)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_left_out(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "bundle"
    folder.mkdir()
    reference().save(folder, of=OF)
    BAD[name](folder / REFERENCE)
    with caplog.at_level(logging.WARNING):
        assert Reference.load(folder, of=OF, embedding_size=D, classes=K) is None
    assert caplog.text.count("reference.npz is left out, so drift is not noticed: ") == 1
    assert not (tmp_path / "unpickled").exists()
