"""The container without a container engine: the steps of the Dockerfile, in an environment of their own.

The code lies in a copy that cannot be written, the process has no capabilities and no HOME and, where the interpreter
is one that others may run, another user.
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from libraries.classifier.bundle import Classifier, Prediction
from libraries.service.calling.client import Client
from tests.conftest import ROOT, files
from tests.service.processes import START_SECONDS, ServerProcess, free_port

ENVIRONMENT = ROOT / ".venv" / "serve"
PYTHON = ENVIRONMENT / "bin" / "python"
KEY = "a-key-of-24-characters.."
USER = 10001

real_environment = pytest.mark.skipif(not (ENVIRONMENT / ".setup").exists(), reason="needs make .venv/serve/.setup")


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's: name and arguments."""
    text = re.sub(r"(?m)^#.*\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    lines = text.replace("\\\n", " ").splitlines()
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines if line.strip()]


def arguments(name: str) -> list[str]:
    return [rest for instruction, rest in instructions() if instruction == name]


def command(text: str) -> list[str]:
    """A command in exec form, with this environment's Python."""
    program, *rest = json.loads(text[text.index("[") :])
    assert program == "python"
    return [str(PYTHON), *rest]


@dataclass
class Image:
    """A folder as the root of the container, made by the Dockerfile's instructions."""

    root: Path
    folder: Path = Path()
    env: dict[str, str] = field(default_factory=dict)

    def build(self) -> None:
        for name, rest in instructions():
            if name == "WORKDIR":
                self.folder = self.inside(rest)
            elif name == "COPY":
                self.copy(*shlex.split(rest))
            elif name == "ENV":
                pairs = dict(pair.split("=", 1) for pair in shlex.split(rest))
                self.env |= {k: str(self.inside(v)) if v.startswith("/") else v for k, v in pairs.items()}
            elif name == "RUN" and "pip" not in rest:
                _, *words = shlex.split(rest)
                subprocess.run([PYTHON, *words], cwd=self.folder, env=self.env, check=True)

    def inside(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def copy(self, *paths: str) -> None:
        *sources, target = paths
        for source in sources:
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, self.folder / target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                (self.folder / target).mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / source, self.folder / target)


def others_may_run(path: Path) -> bool:
    """Whether any user may enter all folders above a file."""
    return all(parent.stat().st_mode & 1 for parent in path.resolve().parents)


def is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("setpriv") is not None


def confined() -> list[str]:
    """The command that runs others without capabilities and, if possible, as another user."""
    if not is_root():
        return []
    user = [f"--reuid={USER}", f"--regid={USER}", "--clear-groups"] if others_may_run(PYTHON) else []
    return ["setpriv", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", *user]


@pytest.fixture(scope="module")
def image(bundle: Path) -> Iterator[Image]:
    """The image with a bundle mounted, everything read only but /tmp. Its folder is one that other users may enter."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        image = Image(Path(name))
        image.build()
        shutil.copytree(bundle, image.inside("/bundle"))
        for path in (image.root, *image.root.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        with tempfile.TemporaryDirectory() as temporary:
            if is_root():
                os.chown(temporary, USER, USER) if others_may_run(PYTHON) else None
            image.env["TMPDIR"] = temporary
            yield image
            assert not files(Path(temporary)), "nothing is written"
        for path in (image.root, *image.root.rglob("*")):
            path.chmod(0o755)


def started(image: Image, *, ready: str = "Ready: ", **environment: str) -> ServerProcess:
    (text,) = arguments("CMD")
    env = {"PATH": "/usr/bin:/bin", **image.env, "PARAMETERS_port": "0", **environment}
    if not others_may_run(PYTHON):
        env["HOME"] = "~"  # to Python the same as what the container's user has: no home at all
    return ServerProcess([*confined(), *command(text)], ready=ready, env=env, cwd=image.folder)


@dataclass
class Running:
    """The service, and the seconds until it was ready."""

    server: ServerProcess
    url: str
    seconds: float


@contextlib.contextmanager
def running(image: Image, **environment: str) -> Iterator[Running]:
    begun = time.perf_counter()
    with started(image, **environment) as server:
        seconds = time.perf_counter() - begun
        port = re.search(r"http://0\.0\.0\.0:(\d+)/", server.line("Listening on"))
        assert port is not None
        yield Running(server, f"http://127.0.0.1:{port[1]}", seconds)


@pytest.fixture(scope="module")
def service(image: Image) -> Iterator[Running]:
    with tempfile.TemporaryDirectory() as folder:
        secret = Path(folder) / "service_key"
        secret.write_text(KEY + "\n")
        secret.chmod(0o400)
        if is_root() and others_may_run(PYTHON):
            for path in (Path(folder), secret):
                os.chown(path, USER, USER)
        with running(image, PARAMETERS_keyFile=str(secret)) as service:
            yield service


# The files


def test_image_takes_only_what_the_service_needs() -> None:
    sources = {source for rest in arguments("COPY") for source in shlex.split(rest)[:-1]}
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    first, *others = [line for line in ignored if line and not line.startswith("#")]
    assert first == "*"
    assert {line[1:] for line in others if line.startswith("!")} == sources
    assert all((ROOT / source).exists() for source in sources)


def test_image_is_pinned_and_runs_as_another_user_than_root() -> None:
    (base,), (user,) = arguments("FROM"), arguments("USER")
    assert re.fullmatch(r"python:3\.\d+-slim-\w+", base)
    assert user == f"{USER}:{USER}"
    names = [name for name, _ in instructions()]
    assert names.index("USER") > max(i for i, name in enumerate(names) if name in ("RUN", "COPY"))


def test_environment_of_the_tests_is_installed_as_the_image_is() -> None:
    (install,) = (rest for rest in arguments("RUN") if "pip" in rest)
    packages = re.search(r"pip install --no-cache-dir (.*?) &&", install)
    assert packages is not None
    rule = (ROOT / "Makefile").read_text(encoding="utf-8").partition("$(VENV)/serve/.setup:")[2].partition("\n\n")[0]
    pinned = re.search(r"^PINNED := (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert pinned is not None
    (installed,) = re.findall(r"\$\(call install,\$\(@D\),(.+)\)", rule)
    assert sorted(installed.replace("$(PINNED)", pinned[1]).split()) == sorted(packages[1].split())


def test_compose_file_confines_the_container() -> None:
    composed = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    service: dict[str, Any] = composed["services"]["classifier"]
    assert service["read_only"] is True
    assert (service["cap_drop"], service["security_opt"]) == (["ALL"], ["no-new-privileges:true"])
    assert service["tmpfs"] == ["/tmp"]
    assert {"mem_limit", "cpus", "pids_limit"} <= service.keys()
    assert int(service["stop_grace_period"].removesuffix("s")) > 30, "the service takes up to 30 s to finish"
    assert service["secrets"] == list(composed["secrets"])
    assert service["environment"] == {"PARAMETERS_keyFile": f"/run/secrets/{service['secrets'][0]}"}
    (mount,) = service["volumes"]
    assert (mount["target"], mount["read_only"]) == ("/bundle", True)
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])


# The service


@real_environment
def test_environment_has_nothing_of_training_and_no_installer() -> None:
    absent = ("torch", "torchvision", "timm", "onnx", "onnxruntime", "sklearn", "scipy", "pandas", "pyarrow", "mlflow")
    names = (*absent, "matplotlib", "requests", "pip", "pytest")
    code = f"import importlib.util as u; print([n for n in {names} if u.find_spec(n) is not None])"
    done = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@real_environment
def test_openvino_is_loaded_without_its_telemetry(tmp_path: Path) -> None:
    code = "from libraries.network.engine import load_openvino as l; l(); import sys; print('openvino' in sys.modules)"
    env = {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([PYTHON, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
    assert not files(tmp_path), "it leaves an identity of the user in HOME"


@real_environment
def test_service_is_ready_soon_and_answers_as_the_bundle_does(
    service: Running, bundle: Path, image_files: list[Path], record_property: Callable[[str, object], None]
) -> None:
    record_property("seconds from start to ready", round(service.seconds, 2))
    print(f"from start to ready: {service.seconds:.2f} s")  # noqa: T201
    assert service.seconds < 20
    with Client(service.url, key=KEY) as client:
        for path, expected in Classifier(bundle).predict_files(image_files[::8]):
            assert isinstance(expected, Prediction)
            assert client.predict(path.read_bytes()).label == expected.label
    assert requests.get(f"{service.url}/model", timeout=30).status_code == 401


@real_environment
def test_everything_else_works_there_too(service: Running, picture: bytes) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    for path in ("/", "/static/app.js", "/docs", "/openapi.json", "/metrics", "/model", "/v2"):
        assert requests.get(service.url + path, headers=headers, timeout=30).status_code == 200, path
    explained = requests.post(f"{service.url}/explain", data=picture, headers=headers, timeout=60)
    assert explained.status_code == 200, explained.text
    assert KEY not in "".join(service.server.lines)


@real_environment
def test_health_check_distinguishes_a_ready_service_from_none(service: Running, image: Image) -> None:
    (text,) = arguments("HEALTHCHECK")
    for port, healthy in ((service.url.rpartition(":")[2], True), (str(free_port()), False)):
        env = {**image.env, "PARAMETERS_port": port, "http_proxy": "http://127.0.0.1:9"}
        done = subprocess.run(command(text), env=env, capture_output=True, timeout=START_SECONDS, check=False)
        assert (done.returncode == 0) is healthy


@real_environment
def test_sigterm_finishes_the_request_in_progress(image: Image, picture: bytes) -> None:
    with running(image, SERVICE_KEY=KEY) as service:
        port = int(service.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=START_SECONDS) as caller:
            lines = ("POST /predict HTTP/1.1", "Host: here", f"Authorization: Bearer {KEY}", "Expect: 100-continue")
            head = [*lines, "Content-Type: image/png", f"Content-Length: {len(picture)}", "", ""]
            caller.sendall("\r\n".join(head).encode())
            assert caller.recv(100).startswith(b"HTTP/1.1 100 "), "the service is at it"
            service.server.process.terminate()
            while accepts(port):
                pass
            caller.sendall(picture)
            answer = b"".join(iter(lambda: caller.recv(65536), b""))
        begun = time.perf_counter()
        status = service.server.process.wait(timeout=START_SECONDS)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b'"predictions"' in answer
        assert status == 0
        assert time.perf_counter() - begun < 10, "nothing is waited for any longer"


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=START_SECONDS).close()
    except OSError:
        return False
    return True


@real_environment
def test_without_a_key_it_does_not_start(image: Image) -> None:
    with pytest.raises(AssertionError, match=r"ended with 2: .*there is no key: set SERVICE_KEY or --keyFile"):
        started(image)
