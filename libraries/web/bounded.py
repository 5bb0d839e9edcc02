"""HTTP connections that limit the time and the bytes of a response, whatever the server does.

A socket's time-out starts again with every packet, so a server that sends one byte at a time can hold a client for
ever; and http.client limits headers only loosely. Here every read of a response draws on the `Budget` of the fetch.
"""

import contextvars
import http.client
import io
import socket
import time
from dataclasses import dataclass
from typing import Any

import urllib3

from libraries.base.errors import DownloadError

MAX_HEADER_BYTES = 256 * 1024  # of one response, including what is read ahead of its body
_READ_AHEAD = 64 * 1024  # bytes; one or two reads of this size suffice for a small image


@dataclass
class Budget:
    """The time and bytes that one fetch, including redirects, may take."""

    deadline: float  # on time.monotonic()
    read_timeout: float  # seconds between two packets
    body_bytes: int  # of one response, as transferred
    bytes_left: int = 0  # of the current response
    reader: io.RawIOBase | None = None  # of the current response
    received: float = 0.0  # when its last bytes arrived, on time.monotonic(); 0: none yet

    def seconds(self, limit: float) -> float:
        """The limit, or the time left until the deadline if that is less.

        Raises:
            TimeoutError: no time is left.
        """
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the time for this download is up")
        return min(limit, left)

    def close(self) -> None:
        """Close the socket, which a response that urllib3 abandoned half-built would keep open."""
        if self.reader is not None:
            self.reader.close()


current_budget: contextvars.ContextVar[Budget] = contextvars.ContextVar("current_budget")  # one per thread


class _BoundedReader(io.RawIOBase):
    """Reads from a socket until the budget is spent."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, budget: Budget) -> None:
        self._raw = raw
        self._sock = sock
        self._budget = budget
        self._timeout = 0.0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        timeout = self._budget.seconds(self._budget.read_timeout)
        if timeout != self._timeout:  # the same until little time is left: saves a system call per packet
            self._sock.settimeout(timeout)
            self._timeout = timeout
        count = self._raw.readinto(buffer)
        self._budget.received = time.monotonic()
        self._budget.bytes_left -= count or 0
        if self._budget.bytes_left < 0:
            raise DownloadError("too large", detail="headers or framing without end")
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _BoundedResponse(http.client.HTTPResponse):
    """A response that draws on the current budget."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self._budget = current_budget.get()
        self._budget.bytes_left, self._budget.received = MAX_HEADER_BYTES, 0.0
        self._budget.reader = _BoundedReader(self.fp.detach(), sock, self._budget)
        self.fp = io.BufferedReader(self._budget.reader, _READ_AHEAD)

    def begin(self) -> None:
        super().begin()
        # Chunked bodies carry framing. Twice the size allows for it, but not for chunks of a few bytes.
        self._budget.bytes_left += 2 * self._budget.body_bytes


class _Connection(urllib3.connection.HTTPConnection):
    response_class = _BoundedResponse


class _TLSConnection(urllib3.connection.HTTPSConnection):
    response_class = _BoundedResponse


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _TLSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


class BoundedPoolManager(urllib3.PoolManager):
    """A PoolManager whose responses draw on `current_budget`, which the calling thread must have set."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}


class BoundedProxyManager(urllib3.ProxyManager):
    """Like BoundedPoolManager, through a proxy."""

    def __init__(self, proxy_url: str, **kwargs: Any) -> None:
        super().__init__(proxy_url, **kwargs)
        self.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}
