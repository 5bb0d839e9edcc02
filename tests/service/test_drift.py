"""The service notices that the images it is sent no longer look like those that its bundle was tested with."""

import io
import logging
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from libraries.classifier.bundle import Classifier, Prediction
from libraries.classifier.reference import Reference
from libraries.service import drift
from libraries.service.app import create_app
from libraries.service.drift import DriftWatch
from libraries.service.gate import Access
from libraries.service.service import Limits, Service
from tests.conftest import texture
from tests.service.conftest import ADMIN_KEY, PAGE
from tests.service.test_model import ADMIN, own_bundle, retrain

__all__ = ["own_bundle"]
LABELS = ("stripes", "checks", "blobs")


def textures(count: int, seed: int) -> list[Image.Image]:
    generator = np.random.default_rng(seed)
    return [texture(LABELS[i % 3], generator) for i in range(count)]


def as_files(images: list[Image.Image]) -> list[bytes]:
    """The images as PNG files."""
    files = []
    for image in images:
        image.save(file := io.BytesIO(), "PNG")
        files.append(file.getvalue())
    return files


@pytest.fixture
def evaluated_bundle(own_bundle: Path) -> Path:
    """A bundle that says what its test images look like."""
    classifier = Classifier(own_bundle)
    training, tested = (classifier.predict([np.asarray(image) for image in textures(150, seed)]) for seed in (1, 2))
    of_training, of_tested = (np.stack([each.embedding for each in given]) for given in (training, tested))
    reference = Reference.of(of_training, of_tested, np.stack([each.probabilities for each in tested]))
    reference.save(own_bundle, of=classifier.model["files"])
    return own_bundle


@pytest.fixture
def client(evaluated_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """Of a service that compares 60 images as soon as they are there."""
    for name, value in (("WINDOW", 120), ("EVERY", 60), ("SECONDS", 0.0)):
        monkeypatch.setattr(drift, name, value)
    service = Service(evaluated_bundle, limits=Limits(queue=1000))
    with TestClient(create_app(service, page=PAGE, access=Access(admin_key=ADMIN_KEY))) as started:
        assert started.portal is not None
        started.portal.call(service.load)
        yield started


def send(client: TestClient, files: list[bytes]) -> None:
    for start in range(0, len(files), 30):
        sent = [("images", (f"{i}.png", file)) for i, file in enumerate(files[start : start + 30])]
        assert client.post("/predict", files=sent).status_code == 200


def told(client: TestClient, *, images: int) -> dict[str, Any]:
    """What is told of drift, once so many images have been compared."""
    end = time.monotonic() + 30
    while True:
        found: dict[str, Any] = client.get("/model").json()["drift"]
        if (found["looks"] is not None and found["images"] == images) or time.monotonic() > end:
            return found
        time.sleep(0.02)


def gauges(client: TestClient) -> dict[str, str]:
    lines = client.get("/metrics").text.splitlines()
    return dict(line.split(" ") for line in lines if line.startswith("drift"))


def test_images_like_the_test_images_are_no_drift(client: TestClient) -> None:
    assert gauges(client)['drift{of="looks"}'] == "NaN"
    send(client, as_files(textures(60, 3)))
    found = told(client, images=60)
    assert found["warnings"] == [] and not found["looks"]["differ"] and not found["answers"]["differ"]
    assert set(found["shares"]) == set(LABELS)
    assert gauges(client)['drift{of="looks"}'] == gauges(client)['drift{of="answers"}'] == "0.0"


def test_darker_images_are(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        send(client, as_files([image.point(lambda value: value // 3) for image in textures(60, 4)]))
        found = told(client, images=60)
    assert found["looks"]["differ"] and found["looks"]["p_value"] < 0.0005
    assert found["warnings"][0] == caplog.messages[0] == "The last 60 images look different from the test images."
    assert gauges(client)['drift{of="looks"}'] == "1.0"
    caplog.clear()
    send(client, as_files(textures(180, 5)))
    end = time.monotonic() + 30
    while told(client, images=120)["warnings"] and time.monotonic() < end:
        time.sleep(0.02)
    assert told(client, images=120)["warnings"] == [], "the window has moved on"


def test_one_class_alone_is_told_by_its_name(client: TestClient) -> None:
    generator = np.random.default_rng(6)
    send(client, as_files([texture("checks", generator) for _ in range(60)]))
    found = told(client, images=60)
    assert found["answers"]["differ"]
    assert found["warnings"][-1].startswith("On average, the last 60 images are ")
    assert "are 'checks' with a probability of " in found["warnings"][-1]


def test_the_same_image_again_counts_once(client: TestClient) -> None:
    send(client, as_files(textures(1, 7)) * 90)
    assert client.get("/model").json()["drift"] == {
        "images": 1, "warnings": [], "looks": None, "answers": None, "shares": None
    }  # fmt: skip


def test_shots_of_the_same_thing_count_once(client: TestClient) -> None:
    generator, images = np.random.default_rng(0), textures(5, 7)
    shots = [
        Image.fromarray(
            (np.asarray(image) + generator.integers(0, 3, (*image.size[::-1], 3))).clip(0, 255).astype(np.uint8)
        )
        for image in images
        for _ in range(12)
    ]
    send(client, as_files(shots))
    assert client.get("/model").json()["drift"]["images"] < 10


def test_reloading_the_same_bundle_forgets_nothing(client: TestClient) -> None:
    send(client, as_files([image.point(lambda value: value // 3) for image in textures(60, 4)]))
    before = told(client, images=60)
    assert before["warnings"]
    client.post("/admin/reload", headers=ADMIN)
    assert client.get("/model").json()["drift"] == before


def test_another_bundle_begins_anew(client: TestClient, evaluated_bundle: Path) -> None:
    send(client, as_files(textures(60, 8)))
    told(client, images=60)
    retrain(evaluated_bundle)  # its reference is that of the old one
    client.post("/admin/reload", headers=ADMIN)
    assert client.get("/model").json()["drift"] is None
    assert gauges(client)['drift{of="looks"}'] == "NaN"
    send(client, as_files(textures(60, 9)))


def test_many_images_at_once_are_compared_when_it_is_time(
    evaluated_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that come while a comparison has to wait are in it, though no image comes after them."""
    monkeypatch.setattr(drift, "SECONDS", 1.0)
    classifier = Classifier(evaluated_bundle)
    reference = classifier.load_reference()
    assert reference is not None
    watch = DriftWatch(reference, classifier.labels)
    count = 3 * drift.EVERY + 10
    generator = np.random.default_rng(0)
    embeddings = generator.random((count, classifier.model["embedding_size"]), np.float32)
    for part in np.split(embeddings, [drift.EVERY]):
        for embedding in part:
            watch.see(Prediction("checks", np.full(3, 1 / 3, np.float32), np.zeros(3, np.float32), embedding))
        end = time.monotonic() + 30
        while (watch.latest is None or watch.latest.images < watch.images) and time.monotonic() < end:
            time.sleep(0.02)
    assert watch.latest is not None and watch.latest.images == count and watch.latest.looks_differ


def test_without_a_reference_nothing_is_said(bundle: Path, tmp_path: Path) -> None:
    plain = Path(shutil.copytree(bundle, tmp_path / "plain"))
    (plain / "reference.npz").unlink(missing_ok=True)
    service = Service(plain)
    with TestClient(create_app(service, page=PAGE)) as started:
        assert started.portal is not None
        started.portal.call(service.load)
        assert started.get("/model").json()["drift"] is None
