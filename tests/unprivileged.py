"""Permissions that count for root, too, as the tests often run in a container, as root."""

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path

_VERSION_3 = 0x20080522  # of the interface, in linux/capability.h
_OVERRIDES = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """Let this thread, and those it starts, heed the permissions of files."""
    if sys.platform != "linux" or os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; then the same for further capabilities
    libc.capget(header, sets)
    effective = sets[0]
    sets[0] = effective & ~_OVERRIDES
    libc.capset(header, sets)
    try:
        yield
    finally:
        sets[0] = effective
        libc.capset(header, sets)


@contextlib.contextmanager
def denied(path: Path, mode: int = 0) -> Iterator[None]:
    """Nobody may read or write a file or folder, or what else `mode` says, during the block."""
    before = path.stat().st_mode
    path.chmod(mode)
    try:
        with unprivileged():
            yield
    finally:
        path.chmod(before)
