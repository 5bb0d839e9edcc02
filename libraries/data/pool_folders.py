"""Folders in the pool that the service fills: service/<day>/ with what it is sent, feedback/<label>/ with right labels.

The labels come from callers, and what was answered is in a file that others may have changed: neither is trusted.
"""

import contextlib
import json
from pathlib import Path

from libraries.base.file_system import nfc, read_regular

SERVICE, FEEDBACK = "service", "feedback"
ANSWERS = ".answers.jsonl"  # in the folder of a day: a line for each image, with what was answered
SAMPLE = "sample"  # why an image was kept: it was drawn at random from all that were sent
_MOST_BYTES = 2**28


def told_label(path: str) -> str | None:
    """The label that a caller of the service has sent with an image, by its path within the pool; None if none was."""
    folder, *rest = path.split("/")
    return nfc(rest[0]) if folder == FEEDBACK and len(rest) > 1 else None


def drawn(day: Path) -> set[str]:
    """The names of the images in the folder of a day that are a fair sample of what was sent."""
    lines = b""
    with contextlib.suppress(OSError):
        lines = read_regular(day / ANSWERS, most=_MOST_BYTES)
    names = set()
    for line in lines.splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            answer = json.loads(line)
            if isinstance(answer, dict) and answer.get("kept") == SAMPLE:
                names.add(str(answer.get("file")))
    return names
