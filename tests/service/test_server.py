"""scripts/deploymain.py as a process: how it starts, reloads and stops, and where it may listen."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from playwright.sync_api import expect, sync_playwright

from tests.conftest import SCRIPTS
from tests.service.conftest import ADMIN_KEY, KEY, StartService
from tests.service.test_model import BREAK, change, retrain
from tests.service.test_web_page import ARGUMENTS, CHROMIUM

TIMEOUT = 60


@pytest.fixture
def own_bundle(bundle: Path, tmp_path: Path) -> Path:
    """A bundle to change."""
    return Path(shutil.copytree(bundle, tmp_path / "bundle"))


def run(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The service in cases where it ends by itself."""
    command = [sys.executable, str(SCRIPTS / "deploymain.py"), "--port=0", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, env=environment, check=False)


def raw_post(port: int, picture: bytes) -> tuple[socket.socket, bytes]:
    """A connection on which half of a request has been sent, and the other half."""
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(picture)}\r\n\r\n".encode()
    connection = socket.create_connection(("127.0.0.1", port), TIMEOUT)
    connection.sendall(head + picture[:100])
    return connection, picture[100:]


def read_all(connection: socket.socket) -> bytes:
    """The bytes received until the server closes the connection."""
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def wait_until_refused(port: int) -> None:
    """Wait until no new connection is accepted."""
    for _ in range(10_000):
        try:
            socket.create_connection(("127.0.0.1", port), TIMEOUT).close()
        except ConnectionRefusedError:
            return
        except ConnectionResetError:  # it had arrived, but was not accepted before the end
            continue
    raise AssertionError("it still accepts connections")


# Start


@pytest.mark.parametrize("damage", ["truncated", "wrong hash", "no JSON", "no folder", "labels no text"])
def test_a_broken_bundle_ends_it_in_one_line(own_bundle: Path, damage: str) -> None:
    BREAK[damage](own_bundle)
    done = run(f"--bundle={own_bundle}")
    assert done.returncode == 1
    assert done.stderr.startswith("deploymain.py: ") and done.stderr.count("\n") == 1, done.stderr
    assert "Ready" not in done.stdout


def test_listening_for_others_needs_a_key_or_a_flag(bundle: Path, start_service: StartService) -> None:
    for host in ("0.0.0.0", "::", ""):
        done = run(f"--bundle={bundle}", f"--host={host}")
        assert done.returncode == 2, done
        assert "there is no key" in done.stderr and "--insecure" in done.stderr and done.stderr.count("\n") == 1
    insecure = start_service("--host=0.0.0.0", "--insecure", ready=False)
    assert requests.get(insecure.url + "/v2", timeout=TIMEOUT).status_code == 200
    guarded = start_service("--host=0.0.0.0", ready=False, SERVICE_KEY=KEY)
    assert requests.get(guarded.url + "/v2", timeout=TIMEOUT).status_code == 401
    headers = {"Authorization": f"Bearer {KEY}"}
    assert requests.get(guarded.url + "/v2", headers=headers, timeout=TIMEOUT).status_code == 200


def test_a_port_in_use_and_a_bad_key_are_reported_in_one_line(bundle: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run(f"--bundle={bundle}", f"--port={taken.getsockname()[1]}")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "ddress already in use" in done.stderr
    done = run(f"--bundle={bundle}", SERVICE_KEY="short")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "SERVICE_KEY" in done.stderr and "short" not in done.stderr


# Stop


def test_sigterm_answers_what_was_accepted_and_refuses_the_rest(start_service: StartService, picture: bytes) -> None:
    live = start_service()
    with requests.Session() as idle:
        assert idle.get(live.url + "/model", timeout=TIMEOUT).status_code == 200  # and the connection is kept
        connection, rest = raw_post(live.port, picture)
        with connection:
            live.process.send_signal(signal.SIGTERM)
            wait_until_refused(live.port)
            connection.sendall(rest)
            answer = read_all(connection)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b'"probability"' in answer and b"connection: close" in answer
        assert live.process.wait(TIMEOUT) == 0
    assert live.errors == ""


def test_ctrl_c_ends_it_quietly(start_service: StartService) -> None:
    live = start_service()
    live.process.send_signal(signal.SIGINT)
    assert live.process.wait(TIMEOUT) in (0, 130)
    assert "Traceback" not in live.errors


# Reload


def test_sighup_replaces_the_bundle_under_load(own_bundle: Path, start_service: StartService, picture: bytes) -> None:
    live = start_service("--serve_maxQueue=1000", folder=own_bundle)
    stopping = threading.Event()

    def hammer() -> list[tuple[int, str]]:
        found = []
        with requests.Session() as session:
            while not stopping.is_set():
                answer = session.post(live.url + "/predict", data=picture, timeout=TIMEOUT)
                found.append((answer.status_code, answer.json()["model"]["version"]))
        return found

    def version() -> str:
        return str(requests.get(live.url + "/model", timeout=TIMEOUT).json()["version"])

    versions = [version()]
    with ThreadPoolExecutor(4) as pool:
        results = [pool.submit(hammer) for _ in range(4)]
        try:
            retrain(own_bundle)
            for labels in (None, ["a", "b", "c"]):
                if labels is not None:
                    change(own_bundle, labels=labels)
                live.process.send_signal(signal.SIGHUP)
                while version() == versions[-1]:
                    assert live.process.poll() is None
                versions.append(version())
        finally:
            stopping.set()
        found = [entry for result in results for entry in result.result()]
    assert {status for status, _ in found} == {200}
    assert {version for _, version in found} <= set(versions)
    told = [f"serving textures_svm, version {each}, from {own_bundle}" for each in versions[1:]]
    assert live.errors.splitlines() == told, "a change is always told"


def test_a_broken_bundle_is_refused_by_signal_and_by_path(
    own_bundle: Path, start_service: StartService, picture: bytes
) -> None:
    live = start_service(folder=own_bundle, SERVICE_ADMIN_KEY=ADMIN_KEY)
    before = requests.get(live.url + "/model", timeout=TIMEOUT).json()
    BREAK["truncated"](own_bundle)
    live.process.send_signal(signal.SIGHUP)
    while "the bundle is refused" not in live.errors:
        assert requests.get(live.url + "/model", timeout=TIMEOUT).json() == before
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    refused = requests.post(live.url + "/admin/reload", headers=headers, timeout=TIMEOUT)
    assert refused.status_code == 422
    assert live.errors.count("the bundle is refused") == 2 == live.errors.count("\n")
    assert requests.get(live.url + "/model", timeout=TIMEOUT).json() == before
    assert requests.post(live.url + "/predict", data=picture, timeout=TIMEOUT).status_code == 200


def test_keys_are_read_again_by_signal_and_by_path(start_service: StartService, tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("key", "admin")}

    def write(name: str, key: str) -> None:
        files[name].write_text(key + "\n")
        files[name].chmod(0o600)

    def status(key: str, path: str = "/model", method: str = "GET") -> int:
        headers = {"Authorization": f"Bearer {key}"}
        return requests.request(method, live.url + path, headers=headers, timeout=TIMEOUT).status_code

    write("key", KEY)
    write("admin", ADMIN_KEY)
    live = start_service(f"--keyFile={files['key']}", f"--adminKeyFile={files['admin']}")
    assert (status(KEY), status("the-key-after-that-one")) == (200, 401)
    write("key", "the-key-after-that-one")
    live.process.send_signal(signal.SIGHUP)
    while status(KEY) == 200:
        assert live.process.poll() is None
    assert (status(KEY), status("the-key-after-that-one")) == (401, 200)
    write("admin", "the-new-key-of-administrators")
    assert status(ADMIN_KEY, "/admin/reload", "POST") == 200
    assert status(ADMIN_KEY, "/admin/reload", "POST") == 401
    assert live.errors == ""

    for number, breakage in enumerate(("short", "with blanks in the key", "", None), 1):
        files["key"].unlink() if breakage is None else write("key", breakage)
        assert status("the-new-key-of-administrators", "/admin/reload", "POST") == 422
        assert (status("the-key-after-that-one"), status(breakage or KEY)) == (200, 401)
        assert live.errors.count("the keys are refused, the present ones stay in use: ") == number
        assert str(files["key"]) in live.errors.splitlines()[-1] and "short" not in live.errors
    live.process.send_signal(signal.SIGHUP)
    while live.errors.count("the keys are refused") < 5:
        assert status("the-key-after-that-one") == 200


# /docs in a browser


@pytest.mark.skipif(CHROMIUM is None, reason="needs the browser Chromium: apt-get install chromium")
def test_docs_render_without_other_hosts_and_take_the_key(start_service: StartService, tmp_path: Path) -> None:
    live = start_service(SERVICE_KEY=KEY)
    hosts, complaints = set(), []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1200, "height": 2400})
        page.set_default_timeout(30_000)
        page.on("request", lambda request: hosts.add(request.url.split("/")[2]) if "//" in request.url else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(live.url + "/docs")
        page.get_by_role("button", name="Authorize").click()
        page.locator("input[type=text], input[type=password]").first.fill(KEY)
        page.locator(".auth-btn-wrapper .authorize").click()
        page.locator(".auth-btn-wrapper .btn-done").click()
        page.locator("#operations-Classify-score_score_post .opblock-summary").click()
        score = page.locator("#operations-Classify-score_score_post")
        expect(score).to_contain_text("iVBORw0KGgo")
        expect(score).to_contain_text("allScores")
        page.locator("#operations-Classify-predict_predict_post .opblock-summary").click()
        expect(page.locator("#operations-Classify-predict_predict_post")).to_contain_text("notes.txt")
        page.locator("#operations-Operate-model_model_get .opblock-summary").click()
        model = page.locator("#operations-Operate-model_model_get")
        model.get_by_role("button", name="Try it out").click()
        model.get_by_role("button", name="Execute").click()
        expect(model.locator(".live-responses-table")).to_contain_text("textures_svm")
        page.screenshot(path=tmp_path / "docs.png")
        browser.close()
    assert hosts == {f"127.0.0.1:{live.port}"}
    assert complaints == []


def test_the_document_is_json_for_everyone(start_service: StartService) -> None:
    live = start_service(ready=False, SERVICE_KEY=KEY)
    document = requests.get(live.url + "/openapi.json", timeout=TIMEOUT)
    assert json.loads(document.text)["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
