"""Images of requests in the pool: none by default, within limits, and never at the expense of a request."""

import errno
import json
import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from libraries.base.errors import ServiceError
from libraries.data.pool_folders import ANSWERS
from libraries.service import keeping
from libraries.service.app import create_app
from libraries.service.calling.client import Client
from libraries.service.gate import Access
from libraries.service.keeping import Keep
from libraries.service.service import Limits, Service
from tests.service.conftest import PAGE, StartService, encoded

KEY = "key-of-those-who-tell"


def today() -> str:
    """The day in UTC: asked for where it is needed, as tests may run past midnight."""
    return f"{datetime.now(UTC):%Y-%m-%d}"


Start = Callable[..., tuple[TestClient, Service]]


@pytest.fixture
def start(bundle: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts a service that keeps images in tmp_path / "pool"."""
    clients: list[TestClient] = []

    def started(**keep: Any) -> tuple[TestClient, Service]:
        service = Service(bundle, limits=Limits(queue=1000), keep=Keep(tmp_path / "pool", **keep))
        client = TestClient(create_app(service, page=PAGE, access=Access(feedback_key=KEY))).__enter__()
        clients.append(client)
        assert client.portal is not None
        client.portal.call(service.load)
        return client, service

    yield started
    for client in clients:
        client.__exit__(None, None, None)


def settled(service: Service, count: int) -> dict[str, int]:
    """What became of images, once these many are done."""
    assert service.keeper is not None
    end = time.monotonic() + 30
    while sum(service.keeper.counts.values()) < count and time.monotonic() < end:
        time.sleep(0.01)
    return {outcome: n for outcome, n in service.keeper.counts.items() if n}


def kept(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and path.name != ANSWERS
    }


def send(client: TestClient, *images: bytes) -> list[dict[str, Any]]:
    files = [("images", (f"{i}.png", image)) for i, image in enumerate(images)]
    predictions: list[dict[str, Any]] = client.post("/predict", files=files).json()["predictions"]
    return predictions


def test_nothing_is_kept_unless_it_is_asked_for(start_service: StartService, tmp_path: Path, picture: bytes) -> None:
    live = start_service(f"--rootDir={tmp_path}")
    with Client(live.url) as client:
        client.predict(picture)
        with pytest.raises(ServiceError, match="feedback is off: start the service with a feedback key"):
            client.feedback(picture, "blobs")
    live.process.terminate()
    live.process.wait(timeout=60)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert [path for path in live.folder.rglob("*") if path.is_file()] == []


def test_uncertain_images_are_kept_once_with_what_was_answered(
    start: Start, tmp_path: Path, image_files: list[Path]
) -> None:
    images = [path.read_bytes() for path in image_files[:20]]
    client, service = start(which="uncertain", below=2.0)
    answered = send(client, *images, b"no image", images[0])
    assert settled(service, 21) == {"kept": 20, "known": 1}
    day = tmp_path / "pool" / "service" / today()
    assert sorted(path.read_bytes() for path in day.iterdir() if path.name != ANSWERS) == sorted(images)
    lines = [json.loads(line) for line in (day / ANSWERS).read_text(encoding="utf-8").splitlines()]
    assert {line["label"] for line in lines} == {each["label"] for each in answered if "label" in each}
    assert lines[0].keys() == {"file", "time", "name", "version", "label", "probability", "unknown", "set", "kept"}
    assert 'images_kept{outcome="kept"} 20.0' in client.get("/metrics").text

    limit = sorted(each["probability"] for each in answered if "label" in each)[5]
    client, service = start(which="uncertain", below=limit)
    again = [encoded(colour=(i, 2 * i, 90)) for i in range(30)]
    unsure = sum(each["probability"] < limit or each["unknown"] for each in send(client, *again))
    assert settled(service, unsure).get("kept", 0) == unsure
    assert len(kept(tmp_path / "pool")) == 20 + unsure


def test_a_sample_is_drawn_by_content(start: Start, tmp_path: Path) -> None:
    images = [encoded(colour=(i, 0, 0)) for i in range(60)]
    client, service = start(which="sample", share=0.3)
    send(client, *images)
    first = settled(service, 5)["kept"]
    time.sleep(0.2)
    first = settled(service, 5)["kept"]
    assert 8 <= first <= 30  # of 60, with a chance of one in a million of neither
    send(client, *images)
    assert settled(service, 2 * first) == {"kept": first, "known": first}


def test_the_right_label_is_kept_with_its_image(start: Start, tmp_path: Path, picture: bytes) -> None:
    client, service = start()
    headers = {"authorization": f"Bearer {KEY}"}
    assert client.post("/feedback?label=blobs", content=picture).status_code == 401
    answer = client.post("/feedback?label=blobs", content=picture, headers=headers)
    assert answer.status_code == 200 and answer.json()["is_right"] == (answer.json()["label"] == "blobs")
    assert settled(service, 1) == {"kept": 1}
    (name,) = kept(tmp_path / "pool")
    assert name.startswith("feedback/blobs/") and name.endswith(".png")
    for label in ("owl", "..", "../../x", "", "blobs/x"):
        assert client.post("/feedback", params={"label": label}, content=picture, headers=headers).status_code == 400
    assert client.post("/feedback", content=picture, headers=headers).status_code == 422
    assert client.post("/feedback?label=blobs", content=b"no image", headers=headers).status_code == 422
    send(client, picture)
    assert settled(service, 1) == {"kept": 1}, "what is only classified is not kept"
    assert kept(tmp_path / "pool") == {name}


def test_a_caller_who_has_left_does_not_end_the_thread(start: Start, tmp_path: Path) -> None:
    _, service = start(which="sample", share=1.0)
    assert service.keeper is not None
    for i in range(3):
        service.keeper.take_feedback(encoded(colour=(i, 0, 0)), "blobs").cancel()
    assert service.keeper.take_feedback(encoded(colour=(9, 0, 0)), "blobs").result(timeout=30) == "kept"
    assert settled(service, 4) == {"kept": 4}


def test_what_is_kept_is_bounded_in_size_and_days(
    start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    service_folder, days = (
        tmp_path / "pool" / "service",
        [datetime.now(UTC).date() - timedelta(days=n) for n in (5, 40)],
    )
    others = [service_folder / "2020", service_folder / "mine", tmp_path / "pool" / "2020-01-01"]
    for folder in (*(service_folder / f"{day}" for day in days), *others):
        folder.mkdir(parents=True)
        (folder / "old.png").write_bytes(bytes(1000))
    (service_folder / "2020-02-02").symlink_to(tmp_path / "pool" / "2020-01-01")
    images = [encoded(kind="BMP", colour=(i, 0, 0)) for i in range(10)]
    size = len(images[0])  # much more than a line of answers
    client, service = start(which="sample", share=1.0, most_bytes=3000 + 3 * size + size // 2, days=30)
    send(client, *images)
    assert settled(service, 10) == {"kept": 3, "full": 7}
    assert not (service_folder / f"{days[1]}").exists()
    assert all((folder / "old.png").exists() for folder in (service_folder / f"{days[0]}", *others))
    assert [r.message for r in caplog.records if "kept" in r.message] == [
        f"no more images are kept in {tmp_path / 'pool'}: 0 MB are full"
    ]


def test_a_link_leads_nowhere(start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    precious = tmp_path / "elsewhere" / "2020-01-01" / "precious.txt"
    precious.parent.mkdir(parents=True)
    precious.write_text("kept")
    (tmp_path / "pool" / "feedback").mkdir(parents=True)
    (tmp_path / "pool" / "service").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "pool" / "feedback" / "blobs").symlink_to(tmp_path / "elsewhere")
    client, service = start(which="sample", share=1.0)
    send(client, encoded())
    assert settled(service, 1) == {"failed": 1}
    answer = client.post("/feedback?label=blobs", content=encoded(), headers={"authorization": f"Bearer {KEY}"})
    assert answer.status_code == 503 and "the image could not be kept" in answer.json()["detail"]
    assert [path for path in (tmp_path / "elsewhere").rglob("*") if path.is_file()] == [precious]
    assert f"{tmp_path / 'pool' / 'service'} is a link" in caplog.text


def test_room_that_becomes_free_is_used(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [encoded(colour=(i, 0, 0)) for i in range(4)]
    client, service = start(which="sample", share=1.0, most_bytes=len(images[0]) + 500)
    send(client, *images[:3])
    assert settled(service, 3)["full"] >= 1
    for path in (tmp_path / "pool").rglob("*.png"):
        path.unlink()
    monkeypatch.setattr(keeping, "_MINUTE", 0.0)
    before = settled(service, 3)["kept"]
    send(client, images[3])
    assert settled(service, 4)["kept"] == before + 1


def test_answers_stay_readable_after_a_power_cut_and_pixels_are_told_apart(start: Start, tmp_path: Path) -> None:
    day = tmp_path / "pool" / "service" / today()
    day.mkdir(parents=True)
    (day / ANSWERS).write_text('{"file": "to', encoding="utf-8")
    client, service = start(which="sample", share=1.0)
    send(client, encoded())
    pixels = [np.full(shape, 9, np.uint8) for shape in ((20, 10, 3), (10, 20, 3))]
    for image in pixels:
        data = [{"name": "images", "shape": [1, *image.shape], "datatype": "UINT8", "data": image.ravel().tolist()}]
        name = client.get("/model").json()["name"]
        assert client.post(f"/v2/models/{name}/infer", json={"inputs": data}).status_code == 200
    assert settled(service, 3) == {"kept": 3}
    torn, *lines = (day / ANSWERS).read_text(encoding="utf-8").splitlines()
    assert torn == '{"file": "to' and len([json.loads(line) for line in lines]) == 3


def test_a_disk_that_is_slow_or_full_costs_no_request(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*given: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    client, service = start(which="sample", share=1.0)
    with monkeypatch.context() as patched:
        patched.setattr("libraries.base.storage.flush", full)
        assert all("label" in each for each in send(client, *(encoded(colour=(i, 0, 0)) for i in range(3))))
        assert settled(service, 3) == {"failed": 3}
    (line,) = {r.message for r in caplog.records if "not kept" in r.message}
    assert line.startswith(f"images are not kept in {tmp_path / 'pool'}: ") and "the disk is full" in line
    assert kept(tmp_path / "pool") == set()
    monkeypatch.setattr(keeping, "_WAITING_BYTES", 10)
    send(client, encoded(colour=(9, 9, 9)))
    assert settled(service, 4) == {"failed": 3, "busy": 1}


def test_the_scripts_keep_and_tell(start_service: StartService, tmp_path: Path, image_files: list[Path]) -> None:
    """As processes, with the pool of the data set, and both keys."""
    live = start_service(
        f"--rootDir={tmp_path}", "--datasetName=cells", "--serve_keep=sample", "--serve_keepShare=1",
        SERVICE_FEEDBACK_KEY=KEY,
    )  # fmt: skip
    pool = tmp_path / "images" / "cells.pool"
    with Client(live.url) as client:
        client.predict(image_files[0].read_bytes())
    with Client(live.url, key=KEY) as client:
        assert client.feedback(image_files[1].read_bytes(), "blobs") in {"blobs", "checks", "stripes"}
    end = time.monotonic() + 30
    while len(kept(pool)) < 2 and time.monotonic() < end:
        time.sleep(0.05)
    assert {name.rsplit("/", 1)[0] for name in kept(pool)} == {f"service/{today()}", "feedback/blobs"}
