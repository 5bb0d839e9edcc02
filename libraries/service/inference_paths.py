"""The paths of the Open Inference Protocol."""

import json
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import Response

from libraries.service import answers, openinference
from libraries.service.model import LoadedModel
from libraries.service.problems import Problem
from libraries.service.service import Service

_BINARY = {"type": "string", "format": "binary"}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"type": "object"}, "example": openinference.EXAMPLE},
            "application/octet-stream": {"schema": _BINARY},
        },
    }
}
_NAMED = answers.problems(401, 404, 429, 503)
_INFERRING = {
    **answers.content("application/octet-stream", _BINARY),
    **answers.problems(400, 401, 404, 408, 413, 415, 422, 429, 503, 504),
}


def add_paths(app: FastAPI, service: Service) -> None:
    """Add everything below /v2 to the application."""

    def named(name: str, version: str | None = None) -> LoadedModel:
        loaded = service.model.current
        if name != loaded.name or version not in (None, loaded.version):
            raise Problem(404, f"there is no such model: here is {loaded.name}, version {loaded.version}")
        return loaded

    @app.get("/v2", responses=answers.problems(401, 429))
    async def server() -> dict[str, Any]:
        """The server and what it supports."""
        return openinference.SERVER

    @app.get("/v2/health/live")
    async def live() -> dict[str, bool]:
        """Whether the service runs."""
        return {"live": True}

    @app.get("/v2/health/ready", responses=answers.problems(503))
    async def ready() -> dict[str, bool]:
        """Whether it can answer: the bundle is loaded and warm, and there are threads to compute."""
        return {"ready": bool(service.check_ready())}

    @app.get("/v2/models/{name}", responses=_NAMED)
    @app.get("/v2/models/{name}/versions/{version}", responses=_NAMED)
    async def metadata(name: str, version: str | None = None) -> dict[str, Any]:
        """The model's inputs and outputs."""
        return openinference.metadata(named(name, version))

    @app.get("/v2/models/{name}/ready", responses=_NAMED)
    @app.get("/v2/models/{name}/versions/{version}/ready", responses=_NAMED)
    async def model_ready(name: str, version: str | None = None) -> dict[str, Any]:
        """Whether this model can answer."""
        return {"name": named(name, version).name, "ready": bool(service.check_ready())}

    @app.post("/v2/models/{name}/infer", responses=_INFERRING, openapi_extra=_BODY)
    @app.post("/v2/models/{name}/versions/{version}/infer", responses=_INFERRING, openapi_extra=_BODY)
    async def infer(request: Request, name: str, version: str | None = None) -> Response:
        """Classify images: input `files` (BYTES) or `images` (UINT8, RGB)."""
        named(name, version)
        async with service.bodies.read(request) as body:
            length = request.headers.get(openinference.HEADER_LENGTH)
            asked = await service.parse(
                lambda body: openinference.understand(body, length, service.limits),
                body,
                memory=lambda body: openinference.memory_to_understand(body, length),
            )
            del body  # what is needed of it, the images hold
            loaded, outcomes = await service.classify(asked.images)
        answered, parts = openinference.answer(asked, loaded, [outcome.result for outcome in outcomes])
        content = json.dumps(answered).encode()
        if not parts:
            return Response(content, media_type="application/json")
        headers = {openinference.HEADER_LENGTH: str(len(content))}
        return Response(b"".join([content, *parts]), media_type="application/octet-stream", headers=headers)
