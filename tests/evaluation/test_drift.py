"""What the bundle remembers of its test images, and the report on images in the pool that are unlike them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from libraries.base.errors import InputError, StaleInput
from libraries.base.layout import Layout
from libraries.classifier.bundle import Classifier
from libraries.data.annotations import Annotations
from libraries.data.class_folders import pool_of
from libraries.data.dataset import read_examples
from libraries.data.pool_folders import ANSWERS
from libraries.evaluation.drift import remember
from PARAMETERS import Parameters
from tests.conftest import run_main, small_run, texture

LABELS = ("stripes", "checks", "blobs")
OPTIONS = {"svm_CVals": (0.01,), "svm_boL2Normalize": True, "ratioTrainTest": 0.5}


@pytest.fixture(scope="module")
def whole_run(shared_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DATA_DIR with a whole run on 120 pictures. Read only."""
    root = shared_folder / "run for drift"
    with FileLock(f"{root}.lock"):
        if not root.exists():
            temporary = tmp_path_factory.mktemp("drift") / "data"
            pictures(temporary / "images" / "textures", dict.fromkeys(LABELS, 40), seed=1)
            for step in ("1_prepareData", "2_refineDNN", "3_runDNN", "4_trainSVM", "5_evaluate"):
                run_main(step, small_run(temporary, **OPTIONS))
            temporary.rename(root)
    return root


@pytest.fixture
def parameters(whole_run: Path, tmp_path: Path) -> Parameters:
    return small_run(Path(shutil.copytree(whole_run, tmp_path / "data")), **OPTIONS)


def pictures(
    folder: Path, counts: dict[str, int], *, seed: int, change: Callable[[Image.Image], Image.Image] = lambda x: x
) -> None:
    generator = np.random.default_rng(seed)
    for label, count in counts.items():
        (folder / label).mkdir(parents=True)
        for i in range(count):
            change(texture(label, generator)).save(folder / label / f"{i:02d}.png")


def flat(folder: Path, count: int, *, seed: int, darker: int = 1) -> list[str]:
    """Pictures of all classes in one folder; their names."""
    generator = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    names = [f"{i:03d}.png" for i in range(count)]
    for i, name in enumerate(names):
        texture(LABELS[i % 3], generator).point(lambda value: value // darker).save(folder / name)
    return names


def test_the_bundle_remembers_its_test_images(parameters: Parameters) -> None:
    layout = Layout(parameters)
    reference = Classifier(layout.bundle.folder).load_reference()
    tested = [each for each in read_examples(layout.examples.folder / "examples.csv") if each.split == "test"]
    assert reference is not None
    assert reference.looks.shape[0] == reference.answers.shape[0] == len({each.group for each in tested}) >= 50
    assert layout.bundle.is_current(), "it is beside the bundle, not of it"


def test_folders_of_the_pool_are_compared_one_by_one(
    parameters: Parameters, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = Layout(parameters)
    pool = pool_of(layout.images)
    flat(pool / "monday", 60, seed=5)
    flat(pool / "tuesday", 60, seed=6, darker=3)
    flat(pool / "few", 5, seed=7)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(pool / "noise.png")
    for i in range(10):
        Image.new("RGB", (60 + i, 60 + i), "white").save(pool / f"blank{i}.png")
        shutil.copy(pool / "noise.png", pool / f"the same {i}.png")
    (pool / "no image.png").write_bytes(b"hello")
    run_main("5_evaluate", parameters, drift=True)
    said = capsys.readouterr().out
    words = {line.split()[0]: line for line in said.splitlines() if line.strip()}
    assert "no difference (p = " in words["monday"] and " different (" not in words["monday"]
    assert "different (p = " in words["tuesday"]
    assert words["few"].split()[1:] == ["5", "fewer", "than", "30"]
    assert "left out" in said and "no image.png" in said
    assert "The 136 images look different from the test images.\nDifferent by themselves: tuesday.\n" in said
    page = layout.drift.read_text(encoding="utf-8")
    assert "<bdi>tuesday</bdi>" in page and "default-src 'none'" in page and "<script" not in page
    strangest = page[page.index("The strangest images") :]
    assert strangest.index("noise.png") < strangest.index("monday/")
    assert strangest.count('class="alike"') == 40
    assert strangest.count("<bdi>blank") == 1, "one of ten that are alike"
    assert "Copies of other images in the pool, which count once: 10." in said


def test_images_that_were_chosen_are_no_fair_sample(parameters: Parameters, capsys: pytest.CaptureFixture[str]) -> None:
    pool = pool_of(Layout(parameters).images)
    drawn, chosen = (pool / "service" / day for day in ("2026-11-28", "2026-11-29"))
    for folder, kept in ((drawn, "sample"), (chosen, "uncertain")):
        names = flat(folder, 40, seed=len(kept), darker=3 if kept == "uncertain" else 1)
        lines = [json.dumps({"file": name, "kept": kept}) for name in names]
        (folder / ANSWERS).write_text("\n".join(["[" * 90_000, "5", *lines, '{"file": "to']), encoding="utf-8")
    flat(pool / "feedback" / "blobs", 40, seed=9)
    run_main("5_evaluate", parameters, drift=True)
    said = capsys.readouterr().out
    words = {line.split()[0]: line for line in said.splitlines() if line.strip()}
    assert "no difference" in words["service/2026-11-28"] and "chosen" not in words["service/2026-11-28"]
    for name in ("service/2026-11-29", "feedback"):
        assert words[name].split()[1:] == ["40", "chosen,", "so", "no", "fair", "sample"]
    assert "As far as 40 images can tell, they look like the test images" in said


def test_a_folder_of_which_some_have_got_labels_is_no_fair_sample(
    parameters: Parameters, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = Layout(parameters)
    flat(pool_of(layout.images) / "monday", 60, seed=5)
    Annotations(layout.images).decide({f".pool/monday/{i:03d}.png": LABELS[i % 3] for i in range(10)})
    for step in ("1_prepareData", "3_runDNN", "4_trainSVM", "5_evaluate"):
        run_main(step, parameters)
    capsys.readouterr()
    run_main("5_evaluate", parameters, drift=True)
    said = capsys.readouterr().out
    assert "some have got labels, so no fair sample" in said
    assert "The images were not compared: none is a fair sample of what comes." in said


def test_too_few_test_images_leave_no_reference_of_before(parameters: Parameters) -> None:
    bundle = Layout(parameters).bundle
    assert (bundle.folder / "reference.npz").exists()
    remember(bundle, None)
    remember(bundle, None)
    assert not (bundle.folder / "reference.npz").exists()


def test_what_it_needs_is_named(parameters: Parameters) -> None:
    layout = Layout(parameters)
    with pytest.raises(InputError, match=r"there are no images in .*textures\.pool: put some there"):
        run_main("5_evaluate", parameters, drift=True)
    flat(pool_of(layout.images), 40, seed=5)
    (layout.bundle.folder / "reference.npz").unlink()
    with pytest.raises(StaleInput, match=r"run scripts/5_evaluate\.py first \(it needs 30 test images\)"):
        run_main("5_evaluate", parameters, drift=True)
