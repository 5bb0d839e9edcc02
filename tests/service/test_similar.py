"""The training images most like a picture: the right ones, of the bundle in service, where they may be shown."""

import base64
import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from libraries.base.layout import Layout
from libraries.network.embedding_store import read_features
from libraries.service.app import create_app
from libraries.service.service import Limits, Service
from libraries.service.similar import find_similar
from tests.conftest import small_run
from tests.service.conftest import PAGE
from tests.service.test_app import assert_problem

Start = Callable[..., TestClient]


@pytest.fixture
def layout(bundle: Path) -> Layout:
    return Layout(small_run(bundle.parents[2], svm_CVals=(0.01,), svm_boL2Normalize=True))


@pytest.fixture
def start() -> Iterator[Start]:
    clients = []

    def service(folder: Path, layout: Layout | None) -> TestClient:
        similar = None if layout is None else find_similar(layout, layout.bundle.folder)
        client = TestClient(
            create_app(Service(folder, limits=Limits(queue=1000), similar=similar), page=PAGE)
        ).__enter__()
        clients.append(client)
        assert client.portal is not None
        client.portal.call(client.app.state.service.load)  # type: ignore[attr-defined]
        return client

    yield service
    for client in clients:
        client.__exit__(None, None, None)


def test_a_training_image_is_most_like_itself(layout: Layout, start: Start) -> None:
    client = start(layout.bundle.folder, layout)
    assert client.get("/model").json()["similar"] is True
    features = read_features(layout.features.folder)
    row = features.split.index("train")
    answer = client.post("/similar", content=(layout.images / features.path[row]).read_bytes())
    assert answer.status_code == 200
    found = answer.json()["similar"]
    assert len(found) == 3 and found[0]["label"] == features.label[row]
    assert found[0]["similarity"] == pytest.approx(1, abs=1e-3)
    assert [each["similarity"] for each in found] == sorted((each["similarity"] for each in found), reverse=True)
    head, _, data = found[0]["picture"].partition(",")
    assert head == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        assert picture.size == (128, 128) and picture.format == "JPEG"


def test_none_of_another_bundle(layout: Layout, start: Start, tmp_path: Path, picture: bytes) -> None:
    """As after a promotion: its network may be another."""
    other = Path(shutil.copytree(layout.bundle.folder, tmp_path / "other"))
    manifest = json.loads((other / "model.json").read_text())
    (other / "more.bin").write_bytes(b"")
    manifest["files"]["more.bin"] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    (other / "model.json").write_text(json.dumps(manifest))
    client = start(other, layout)
    assert client.get("/model").json()["similar"] is False
    assert_problem(client.post("/similar", content=picture), 404, "training images are not shown")
    assert find_similar(layout, other) is None


def test_none_where_they_may_not_be_shown(layout: Layout, start: Start, picture: bytes) -> None:
    client = start(layout.bundle.folder, None)
    assert client.get("/model").json()["similar"] is False
    assert_problem(client.post("/similar", content=picture), 404, "training images are not shown")


def test_what_is_no_image_is_refused(layout: Layout, start: Start) -> None:
    client = start(layout.bundle.folder, layout)
    assert client.post("/similar", content=b"hello").status_code == 422


def test_images_that_are_gone_are_left_out(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    similar = find_similar(layout, layout.bundle.folder)
    assert similar is not None
    embedding = np.asarray(read_features(layout.features.folder).embedding[0])
    usual = similar.to(embedding)

    def gone(path: str) -> bytes:
        raise FileNotFoundError(path)

    monkeypatch.setattr(similar, "_picture", gone)
    assert len(usual) == 3 and similar.to(embedding) == []
