"""The bundle in service: ready only when warmed up, replaced without a gap; broken ones are refused."""

import json
import logging
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import onnx
import pytest
from starlette.testclient import TestClient

from libraries.base.storage import sha256
from libraries.service import model as model_module
from libraries.service.app import create_app
from libraries.service.gate import Access
from libraries.service.model import load_model
from libraries.service.service import Limits, Service
from tests.service.conftest import ADMIN_KEY, PAGE, NewClient
from tests.service.test_app import assert_problem

ADMIN = {"Authorization": f"Bearer {ADMIN_KEY}"}


@pytest.fixture
def own_bundle(bundle: Path, tmp_path: Path) -> Path:
    """A bundle to change."""
    return Path(shutil.copytree(bundle, tmp_path / "bundle"))


def change(folder: Path, **values: Any) -> None:
    """Change model.json."""
    manifest = folder / "model.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **values}))


def retrain(folder: Path) -> None:
    """Another model.onnx, described by model.json, with the same predictions as before."""
    graph = onnx.load(folder / "model.onnx")
    graph.doc_string += "another"
    onnx.save(graph, folder / "model.onnx")
    change(folder, files={"model.onnx": sha256(folder / "model.onnx")})


def truncate(folder: Path) -> None:
    path = folder / "model.onnx"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def truncate_with_its_hash(folder: Path) -> None:
    truncate(folder)
    change(folder, files={"model.onnx": sha256(folder / "model.onnx")})


BREAK: dict[str, Callable[[Path], Any]] = {
    "truncated": truncate,
    "truncated, but with its hash": truncate_with_its_hash,
    "wrong hash": lambda folder: change(folder, files={"model.onnx": "0" * 64}),
    "no hash": lambda folder: change(folder, files={}),
    "no model": lambda folder: (folder / "model.onnx").unlink(),
    "no description": lambda folder: (folder / "model.json").unlink(),
    "no folder": shutil.rmtree,
    "empty": lambda folder: (folder / "model.json").write_bytes(b""),
    "no JSON": lambda folder: (folder / "model.json").write_text('{"labels": ['),
    "no object": lambda folder: (folder / "model.json").write_text("[]"),
    "labels missing": lambda folder: change(folder, labels=["a", "b"]),
    "labels no list": lambda folder: change(folder, labels=5),
    "labels no text": lambda folder: change(folder, labels=[1, {}, None]),
    "settings no object": lambda folder: change(folder, settings=None),
    "another size": lambda folder: change(folder, resize={"size": 32}),
    "no size": lambda folder: change(folder, resize={}),
    "files no object": lambda folder: change(folder, files="model.onnx"),
    "a file elsewhere": lambda folder: change(folder, files={"model.onnx": "0" * 64, "../model.json": "0" * 64}),
    "labels twice": lambda folder: change(folder, labels=["a", "b", "a"]),
    "half a character": lambda folder: change(folder, labels=["a", "b", "\ud800"]),
    "another width": lambda folder: change(folder, embedding_size=7),
    "deep": lambda folder: (folder / "model.json").write_text("[" * 100_000),
    "device": lambda folder: ((folder / "model.onnx").unlink(), (folder / "model.onnx").symlink_to("/dev/zero")),
}


@pytest.fixture
def own_client(new_client: NewClient, own_bundle: Path) -> TestClient:
    return new_client(Limits(queue=1000), folder=own_bundle, access=Access(admin_key=ADMIN_KEY))


def test_a_broken_bundle_is_refused_and_the_old_one_stays(
    own_client: TestClient, bundle: Path, own_bundle: Path, picture: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    before = own_client.post("/predict", content=picture).json()
    for name, damage in BREAK.items():
        shutil.rmtree(own_bundle, ignore_errors=True)
        shutil.copytree(bundle, own_bundle)
        damage(own_bundle)
        caplog.clear()
        with caplog.at_level(logging.ERROR):
            answer = own_client.post("/admin/reload", headers=ADMIN)
        assert answer.status_code == 422, name
        assert_problem(answer, 422, "Bundle refused")
        (record,) = caplog.records
        assert "refused" in record.message and "\n" not in record.message, name
        after = own_client.post("/predict", content=picture).json()
        assert (after["model"], after["predictions"]) == (before["model"], before["predictions"]), name
        explained = own_client.post("/explain", content=picture)
        assert explained.status_code == 200, name


def test_a_new_bundle_answers_after_the_reload(own_client: TestClient, own_bundle: Path, picture: bytes) -> None:
    versions = [own_client.get("/model").json()["version"]]
    retrain(own_bundle)
    assert own_client.get("/model").json()["version"] == versions[0]  # only after a reload
    versions.append(own_client.post("/admin/reload", headers=ADMIN).json()["model"]["version"])
    change(own_bundle, labels=["first", "second", "third"])
    versions.append(own_client.post("/admin/reload", headers=ADMIN).json()["model"]["version"])
    assert len(set(versions)) == 3
    answer = own_client.post("/predict", content=picture).json()
    assert answer["model"]["version"] == versions[-1]
    assert answer["predictions"][0]["label"] in ("first", "second", "third")
    assert own_client.get("/model").json()["labels"] == ["first", "second", "third"]
    models = [line for line in own_client.get("/metrics").text.splitlines() if line.startswith("model{")]
    assert models == [f'model{{name="textures_svm",version="{versions[-1]}"}} 1.0']


def parts_of(model: dict[str, Any]) -> dict[str, Any]:
    """By what metrics.json is known to be of a bundle."""
    return {"files": model["files"], "trust": model["trust"]}


def test_metrics_written_to_a_bundle_do_not_change_its_version(own_bundle: Path) -> None:
    before = load_model(own_bundle, precision="f32")
    (own_bundle / "metrics.json").write_text(
        json.dumps({**parts_of(before.classifier.model), "metrics": {"overall_accuracy": 0.9}})
    )
    after = load_model(own_bundle, precision="f32")
    assert after.version == before.version
    assert after.describe()["metrics"] == {"overall_accuracy": 0.9}
    trust = after.classifier.model["trust"]
    change(own_bundle, trust={**trust, "coverage": 0.95})
    changed = load_model(own_bundle, precision="f32")
    assert changed.version != before.version, "other thresholds give other answers"
    assert changed.describe()["metrics"] is None, "and other metrics"


def test_no_request_fails_while_bundles_are_replaced(own_client: TestClient, own_bundle: Path, picture: bytes) -> None:
    stopping = threading.Event()

    def hammer() -> list[tuple[int, str, str]]:
        found = []
        while not stopping.is_set():
            answer = own_client.post("/predict", content=picture)
            content = answer.json()
            found.append((answer.status_code, content["model"]["version"], content["predictions"][0]["label"]))
        return found

    label = own_client.post("/predict", content=picture).json()["predictions"][0]["label"]
    own_labels = {own_client.get("/model").json()["version"]: label}
    with ThreadPoolExecutor(4) as pool:
        results = [pool.submit(hammer) for _ in range(4)]
        try:
            for number in range(2):
                labels = [f"{name}{number}" for name in ("blobs", "checks", "stripes")]
                change(own_bundle, labels=labels)
                reloaded = own_client.post("/admin/reload", headers=ADMIN)
                assert reloaded.status_code == 200
                own_labels[reloaded.json()["model"]["version"]] = f"{label}{number}"
        finally:
            stopping.set()
    found = [entry for result in results for entry in result.result()]
    assert {status for status, _, _ in found} == {200}
    assert all(own_labels[version] == label for _, version, label in found)  # labels and version of one bundle
    assert {version for _, version, _ in found} <= set(own_labels)


def test_not_ready_until_the_model_is_warm(bundle: Path, picture: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, allowed = threading.Event(), threading.Event()

    def slow(*arguments: Any, **options: Any) -> Any:
        asked.set()
        assert allowed.wait(60)
        return load_model(*arguments, **options)

    monkeypatch.setattr(model_module, "load_model", slow)
    service = Service(bundle)
    with TestClient(create_app(service, page=PAGE)) as client:
        assert asked.wait(60)
        assert client.get("/v2/health/live").status_code == 200
        for path in ("/v2/health/ready", "/model", "/v2/models/textures_svm", "/v2/models/textures_svm/ready"):
            assert_problem(client.get(path), 503, "loaded")
        for path in ("/predict", "/explain", "/score", "/v2/models/textures_svm/infer"):
            assert_problem(client.post(path, content=picture), 503)
        assert client.get("/").status_code == 200
        assert client.get("/metrics").status_code == 200
        allowed.set()
        assert client.portal is not None
        client.portal.call(service.load)
        assert client.get("/v2/health/ready").json() == {"ready": True}
        assert client.post("/predict", content=picture).status_code == 200
