"""Work that several processes of a cluster do together, each on a GPU of its own or on all cores of a node.

Ray starts them where there is room, and says when one is lost. Then all begin anew, on the nodes that are left, and the
work itself goes on from what it has saved; so they do when nodes have joined.
"""

import contextlib
import json
import platform
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from libraries.base.cluster import Node, Nodes, first_line, order_of, worker_for
from libraries.base.errors import PipelineError
from libraries.base.pool import WorkerLost
from libraries.base.processes import Work, Worker, answer, error_in

R = TypeVar("R")

_STARTS = 4  # without progress, after which the work is given up
_PAUSE = 5.0  # seconds before a new start: Ray takes some to notice that a node is gone
_STARTING = 120.0  # seconds in which every process must have started
_OTHERS = 60.0  # seconds in which the loss of one process ends the others, and Ray notices a node that is gone
_LOOK = 1.0  # seconds between two looks at the progress


@dataclass(frozen=True)
class Place:
    """Where a process of a group works.

    Attributes:
        rank: its number among `size` processes.
        address: host:port that the first one may listen at, for all to meet.
        cores: that it may use.
        has_gpu: whether it has a GPU to itself.
    """

    rank: int
    size: int
    address: str
    cores: int
    has_gpu: bool


class GroupWorker(Worker, Protocol):
    """What a process does: a job is a `Place` as JSON.

    Attributes:
        progress: how far the work is, a JSON object; 'saved' counts what a new start would not repeat.
    """

    progress: dict[str, Any]


class _Regroup(Exception):
    """Nodes have joined."""


def places(nodes: list[Node], *, most: int, use_gpus: bool) -> list[Node]:
    """Where processes are started, as nodes of which each stands for one process: at most `most`.

    Every GPU has one, with its part of the node's cores; if there is no GPU, every node.
    """
    if use_gpus and any(node.gpus for node in nodes):
        of_gpu = [
            (node._replace(cores=max(1, node.cores // node.gpus), gpus=1), node.gpus) for node in nodes if node.gpus
        ]
        return [node for node, count in of_gpu for _ in range(count)][:most]
    return [node._replace(gpus=0) for node in nodes][:most]


def work_together(
    work: Work[Place, R],
    nodes: Nodes,
    *,
    most: int,
    use_gpus: bool,
    progress: Callable[[dict[str, Any]], object] = lambda found: None,
    told: Callable[[str], object] = lambda line: None,
) -> list[R]:
    """Let a group do the work, on the cluster that is connected; returns the results in the order of the ranks.

    Args:
        work: its worker is a `GroupWorker`.
        nodes: of the cluster.
        most: number of processes at most.
        progress: called with that of the first process, about once a second.
        told: called with lines about new starts.

    Raises:
        PipelineError: an error of the work; or it is lost again and again without progress; or the head has gone.
    """
    saved, starts = -1, 0
    while True:
        group = _Group(work, lambda: places(nodes.look(), most=most, use_gpus=use_gpus))
        try:
            return group.run(progress)
        except _Regroup:
            told("Nodes have joined: going on with them")
        except WorkerLost as error:
            if group.saved > saved:
                saved, starts = group.saved, 0
            starts += 1
            if starts == _STARTS:
                raise PipelineError(f"the cluster has lost the work {_STARTS} times ({error}): run again") from error
            told("A process was lost: starting again from what is saved")
            time.sleep(_PAUSE)
        finally:
            group.end()


class _Group:
    """One start of the processes.

    Attributes:
        saved: of the progress, by the first process; -1 if it is not known.
    """

    def __init__(self, work: Work[Place, R], look: Callable[[], list[Node]]) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._ray, self._work, self._now = ray, work, look
        self._places = look()
        self.saved = -1
        actor = ray.remote(_Process)
        self._processes = [
            actor.options(
                num_cpus=place.cores,
                num_gpus=place.gpus,
                max_concurrency=2,  # its work, and the question how far it is
                scheduling_strategy=NodeAffinitySchedulingStrategy(place.id, soft=False),
            ).remote(order_of(work))
            for place in self._places
        ]

    def run(self, progress: Callable[[dict[str, Any]], object]) -> list[Any]:
        """The results.

        Raises:
            WorkerLost: a process has gone, or cannot reach the others.
            _Regroup: there are more nodes, and something has just been saved.
            PipelineError: an error of the work; or the head has gone.
        """
        address = self._address()
        running = {}
        for rank, (process, node) in enumerate(zip(self._processes, self._places, strict=True)):
            place = Place(rank, len(self._places), address, node.cores, bool(node.gpus))
            running[process.work.remote(json.dumps([rank, self._work.encode(place)]))] = rank
        results: dict[int, Any] = {}
        while running:
            done, _ = self._ray.wait(list(running), num_returns=1, timeout=_LOOK)
            for reference in done:
                try:
                    results[running[reference]] = self._result(reference)
                except WorkerLost:
                    self._wait_for_the_others(running)
                    raise
                del running[reference]
            if not done:
                self._look(progress)
        return [results[rank] for rank in range(len(self._places))]

    def end(self) -> None:
        """Stop all processes."""
        for process in self._processes:
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ray.kill(process)

    def _address(self) -> str:
        """Where the processes meet, once all have started."""
        if not self._processes:
            raise WorkerLost("it has no node that works")
        try:
            return str(self._ray.get([process.address.remote() for process in self._processes], timeout=_STARTING)[0])
        except self._ray.exceptions.GetTimeoutError as error:
            raise PipelineError(
                f"the cluster had no room for {len(self._processes)} processes for {_STARTING:.0f} seconds: wait until "
                "other work on it has ended, and run again"
            ) from error
        except self._ray.exceptions.RayError as error:
            raise WorkerLost(f"a process of the cluster was lost: {first_line(error)}") from error

    def _result(self, reference: Any) -> Any:
        try:
            found = json.loads(self._ray.get(reference))
        except self._ray.exceptions.RayError as error:
            raise WorkerLost(f"a process of the cluster was lost: {first_line(error)}") from error
        if "error" not in found:
            return self._work.decode(found["result"])
        failure = error_in(found)
        if isinstance(failure, PipelineError):
            raise failure
        raise WorkerLost(first_line(failure))  # perhaps since it does not reach another one

    def _wait_for_the_others(self, running: dict[Any, int]) -> None:
        """Raise the error of the work, if that is why one was lost; let Ray notice a node that is gone."""
        ended, _ = self._ray.wait(list(running), num_returns=len(running), timeout=_OTHERS)
        for reference in ended:
            with contextlib.suppress(WorkerLost):
                self._result(reference)

    def _look(self, progress: Callable[[dict[str, Any]], object]) -> None:
        """Ask how far the work is, and whether there are more nodes; raises PipelineError if the head has gone."""
        has_more = len(self._now()) > len(self._places)
        try:
            found = json.loads(self._ray.get(self._processes[0].progress.remote(), timeout=5 * _LOOK))
        except self._ray.exceptions.RayError:  # it is busy, or has gone, which its work tells
            return
        progress(found)
        before, self.saved = self.saved, found.get("saved", -1)
        if self.saved > before >= 0 and has_more:
            raise _Regroup


class _Process:
    """A process of a group, as Ray's actor."""

    def __init__(self, order: str) -> None:
        self._worker: Any = worker_for(order)

    def address(self) -> str:
        """host:port that is free on this node."""
        import ray

        with socket.socket() as found:
            found.bind(("", 0))
            return f"{ray.util.get_node_ip_address()}:{found.getsockname()[1]}"

    def work(self, line: str) -> str:
        """Do the work; the answer, as of a process of `Processes`."""
        return answer(self._worker, line.encode(), where=platform.node()).decode()

    def progress(self) -> str:
        """How far it is."""
        return json.dumps(self._worker.progress)
