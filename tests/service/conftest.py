"""Fixtures of the service's tests: the service in this process and as a process, and a fake of it."""

import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from PIL import Image
from starlette.testclient import TestClient

from libraries.service.app import create_app
from libraries.service.gate import Access
from libraries.service.service import Limits, Service
from tests.conftest import ROOT, SCRIPTS
from tests.fake_service import FakeService, running

PAGE = ROOT / "resources" / "webPage"
KEY, ADMIN_KEY = "key-of-all-callers", "key-of-administrators"


@pytest.fixture
def fake() -> Iterator[FakeService]:
    """A service that answers or misbehaves as configured, for the tests of its client."""
    with running() as service:
        yield service


@pytest.fixture(scope="session")
def image_files(pictures: Path) -> list[Path]:
    """All pictures of the small set."""
    return sorted(path for path in pictures.rglob("*") if path.is_file())


@pytest.fixture(scope="session")
def picture(image_files: list[Path]) -> bytes:
    """One of them, a PNG."""
    return next(path for path in image_files if path.suffix == ".png").read_bytes()


def encoded(size: tuple[int, int] = (40, 30), kind: str = "PNG", colour: Any = (200, 30, 30), **options: Any) -> bytes:
    """A picture of one colour as a file."""
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, kind, **options)
    return buffer.getvalue()


NewClient = Callable[..., TestClient]


@pytest.fixture(scope="module")
def new_client(bundle: Path) -> Iterator[NewClient]:
    """Starts the service in this process and returns a client; exceptions in the service are raised in the test."""
    clients = []

    def start(limits: Limits | None = None, *, access: Access | None = None, folder: Path = bundle) -> TestClient:
        service = Service(folder, limits=limits)
        client = TestClient(create_app(service, page=PAGE, access=access)).__enter__()
        clients.append(client)
        assert client.portal is not None
        client.portal.call(service.load)
        return client

    yield start
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture(scope="module")
def client(new_client: NewClient) -> TestClient:
    """A client of a service without keys, with the default limits."""
    return new_client(Limits(queue=1000))


class Live:
    """scripts/deploymain.py as a separate process.

    Attributes:
        url: its base URL.
        folder: its working folder and TMPDIR, empty at the start.
    """

    def __init__(self, bundle: Path, *options: str, **environment: str) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SERVICE_")}
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPTS / "deploymain.py"), f"--bundle={bundle}", "--port=0", *options],
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=self.folder,
            env={**inherited, "TMPDIR": str(self.folder), **environment},
        )
        self.port = int(self.wait_for("Listening on http://").split(":")[2].partition("/")[0])
        self.url = f"http://127.0.0.1:{self.port}"

    def wait_for(self, beginning: str) -> str:
        """The next line of its output that begins with this text."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(beginning):
                return line
        raise AssertionError(f"it ended: {self.errors}")

    @property
    def errors(self) -> str:
        """What it wrote to its standard error."""
        self._errors.seek(0)
        return self._errors.read()

    @property
    def megabytes(self) -> float:
        """Its resident memory."""
        return self._memory("VmRSS")

    @property
    def peak_megabytes(self) -> float:
        """The maximum of its resident memory."""
        return self._memory("VmHWM")

    def _memory(self, which: str) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        return int(status.partition(f"{which}:")[2].split()[0]) / 1024

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._errors.close()


StartService = Callable[..., Live]


@pytest.fixture
def start_service(bundle: Path) -> Iterator[StartService]:
    """Starts the real service and waits until it is ready; ends it after the test."""
    started: list[Live] = []

    def start(*options: str, folder: Path = bundle, ready: bool = True, **environment: str) -> Live:
        started.append(Live(folder, *options, **environment))
        if ready:
            started[-1].wait_for("Ready: ")
        return started[-1]

    yield start
    for live in started:
        live.__exit__()


@pytest.fixture(scope="module")
def live(bundle: Path) -> Iterator[Live]:
    """The real service, ready, one for all tests of a module."""
    with Live(bundle, "--serve_maxQueue=1000", "--serve_maxMegabytes=8") as live:
        live.wait_for("Ready: ")
        yield live
