"""uvicorn for one application, and a signal to load bundle and keys again."""

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
from libraries.service.protocol import MOST_CONNECTIONS, BoundedProtocol, Room
from libraries.service.service import Service

_OTHER_FILES = 256
_BACKLOG = 2048  # connections that may be accepted at once, before any of them makes room
_SECONDS_TO_FINISH = 30  # requests that were accepted; compose.yaml grants the process more
_SECONDS_TO_ANSWER = 1  # of these, to tell who is still waiting that the service stops
_SECONDS_TO_LEAVE = 3  # beyond these, to end in order
_M_MMAP_THRESHOLD = -3  # in glibc's malloc.h
_LARGE_BLOCK = 4 * 2**20  # bytes

log = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """Serves one application until it is told to stop; SIGHUP loads the bundle and the keys again."""

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
        """Prepare to listen; `announce` is told where, and when the bundle is ready; `access` is that of `app`."""
        self._room = Room()
        config = uvicorn.Config(
            app,
            host=host,
            port=port,
            http=partial(BoundedProtocol, room=self._room),  # type: ignore[arg-type]
            ws="none",
            backlog=_BACKLOG,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # see libraries/service/proxies.py
            log_level="error",
            timeout_graceful_shutdown=_SECONDS_TO_FINISH,
        )
        super().__init__(config)
        self._service, self._access, self._announce = service, access, announce
        self._is_announced = self._is_own_process = False
        self._tasks: set[asyncio.Task[Any]] = set()

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until SIGTERM or Ctrl-C, finishing what was accepted; the process ends here if a decode does not.

        Raises:
            ParameterError: nothing can listen there.
            PipelineError: the bundle was refused at the start.
        """
        files = _allow_files(MOST_CONNECTIONS + _BACKLOG + _OTHER_FILES)
        self._room.most = min(self._room.most, max(files // 2, files - _BACKLOG - _OTHER_FILES))
        _return_memory()
        self._is_own_process = threading.current_thread() is threading.main_thread()
        if os.environ.get("FORWARDED_ALLOW_IPS"):
            log.warning("FORWARDED_ALLOW_IPS has no effect: name the proxies in serve_trustedProxies")
        super().run(sockets or [self._bind()])
        if self._service.workers.at_work:
            self._leave()
        if self._service.failure is not None:
            raise self._service.failure

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening."""
        await super().startup(sockets)
        for listener in sockets or ():
            host, port = listener.getsockname()[:2]
            self._announce(f"Listening on http://{f'[{host}]' if ':' in host else host}:{port}/ (Ctrl-C stops)")
        if hasattr(signal, "SIGHUP") and threading.current_thread() is threading.main_thread():
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reload)

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether to stop."""
        if self._service.model.is_ready and not self._is_announced:
            self._is_announced = True
            loaded = self._service.model.current
            self._announce(f"Ready: {loaded.name}, version {loaded.version}")
        return await super().on_tick(counter) or self._service.failure is not None

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept nothing more, answer what was accepted, and end, at the latest after the time to finish."""
        self._service.bodies.stop_within(max(0.0, _SECONDS_TO_FINISH - _SECONDS_TO_ANSWER))
        leaving = threading.Timer(_SECONDS_TO_FINISH + _SECONDS_TO_LEAVE, self._leave)
        leaving.daemon = True
        leaving.start()
        await super().shutdown(sockets)

    def _leave(self) -> None:
        """End the process, whatever its threads are at, if it is this server's own."""
        if self._is_own_process:
            log.warning("stopped while %d images were being decoded or computed", self._service.workers.at_work)
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
            os._exit(0)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End in order at SIGTERM and Ctrl-C, with exit status 0."""
        with super().capture_signals():
            yield
            self._captured_signals.clear()  # or uvicorn would raise them again after its orderly end

    def _bind(self) -> socket.socket:
        host, port = self.config.host, self.config.port
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            return socket.create_server((host, port), family=family, backlog=_BACKLOG)
        except OSError as error:
            raise ParameterError(f"{host}, port {port}: {error.strerror}; choose another --host or --port") from error

    def _reload(self) -> None:
        task = asyncio.get_running_loop().create_task(self._load_again())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _load_again(self) -> None:
        if self._access is not None:
            await self._access.reload()
        await self._service.reload()


def _allow_files(count: int) -> int:
    """Raise the limit of open files, often 1,024, as each connection is one; how many of the `count` there may be."""
    if sys.platform == "win32":  # which has no such limit
        return count
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most


def _return_memory() -> None:
    """Have glibc give large images back when they are done with; else it keeps, per thread, as much as it once had."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # other systems
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK)
