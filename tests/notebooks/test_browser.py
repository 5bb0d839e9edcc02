"""The viewers as a user has them: in JupyterLab, in a real browser, by keyboard and mouse, on real files."""

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect, sync_playwright

from libraries.base.storage import write_json
from PARAMETERS import Parameters
from tests.conftest import ROOT, run_main, small_run
from tests.service.processes import ServerProcess, free_port
from tests.service.test_web_page import ARGUMENTS, CHROMIUM

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs the browser Chromium: apt-get install chromium")

TOKEN = "token-of-the-tests"
Open = Callable[[str], Page]


@pytest.fixture
def parameters(evaluated: Path, tmp_path: Path, in_environment: Callable[[Parameters], Parameters]) -> Parameters:
    """Of a whole run on images of its own, one of them with a wrong label."""
    shutil.copytree(evaluated, tmp_path / "data")
    return in_environment(small_run(tmp_path / "data", svm_CVals=(0.01,), svm_boL2Normalize=True))


@pytest.fixture
def lab(parameters: Parameters, tmp_path: Path) -> Iterator[str]:
    """JupyterLab on a copy of the notebooks, with settings of its own."""
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks", ignore=shutil.ignore_patterns(".*"))
    folders = {f"JUPYTER_{name}_DIR": str(tmp_path / "jupyter" / name) for name in ("CONFIG", "RUNTIME", "DATA")}
    quiet = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False}}
    write_json(tmp_path / "jupyter" / "CONFIG" / "labconfig" / "default_setting_overrides.json", quiet)
    address = f"http://127.0.0.1:{(port := free_port())}"
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}"),
        f"--ServerApp.root_dir={tmp_path / 'notebooks'}",
    ]
    env = {**os.environ, **folders, "JUPYTER_TOKEN": TOKEN, "IPYTHONDIR": str(tmp_path / "ipython")}
    with ServerProcess(command, ready=f"{address}/lab", env=env):
        yield address


@pytest.fixture
def open_notebook(lab: str) -> Iterator[Open]:
    """Opens a notebook and runs all its cells; afterwards nothing came from another host, and no script had failed."""
    complaints: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)

        def opened(name: str) -> Page:
            page = browser.new_page(viewport={"width": 1400, "height": 1500})
            page.set_default_timeout(60_000)
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on(
                "request",
                lambda request: (
                    request.url.startswith((lab, "blob:", "data:", "ws:")) or complaints.append(request.url)
                ),
            )
            page.goto(f"{lab}/lab/tree/{name}.ipynb?token={TOKEN}&reset")
            run_all(page)
            return page

        expect.set_options(timeout=60_000)
        yield opened
        browser.close()
    assert complaints == []


def run_all(page: Page) -> None:
    """Run all cells once the kernel is there, and wait for the first picture."""
    expect(page.locator("#jp-main-statusbar")).to_contain_text("| Idle")
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    expect(page.locator(".viewer .box").first.locator("img")).to_have_attribute("src", re.compile("^blob:"))


def restart(page: Page) -> None:
    """End the kernel's memory, and take the old views off the page."""
    page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.get_by_role("menuitem", name="Restart Kernel and Clear Outputs of All Cells…", exact=True).click()
    page.locator(".jp-Dialog .jp-mod-accept").click()
    expect(page.locator(".viewer")).to_have_count(0)


def box(page: Page, name: str) -> Locator:
    return page.locator(f'.viewer .box[title="{name}"]')


def number(text: str | None) -> float:
    return float(re.findall(r"[\d.]+", text or "")[-1])


def test_a_label_is_mended_by_keyboard_and_the_results_show_it(
    parameters: Parameters, open_notebook: Open, tmp_path: Path
) -> None:
    images = parameters.rootDir / "images" / "textures"
    # blobs/00.png gets a wrong label, as a person would give it
    (images / "blobs" / "00.png").rename(images / "checks" / "odd.png")
    run_pipeline(parameters)

    page = open_notebook("showImages")
    cells = page.locator(".jp-Cell").count()
    grid, said = page.locator(".viewer .grid"), page.locator(".viewer .said")
    page.locator(".viewer .bar select").first.select_option("label:checks")
    expect(page.locator(".viewer .place")).to_have_text("1–17 of 17")
    box(page, "odd.png").click()
    expect(page.locator(".viewer dl")).to_contain_text("checks/odd.png")
    expect(page.locator(".viewer .large img")).to_have_attribute("src", re.compile("^blob:"))

    page.keyboard.press("1")  # blobs: the labels are in order
    expect(said).to_have_text("odd.png: blobs")
    assert (images / "blobs" / "odd.png").exists()
    expect(box(page, "odd.png")).to_contain_text("blobs was checks")
    expect(page.locator(".viewer .notes")).to_contain_text("scripts/1_prepareData.py")
    page.keyboard.press("u")
    expect(said).to_have_text("odd.png: undone")
    assert (images / "checks" / "odd.png").exists()
    page.keyboard.press("r")
    expect(said).to_have_text("odd.png: done again")

    # several at once, then undone after the kernel has lost its memory
    page.keyboard.press("Home")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    expect(page.locator('.viewer .box[aria-selected="true"]')).to_have_count(3)
    page.keyboard.press("x")
    expect(said).to_have_text("3 images: excluded")
    expect(page.locator(".viewer .box.marked")).to_have_count(3)
    restart(page)
    run_all(page)
    page.locator(".viewer .bar select").first.select_option("mark:excluded")
    expect(page.locator(".viewer .place")).to_have_text("1–3 of 3")
    grid.focus()
    page.keyboard.press("Control+z")
    expect(said).to_have_text("3 images: undone")

    # no key has reached the notebook, where digits make headings, x cuts cells and arrows leave them
    assert page.locator(".jp-Cell").count() == cells
    assert page.locator(".jp-MarkdownCell").count() == 2
    page.keyboard.press("/")
    page.keyboard.type("07.j")
    page.locator(".viewer .bar select").first.select_option("")
    expect(page.locator(".viewer .place")).to_have_text("1–3 of 3")
    page.screenshot(path=tmp_path / "showImages.png")

    run_pipeline(parameters)
    page = open_notebook("showResults")
    expect(page.locator(".viewer .notes")).to_be_empty()
    page.locator(".viewer .bar select").first.select_option("")
    page.get_by_placeholder("file name").fill("odd")
    if "odd.png" in (parameters.rootDir / "proc/textures/evaluation_svm/predictions.csv").read_text():
        expect(box(page, "blobs/odd.png")).to_be_visible()
    else:  # on the other side of the split: learnt from, with its new label
        expect(page.locator(".viewer .place")).to_have_text("no images")


def test_the_queue_is_answered_by_keyboard(parameters: Parameters, open_notebook: Open, tmp_path: Path) -> None:
    images = parameters.rootDir / "images" / "textures"
    for name in ("00.png", "03.jpg", "05.jpg"):
        (images / "blobs" / name).rename(images / "checks" / f"odd-{name}")
    run_pipeline(parameters)

    page = open_notebook("showImages")
    said, notes = page.locator(".viewer .said"), page.locator(".viewer .notes")
    chosen = page.locator(".viewer .bar select").first
    left = int(number(chosen.locator("option:checked").text_content()))
    assert left >= 3
    expect(notes).to_contain_text(f"Next: {left} to look at")
    first, second = (page.locator(".viewer .box").nth(i) for i in range(2))
    expect(second).to_contain_text("checks → blobs?")
    expect(first).to_contain_text("checks → blobs?")
    page.screenshot(path=tmp_path / "queue.png")

    second.click()
    put_off = str(second.get_attribute("title"))
    page.keyboard.press("s")
    expect(second).not_to_have_attribute("title", put_off)
    expect(second).to_have_class(re.compile("cursor"))  # at the next one, not back at the first
    first.click()
    name = first.get_attribute("title")
    page.keyboard.press("Enter")
    expect(said).to_have_text(f"{name}: blobs")
    assert (images / "blobs" / str(name)).exists()
    expect(first).to_contain_text("✓ blobs was checks")
    expect(second).to_have_class(re.compile("cursor"))
    page.keyboard.press("k")
    expect(said).to_have_text(f"{second.get_attribute('title')}: right as it is")
    page.keyboard.press("u")
    expect(said).to_have_text(f"{second.get_attribute('title')}: undone")
    expect(second).to_contain_text("checks → blobs?")
    expect(notes).to_contain_text("To apply your changes")
    chosen.select_option("")
    expect(page.locator(".viewer .place")).to_have_text("1–48 of 48")
    expect(page.locator(".viewer .doubt")).to_have_count(0)
    page.locator(".viewer .grid").focus()
    page.keyboard.press("Enter")
    expect(page.locator(".viewer.wide")).to_have_count(1)  # elsewhere, Enter shows the picture large


def run_pipeline(parameters: Parameters) -> None:
    for step in ("1_prepareData", "3_runDNN", "4_trainSVM", "5_evaluate"):
        run_main(step, parameters)


def test_results_are_explored(parameters: Parameters, open_notebook: Open, tmp_path: Path) -> None:
    page = open_notebook("showResults")
    place = page.locator(".viewer .place")
    expect(page.locator(".viewer .title")).to_contain_text("12 test images right")

    # a click on a cell of the confusion matrix shows its images, another takes that back
    for cell in page.locator(".viewer .matrix .cell").all():
        count = int(cell.text_content() or "")
        cell.click()
        expect(cell).to_have_attribute("aria-pressed", "true")
        expect(place).to_have_text(f"1–{count} of {count}" if count else "no images")
        cell.click()
        expect(place).to_have_text("1–12 of 12")

    # the scores of all classes, and what the network finds alike
    page.locator(".viewer .box").first.click()
    bars = page.locator(".viewer .bars button")
    expect(bars).to_have_count(3)
    assert sum(number(bar.locator(".score").text_content()) for bar in bars.all()) == pytest.approx(100, abs=0.2)
    expect(page.locator(".viewer .alike img")).to_have_count(5)

    # evidence by key, and for another class by mouse
    page.keyboard.press("e")
    evidence = page.locator(".viewer .sheet .evidence")
    expect(evidence).to_be_visible()
    expect(page.locator(".viewer .method")).to_contain_text("(class activation map)")
    bars.nth(2).click()
    other = bars.nth(2).locator(".name").text_content() or ""
    expect(evidence).to_have_attribute("alt", f"evidence for {other.removesuffix(' ✓')}")
    page.keyboard.press("ArrowRight")
    expect(evidence).to_be_visible()
    page.keyboard.press("e")
    expect(evidence).to_have_count(0)

    # a wrong label is mended on the spot
    first = page.locator(".viewer .box.cursor")
    path = parameters.rootDir / "images" / "textures" / (first.get_attribute("title") or "")
    assert path.exists()
    expect(page.locator(".viewer dl")).to_contain_text(f"{path.parent.name}/{path.name}")
    wrong = next(name for name in ("blobs", "stripes") if name != path.parent.name)
    page.keyboard.press("l")
    page.locator(".viewer .relabel").select_option(wrong)
    expect(first).to_contain_text(f"now {wrong}")
    expect(page.locator(".viewer .notes")).to_contain_text("scripts 1 to 5")
    assert not path.exists()
    page.keyboard.press("u")
    expect(page.locator(".viewer .notes")).to_be_empty()
    assert path.exists()

    # precision and recall move with the threshold
    slider, numbers = page.locator(".viewer input[type=range]"), page.locator(".viewer .numbers")
    slider.fill("0")
    expect(numbers).to_contain_text("0.0%: precision 33.3%, recall 100.0%")
    expect(page.locator(".viewer .threshold")).to_contain_text("8 false alarms")
    page.locator(".viewer .threshold button", has_text="false alarms").click()
    expect(place).to_have_text("1–8 of 8")
    slider.fill("1000")
    expect(numbers).to_contain_text("100.0%: precision –, recall 0.0%")
    page.screenshot(path=tmp_path / "showResults.png")
