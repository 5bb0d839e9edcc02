"""How is downloaded."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from libraries.data.decoding import MAX_PIXELS
from libraries.web.fetch import USER_AGENT, Timeouts


@dataclass(frozen=True, kw_only=True)
class DownloadOptions:
    """What a download keeps to.

    Attributes:
        workers: downloads at once.
        per_host: of them, from one host (browsers take 6).
        timeouts: of one try.
        retries: further tries after a failure that may pass: time-out, no connection, 408, 425, 429, 5xx.
        max_bytes: of one file as downloaded.
        max_pixels: width times height; larger images are refused before they are decoded.
        max_side: images whose longer side has more pixels are scaled down to it; all others stay as they are.
        allowed_hosts: host names or addresses that may be private or local, and use any port.
        user_agent: sent to every server; some want a way to contact you in it.
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
        """As it is told to another process."""
        return asdict(self)

    @staticmethod
    def from_json(told: dict[str, Any]) -> "DownloadOptions":
        """What `to_json` has told."""
        return DownloadOptions(**{**told, "timeouts": Timeouts(**told["timeouts"])})
