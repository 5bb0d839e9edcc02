"""A list of URLs is downloaded by the nodes of a cluster, as by one machine."""

import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from libraries.base.pool import Failed, Pool, WorkerLost
from libraries.web.download.outcomes import Job, UrlOutcome, read_outcomes
from libraries.web.download.saving import Attempt, SavedImage
from libraries.web.download.schedule import Downloader
from tests.base.test_cluster import no_tokens, two_nodes, wait_for
from tests.conftest import ROOT, SCRIPTS, hashes

Make = Callable[..., bytes]
URLS = 300

__all__ = ["no_tokens"]  # a fixture


class Losing(Pool[Job, Attempt]):
    """A pool in this thread that loses its worker over some URLs."""

    goes_on = True

    def __init__(self, deadly: str) -> None:
        super().__init__(2)
        self._deadly = deadly
        self.tries: Counter[str] = Counter()

    def _start(self, number: int, job: Job) -> None:
        self.tries[job.url] += 1
        saved = Attempt(SavedImage("a.jpg", 200, 1, 1, 1), 0.0)
        self._done.put((number, Failed(WorkerLost("gone")) if job.url == self._deadly else saved))

    def _end(self) -> None:
        """Nothing runs."""


def test_a_url_that_kills_its_workers_is_left_out_by_name() -> None:
    urls = [f"https://example.org/{i}.jpg" for i in range(5)]
    found: list[UrlOutcome] = []
    pool = Losing(urls[2])
    jobs = iter([Job(url, "example.org", [("a", url)]) for url in urls])
    Downloader(pool, per_host=6, retries=1, wait=lambda tries, asked: 0.0).run(jobs, found.extend)
    assert {o.url: (o.status, o.reason, o.detail) for o in found if o.status != "ok"} == {
        urls[2]: ("passing", "worker lost", "gone")
    }
    assert len(found) == 5 and pool.tries[urls[2]] == 2


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    with two_nodes() as started:
        yield started


def begin(root: Path, urls: list[str], *, cluster: str) -> "subprocess.Popen[str]":
    table = root / "urls.tsv"
    table.parent.mkdir(parents=True, exist_ok=True)
    table.write_text("".join(f"label{i % 3}\t{url}\n" for i, url in enumerate(urls)), encoding="utf-8")
    command = [sys.executable, str(SCRIPTS / "0_downloadData.py"), f"--rootDir={root}", f"--imgUrlsPath={table}"]
    command += ["--datasetName=web", "--runHistory=false", "--download_allowedHosts=127.0.0.1", f"--cluster={cluster}"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def had(root: Path) -> int:
    return len(list((root / "images").rglob("*.jpg")))


@pytest.mark.cluster
def test_the_images_are_the_same_though_a_node_and_the_script_are_killed(
    web: Any, tmp_path: Path, make_picture: Make, nodes: Any
) -> None:
    def slowly(picture: bytes) -> Callable[[Any], None]:
        def reply(handler: Any) -> None:
            time.sleep(0.1)
            handler.answer(200, picture)

        return reply

    urls = [web.on(f"/{i}.jpg", slowly(make_picture(i))) for i in range(URLS)] + [web.url("/gone.jpg")]
    with begin(tmp_path / "without", urls, cluster="none") as process:
        assert process.wait(120) == 0
    on_cluster = tmp_path / "on cluster"
    with begin(on_cluster, urls, cluster=nodes.address) as process:
        assert wait_for(lambda: had(on_cluster) > 20, 120)
        process.send_signal(signal.SIGKILL)
    first = had(on_cluster)
    assert first < URLS
    web.requests.clear()
    with begin(on_cluster, urls, cluster=nodes.address) as process:
        assert wait_for(lambda: had(on_cluster) > first + 20, 120)
        nodes.remove_node(next(iter(nodes.worker_nodes)), allow_graceful=False)
        output, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    assert not errors.strip() and "\nCluster: 2 nodes, 2 cores\n" in output
    assert hashes(on_cluster / "images") == hashes(tmp_path / "without" / "images")
    outcomes = list(read_outcomes(on_cluster / "proc" / "web" / "downloads.csv"))
    assert Counter(outcome.reason for outcome in outcomes) == {"downloaded": URLS, "not found": 1}
    assert web.requests.total() < URLS, "what was recorded is not fetched again"


@pytest.mark.cluster
def test_ctrl_c_ends_it(web: Any, tmp_path: Path, make_picture: Make, nodes: Any) -> None:
    urls = [web.on(f"/{i}.jpg", lambda handler: time.sleep(60)) for i in range(30)]
    with begin(tmp_path, urls, cluster=nodes.address) as process:
        assert wait_for(lambda: web.requests.total() > 0, 120)
        process.send_signal(signal.SIGINT)
        start = time.monotonic()
        _, errors = process.communicate(timeout=20)
    assert time.monotonic() - start < 5 and process.returncode != 0
    assert "Traceback" not in errors
