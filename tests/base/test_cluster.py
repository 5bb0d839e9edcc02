"""Work on a cluster, and scripts on one: real Ray nodes on this machine, which are killed while they work.

The nodes take a minute or two to start: `make test` runs one test with them, `make test-cluster` the others, too.
"""

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from libraries.base import cluster
from libraries.base.cluster import Cluster, Part, by_parts, connected, parts
from libraries.base.errors import ParameterError, PipelineError, StaleInput
from libraries.base.pool import Failed, Pool, WorkerLost
from libraries.base.processes import Work
from libraries.base.worker_group import places
from tests.conftest import ROOT, SCRIPTS, data_dir, run_main, small_run

MEMORY = 80 * 2**20  # bytes of a node's object store
TRIES = 3  # Ray gives a node 30 seconds to start, which may be too few beside other tests
DEADLY = 9999  # the number that kills whoever doubles it
IMAGES = 1100  # of which three jobs are made
FILES = ("examples.csv", "duplicates.csv", "quality.csv", "features_svm/part-00000.parquet")


@pytest.fixture(autouse=True, scope="module")
def no_tokens() -> Iterator[None]:
    """Nodes ask for no token, whatever Ray has left in the home folder; a process reads this only once."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_AUTH_MODE", "disabled")
        yield


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


@contextlib.contextmanager
def two_nodes() -> Iterator[Any]:
    """Two nodes of one core, besides a head that does no work: a `ray.cluster_utils.Cluster`."""
    pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", str(ROOT))
        nodes = next((started for started in (_start() for _ in range(TRIES)) if started is not None), None)
        if nodes is None:
            pytest.skip(f"Ray did not start in {TRIES} tries")
        try:
            yield nodes
        finally:
            nodes.shutdown()


def _start() -> Any:
    """The nodes; None if they took too long."""
    from ray import cluster_utils

    nodes = cluster_utils.Cluster()
    try:
        nodes.add_node(num_cpus=0, object_store_memory=MEMORY, include_dashboard=False)
        for _ in range(2):
            nodes.add_node(num_cpus=1, object_store_memory=MEMORY)
    except Exception as error:
        nodes.shutdown()
        if "timed out during startup" in str(error):
            return None
        raise
    return nodes


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A cluster, and a connection to it."""
    with two_nodes() as nodes, connected(nodes.address, folder=tmp_path_factory.mktemp("shared")):
        yield nodes


@pytest.mark.cluster
def test_a_node_joins_in_and_loses_nothing_when_it_is_killed(
    nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_LOOK_AGAIN", 0.5)
    sizes: list[str] = []

    def workers() -> int:
        return len(list(tmp_path.glob("worker-*")))

    def kill_when_it_works(node: Any) -> None:
        while workers() < 3:
            time.sleep(0.05)
        nodes.remove_node(node, allow_graceful=False)

    with Cluster(doubling(tmp_path), told=sizes.append) as pool:
        results = by_parts(pool, [number for number in range(16000) if number != DEADLY])
        found = [next(results)]
        node = nodes.add_node(num_cpus=1, object_store_memory=MEMORY)
        thread = threading.Thread(target=kill_when_it_works, args=(node,), daemon=True)
        thread.start()
        found += results
    assert workers() >= 3
    thread.join(60)
    doubled = [number for _, result in found if isinstance(result, list) for number in result]
    assert sorted(doubled) == [2 * number for number in range(16000) if number != DEADLY]
    assert sizes[:2] == ["Cluster: 2 nodes, 2 cores", "Cluster: 3 nodes, 3 cores"]


@pytest.mark.cluster
def test_an_item_that_kills_its_workers_is_left_out_and_others_are_done(
    nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "RETRIES", 0)  # a worker takes seconds to start
    with Cluster(doubling(tmp_path)) as pool:
        found = list(by_parts(pool, [*range(40), DEADLY, *range(40, 60)]))
    assert [part.items for part, result in found if isinstance(result, WorkerLost)] == [[DEADLY]]
    assert sum(len(result) for _, result in found if isinstance(result, list)) == 60


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("number", "kind", "text"),
    [(-1, StaleInput, "^number -1 has changed$"), (-2, RuntimeError, r"^ZeroDivisionError: by zero \(on .+\)$")],
)
def test_an_error_of_a_worker_arrives_as_it_is_and_others_name_the_node(
    nodes: Any, tmp_path: Path, number: int, kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text), Cluster(doubling(tmp_path)) as pool:
        list(by_parts(pool, [number]))


class Telling:
    """Tells, for each number, the process and what Ray has given to it."""

    def __init__(self) -> None:
        self._place = cluster.given()

    def __call__(self, job: Sequence[int], /) -> list[Any]:
        time.sleep(0.2)
        assert cluster.given() == self._place, "a new worker is made for another GPU"
        return [os.getpid(), *self._place]

    def close(self) -> None:
        """Nothing is open."""


@pytest.mark.cluster
def test_gpus_do_all_the_work_where_there_are_any(nodes: Any) -> None:
    """A node that claims to have two. PyTorch must not be told to see one alone: it looks only once in a process."""
    work = Work(Telling, {}, lambda part: list(part.items), list)
    with pytest.raises(ParameterError, match=r"^device = cuda: no node of the cluster has a GPU; use auto or cpu$"):
        Cluster(work, device="cuda")
    node = nodes.add_node(num_cpus=8, num_gpus=2, object_store_memory=MEMORY)
    try:
        with Cluster(work, device="auto") as pool:
            found = [result for _, result in by_parts(pool, range(30 * cluster.SIZES[0]))]
        assert {tuple(place) for _, *place in found} == {(2, "cuda:0"), (2, "cuda:1")}
        assert len({process for process, *_ in found}) <= 8, "a process does many jobs"
        with Cluster(work, device="cpu") as pool:
            assert {result[2] for _, result in by_parts(pool, range(5000))} == {"cpu"}
    finally:
        nodes.remove_node(node, allow_graceful=False)


@pytest.mark.cluster
def test_a_worker_that_cannot_be_set_up_is_an_error(nodes: Any, tmp_path: Path) -> None:
    with (
        pytest.raises(PipelineError, match=r"missing.* cannot be used"),
        Cluster(doubling(tmp_path / "missing")) as pool,
    ):
        list(by_parts(pool, [1]))


@pytest.mark.cluster
def test_a_head_that_has_gone_is_one_line(nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(address: str) -> None:
        raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")

    monkeypatch.setattr(cluster, "_RESTARTING", 1.0)
    monkeypatch.setattr(cluster, "_LOOK_AGAIN", 0.1)
    text = rf"^the head of the cluster, {nodes.address}, has gone \(.+ refused\): start it, and run again;"
    with pytest.raises(PipelineError, match=text), Cluster(doubling(tmp_path)) as pool:
        results = by_parts(pool, range(3000))
        next(results)
        monkeypatch.setattr(cluster, "_answers", refuses)
        list(results)


def test_a_node_that_would_compute_something_else_is_refused() -> None:
    here = {"numpy": "2.4.6", "ray": "2.60.0"}
    same, blind = cluster._Description("same", here, True), cluster._Description("blind", here, False)
    older, without = (
        cluster._Description("old", {**here, "numpy": "1.26"}, True),
        cluster._Description("bare", {"ray": "2.60.0"}, True),
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


def test_every_gpu_or_every_node_has_a_process() -> None:
    plain, rich = cluster.Node("a", 4, 0), cluster.Node("b", 8, 2)
    of_gpu = cluster.Node("b", 4, 1)
    assert places([plain, rich], most=9, use_gpus=True) == [of_gpu, of_gpu]
    assert places([plain, rich], most=1, use_gpus=True) == [of_gpu]
    assert places([plain, rich], most=9, use_gpus=False) == [plain, cluster.Node("b", 8, 0)]
    assert places([plain], most=9, use_gpus=True) == [plain]
    assert places([], most=9, use_gpus=True) == []


@pytest.mark.parametrize("where", ["file", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "nowhere"])
def test_a_token_is_sent_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """`ray start --head` asks for a token once `cluster = local` has made one."""
    monkeypatch.setattr(cluster, "_TOKEN", tmp_path / "auth_token")
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    if where == "file":
        (tmp_path / "auth_token").write_text("secret", encoding="ascii")
    elif where != "nowhere":
        monkeypatch.setenv(where, "secret")
    assert cluster._environment().get("RAY_AUTH_MODE") == (None if where == "nowhere" else "token")


def test_without_ray_it_is_told_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(ParameterError, match=r"^cluster = local needs Ray: pip install -r requirements-cluster\.txt$"),
        connected("local", folder=tmp_path),
    ):
        pass


# Scripts


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DATA_DIR with small pictures of two classes. Read only: copy it to change it."""
    pytest.importorskip("ray")
    root = tmp_path_factory.mktemp("many")
    generator = np.random.default_rng(0)
    for label in ("dark", "light"):
        folder = root / "images" / "textures" / label
        folder.mkdir(parents=True)
        for i in range(IMAGES // 2):
            pixels = generator.integers(0, 200, (40, 40, 3), np.uint8) + 50 * (label == "light")
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i:04d}.png")
    (root / "images" / "textures" / "dark" / "broken.png").write_bytes(b"no image")
    return root


def begin(root: Path, step: str, *more: str, cluster: str) -> "subprocess.Popen[str]":
    given = [f"--rootDir={root}", "--datasetName=textures", "--rf_inputResolution=64", "--runHistory=false"]
    command = [sys.executable, str(SCRIPTS / f"{step}.py"), *given, f"--cluster={cluster}", *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def test_the_files_have_the_same_bytes_though_a_node_and_the_script_are_killed(
    tmp_path: Path, many: Path, quick_export: None, nodes: Any
) -> None:
    on_cluster, without = (shutil.copytree(many, tmp_path / name) for name in ("on cluster", "without"))
    for step in ("1_prepareData", "2_refineDNN", "3_runDNN"):
        run_main(step, small_run(without))

    with begin(on_cluster, "1_prepareData", cluster=nodes.address) as process:
        assert wait_for(lambda: has_parts(on_cluster, "facts"), 120)
        nodes.remove_node(next(iter(nodes.worker_nodes)), allow_graceful=False)
        assert "\nCluster: 2 nodes, 2 cores\n" in succeeds(process)
    with begin(on_cluster, "2_refineDNN", cluster=nodes.address) as process:
        succeeds(process)
    with begin(on_cluster, "3_runDNN", cluster=nodes.address) as process:
        assert wait_for(lambda: has_parts(on_cluster, "embeddings"), 120)
        process.kill()
    with begin(on_cluster, "3_runDNN", cluster=nodes.address) as process:
        output = succeeds(process)
    assert "Stored in" in output, "what was computed is kept"
    assert "\nCluster: 1 node, 1 core\n" in output

    for name in FILES:
        made, expected = (root / "proc" / "textures" / name for root in (on_cluster, without))
        assert made.read_bytes() == expected.read_bytes(), name


def has_parts(root: Path, kind: str) -> bool:
    return bool(list((root / "store").glob(f"{kind}-*/part-*")))


def succeeds(process: "subprocess.Popen[str]") -> str:
    """What a script says, without a word of Ray."""
    output, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    assert "raylet" not in output and not errors.strip()
    return output


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Ray leaves a log open
def test_a_machine_that_is_no_node_uses_rays_client(tmp_path: Path, many: Path) -> None:
    """Through one port of the head; when that goes, the script ends with one line."""
    from ray import cluster_utils

    on_cluster, without = (shutil.copytree(many, tmp_path / name) for name in ("on cluster", "without"))
    run_main("1_prepareData", small_run(without))
    port = 25000 + os.getpid() % 5000  # Ray's workers have those below
    head = cluster_utils.Cluster()
    try:
        head.add_node(num_cpus=2, ray_client_server_port=port, object_store_memory=MEMORY, include_dashboard=False)
        address = f"ray://127.0.0.1:{port}"
        with begin(on_cluster, "1_prepareData", cluster=address) as process:
            assert "\nCluster: 1 node, 2 cores\n" in succeeds(process)
        made, expected = (root / "proc" / "textures" / "examples.csv" for root in (on_cluster, without))
        assert made.read_bytes() == expected.read_bytes()
        shutil.rmtree(on_cluster / "store")
        with begin(on_cluster, "1_prepareData", cluster=address) as process:
            assert wait_for(lambda: bool(list((on_cluster / "store").rglob(".tmp-*"))), 60)
            head.shutdown()
            _, errors = process.communicate(timeout=120)
    finally:
        head.shutdown()
    assert process.returncode == 1
    assert errors.splitlines()[-1] == (
        "1_prepareData.py: the head of the cluster has gone: start it, and run again; what was computed is kept"
    )


@pytest.mark.cluster
def test_scenes_are_found_as_without(tmp_path: Path, pictures: Path, quick_export: None, nodes: Any) -> None:
    on_cluster, without = (data_dir(tmp_path / name, pictures) for name in ("on cluster", "without"))
    run_main("1_prepareData", small_run(without, duplicates="scene"))
    with begin(on_cluster, "1_prepareData", "--duplicates=scene", cluster=nodes.address) as process:
        output = succeeds(process)
    assert output.count("Cluster: ") == 3, "for the files, and for each view"
    computed = [len(list((root / "store").glob("embeddings-*/part-*"))) for root in (on_cluster, without)]
    assert computed == [2, 2], "of whole pictures, and of their inner parts"
    made, expected = (root / "proc" / "textures" / "duplicates.csv" for root in (on_cluster, without))
    assert made.read_bytes() == expected.read_bytes()
    assert "scene" in made.read_text(encoding="utf-8")


@pytest.mark.cluster
def test_training_goes_on_when_a_node_is_killed(tmp_path: Path, many: Path, nodes: Any) -> None:
    root = shutil.copytree(many, tmp_path / "data")
    while len(nodes.worker_nodes) < 2:  # others kill some
        nodes.add_node(num_cpus=1, object_store_memory=MEMORY)
    with begin(root, "1_prepareData", cluster="none") as process:
        succeeds(process)
    training = ("--classifier=dnn", "--rf_maxTrainImages=160", "--rf_maxEpochs=6", "--device=cpu")
    folder = root / "proc" / "textures" / "dnn_refined"

    with begin(root, "2_refineDNN", *training, "--rf_lrPerMb=1e30", cluster=nodes.address) as process:
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert errors.strip() == (
        "2_refineDNN.py: the training loss is nan in epoch 1: lower rf_lrPerMb (last 1e+30) and run again"
    )
    with begin(root, "2_refineDNN", *training, "--device=cuda", cluster=nodes.address) as process:
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert errors.strip().endswith("device = cuda: no node of the cluster has a GPU; use auto or cpu")
    with begin(root, "2_refineDNN", *training, cluster=nodes.address) as process:
        assert wait_for((folder / "checkpoint.safetensors").exists, 120)
        nodes.remove_node(next(iter(nodes.worker_nodes)), allow_graceful=False)
        output = succeeds(process)
    assert "\nCluster: 2 nodes, 2 cores\n" in output and "\nCluster: 1 node, 1 core\n" in output
    assert ": 2 processes, each with 8 of the 16 images of a step\n" in output
    assert "\nA process was lost: starting again from what is saved\n" in output
    epochs = [line.split()[1] for line in output.splitlines() if line.startswith("  epoch ")]
    assert epochs == ["1:", "2:", "3:", "4:", "5:", "6:"], "each is told once"
    assert {path.name for path in folder.iterdir()} == {
        "model.json",
        "model.onnx",
        "training.csv",
        "training.png",
        "weights.safetensors",
    }
    rows = (folder / "training.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 7
    assert float(rows[-1].split(",")[5]) <= 0.1, "it has learnt"


@pytest.mark.cluster
def test_ctrl_c_ends_it_and_its_processes(tmp_path: Path, many: Path) -> None:
    root = shutil.copytree(many, tmp_path / "data")
    with begin(root, "1_prepareData", cluster="local") as process:
        assert wait_for(lambda: bool(list((root / "store").rglob(".tmp-*"))), 120)
        process.send_signal(signal.SIGINT)
        start = time.monotonic()
        _, errors = process.communicate(timeout=20)
    assert time.monotonic() - start < 5 and process.returncode != 0
    assert "Traceback" not in errors
    assert wait_for(lambda: not ray_processes(process.pid), 10)


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def ray_processes(parent: int) -> list[str]:
    """Raylets of sessions that this process began: their folder's name has its number."""
    found = subprocess.run(["pgrep", "-af", f"session_.*_{parent}"], capture_output=True, text=True, check=False)
    return found.stdout.splitlines()


def test_without_a_store_it_is_told(tmp_path: Path, many: Path) -> None:
    root = shutil.copytree(many, tmp_path / "data")
    with begin(root, "1_prepareData", "--storeGigabytes=0", cluster="local") as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert errors.strip().endswith("a cluster puts its results into the store: set storeGigabytes above 0")
