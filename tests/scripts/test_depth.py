"""Images of 12 bits in 16-bit files go through all scripts, the viewers and the service as those of 8 bits do."""

import asyncio
import base64
import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from libraries.base.errors import StaleInput
from libraries.base.layout import Layout
from libraries.base.storage import write_json
from libraries.classifier.bundle import Classifier
from libraries.data.dataset import read_white_level
from libraries.data.images import ResizeRule, decode, load
from libraries.evaluation.outputs import jpeg
from libraries.evaluation.report import THUMBNAIL
from libraries.network.embedding_store import read_features
from libraries.service.service import Service
from libraries.widgets.images import ImageViewer
from libraries.widgets.results import ResultsViewer
from libraries.widgets.thumbnails import Thumbnails
from libraries.widgets.thumbnails import jpeg as large_jpeg
from libraries.widgets.viewer import LARGE
from tests.conftest import STEPS, run_main, small_run

WRONG = "stripes/01.tif"  # blobs


def save(pictures: Path, folder: Path, *, bits: int, mislabelled: bool = False) -> None:
    """Half of the pictures in gray, their values on a scale of so many bits; and one in the folder of another class."""
    files = [path for path in sorted(pictures.rglob("*")) if path.is_file() and int(path.stem) % 2 == 0]
    placed = {f"{path.parent.name}/{path.stem}.tif": path for path in files}
    if mislabelled:
        placed[WRONG] = next(path for path in pictures.glob("blobs/01.*"))
    for name, path in placed.items():
        gray = np.asarray(Image.open(path).convert("L"))
        values = np.rint(gray * ((2**bits - 1) / 255)).astype(np.uint16) if bits > 8 else gray
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(folder / name)


@pytest.mark.usefixtures("quick_export")
def test_12_bits_are_learnt_and_shown_as_8(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parameters = small_run(tmp_path)
    layout, plain = Layout(parameters), tmp_path / "plain"
    save(pictures, layout.images, bits=12, mislabelled=True)
    save(pictures, plain, bits=8, mislabelled=True)
    test = [WRONG, *(f"{label}/{i:02d}.tif" for label in ("blobs", "checks", "stripes") for i in (0, 2))]
    (layout.images / "dedicatedTestImages.tsv").write_text("\n".join(test))
    for step in STEPS:
        run_main(step, parameters)
    said = capsys.readouterr().out
    assert "12-bit values in files of more bits: 4,095 is taken as white" in said
    assert "dark" not in said and "No duplicates" in said
    assert layout.examples.read()["white_level"] == layout.bundle.read()["resize"]["white_level"] == 4095

    classifier = Classifier(layout.bundle.folder)
    features = read_features(layout.features.folder)
    expected = dict(classifier.predict_files([plain / path for path in features.path]))
    for path, embedding in zip(features.path, features.embedding, strict=True):
        np.testing.assert_allclose(embedding, expected[plain / path].embedding, rtol=0, atol=1e-4)
    with (layout.evaluation.folder / "predictions.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            probability = expected[plain / row["path"]].probabilities[0]
            assert float(row["probability of blobs"]) == pytest.approx(probability, abs=1e-4)

    picture = jpeg(load(plain / WRONG, ResizeRule(THUMBNAIL, fill=(255, 255, 255))))
    assert base64.b64encode(picture).decode() in (layout.evaluation.folder / "report.html").read_text()
    large = large_jpeg(decode((plain / "blobs/00.tif").read_bytes()), LARGE, quality=92)
    assert shown(layout) == {Thumbnails(plain, tmp_path / "kept.sqlite").get("blobs/00.tif"), large}
    assert answers(layout, layout.images) == answers(layout, plain)


def shown(layout: Layout) -> set[bytes]:
    """As both viewers show their first image, small and large."""
    found = set()
    for viewer in (ImageViewer.of(layout), ResultsViewer.of(layout)):
        sent: list[bytes] = []
        viewer.send = lambda content, buffers=(), sent=sent: sent.extend(buffers[:1])
        viewer.act({"do": "look", "image": 0})
        viewer._pool.close()
        found |= {viewer._thumbnails.get(viewer.path(0)), *sent}
        viewer.close()
    return found


def answers(layout: Layout, folder: Path) -> list[bytes]:
    """What the service says of some files, and why."""
    files = [path.read_bytes() for path in sorted(folder.rglob("*.tif"))[:3]]
    service = Service(layout.bundle.folder)

    async def asked() -> list[bytes]:
        await service.start()
        _, outcomes = await service.classify(files)
        _, explanation = await service.explain(files[0], "blobs")
        results = [outcome.result.probabilities for outcome in outcomes]  # type: ignore[union-attr]
        return [values.tobytes() for values in (*results, explanation.heatmap.values)]

    try:
        return asyncio.run(asked())
    finally:
        service.close()


def test_another_level_makes_all_that_follows_stale(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measured, given = small_run(tmp_path), small_run(tmp_path, whiteLevel=4095)
    layout = Layout(measured)
    save(pictures, layout.images, bits=10)
    run_main("1_prepareData", measured)
    layout.network.commit([])
    layout.features.commit([])
    assert layout.features.is_current()
    with pytest.raises(StaleInput, match=r"made with whiteLevel = none, but now it is 4095: run .*1_prepareData\.py"):
        run_main("3_runDNN", given)
    run_main("1_prepareData", given)
    assert "whiteLevel: 4,095 is white in 24 images of more than 8 bits" in capsys.readouterr().out
    with pytest.raises(StaleInput, match=r"features_svm was made with white_level = 1023, but now it is 4095: run "):
        run_main("4_trainSVM", given)
    Layout(given).features.commit([])
    run_main("1_prepareData", measured)
    with pytest.raises(StaleInput, match=r"features_svm was made with white_level = 4095, but now it is 1023"):
        run_main("4_trainSVM", measured)


@pytest.mark.parametrize("classifier", ["svm", "dnn"])
def test_networks_and_bundles_heed_the_level_that_step_1_has_found(classifier: str, tmp_path: Path) -> None:
    """A manifest of an earlier version says nothing of it: full range."""
    parameters = small_run(tmp_path, classifier=classifier)

    def recipes() -> list[Mapping[str, Any]]:
        layout = Layout(parameters)
        refined = [layout.network] if classifier == "dnn" else []
        return [artefact.parameters for artefact in (layout.features, layout.bundle, *refined)]

    examples = Layout(parameters).examples
    examples.commit([])
    assert read_white_level(examples) == 65535
    assert [recipe["white_level"] for recipe in recipes()] == [None] * len(recipes()), "as if it were not there"
    examples.commit([], white_level=4095)
    assert read_white_level(examples) == 4095
    assert [recipe["white_level"] for recipe in recipes()] == [4095] * len(recipes())


def test_what_earlier_versions_made_is_up_to_date(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parameters = small_run(tmp_path)
    layout = Layout(parameters)
    save(pictures, layout.images, bits=16)
    run_main("1_prepareData", parameters)
    assert "white" not in capsys.readouterr().out
    layout.network.commit([])
    for artefact, name in ((layout.examples, "whiteLevel"), (layout.features, "white_level")):
        artefact.commit([])
        manifest = artefact.read()
        del manifest["parameters"][name]
        write_json(artefact.manifest, manifest)
    run_main("3_runDNN", parameters)
    assert "Up to date" in capsys.readouterr().out
