"""A candidate in the shadow of the model in service: compared, promoted, rolled back; and never in the way."""

import json
import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from libraries.service import shadow as module
from libraries.service.app import create_app
from libraries.service.gate import Access
from libraries.service.service import Limits, Service
from tests.service.conftest import ADMIN_KEY, PAGE
from tests.service.test_app import assert_problem
from tests.service.test_model import ADMIN, change, retrain

WORDS = ["blobs", "checks", "stripes"]


@pytest.fixture
def candidate(bundle: Path, tmp_path: Path) -> Path:
    """A bundle whose labels are in another order, so that it says something else of every image."""
    folder = Path(shutil.copytree(bundle, tmp_path / "candidate"))
    change(folder, labels=[WORDS[1], WORDS[2], WORDS[0]])
    return folder


@pytest.fixture
def start(bundle: Path) -> Iterator[Callable[..., TestClient]]:
    clients = []

    def with_candidate(candidate: Path | None, *, folder: Path = bundle) -> TestClient:
        service = Service(folder, limits=Limits(queue=1000), candidate=candidate)
        client = TestClient(create_app(service, page=PAGE, access=Access(admin_key=ADMIN_KEY))).__enter__()
        clients.append(client)
        wait(lambda: client.get("/v2/health/ready").status_code == 200)
        return client

    yield with_candidate
    for client in clients:
        client.__exit__(None, None, None)


def wait(until: Callable[[], bool]) -> None:
    ends = time.monotonic() + 20
    while not until():
        assert time.monotonic() < ends, "nothing has happened"
        time.sleep(0.02)


def told(client: TestClient) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/model").json()["candidate"]
    return found


def send(client: TestClient, picture: bytes, count: int) -> list[str]:
    """Send an image so many times, each after the candidate has looked at the one before."""
    labels = []
    for i in range(count):
        labels.append(client.post("/predict", content=picture).json()["predictions"][0]["label"])
        wait(lambda done=i + 1: told(client)["images"] + told(client)["skipped"] >= done)
    return labels


def test_its_answers_are_compared_and_not_given(
    start: Callable[..., TestClient], candidate: Path, picture: bytes
) -> None:
    client = start(candidate)
    wait(lambda: told(client) is not None)
    labels = send(client, picture, 5)
    assert len({*labels}) == 1
    found = told(client)
    assert found["version"] != client.get("/model").json()["version"]
    assert (found["images"], found["agreement"], found["skipped"]) == (5, 0.0, 0)
    other = [WORDS[1], WORDS[2], WORDS[0]][WORDS.index(labels[0])]
    assert found["differ"] == [{"label": labels[0], "candidate": other, "images": 5}]
    metrics = client.get("/metrics").text
    assert 'candidate_images{outcome="differ"} 5.0' in metrics and 'candidate_images{outcome="agree"} 0.0' in metrics


def test_one_call_puts_it_into_service_and_one_goes_back(
    start: Callable[..., TestClient], candidate: Path, picture: bytes
) -> None:
    client = start(candidate)
    wait(lambda: told(client) is not None)
    before, version = send(client, picture, 1)[0], client.get("/model").json()["version"]
    assert client.post("/admin/promote").status_code == 401
    assert client.post("/admin/rollback").status_code == 401
    assert_problem(client.post("/admin/rollback", headers=ADMIN), 409, "nothing to go back to")
    promoted = client.post("/admin/promote", headers=ADMIN)
    assert promoted.status_code == 200 and promoted.json()["model"]["version"] != version
    model = client.get("/model").json()
    assert model["candidate"] is None and model["previous"]["version"] == version
    after = client.post("/predict", content=picture).json()
    assert after["predictions"][0]["label"] != before
    assert_problem(client.post("/admin/promote", headers=ADMIN), 409, "it is in service already")
    assert client.post("/admin/reload", headers=ADMIN).json() == promoted.json(), "it is loaded from its own folder"
    assert client.post("/admin/rollback", headers=ADMIN).json()["model"]["version"] == version
    assert client.post("/predict", content=picture).json()["predictions"][0]["label"] == before
    assert_problem(client.post("/admin/rollback", headers=ADMIN), 409, "nothing to go back to")
    assert told(client)["version"] == promoted.json()["model"]["version"], "it is the candidate again"
    assert client.post("/admin/promote", headers=ADMIN).json() == promoted.json()


def test_a_reload_can_be_taken_back(
    start: Callable[..., TestClient], bundle: Path, tmp_path: Path, picture: bytes
) -> None:
    own = Path(shutil.copytree(bundle, tmp_path / "own"))
    client = start(None, folder=own)
    version = client.get("/model").json()["version"]
    client.post("/admin/reload", headers=ADMIN)
    assert client.get("/model").json()["previous"] is None, "the same again is no other"
    retrain(own)
    renewed = client.post("/admin/reload", headers=ADMIN).json()["model"]["version"]
    assert renewed != version
    assert client.post("/admin/rollback", headers=ADMIN).json()["model"]["version"] == version
    assert client.post("/predict", content=picture).json()["model"]["version"] == version


def test_the_comparison_begins_anew_with_another_model(
    start: Callable[..., TestClient], bundle: Path, candidate: Path, tmp_path: Path, picture: bytes
) -> None:
    own = Path(shutil.copytree(bundle, tmp_path / "own"))
    client = start(candidate, folder=own)
    wait(lambda: told(client) is not None)
    send(client, picture, 2)
    client.post("/admin/reload", headers=ADMIN)
    assert told(client)["images"] == 2, "the same model again"
    retrain(own)
    client.post("/admin/reload", headers=ADMIN)
    assert told(client)["images"] == 0
    send(client, picture, 1)
    client.post("/admin/rollback", headers=ADMIN)
    assert told(client)["images"] == 0


def test_one_of_another_size_sees_the_image_itself(
    start: Callable[..., TestClient], bundle: Path, tmp_path: Path, picture: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Path(shutil.copytree(bundle, tmp_path / "other"))
    rule = json.loads((other / "model.json").read_text())["resize"]
    change(other, resize={**rule, "mode": "crop" if rule["mode"] != "crop" else "pad"})
    client = start(other)
    wait(lambda: told(client) is not None)
    send(client, picture, 2)
    assert told(client)["images"] == 2
    monkeypatch.setattr(module, "_MOST_BYTES", 10)
    client.post("/predict", content=picture)
    wait(lambda: told(client)["skipped"] == 1)
    monkeypatch.undo()
    monkeypatch.setattr(module, "_MOST_MEMORY", 10)
    client.post("/predict", content=picture)
    wait(lambda: told(client)["skipped"] == 2)


def test_a_broken_candidate_stops_nothing(
    start: Callable[..., TestClient], candidate: Path, picture: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (candidate / "model.onnx").unlink()
    with caplog.at_level(logging.ERROR):
        client = start(candidate)
        wait(lambda: "the candidate is refused" in caplog.text)
    assert client.post("/predict", content=picture).status_code == 200 and told(client) is None


def test_one_that_fails_stops_nothing(
    start: Callable[..., TestClient],
    candidate: Path,
    picture: bytes,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = start(candidate)
    wait(lambda: told(client) is not None)

    def fail(shadow: module.Shadow, *item: Any) -> None:
        raise RuntimeError("out of\nmemory")

    monkeypatch.setattr(module.Shadow, "_compare", fail)
    with caplog.at_level(logging.ERROR):
        assert client.post("/predict", content=picture).status_code == 200
        wait(lambda: told(client)["skipped"] == 1)
    assert "the candidate fails: out of memory" in caplog.text
    monkeypatch.undo()
    client.post("/predict", content=picture)
    wait(lambda: told(client)["images"] == 1)


def test_it_computes_when_no_others_wait(
    start: Callable[..., TestClient], candidate: Path, picture: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = start(candidate)
    wait(lambda: told(client) is not None)
    service: Service = client.app.state.service  # type: ignore[attr-defined]
    shadow = service.shadow
    assert shadow is not None
    monkeypatch.setattr(shadow, "_is_busy", lambda: True)
    for _ in range(3):
        assert client.post("/predict", content=picture).status_code == 200
    assert (told(client)["images"], told(client)["skipped"]) == (0, 0)
    monkeypatch.setattr(module, "_MOST_WAITING", 10)
    assert client.post("/predict", content=picture).status_code == 200
    assert told(client)["skipped"] == 1, "no more can wait"
    monkeypatch.setattr(shadow, "_is_busy", lambda: False)
    wait(lambda: told(client)["images"] == 3)


def test_nobody_waits_for_it_to_end(
    start: Callable[..., TestClient], candidate: Path, picture: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = start(candidate)
    wait(lambda: told(client) is not None)
    going_on = threading.Event()
    monkeypatch.setattr(module.Shadow, "_compare", lambda *item: going_on.wait(20))
    for _ in range(5):
        client.post("/predict", content=picture)
    begun = time.monotonic()
    assert client.post("/admin/promote", headers=ADMIN).status_code == 200
    assert time.monotonic() - begun < 5
    going_on.set()
