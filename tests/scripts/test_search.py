"""From search words to images and the names of those who made them: script 0 as a user runs it."""

import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from libraries.web.search.search import read_results
from PARAMETERS import Parameters
from tests import fake_search
from tests.conftest import command_line, files, hashes
from tests.fake_search import FakeSearch, Reply, Request

Process = Callable[..., subprocess.CompletedProcess[str]]
QUERIES = 21
PER_QUERY = 3


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSearch]:
    """An Openverse with three images for each query, and the server of these images."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):  # the script would say that it does not use them
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with fake_search.serving() as server:
        server.answers = [fake_search.openverse(PER_QUERY, server.url)]
        yield server


def parameters(root: Path, fake: FakeSearch, **changes: object) -> Parameters:
    values = {
        "rootDir": root,
        "datasetName": "fashionTexture",
        "searchUrl": fake.url,
        "download_allowedHosts": ("127.0.0.1",),
        "runHistory": False,
    }
    return Parameters.load({**values, **changes})


def test_words_become_images_with_their_creators_named(fake: FakeSearch, tmp_path: Path, process: Process) -> None:
    p = parameters(tmp_path, fake, searchContact="someone@example.org")
    done = process("0_downloadData", p)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Searching for 21 queries" in done.stdout and "fashionTextureQueries.toml with openverse" in done.stdout
    printed = [line.split() for line in done.stdout.splitlines()]
    for line in ("label queries images", "striped 7 21", "dotted 7 21", "leopard 7 21", "all 21 63", "downloaded 63"):
        assert line.split() in printed

    images, proc = tmp_path / "images" / "fashionTexture", tmp_path / "proc" / "fashionTexture"
    assert [len(files(images / label)) for label in ("striped", "dotted", "leopard")] == [21] * 3
    assert files(proc) == {"downloads.csv", "search.csv", "search.tsv", "searches.jsonl"}
    assert len(read_results(proc / "search.csv")) == len((proc / "search.tsv").read_text().splitlines()) == 63
    attribution = (images / "ATTRIBUTION.md").read_text(encoding="utf-8")
    assert attribution.count("\n- [") == 63
    assert "“Picture 2 of a leopard t-shirt”, by Photographer 2, [CC0 2.0](https://creativecommons.org/" in attribution
    assert {request.headers["User-Agent"][-22:] for request in fake.all_requests} == {" (someone@example.org)"}

    asked, before = len(fake.all_requests), hashes(tmp_path)
    again = process("0_downloadData", p)
    assert (again.returncode, again.stderr) == (0, "")
    assert len(fake.all_requests) == asked == QUERIES + QUERIES * PER_QUERY
    assert hashes(tmp_path) == before

    prepared = process("1_prepareData", p)
    assert prepared.returncode == 0, prepared.stderr


@pytest.mark.parametrize("what", ["question", "image"])
def test_kill_9_and_run_again_is_as_if_undisturbed(fake: FakeSearch, tmp_path: Path, what: str) -> None:
    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    reached, answer, image = threading.Event(), fake.answers[0], fake.file

    def hang(request: Request) -> None:
        reached.set()
        fake.stopping.wait(60)

    def hanging_answer(request: Request) -> Reply:
        if what == "question" and len(fake.requests) == 9:
            hang(request)
        return answer(request)

    def hanging_image(request: Request) -> Reply:
        if what == "image" and len(fake.all_requests) > QUERIES + 30 and not reached.is_set():
            hang(request)
        return image(request)

    fake.answers, fake.file = [hanging_answer], hanging_image  # type: ignore[method-assign]
    with subprocess.Popen(
        command_line("0_downloadData", parameters(killed, fake)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        try:
            assert reached.wait(60)
            process.send_signal(signal.SIGKILL)
        finally:
            process.kill()
    assert not (killed / "images" / "fashionTexture" / "ATTRIBUTION.md").exists()

    fake.answers, fake.file = [answer], image  # type: ignore[method-assign]
    for root in (killed, undisturbed):
        asked = len(fake.requests)
        subprocess.run(command_line("0_downloadData", parameters(root, fake)), check=True, capture_output=True)
        finished = {"question": 8, "image": QUERIES}[what] if root == killed else 0
        assert len(fake.requests) - asked == QUERIES - finished
    assert hashes(killed / "images") == hashes(undisturbed / "images")
    for name in ("search.tsv", "search.csv", "searches.jsonl"):
        at = Path("proc") / "fashionTexture" / name
        assert (killed / at).read_bytes() == (undisturbed / at).read_bytes()


def test_what_goes_wrong_is_one_line(fake: FakeSearch, tmp_path: Path, process: Process) -> None:
    def line(status: int, **changes: object) -> str:
        done = process("0_downloadData", parameters(tmp_path, fake, download_retries=0, **changes))
        assert done.returncode == status
        [line] = done.stderr.splitlines()
        return line

    fake.answers = [lambda _: Reply({"detail": "Not today."}, 403)]
    assert line(1).startswith("0_downloadData.py: openverse refuses (HTTP 403, 'Not today.'): perhaps this network has")
    assert "searchContact" in line(2, searchProvider="wikimedia")
    assert "searchLicence = modify: brave does not report" in line(2, searchProvider="brave", searchLicence="modify")
    fake.server.server_close()
    assert line(1).startswith(f"0_downloadData.py: openverse gave no answer at {fake.url} (connection failed: ")
    command = [*command_line("0_downloadData", parameters(tmp_path, fake)), "--searchProvider=bing"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "Bing's image search was retired on 11 August 2025: use openverse" in done.stderr


def test_no_source_at_all_names_every_way(fake: FakeSearch, tmp_path: Path, process: Process) -> None:
    done = process("0_downloadData", parameters(tmp_path, fake, datasetName="nothing"))
    assert done.returncode == 1
    assert all(
        way in done.stderr
        for way in ("--imgLabelsPath", "--imgUrlsPath", "--imgStoreUrl", "or write words to search for")
    )
    assert "resources/nothingQueries.toml" in done.stderr.replace("\\", "/")
