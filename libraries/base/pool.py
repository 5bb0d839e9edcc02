"""One function over many items in parallel: in order (`ordered_map`), or with jobs given and results taken one by one.

There are three kinds of `Pool`: `Threads` of this process, `Processes` of several threads each, for work that holds the
GIL (`open_pool` opens either), and a `Cluster` (see `cluster`). The last two take `Work`, which can be sent to another
process without pickle.
"""

import contextlib
import importlib
import itertools
import json
import os
import queue
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Generic, Protocol, Self, TypeVar

from libraries.base import errors
from libraries.base.errors import PipelineError
from libraries.base.file_system import file_error

J = TypeVar("J")
R = TypeVar("R")

_AHEAD = 32  # items per worker, so that all stay busy while the consumer is briefly occupied
_POLL = 0.5  # seconds until Ctrl-C is noticed, at most
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


def usable_cores(limit: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """How many cores this process may use: fewer than the machine has under `taskset`, or in a limited container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        microseconds, period = map(int, limit.read_text(encoding="ascii").split())  # "max 100000" if unlimited
    except (OSError, ValueError):
        return cores
    return max(1, min(cores, round(microseconds / period)))


def ordered_map(
    function: Callable[[J], R], items: Iterable[J], *, workers: int | None = None, ahead: int | None = None
) -> Generator[tuple[J, R]]:
    """Yield (item, function(item)) in the order of `items`, computed by threads; see `Pool.map`.

    However the iteration ends (exhausted, an exception, Ctrl-C, the generator closed), waiting work is cancelled, and
    the threads have ended when control returns.

    Args:
        workers: number of threads; by default one per usable core.
        ahead: see `Pool.map`.
    """
    with Threads(function, workers or usable_cores(), name="ordered_map") as pool:
        yield from pool.map(items, ahead=ahead)


def side_by_side(tasks: Sequence[Callable[[], None]]) -> None:
    """Run independent calculations, in one thread per usable core; see `one_blas_thread`."""
    with one_blas_thread():
        for _ in ordered_map(lambda task: task(), tasks, workers=min(len(tasks), usable_cores())):
            pass


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Within it, NumPy's linear algebra has one thread, in all threads of this process.

    Products of a few columns are too small to split between cores, and synchronizing costs more than it saves, ten
    times as much on a busy machine. And a sum depends, in its last digits, on how it is split.
    """
    from threadpoolctl import threadpool_limits  # not installed where bundles are only used

    with threadpool_limits(1, user_api="blas"):
        yield


class WorkerLost(PipelineError):
    """The process that did a job has died, or its machine has gone."""


@dataclass(frozen=True)
class Failed:
    """In place of a result: the exception that the job raised."""

    error: BaseException


class Pool(ABC, Generic[J, R]):
    """Workers that each do one job at a time. A context manager, in which one thread gives jobs and takes results.

    Left normally, it finishes all jobs; left by an exception (Ctrl-C, a full disk), it drops those not yet started.

    Args:
        workers: number of jobs done at once.
    """

    gather = 0.0  # seconds to wait for more results, once there is one

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._numbers = itertools.count()
        self._in_hand: dict[int, J] = {}  # given and not taken yet
        self._done: queue.SimpleQueue[tuple[int, R | Failed]] = queue.SimpleQueue()

    @property
    def has_room(self) -> bool:
        """Whether a worker is idle, or has no further job queued."""
        return len(self._in_hand) < 2 * self._workers

    def give(self, job: J) -> int:
        """Queue a job for the first idle worker; returns the job's number."""
        number = next(self._numbers)
        self._in_hand[number] = job
        self._start(number, job)
        return number

    def take(self, timeout: float) -> list[tuple[J, R | Failed]]:
        """Finished jobs with their results; empty if none finishes within `timeout` seconds."""
        return [(self._in_hand.pop(number), result) for number, result in self._take(timeout)]

    def map(self, items: Iterable[J], *, ahead: int | None = None) -> Iterator[tuple[J, R]]:
        """Yield each item with its result, in order; an exception is raised in place of its item's result.

        Not to be mixed with `give` and `take`.

        Args:
            ahead: how many items are taken from `items` but not yet yielded, at most; this bounds memory.
        """
        items, ahead = iter(items), ahead or _AHEAD * self._workers
        pending: deque[int] = deque()
        done: dict[int, R | Failed] = {}
        while True:
            given = [self.give(item) for item in itertools.islice(items, min(self._workers, ahead - len(pending)))]
            pending.extend(given)
            if not pending:
                return
            if pending[0] not in done:
                done.update(self._take(0.0 if given else _POLL))
                continue
            number = pending.popleft()
            result, item = done.pop(number), self._in_hand.pop(number)
            if isinstance(result, Failed):
                raise result.error
            yield item, result

    def close(self) -> None:
        """Finish all jobs, and end the workers."""
        while self._in_hand:
            self.take(_POLL)
        self._end()

    def cancel(self) -> None:
        """Drop the jobs not yet started, and end the workers."""
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.cancel()

    def _take(self, timeout: float) -> list[tuple[int, R | Failed]]:
        results = []
        with contextlib.suppress(queue.Empty):
            results.append(self._done.get(timeout=timeout))
            time.sleep(self.gather)
            while True:
                results.append(self._done.get_nowait())
        return results

    @abstractmethod
    def _start(self, number: int, job: J) -> None:
        """Start a job; its number and result go into `_done`."""

    @abstractmethod
    def _end(self) -> None:
        """End the workers."""


class Threads(Pool[J, R]):
    """Threads of this process, started when needed.

    Args:
        function: does a job.
        name: of the threads, for debugging.
        abandon: after an exception, do not wait for running jobs, which may be waiting for a slow server. They delay
            neither the program nor its exit.
    """

    def __init__(self, function: Callable[[J], R], workers: int, *, name: str = "pool", abandon: bool = False) -> None:
        super().__init__(workers)
        self._function = function
        self._name, self._abandon = name, abandon
        self._todo: queue.SimpleQueue[tuple[int, J] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def _start(self, number: int, job: J) -> None:
        self._todo.put((number, job))
        if len(self._threads) < min(self._workers, len(self._in_hand)):
            thread = threading.Thread(target=self._work, name=f"{self._name} {len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def cancel(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._todo.get_nowait()
        self._end(wait=not self._abandon)

    def _end(self, *, wait: bool = True) -> None:
        for _ in self._threads:
            self._todo.put(None)
        for thread in self._threads if wait else ():
            thread.join()

    def _work(self) -> None:
        while (given := self._todo.get()) is not None:
            number, job = given
            result: R | Failed
            try:
                result = self._function(job)
            except BaseException as error:  # not swallowed: the caller gets it as the result
                result = Failed(error)
            self._done.put((number, result))


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
