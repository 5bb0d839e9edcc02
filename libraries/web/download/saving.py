"""One URL → an image file under each of its labels: fetch, check, scale down, write."""

import hashlib
import re
import threading
import time
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from PIL import Image

from libraries.base.errors import DownloadError, ImageError
from libraries.base.file_system import on_disk
from libraries.base.storage import atomic
from libraries.data.decoding import MAX_PIXELS
from libraries.data.formats import HEAD, Format, recognise
from libraries.data.images import scaled_down
from libraries.web.fetch import USER_AGENT, Fetcher, FetchResult, Timeouts

JPEG_QUALITY = 95
_ERROR_ATTRIBUTES = ("reason", "detail", "passing", "http_status", "retry_after")


@dataclass(frozen=True, kw_only=True)
class DownloadOptions:
    """How to download.

    Attributes:
        workers: downloads at once.
        per_host: of these, from one host (browsers use 6).
        timeouts: of one try.
        retries: further tries after a temporary failure: time-out, no connection, 408, 425, 429, 5xx.
        max_bytes: of one file as downloaded.
        max_pixels: width times height; larger images are refused before they are decoded.
        max_side: images whose longer side has more pixels are scaled down to it; all others are kept as they are.
        allowed_hosts: host names or addresses that may be private or local, and use any port.
        user_agent: sent to every server; some want it to contain a way to contact you.
        retry_failed: fetch URLs again that failed for good in an earlier run.
    """

    workers: int = 16
    per_host: int = 6
    timeouts: Timeouts = field(default_factory=Timeouts)
    retries: int = 3
    max_bytes: int = 50_000_000
    max_pixels: int = MAX_PIXELS
    max_side: int = 1000
    allowed_hosts: Sequence[str] = ()
    user_agent: str = USER_AGENT
    retry_failed: bool = False

    def to_json(self) -> dict[str, Any]:
        """As JSON, for another process."""
        return asdict(self)

    @staticmethod
    def from_json(values: dict[str, Any]) -> "DownloadOptions":
        """From the JSON of `to_json`."""
        return DownloadOptions(**{**values, "timeouts": Timeouts(**values["timeouts"])})


@dataclass(frozen=True)
class KeptImage:
    """A downloaded image as it is kept.

    Attributes:
        suffix: of the file's format.
        width: of the upright image, in pixels.
        height: of the upright image, in pixels.
        data: the downloaded bytes, if they are kept as they are.
        smaller: the image scaled down, if that is kept instead.
    """

    suffix: str
    width: int
    height: int
    data: bytes
    smaller: Image.Image | None

    def write(self, file: IO[bytes]) -> None:
        """Write the file's content. `file` should be a real file: encoding into one releases the GIL."""
        if self.smaller is None:
            file.write(self.data)
        else:
            self.smaller.save(file, "JPEG", quality=JPEG_QUALITY)


def keep(data: bytes, *, max_pixels: int, max_side: int) -> KeptImage:
    """The bytes as they are, or a smaller JPEG if the image's longer side has more than `max_side` pixels.

    Raises:
        DownloadError: not an image, more than `max_pixels` (by its header, before decoding), or damaged.
    """
    kind = recognise(data[:HEAD])
    if not isinstance(kind, Format):
        raise DownloadError("not an image", detail=f"begins with {data[:16]!r}" if kind is None else kind.of_one())
    try:
        (width, height), smaller = scaled_down(data, max_pixels=max_pixels, max_side=max_side)
    except ImageError as error:
        reason = "too many pixels" if "pixels" in error.reason else "damaged image"
        raise DownloadError(reason, detail=error.reason) from None
    if smaller is None:
        return KeptImage(kind.suffixes[0], width, height, data, None)
    return KeptImage(".jpg", width, height, b"", smaller)


@dataclass(frozen=True)
class SavedImage:
    """A downloaded image: the name of its file in each label's folder, and what the table says about it."""

    name: str
    http_status: int
    bytes: int
    width: int
    height: int


@dataclass(frozen=True)
class Attempt:
    """The result of one try of a URL, and the seconds it took."""

    result: SavedImage | DownloadError
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """As JSON, for another process."""
        if isinstance(self.result, SavedImage):
            return {"seconds": self.seconds, "saved": asdict(self.result)}
        return {"seconds": self.seconds, "error": {name: getattr(self.result, name) for name in _ERROR_ATTRIBUTES}}

    @staticmethod
    def from_json(values: dict[str, Any]) -> "Attempt":
        """From the JSON of `to_json`."""
        result = SavedImage(**values["saved"]) if "saved" in values else DownloadError(**values["error"])
        return Attempt(result, values["seconds"])


class Saver:
    """Fetches URLs and saves their images. Called by many threads.

    Args:
        folder: images/<dataset>.
        threads: number of threads that call it.
        decoders: images decoded at once: each takes up to 3 bytes times `max_pixels` of memory.
    """

    def __init__(self, folder: Path, options: DownloadOptions, *, threads: int, decoders: int) -> None:
        self._fetcher = Fetcher(
            timeouts=options.timeouts,
            max_bytes=options.max_bytes,
            allowed_hosts=options.allowed_hosts,
            user_agent=options.user_agent,
            threads=threads,
        )
        self._folder = folder
        self._max_pixels, self._max_side = options.max_pixels, options.max_side
        self._decoding = threading.Semaphore(decoders)
        self._closed = threading.Event()

    def close(self) -> None:
        """Write nothing more, not even images in progress."""
        self._closed.set()
        self._fetcher.close()

    def __call__(self, job: tuple[str, Sequence[str]]) -> dict[str, Any]:
        """Fetch a URL once and write its image under each of its labels; returns an `Attempt` as JSON.

        Raises:
            StorageError: a file cannot be written.
        """
        url, labels = job
        started = time.monotonic()
        result: SavedImage | DownloadError
        try:
            result = self._save(url, labels, self._fetcher.fetch(url))
        except DownloadError as error:
            result = error
        return Attempt(result, time.monotonic() - started).to_json()

    def _save(self, url: str, labels: Sequence[str], answer: FetchResult) -> SavedImage:
        try:
            with self._decoding:
                kept = keep(answer.body, max_pixels=self._max_pixels, max_side=self._max_side)
        except DownloadError as error:
            error.http_status = answer.http_status
            raise
        name, size = file_stem(url) + kept.suffix, 0
        for label in labels:
            if not self._closed.is_set():
                with atomic(self._folder / on_disk(self._folder, label) / name) as file:
                    kept.write(file)
                    size = file.tell()
        return SavedImage(name, answer.http_status, size, kept.width, kept.height)


def open_saver(*, folder: str, options: dict[str, Any], threads: int, decoders: int) -> Saver:
    """Make a `Saver` from the settings that another process was given."""
    return Saver(Path(folder), DownloadOptions.from_json(options), threads=threads, decoders=decoders)


def file_stem(url: str) -> str:
    """The name, without suffix, of a URL's file: the readable part of the URL's own name, and a hash of the URL."""
    name = unquote(urlsplit(url).path).rstrip("/").rpartition("/")[2]
    name = re.sub(r"\.[A-Za-z]{2,5}$", "", name)  # the suffix comes from the content
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    readable = re.sub(r"[^A-Za-z0-9]+", "-", ascii_name)[:40].strip("-")
    digest = hashlib.sha256(url.encode()).hexdigest()[:12]
    return f"{readable}-{digest}" if readable else digest
