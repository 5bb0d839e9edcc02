"""Errors as the service answers with them: JSON problems (RFC 9457), one line for people, nothing about the host."""

import json
import traceback
from http import HTTPStatus

from starlette.responses import Response

from libraries.base.errors import ImageError, ImageTooLarge

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):
    """A request that is answered with an error.

    Attributes:
        status: the HTTP status.
        title: the kind of problem, in the same words each time; by default the phrase of the status.
        detail: what is wrong with this request, and what to do.
        retry_after: seconds after which it is worth trying again.
    """

    def __init__(self, status: int, detail: str, *, title: str = "", retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.retry_after = status, detail, retry_after
        self.title = title or HTTPStatus(status).phrase

    def to_json(self) -> dict[str, object]:
        """The problem's members, as RFC 9457 names them."""
        return {"type": "about:blank", "title": self.title, "status": self.status, "detail": self.detail}


def image_problem(error: ImageError) -> Problem:
    """The problem of an image that cannot be used."""
    if isinstance(error, ImageTooLarge):
        return Problem(413, error.limited_by("serve_maxMegapixels").reason, title="Image too large")
    return Problem(422, error.reason, title="Not an image")


def clear_traceback(error: BaseException | None) -> None:
    """Free the bodies and images that the frames of an error hold; otherwise only the garbage collector frees them."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def response(problem: Problem, *, headers: dict[str, str] | None = None) -> Response:
    """The problem as an HTTP response. Clients of the Open Inference Protocol look for the member `error`."""
    headers = dict(headers or {})
    if problem.retry_after is not None:
        headers["Retry-After"] = str(problem.retry_after)
    if problem.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    content = json.dumps({**problem.to_json(), "error": problem.detail})
    return Response(content, status_code=problem.status, media_type=MEDIA_TYPE, headers=headers)
