"""Images of 12 bits in 16-bit files go through all scripts, the viewers and the service as those of 8 bits do."""

import asyncio
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from libraries.base.errors import StaleInput
from libraries.base.layout import Layout
from libraries.base.storage import write_json
from libraries.data.dataset import read_white_level
from libraries.service.service import Service
from libraries.widgets.images import ImageViewer
from libraries.widgets.results import ResultsViewer
from PARAMETERS import Parameters
from tests.conftest import STEPS, run_main, small_run


def save(pictures: Path, root: Path, *, bits: int) -> Path:
    """A DATA_DIR with half of the pictures in gray, their values on a scale of so many bits."""
    for path in sorted(pictures.rglob("*")):
        if path.is_file() and int(path.stem) % 2 == 0:
            gray = np.asarray(Image.open(path).convert("L"))
            values = np.rint(gray * ((2**bits - 1) / 255)).astype(np.uint16) if bits > 8 else gray
            target = root / "images" / "textures" / path.parent.name / f"{path.stem}.tif"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(target)
    return root


def run_steps(root: Path, *steps: str, **changes: object) -> Parameters:
    parameters = small_run(root, **changes)
    for step in steps:
        run_main(step, parameters)
    return parameters


def test_12_bits_give_what_8_bits_give(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = run_steps(save(pictures, tmp_path / "8", bits=8), *STEPS)
    assert "white" not in capsys.readouterr().out
    deep = run_steps(save(pictures, tmp_path / "12", bits=12), *STEPS)
    said = capsys.readouterr().out
    assert "12-bit values in 16-bit files: 4,095 is taken for white" in said
    assert "dark" not in said and "No duplicates" in said

    layouts = [Layout(parameters) for parameters in (plain, deep)]
    examples, model = (artefact.read() for artefact in (layouts[1].examples, layouts[1].bundle))
    assert examples["white_level"] == model["resize"]["white_level"] == 4095
    assert "white_level" not in layouts[0].bundle.read()["resize"]
    for seen in (predictions, pictures_of_report, thumbnails, answers):
        one, other = map(seen, layouts)
        assert one and one == other, seen.__name__


def predictions(layout: Layout) -> str:
    return (layout.evaluation.folder / "predictions.csv").read_text()


def pictures_of_report(layout: Layout) -> list[str]:
    return re.findall(r"data:image/jpeg;base64,[^\"')]+", (layout.evaluation.folder / "report.html").read_text())


def thumbnails(layout: Layout) -> set[bytes]:
    """As both viewers show an image, small and large."""
    found = set()
    for viewer in (ImageViewer.of(layout), ResultsViewer.of(layout)):
        sent: list[bytes] = []
        viewer.send = lambda content, buffers=(), sent=sent: sent.extend(buffers or ())
        viewer.act({"do": "look", "image": 0})
        viewer._pool.shutdown()
        found |= {viewer._thumbnails.get(viewer.path(0)), *sent}
        viewer.close()
    return found


def answers(layout: Layout) -> list[bytes]:
    """What the service says of some files, and why."""
    files = [path.read_bytes() for path in sorted(layout.images.rglob("*.tif"))[:3]]
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
    root = save(pictures, tmp_path, bits=10)
    measured = run_steps(root, *STEPS[:3])
    given = small_run(root, whiteLevel=4095)
    with pytest.raises(StaleInput, match=r"made with whiteLevel = none, but now it is 4095: run .*1_prepareData\.py"):
        run_main("3_runDNN", given)
    run_main("1_prepareData", given)
    assert "whiteLevel: 4,095 is white in 24 images of more than 8 bits" in capsys.readouterr().out
    with pytest.raises(StaleInput, match=r"features_svm was made with white_level = 1023, but now it is 4095: run "):
        run_main("4_trainSVM", given)
    run_main("3_runDNN", given)
    run_main("1_prepareData", measured)
    with pytest.raises(StaleInput, match=r"features_svm was made with white_level = 4095, but now it is 1023"):
        run_main("4_trainSVM", measured)


@pytest.mark.parametrize("classifier", ["svm", "dnn"])
def test_networks_and_bundles_heed_the_level_that_step_1_has_found(classifier: str, tmp_path: Path) -> None:
    """A manifest of an earlier version says nothing of it: full range."""
    parameters = small_run(tmp_path, classifier=classifier)
    examples = Layout(parameters).examples
    examples.commit([])
    assert read_white_level(examples) == 65535
    before = Layout(parameters)
    artefacts = [before.features, before.bundle, *([before.network] if classifier == "dnn" else [])]
    old = {a.name: {name: v for name, v in a.parameters.items() if name != "white_level"} for a in artefacts}
    assert all(a.parameters == {**old[a.name], "white_level": None} for a in artefacts), "which is what no entry means"
    examples.commit([], white_level=4095)
    now = Layout(parameters)
    assert read_white_level(now.examples) == 4095
    artefacts = [now.features, now.bundle, *([now.network] if classifier == "dnn" else [])]
    assert all(a.parameters == {**old[a.name], "white_level": 4095} for a in artefacts)


def test_what_earlier_versions_made_is_up_to_date(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their manifests say nothing of white levels: full range."""
    parameters = run_steps(save(pictures, tmp_path, bits=16), *STEPS[:3])
    assert "white" not in capsys.readouterr().out
    layout = Layout(parameters)
    for artefact, name in ((layout.examples, "whiteLevel"), (layout.features, "white_level")):
        manifest = artefact.read()
        del manifest["parameters"][name]
        write_json(artefact.manifest, manifest)
    run_main("3_runDNN", parameters)
    assert "Up to date" in capsys.readouterr().out
