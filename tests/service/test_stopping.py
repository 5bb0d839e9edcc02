"""SIGTERM while decoding an image never ends: the process exits anyway, and tells waiting clients."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.conftest import ROOT
from tests.service.processes import ServerProcess

TIMEOUT = 60
PAGE = ROOT / "resources" / "webPage"

# The service, modified so that bodies beginning with 'stuck' take for ever.
SCRIPT = """
import sys, threading
from pathlib import Path
from libraries.service import server, service
from libraries.service.app import create_app
bundle, page, finish, timeout = sys.argv[1:]
server._SECONDS_TO_FINISH = float(finish)
load = service.load_with_size
def slow(data, rule, **options):
    if data.startswith(b"stuck"):
        print("begun", flush=True)
        threading.Event().wait()
    return load(data, rule, **options)
service.load_with_size = slow
served = service.Service(Path(bundle), limits=service.Limits(timeout=float(timeout)))
app = create_app(served, page=Path(page))
server.Server(app, served, host="127.0.0.1", port=0, announce=lambda line: print(line, flush=True)).run()
"""


def started(bundle: Path, *, finish: float, timeout: float) -> ServerProcess:
    command = [sys.executable, "-c", SCRIPT, str(bundle), str(PAGE), str(finish), str(timeout)]
    return ServerProcess(command, ready="Ready: ", env={**os.environ}, cwd=ROOT)


@pytest.fixture
def stuck_late(bundle: Path) -> Iterator[ServerProcess]:
    """Requests time out soon."""
    with started(bundle, finish=60, timeout=0.5) as service:
        yield service


@pytest.fixture
def stuck_waiting(bundle: Path) -> Iterator[ServerProcess]:
    """Requests would wait for long, but the time to finish is short."""
    with started(bundle, finish=3, timeout=600) as service:
        yield service


def port(service: ServerProcess) -> int:
    return int(service.line("Listening").split(":")[2].partition("/")[0])


def send(to: int, body: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", to), TIMEOUT)
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


def wait_for(service: ServerProcess, line: str) -> None:
    while not any(line in said for said in service.lines):
        assert service.process.poll() is None
        time.sleep(0.01)


def test_it_exits_at_once_if_nobody_waits(stuck_late: ServerProcess, picture: bytes) -> None:
    url = f"http://127.0.0.1:{port(stuck_late)}"
    assert requests.post(url + "/predict", data=b"stuck", timeout=TIMEOUT).status_code == 504
    assert requests.post(url + "/predict", data=picture, timeout=TIMEOUT).status_code == 200
    begun = time.monotonic()
    assert stuck_late.terminate() == 0
    assert time.monotonic() - begun < 30  # of the 60 it might take


def test_after_the_time_to_finish_waiting_clients_are_told_and_it_exits(stuck_waiting: ServerProcess) -> None:
    with send(port(stuck_waiting), b"stuck") as waiting:
        wait_for(stuck_waiting, "begun")
        stuck_waiting.process.send_signal(signal.SIGTERM)
        answer = waiting.recv(65536)
    assert answer.startswith(b"HTTP/1.1 503 ") and b"the service is stopping" in answer
    assert b"retry-after: 1" in answer.lower()
    assert stuck_waiting.process.wait(TIMEOUT) == 0
    assert not any("Traceback" in line for line in stuck_waiting.lines)


# A program that goes on after its service was refused its bundle.
GOES_ON = """
import sys, time
from pathlib import Path
from libraries.base.errors import PipelineError
from libraries.service import server, service
from libraries.service.app import create_app
server._SECONDS_TO_FINISH = server._SECONDS_TO_EXIT = 0.2
served = service.Service(Path(sys.argv[1]))
try:
    server.Server(create_app(served, page=Path(sys.argv[2])), served, host="127.0.0.1", port=0, announce=print).run()
except PipelineError as error:
    time.sleep(1)
    print(f"went on after: {error}")
"""


def test_the_process_is_not_ended_once_the_service_has(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", GOES_ON, str(tmp_path / "model"), str(PAGE)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert "went on after: " in done.stdout, done.stderr
