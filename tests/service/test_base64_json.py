"""The tutorial's requests and answers, without HTTP."""

import base64
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest

from libraries.base.errors import ImageError, InputError
from libraries.classifier.bundle import Classifier, Prediction
from libraries.data.images import load_bytes
from libraries.service.base64_json import COLUMN, TABLE, from_base64, image_answer, images, request_answer, respond
from libraries.service.problems import Problem

NAMES = ["blue", "red"]
RED = Prediction("red", np.array([0.25, 0.75], np.float32), np.zeros(2, np.float32), np.zeros(4, np.float32))
ENCODED = base64.b64encode(b"an image").decode()  # with padding


@pytest.fixture(scope="module")
def classifier(bundle: Path) -> Classifier:
    return Classifier(bundle)


def request(*texts: Any) -> str:
    return json.dumps({TABLE: [{COLUMN: text} for text in texts]})


def test_images_are_read_in_order() -> None:
    assert images(request(ENCODED, base64.b64encode(b"another").decode())) == [b"an image", b"another"]
    assert images(request(ENCODED).encode()) == [b"an image"]


@pytest.mark.parametrize(
    "text",
    [
        *(f"data:image/png;base64,{ENCODED}", f"{ENCODED[:4]}\r\n{ENCODED[4:]}\n", f" {ENCODED}\t"),
        *(ENCODED.rstrip("="), f"DATA:;base64,{ENCODED.rstrip('=')}\n", f"data:image/png;base64,{quote(ENCODED)}"),
    ],
)
def test_base64_as_written_by_browsers_and_mail_programs(text: str) -> None:
    assert from_base64(text) == b"an image"


@pytest.mark.parametrize("data", [b"\xfb\xff\xfe", b"\xfb\xff", b"\xfb", b"", bytes(range(256))])
def test_base64_of_either_alphabet_with_and_without_padding(data: bytes) -> None:
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        text = encode(data).decode()
        assert from_base64(text) == from_base64(text.rstrip("=")) == data


@pytest.mark.parametrize(
    "text", ["#", "a", "a=bc", "abcde", "Straße", 7, None, [], {}, True, "data:image/png;base64,#"]
)
def test_text_that_is_not_base64_gives_its_own_error(text: object) -> None:
    assert isinstance(from_base64(text), ImageError)
    good, bad = images(request(ENCODED, text))
    assert good == b"an image"
    assert isinstance(bad, ImageError)


@pytest.mark.parametrize(
    "body",
    [
        *("", "{", "[]", "7", "null", '"text"', "{}", '{"input_df": null}', '{"input_df": []}', '{"input_df": {}}'),
        *('{"input_df": "text"}', '{"input_df": [7]}', '{"input_df": [{}]}', '{"input_df": [[]]}'),
        '{"input_df": [{"image": "x"}]}',
        '{"input_df": [{"image base64 string": "aGVsbG8="}, {}]}',
        "[" * 100_000,
        '{"input_df":' * 100_000,
        b"\xff\xfe\x00",
        "\x00",
    ],
    ids=lambda body: repr(body[:40]),
)
def test_other_requests_are_refused_with_what_is_expected(body: bytes | str) -> None:
    with pytest.raises(InputError, match=r'expected \{"input_df": \[\{"image base64 string": "\.\.\."\}\]\}$'):
        images(body)


def test_image_answer_has_what_the_tutorials_callers_read() -> None:
    assert image_answer(RED, NAMES, milliseconds=12.3456) == {
        "label": "red",
        "score": 0.75,
        "allScores": [0.25, 0.75],
        "Id2Labels": {"0": "blue", "1": "red"},
        "executionTimeMs": 12.346,
    }


def test_answers_to_one_image_and_to_several() -> None:
    row = image_answer(RED, NAMES, milliseconds=1.0)
    bad = ImageError("is empty (0 bytes)")
    refused = {"type": "about:blank", "title": "Not an image", "status": 422, "detail": bad.reason}
    assert request_answer([RED], NAMES, milliseconds=1.0) == row
    assert request_answer([RED, bad, RED], NAMES, milliseconds=1.0) == [row, {"error": refused}, row]
    with pytest.raises(Problem) as caught:
        request_answer([bad], NAMES, milliseconds=1.0)
    assert caught.value.to_json() == refused


def test_respond_answers_as_the_bundle_does(classifier: Classifier, pictures: Path) -> None:
    paths = [path for label in sorted(pictures.iterdir()) for path in sorted(label.iterdir())[:2]]
    encoded = [base64.b64encode(path.read_bytes()).decode() for path in paths]
    rows = respond(request(*encoded), classifier, max_pixels=10**6)
    assert isinstance(rows, list)
    for path, row in zip(paths, rows, strict=True):
        expected = classifier.classify(load_bytes(path.read_bytes(), classifier.rule))
        assert row["label"] == expected.label
        np.testing.assert_array_equal(np.array(row["allScores"], np.float32), expected.probabilities)
        assert row["Id2Labels"] == {str(i): label for i, label in enumerate(classifier.labels)}
    alone = respond(request(encoded[0]), classifier, max_pixels=10**6)
    assert isinstance(alone, dict)
    assert alone["allScores"] == rows[0]["allScores"]
    assert alone["executionTimeMs"] > 0


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ("xx", 400, "is not JSON"),
        (request("aGVsbG8="), 422, "begins with b'hello'"),
        (request("#"), 422, "is not base64"),
        (request(""), 422, "is empty"),
    ],
)
def test_respond_says_what_the_caller_did_wrong(classifier: Classifier, body: str, status: int, said: str) -> None:
    with pytest.raises(Problem, match=said) as caught:
        respond(body, classifier, max_pixels=10**6)
    assert caught.value.status == status


def test_respond_refuses_large_images_and_continues(classifier: Classifier, pictures: Path) -> None:
    image = base64.b64encode((pictures / "blobs" / "01.jpg").read_bytes()).decode()
    with pytest.raises(Problem, match="pixels, more than the 100 allowed") as caught:
        respond(request(image), classifier, max_pixels=100)
    assert caught.value.status == 413
    rows = respond(request(image, image), classifier, max_pixels=100)
    assert [row["error"]["status"] for row in rows] == [413, 413]
