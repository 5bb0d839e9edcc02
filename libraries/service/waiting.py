"""Work that somebody waits for: it ends when it is late, when the client has gone, or when the service is to stop."""

import asyncio
from types import TracebackType

from starlette.types import Receive

from libraries.service.problems import Problem

_UNWATCHED = 0.1  # seconds of work before it is asked whether the client is still there: most are done by then


class Awaited:
    """The context of work for a request whose body has come; what is cancelled at its end is a Problem.

    Raises:
        Problem: 499 the client has gone; 503 the service stops; 504 not done in time.
    """

    def __init__(self, receive: Receive, *, seconds: float, stop: float | None) -> None:
        """Give it so many seconds, but not beyond `stop`, a time of the event loop."""
        self._receive, self._seconds, self._stop = receive, seconds, stop
        self._is_gone = False
        self._watcher: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timeout = asyncio.timeout(self._seconds)
        await self._timeout.__aenter__()
        if self._stop is not None:
            self.stop_at(self._stop)
        self._timer = self._loop.call_later(_UNWATCHED, self._watch)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
        try:
            await self._timeout.__aexit__(kind, error, traceback)
        except TimeoutError as late:
            raise self._problem() from late

    def stop_at(self, time: float) -> None:
        """Have it end no later than at this time of the event loop."""
        end = self._timeout.when()
        if end is not None and time < end and not self._timeout.expired():
            self._stop = time
            self._timeout.reschedule(time)
        else:
            self._stop = None

    def _watch(self) -> None:
        self._watcher = self._loop.create_task(self._leave_with_client())

    async def _leave_with_client(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self._timeout.expired():
            self._is_gone = True
            self._timeout.reschedule(self._loop.time())

    def _problem(self) -> Problem:
        if self._is_gone:  # whom nobody tells; it is counted
            return Problem(499, "the client has gone", title="Client gone")
        if self._stop is not None:
            return Problem(503, "the service is stopping: try again", retry_after=1)
        return Problem(504, f"not done within {self._seconds:g} s: send fewer or smaller images")
