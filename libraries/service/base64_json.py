"""Requests and answers as in the tutorial: base64 images in JSON, used by /score, Azure ML and MLflow.

{"input_df": [{"image base64 string": "..."}]} → {"label", "score", "allScores", "Id2Labels", "executionTimeMs"}
"""

import base64
import binascii
import json
import time
from collections.abc import Iterable, Sequence
from typing import Any

from libraries.base.arrays import Pixels
from libraries.base.errors import ImageError, InputError
from libraries.classifier.bundle import Classifier, Prediction
from libraries.data.decoding import MAX_PIXELS
from libraries.data.images import load_bytes
from libraries.service.bodies import check_json
from libraries.service.multipart import Body
from libraries.service.problems import Problem, image_problem

TABLE, COLUMN = "input_df", "image base64 string"
EXAMPLE = {TABLE: [{COLUMN: "iVBORw0KGgo..."}]}
_MOST_VALUES = 10_000  # in a request; also the most keys
_TO_STANDARD = bytes.maketrans(b"-_", b"+/")
_PERCENT_ENCODED = {"%2B": "+", "%2F": "/", "%3D": "=", "%0A": "", "%0D": "", "%20": ""}  # all that base64 may have
_EXPECTED = f'expected {{"{TABLE}": [{{"{COLUMN}": "..."}}]}}'


def limited_images(body: Body) -> list[bytes | ImageError]:
    """Like `images`, for requests from strangers: limits the number of values.

    Raises:
        InputError: not JSON of the expected form.
        Problem: 413 too many values.
    """
    check_json(body, most=_MOST_VALUES, most_keys=_MOST_VALUES)
    return images(body)


def images(body: Body | str) -> list[bytes | ImageError]:
    """The image files in a request, in order; text that is not base64 gives an error.

    Raises:
        InputError: not JSON of the expected form.
    """
    if not body:  # Azure ML's server also passes bodies of other types as empty
        raise InputError(f"the request is empty, or not application/json: {_EXPECTED}")
    try:
        rows = json.loads(body)[TABLE]
    except (ValueError, RecursionError) as error:
        raise InputError(f"the request is not JSON: {_EXPECTED}") from error
    except (KeyError, TypeError, IndexError) as error:
        raise InputError(f"the request has no {TABLE}: {_EXPECTED}") from error
    if not isinstance(rows, list) or not rows or not all(isinstance(r, dict) and COLUMN in r for r in rows):
        raise InputError(f"{TABLE} is not a list of images: {_EXPECTED}")
    return [from_base64(row[COLUMN]) for row in rows]


def from_base64(text: Any) -> bytes | ImageError:
    """The bytes of an image file.

    Accepts both alphabets of RFC 4648 (also `-_`, for URLs), with or without padding, with line ends, and after a
    prefix such as `data:image/png;base64,`, which allows percent-encoded characters.
    """
    if not isinstance(text, str):
        return ImageError("is not text: expected an image file as base64")
    if text[:5].lower() == "data:":
        text = text.partition(",")[2]
        for code, character in _PERCENT_ENCODED.items():
            text = text.replace(code, character).replace(code.lower(), character)
    try:
        digits = text.rstrip("= \t\r\n").encode("ascii").translate(_TO_STANDARD, b" \t\r\n")
        digits += b"=" * (-len(digits) % 4)
        return base64.b64decode(digits, validate=True)
    except (binascii.Error, ValueError) as error:  # UnicodeEncodeError is one
        return ImageError(f"is not base64: {error if isinstance(error, binascii.Error) else 'it is not ASCII'}")


def image_answer(prediction: Prediction, labels: Sequence[str], *, milliseconds: float) -> dict[str, Any]:
    """The answer for one image; `score` and `allScores` are calibrated probabilities."""
    return {
        "label": prediction.label,
        "score": float(prediction.probabilities[labels.index(prediction.label)]),
        "allScores": [float(p) for p in prediction.probabilities],
        "Id2Labels": {str(i): label for i, label in enumerate(labels)},
        "executionTimeMs": round(milliseconds, 3),
        **prediction.trusted(),
    }


def request_answer(
    results: Sequence[Prediction | ImageError], labels: Sequence[str], *, milliseconds: float
) -> dict[str, Any] | list[dict[str, Any]]:
    """The answer to a request: that for its only image, or a list, in which a bad image gives an error.

    Raises:
        Problem: 413 or 422 the only image cannot be used.
    """
    if len(results) > 1:
        return image_answers(results, labels, milliseconds=milliseconds)
    if isinstance(results[0], ImageError):
        raise image_problem(results[0])
    return image_answer(results[0], labels, milliseconds=milliseconds)


def image_answers(
    results: Sequence[Prediction | ImageError], labels: Sequence[str], *, milliseconds: float
) -> list[dict[str, Any]]:
    """The answer or the error for every image."""
    return [
        {"error": image_problem(result).to_json()}
        if isinstance(result, ImageError)
        else image_answer(result, labels, milliseconds=milliseconds)
        for result in results
    ]


def respond(body: bytes | str, classifier: Classifier, *, max_pixels: int) -> dict[str, Any] | list[dict[str, Any]]:
    """Answer a request, for hosts that have an HTTP server of their own.

    Args:
        body: of the request.
        max_pixels: larger images are refused.

    Raises:
        Problem: 400, 413 or 422, as the service would answer.
    """
    begun = time.perf_counter()
    try:
        files = images(body)
    except InputError as error:
        raise Problem(400, str(error)) from error
    results = classify_files(files, classifier, max_pixels=max_pixels)
    return request_answer(results, classifier.labels, milliseconds=1000 * (time.perf_counter() - begun))


def classify_files(
    files: Iterable[bytes | ImageError], classifier: Classifier, *, max_pixels: int = MAX_PIXELS
) -> list[Prediction | ImageError]:
    """The prediction for every image file, in order; a bad file gives its error."""

    def fitted(file: bytes | ImageError) -> Pixels:
        if isinstance(file, ImageError):
            raise file
        return load_bytes(file, classifier.rule, max_pixels=max_pixels)

    return [result for _, result in classifier.predict_stream(files, fitted)]
