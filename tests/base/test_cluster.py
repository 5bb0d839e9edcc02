"""Work on a cluster: real Ray nodes on this machine, which are killed while they work."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from libraries.base import cluster
from libraries.base.cluster import Cluster, Part, by_parts, connected, parts
from libraries.base.errors import ParameterError, PipelineError, StaleInput
from libraries.base.pool import Failed, Pool, WorkerLost
from libraries.base.processes import Work
from tests.conftest import ROOT

DEADLY = 9999  # the number that kills whoever doubles it
MEMORY = 80 * 2**20  # bytes of a node's object store


class Doubling:
    """Doubles numbers, slowly; some kill their process, one is stale."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        (self._folder / f"worker-{os.getpid()}").touch()

    def __call__(self, job: Sequence[int], /) -> list[int]:
        for number in job:
            if number == DEADLY:
                os.kill(os.getpid(), signal.SIGKILL)
            if number == -1:
                raise StaleInput("number -1 has changed")
            if number == -2:
                raise ZeroDivisionError("by zero")
            time.sleep(0.002)
        (self._folder / f"done-{job[0]}-{os.environ.get('RAY_NODE_ID', '')}").touch()
        return [2 * number for number in job]

    def close(self) -> None:
        """Nothing is open."""


def doubling(folder: Path) -> Work[Part[int], list[int]]:
    return Work(Doubling, {"folder": str(folder)}, lambda part: list(part.items), list)


class Unreliable(Pool[Part[int], list[int]]):
    """A pool in this thread that loses its worker over some items."""

    def __init__(self, deadly: set[int]) -> None:
        super().__init__(2)
        self.deadly, self.given = deadly, []  # type: ignore[var-annotated]

    def _start(self, number: int, job: Part[int]) -> None:
        self.given.append(len(job.items))
        lost = self.deadly & set(job.items)
        self._done.put((number, Failed(WorkerLost("gone")) if lost else [2 * item for item in job.items]))

    def _end(self) -> None:
        """Nothing runs."""


def test_a_lost_worker_costs_only_the_item_that_kills_it() -> None:
    pool = Unreliable({700, 1999})
    found = list(by_parts(pool, range(2000)))
    lost = [part.items[0] for part, result in found if isinstance(result, WorkerLost)]
    doubled = [number for _, result in found if isinstance(result, list) for number in result]
    assert sorted(lost) == [700, 1999]
    assert sorted(doubled) == [2 * i for i in range(2000) if i not in (700, 1999)]
    assert set(pool.given) == {512, 464, 32, 16, 1}


def test_every_item_is_in_one_part() -> None:
    made = parts(range(1300))
    assert [len(part.items) for part in made] == [512, 512, 276]
    assert [i for part in made for i in part.items] == list(range(1300))


@pytest.fixture(scope="module")
def two_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A cluster of two nodes of one core, besides a head that does no work, and a connection to it."""
    ray_nodes = pytest.importorskip("ray.cluster_utils")

    os.environ["PYTHONPATH"], before = str(ROOT), os.environ.get("PYTHONPATH")
    head = {"num_cpus": 0, "object_store_memory": MEMORY, "include_dashboard": False}
    nodes = ray_nodes.Cluster(initialize_head=True, head_node_args=head)
    for _ in range(2):
        nodes.add_node(num_cpus=1, object_store_memory=MEMORY)
    with connected(nodes.address, folder=tmp_path_factory.mktemp("shared")):
        yield nodes
    nodes.shutdown()
    os.environ.pop("PYTHONPATH")
    if before is not None:
        os.environ["PYTHONPATH"] = before


def test_a_node_joins_in_and_loses_nothing_when_it_is_killed(two_nodes: Any, tmp_path: Path) -> None:
    def workers() -> int:
        return len(list(tmp_path.glob("worker-*")))

    def kill_when_it_works(node: Any) -> None:
        while workers() < 3:
            time.sleep(0.05)
        two_nodes.remove_node(node, allow_graceful=False)

    with Cluster(doubling(tmp_path)) as pool:
        results = by_parts(pool, [number for number in range(16000) if number != DEADLY])
        found = [next(results)]
        node = two_nodes.add_node(num_cpus=1, object_store_memory=MEMORY)
        thread = threading.Thread(target=kill_when_it_works, args=(node,), daemon=True)
        thread.start()
        found += results
    assert workers() >= 3
    thread.join(60)
    doubled = [number for _, result in found if isinstance(result, list) for number in result]
    assert sorted(doubled) == [2 * number for number in range(16000) if number != DEADLY]


def test_an_item_that_kills_its_workers_is_left_out_and_others_are_done(
    two_nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "RETRIES", 0)  # a worker takes seconds to start
    with Cluster(doubling(tmp_path)) as pool:
        found = list(by_parts(pool, [*range(40), DEADLY, *range(40, 60)]))
    assert [part.items for part, result in found if isinstance(result, WorkerLost)] == [[DEADLY]]
    assert sum(len(result) for _, result in found if isinstance(result, list)) == 60


@pytest.mark.parametrize(
    ("number", "kind", "text"),
    [(-1, StaleInput, "^number -1 has changed$"), (-2, RuntimeError, r"^ZeroDivisionError: by zero \(on .+\)$")],
)
def test_an_error_of_a_worker_arrives_as_it_is_and_others_name_the_node(
    two_nodes: Any, tmp_path: Path, number: int, kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text), Cluster(doubling(tmp_path)) as pool:
        list(by_parts(pool, [number]))


def test_a_worker_that_cannot_be_set_up_is_an_error(two_nodes: Any, tmp_path: Path) -> None:
    with (
        pytest.raises(PipelineError, match=r"missing.* cannot be used"),
        Cluster(doubling(tmp_path / "missing")) as pool,
    ):
        list(by_parts(pool, [1]))


def test_a_node_that_would_compute_something_else_is_refused() -> None:
    here = {"numpy": "2.4.6", "ray": "2.60.0"}
    same, blind = cluster._Node("same", here, True), cluster._Node("blind", here, False)
    older, without = (
        cluster._Node("old", {**here, "numpy": "1.26"}, True),
        cluster._Node("bare", {"ray": "2.60.0"}, True),
    )
    cluster._compare([same, same], here, folder=Path("/data"))
    for node, text in (
        (blind, r"^node blind does not see /data: choose a rootDir that all nodes share$"),
        (older, r"^numpy is 1.26 on node old, but 2.4.6 here: make them equal$"),
        (without, r"^numpy is missing on node bare, but 2.4.6 here: make them equal$"),
    ):
        with pytest.raises(PipelineError, match=text):
            cluster._compare([same, node], here, folder=Path("/data"))


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray-head", "ray://127.0.0.1:9"])
def test_a_cluster_that_is_not_there_is_one_line(tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pytest.importorskip("ray"), "is_initialized", lambda: False)
    with (
        pytest.raises(ParameterError, match=rf"^cluster = {address} cannot be reached \(.+\): give local, auto, or"),
        connected(address, folder=tmp_path),
    ):
        pass


def test_without_ray_it_is_told_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(ParameterError, match=r"^cluster = local needs Ray: pip install -r requirements-cluster\.txt$"),
        connected("local", folder=tmp_path),
    ):
        pass
