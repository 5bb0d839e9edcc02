"""The service as a separate process on this machine, for notebooks."""

import atexit
import os
import re
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from libraries.base.errors import ServiceError

_SECONDS_TO_FINISH = 35.0  # the service itself allows 30 for accepted requests
_LINES = 200  # of its output that are kept


class LocalService:
    """scripts/deploymain.py in another process, on a free port; a context manager that stops it.

    Attributes:
        url: its base URL.
        output: the latest lines of its output.
    """

    def __init__(
        self, script: Path, *options: str, environment: Mapping[str, str] | None = None, timeout: float = 60.0
    ) -> None:
        """Start it, and wait until it is ready.

        Args:
            script: scripts/deploymain.py.
            options: of the command line, e.g. '--serve_maxImages=8'; it also reads parameters from the environment.
            environment: further environment variables, such as keys.
            timeout: seconds until it must be ready.

        Raises:
            ServiceError: it ended, or was not ready in time; the message has its last line of output.
        """
        self.url = ""
        self.output: deque[str] = deque(maxlen=_LINES)
        self._is_ready = False
        self._ready_or_ended = threading.Event()
        self._process = subprocess.Popen(
            [sys.executable, str(script), "--host=127.0.0.1", "--port=0", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",  # libraries write to it, too
            env={**os.environ, "PYTHONIOENCODING": "utf-8", **(environment or {})},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        atexit.register(self.stop)
        in_time = self._ready_or_ended.wait(timeout)
        if not self._is_ready:
            self.stop()
            why = self.output[-1] if self.output else "it wrote nothing"
            reason = "ended" if in_time else f"was not ready within {timeout:g} s"
            raise ServiceError(f"the service {reason}: {why}", reason="not started")

    def stop(self) -> None:
        """Stop it, after it has answered the requests that it accepted."""
        atexit.unregister(self.stop)
        self._process.terminate()
        try:
            self._process.wait(_SECONDS_TO_FINISH)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self.output.append(line.rstrip())
                if found := re.match(r"Listening on (http://\S+?)/? ", line):
                    self.url = found[1]
                elif line.startswith("Ready: "):
                    self._is_ready = True
                    self._ready_or_ended.set()
        self._ready_or_ended.set()
