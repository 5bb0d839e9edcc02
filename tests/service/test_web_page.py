"""The service's page in a real browser: against a fake for rare cases, and against the real service."""

import base64
import io
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from libraries.classifier.bundle import Classifier, Prediction
from tests.service.web_page_fake import Answer, FakeService, Request, problem

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs the browser Chromium: apt-get install chromium")

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]
EXPECTED_IN_CONSOLE = "Failed to load resource: the server responded with a status of"  # tests of errors cause them

NewPage = Callable[..., Page]
File = dict[str, Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for this file's tests; each gets a profile of its own."""
    expect.set_options(timeout=15_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def service() -> Iterator[FakeService]:
    with FakeService() as fake:
        yield fake


@pytest.fixture
def new_page(browser: Browser) -> Iterator[NewPage]:
    """Opens a URL; afterwards no script failed, the policy held, and nothing came from another host."""
    contexts = []
    complaints: list[str] = []

    def opened(url: str, script: str = "", **options: Any) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1100, "height": 1000}, **options})
        contexts.append(context)
        context.set_default_timeout(15_000)
        context.add_init_script(script)
        page = context.new_page()

        def note(text: str) -> None:
            if not text.startswith(EXPECTED_IN_CONSOLE):
                complaints.append(text)

        def check_host(address: str) -> None:
            if not address.startswith((url, "blob:", "data:")):
                complaints.append(f"a request to {address}")

        page.on("filechooser", lambda _: None)  # from now on, so that no dialog opens before a test waits for it
        page.on("console", lambda message: note(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: check_host(request.url))
        page.goto(url)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def page(service: FakeService, new_page: NewPage) -> Page:
    """The page of the stand-in, once it knows the classifier."""
    page = new_page(service.url)
    expect(page.locator("#about")).to_be_visible()
    return page


def picture(width: int = 60, height: int = 40, kind: str = "PNG") -> bytes:
    """A picture that no JPEG makes small."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    with io.BytesIO() as file:
        Image.fromarray(pixels).save(file, kind)
        return file.getvalue()


def file(name: str = "cell.png", content: bytes | None = None, kind: str = "image/png") -> File:
    return {"name": name, "mimeType": kind, "buffer": picture() if content is None else content}


def choose(page: Page, *files: File) -> None:
    page.set_input_files("#files", list(files))


TRANSFER = """([kind, files]) => {
  const transfer = new DataTransfer();
  for (const [name, type, content] of files) {
    const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0));
    transfer.items.add(new File([bytes], name, { type }));
  }
  const given = { bubbles: true, cancelable: true };
  document.body.dispatchEvent(kind === "paste"
    ? new ClipboardEvent(kind, { ...given, clipboardData: transfer })
    : new DragEvent(kind, { ...given, dataTransfer: transfer }));
}"""


def transfer(page: Page, kind: str, *files: File) -> None:
    """Drop or paste files."""
    plain = [(f["name"], f["mimeType"], base64.b64encode(f["buffer"]).decode()) for f in files]
    page.evaluate(TRANSFER, [kind, plain])


def colours(page: Page, *places: tuple[float, float]) -> list[list[int]]:
    """RGBA of the drawn heatmap at places given in fractions of the picture's width and height."""
    expect(page.locator("canvas")).to_be_visible()
    script = """(canvas, places) => {
      const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d");
      copy.drawImage(canvas, 0, 0);
      const { data, width, height } = copy.getImageData(0, 0, canvas.width, canvas.height);
      const start = ([x, y]) => 4 * (Math.floor(y * height) * width + Math.floor(x * width));
      return places.map((place) => [...data.slice(start(place), start(place) + 4)]);
    }"""
    result: list[list[int]] = page.locator("canvas").evaluate(script, places)
    return result


# ---- One picture


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_a_picture_becomes_a_card(page: Page, service: FakeService, way: str) -> None:
    transfer(page, way, file())
    expect(page.locator(".verdict")).to_have_text("defective 93%")
    assert page.locator(".bars li").all_inner_texts() == ["defective\n93%", "functional\n7%"]
    expect(page.locator(".file")).to_have_text("cell.png")
    expect(page.locator(".times")).to_contain_text("13 ms of them in the service")
    expect(page.locator("#said")).to_have_text("cell.png: defective, 93%")
    (sent,) = service.sent("/predict")
    assert sent.body == picture()  # unchanged
    assert sent.headers["Content-Type"] == "image/png"
    track = page.locator(".track").first.bounding_box()
    assert track is not None
    expect(page.locator(".track i").first).to_have_css("scale", "0.93 1")


def test_the_header_describes_the_classifier(page: Page) -> None:
    assert page.title() == "solarCells_svm: defective or functional?"
    expect(page.locator("h1")).to_have_text("defective or functional?")
    page.get_by_text("About this classifier").click()
    facts = page.locator("#facts").inner_text()
    for told in ("86.0%", "of 656 images, 95% interval 83.3% to 88.3%", "69.3%", "tf_efficientnet_lite0", "224 × 224"):
        assert told in facts
    assert "3f2a9c0d11ee" in facts


def test_what_it_does_not_know_and_what_is_not_certain_are_said(page: Page, service: FakeService) -> None:
    service.trusted = {"unknown": True, "set": ["defective"]}
    choose(page, file())
    card = page.locator("article").first
    expect(card.locator(".verdict")).to_contain_text("I do not know this")
    expect(card.locator(".trust")).to_contain_text("of its classes, ‘defective’ is the most like it")
    expect(page.locator("#summary")).to_have_text("1 picture")
    service.trusted = {"unknown": False, "set": ["defective", "functional"]}
    choose(page, file("second.png"))
    second = page.locator("article").filter(has_text="second.png")
    expect(second.locator(".trust")).to_have_text("It may be ‘defective’ or ‘functional’: which one is not certain.")
    expect(page.locator("#summary")).to_have_text("2 pictures: 1 unknown, 1 defective")
    service.trusted = {"unknown": False, "set": ["defective"]}
    choose(page, file("third.png"))
    third = page.locator("article").filter(has_text="third.png")
    expect(third.locator(".verdict")).to_contain_text("defective")
    expect(third.locator(".trust")).to_be_hidden()
    service.trusted = {"unknown": False, "set": ["defective"], "ask": True}
    choose(page, file("fourth.png"))
    fourth = page.locator("article").filter(has_text="fourth.png")
    expect(fourth.locator(".trust")).to_contain_text("Ask a person: that is better than to rely on ‘defective’")


def test_training_images_are_shown_beside_what_is_not_known(service: FakeService, new_page: NewPage) -> None:
    service.model = {**service.model, "similar": True}
    page = new_page(service.url)
    service.trusted = {"unknown": True, "set": ["defective"]}
    choose(page, file())
    similar = page.locator("article .similar")
    expect(similar).to_be_visible()
    expect(similar.locator("li")).to_have_text(["functional", "<b>defective"])
    assert similar.locator("img").evaluate_all("images => images.every(image => image.naturalWidth === 1)")
    service.trusted = {"unknown": False, "set": ["defective"]}
    choose(page, file("sure.png"))
    sure = page.locator("article").filter(has_text="sure.png")
    expect(sure.locator(".verdict")).to_contain_text("defective")
    expect(sure.locator(".similar")).to_be_hidden()
    assert len(service.sent("/similar")) == 1


def test_without_training_images_none_are_asked_for(page: Page, service: FakeService) -> None:
    service.trusted = {"unknown": True, "set": ["defective"]}
    choose(page, file())
    expect(page.locator("article .verdict")).to_contain_text("I do not know this")
    assert not service.sent("/similar")


def test_a_drift_and_what_is_kept_are_told(service: FakeService, new_page: NewPage) -> None:
    usual = new_page(service.url)
    expect(usual.locator("#keeps")).to_have_text(", and it keeps none")
    expect(usual.locator("#notice")).to_be_hidden()
    warning = "The last 500 images look different from the test images."
    service.model = {**service.model, "drift": {"warnings": [warning]}, "keeps": "uncertain"}
    page = new_page(service.url)
    expect(page.locator("#notice")).to_have_text(f"{warning} Its answers may be less reliable than they were.")
    expect(page.locator("#keeps")).to_contain_text("keeps those that it is unsure about")


def test_a_heatmap_lies_where_the_service_says(page: Page, service: FakeService) -> None:
    service.size = (300, 200)
    service.heatmap = [[-1.0, 0.5], [-1.0, 0.5]]
    service.area = {"left": 0.25, "top": -0.5, "right": 0.75, "bottom": 1.5}  # cropped at the sides, padded above
    choose(page, file(content=picture(300, 200)))
    outside, against, between, speaks_for, outside_too = colours(
        page, (0.2, 0.5), (0.3, 0.5), (0.54, 0.1), (0.7, 0.9), (0.8, 0.5)
    )
    assert outside[3] == outside_too[3] == 0
    assert against == [111, 66, 193, 255]
    assert speaks_for == pytest.approx([224, 101, 0, 127], abs=3)  # half as strong as the strongest
    assert between[3] < 90  # a smooth passage, not two tiles
    frame, canvas = page.locator(".frame").bounding_box(), page.locator("canvas").bounding_box()
    assert frame == canvas
    assert frame is not None
    assert frame["width"] / frame["height"] == pytest.approx(1.5, rel=0.02)


def test_another_class_can_be_explained_and_the_heatmap_hidden(page: Page, service: FakeService) -> None:
    service.heatmap = [[1.0]]
    choose(page, file())
    expect(page.locator(".legend")).to_contain_text("speaks for defective")
    assert colours(page, (0.5, 0.5)) == [[224, 101, 0, 255]]
    assert service.sent("/explain")[0].query == {"label": ["defective"]}

    service.heatmap = [[-1.0]]
    page.get_by_role("button", name="functional").click()
    expect(page.get_by_role("img", name="speaks for and against 'functional'")).to_be_visible()
    assert colours(page, (0.5, 0.5)) == [[111, 66, 193, 255]]
    assert service.sent("/explain")[1].query == {"label": ["functional"]}
    assert service.sent("/explain")[1].body == picture()
    expect(page.get_by_role("button", name="functional")).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_role("button", name="defective")).to_have_attribute("aria-pressed", "false")

    page.get_by_role("button", name="defective").click()  # cached: no further request
    expect(page.get_by_role("img", name="'defective'")).to_be_visible()
    page.get_by_label("Strength of the heatmap").fill("30")
    expect(page.locator("canvas")).to_have_css("opacity", "0.3")
    page.get_by_label("Heatmap", exact=True).uncheck()
    expect(page.locator("canvas")).to_be_hidden()
    assert len(service.sent("/explain")) == 2

    choose(page, file("next.png"))  # the choice also applies to the next picture
    expect(page.locator(".verdict").first).to_be_visible()
    expect(page.locator("#said")).to_contain_text("next.png")
    assert len(service.sent("/explain")) == 2


def test_a_heatmap_that_fails_leaves_the_answer(page: Page, service: FakeService) -> None:
    service.answers["/explain"] = lambda _: problem(504, "Too late", "not finished in time")
    choose(page, file())
    expect(page.locator(".heatmap-note")).to_have_text("No heatmap: not finished in time")
    expect(page.locator(".verdict")).to_have_text("defective 93%")
    del service.answers["/explain"]
    page.get_by_role("button", name="defective").click()
    expect(page.locator("canvas")).to_be_visible()
    expect(page.locator(".heatmap-note")).to_be_hidden()


def test_a_hundred_classes_are_five_until_asked_for(service: FakeService, new_page: NewPage) -> None:
    labels = [f"class {i}" for i in range(100)]
    service.model = {**service.model, "labels": labels}
    service.probabilities = {label: 0.9 if i == 42 else 0.1 / 99 for i, label in enumerate(labels)}
    page = new_page(service.url)
    expect(page.locator("h1")).to_have_text("Which of 100 classes?")
    expect(page.locator("#classes")).to_contain_text("class 0, class 1")
    choose(page, file())
    expect(page.locator(".bars li:visible")).to_have_count(5)
    expect(page.locator(".bars li").first).to_have_text("class 4290%")
    page.get_by_role("button", name="Show all 100").click()
    expect(page.locator(".bars li:visible")).to_have_count(100)
    page.get_by_role("button", name="Show the top 5").click()
    expect(page.locator(".bars li:visible")).to_have_count(5)


def test_without_a_preview_there_is_a_placeholder_and_no_heatmap(page: Page, service: FakeService) -> None:
    choose(page, file("photo.heic", b"....ftypheic", "image/heic"))
    expect(page.locator(".verdict")).to_have_text("defective 93%")
    expect(page.get_by_text("No preview of this kind of file")).to_be_visible()
    for part in (".frame img", "canvas", "figcaption", ".hint"):
        expect(page.locator(f"#cards {part}")).to_be_hidden()
    expect(page.get_by_role("button", name="defective")).to_be_disabled()
    expect(page.locator(".bars [aria-pressed=true]")).to_have_count(0)
    choose(page, file())
    expect(page.locator("#cards canvas").first).to_be_visible()
    assert len(service.sent("/explain")) == 1


def test_names_and_labels_are_never_html(service: FakeService, new_page: NewPage) -> None:
    hostile = '<img src=x onerror="window.harmed=1"><script>window.harmed=1</script>\'&amp;\u202e'
    service.model = {**service.model, "name": hostile, "labels": [hostile, "b"]}
    service.model["metrics"] = {**service.model["metrics"], "accuracy_per_class": {hostile: 0.5}}
    service.probabilities = {hostile: 0.8, "b": 0.2}
    page = new_page(service.url)
    choose(page, file(f"{hostile}.png".replace("/", "_")))
    expect(page.locator(".verdict .label")).to_have_text(hostile)
    expect(page.locator(".legend bdi")).to_have_text(hostile)
    expect(page.locator("#name")).to_have_text(hostile)
    expect(page.locator("canvas")).to_be_visible()
    assert service.sent("/explain")[0].query == {"label": [hostile]}
    service.answers["/predict"] = lambda _: problem(422, hostile, hostile)
    choose(page, file())
    expect(page.locator(".detail").first).to_have_text(hostile)
    assert page.locator("img:not(.frame img), main script").count() == 0
    assert page.evaluate("window.harmed") is None


# ---- Several images, and errors


def test_at_most_three_are_in_flight_and_a_bad_one_does_not_affect_the_others(page: Page, service: FakeService) -> None:
    arrived, go_on = threading.Semaphore(0), threading.Event()

    def predict(request: Request) -> Answer:
        arrived.release()
        assert go_on.wait(10)
        if request.body == b"hello":
            return problem(422, "Not an image", "is not a whole JPEG image (begins with b'hello')")
        return service.predict(request)

    service.answers["/predict"] = predict
    choose(page, *(file(f"{i}.png") for i in range(4)), file("notes.txt", b"hello", "text/plain"), file("5.png"))
    expect(page.locator("article", has_text="Looking at it")).to_have_count(3)
    expect(page.locator("article", has_text="Waiting for its turn")).to_have_count(3)
    expect(page.locator("#summary")).to_have_text("6 pictures: 6 to come")
    assert all(arrived.acquire(timeout=10) for _ in range(3))
    go_on.set()
    expect(page.locator("#summary")).to_have_text("6 pictures: 5 defective, 1 not classified")
    assert service.most_at_once == 3
    assert page.locator(".file").all_inner_texts() == ["0.png", "1.png", "2.png", "3.png", "notes.txt", "5.png"]
    bad = page.locator("article", has_text="notes.txt")
    expect(bad.locator(".plain")).to_have_text("The service cannot read this file as a picture.")
    expect(bad.locator(".detail")).to_have_text("It is not a whole JPEG image (begins with b'hello')")
    expect(bad.get_by_role("button", name="Try again")).to_be_hidden()
    (text,) = (request for request in service.sent("/predict") if request.body == b"hello")
    assert text.headers["Content-Type"] == "application/octet-stream"


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_honoured(page: Page, service: FakeService, status: int) -> None:
    answers = iter([problem(status, "Busy", "too much to do", Retry_After="1")])
    service.answers["/predict"] = lambda request: next(answers, None) or service.predict(request)
    choose(page, file())
    expect(page.locator(".waiting-text")).to_have_text("The service is busy; soon again")
    expect(page.locator(".verdict")).to_have_text("defective 93%")
    first, second = service.sent("/predict")
    assert second.at - first.at >= 1
    assert second.body == first.body


def test_an_error_is_shown_and_can_be_retried(page: Page, service: FakeService) -> None:
    service.answers["/predict"] = lambda _: problem(504, "Too late", "not finished within 10 seconds")
    choose(page, file())
    expect(page.locator(".plain")).to_have_text("The service took too long over this picture.")
    expect(page.locator(".detail")).to_have_text("not finished within 10 seconds")
    expect(page.locator("#said")).to_contain_text("took too long")
    del service.answers["/predict"]
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".verdict")).to_have_text("defective 93%")
    expect(page.locator(".problem")).to_be_hidden()


def test_a_retry_after_of_minutes_is_not_waited_for(page: Page, service: FakeService) -> None:
    service.answers["/predict"] = lambda _: problem(429, "Too many", "come back tomorrow", Retry_After="86400")
    choose(page, file())
    expect(page.locator(".plain")).to_have_text("The service has too much to do. Try again in a while.")
    assert len(service.sent("/predict")) == 1


def test_before_the_service_is_ready_pictures_wait(service: FakeService, new_page: NewPage) -> None:
    answers = iter([problem(503, "Not ready", "the model is being loaded", Retry_After="1")])
    service.answers["/model"] = lambda request: next(answers, None) or service.tell_model(request)
    page = new_page(service.url)
    choose(page, file())
    expect(page.locator("#notice")).to_have_text("The service is starting. This page tries again by itself.")
    expect(page.locator(".waiting-text")).to_have_text("Waiting for the service")
    assert service.sent("/predict") == []
    expect(page.locator(".verdict")).to_have_text("defective 93%")
    expect(page.locator("#notice")).to_be_hidden()


def test_the_key_is_requested_and_kept_only_in_the_tab(service: FakeService, new_page: NewPage) -> None:
    def guarded(answer: Callable[[Request], Answer]) -> Callable[[Request], Answer]:
        def guard(request: Request) -> Answer:
            known = request.headers.get("Authorization") == "Bearer open-sesame"
            return answer(request) if known else problem(401, "Unauthorized", "the key is missing or wrong")

        return guard

    usual = {"/model": service.tell_model, "/predict": service.predict, "/explain": service.explain}
    service.answers = {path: guarded(answer) for path, answer in usual.items()}
    page = new_page(service.url)
    key = page.get_by_label("This service asks for a key")
    expect(key).to_be_focused()
    expect(key).to_have_attribute("type", "password")
    key.fill("wrong")
    key.press("Enter")
    expect(page.get_by_text("The service does not accept this key.")).to_be_visible()
    key.fill("ключ")
    key.press("Enter")
    expect(page.locator("#key-problem")).to_contain_text("A key has only")
    key.fill("open-sesame")
    page.get_by_role("button", name="Use this key").click()
    expect(page.locator("h1")).to_have_text("defective or functional?")
    expect(page.locator("#key")).to_be_hidden()
    choose(page, file())
    expect(page.locator("canvas")).to_be_visible()

    page.reload()
    expect(page.locator("h1")).to_have_text("defective or functional?")
    expect(page.locator("#key")).to_be_hidden()
    assert page.evaluate("[localStorage.length, document.cookie, location.href]") == [0, "", service.url]
    assert not any("sesame" in request.address for request in service.requests)

    service.answers["/predict"] = lambda _: problem(401, "Unauthorized", "the key was changed")
    choose(page, file())
    expect(page.get_by_text("The service does not accept this key.")).to_be_visible()
    del service.answers["/predict"]
    key.fill("another")
    key.press("Enter")
    expect(page.locator(".verdict")).to_have_text("defective 93%")  # the picture waited for the key


def test_pictures_over_the_limits_are_scaled_down(service: FakeService, new_page: NewPage) -> None:
    service.model = {**service.model, "limits": {"megabytes": 0.02, "images": 64, "megapixels": 0.05}}
    page = new_page(service.url)
    choose(page, file(content=picture(400, 200)))  # 0.08 megapixels, about 0.24 MB
    expect(page.locator(".times")).to_contain_text("scaled down to the size the service takes")
    (sent,) = service.sent("/predict")
    with Image.open(io.BytesIO(sent.body)) as image:
        assert image.format == "JPEG"
        assert image.width / image.height == pytest.approx(2, rel=0.02)
    assert len(sent.body) <= 20_000
    assert sent.headers["Content-Type"] == "image/jpeg"

    choose(page, file("photo.heic", bytes(30_000), "image/heic"))
    expect(page.locator(".plain").first).to_have_text("This picture is too large for the service.")
    assert len(service.sent("/predict")) == 1


def test_a_new_bundle_changes_the_head(page: Page, service: FakeService) -> None:
    service.model = {**service.model, "version": "ffff00000000", "labels": ["defective", "functional", "dirty"]}
    choose(page, file())
    expect(page.locator("h1")).to_have_text("defective, functional or dirty?")


# ---- Input, and accessibility


def test_the_camera(service: FakeService, new_page: NewPage) -> None:
    page = new_page(service.url, permissions=["camera"])
    page.get_by_role("button", name="Use the camera").click()
    shutter = page.get_by_role("button", name="Take the picture")
    expect(shutter).to_be_enabled()
    expect(shutter).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".verdict")).to_have_text("defective 93%")
    expect(page.locator("dialog")).to_be_hidden()
    assert page.evaluate("document.querySelector('video').srcObject") is None  # the camera is off
    with Image.open(io.BytesIO(service.sent("/predict")[0].body)) as image:
        assert image.format == "JPEG"
        assert min(image.size) >= 480


def test_without_a_camera_it_says_so(service: FakeService, new_page: NewPage) -> None:
    page = new_page(service.url)
    page.evaluate("""() => {
      navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException("no", "NotFoundError"));
    }""")
    page.get_by_role("button", name="Use the camera").click()
    expect(page.locator("dialog")).to_contain_text("No camera was found.")
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).to_be_hidden()
    expect(page.get_by_role("button", name="Use the camera")).to_be_focused()


def test_the_keyboard_is_enough(page: Page, service: FakeService) -> None:
    focused = "document.activeElement.id || document.activeElement.className || document.activeElement.tagName"
    seen = []
    for _ in range(3):
        page.keyboard.press("Tab")
        seen.append(page.evaluate(focused))
    assert seen == ["SUMMARY", "choose", "camera"]
    page.keyboard.press("Shift+Tab")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
    assert outline == "3px"
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files([file("a.png"), file("b.png")])  # type: ignore[list-item]
    expect(page.locator(".verdict")).to_have_count(2)

    page.get_by_label("Heatmap", exact=True).first.focus()
    page.keyboard.press("Space")
    expect(page.locator("canvas").first).to_be_hidden()
    page.get_by_role("button", name="functional").first.focus()
    page.keyboard.press("Enter")
    expect(page.locator("canvas").first).to_be_visible()
    page.get_by_role("button", name="Remove a.png").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Remove b.png")).to_be_focused()
    page.get_by_role("button", name="Clear all").press("Enter")
    expect(page.locator("#results")).to_be_hidden()
    expect(page.get_by_role("button", name="Choose pictures")).to_be_focused()


def test_every_control_has_a_name(page: Page) -> None:
    choose(page, file())
    expect(page.locator(".verdict")).to_be_visible()
    nameless = page.evaluate("""[...document.querySelectorAll("button, input:not([hidden])")]
      .filter((e) => !(e.textContent.trim() || e.ariaLabel || e.labels?.length)).map((e) => e.outerHTML)""")
    assert nameless == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out(service: FakeService, new_page: NewPage, scheme: str) -> None:
    """WCAG 2 AA: a contrast of 4.5 between text and background."""
    page = new_page(service.url, color_scheme=scheme)
    read = """(names) => names.map((name) => {
      const canvas = new OffscreenCanvas(1, 1).getContext("2d");
      canvas.fillStyle = getComputedStyle(document.documentElement).getPropertyValue(name);
      canvas.fillRect(0, 0, 1, 1);
      return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
    })"""

    def luminance(rgb: list[int]) -> float:
        parts = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in rgb]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    pairs = [(ink, ground) for ink in ("--ink", "--soft", "--warn") for ground in ("--page", "--card", "--raised")]
    for ink, ground in [*pairs, ("--on-accent", "--accent"), ("--accent", "--page")]:
        lighter, darker = sorted((luminance(rgb) for rgb in page.evaluate(read, [ink, ground])), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, (ink, ground)


def test_on_a_phone(service: FakeService, new_page: NewPage) -> None:
    long = "a_very_long_label_without_any_space_in_it_at_all_really"
    service.model = {**service.model, "name": long, "labels": [long, "b"]}
    service.probabilities = {long: 0.7, "b": 0.3}
    phone = {"width": 360, "height": 740}
    page = new_page(service.url, viewport=phone, is_mobile=True, has_touch=True, reduced_motion="reduce")
    choose(page, file(f"{long}{long}.png"), file("pan.png", picture(400, 40)), file("notes.txt", b"x", "text/plain"))
    expect(page.locator(".verdict")).to_have_count(3)
    expect(page.locator("canvas").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    small = page.evaluate("""[...document.querySelectorAll("button")].filter((e) => e.offsetParent)
      .filter((e) => e.offsetHeight < 44 || e.offsetWidth < 44).map((e) => e.textContent)""")
    assert small == []  # wide and high enough for a finger
    assert page.evaluate("document.getAnimations().length") == 0


def test_a_touch_device_uses_its_own_camera(service: FakeService, new_page: NewPage) -> None:
    page = new_page(service.url, script="window.matchMedia = () => ({ matches: true })")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Use the camera").click()
    chooser.value.set_files(file("photo.jpg", picture(kind="JPEG"), "image/jpeg"))  # type: ignore[arg-type]
    assert chooser.value.element.get_attribute("capture") == "environment"
    expect(page.locator(".verdict")).to_have_text("defective 93%")


# ---- The real service


def test_the_real_service(start_service: Callable[..., Any], bundle: Path, pictures: Path, new_page: NewPage) -> None:
    image = pictures / "checks" / "01.jpg"
    ((_, expected),) = Classifier(bundle).predict_files([image])
    assert isinstance(expected, Prediction)
    key = secrets.token_urlsafe()
    url = start_service(ready=False, SERVICE_KEY=key).url
    page = new_page(f"{url}/")
    page.get_by_label("This service asks for a key").fill(key)
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("blobs, checks or stripes?")
    transfer(page, "drop", file(image.name, image.read_bytes(), "image/jpeg"))
    expect(page.locator(".verdict .label")).to_have_text(expected.label)
    expect(page.locator(".bars li")).to_have_count(3)
    parts = page.locator(".track i").evaluate_all("(bars) => bars.map((e) => +e.style.getPropertyValue('--part'))")
    assert parts == pytest.approx(sorted(expected.probabilities.tolist(), reverse=True), abs=1e-4)
    middle = [(x / 10, y / 10) for x in range(1, 10) for y in range(1, 10)]
    assert max(alpha for *_, alpha in colours(page, *middle)) > 100
    page.get_by_role("button", name="stripes").click()
    expect(page.get_by_role("img", name="speaks for and against 'stripes'")).to_be_visible()

    choose(page, file("notes.txt", b"hello", "text/plain"))
    expect(page.locator(".plain").first).to_have_text("The service cannot read this file as a picture.")
    expect(page.locator("#summary")).to_have_text(f"2 pictures: 1 {expected.label}, 1 not classified")
