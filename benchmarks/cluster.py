"""Scripts 1 and 3 on Ray nodes of one core each, against the same scripts in one process.

    python benchmarks/cluster.py [--images 4000] [--json results.json]

The nodes are raylets of this machine, which needs two cores for them, and are running before a script starts, as those
of a cluster are. The images are photographs; nothing is stored before. A script's whole time counts: connecting to
the cluster, starting its workers, and putting the results together, which one process does.
"""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from common import circumstances, photographs, user_environment, write_results

from libraries.base.console import table

ROOT = Path(__file__).parents[1]
DATASET = "photographs"
STEPS = ("1_prepareData", "2_refineDNN", "3_runDNN")
MEMORY = 100_000_000  # bytes of each node's object store: no image passes through it
SHOWN = ("1_prepareData", "3_runDNN")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images"
        photographs(images / DATASET, options.images)
        seconds = {}
        for cores in (1, 2):
            seconds[f"one process, {cores} core{'s' * (cores > 1)}"] = run(images, cluster="none", cores=cores)
            with nodes(cores) as address:
                seconds[f"{cores} node{'s' * (cores > 1)} of one core"] = run(images, cluster=address, cores=cores)
    rows = [[name, *(f"{of[step]:.1f}" for step in SHOWN)] for name, of in seconds.items()]
    print(table(f"Seconds for {options.images:,} photographs", ["", *SHOWN], rows))
    for step in SHOWN:
        one, two, plain = (
            seconds[name][step] for name in ("1 node of one core", "2 nodes of one core", "one process, 2 cores")
        )
        print(
            f"{step}: two nodes are {one / two:.2f} x as fast as one, {plain / two:.2f} x as one process on two cores"
        )
    about = circumstances()
    print(f"{about['machine']}; {about['date']}")
    write_results(options.json, {"seconds": seconds})


def run(images: Path, *, cluster: str, cores: int) -> dict[str, float]:
    """Seconds of each script, in a DATA_DIR of its own."""
    with tempfile.TemporaryDirectory() as root:
        (Path(root) / "images").symlink_to(images, target_is_directory=True)
        return {step: seconds_of(step, root, cluster, cores) for step in STEPS}


def seconds_of(step: str, root: str, cluster: str, cores: int) -> float:
    command = [
        sys.executable,
        f"scripts/{step}.py",
        f"--rootDir={root}",
        f"--datasetName={DATASET}",
        "--runHistory=false",
    ]
    if cluster != "none" and step in SHOWN:
        command.append(f"--cluster={cluster}")
    elif cores < (os.cpu_count() or cores) and shutil.which("taskset"):
        command = ["taskset", "--cpu-list", f"0-{cores - 1}", *command]
    start = time.perf_counter()
    done = subprocess.run(
        command, cwd=ROOT, env=user_environment(PYTHONPATH=str(ROOT)), capture_output=True, check=False
    )
    if done.returncode:
        sys.exit(f"{step} failed: {done.stderr.decode()[-500:]}")
    return time.perf_counter() - start


@contextlib.contextmanager
def nodes(count: int) -> Iterator[str]:
    """So many nodes of one core, besides a head that does no work; gives their address."""
    from ray.cluster_utils import Cluster

    os.environ |= {"PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"}  # scripts started from here have both, too
    cluster = Cluster()
    try:
        cluster.add_node(num_cpus=0, object_store_memory=MEMORY, include_dashboard=False)
        for _ in range(count):
            cluster.add_node(num_cpus=1, object_store_memory=MEMORY)
        yield cluster.address
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
