"""What every path accepts and answers, and that its answers are the classifier's."""

import base64
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from libraries.classifier.bundle import Classifier, Prediction
from libraries.service import answers
from libraries.service.service import Limits
from tests.service.conftest import NewClient, encoded

NO_IMAGE = b"hello, I am no image"


@pytest.fixture(scope="module")
def classifier(bundle: Path) -> Classifier:
    return Classifier(bundle)


@pytest.fixture(scope="module")
def offline(classifier: Classifier, image_files: list[Path]) -> dict[Path, Prediction]:
    """The classifier's predictions for the small set, without a service."""
    found = dict(classifier.predict_files(image_files))
    assert all(isinstance(result, Prediction) for result in found.values())
    return found  # type: ignore[return-value]


def rows(*images: bytes | str) -> dict[str, Any]:
    """The tutorial's request."""
    texts = [image if isinstance(image, str) else base64.b64encode(image).decode() for image in images]
    return {"input_df": [{"image base64 string": text} for text in texts]}


def assert_problem(answer: Any, status: int, *words: str) -> dict[str, Any]:
    """The answer is this problem, as documented, and reveals nothing about the host."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert set(problem) == {"type", "title", "status", "detail", "error"}
    assert (problem["type"], problem["status"], problem["error"]) == ("about:blank", status, problem["detail"])
    assert problem["title"] and "\n" not in problem["detail"] and len(problem["detail"]) < 300
    assert all(word in answer.text for word in words), answer.text
    assert ("Retry-After" in answer.headers) == (status in (429, 503))
    assert_silent(answer.text)
    return problem  # type: ignore[no-any-return]


def assert_silent(text: str) -> None:
    """The text reveals nothing about the host: no path, traceback, memory address, version or name."""
    text = text.replace("image/*", "").replace("application/octet-stream", "").replace("multipart/form-data", "")
    host = re.escape(os.uname().nodename)
    found = re.findall(rf"Traceback|python|\.py|0x[0-9a-f]{{6,}}|(?<!\w)/\w+|\b{host}\b", text)
    assert found == [], text


# /predict


def test_predict_equals_the_classifier_to_the_bit(
    client: TestClient, offline: dict[Path, Prediction], classifier: Classifier
) -> None:
    for path, expected in offline.items():
        answer = client.post("/predict", content=path.read_bytes()).json()
        (found,) = answer["predictions"]
        assert_equal(found, expected, classifier.labels)
        assert found["name"] is None


def test_predict_takes_a_form_in_order_with_names(
    client: TestClient, offline: dict[Path, Prediction], classifier: Classifier
) -> None:
    chosen = list(offline)[::-1][:40]
    files = [(f"field{i % 3}", (f"{i} ä–電.{path.name}", path.read_bytes())) for i, path in enumerate(chosen)]
    answer = client.post("/predict", files=files).json()
    assert [found["name"] for found in answer["predictions"]] == [name for _, (name, _) in files]
    for found, path in zip(answer["predictions"], chosen, strict=True):
        assert_equal(found, offline[path], classifier.labels)


def assert_equal(found: dict[str, Any], expected: Prediction, labels: list[str]) -> None:
    probabilities = {p["label"]: p["probability"] for p in found["probabilities"]}
    assert [np.float32(probabilities[label]) for label in labels] == list(expected.probabilities)
    assert found["label"] == expected.label == found["probabilities"][0]["label"]
    assert found["probability"] == found["probabilities"][0]["probability"] == max(probabilities.values())
    assert sorted(probabilities.values(), reverse=True) == list(probabilities.values())


def test_among_equal_probabilities_the_first_label_leads_as_in_the_prediction() -> None:
    even = np.array([0.2, 0.4, 0.4], np.float32)
    found = answers.image_answer("a", Prediction("b", even, even, even), ["a", "b", "c"])
    assert [p["label"] for p in found["probabilities"]] == ["b", "c", "a"]
    assert found["label"] == "b"


def test_the_answer_names_the_model_and_the_time(client: TestClient, picture: bytes) -> None:
    answer = client.post("/predict", content=picture, headers={"Content-Type": "image/png"})
    assert answer.headers["Content-Type"] == "application/json"
    content = answer.json()
    assert set(content) == {"model", "predictions", "milliseconds"}
    described = client.get("/model").json()
    assert content["model"] == {"name": described["name"], "version": described["version"]}
    stages = content["milliseconds"]
    assert set(stages) == {"queue", "decode", "compute", "total"}
    assert stages["decode"] > 0 and stages["compute"] > 0
    assert stages["queue"] + stages["decode"] + stages["compute"] <= stages["total"]


def test_a_bad_image_does_not_affect_the_others(client: TestClient, picture: bytes) -> None:
    sent = [("good", picture), ("bad", NO_IMAGE), ("half", picture[: len(picture) // 2]), ("empty", b"")]
    sent += [("large", encoded((8000, 7000), "PNG")), ("good again", picture)]
    answer = client.post("/predict", files=[("images", file) for file in sent])
    assert answer.status_code == 200
    found = answer.json()["predictions"]
    assert [f["name"] for f in found] == [name for name, _ in sent]
    assert [f.get("error", {}).get("status") for f in found] == [None, 422, 422, 422, 413, None]
    assert found[0]["probabilities"] == found[-1]["probabilities"]
    assert all(set(f) == {"name", "error"} for f in found[1:-1])
    assert found[1]["error"]["detail"].endswith(f"(begins with {NO_IMAGE[:16]!r})")
    assert_silent(answer.text)


@pytest.mark.parametrize(
    ("status", "content"),
    [(422, NO_IMAGE), (422, b""), (422, encoded()[:50]), (413, encoded((8000, 7000))), (413, bytes(2**25 + 1))],
    ids=["text", "empty", "half", "too many pixels", "too many bytes"],
)
def test_a_bad_image_alone_is_a_problem(client: TestClient, status: int, content: bytes) -> None:
    assert_problem(client.post("/predict", content=content), status)


def test_predict_refuses_what_is_not_an_image_and_too_many_images(client: TestClient, picture: bytes) -> None:
    many = [("images", (f"{i}.png", picture)) for i in range(65)]
    assert_problem(client.post("/predict", files=many), 413, "64")
    assert_problem(client.post("/predict", json={"image": "..."}), 415)
    assert_problem(client.post("/predict", files={"image": picture}, headers={"Content-Encoding": "gzip"}), 415)
    no_boundary = {"Content-Type": "multipart/form-data"}
    assert_problem(client.post("/predict", content=b"--B--\r\n", headers=no_boundary), 400, "boundary")
    damaged = {"Content-Type": "multipart/form-data; boundary=B"}
    assert_problem(client.post("/predict", content=b"--B\r\nbroken", headers=damaged), 400, "form")
    assert_problem(client.post("/predict", data={"a": "b"}, files={"c": (None, b"d")}), 422, "no image")


# /explain


def test_explain_gives_the_evidence_for_the_predicted_label(client: TestClient, classifier: Classifier) -> None:
    image = encoded((100, 50))
    answer = client.post("/explain", content=image).json()
    (predicted,) = client.post("/predict", content=image).json()["predictions"]
    assert (answer["label"], answer["probability"]) == (predicted["label"], predicted["probability"])
    assert (answer["width"], answer["height"]) == (100, 50)
    assert answer["area"] == {"left": 0.0, "top": -0.5, "right": 1.0, "bottom": 1.5}  # padded
    assert answer["method"] == "class activation map"
    heatmap = np.array(answer["heatmap"])
    assert heatmap.ndim == 2
    logits = np.log([dict(map(dict.values, predicted["probabilities"]))[label] for label in classifier.labels])
    index = classifier.labels.index(answer["label"])
    margin = logits[index] - np.delete(logits, index).mean()
    assert heatmap.mean() == pytest.approx(margin, abs=1e-3)


@pytest.mark.parametrize("kind", ["WEBP", "JPEG2000"])
def test_an_image_that_needs_much_memory_names_what_allows_it(new_client: NewClient, kind: str) -> None:
    """By default these are refused above 30 and 26 megapixels, where 50 are allowed."""
    small = new_client(Limits(megabytes=1, megapixels=2))
    assert small.post("/predict", content=encoded((2000, 1000))).status_code == 200
    assert_problem(small.post("/predict", content=encoded((2000, 1000), kind)), 413, "or raise serve_maxMegapixels")


def test_explain_takes_a_label_and_a_form(client: TestClient, picture: bytes, classifier: Classifier) -> None:
    maps = []
    for label in classifier.labels:
        answer = client.post("/explain", params={"label": label}, files={"image": ("a.png", picture)}).json()
        assert answer["label"] == label
        maps.append(np.array(answer["heatmap"]))
    assert np.abs(sum(maps)).max() < 1e-3  # margins against the mean of the others add up to zero


def test_explain_refuses(client: TestClient, picture: bytes) -> None:
    unknown = client.post("/explain", params={"label": "no such"}, content=picture)
    assert_problem(unknown, 400, "blobs, checks, stripes")
    assert_problem(client.post("/explain", content=NO_IMAGE), 422)
    assert_problem(client.post("/explain", content=b""), 422)
    assert_problem(client.post("/explain", content=encoded((8000, 7000))), 413)
    two = [("images", ("a.png", picture)), ("images", ("b.png", picture))]
    assert_problem(client.post("/explain", files=two), 413, "the 1 image")


# /score


def test_score_answers_as_the_tutorial_did(
    client: TestClient, offline: dict[Path, Prediction], classifier: Classifier
) -> None:
    path, expected = next(iter(offline.items()))
    answer = client.post("/score", json=rows(path.read_bytes()))
    content = answer.json()
    assert set(content) == {"label", "score", "allScores", "Id2Labels", "executionTimeMs", "unknown", "set"}
    assert (content["unknown"], tuple(content["set"])) == (expected.unknown, expected.set)
    assert content["label"] == expected.label
    assert np.array_equal(np.float32(content["allScores"]), expected.probabilities)
    assert content["score"] == max(content["allScores"])
    assert content["Id2Labels"] == {str(i): label for i, label in enumerate(classifier.labels)}
    assert content["executionTimeMs"] > 0


def test_score_answers_several_rows_with_a_list(client: TestClient, picture: bytes) -> None:
    url = "data:image/png;base64," + base64.b64encode(picture).decode()
    answer = client.post("/score", json=rows(picture, NO_IMAGE, "no base64!", url))
    assert answer.status_code == 200
    first, no_image, no_base64, last = answer.json()
    assert {**first, "executionTimeMs": 0} == {**last, "executionTimeMs": 0}
    assert no_image["error"]["status"] == no_base64["error"]["status"] == 422
    assert_silent(answer.text)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, b""),
        (400, b"null"),
        (400, b"[]"),
        (400, b"{}"),
        (400, b"\xff\xfe{"),
        (400, b'{"input_df": null}'),
        (400, b'{"input_df": []}'),
        (400, b'{"input_df": {}}'),
        (400, b'{"input_df": [null]}'),
        (400, b'{"input_df": [{"image": ""}]}'),
        (400, b'{"input_df": ' + b"1" * 5000 + b"}"),
        (400, b"[" * 9_999),
        (413, b"[" * 100_000),
        (413, b'{"input_df": [' + b"{}," * 100_000 + b"{}]}"),
        (413, json.dumps(rows(*["aGVsbG8="] * 65)).encode()),
        (422, json.dumps(rows("")).encode()),
        (422, json.dumps(rows("aGVsbG8=")).encode()),
        (422, b'{"input_df": [{"image base64 string": 5}]}'),
        (422, b'{"input_df": [{"image base64 string": "\\ud800"}]}'),
        (422, json.dumps(rows("a" * 10_000_001)).encode()),
        (413, json.dumps(rows("a" * 2**25)).encode()),
    ],
    ids=range(21),
)
def test_score_refuses(client: TestClient, status: int, body: bytes) -> None:
    assert_problem(client.post("/score", content=body, headers={"Content-Type": "application/json"}), status)


# /model, /metrics, the page


def test_model_describes_itself(client: TestClient, classifier: Classifier) -> None:
    described = client.get("/model").json()
    assert described["name"] == "textures_svm"
    assert re.fullmatch("[0-9a-f]{12}", described["version"])
    assert described["labels"] == classifier.labels
    assert described["limits"] == {"megabytes": 32, "images": 64, "megapixels": 50}
    for key in ("architecture", "input_size", "resize", "views", "metrics", "versions", "created"):
        assert key in described
    assert "settings" not in described  # labels that contain paths


def counted(client: TestClient) -> dict[tuple[str, ...], float]:
    """The metrics: (name, label values ...) → value."""
    answer = client.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    families = text_string_to_metric_families(answer.text)
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


def test_metrics_count_requests_stages_images_and_labels(new_client: NewClient, picture: bytes) -> None:
    client = new_client(Limits(queue=1000))
    before = counted(client)
    (found,) = client.post("/predict", content=picture).json()["predictions"]
    client.post("/predict", files=[("a", ("a", picture)), ("b", ("b", NO_IMAGE))])
    client.post("/predict", content=NO_IMAGE)
    after = counted(client)

    def more(*key: str) -> float:
        return after[key] - before.get(key, 0)

    assert more("requests_total", "/predict", "200") == 2
    assert more("requests_total", "/predict", "422") == 1
    assert more("request_seconds_count", "/predict") == 3
    assert more("predictions_total", found["label"]) == 2
    assert more("image_errors_total") == 2
    assert more("images_per_request_count") == 3 and more("images_per_request_sum") == 4
    assert all(more("stage_seconds_count", stage) == 4 for stage in ("queue", "decode", "compute"))
    assert more("stage_seconds_sum", "compute") > 0
    assert after["queue_images",] == 0
    described = client.get("/model").json()
    assert after["model", described["name"], described["version"]] == 1


def test_strangers_cannot_make_metrics_grow(new_client: NewClient) -> None:
    client = new_client()
    for number in range(50):
        client.get(f"/no/such/{number}")
        client.get(f"/v2/models/{number}")
        client.post(f"/v2/models/{number}/infer")
        client.request(f"METHOD{number}", "/")
        client.get("/static/" + str(number))
    assert len({key for key in counted(client) if key[0] == "requests_total"}) < 12


def test_the_page_and_its_policy(client: TestClient) -> None:
    page = client.get("/")
    assert page.headers["Content-Type"].startswith("text/html")
    assert page.headers["Content-Security-Policy"].startswith("default-src 'self'; img-src 'self' blob: data:")
    for name in ("app.js", "style.css"):
        assert client.get(f"/static/{name}").status_code == 200
    for path in ("/static/", "/static/none.js", "/static/..%2f..%2fPARAMETERS.py", "/static/%2fetc%2fpasswd"):
        assert_problem(client.get(path), 404)


@pytest.mark.parametrize(
    ("method", "path", "status", "allowed"),
    [
        ("GET", "/nothing", 404, None),
        ("GET", "/predict", 405, "POST"),
        ("PUT", "/predict", 405, "POST"),
        ("OPTIONS", "/score", 405, "POST"),
        ("OPTIONS", "/", 405, "GET"),
        ("DELETE", "/model", 405, "GET"),
        ("POST", "/metrics", 405, "GET"),
        ("GET", "/admin/nothing", 404, None),
        ("POST", "/v2/health/live", 405, "GET"),
        ("BREW", "/", 405, "GET"),
    ],
)
def test_wrong_paths_and_methods(client: TestClient, method: str, path: str, status: int, allowed: str | None) -> None:
    answer = client.request(method, path)
    assert_problem(answer, status)
    assert answer.headers.get("Allow") == allowed


def test_head_has_no_body(client: TestClient) -> None:
    answer = client.head("/model")
    assert answer.status_code == 200 and answer.content == b""
    assert client.head("/predict").status_code == 405


# The document


def test_the_document_describes_every_path_with_examples(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    assert set(document["paths"]) >= {
        "/predict",
        "/explain",
        "/score",
        "/model",
        "/metrics",
        "/admin/reload",
        "/admin/promote",
        "/v2",
    }
    text = json.dumps(document)
    for reference in set(re.findall(r'"#/components/schemas/([^"]+)"', text)):
        assert reference in document["components"]["schemas"]
    assert "HTTPValidationError" not in text  # every error is a problem
    for path, methods in document["paths"].items():
        for method, described in methods.items():
            assert described["summary"] and described["description"], path
            assert (described["security"] == []) == path.startswith("/v2/health/")
            if method == "post" and not path.startswith("/admin/"):
                kinds = described["requestBody"]["content"]
                assert "example" in json.dumps(kinds.get("application/json", {"example": ""})), path
            for status, answer in described["responses"].items():
                kinds = set(answer["content"])
                assert status == "200" or kinds == {"application/problem+json"}, (path, status)


def test_errors_of_images_name_no_file(client: TestClient) -> None:
    """Pillow's messages name objects in memory."""
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"):
        image = encoded((50, 40), kind)
        for end in range(0, len(image), max(1, len(image) // 25)):
            answer = client.post("/predict", content=image[:end])
            assert answer.status_code in (200, 422)
            assert_silent(answer.text)
            assert "object at" not in answer.text


def test_errors_of_images_say_what_is_wrong(client: TestClient) -> None:
    problem = assert_problem(client.post("/predict", content=NO_IMAGE), 422, "begins with")
    assert problem["title"] == "Not an image"
