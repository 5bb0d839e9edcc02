"""Work that can be sent to another process, as JSON, and the pool of processes that do it."""

import contextlib
import importlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Generic, Protocol, TypeVar

from libraries.base import errors
from libraries.base.errors import PipelineError
from libraries.base.file_system import file_error
from libraries.base.pool import Failed, Pool, Threads, WorkerLost

J = TypeVar("J")
R = TypeVar("R")

_GATHER = 0.003  # seconds to collect answers of processes, so that not every answer wakes this one
_ROOT = Path(__file__).parents[2]
_KINDS: dict[str, type[Exception]] = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, PipelineError) and kind.__init__ is PipelineError.__init__
}  # errors that are made from their text alone
_OWN_GROUP: dict[str, Any]  # Ctrl-C reaches this process alone, which then ends the others
if sys.platform == "win32":
    _OWN_GROUP = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
else:
    _OWN_GROUP = {"start_new_session": True}


class Worker(Protocol):
    """Does jobs, in the threads of one process; jobs and results are JSON values."""

    def __call__(self, job: Any, /) -> Any: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Work(Generic[J, R]):
    """Work that can be sent to another process.

    Attributes:
        setup: a module-level function, called once in each process; returns the worker.
        settings: its keyword arguments, JSON values.
        encode: job → JSON value.
        decode: JSON value → result.
    """

    setup: Callable[..., Worker]
    settings: dict[str, Any]
    encode: Callable[[J], Any]
    decode: Callable[[Any], R]


@contextlib.contextmanager
def open_pool(work: Work[J, R], *, processes: int, threads: int) -> Iterator[Pool[J, R]]:
    """A pool of several processes with several threads each; if `processes` is 1, of threads of this process."""
    with contextlib.ExitStack() as stack:
        if processes > 1:
            yield stack.enter_context(Processes(work, processes=processes, threads=threads))
        else:
            worker = stack.enter_context(contextlib.closing(work.setup(**work.settings)))

            def do(job: J) -> R:
                return work.decode(worker(work.encode(job)))

            yield stack.enter_context(Threads(do, threads, abandon=True))


class Processes(Pool[J, R]):
    """Several processes of several threads each: one Python process cannot keep two cores busy with short jobs.

    Each reads jobs from its standard input and answers on its standard output, one line of JSON per job. It exits when
    its input ends, so that nothing keeps running after this process is killed.
    """

    gather = _GATHER

    def __init__(self, work: Work[J, R], *, processes: int, threads: int) -> None:
        super().__init__(processes * threads)
        self._encode = work.encode
        self._processes = [_Process(work, threads, self._done) for _ in range(processes)]

    def _start(self, number: int, job: J) -> None:
        line = json.dumps([number, self._encode(job)])
        min(self._processes, key=lambda process: len(process.numbers)).give(number, line)

    def _end(self) -> None:
        for process in self._processes:
            process.end()


class _Process(Generic[J, R]):
    """One process, and the thread that reads its answers."""

    def __init__(self, work: Work[J, R], threads: int, done: "queue.SimpleQueue[tuple[int, R | Failed]]") -> None:
        self.numbers: set[int] = set()  # of its unfinished jobs
        self._decode = work.decode
        self._done = done
        self._has_ended = threading.Event()
        path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__, work.setup.__module__, work.setup.__name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
            **_OWN_GROUP,
        )
        self._say(json.dumps({"settings": work.settings, "threads": threads}))
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._reader.start()

    def give(self, number: int, line: str) -> None:
        self.numbers.add(number)
        self._say(line)
        if self._has_ended.is_set():
            self._give_up()

    def end(self) -> None:
        self._process.kill()  # its jobs are done, or no longer wanted
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]

    def _say(self, line: str) -> None:
        with contextlib.suppress(OSError):  # it has died, which `_read` notices
            self._process.stdin.write(line.encode() + b"\n")  # type: ignore[union-attr]
            self._process.stdin.flush()  # type: ignore[union-attr]

    def _read(self, answers: IO[bytes]) -> None:
        for line in answers:
            found = json.loads(line)
            number = found["number"]
            self.numbers.remove(number)
            self._done.put((number, Failed(error_in(found)) if "error" in found else self._decode(found["result"])))
        self._has_ended.set()
        self._give_up()

    def _give_up(self) -> None:
        """Fail the unfinished jobs of a process that has ended."""
        died = WorkerLost("a worker process has died, perhaps for lack of memory: run again")
        for number in list(self.numbers):
            with contextlib.suppress(KeyError):  # two threads may be here
                self.numbers.remove(number)
                self._done.put((number, Failed(died)))


def answer(worker: Callable[[Any], Any], line: bytes, *, where: str = "") -> bytes:
    """The answer to a line: the result of its job, or the text of an error.

    Args:
        where: the machine, which an unexpected error names.
    """
    number, job = json.loads(line)
    found: dict[str, Any] = {"number": number}
    try:
        found["result"] = worker(job)
    except Exception as error:  # not swallowed: `error_in` raises it elsewhere
        of_file = file_error(error) if isinstance(error, OSError) else None
        raised = of_file if of_file is not None else error
        text = str(raised)
        if not isinstance(raised, PipelineError):
            text = f"{type(raised).__name__}: {text}{f' (on {where})' if where else ''}"
        found["kind"] = next((kind.__name__ for kind in type(raised).__mro__ if kind in _KINDS.values()), "")
        found["error"] = text
    return json.dumps(found).encode() + b"\n"


def error_in(found: Mapping[str, Any]) -> Exception:
    """The error in an answer: of the project, of the same kind; any other as a RuntimeError with its name."""
    return _KINDS.get(found["kind"], RuntimeError)(found["error"])


def _serve(module: str, setup: str) -> None:
    """Do the jobs on standard input, one per line after a first one with the settings, until it ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # in case a library prints something
    order = json.loads(sys.stdin.buffer.readline())
    worker = getattr(importlib.import_module(module), setup)(**order["settings"])
    todo: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    lock = threading.Lock()

    def work() -> None:
        while True:
            found = answer(worker, todo.get())
            with lock:
                answers.write(found)
                answers.flush()

    for _ in range(order["threads"]):
        threading.Thread(target=work, daemon=True).start()
    for line in sys.stdin.buffer:
        todo.put(line)
    os._exit(0)  # the parent has all answers, or has died


if __name__ == "__main__":
    _serve(*sys.argv[1:])
