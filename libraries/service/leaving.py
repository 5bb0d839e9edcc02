"""What every answer passes on its way out: HEAD is answered like GET but without a body, and redirects are relative."""

from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Leaving:
    """ASGI middleware around all paths."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        is_head = scope["method"] == "HEAD"

        async def passed_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                _make_relative(MutableHeaders(raw=message["headers"]), scope)
            elif is_head:
                message = {**message, "body": b""}
            await send(message)

        await self.app({**scope, "method": "GET"} if is_head else scope, receive, passed_on)


def _make_relative(headers: MutableHeaders, scope: Scope) -> None:
    """A redirect to the same path with or without a `/` at its end says so in a way that holds behind any proxy.

    Whichever name and path callers know the service by, they resolve it against what they asked for.
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
