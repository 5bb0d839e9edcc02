"""Several processes of several threads each, for long lists: one Python process cannot keep two cores busy with them.

Each process (`worker`) is told on its standard input what to fetch, and answers on its standard output, one line of
JSON for each. It ends at once when its input ends, so that nothing goes on after this process was killed.
"""

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from libraries.base.errors import DownloadError, PipelineError, StorageError
from libraries.base.file_system import file_error
from libraries.web.crew import handful
from libraries.web.schedule import Job
from libraries.web.task import Attempt, Limits, Saved

_ROOT = Path(__file__).parents[2]
_GATHER = 0.003  # seconds; answers come in handfuls, or each would wake this process
_OF_ERRORS = ("reason", "detail", "passing", "http_status", "retry_after")
_MODULE = "libraries.web.worker"
_APART: dict[str, Any]  # Ctrl-C is for this process alone, which then ends the others
if sys.platform == "win32":
    _APART = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
else:
    _APART = {"start_new_session": True}


class Processes:
    """To be used as a `Crew`, of which it is several.

    Args:
        count: of processes.
        threads: of each.
        decoders: images decoded at once in each.
    """

    def __init__(self, limits: Limits, *, count: int, threads: int, decoders: int) -> None:
        self._settings = json.dumps({"limits": asdict(limits), "threads": threads, "decoders": decoders})
        self._room = 2 * threads * count
        self._count = count
        self._workers: list[_Worker] = []
        self._done: queue.SimpleQueue[tuple[Job, Attempt | Exception]] = queue.SimpleQueue()

    @property
    def has_room(self) -> bool:
        """Whether a thread is idle, or has no next job lying ready."""
        return sum(len(worker.jobs) for worker in self._workers) < self._room

    def give(self, job: Job) -> None:
        """Let the process do a job that has the fewest."""
        min(self._workers, key=lambda worker: len(worker.jobs)).give(job)

    def take(self, timeout: float) -> list[tuple[Job, Attempt | Exception]]:
        """The jobs that were done and their results; empty if there is none within `timeout` seconds."""
        return handful(self._done, timeout, gather=_GATHER)

    def __enter__(self) -> "Processes":
        self._workers = [_Worker(self._settings, self._done) for _ in range(self._count)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.end()


class _Worker:
    """One process, and the thread that reads its answers."""

    def __init__(self, settings: str, done: "queue.SimpleQueue[tuple[Job, Attempt | Exception]]") -> None:
        self.jobs: dict[int, Job] = {}  # that it has
        self._given = 0
        self._done = done
        self._has_ended = threading.Event()
        path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", _MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
            **_APART,
        )
        self._say(settings)
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._reader.start()

    def give(self, job: Job) -> None:
        self._given += 1
        self.jobs[self._given] = job
        self._say(json.dumps([self._given, job.url, job.labels]))
        if self._has_ended.is_set():
            self._give_up()

    def end(self) -> None:
        self._process.kill()  # what it was given has been done, or is not wanted any more
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]

    def _say(self, line: str) -> None:
        with contextlib.suppress(OSError):  # it has died, which `_read` tells
            self._process.stdin.write(line.encode() + b"\n")  # type: ignore[union-attr]
            self._process.stdin.flush()  # type: ignore[union-attr]

    def _read(self, answers: IO[bytes]) -> None:
        for line in answers:
            number, result = decoded(line)
            self._done.put((self.jobs.pop(number), result))
        self._has_ended.set()
        self._give_up()

    def _give_up(self) -> None:
        """Hand back what a process that has ended will not do."""
        died = PipelineError("a process that downloads has died, of lack of memory perhaps: run again to go on")
        for number in list(self.jobs):
            if job := self.jobs.pop(number, None):  # two threads may be here
                self._done.put((job, died))


def encoded(number: int, result: Attempt | Exception) -> bytes:
    """An answer as a line."""
    answer: dict[str, Any] = {"number": number}
    if isinstance(result, Attempt):
        answer["seconds"] = result.seconds
        if isinstance(result.result, Saved):
            answer["saved"] = asdict(result.result)
        else:
            answer["error"] = {name: getattr(result.result, name) for name in _OF_ERRORS}
    elif isinstance(result, StorageError):
        answer["storage"] = str(result)
    elif isinstance(result, OSError) and (of_file := file_error(result)):
        answer["storage"] = str(of_file)
    else:
        answer["unexpected"] = f"{type(result).__name__}: {result}"
    return json.dumps(answer).encode() + b"\n"


def decoded(line: bytes) -> tuple[int, Attempt | Exception]:
    """What a line answers."""
    answer = json.loads(line)
    number = answer["number"]
    if "storage" in answer:
        return number, StorageError(answer["storage"])
    if "unexpected" in answer:
        return number, RuntimeError(answer["unexpected"])
    result = Saved(**answer["saved"]) if "saved" in answer else DownloadError(**answer["error"])
    return number, Attempt(result, answer["seconds"])
