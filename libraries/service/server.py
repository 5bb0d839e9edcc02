"""uvicorn for one application, and a signal that loads the bundle and the keys again."""

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import uvicorn
from fastapi import FastAPI

from libraries.base.errors import ParameterError
from libraries.service.gate import Access
from libraries.service.protocol import MOST_CONNECTIONS, BoundedProtocol, ConnectionLimiter
from libraries.service.service import Service

_OTHER_FILES = 256
_BACKLOG = 2048  # connections that may be accepted at once, before the limiter drops any
_SECONDS_TO_FINISH = 30  # for requests that were accepted; compose.yaml and Kubernetes grant the process more
_SECONDS_TO_ANSWER = 1  # of these, to tell clients that still wait that the service stops
_SECONDS_TO_EXIT = 3  # beyond these, for an orderly end
_M_MMAP_THRESHOLD = -3  # in glibc's malloc.h
_LARGE_BLOCK = 4 * 2**20  # bytes

log = logging.getLogger(__name__)


class OrderlyServer(uvicorn.Server):
    """Shuts down in an orderly way at SIGTERM and Ctrl-C, so that the process exits with status 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Let them end the server, and nothing else."""
        with super().capture_signals():
            yield
            self._captured_signals.clear()  # otherwise uvicorn would raise them again after its shutdown


class Server(OrderlyServer):
    """Serves one application until it is stopped; SIGHUP loads the bundle and the keys again."""

    def __init__(
        self,
        app: FastAPI,
        service: Service,
        *,
        host: str,
        port: int,
        announce: Callable[[str], None],
        access: Access | None = None,
    ) -> None:
        """Prepare to listen.

        Args:
            announce: called with the address, and again when the bundle is ready.
            access: that of `app`, whose keys SIGHUP reads again.
        """
        self._limiter = ConnectionLimiter()
        config = uvicorn.Config(
            app,
            host=host,
            port=port,
            http=partial(BoundedProtocol, limiter=self._limiter),  # type: ignore[arg-type]
            ws="none",
            backlog=_BACKLOG,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # see libraries/service/trusted_headers.py
            log_level="error",
            timeout_graceful_shutdown=_SECONDS_TO_FINISH,
        )
        super().__init__(config)
        self._service, self._access, self._announce = service, access, announce
        self._is_announced = self._is_own_process = False
        self._exit_timer = threading.Timer(_SECONDS_TO_FINISH + _SECONDS_TO_EXIT, self._exit)
        self._exit_timer.daemon = True
        self._tasks: set[asyncio.Task[Any]] = set()

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until SIGTERM or Ctrl-C, finishing accepted requests; exits the process if a decode does not end.

        Raises:
            ParameterError: the address cannot be listened on.
            PipelineError: the bundle was refused at the start.
        """
        files = _allow_files(MOST_CONNECTIONS + _BACKLOG + _OTHER_FILES)
        self._limiter.most = min(self._limiter.most, max(files // 2, files - _BACKLOG - _OTHER_FILES))
        _return_memory()
        self._is_own_process = threading.current_thread() is threading.main_thread()
        if os.environ.get("FORWARDED_ALLOW_IPS"):
            log.warning("FORWARDED_ALLOW_IPS has no effect: name the proxies in serve_trustedProxies")
        try:
            super().run(sockets or [listen(self.config.host, self.config.port)])
        finally:
            self._exit_timer.cancel()
        if self._service.workers.at_work:
            self._exit()
        if self._service.failure is not None:
            raise self._service.failure

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening."""
        await super().startup(sockets)
        for listener in sockets or ():
            self._announce(f"Listening on {url_of(listener)} (Ctrl-C stops)")
        if hasattr(signal, "SIGHUP") and threading.current_thread() is threading.main_thread():
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reload)

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second; whether to stop."""
        if self._service.model.is_ready and not self._is_announced:
            self._is_announced = True
            loaded = self._service.model.current
            self._announce(f"Ready: {loaded.name}, version {loaded.version}")
        return await super().on_tick(counter) or self._service.failure is not None

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept nothing more, answer what was accepted, and end, at the latest when the time to finish is over."""
        self._service.bodies.stop_within(max(0.0, _SECONDS_TO_FINISH - _SECONDS_TO_ANSWER))
        self._exit_timer.start()
        await super().shutdown(sockets)

    def _exit(self) -> None:
        """Exit the process, whatever its threads are doing, if it runs only this server."""
        if self._is_own_process:
            log.warning("stopped while %d images were being decoded or computed", self._service.workers.at_work)
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
            os._exit(0)

    def _reload(self) -> None:
        task = asyncio.get_running_loop().create_task(self._reload_all())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reload_all(self) -> None:
        if self._access is not None:
            await self._access.reload()
        await self._service.reload()


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0: one that is free.

    Raises:
        ParameterError: the address cannot be listened on.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise ParameterError(f"{host}, port {port}: {error.strerror}; choose another --host or --port") from error


def url_of(listener: socket.socket) -> str:
    """The address of a socket that listens, for browsers."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def _allow_files(count: int) -> int:
    """Raise the limit of open files, often 1,024, to `count` if possible, as each connection is one; the new limit."""
    if sys.platform == "win32":  # has no such limit
        return count
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most


def _return_memory() -> None:
    """Have glibc return the memory of large images; otherwise it keeps, per thread, as much as was ever allocated."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # other systems
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK)
