"""The viewer as a web page without Jupyter: in a real browser, and towards requests that are not from its page."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright
from starlette.testclient import TestClient

from libraries.base.layout import Layout
from libraries.review.queue import QueueRow, write_queue
from libraries.widgets import web_page
from libraries.widgets.images import ImageViewer
from tests.conftest import ROOT, SCRIPTS
from tests.service.processes import ServerProcess
from tests.service.test_web_page import ARGUMENTS, CHROMIUM

KEY = "a key of these tests"
HEADERS = {"authorization": f"Bearer {KEY}"}


@pytest.fixture
def asked(layout: Layout) -> Layout:
    """A data set with two images to look at, and one in its pool."""
    pool = layout.images.with_name("textures.pool")
    pool.mkdir()
    Image.new("RGB", (30, 20), "red").save(pool / "new.png")
    rows = [
        QueueRow(f"blobs/{name}", "blobs", "checks", "mislabelled", 0.9, "train", None) for name in ("03.jpg", "01.jpg")
    ]
    write_queue(layout.review, [*rows, QueueRow(".pool/new.png", None, "stripes", "label next", 1.0, "pool", None)])
    return layout


@pytest.fixture
def client(asked: Layout) -> TestClient:
    app = web_page.create_app(lambda: ImageViewer.of(asked), key=KEY, hosts=["testserver"])
    return TestClient(app, headers=HEADERS)


def opened(client: TestClient) -> tuple[str, dict[str, Any]]:
    """The path of a new page, and its state."""
    answer = client.post("/pages").json()
    return f"/pages/{answer['page']}", answer["state"]


def test_a_page_acts_and_gets_pictures(client: TestClient, asked: Layout) -> None:
    page, state = opened(client)
    assert [item["name"] for item in state["items"]] == ["03.jpg", "01.jpg", "new.png"]
    first = state["items"][0]["id"]
    thumbnail = client.get(f"{page}/thumbnail/{first}")
    assert thumbnail.headers["content-type"] == "image/jpeg" and thumbnail.content[:2] == b"\xff\xd8"
    large = client.get(f"{page}/large/{first}").json()
    assert large["message"]["facts"]["to look at"] == "mislabelled: checks?" and large["pictures"][0]
    other, _ = opened(client)
    state = client.post(f"{page}/act", json={"do": "accept", "images": [first]}).json()
    assert state["said"] == "03.jpg: checks" and (asked.images / "checks" / "03-2.jpg").exists()
    state = client.post(f"{other}/act", json={"do": "filter", "queue": "all"}).json()
    assert [item["name"] for item in state["items"]] == ["01.jpg", "new.png"], "another page knows of it"
    (asked.images / "blobs" / "01.jpg").write_bytes(b"no image any more")
    assert client.get(f"{page}/thumbnail/{state['items'][0]['id']}").status_code == 422


@pytest.mark.parametrize(
    "method, path", [("POST", "/pages"), ("POST", "/pages/x/act"), ("GET", "/pages/x/large/0"), ("GET", "/x")]
)
@pytest.mark.parametrize("given", ["", "Bearer", "Bearer another", f"Basic {KEY}", f"Bearer {KEY}x"])
def test_nothing_but_the_page_itself_is_given_without_the_key(
    client: TestClient, method: str, path: str, given: str
) -> None:
    answer = client.request(method, path, headers={"authorization": given})
    assert answer.status_code == 401 and "open the address that the script printed" in answer.json()["detail"]


def test_the_page_itself_holds_nothing_of_the_data_set(client: TestClient) -> None:
    for path in ("/", "/viewer.js", "/viewer.css", "/page.css"):
        answer = client.get(path, headers={"authorization": ""})
        assert answer.status_code == 200 and "textures" not in answer.text
        assert answer.headers["content-security-policy"].startswith("default-src 'self'")
    assert client.get("/", headers={"host": "evil.example"}).status_code == 400


@pytest.mark.parametrize(
    "action",
    [
        b'{"do": "nothing"}',
        b"[]",
        b"null",
        b'{"do": "relabel", "images": [1e9], "label": "blobs"}',
        b'{"do": "relabel", "images": [0], "label": "../.."}',
        b'{"do": "filter", "folder": "/"}',
        b'{"do": "filter", "label": NaN}',
        b'{"do": "page", "page": "x"}',
        b'{"do": "mark", "images": [0], "mark": "foo"}',
        b'{"do": "relabel", "images": [-1], "label": "checks"}',
        b'{"do": "large"}',
    ],
)
def test_a_page_that_is_not_ours_changes_nothing(client: TestClient, asked: Layout, action: bytes) -> None:
    page, before = opened(client)
    answer = client.post(f"{page}/act", content=action)
    assert answer.status_code == 200 and answer.json()["items"] == before["items"]
    assert not (asked.images / "annotations.jsonl").exists()


def test_what_is_wrong_with_the_data_set_is_said(client: TestClient, asked: Layout) -> None:
    client = TestClient(client.app, headers=HEADERS, raise_server_exceptions=False)
    page, state = opened(client)
    log = asked.images / "annotations.jsonl"
    first, second = (item["id"] for item in state["items"][:2])
    client.post(f"{page}/act", json={"do": "keep", "images": [first]})
    log.rename(log.with_suffix(".aside"))
    state = client.post(f"{page}/act", json={"do": "accept", "images": [second]}).json()
    assert state["problem"] == f"{log} has been moved away, or replaced: open the data set again"
    assert not log.exists(), "nothing is written to another log"
    log.write_text("no log\n", encoding="utf-8")
    answer = client.post("/pages")
    assert answer.status_code == 500 and "is damaged in line 1" in answer.json()["detail"]
    assert client.get("/nothing").headers["content-type"] == "application/problem+json"


def test_what_is_wrong_with_a_request_is_said(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    page, _ = opened(client)
    assert client.post(f"{page}/act", content=b"{").status_code == 400
    assert client.post(f"{page}/act", content=b"[" * 100_000).status_code == 400
    assert client.post(f"{page}/act", content=b" " * (web_page.MOST_BYTES + 1)).status_code == 413
    assert client.get(f"{page}/thumbnail/99999").status_code == 404
    assert client.get(f"{page}/large/{10**30}").status_code == 404
    assert client.get(f"{page}/large/-1").status_code == 404
    assert client.get("/pages/unknown/large/0").json()["detail"] == "this page is no longer open: load it again"
    monkeypatch.setattr(web_page, "MOST_PAGES", 2)
    other, _ = opened(client)
    assert client.get(f"{page}/large/0").status_code == 200, "so the other is the older one"
    opened(client)
    assert client.get(f"{page}/large/0").status_code == 200
    assert client.get(f"{other}/large/0").status_code == 410


# In a browser


def command(layout: Layout, *more: str) -> list[str]:
    root = layout.root
    return [
        sys.executable,
        str(SCRIPTS / "deploymain.py"),
        "--review",
        f"--rootDir={root}",
        "--datasetName=textures",
        "--port=0",
        *more,
    ]


@pytest.fixture
def browser_page() -> Iterator[Page]:
    """A page; afterwards no script had failed."""
    complaints: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.set_default_timeout(60_000)
        expect.set_options(timeout=60_000)
        yield page
        browser.close()
    assert complaints == []


@pytest.mark.skipif(CHROMIUM is None, reason="needs the browser Chromium: apt-get install chromium")
def test_labels_are_mended_in_a_browser(asked: Layout, browser_page: Page, tmp_path: Path) -> None:
    page, images = browser_page, asked.images
    first, second, third = (page.locator(".viewer .box").nth(i) for i in range(3))
    with ServerProcess(command(asked), ready="Open ", env=dict(os.environ)) as server:
        address = server.line("Open ").split()[1]
        page.goto(address)
        expect(page).to_have_url(address.partition("#")[0])  # the key is nowhere to be seen
        expect(page.locator(".viewer .notes")).to_contain_text("Next: 3 to look at")
        expect(third.locator("img")).to_have_attribute("src", re.compile("^blob:"))
        expect(page.locator(".viewer dl")).to_contain_text("mislabelled: checks?")
        page.screenshot(path=tmp_path / "page.png")
        page.keyboard.press("Enter")
        expect(first).to_contain_text("✓ checks was blobs")
        page.keyboard.press("k")
        expect(second).to_contain_text("✓ blobs")
        page.keyboard.press("3")
        expect(third).to_contain_text("✓ stripes")
        assert (images / "checks" / "03-2.jpg").exists() and (images / "stripes" / "new.png").exists()
        page.keyboard.press("u")
        expect(third).to_contain_text("→ stripes?")
        page.get_by_role("button", name="Renew the list").click()
        expect(page.locator(".viewer .problem")).to_contain_text("run scripts/2_refineDNN.py first")
        expect(page.get_by_role("button", name="Renew the list")).to_be_enabled()
        page.reload()
        expect(page.locator(".viewer .place")).to_have_text("1–1 of 1")
        assert server.terminate() == 0
        page.keyboard.press("Enter")
        expect(page.locator("#notice")).to_have_text("The script does not answer. Is it still running?")


@pytest.mark.skipif(CHROMIUM is None, reason="needs the browser Chromium: apt-get install chromium")
def test_a_page_of_a_script_that_has_ended_acts_no_more(asked: Layout, browser_page: Page) -> None:
    """Images have other numbers for the next one, so its answers would be about other images."""
    page, images = browser_page, asked.images
    env = {**os.environ, "REVIEW_KEY": "0123456789abcdef"}
    with ServerProcess(command(asked), ready="Open ", env=env) as server:
        address = server.line("Open ").split()[1]
        page.goto(f"{address}#0123456789abcdef")
        expect(page.locator(".viewer .place")).to_have_text("1–3 of 3")
    before = sorted(path.name for path in images.rglob("*.*"))
    port = address.rstrip("/").rpartition(":")[2]
    with ServerProcess([*command(asked), f"--port={port}"], ready="Open ", env=env):
        for _ in range(3):
            page.keyboard.press("Enter")
        expect(page.locator("#notice")).to_have_text("This page is no longer open: load it again.")
        assert sorted(path.name for path in images.rglob("*.*")) == before
        page.reload()
        expect(page.locator(".viewer .place")).to_have_text("1–3 of 3")


@pytest.mark.skipif(CHROMIUM is None, reason="needs the browser Chromium: apt-get install chromium")
def test_a_key_of_ones_own_is_asked_for(asked: Layout, browser_page: Page) -> None:
    page, env = browser_page, {**os.environ, "REVIEW_KEY": "0123456789abcdef"}
    with ServerProcess(command(asked), ready="Open ", env=env) as server:
        line = server.line("Open ")
        assert "0123456789abcdef" not in line and "it asks for the key" in line
        page.goto(line.split()[1])
        expect(page.locator("#notice")).to_contain_text("The key is missing or wrong")
        page.locator("#key").fill("another")
        page.keyboard.press("Enter")
        expect(page.locator("#ask")).to_be_visible()
        page.locator("#key").fill("0123456789abcdef")
        page.keyboard.press("Enter")
        expect(page.locator(".viewer .place")).to_have_text("1–3 of 3")
        expect(page.locator("#ask")).to_be_hidden()


def test_only_this_machine_is_served_without_a_key_of_ones_own(asked: Layout) -> None:
    done = subprocess.run(
        command(asked, "--host=0.0.0.0"), capture_output=True, text=True, timeout=60, cwd=ROOT, check=False
    )
    assert done.returncode == 2
    assert done.stderr.strip().endswith(
        "host 0.0.0.0 can be reached from other machines: set REVIEW_KEY, or --keyFile, for them"
    )
    shutil.rmtree(asked.images)
    done = subprocess.run(command(asked), capture_output=True, text=True, timeout=60, cwd=ROOT, check=False)
    assert done.returncode != 0 and "Traceback" not in done.stderr and f"{asked.images} does not exist" in done.stderr
