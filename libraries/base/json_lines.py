"""Logs that grow by lines of JSON: what was written whole, and what a killed process has left behind it."""

import json
from typing import NamedTuple

BEGIN = b'{"time": "'  # of every line


class Lines(NamedTuple):
    """The lines of a log.

    Attributes:
        whole: without their ends; some may be blank.
        length: of all whole lines together, in bytes, ends included.
        is_ended: whether the last has its end; an editor may have taken it away.
    """

    whole: list[bytes]
    length: int
    is_ended: bool


def split_lines(content: bytes) -> Lines:
    """The lines of a log, without a last one that was cut off: what was to be written there never was."""
    *whole, rest = content.split(b"\n")
    if not rest:
        return Lines(whole, len(content), True)
    if not _is_json(rest) and (rest.startswith(BEGIN) or BEGIN.startswith(rest)):
        return Lines(whole, len(content) - len(rest), True)
    return Lines([*whole, rest], len(content), False)


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
