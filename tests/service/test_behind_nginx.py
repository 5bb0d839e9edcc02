"""The service behind a real nginx, below a path prefix."""

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin

import pytest
import requests
from playwright.sync_api import expect, sync_playwright

from tests.conftest import ROOT
from tests.service.conftest import Live
from tests.service.processes import free_port
from tests.service.test_web_page import ARGUMENTS, CHROMIUM

TIMEOUT = 60
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:{ROOT}/.venv/nginx/usr/sbin")

pytestmark = pytest.mark.skipif(NGINX is None, reason="needs the proxy nginx: apt-get install nginx")

# With and without X-Forwarded-Prefix, and with the prefix removed or kept.
PREFIXES = ["/told", "/told/deep", "/told-and-kept", "/cells", "/cells-cut/cells"]
CONFIGURATION = """
daemon off; master_process off; pid nginx.pid; error_log error.log;
events {{ worker_connections 64; }}
http {{
    access_log off; client_max_body_size 0;
    client_body_temp_path body; proxy_temp_path proxy;
    fastcgi_temp_path fast; scgi_temp_path scgi; uwsgi_temp_path uwsgi;
    server {{
        listen 127.0.0.1:{port};
        location /told/ {{ proxy_pass http://{service}/; proxy_set_header X-Forwarded-Prefix /told; }}
        location /told/deep/ {{ proxy_pass http://{service}/; proxy_set_header X-Forwarded-Prefix /told/deep/; }}
        location /told-and-kept/ {{ proxy_pass http://{service}; proxy_set_header X-Forwarded-Prefix /told-and-kept; }}
        location /cells/ {{ proxy_pass http://{service}; }}
        location /cells-cut/cells/ {{ proxy_pass http://{service}/; }}
        location /named/ {{ proxy_pass http://{service}/; proxy_set_header Host shop.example; }}
    }}
}}
"""


@pytest.fixture(scope="module")
def nginx(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Runs nginx as a process in a folder of its own; gives its URL."""
    folder, port = tmp_path_factory.mktemp("nginx"), free_port()
    with Live(bundle, "--serve_trustedProxies=127.0.0.1", "--serve_rootPath=/cells") as live:
        live.wait_for("Ready: ")
        (folder / "nginx.conf").write_text(CONFIGURATION.format(port=port, service=f"127.0.0.1:{live.port}"))
        command = [str(NGINX), "-p", f"{folder}/", "-c", "nginx.conf", "-e", "error.log"]
        with subprocess.Popen(command, cwd=folder) as process:
            try:
                wait_until_it_listens(process, port)
                yield f"http://127.0.0.1:{port}"
            finally:
                process.terminate()
                process.wait(TIMEOUT)


def wait_until_it_listens(process: subprocess.Popen[bytes], port: int) -> None:
    while process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), TIMEOUT).close()
            return
        except ConnectionRefusedError:
            continue
    raise AssertionError("nginx ended")


@pytest.mark.parametrize("prefix", PREFIXES)
def test_documentation_and_requests_find_their_way(nginx: str, prefix: str, picture: bytes) -> None:
    is_known = prefix != "/cells-cut/cells"  # the service knows of /cells, which is only a part of the prefix
    base = nginx + prefix
    servers = requests.get(f"{base}/openapi.json", timeout=TIMEOUT).json()["servers"]
    assert servers == [{"url": prefix if is_known else "/cells"}]
    docs = requests.get(f"{base}/docs", timeout=TIMEOUT)
    assert docs.status_code == 200
    links = re.findall(r"""(?:href|src)="([^"]+)"|url: '([^']+)'""", docs.text)
    assert len(links) == 4
    if is_known:
        for link in map("".join, links):
            found = requests.get(urljoin(f"{base}/docs", link), timeout=TIMEOUT)
            assert found.status_code == 200 and found.url.startswith(f"{base}/"), link
    assert requests.head(f"{base}/v2/health/ready", timeout=TIMEOUT).status_code == 200
    answer = requests.post(f"{base}/predict", data=picture, timeout=TIMEOUT)
    assert answer.json()["predictions"][0]["label"]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_redirects_stay_below_the_prefix(nginx: str, prefix: str) -> None:
    for path, leads_to in (("/model/", "/model"), ("/v2/health/live/?a=b", "/v2/health/live?a=b"), ("", "/")):
        found = requests.get(nginx + prefix + path, timeout=TIMEOUT)
        assert (found.status_code, found.url) == (200, nginx + prefix + leads_to)
        assert len(found.history) == 1


def test_a_name_that_the_proxy_passes_on_must_be_allowed(nginx: str) -> None:
    found = requests.get(f"{nginx}/named/model", timeout=TIMEOUT)
    assert found.status_code == 400 and "serve_allowedHosts" in found.json()["detail"]


@pytest.mark.skipif(CHROMIUM is None, reason="needs the browser Chromium: apt-get install chromium")
def test_the_web_page_works_below_a_prefix(nginx: str, image_files: list[Path]) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        for prefix in PREFIXES:
            page, paths, complaints = browser.new_page(), set(), []
            page.set_default_timeout(30_000)
            page.on("request", lambda request, paths=paths: paths.add(request.url.removeprefix(nginx)))
            page.on("pageerror", lambda error, complaints=complaints: complaints.append(str(error)))
            page.goto(f"{nginx}{prefix}/")
            page.locator("input[type=file]").first.set_input_files(image_files[0])
            expect(page.get_by_text(re.compile(r"\d%")).first).to_be_visible()
            assert complaints == []
            assert {f"{prefix}/model", f"{prefix}/predict"} <= paths
            assert all(path.startswith((f"{prefix}/", "data:", "blob:")) for path in paths), paths
        browser.close()
