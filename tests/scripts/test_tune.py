"""scripts/tune.py: a table, a picture, the lines for PARAMETERS.py; a stopped run goes on from the store."""

import csv
from collections.abc import Callable
from typing import Any

import pytest

from libraries.base.errors import ParameterError
from libraries.base.layout import Layout
from libraries.evaluation import tuning_dnn
from libraries.network.engine import Engine
from libraries.network.training import making
from PARAMETERS import Parameters
from tests.conftest import STEPS, hashes

Stage = Callable[[str], Callable[..., Parameters]]
QUICK = {"tune_networks": ("EfficientNet_Lite0",), "tune_resolutions": (64,), "tune_minutes": 1.0}


def test_from_images_to_the_lines_for_the_parameters(stage: Stage, process: Callable[..., Any]) -> None:
    p = stage("2_refineDNN")(**QUICK)
    before = hashes(p.rootDir)
    done = process("tune", p)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    proc = Layout(p).proc
    with (proc / "tune.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert 2 <= len(rows) <= 8 and {row["images"] for row in rows} == {"36"}
    assert {(row["network"], row["resolution"]) for row in rows} == {("EfficientNet_Lite0", "64")}
    assert len({(row["resize"], row["views"], row["maps"]) for row in rows}) == len(rows)
    assert (proc / "tune.png").exists() and not (proc / "tune").exists()
    assert "EfficientNet_Lite0, 64 pixels, pad, 1 view, 1 map (now)" in done.stdout
    after = hashes(p.rootDir)
    assert {name: after[name] for name in before} == before, "nothing else has changed"


def test_a_stopped_run_goes_on_and_the_steps_find_what_it_has_computed(
    stage: Stage, main: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    p = stage("2_refineDNN")(**QUICK)
    computed: list[Any] = []
    original = Engine.stream

    def watched(engine: Engine, items: Any, load_item: Any) -> Any:
        for item, result in original(engine, items, load_item):
            yield item, result
            computed.append(item)
            if len(computed) == 50:  # in the second candidate
                raise KeyboardInterrupt

    monkeypatch.setattr(Engine, "stream", watched)
    with pytest.raises(KeyboardInterrupt):
        main("tune", p)
    assert len(computed) == 50
    monkeypatch.setattr(Engine, "stream", original)
    watching: list[Any] = []

    def counting(engine: Engine, items: Any, load_item: Any) -> Any:
        for item, result in original(engine, items, load_item):
            watching.append(getattr(item, "path", None))
            yield item, result

    monkeypatch.setattr(Engine, "stream", counting)
    main("tune", p)
    with (Layout(p).proc / "tune.csv").open(encoding="utf-8", newline="") as file:
        tried = len(list(csv.DictReader(file)))
    assert len([path for path in watching if path]) <= 36 * (tried - 1), "those of the first are known"
    watching.clear()
    for step in STEPS[1:3]:
        main(step, p)
    assert len([path for path in watching if path]) == 12, "only the test images are new to the network of now"


def test_recipes_are_tried_by_training_and_a_stopped_run_goes_on(
    stage: Stage, main: Callable[..., None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    p = stage("2_refineDNN")(classifier="dnn", rf_maxEpochs=1, **QUICK)
    trained: list[Any] = []
    original = making.refine_into
    stopping = True

    def watched(artefact: Any, *rest: Any, **options: Any) -> Any:
        if stopping and len(trained) == 2:
            raise KeyboardInterrupt
        trained.append(artefact.name)
        return original(artefact, *rest, **options)

    monkeypatch.setattr(making, "refine_into", watched)
    monkeypatch.setattr(tuning_dnn, "MOST", 4)
    with pytest.raises(KeyboardInterrupt):
        main("tune", p)
    stopping = False
    main("tune", p)
    assert len({*trained}) == len(trained), "nothing was trained twice"
    with (Layout(p).proc / "tune.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert 2 <= len(rows) <= 4 and {row["epochs"] for row in rows} <= {"1", "2"}
    assert all(float(row["seconds"]) > 0 and not row["C"] for row in rows)
    said = capsys.readouterr().out
    assert "1 epoch, rate 0.0005, photo, decay 0.0005, dropout 0.5 (now)" in said
    assert (Layout(p).proc / "tune.png").exists() and not (Layout(p).proc / "tune").exists()


def test_there_is_nothing_to_find_for_a_network_with_its_own_classes(stage: Stage, main: Callable[..., None]) -> None:
    with pytest.raises(ParameterError, match=r"rf_maxEpochs = 0: .* has no settings"):
        main("tune", stage("2_refineDNN")(classifier="dnn", rf_maxEpochs=0))
