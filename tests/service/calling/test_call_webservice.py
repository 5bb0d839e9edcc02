"""Script 6 as a user runs it, against the real service, and against one that misbehaves."""

import csv
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from libraries.base.errors import ImageError, ServiceError
from libraries.base.file_system import TEMPORARY
from libraries.classifier.bundle import Classifier
from libraries.service.calling.client import Client
from PARAMETERS import Parameters
from tests.conftest import SCRIPTS, command_line, files
from tests.fake_service import FakeService
from tests.service.conftest import Live

KEY = "0123456789-secret"
SCRIPT = "6_callWebservice"

Process = Callable[..., subprocess.CompletedProcess[str]]


@dataclass(frozen=True)
class Served:
    """The real service, with a key, and the bundle it serves."""

    url: str
    bundle: Path
    key_file: Path


@pytest.fixture(scope="module")
def served(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    key_file = tmp_path_factory.mktemp("secret") / "key"
    key_file.write_text(KEY + "\n")
    key_file.chmod(0o600)
    with Live(bundle, f"--keyFile={key_file}", "--serve_maxQueue=1000") as live:
        live.wait_for("Ready: ")
        yield Served(live.url, bundle, key_file)


def call(tmp_path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the script as a user does, with a DATA_DIR of its own."""
    command = [sys.executable, str(SCRIPTS / f"{SCRIPT}.py"), f"--rootDir={tmp_path / 'data'}", *arguments]
    env = {name: value for name, value in os.environ.items() if name != "SERVICE_KEY"} | environment
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=os.sep, check=False, env=env)


def test_five_calls_with_their_times(served: Served, pictures: Path, tmp_path: Path) -> None:
    image = pictures / "blobs" / "01.jpg"
    done = call(tmp_path, f"--url={served.url}", f"--imagePath={image}", SERVICE_KEY=KEY)
    assert (done.returncode, done.stderr) == (0, "")
    times = [
        tuple(map(float, found)) for found in re.findall(r"call \d +([\d.]+) ms +([\d.]+) ms +([\d.]+) ms", done.stdout)
    ]
    assert len(times) == 5
    for whole, server, overhead in times:
        assert whole > server > 0
        assert whole - server == pytest.approx(overhead, abs=0.11)
    ((_, prediction),) = Classifier(served.bundle).predict_files([image])
    assert not isinstance(prediction, ImageError)
    assert f"Label: {prediction.label}" in done.stdout
    shown = re.findall(r"^  (\w+) +([\d.]+)%$", done.stdout, re.MULTILINE)
    assert {label for label, _ in shown} == {"blobs", "checks", "stripes"}
    percents = [float(percent) for _, percent in shown]
    assert percents == sorted(percents, reverse=True)
    np.testing.assert_allclose(percents, 100 * np.sort(prediction.probabilities)[::-1], atol=0.0051)
    assert KEY not in done.stdout
    assert not (tmp_path / "data").exists()


def test_one_call_with_the_tutorials_address_and_the_default_picture(served: Served, tmp_path: Path) -> None:
    done = call(tmp_path, f"--url={served.url}/score", "--calls=1", f"--keyFile={served.key_file}")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("call ") == 1
    assert "Label: " in done.stdout


def test_folder_gives_the_labels_of_the_bundle(served: Served, pictures: Path, tmp_path: Path) -> None:
    folder = tmp_path / "new pictures"
    shutil.copytree(pictures, folder)
    (folder / "corrupt.jpg").write_bytes((folder / "blobs" / "01.jpg").read_bytes()[:500])
    (folder / "empty.png").write_bytes(b"")
    (folder / "notes.txt").write_text("no image")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}

    done = call(tmp_path, f"--url={served.url}", f"--folder={folder}", SERVICE_KEY=KEY)
    assert (done.returncode, done.stderr) == (0, "")
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    target = tmp_path / "data" / "proc" / "solarCells" / "predictions" / "new pictures.csv"
    assert f"Every image with its probabilities: {target}" in done.stdout
    assert "  left out: 1 .txt file (not an image format that is read)\n" in done.stdout
    name = target.relative_to(tmp_path / "data").as_posix()
    assert files(tmp_path / "data") == {name, f"{name}.journal"}

    with target.open(newline="") as file:
        rows = list(csv.DictReader(file))
    classifier = Classifier(served.bundle)
    expected = dict(classifier.predict_files(sorted(p for p in folder.rglob("*") if p.suffix in (".jpg", ".png"))))
    assert [row["path"] for row in rows] == [path.relative_to(folder).as_posix() for path in expected]
    for row, prediction in zip(rows, expected.values(), strict=True):
        if isinstance(prediction, ImageError):
            assert row["path"] in ("corrupt.jpg", "empty.png")
            assert (row["label"], row["probability"]) == ("", "")
            assert row["error"].startswith("the image is refused: ")
        else:
            assert (row["label"], row["error"]) == (prediction.label, "")
            assert float(row["probability"]) == max(
                float(row[f"probability of {label}"]) for label in classifier.labels
            )
            given = [float(row[f"probability of {label}"]) for label in classifier.labels]
            np.testing.assert_allclose(given, prediction.probabilities, atol=1e-5)
    counted = dict(re.findall(r"^  (\w+) +(\d+)$", done.stdout, re.MULTILINE))
    assert counted.pop("all") == str(len(rows)) == "50"
    assert counted == {label: str(sum(row["label"] == label for row in rows)) for label in classifier.labels}
    assert re.search(r"no label: Not an image +1\n", done.stdout)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "needs a key: set the environment variable SERVICE_KEY, or give a file with --keyFile"),
        ({"SERVICE_KEY": KEY + "x"}, "refuses the key (401: "),
        ({"SERVICE_KEY": "short"}, "SERVICE_KEY has 5 characters, expected 16 to 4,096"),
    ],
)
def test_without_the_key_the_error_says_how_to_give_it(
    served: Served, pictures: Path, tmp_path: Path, environment: dict[str, str], message: str
) -> None:
    for what in ("--calls=5", f"--folder={pictures}"):
        done = call(tmp_path, f"--url={served.url}", what, **environment)
        assert done.returncode == (2 if environment.get("SERVICE_KEY") == "short" else 1)
        assert message in done.stderr
        assert done.stderr.count("\n") == 1
        assert KEY not in done.stdout + done.stderr
        assert files(tmp_path) == set()


def test_bodies_beyond_the_limit_are_refused_as_images(served: Served) -> None:
    with Client(served.url, key=KEY) as client:
        with pytest.raises(ServiceError, match=r"the image is refused: the request has more than the 33,554,432 bytes"):
            client.predict(bytes(33 * 2**20))
        with pytest.raises(ServiceError, match=r"the image is refused: is not a whole JPEG, .*hello"):
            client.score(b"hello")


def test_no_service_no_picture_no_folder(
    tmp_path: Path, process: Process, parameters: Callable[..., Parameters]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
    (tmp_path / "empty").mkdir()
    for arguments, message in (
        ([], f"no service answers at {url}: start one with python scripts/deploymain.py"),
        ([f"--imagePath={tmp_path}/none.jpg"], "none.jpg: does not exist"),
        ([f"--folder={tmp_path}/none"], "none cannot be read: No such file or directory"),
        ([f"--folder={tmp_path}/empty"], "empty has no images: give another --folder"),
        (["--url=ftp://127.0.0.1"], "parameter url = ftp://127.0.0.1 is invalid"),
        (["--url=http://"], "url = http:// is not the address of a service"),
    ):
        done = process(SCRIPT, parameters(url=url), *arguments)
        assert done.returncode in (1, 2)
        assert message in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill -9"])
def test_interrupted_folder_leaves_no_unfinished_table_and_continues(
    fake: FakeService, pictures: Path, tmp_path: Path, how: signal.Signals
) -> None:
    fake.on("/predict", *[fake.answers["/predict"][0]] * 10, lambda handler, _: handler.hang())
    command = command_line(SCRIPT, Parameters.load({"rootDir": tmp_path, "url": fake.url, "folder": pictures}))
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            while fake.counts["/predict"] < 12 and process.poll() is None:
                time.sleep(0.01)
            process.send_signal(how)
            error = process.communicate(timeout=30)[1]
        finally:
            process.kill()
    assert process.returncode == (130 if how is signal.SIGINT else -how)
    assert "Traceback" not in error
    left = {Path(name).name for name in files(tmp_path)} - {f"{pictures.name}.csv.journal"}
    assert left == set() if how is signal.SIGINT else all(name.startswith(TEMPORARY) for name in left)

    fake.on("/predict", fake.answers["/predict"][0])
    fake.counts.clear()
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    known = int(re.search(r"Classified already by an earlier run, which was stopped: (\d+) image", done.stdout)[1])  # type: ignore[index]
    assert 0 < known == 48 - fake.counts["/predict"]
    (name,) = [name for name in files(tmp_path) if not name.endswith(".journal")]
    with (tmp_path / name).open(newline="") as file:
        found = [row["path"] for row in csv.DictReader(file)]
    assert found == sorted(p.relative_to(pictures).as_posix() for p in pictures.rglob("*") if p.is_file())
