"""The Open Inference Protocol, by hand and with the client of NVIDIA's Triton."""

import base64
import json
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from PIL import Image
from starlette.testclient import TestClient
from tritonclient.utils import InferenceServerException

from libraries.classifier.bundle import Classifier, Prediction
from libraries.service.openinference import DEFAULT_OUTPUTS
from tests.service.conftest import Live, NewClient, encoded
from tests.service.test_app import NO_IMAGE, assert_problem

MODEL = "/v2/models/textures_svm"
INFER = f"{MODEL}/infer"
NUMBERS = ("probabilities", "scores", "embedding")  # outputs of type FP32
OUTPUTS = ("label", *NUMBERS, "unknown", "set")  # of a bundle without costs


def files(*images: bytes, **more: Any) -> dict[str, Any]:
    """A request with image files in JSON."""
    data = [base64.b64encode(image).decode() for image in images]
    return {"inputs": [{"name": "files", "datatype": "BYTES", "shape": [len(data)], "data": data}], **more}


def tensor(**changes: Any) -> dict[str, Any]:
    """A request with one image of 2 x 1 pixels in JSON, changed."""
    given = {"name": "images", "datatype": "UINT8", "shape": [1, 2, 1, 3], "data": [0, 50, 100, 150, 200, 255]}
    return {"inputs": [{**given, **changes}]}


# By hand


def test_metadata_and_health(client: TestClient) -> None:
    server = client.get("/v2").json()
    assert set(server) == {"name", "version", "extensions"}
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    version = client.get("/model").json()["version"]
    for path in (MODEL, f"{MODEL}/versions/{version}"):
        described = client.get(path).json()
        assert (described["name"], described["versions"]) == ("textures_svm", [version])
        assert [tensor["name"] for tensor in described["outputs"]] == list(OUTPUTS)
        assert client.get(f"{path}/ready").json() == {"name": "textures_svm", "ready": True}
    for path in ("/v2/models/other", f"{MODEL}/versions/1", "/v2/models/other/ready"):
        assert_problem(client.get(path), 404, "textures_svm")
    assert_problem(client.post("/v2/models/other/infer", json=files(encoded())), 404)


def test_files_in_json(client: TestClient, picture: bytes) -> None:
    answer = client.post(INFER, json=files(picture, encoded(), id="ünd", outputs=[{"name": n} for n in OUTPUTS]))
    assert answer.headers["Content-Type"] == "application/json"
    content = answer.json()
    version = client.get("/model").json()["version"]
    assert (content["model_name"], content["model_version"], content["id"]) == ("textures_svm", version, "ünd")
    outputs = {output["name"]: output for output in content["outputs"]}
    assert list(outputs) == list(OUTPUTS)
    assert [o["datatype"] for o in outputs.values()] == ["BYTES", "FP32", "FP32", "FP32", "BOOL", "BOOL"]
    assert [o["shape"] for o in outputs.values()] == [[2], [2, 3], [2, 3], [2, 1280], [2], [2, 3]]
    predicted = client.post("/predict", content=picture).json()["predictions"][0]
    assert outputs["label"]["data"][0] == predicted["label"]
    assert max(outputs["probabilities"]["data"][:3]) == predicted["probability"]
    assert len(outputs["embedding"]["data"]) == 2 * 1280
    content = client.post(f"{MODEL}/versions/{version}/infer", json=files(picture)).json()
    assert [output["name"] for output in content["outputs"]] == list(DEFAULT_OUTPUTS)


def test_pixels_in_json_flat_and_nested(client: TestClient) -> None:
    flat = client.post(INFER, json=tensor()).json()
    nested = client.post(INFER, json=tensor(data=[[[[0, 50, 100]], [[150, 200, 255]]]])).json()
    assert flat == nested
    file = encoded_pixels(np.array([[[0, 50, 100]], [[150, 200, 255]]], np.uint8))
    assert client.post(INFER, json=files(file)).json() == flat


def encoded_pixels(pixels: Any) -> bytes:
    import io

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_binary_in_and_out(client: TestClient, picture: bytes) -> None:
    data = struct.pack("<I", len(picture)) + picture
    asked = {"name": "files", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(data)}}
    head = json.dumps({"inputs": [asked], "parameters": {"binary_data_output": True}}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    answer = client.post(INFER, content=head + data, headers=headers)
    assert answer.headers["Content-Type"] == "application/octet-stream"
    length = int(answer.headers["Inference-Header-Content-Length"])
    label, probabilities = json.loads(answer.content[:length])["outputs"]
    sizes = [output["parameters"]["binary_data_size"] for output in (label, probabilities)]
    rest = answer.content[length:]
    assert len(rest) == sum(sizes)
    (expected,) = client.post("/predict", content=picture).json()["predictions"]
    assert rest[4 : sizes[0]].decode() == expected["label"]
    assert max(np.frombuffer(rest[sizes[0] :], "<f4")) == np.float32(expected["probability"])


BINARY = {"inputs": [{"name": "files", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": 8}}]}


@pytest.mark.parametrize(
    ("status", "request_"),
    [
        (400, None),
        (400, []),
        (400, "text"),
        (400, {}),
        (400, {"inputs": None}),
        (400, {"inputs": []}),
        (400, {"inputs": [None]}),
        (400, {"inputs": [{}, {}]}),
        (400, {"inputs": {"name": "files"}}),
        (400, tensor(name="pictures")),
        (400, tensor(name=["images"])),
        (400, tensor(name={"a": "images"})),
        (400, tensor(name="x" * 100_000)),
        (400, tensor(datatype="FP32")),
        (400, tensor(datatype=None)),
        (400, tensor(shape=None)),
        (400, tensor(shape=[])),
        (400, tensor(shape=[1, 2, 3])),
        (400, tensor(shape=[1, 2, 1, 4])),
        (400, tensor(shape=[1, 2, 1, True])),
        (400, tensor(shape=[1, 2.0, 1, 3])),
        (400, tensor(shape=[1, -2, -1, 3])),
        (400, tensor(shape=[1, 2**40, 1, 3])),
        (400, tensor(shape=[1, 0, 1, 3])),
        (400, tensor(shape=[0, 2, 1, 3])),
        (400, tensor(shape=[2, 2, 1, 3])),
        (413, tensor(shape=[65, 2, 1, 3])),
        (413, tensor(shape=[1, 100_000, 100_000, 3])),
        (400, tensor(data=None)),
        (400, tensor(data=[])),
        (400, tensor(data=[0, 50, 100, 150, 200, 256])),
        (400, tensor(data=[0, 50, 100, 150, 200, -1])),
        (400, tensor(data=[0, 50, 100, 150, 200, 1.5])),
        (400, tensor(data=[0, 50, 100, 150, 200, "1"])),
        (400, tensor(data=[0, 50, 100, 150, 200, None])),
        (400, tensor(data=["", [], {}, None])),
        (400, tensor(data=[[[]] * 6])),
        (400, tensor(data=[[1], 2, 3, 4, 5, 6])),
        (400, tensor(data=[0, 50, 100, 150, 200, 10**30])),
        (400, tensor(data=[[0, 50], [100]])),
        (400, tensor(data=[{}] * 6)),
        (400, tensor(parameters=[1], data=None)),
        (400, tensor(parameters="text", data=None)),
        (400, tensor(parameters={"binary_data_size": 6})),
        (400, tensor(parameters={"binary_data_size": "0"})),
        (400, tensor(parameters={"binary_data_size": []})),
        (400, BINARY),
        (400, files(encoded(), outputs=5)),
        (400, files(encoded(), outputs="label")),
        (400, files(encoded(), outputs=["label"])),
        (400, files(encoded(), outputs=[None])),
        (400, files(encoded(), outputs=[{}])),
        (400, files(encoded(), outputs=[{"name": "none"}])),
        (400, files(encoded(), outputs=[{"name": ["label"]}])),
        (400, files(encoded(), outputs={"name": "label"})),
        (422, files(encoded(), NO_IMAGE)),
        (413, files(encoded((8000, 7000)))),
        (422, {"inputs": [{"name": "files", "datatype": "BYTES", "shape": [1], "data": [5]}]}),
        (422, {"inputs": [{"name": "files", "datatype": "BYTES", "shape": [1], "data": ["no base64"]}]}),
        (400, {"inputs": [{"name": "files", "datatype": "BYTES", "shape": [2], "data": [""]}]}),
        (413, tensor(data=[0] * 2**21)),
    ],
    ids=range(61),
)
def test_refusals(client: TestClient, status: int, request_: Any) -> None:
    assert_problem(client.post(INFER, content=json.dumps(request_)), status)


@pytest.mark.parametrize(
    ("header", "rest"),
    [
        (None, b"12345678"),
        ("-1", b""),
        ("1.5", b""),
        ("²", b""),
        ("9" * 5000, b""),
        ("1000000", b""),
        ("0", b""),
        ("3", b""),
        ("all", b"1234567"),
        ("all", b"12345678"),
        ("all", struct.pack("<II", 2**32 - 1, 0)),
        ("all", struct.pack("<II", 0, 1)),
    ],
    ids=range(12),
)
def test_damaged_binary_requests(client: TestClient, header: str | None, rest: bytes) -> None:
    head = json.dumps(BINARY).encode()
    length = str(len(head)) if header == "all" else header
    headers = [] if length is None else [(b"Inference-Header-Content-Length", length.encode("latin-1"))]
    assert_problem(client.post(INFER, content=head + rest, headers=headers), 400)


def test_two_empty_files_are_two_bad_images(client: TestClient) -> None:
    head = json.dumps(BINARY).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    assert_problem(client.post(INFER, content=head + bytes(8), headers=headers), 422, "image 0: is empty")


def of_input(**members: Any) -> dict[str, Any]:
    asked = files(encoded())
    asked["inputs"][0] |= members
    return asked


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        (files(encoded(), id=5), "id"),
        (files(encoded(), more=[]), "'more' of the request"),
        (files(encoded(), raw_input_contents=["eA=="]), "'raw_input_contents' of the request"),
        (files(encoded(), parameters=[1]), "parameters of the request"),
        (files(encoded(), parameters={"sequence_id": 1, "sequence_start": True}), "'sequence_id' of the request"),
        (files(encoded(), parameters={"priority": 1}), "'priority' of the request"),
        (files(encoded(), parameters={"timeout": 1000}), "'timeout' of the request"),
        (files(encoded(), parameters={"own": "x" * 1000}), "'own' of the request"),
        (files(encoded(), parameters={"binary_data_output": 1}), "'binary_data_output'"),
        (of_input(parameters={"shared_memory_region": "a", "shared_memory_byte_size": 5}), "'shared_memory_region'"),
        (of_input(parameters={"content_type": "np"}), "'content_type' of the input"),
        (of_input(parameters="x"), "parameters of the input"),
        (of_input(contents={}), "'contents' of the input"),
        (of_input(parameters={"binary_data_size": 0}), "both data and binary_data_size"),
        (files(encoded(), outputs=[{"name": "label", "parameters": {"classification": 3}}]), "'classification' of the"),
        (files(encoded(), outputs=[{"name": "label", "parameters": {"shared_memory_region": "a"}}]), "'shared_memory"),
        (files(encoded(), outputs=[{"name": "label", "parameters": {"binary_data": "no"}}]), "'binary_data'"),
        (files(encoded(), outputs=[{"name": "label", "parameters": "x"}]), "parameters of the output"),
        (files(encoded(), outputs=[{"name": "label", "datatype": "BYTES"}]), "'datatype' of the output"),
    ],
    ids=range(19),
)
def test_unsupported_members_are_refused_by_name(client: TestClient, asked: dict[str, Any], named: str) -> None:
    assert_problem(client.post(INFER, json=asked), 400, named)


def test_empty_members_are_accepted(client: TestClient) -> None:
    asked = files(encoded(), id=None, parameters={}, outputs=[{"name": "label", "parameters": None}])
    content = client.post(INFER, json=asked).json()
    assert [output["name"] for output in content["outputs"]] == ["label"]
    assert "id" not in content


def test_bytes_after_the_json_that_no_input_mentions_are_refused(client: TestClient) -> None:
    head = json.dumps(files(encoded())).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    assert_problem(client.post(INFER, content=head + b"12", headers=headers), 400, "2 bytes follow the JSON")


# With Triton's own client


@pytest.fixture(scope="module")
def triton_client(live: Live) -> Iterator[triton.InferenceServerClient]:
    client = triton.InferenceServerClient(f"127.0.0.1:{live.port}")
    yield client
    client.close()


@pytest.fixture(scope="module")
def expected(bundle: Path, image_files: list[Path]) -> list[Prediction]:
    found = [result for _, result in Classifier(bundle).predict_files(image_files[::4])]
    return [result for result in found if isinstance(result, Prediction)]


def infer(client: triton.InferenceServerClient, name: str, values: Any, *, binary: bool) -> triton.InferResult:
    given = triton.InferInput(name, list(values.shape), "BYTES" if name == "files" else "UINT8")
    given.set_data_from_numpy(values, binary_data=binary)
    wanted = [triton.InferRequestedOutput(output, binary_data=binary) for output in OUTPUTS]
    return client.infer("textures_svm", [given], outputs=wanted, request_id="42")


def check_trust(found: triton.InferResult, expected: list[Prediction], labels: list[str]) -> None:
    """The outputs `unknown` and `set`, which are of type BOOL."""
    unknown, likely = found.as_numpy("unknown"), found.as_numpy("set")
    assert unknown.dtype == likely.dtype == bool and likely.shape == (len(expected), len(labels))
    assert unknown.tolist() == [p.unknown for p in expected]
    assert [tuple(np.array(labels)[row]) for row in likely] == [p.set for p in expected]


def test_a_bundle_without_them_has_no_such_outputs(
    new_client: NewClient, bundle: Path, tmp_path: Path, picture: bytes
) -> None:
    plain = Path(shutil.copytree(bundle, tmp_path / "plain"))
    manifest = json.loads((plain / "model.json").read_text(encoding="utf-8"))
    del manifest["trust"]
    (plain / "model.json").write_text(json.dumps(manifest), encoding="utf-8")
    client = new_client(folder=plain)
    names = [output["name"] for output in client.get("/v2/models/textures_svm").json()["outputs"]]
    assert names == ["label", *NUMBERS]
    refused = client.post(INFER, json=files(picture, outputs=[{"name": "unknown"}]))
    assert_problem(refused, 400, "this model has no output 'unknown'")
    answer = client.post("/predict", content=picture).json()["predictions"][0]
    assert "unknown" not in answer and "set" not in answer


def test_a_bundle_with_costs_says_whom_to_ask(
    new_client: NewClient, bundle: Path, tmp_path: Path, picture: bytes
) -> None:
    """In every way of asking, and on what is known of the model."""
    with_costs = Path(shutil.copytree(bundle, tmp_path / "costs"))
    manifest = json.loads((with_costs / "model.json").read_text(encoding="utf-8"))
    manifest["costs"] = {"rows": [["*", "*", 1], ["*", "ask", 0]], "unit": "EUR"}
    (with_costs / "model.json").write_text(json.dumps(manifest), encoding="utf-8")
    client = new_client(folder=with_costs)
    described = client.get("/v2/models/textures_svm").json()
    assert described["outputs"][-1] == {"name": "ask", "datatype": "BOOL", "shape": [-1]}
    asked = files(picture, outputs=[{"name": "ask"}])
    (output,) = client.post(INFER, json=asked).json()["outputs"]
    assert output == {"name": "ask", "datatype": "BOOL", "shape": [1], "data": [True]}, "for nothing, it asks always"
    assert client.post("/predict", content=picture).json()["predictions"][0]["ask"] is True
    body = {"input_df": [{"image base64 string": base64.b64encode(picture).decode()}]}
    assert client.post("/score", json=body).json()["ask"] is True
    assert client.get("/model").json()["costs"] == manifest["costs"]
    assert client.get("/model").json()["version"] != new_client(folder=bundle).get("/model").json()["version"]


def test_triton_reads_health_and_metadata(triton_client: triton.InferenceServerClient) -> None:
    assert triton_client.is_server_live() and triton_client.is_server_ready()
    assert triton_client.is_model_ready("textures_svm")
    assert not triton_client.is_model_ready("other")
    assert triton_client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    described = triton_client.get_model_metadata("textures_svm")
    assert [tensor["name"] for tensor in described["inputs"]] == ["files", "images"]


def test_triton_classifies_files(
    triton_client: triton.InferenceServerClient, bundle: Path, image_files: list[Path], expected: list[Prediction]
) -> None:
    values = np.array([path.read_bytes() for path in image_files[::4]], object)
    found = infer(triton_client, "files", values, binary=True)
    assert [label.decode() for label in found.as_numpy("label")] == [p.label for p in expected]
    for name in NUMBERS:
        assert np.array_equal(found.as_numpy(name), np.stack([getattr(p, name) for p in expected]))
    check_trust(found, expected, Classifier(bundle).labels)
    assert found.get_response()["id"] == "42"


@pytest.mark.parametrize("binary", [True, False])
def test_triton_classifies_pixels(
    triton_client: triton.InferenceServerClient, bundle: Path, image_files: list[Path], binary: bool
) -> None:
    with Image.open(image_files[0]) as image:
        pixels = np.stack([np.array(image.convert("RGB"))] * 2)
    pixels[1] = 255 - pixels[1]
    offline = Classifier(bundle).predict(list(pixels))
    found = infer(triton_client, "images", pixels, binary=binary)
    labels = [label.decode() if binary else label for label in found.as_numpy("label")]
    assert labels == [p.label for p in offline]
    check_trust(found, offline, Classifier(bundle).labels)
    for name in NUMBERS:
        stacked = np.stack([getattr(p, name) for p in offline])
        assert np.array_equal(np.float32(found.as_numpy(name)).reshape(stacked.shape), stacked)


def test_triton_learns_what_is_not_supported(triton_client: triton.InferenceServerClient, picture: bytes) -> None:
    given = triton.InferInput("files", [1], "BYTES")
    given.set_data_from_numpy(np.array([picture], object))
    label = triton_client.infer("textures_svm", [given]).as_numpy("label")
    assert label is not None  # with nothing but the client's defaults
    best_three = triton.InferRequestedOutput("probabilities", class_count=3)
    for options, words in (
        ({"outputs": [best_three]}, "'classification' of the output is not supported"),
        ({"sequence_id": 5, "sequence_start": True}, "'sequence_id' of the request is not supported"),
        ({"priority": 1}, "'priority' of the request is not supported"),
        ({"timeout": 5_000_000}, "'timeout' of the request is not supported"),
        ({"parameters": {"own": 1}}, "'own' of the request is not supported"),
    ):
        with pytest.raises(InferenceServerException, match=words) as error:
            triton_client.infer("textures_svm", [given], **options)
        assert error.value.status() == "400"
    given.set_shared_memory("region", 5)
    with pytest.raises(InferenceServerException, match="'shared_memory_region' of the input is not supported"):
        triton_client.infer("textures_svm", [given])


@pytest.mark.parametrize(
    ("model", "image", "status", "words"),
    [
        ("textures_svm", NO_IMAGE, "422", "image 0: is not a whole JPEG"),
        ("other", NO_IMAGE, "404", "there is no such model: this service has textures_svm"),
    ],
)
def test_triton_can_read_the_errors(
    triton_client: triton.InferenceServerClient, model: str, image: bytes, status: str, words: str
) -> None:
    given = triton.InferInput("files", [1], "BYTES")
    given.set_data_from_numpy(np.array([image], object))
    with pytest.raises(InferenceServerException, match=words) as error:
        triton_client.infer(model, [given])
    assert error.value.status() == status
