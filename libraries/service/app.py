"""The REST service: its paths, with what they take and what they answer."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from fastapi.staticfiles import StaticFiles
from fastapi_offline import FastAPIOffline
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from libraries.base.errors import ImageError, InputError
from libraries.service import answers, base64_json, openinference
from libraries.service.bodies import Upload, memory_to_parse_json, uploads
from libraries.service.gate import COMPUTING, OPEN, Access, Gate
from libraries.service.multipart import Body
from libraries.service.problems import Problem, clear_traceback, image_problem, response
from libraries.service.service import Service

_PAGE_POLICY = "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'"

_IMAGE = {"schema": {"type": "string", "format": "binary"}}
_FORM = {"type": "object", "properties": {"images": {"type": "array", "items": {"type": "string", "format": "binary"}}}}
_IMAGES_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "image/jpeg": _IMAGE,
            "image/png": _IMAGE,
            "application/octet-stream": _IMAGE,
            "multipart/form-data": {"schema": _FORM},
        },
    }
}
_SCORE_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": answers.ScoreRequest.model_json_schema()}},
    }
}
_encode = json.JSONEncoder(ensure_ascii=False).encode
_COMPUTING_PROBLEMS = answers.problems(400, 401, 408, 413, 415, 422, 429, 503, 504)


def create_app(service: Service, *, page: Path, access: Access | None = None) -> FastAPI:
    """The application, ready for an ASGI server; the bundle is loaded in the background once it runs.

    Args:
        page: folder with the web page: index.html, app.js, style.css.
        access: keys, rate, hosts, proxies; by default everyone may call the service.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(service.start())
        yield
        loading.cancel()
        service.close()

    app = FastAPIOffline(
        redoc_url=None,
        title="Image classification",
        description="Classifies images with a trained bundle.",
        version="1",
        lifespan=lifespan,
        openapi_url="/openapi.json",
    )
    access = access or Access()
    router = APIRouter(route_class=_DirectRoute)
    _add_predict(router, service)
    _add_explain(app, service)
    _add_similar(app, service)
    _add_score(router, service)
    if access.feedback_key is not None:
        _add_feedback(app, service)
    _add_operations(app, service, access)
    app.include_router(router)
    openinference.add_paths(app, service)
    _add_page(app, page)
    _add_error_handlers(app)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    app.add_middleware(HeadAndRedirects)
    app.add_middleware(Gate, service=service, access=access)  # added last, so it runs first
    app.state.service = service
    return app


class _DirectRoute(APIRoute):
    """A path whose function takes the request as it is.

    FastAPI's parsing of arguments would take a seventh of the event loop's time per image.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The function itself."""
        handler: Callable[[Request], Coroutine[Any, Any, Response]] = self.endpoint
        return handler


def _add_predict(router: APIRouter, service: Service) -> None:
    @router.post(
        "/predict", response_model=answers.PredictAnswer, responses=_COMPUTING_PROBLEMS, openapi_extra=_IMAGES_BODY
    )
    async def predict(request: Request) -> Response:
        """Classify an image (its bytes) or several (a multipart form, in which a bad image spoils no other)."""
        begun = time.perf_counter()
        async with service.bodies.read(request) as body:
            sent = await _uploads(service, request, body, most=service.limits.images)
            loaded, results = await service.classify([upload.data for upload in sent])
        only = results[0].result
        if isinstance(only, ImageError) and sent[0].is_whole_body:
            raise image_problem(only)
        labels = loaded.classifier.labels
        return _json(
            {
                "model": loaded.identity,
                "predictions": [
                    answers.image_answer(upload.name, timed.result, labels)
                    for upload, timed in zip(sent, results, strict=True)
                ],
                "milliseconds": answers.milliseconds(results, time.perf_counter() - begun),
            }
        )


def _add_explain(app: FastAPI, service: Service) -> None:
    @app.post(
        "/explain", response_model=answers.ExplainAnswer, responses=_COMPUTING_PROBLEMS, openapi_extra=_IMAGES_BODY
    )
    async def explain(request: Request, label: str | None = None) -> Response:
        """Find the evidence in an image for a label, by default the predicted one."""
        begun = time.perf_counter()
        async with service.bodies.read(request) as body:
            (sent,) = await _uploads(service, request, body, most=1)
            loaded, explanation = await service.explain(sent.data, label)
        return _json(answers.explanation(loaded, explanation, seconds=time.perf_counter() - begun))


def _add_similar(app: FastAPI, service: Service) -> None:
    problems = {**_COMPUTING_PROBLEMS, **answers.problems(404)}

    @app.post("/similar", response_model=answers.SimilarAnswer, responses=problems, openapi_extra=_IMAGES_BODY)
    async def similar(request: Request) -> Response:
        """Find the training images that are most like an image, where these may be shown."""
        async with service.bodies.read(request) as body:
            (sent,) = await _uploads(service, request, body, most=1)
            loaded, found = await service.find_similar(sent.data)
        return _json({"model": loaded.identity, "similar": found})


def _add_score(router: APIRouter, service: Service) -> None:
    @router.post(
        "/score",
        response_model=answers.ScoreAnswer | list[answers.ScoreAnswer | answers.ScoreError],
        responses=_COMPUTING_PROBLEMS,
        openapi_extra=_SCORE_BODY,
    )
    async def score(request: Request) -> Response:
        """Classify images in base64, as the tutorial's web service did."""
        begun = time.perf_counter()
        async with service.bodies.read(request) as body:
            try:
                images = await service.parse(base64_json.limited_images, body, memory=memory_to_parse_json)
            except InputError as error:
                raise Problem(400, str(error)) from error
            del body  # the images are copies
            if len(images) > service.limits.images:
                raise Problem(413, f"the request holds more than the {service.limits.images} images allowed")
            loaded, timed = await service.classify(images)
        results = [each.result for each in timed]
        milliseconds = 1000 * (time.perf_counter() - begun)
        return _json(base64_json.request_answer(results, loaded.classifier.labels, milliseconds=milliseconds))


def _add_feedback(app: FastAPI, service: Service) -> None:
    @app.post(
        "/feedback", response_model=answers.FeedbackAnswer, responses=_COMPUTING_PROBLEMS, openapi_extra=_IMAGES_BODY
    )
    async def feedback(request: Request, label: str) -> Response:
        """Send an image with its right label, to be looked at, and learnt from later."""
        async with service.bodies.read(request) as body:
            (sent,) = await _uploads(service, request, body, most=1)
            loaded, (timed,) = await service.classify([sent.data], is_usual=False)
            if label not in loaded.classifier.labels:
                raise Problem(400, f"there is no such label: choose from {', '.join(loaded.classifier.labels)}")
            if isinstance(timed.result, ImageError):
                raise image_problem(timed.result)
            await service.take_feedback(sent.data, label)
        return _json({"model": loaded.identity, "label": timed.result.label, "is_right": timed.result.label == label})


def _add_operations(app: FastAPI, service: Service, access: Access) -> None:
    """Add the paths for those who run the service."""

    @app.get("/model", responses=answers.problems(401, 429, 503))
    async def model() -> dict[str, Any]:
        """The model in service: labels, accuracy on its test images, versions, what it was made from."""
        limits = service.limits
        accepted = {"megabytes": limits.megabytes, "images": limits.images, "megapixels": limits.megapixels}
        keeps = "none" if service.keeper is None else service.keeper.keep.which
        previous = service.model.previous
        return {
            **service.model.current.describe(),
            "candidate": None if service.shadow is None else service.shadow.describe(),
            "previous": None if previous is None else previous.identity,
            "similar": service.similar is not None,
            "keeps": keeps,
            "limits": accepted,
        }

    @app.post("/admin/reload", response_model=answers.ReloadAnswer, responses=answers.problems(401, 404, 422, 429))
    async def reload() -> Response:
        """Load the bundle and the keys again; if one is refused, the present one stays in use."""
        are_keys_accepted = await access.reload()
        if not await service.reload():
            raise Problem(422, "the bundle is refused: the service's log says why", title="Bundle refused")
        if not are_keys_accepted:
            raise Problem(422, "the keys are refused: the service's log says why", title="Keys refused")
        return _json({"model": service.model.current.identity})

    @app.post("/admin/promote", response_model=answers.ReloadAnswer, responses=answers.problems(401, 404, 409, 429))
    async def promote() -> Response:
        """Put the candidate, whose answers are only compared, into service."""
        return _json({"model": (await service.promote()).identity})

    @app.post("/admin/rollback", response_model=answers.ReloadAnswer, responses=answers.problems(401, 404, 409, 429))
    async def rollback() -> Response:
        """Put the model that was in service before into service again."""
        return _json({"model": (await service.roll_back()).identity})

    text = answers.content("text/plain", {"type": "string"})

    @app.get("/metrics", response_class=Response, responses={**text, **answers.problems(401, 429)})
    async def metrics() -> Response:
        """Counters for Prometheus."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")


async def _uploads(service: Service, request: Request, body: Body, *, most: int) -> list[Upload]:
    """The images of a body."""
    content_type = request.headers.get("content-type", "application/octet-stream")
    if not content_type.lower().startswith("multipart/"):
        return uploads(body, content_type, most=most)
    return await service.parse(partial(uploads, content_type=content_type, most=most), body, memory=lambda body: 0)


def _json(value: Any) -> Response:
    return Response(_encode(value), media_type="application/json")


class FreshFiles(StaticFiles):
    """Files that browsers revalidate each time, so that they never mix files of two versions."""

    def file_response(self, *arguments: Any, **options: Any) -> Response:
        """The file, or 304 if it has not changed."""
        response = super().file_response(*arguments, **options)
        response.headers["Cache-Control"] = "no-cache"
        return response


def _add_page(app: FastAPI, page: Path) -> None:
    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return FileResponse(page / "index.html", headers={"Content-Security-Policy": _PAGE_POLICY})

    app.mount("/static", FreshFiles(directory=page), name="page")


def _add_error_handlers(app: FastAPI) -> None:
    """Answer every error with a JSON problem."""

    async def handle(request: Request, error: Exception) -> Response:
        clear_traceback(error)
        if isinstance(error, Problem):
            return response(error)
        if isinstance(error, HTTPException):
            return response(Problem(error.status_code, str(error.detail)), headers=dict(error.headers or {}))
        if isinstance(error, RequestValidationError):
            first = error.errors()[0]
            return response(Problem(422, f"{first['loc'][-1]}: {first['msg']}"))
        return response(Problem(500, "the service failed: its log says more"))

    for kind in (Problem, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, handle)


def _openapi(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, with the key and the schema of problems."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        components = document.setdefault("components", {})
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        schemas = components.setdefault("schemas", {})
        schemas["ProblemAnswer"] = answers.ProblemAnswer.model_json_schema()
        for name in ("HTTPValidationError", "ValidationError"):  # never answered
            schemas.pop(name, None)
        for path, methods in document["paths"].items():
            for method in methods.values():
                method["security"] = [] if path in OPEN else [{"key": []}]
                method["tags"] = [_tag(path)]
                if "HTTPValidationError" in str(method["responses"].get("422")):
                    del method["responses"]["422"]
        app.openapi_schema = document
    return app.openapi_schema


def _tag(path: str) -> str:
    """The heading under which the documentation shows a path."""
    if path.startswith("/v2"):
        return "Open Inference Protocol"
    return "Classify" if path in {*COMPUTING, "/feedback"} else "Operate"


class HeadAndRedirects:
    """ASGI middleware: answers HEAD like GET but without a body, and makes redirects relative."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        is_head = scope["method"] == "HEAD"

        async def adapt(message: Message) -> None:
            if message["type"] == "http.response.start":
                _make_relative(MutableHeaders(raw=message["headers"]), scope)
            elif is_head:
                message = {**message, "body": b""}
            await send(message)

        await self.app({**scope, "method": "GET"} if is_head else scope, receive, adapt)


def _make_relative(headers: MutableHeaders, scope: Scope) -> None:
    """Make a redirect that adds or removes a `/` at the end of the path relative, so that it works behind any proxy.

    Callers resolve it against the URL that they asked for, whatever name and path they know the service by.
    """
    location = headers.get("location")
    if location is None:
        return
    target = urlsplit(location)
    asked, name = scope["path"], target.path.rstrip("/").rpartition("/")[2]
    if not name or target.path.rstrip("/") != asked.rstrip("/"):
        return
    up = "../" * (len(asked) - len(asked.rstrip("/")))
    end = "/" if target.path.endswith("/") else ""
    headers["location"] = f"{up or './'}{name}{end}{'?' if target.query else ''}{target.query}"
