"""The services that are compared: how each is started and what it is asked; and a bundle for all of them."""

import base64
import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from libraries.base.pool import usable_cores
from serving.load import Address, http_request

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SCRIPTS = ROOT / "scripts"
AZURE = ROOT / ".venv" / "azure" / "bin" / "python"
_SECONDS_TO_START = 60.0


@dataclass(frozen=True)
class Contender:
    """A service.

    Attributes:
        command: starts it; '{port}' stands for its port.
        ready: the path that answers 200 once it can answer all others.
        request: the bytes of an image file → those of a request.
    """

    command: list[str]
    ready: str
    request: Callable[[bytes], bytes]
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Running:
    """A service that is ready, and the seconds from its start until it took connections and until it was ready."""

    contender: Contender
    process: subprocess.Popen[bytes]
    address: Address
    seconds_to_listen: float
    seconds_to_ready: float

    @property
    def resident(self) -> int:
        """Bytes of memory that the process has in use."""
        answer = subprocess.run(["ps", "-o", "rss=", "-p", str(self.process.pid)], check=True, capture_output=True)
        return 1024 * int(answer.stdout)


def precisions() -> list[str]:
    """What this processor computes in."""
    import openvino

    has_bf16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return ["f32", "bf16"] if has_bf16 else ["f32"]


def azure_version() -> list[str]:
    """Name and version of Azure ML's server, if its environment has been made."""
    if not AZURE.exists():
        return []
    package = "azureml-inference-server-http"
    code = f"import importlib.metadata; print(importlib.metadata.version('{package}'))"
    answer = subprocess.run([AZURE, "-c", code], check=True, capture_output=True, text=True)
    return [f"{package} {answer.stdout.strip()}"]


def make_bundle(root: Path, images: Path) -> Path:
    """Run scripts 1 to 4 on images/<label>/*, as a user would."""
    folder = root / "images" / "photographs"
    folder.parent.mkdir(parents=True)
    folder.symlink_to(images, target_is_directory=True)
    settings = ["--rootDir", str(root), "--datasetName", "photographs", "--runHistory", "false"]
    for script in ("1_prepareData", "2_refineDNN", "3_runDNN", "4_trainSVM"):
        command = [sys.executable, str(SCRIPTS / f"{script}.py"), *settings]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return root / "proc" / "photographs" / "model_svm"


def ours(bundle: Path, precision: str) -> Contender:
    """scripts/deploymain.py, asked for /predict with the bytes of an image."""
    command = [sys.executable, str(SCRIPTS / "deploymain.py"), "--bundle", str(bundle), "--port", "{port}"]
    return Contender([*command, "--run_precision", precision], "/v2/health/ready", raw)


def plain(images: Path) -> Contender:
    """FastAPI and PyTorch, asked with a form."""
    return Contender([sys.executable, str(HERE / "plain_server.py"), "{port}", str(images)], "/health", form)


def litserve(bundle: Path) -> Contender:
    """LitServe, asked with a form."""
    return Contender([sys.executable, str(HERE / "litserve_server.py"), "{port}", str(bundle)], "/health", form)


def azure(bundle: Path) -> Contender:
    """azureml-inference-server-http with scripts/deploymain.py as its scoring script, a process per core."""
    command = [str(AZURE), "-m", "azureml_inference_server_http", "--entry_script", str(SCRIPTS / "deploymain.py")]
    options = ["--model_dir", str(bundle), "--port", "{port}", "--worker_count", str(usable_cores())]
    return Contender([*command, *options], "/", score, {"AML_APP_ROOT": str(ROOT)})


def raw(image: bytes) -> bytes:
    """A request whose body is the image."""
    return http_request("/predict", image, "image/jpeg")


def form(image: bytes) -> bytes:
    """A request with the image in a multipart form."""
    disposition = b'Content-Disposition: form-data; name="file"; filename="image.jpg"'
    body = b"\r\n".join((b"--break", disposition, b"Content-Type: image/jpeg", b"", image, b"--break--", b""))
    return http_request("/predict", body, "multipart/form-data; boundary=break")


def score(image: bytes) -> bytes:
    """A request in the tutorial's form, which is what Azure ML passes on."""
    row = {"image base64 string": base64.b64encode(image).decode()}
    return http_request("/score", json.dumps({"input_df": [row]}).encode(), "application/json")


@contextlib.contextmanager
def running(contender: Contender) -> Iterator[Running]:
    """Start a service, wait until it is ready, and end it and its children at the end of the block."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [part.replace("{port}", str(port)) for part in contender.command]
    environment = {**os.environ, **contender.environment}
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        begun = time.perf_counter()
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=log, start_new_session=True
        )
        try:
            listening = None
            while (status := _status(port, contender.ready)) != 200:
                elapsed = time.perf_counter() - begun
                if status is not None:
                    listening = listening or elapsed
                if process.poll() is not None or elapsed > _SECONDS_TO_START:
                    log.seek(0)
                    raise SystemExit(f"did not start: {' '.join(command)}\n{log.read()[-2000:]}")
                time.sleep(0.005)
            ready = time.perf_counter() - begun
            yield Running(contender, process, Address(port), listening or ready, ready)
        finally:
            _end(process)


def _status(port: int, path: str) -> int | None:
    """The status of GET `path`; None while nothing listens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except OSError:
        return None
    finally:
        connection.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and those that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, 15)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(20)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, 9)
    process.wait()
