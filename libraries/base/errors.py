"""All errors of the project. Each message is one line: what is wrong, where, and what to do."""

from pathlib import Path
from typing import Self


class PipelineError(Exception):
    """Anything a user can fix. Scripts print it as one line and exit with status 1."""


class ParameterError(PipelineError):
    """A parameter is unknown, or its value breaks a rule."""


class InputError(PipelineError):
    """A step's input (a folder, list or table) cannot be used."""


class MissingInput(InputError):
    """A step's input does not exist yet: another script has to run first."""


class StaleInput(InputError):
    """A step's input was made from parameters or data that have changed since."""


class StorageError(PipelineError):
    """A file cannot be read or written: disk full, no permission, damaged."""


class NetworkError(PipelineError):
    """A network or its weights cannot be found, loaded, converted or trained."""


class ImageError(PipelineError):
    """A file is not a complete image within the limits. Never ends a batch: callers skip the file and report it."""

    def __init__(self, reason: str, path: str | Path | None = None) -> None:
        super().__init__(f"{path}: {reason}" if path is not None else reason)
        self.reason = reason
        self.path = path

    def at(self, path: str | Path | None) -> Self:
        """The same error with `path`, unless it already has one."""
        return self if self.path is not None or path is None else type(self)(self.reason, path)


PIXEL_LIMIT = "maxMegapixels"  # the parameter that allows larger images


class ImageTooLarge(ImageError):
    """An image has more pixels or bytes than allowed; it is rejected before decoding.

    Attributes:
        limit: the parameter that allows more; None for a fixed limit.
    """

    def __init__(self, reason: str, path: str | Path | None = None, *, limit: str | None = None) -> None:
        way_out = f": raise {limit}, or make it smaller" if limit is not None else ""
        super().__init__(reason + way_out, path)
        self.limit = limit
        self._reason = reason

    def at(self, path: str | Path | None) -> Self:
        return self if self.path is not None or path is None else type(self)(self._reason, path, limit=self.limit)

    def limited_by(self, parameter: str) -> Self:
        """The same error, naming another parameter as the limit."""
        return self if self.limit is None else type(self)(self._reason, self.path, limit=parameter)


class DownloadError(PipelineError):
    """A URL gave no image. Never ends a run: it becomes a row in the table of outcomes.

    Attributes:
        reason: one of a few short texts, by which failures are counted.
        detail: the technical cause.
        passing: whether it may be temporary (time-outs, 429, 5xx, no connection), so that a retry may succeed.
        http_status: of the response, if there was one.
        retry_after: seconds that the server asks to wait.
        body: the beginning of the error response, if the fetcher was asked to keep it.
    """

    def __init__(
        self,
        reason: str,
        *,
        detail: str = "",
        passing: bool = False,
        http_status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        detail = " ".join(detail.split())  # messages of servers and libraries may have several lines
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail
        self.passing = passing
        self.http_status = http_status
        self.retry_after = retry_after
        self.body = b""


class SearchError(PipelineError):
    """An image search cannot be reached, rejects the request, or returns an unexpected answer."""


class ServiceError(PipelineError):
    """A service cannot be reached, rejects a request, or returns an unexpected answer.

    Attributes:
        reason: one of a few short texts, by which failures are counted.
        status: the HTTP status, if there was a response.
        passing: whether it may be temporary (time-outs, 429, 5xx, no connection), so that a retry may succeed.
        retry_after: seconds that the service asks to wait.
    """

    def __init__(
        self,
        text: str,
        *,
        reason: str,
        status: int | None = None,
        passing: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(text)
        self.reason = reason
        self.status = status
        self.passing = passing
        self.retry_after = retry_after
