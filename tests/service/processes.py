"""A server as a separate process with an environment of its own."""

import contextlib
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

START_SECONDS = 120  # of what takes 3 on two idle cores


class ServerProcess:
    """A server that has written a line that contains `ready`; stopped at the end of the block.

    Attributes:
        lines: of standard output and standard error until then.
    """

    def __init__(self, command: Sequence[str | Path], *, ready: str, env: Mapping[str, str], **options: Any) -> None:
        """Start it; raises AssertionError with its output if it ends instead."""
        self.process = subprocess.Popen(
            command,
            env=env,
            cwd=options.pop("cwd", os.sep),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # with the processes that it starts
            **options,
        )
        self._watchdog = threading.Timer(START_SECONDS, self.kill)
        self._watchdog.start()
        self.lines: list[str] = []
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if ready in line:
                break
        else:
            self.__exit__()
            raise AssertionError(f"ended with {self.process.returncode}: {''.join(self.lines)[-3000:]}")
        self._drain = threading.Thread(target=self.lines.extend, args=(self.process.stdout,))
        self._drain.start()  # a full pipe would block it

    def line(self, text: str) -> str:
        """The first line that contains this text."""
        return next(line for line in self.lines if text in line)

    def terminate(self) -> int:
        """SIGTERM; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=START_SECONDS)

    def kill(self) -> None:
        """End it and its children at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._watchdog.cancel()
        self.kill()
        self.process.wait(timeout=START_SECONDS)
        if hasattr(self, "_drain"):
            self._drain.join()
        assert self.process.stdout is not None
        self.process.stdout.close()


def free_port() -> int:
    """A free port, for servers that cannot choose one themselves."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
