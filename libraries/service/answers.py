"""The JSON that the service answers, and its schemas for OpenAPI."""

from typing import Annotated, Any

from pydantic import BaseModel, Field

from libraries.base.errors import ImageError
from libraries.classifier.bundle import Prediction
from libraries.service.model import LoadedModel
from libraries.service.problems import MEDIA_TYPE, image_problem
from libraries.service.service import Explanation, TimedResult

Responses = dict[int | str, dict[str, Any]]
Probability = Annotated[float, Field(ge=0, le=1, examples=[0.93])]


_DETAIL = "is not a whole JPEG, PNG, WEBP, GIF, BMP, TIFF image (begins with b'hello')"
_PREDICTIONS = [
    {
        "name": "cell.png",
        "label": "defective",
        "probability": 0.93,
        "probabilities": [{"label": "defective", "probability": 0.93}, {"label": "functional", "probability": 0.07}],
        "unknown": False,
        "set": ["defective"],
    },
    {
        "name": "notes.txt",
        "error": {"type": "about:blank", "title": "Not an image", "status": 422, "detail": _DETAIL},
    },
]


class ProblemAnswer(BaseModel):
    """An error in the form of RFC 9457; `error` repeats the detail."""

    type: str = Field(examples=["about:blank"])
    title: str = Field(examples=["Not an image"])
    status: int = Field(examples=[422])
    detail: str = Field(examples=[_DETAIL])
    error: str | None = Field(None, examples=[_DETAIL])


class ModelName(BaseModel):
    """The model that answered."""

    name: str = Field(examples=["solarCells_svm"])
    version: str = Field(examples=["3f2a9c0d11ee"])


class LabelProbability(BaseModel):
    """A class and its calibrated probability."""

    label: str = Field(examples=["defective"])
    probability: Probability


class ImageAnswer(BaseModel):
    """The label of an image, and the probabilities of all; or why the image could not be used."""

    name: str | None = Field(None, examples=["cell.png"])
    label: str | None = Field(None, examples=["defective"])
    probability: Probability | None = None
    probabilities: list[LabelProbability] | None = None
    unknown: bool | None = Field(None, description="whether it is like none of the classes; absent: nobody can tell")
    set: list[str] | None = Field(
        None, examples=[["defective"]], description="labels of which one is right as often as GET /model promises"
    )
    ask: bool | None = Field(None, description="whether asking a person costs less; absent: there are no such costs")
    error: ProblemAnswer | None = None


class Milliseconds(BaseModel):
    """Time spent on the slowest image, by stage, and in total."""

    queue: float = Field(examples=[0.3])
    decode: float = Field(examples=[2.1])
    compute: float = Field(examples=[9.8])
    total: float = Field(examples=[12.9])


class PredictAnswer(BaseModel):
    """One answer per image, in the order they were sent."""

    model: ModelName
    predictions: list[ImageAnswer] = Field(examples=[_PREDICTIONS])
    milliseconds: Milliseconds


class FeedbackAnswer(BaseModel):
    """What the model says of an image whose right label was sent."""

    model: ModelName
    label: str = Field(examples=["defective"])
    is_right: bool


class Area(BaseModel):
    """The edges of the heatmap, in fractions of the upright image's width and height."""

    left: float = Field(examples=[0.0])
    top: float = Field(examples=[-0.25])
    right: float = Field(examples=[1.0])
    bottom: float = Field(examples=[1.25])


class ExplainAnswer(BaseModel):
    """The evidence in the image for a label (positive) and against it (negative)."""

    model: ModelName
    label: str = Field(examples=["defective"])
    probability: Probability
    width: int = Field(examples=[300], description="of the upright image, in pixels")
    height: int = Field(examples=[300])
    heatmap: list[list[float]] = Field(examples=[[[0.1, -0.3], [1.2, 0.4]]], description="h x w, from the top left")
    area: Area
    method: str = Field(examples=["class activation map"])
    milliseconds: dict[str, float] = Field(examples=[{"total": 24.1}])


class SimilarImage(BaseModel):
    """A training image."""

    label: str = Field(examples=["defective"])
    similarity: float = Field(examples=[0.83], description="cosine of the embeddings")
    picture: str = Field(examples=["data:image/jpeg;base64,/9j/4AAQ..."], description="small, for a page")


class SimilarAnswer(BaseModel):
    """The training images that are most like an image, the most similar first."""

    model: ModelName
    similar: list[SimilarImage]


class ReloadAnswer(BaseModel):
    """The model in service from now on."""

    model: ModelName


class ScoreRequest(BaseModel):
    """A request as in the tutorial."""

    input_df: list[dict[str, str]] = Field(examples=[[{"image base64 string": "iVBORw0KGgoAAAANSUhEUgAAAAEAAA..."}]])


class ScoreAnswer(BaseModel):
    """An answer as in the tutorial; several images give a list of these or of errors."""

    label: str = Field(examples=["defective"])
    score: Probability
    allScores: list[float] = Field(examples=[[0.93, 0.07]])  # noqa: N815 (the tutorial's name)
    Id2Labels: dict[str, str] = Field(examples=[{"0": "defective", "1": "functional"}])
    executionTimeMs: float = Field(examples=[12.9])  # noqa: N815
    unknown: bool | None = Field(None, description="not of the tutorial, as `set` and `ask`: see /predict")
    set: list[str] | None = None
    ask: bool | None = None


class ScoreError(BaseModel):
    """Why one of several images could not be used."""

    error: ProblemAnswer


def image_answer(name: str | None, result: Prediction | ImageError, labels: list[str]) -> dict[str, Any]:
    """The JSON of an ImageAnswer."""
    if isinstance(result, ImageError):
        return {"name": name, "error": image_problem(result).to_json()}
    named = zip(labels, result.probabilities.tolist(), strict=True)
    probabilities = [
        {"label": label, "probability": probability}
        for label, probability in sorted(named, key=lambda pair: -pair[1])  # of equal ones the first, as in argmax
    ]
    probability = float(result.probabilities[labels.index(result.label)])
    answer = {"name": name, "label": result.label, "probability": probability}
    return {**answer, "probabilities": probabilities, **result.trusted()}


def explanation(loaded: LoadedModel, found: Explanation, *, seconds: float) -> dict[str, Any]:
    """The JSON of an ExplainAnswer."""
    label = found.heatmap.label
    height, width = found.size
    return {
        "model": loaded.identity,
        "label": label,
        "probability": float(found.prediction.probabilities[loaded.classifier.labels.index(label)]),
        "width": width,
        "height": height,
        "heatmap": [[round(value, 4) for value in row] for row in found.heatmap.values.tolist()],
        "area": dict(zip(("left", "top", "right", "bottom"), found.heatmap.area, strict=True)),
        "method": found.heatmap.method,
        "milliseconds": {"total": round(1000 * seconds, 3)},
    }


def milliseconds(results: list[TimedResult], total: float) -> dict[str, float]:
    """The JSON of a Milliseconds, from seconds."""
    slowest = max(results, key=lambda r: r.waited + r.decoded + r.computed)
    seconds = {"queue": slowest.waited, "decode": slowest.decoded, "compute": slowest.computed, "total": total}
    return {stage: round(1000 * value, 3) for stage, value in seconds.items()}


def content(media_type: str, schema: dict[str, Any]) -> Responses:
    """For OpenAPI: a response that is not JSON."""
    return {200: {"content": {media_type: {"schema": schema}}}}


def problems(*statuses: int) -> Responses:
    """For OpenAPI: the errors of a path."""
    return {
        status: {"description": _MEANING[status], "content": {MEDIA_TYPE: {"schema": _PROBLEM_SCHEMA}}}
        for status in statuses
    }


_PROBLEM_SCHEMA = {"$ref": "#/components/schemas/ProblemAnswer"}
_MEANING = {
    400: "Malformed",
    401: "The key is missing or wrong",
    404: "Not found",
    405: "Method not allowed",
    408: "The request did not arrive in time",
    409: "Not possible now",
    413: "Too many bytes, images or pixels",
    415: "Unsupported media type",
    422: "No usable image",
    429: "Too many requests from one address: see Retry-After",
    503: "Busy, or not ready yet: see Retry-After",
    504: "Processing took too long",
}
