"""Work on a Ray cluster, or on the cores of this machine with Ray: the third kind of `Pool`.

Every job is a Ray task: Ray decides on which node it runs, and takes in nodes that come later. A job and its result are
JSON; the images stay in the folder that all nodes see. A worker is set up once in each process of a node.
"""

import contextlib
import functools
import importlib
import json
import logging
import os
import platform
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from libraries.base.console import counted
from libraries.base.errors import ParameterError, PipelineError
from libraries.base.file_system import TEMPORARY
from libraries.base.pool import Failed, Pool, WorkerLost, usable_cores
from libraries.base.processes import Work, Worker, answer, error_in

J = TypeVar("J")
R = TypeVar("R")
T = TypeVar("T")

NONE = "none"  # instead of a cluster
LOCAL = "local"
_CLIENT = "ray://"  # before an address: Ray's client, for a machine that reaches one port of the head alone

SIZES = (512, 32, 1)  # items of a job; of those that are done instead of one that lost its workers; and of the last
RETRIES = 2  # of a job whose worker, or node, is lost: by Ray
# equal on all nodes, or missing
PACKAGES = ("numpy", "openvino", "pillow", "pillow-heif", "pyarrow", "ray", "timm", "torch")

_LIBRARIES = Path(__file__).parents[1]
_OBJECT_STORE = 100 * 2**20  # bytes; nothing large passes through it
_LOOK_AGAIN = 5.0  # seconds after which the size of the cluster is asked again
_ANSWERING = 10.0  # seconds in which the head must answer
_RESTARTING = 25.0  # seconds in which a head that has gone must answer again
_GO_ON = "start it, and run again; what was computed is kept"
_STARTING = 120.0  # seconds in which a node must answer
_TOKEN = Path("~/.ray/auth_token")  # where Ray looks for it
_ONE_GPU = {"RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1"}  # `given` tells which: PyTorch sees all of the node
_PER_GPU = 2  # jobs at once, so that one loads images while the other computes
_QUIET = {
    "RAY_DEDUP_LOGS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_ENABLE_AUTO_CONNECT": "0",  # once the connection is lost, do not look for another cluster
}


@contextlib.contextmanager
def connected(cluster: str, *, folder: Path) -> Iterator[None]:
    """A connection to a cluster during the block: 'local', 'auto', or an address; none if there is one already.

    Args:
        folder: that all nodes must see.

    Raises:
        ParameterError: Ray is not installed, or there is no such cluster.
        PipelineError: a node does not see the folder, or has other versions.
    """
    try:
        for name, value in _environment().items():
            os.environ.setdefault(name, value)
        import ray
    except ImportError as error:
        raise ParameterError(f"cluster = {cluster} needs Ray: pip install -r requirements-cluster.txt") from error
    if ray.is_initialized():
        yield
        return
    if cluster not in (LOCAL, "auto"):
        _check_address(cluster)
    where: dict[str, Any] = {"address": cluster, "runtime_env": {"py_modules": [str(_LIBRARIES)]}}
    if cluster == LOCAL:
        where = {"address": "local", "num_cpus": usable_cores(), "object_store_memory": _OBJECT_STORE}
        where |= {"include_dashboard": False, "runtime_env": {"env_vars": {"PYTHONPATH": str(_LIBRARIES.parent)}}}
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    ray._private.worker.print_to_stdstream = lambda *message, **about: None  # what has died is told by `by_parts`
    try:
        ray.init(**where, log_to_driver=False, configure_logging=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ParameterError(f"cluster = {cluster} cannot be reached: {reason}") from error
    try:
        logging.getLogger("ray").setLevel(logging.CRITICAL)  # Ray's client sets it, too
        _check_nodes(folder)
        yield
    except PipelineError:
        raise
    except Exception as error:
        if ray.is_initialized():
            raise
        raise PipelineError(f"the head of the cluster has gone: {_GO_ON}") from error  # the client has given up
    finally:
        ray.shutdown()


def _environment() -> dict[str, str]:
    """What Ray is told by environment variables, unless the user has set them.

    `cluster = local` makes a token, and once there is one, `ray start --head` asks for it; but a process that connects
    sends it only if it is told to.
    """
    has_token = "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ or _TOKEN.expanduser().exists()
    return {**_QUIET, "RAY_AUTH_MODE": "token"} if has_token else _QUIET


def _check_address(address: str) -> None:
    """Make sure that something answers there: Ray itself would try for minutes."""
    try:
        _answers(address)
    except (OSError, ValueError) as error:
        raise ParameterError(
            f"cluster = {address} cannot be reached ({error}): give local, auto, or the address of the head, such as "
            "ray-head:6379"
        ) from error


def _answers(address: str) -> None:
    """Raise OSError if nothing does at host:port, or ray://host:port; ValueError if it is no such address."""
    host, _, port = address.removeprefix(_CLIENT).rpartition(":")
    socket.create_connection((host, int(port)), timeout=_ANSWERING).close()


@dataclass(frozen=True)
class _Description:
    """What a node is."""

    name: str
    versions: Mapping[str, str]
    sees_folder: bool


def _this_node(marker: str) -> str:
    """`_Description` of the node where this runs, as JSON."""
    found = {name: metadata.version(name) for name in PACKAGES if _is_installed(name)}
    versions = {"Python": ".".join(platform.python_version_tuple()[:2]), **found}
    return json.dumps({"name": platform.node(), "versions": versions, "sees_folder": Path(marker).exists()})


def _is_installed(package: str) -> bool:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return bool(metadata.version(package))
    return False


def _check_nodes(folder: Path) -> None:
    """Make sure that all nodes see the folder, and have the same packages as this process."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    folder.mkdir(parents=True, exist_ok=True)
    marker = folder / f"{TEMPORARY}{os.getpid()}-{time.time_ns()}"
    marker.touch()
    nodes: list[_Description] = []
    try:
        task = ray.remote(num_cpus=0, max_retries=0)(_this_node)
        alive = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
        there = [NodeAffinitySchedulingStrategy(node, soft=False) for node in alive]
        for found in [task.options(scheduling_strategy=node).remote(str(marker)) for node in there]:
            with contextlib.suppress(ray.exceptions.TaskUnschedulableError):  # the node has just gone
                nodes.append(_Description(**json.loads(ray.get(found, timeout=_STARTING))))
    except ray.exceptions.RayError as error:
        reason = first_line(error)
        raise PipelineError(
            f"a node of the cluster does not answer ({reason}): start all of them, and this script, with the same token"
        ) from error
    finally:
        marker.unlink()
    _compare(nodes, json.loads(_this_node(str(marker)))["versions"], folder=folder)


def _compare(nodes: Sequence[_Description], here: Mapping[str, str], *, folder: Path) -> None:
    """Refuse nodes that do not see the folder, or have other versions than `here`."""
    for node in nodes:
        if not node.sees_folder:
            raise PipelineError(f"node {node.name} does not see {folder}: choose a rootDir that all nodes share")
        for name in sorted(here.keys() | node.versions.keys()):
            there_is, here_is = (versions.get(name, "missing") for versions in (node.versions, here))
            if there_is != here_is:
                raise PipelineError(f"{name} is {there_is} on node {node.name}, but {here_is} here: make them equal")


def first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


class Node(NamedTuple):
    """A node that works.

    Attributes:
        id: Ray's.
    """

    id: str
    cores: int
    gpus: int


class Nodes:
    """The nodes of the cluster that is connected.

    Args:
        told: called with its size, 'Cluster: 2 nodes, 8 cores', whenever it has changed.
    """

    def __init__(self, told: Callable[[str], object]) -> None:
        self._told, self._size = told, ""
        self._nodes: list[Node] = []
        self._looked, self._answered = float("-inf"), time.monotonic()

    def look(self) -> list[Node]:
        """The nodes with at least one core, as they were a few seconds ago.

        Raises:
            PipelineError: the head has gone. Ray would end this process after a minute.
        """
        import ray

        now = time.monotonic()
        if now - self._looked < _LOOK_AGAIN:
            return self._nodes
        self._looked = now
        if not ray.util.client.ray.is_connected() and not self._head_answers():
            return self._nodes
        found = [(node["NodeID"], node["Resources"]) for node in ray.nodes() if node["Alive"]]
        nodes = [Node(name, int(has.get("CPU", 0)), int(has.get("GPU", 0))) for name, has in found]
        self._nodes = sorted(node for node in nodes if node.cores)
        cores, gpus = sum(node.cores for node in self._nodes), sum(node.gpus for node in self._nodes)
        size = ", ".join(
            [counted(len(self._nodes), "node"), counted(cores, "core"), *([counted(gpus, "GPU")] if gpus else [])]
        )
        if size != self._size:
            self._size = size
            self._told(f"Cluster: {size}")
        return self._nodes

    def _head_answers(self) -> bool:
        """Whether it does now; raises PipelineError if it has not for long."""
        import ray

        head = ray.get_runtime_context().gcs_address
        try:
            _answers(head)
        except OSError as error:
            if time.monotonic() - self._answered < _RESTARTING:
                return False
            raise PipelineError(f"the head of the cluster, {head}, has gone ({error}): {_GO_ON}") from error
        self._answered = time.monotonic()
        return True


def may_use_gpus(nodes: Sequence[Node], *, device: str) -> bool:
    """Whether there are GPUs, and `device` is 'auto' or 'cuda'.

    Raises:
        ParameterError: it is 'cuda', and there is none.
    """
    has_gpus = any(node.gpus for node in nodes)
    if device == "cuda" and not has_gpus:
        raise ParameterError("device = cuda: no node of the cluster has a GPU; use auto or cpu")
    return device in ("auto", "cuda") and has_gpus


class Given(NamedTuple):
    """What a job of a cluster may use.

    Attributes:
        device: "cpu", or a GPU of the node as PyTorch names it, such as "cuda:1".
    """

    cores: int
    device: str


def given() -> Given:
    """What Ray has given to the job that asks."""
    import ray

    context = ray.get_runtime_context()
    cores = max(1, int(context.get_assigned_resources().get("CPU", 1)))
    gpus = context.get_accelerator_ids()["GPU"]
    if not gpus:
        return Given(cores, "cpu")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")  # PyTorch counts these alone, Ray names them
    return Given(cores, f"cuda:{visible.split(',').index(gpus[0]) if visible else gpus[0]}")


class Cluster(Pool[J, R]):
    """One core of the cluster for each job, or half a GPU; see `connected`.

    A job whose worker is lost fails with WorkerLost.
    """

    goes_on = True

    def __init__(
        self,
        work: Work[J, R],
        *,
        told: Callable[[str], object] = lambda size: None,
        per_core: int = 1,
        device: str = "cpu",
    ) -> None:
        """
        Args:
            work: its worker learns from `given` where it is.
            told: called with the size of the cluster, 'Cluster: 2 nodes, 8 cores', whenever it has changed.
            per_core: jobs at once, each in a process of its own; several where they wait for something else.
            device: "cpu"; or see `may_use_gpus`: they do all the work, each with its share of the cores of its node.

        Raises:
            ParameterError: see `may_use_gpus`.
        """
        import ray

        super().__init__(1)
        self._ray, self._work, self._per_core = ray, work, per_core
        self._order = order_of(work)
        self._task = ray.remote(num_cpus=1 / per_core, max_retries=RETRIES)(_do)
        self._numbers_of: dict[Any, int] = {}  # by Ray's reference to the result
        self._nodes = Nodes(told)
        if may_use_gpus(found := self._nodes.look(), device=device):
            cores = min(node.cores // node.gpus for node in found if node.gpus)
            self._per_core = 0
            self._task = ray.remote(
                num_gpus=1 / _PER_GPU,
                num_cpus=max(1, cores // _PER_GPU),
                max_retries=RETRIES,
                max_calls=0,  # by default, a process that has used a GPU would end after a job
                runtime_env={"env_vars": _ONE_GPU},
            )(_do)

    @property
    def has_room(self) -> bool:
        self._look_again()
        return super().has_room

    def _look_again(self) -> None:
        at_once = [self._per_core * node.cores or _PER_GPU * node.gpus for node in self._nodes.look()]
        self._workers = max(1, sum(at_once))

    def _start(self, number: int, job: J) -> None:
        reference = self._task.remote(self._order, json.dumps([number, self._work.encode(job)]))
        self._numbers_of[reference] = number

    def _take(self, timeout: float) -> list[tuple[int, R | Failed]]:
        self._look_again()
        if not self._numbers_of:
            return []
        waiting = list(self._numbers_of)
        done, _ = self._ray.wait(waiting, num_returns=1, timeout=timeout)
        more, _ = self._ray.wait(waiting, num_returns=len(waiting), timeout=0)
        return [(self._numbers_of.pop(reference), self._result(reference)) for reference in {*done, *more}]

    def _result(self, reference: Any) -> R | Failed:
        try:
            found = json.loads(self._ray.get(reference))
        except self._ray.exceptions.RayTaskError as error:
            return Failed(PipelineError(f"a worker of the cluster failed: {first_line(error.cause)}"))
        except self._ray.exceptions.RayError as error:  # its process, or its node, has gone
            return Failed(WorkerLost(f"a worker of the cluster was lost: {first_line(error)}"))
        return Failed(error_in(found)) if "error" in found else self._work.decode(found["result"])

    def _end(self) -> None:
        for reference in self._numbers_of:
            self._ray.cancel(reference, force=True)
        self._numbers_of.clear()


def _do(order: str, line: str) -> str:
    """Do a job in a process of the cluster; its answer, as of a process of `Processes`."""
    return answer(lambda job: _kept(order, given())(job), line.encode(), where=platform.node()).decode()


def order_of(work: Work[J, R]) -> str:
    """What `worker_for` needs on another machine."""
    return json.dumps([work.setup.__module__, work.setup.__name__, work.settings], sort_keys=True)


def worker_for(order: str) -> Worker:
    """The worker of a `Work`."""
    module, setup, settings = json.loads(order)
    worker: Worker = getattr(importlib.import_module(module), setup)(**settings)
    return worker


@functools.lru_cache(1)
def _kept(order: str, _place: Given) -> Worker:
    """The worker of this process; a new one once Ray has given it another GPU."""
    return worker_for(order)


@dataclass(frozen=True)
class Part(Generic[T]):
    """Items that are one job, on a try [an index of SIZES]."""

    items: Sequence[T]
    attempt: int = 0

    def smaller(self) -> "list[Part[T]]":
        """The jobs to try instead after a worker was lost; none after the last try."""
        if self.attempt + 1 == len(SIZES):
            return []
        return parts(self.items, attempt=self.attempt + 1)


def parts(items: Sequence[T], *, attempt: int = 0) -> list[Part[T]]:
    size = SIZES[attempt]
    return [Part(items[start : start + size], attempt) for start in range(0, len(items), size)]


def by_parts(pool: Pool[Part[T], R], items: Sequence[T]) -> Iterator[tuple[Part[T], R | WorkerLost]]:
    """Yield jobs of the items with their results, as they are done.

    A job that loses its workers is done again in smaller ones, at last item by item: an item that still does, such as
    an image for which there is not enough memory, has the error as its result.
    """
    todo, given = deque(parts(items)), 0
    while todo or given:
        while todo and pool.has_room:
            pool.give(todo.popleft())
            given += 1
        for part, result in pool.take(1.0):
            given -= 1
            if not isinstance(result, Failed):
                yield part, result
            elif not isinstance(result.error, WorkerLost):
                raise result.error
            elif smaller := part.smaller():
                todo.extendleft(reversed(smaller))
            else:
                yield part, WorkerLost("it stopped every worker of the cluster, perhaps for lack of memory")
