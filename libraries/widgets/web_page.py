"""The viewer of a data set's images as a web page, for whoever has no Jupyter; everything but the page needs a key.

The page talks to a viewer of its own: it sends actions, and gets the state after each; pictures are requests of their
own. Viewers of several pages take turns on the annotations, as those of several notebooks do.
"""

import base64
import json
import secrets
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from libraries.base.errors import ImageError, ParameterError, PipelineError
from libraries.service import keys
from libraries.service.problems import Problem, response
from libraries.service.protocol import BoundedProtocol, ConnectionLimiter
from libraries.service.server import OrderlyServer, listen, url_of
from libraries.service.trusted_headers import check_host
from libraries.web.addresses import is_loopback
from libraries.widgets.images import ImageViewer
from libraries.widgets.viewer import PAGES, page_code

MOST_PAGES = 32  # that are open at once: the one that was used least recently is closed
MOST_CONNECTIONS = 128
MOST_BYTES = 256 * 1024  # of an action
_POLICY = "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
_OPEN = frozenset({"/", "/viewer.js", "/viewer.css", "/page.css"})  # need no key


def create_app(open_viewer: Callable[[], ImageViewer], *, key: str, hosts: Collection[str]) -> ASGIApp:
    """The application, ready for an ASGI server.

    Args:
        open_viewer: makes a viewer for a page that is opened.
        key: that the page sends with every request.
        hosts: that requests may be for, see `check_host`; if empty, any.
    """
    viewers = _Viewers(open_viewer)
    code = page_code("parts.js", "images.js", "web_page.js").replace("export default { render };\n", "")

    async def script(request: Request) -> Response:
        return Response(code, media_type="text/javascript")

    routes = [
        Route("/", partial(_file, "web_page.html")),
        Route("/viewer.js", script),
        Route("/viewer.css", partial(_file, "viewer.css")),
        Route("/page.css", partial(_file, "web_page.css")),
        Route("/pages", viewers.open, methods=["POST"]),
        Route("/pages/{page}/act", viewers.act, methods=["POST"]),
        Route("/pages/{page}/thumbnail/{image:int}", viewers.thumbnail),
        Route("/pages/{page}/large/{image:int}", viewers.large),
    ]
    kinds = (Problem, PipelineError, HTTPException, Exception)
    app = Starlette(routes=routes, exception_handlers=dict.fromkeys(kinds, _problem))
    return _Gate(app, key=key, hosts=hosts)


async def _file(name: str, request: Request) -> Response:
    return FileResponse(PAGES / name)


async def _problem(request: Request, error: Exception) -> Response:
    """The answer to a request that fails, in one line."""
    if isinstance(error, Problem):
        return response(error)
    if isinstance(error, HTTPException):
        return response(Problem(error.status_code, str(error.detail)))
    if isinstance(error, PipelineError):  # about the user's own files
        return response(Problem(500, str(error)))
    return response(Problem(500, f"unexpected {type(error).__name__}: the script's window says more"))


def serve_images(
    open_viewer: Callable[[], ImageViewer],
    *,
    host: str,
    port: int,
    key: str | None,
    hosts: Collection[str],
    announce: Callable[[str], object],
) -> None:
    """Serve the page until Ctrl-C or SIGTERM.

    Args:
        open_viewer, hosts: see `create_app`.
        port: 0: one that is free.
        key: None: one for this time, which is part of the address that is announced.
        announce: called with the address.

    Raises:
        ParameterError: the address cannot be listened on; or other machines can reach it, and there is no key.
    """
    if key is None and not is_loopback(host):
        raise ParameterError(f"host {host} can be reached from other machines: set REVIEW_KEY, or --keyFile, for them")
    own = key or secrets.token_urlsafe(16)
    config = uvicorn.Config(
        create_app(open_viewer, key=own, hosts=hosts),
        http=partial(BoundedProtocol, limiter=ConnectionLimiter(MOST_CONNECTIONS)),  # type: ignore[arg-type]
        ws="none",
        lifespan="off",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        log_level="error",
        timeout_graceful_shutdown=1,
    )
    with listen(host, port) as listener:
        address = url_of(listener) if key else f"{url_of(listener)}#{own}"
        announce(f"Open {address} in a browser{' (it asks for the key)' if key else ''}; Ctrl-C stops")
        OrderlyServer(config).run([listener])


class _Viewers:
    """The viewers of the pages that are open, each used by one request at a time."""

    def __init__(self, open_viewer: Callable[[], ImageViewer]) -> None:
        self._open_viewer = open_viewer
        self._viewers: OrderedDict[str, tuple[ImageViewer, threading.Lock]] = OrderedDict()
        self._lock = threading.Lock()

    async def open(self, request: Request) -> Response:
        """A new page: its name, and the state of its viewer."""
        viewer = await run_in_threadpool(self._open_viewer)
        page = secrets.token_urlsafe(16)
        with self._lock:
            self._viewers[page] = viewer, threading.Lock()
            closed = self._viewers.popitem(last=False)[1] if len(self._viewers) > MOST_PAGES else None
        if closed:
            await run_in_threadpool(self._close, *closed)
        return JSONResponse({"page": page, "state": viewer.state})

    async def act(self, request: Request) -> Response:
        """Do what the page asks for; the state after it."""
        try:
            action = json.loads(await _body(request))
        except (ValueError, RecursionError) as error:
            raise Problem(400, "the body is not JSON") from error

        def act(viewer: ImageViewer) -> dict[str, Any]:
            viewer.take(action)
            return dict(viewer.state)

        return JSONResponse(await self._use(request, act))

    async def thumbnail(self, request: Request) -> Response:
        """The thumbnail of an image."""
        image = request.path_params["image"]
        try:
            made = await self._use(request, lambda viewer: viewer.thumbnail(image))
        except ImageError as error:
            raise Problem(422, f"the image {error.reason}") from error
        return Response(made, media_type="image/jpeg")

    async def large(self, request: Request) -> Response:
        """The large view of an image: facts, and pictures in Base64."""
        image = request.path_params["image"]
        message, pictures = await self._use(request, lambda viewer: viewer.large(image))
        return JSONResponse({"message": message, "pictures": [base64.b64encode(p).decode() for p in pictures]})

    async def _use(self, request: Request, function: Callable[[ImageViewer], Any]) -> Any:
        """What a function makes of the viewer of a request's page."""
        page = request.path_params["page"]
        with self._lock:
            if page not in self._viewers:
                raise Problem(410, "this page is no longer open: load it again")
            self._viewers.move_to_end(page)
            viewer, lock = self._viewers[page]

        def use() -> Any:
            with lock:
                return function(viewer)

        try:
            return await run_in_threadpool(use)
        except IndexError as error:
            raise Problem(404, "there is no such image") from error

    @staticmethod
    def _close(viewer: ImageViewer, lock: threading.Lock) -> None:
        with lock:
            viewer.close()


async def _body(request: Request) -> bytes:
    """The body of a request; raises Problem if it is too long."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BYTES:
            raise Problem(413, f"more than {MOST_BYTES:,} bytes")
    return body


class _Gate:
    """ASGI middleware: refuses requests for other hosts, and those without the key but for the page itself."""

    def __init__(self, app: ASGIApp, *, key: str, hosts: Collection[str]) -> None:
        self.app, self._key, self._hosts = app, key, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["content-security-policy"] = _POLICY
                headers["x-content-type-options"] = "nosniff"
                headers["cache-control"] = "no-store"
            await send(message)

        answer: Callable[[Scope, Receive, Send], Awaitable[None]] = self.app
        try:
            check_host(scope, self._hosts)
            kind, _, value = dict(scope["headers"]).get(b"authorization", b"").partition(b" ")
            if scope["path"] not in _OPEN and (kind.lower() != b"bearer" or not keys.equal(value, self._key)):
                raise Problem(401, "the key is missing or wrong: open the address that the script printed")
        except Problem as problem:
            answer = response(problem)
        await answer(scope, receive, with_policy)
