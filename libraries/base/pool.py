"""The same function over many items, side by side: in their order (`ordered_map`), or given and taken one by one.

Who does the work is one of two kinds of `Pool`: `Threads` of this process, or `Processes` of several threads each, for
work that holds the GIL; `open_pool` takes whichever is asked for. The machines of a cluster would be a third: all they
need to know is `Work`, which can be told to another process without pickle.
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
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Generic, Protocol, Self, TypeVar

from libraries.base.errors import PipelineError, StorageError
from libraries.base.file_system import file_error

J = TypeVar("J")
R = TypeVar("R")

_AHEAD = 32  # items per worker: keeps all busy while the consumer does something else for a moment
_POLL = 0.5  # seconds; Ctrl-C is noticed at the latest then
_GATHER = 0.003  # seconds; answers of processes come in handfuls, or each would wake this one
_ROOT = Path(__file__).parents[2]
_APART: dict[str, Any]  # Ctrl-C is for this process alone, which then ends the others
if sys.platform == "win32":
    _APART = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
else:
    _APART = {"start_new_session": True}


def usable_cores(limit: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """The cores this process may use; fewer than the machine's under `taskset`, or in a container with a `limit`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        microseconds, period = map(int, limit.read_text(encoding="ascii").split())  # "max 100000" where there is none
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
        workers: threads; as many as there are usable cores by default.
    """
    with Threads(function, workers or usable_cores(), name="ordered_map") as pool:
        yield from pool.map(items, ahead=ahead)


def side_by_side(tasks: Sequence[Callable[[], None]], *, at_most: int) -> None:
    """Run independent calculations in up to `at_most` threads, or one after the other if that is 1.

    Side by side, numpy's linear algebra is held to one thread: products of a few columns are too small to share between
    cores, and waiting for each other costs more than it gains, ten times as much on a machine that others use too.
    """
    workers = min(at_most, len(tasks), usable_cores())
    if workers <= 1:
        for task in tasks:
            task()
        return
    from threadpoolctl import threadpool_limits  # not there where bundles are only used

    with threadpool_limits(1, user_api="blas"):
        for _ in ordered_map(lambda task: task(), tasks, workers=workers):
            pass


@dataclass(frozen=True)
class Failed:
    """In place of a result: what was raised."""

    error: BaseException


class Pool(ABC, Generic[J, R]):
    """Workers that each do one job at a time; a context, in which one thread gives jobs and takes results.

    At its regular end all that was given is done; when it ends by an exception (Ctrl-C, a full disk), what was not
    begun is dropped.

    Args:
        workers: jobs done at once.
    """

    gather = 0.0  # seconds to wait for more results, once there is one

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._numbers = itertools.count()
        self._in_hand: dict[int, J] = {}  # given and not taken yet
        self._done: queue.SimpleQueue[tuple[int, R | Failed]] = queue.SimpleQueue()

    @property
    def has_room(self) -> bool:
        """Whether a worker is idle, or has no next job lying ready."""
        return len(self._in_hand) < 2 * self._workers

    def give(self, job: J) -> int:
        """Let a worker do a job, the first that is idle; its number."""
        number = next(self._numbers)
        self._in_hand[number] = job
        self._start(number, job)
        return number

    def take(self, timeout: float) -> list[tuple[J, R | Failed]]:
        """The jobs that were done and their results; empty if there is none within `timeout` seconds."""
        return [(self._in_hand.pop(number), result) for number, result in self._take(timeout)]

    def map(self, items: Iterable[J], *, ahead: int | None = None) -> Iterator[tuple[J, R]]:
        """Each item with its result, in order; an exception is raised in its item's place. Not beside give and take.

        Args:
            ahead: so many items, at most, are taken from `items` and not yet yielded: memory stays bounded however
                long the stream.
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
        """Finish what was given, and end the workers."""
        while self._in_hand:
            self.take(_POLL)
        self._end()

    def cancel(self) -> None:
        """Drop what was given, and end the workers."""
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
        found = []
        with contextlib.suppress(queue.Empty):
            found.append(self._done.get(timeout=timeout))
            time.sleep(self.gather)
            while True:
                found.append(self._done.get_nowait())
        return found

    @abstractmethod
    def _start(self, number: int, job: J) -> None:
        """Have a job done, and its number and result put into `_done`."""

    @abstractmethod
    def _end(self) -> None:
        """End the workers."""


class Threads(Pool[J, R]):
    """Threads of this process, started as they are needed.

    Args:
        function: what is done with a job.
        name: of the threads, for those who look at them.
        abandon: after an exception, do not wait for jobs in hand, which may wait long for somebody else. They hold up
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
            except BaseException as error:  # not swallowed: whoever takes the result decides
                result = Failed(error)
            self._done.put((number, result))


class Worker(Protocol):
    """What is done with a job, by the threads of one process; both the job and the result can be written as JSON."""

    def __call__(self, job: Any, /) -> Any: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Work(Generic[J, R]):
    """Work that can be told to another process.

    Attributes:
        setup: a function of a module; called once in each process, gives what does the jobs there.
        settings: its keyword arguments, which can be written as JSON.
        encode: a job, as JSON can be made of it.
        decode: the result, of what was made of JSON.
    """

    setup: Callable[..., Worker]
    settings: dict[str, Any]
    encode: Callable[[J], Any]
    decode: Callable[[Any], R]


@contextlib.contextmanager
def open_pool(work: Work[J, R], *, processes: int, threads: int) -> Iterator[Pool[J, R]]:
    """So many processes of so many threads each, or, if it is one, threads of this process."""
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

    Each is told on its standard input what to do, and answers on its standard output, one line of JSON for each job. It
    ends at once when its input ends, so that nothing goes on after this process was killed.
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
        self.numbers: set[int] = set()  # of the jobs that it has
        self._decode = work.decode
        self._done = done
        self._has_ended = threading.Event()
        path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__, work.setup.__module__, work.setup.__name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
            **_APART,
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
            answer = json.loads(line)
            number = answer["number"]
            self.numbers.remove(number)
            self._done.put((number, Failed(_error(answer)) if "error" in answer else self._decode(answer["result"])))
        self._has_ended.set()
        self._give_up()

    def _give_up(self) -> None:
        """Hand back what a process that has ended will not do."""
        died = PipelineError("a process that does part of the work has died, of lack of memory perhaps: run again")
        for number in list(self.numbers):
            with contextlib.suppress(KeyError):  # two threads may be here
                self.numbers.remove(number)
                self._done.put((number, Failed(died)))


def _answer(worker: Worker, line: bytes) -> bytes:
    """What a process answers to a line: the result of the job in it, or what is told of an error."""
    number, job = json.loads(line)
    answer: dict[str, Any] = {"number": number}
    try:
        answer["result"] = worker(job)
    except Exception as error:  # not swallowed: whoever asked decides
        of_file = file_error(error) if isinstance(error, OSError) else None
        told = of_file if of_file is not None else error
        answer["error"] = str(told) if isinstance(told, StorageError) else f"{type(told).__name__}: {told}"
        answer["of_storage"] = isinstance(told, StorageError)
    return json.dumps(answer).encode() + b"\n"


def _error(answer: dict[str, Any]) -> Exception:
    return (StorageError if answer["of_storage"] else RuntimeError)(answer["error"])


def _serve(module: str, setup: str) -> None:
    """Do what the lines of standard input ask for, the first of which says how, until they end."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # should a library print something
    order = json.loads(sys.stdin.buffer.readline())
    worker = getattr(importlib.import_module(module), setup)(**order["settings"])
    todo: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    lock = threading.Lock()

    def work() -> None:
        while True:
            answer = _answer(worker, todo.get())
            with lock:
                answers.write(answer)
                answers.flush()

    for _ in range(order["threads"]):
        threading.Thread(target=work, daemon=True).start()
    for line in sys.stdin.buffer:
        todo.put(line)
    os._exit(0)  # whoever asked has all answers, or has died


if __name__ == "__main__":
    _serve(*sys.argv[1:])
