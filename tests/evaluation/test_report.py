"""The report: what it says, that it needs nothing from outside, and that names from outside cannot harm it."""

import base64
import hashlib
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from libraries.base import figures
from libraries.base.errors import ImageError
from libraries.evaluation import plots, report, wording
from libraries.evaluation.metrics import confident_mistakes, metrics
from libraries.evaluation.outputs import jpeg
from libraries.evaluation.report import EarlierRun

VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """A page's tags with their attributes, and its text without scripts and styles; complains about unclosed tags."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "script" not in self.open and "style" not in self.open:
            self.text += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def example(n: int, k: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, n)
    scores = rng.normal(size=(n, k))
    scores[np.arange(n), labels] += 2
    p = np.exp(scores)
    return labels, p / p.sum(axis=1, keepdims=True)


def thumbnail(path: str, side: int) -> bytes:
    if "broken" in path:
        raise ImageError("the file is <cut> short", path)
    return jpeg(np.full((side, side, 3), 128, np.uint8))


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    labels, p = example(60, 2)
    path = tmp_path_factory.mktemp("pictures") / "roc.png"
    figures.save(plots.roc_and_confusion(labels, p.argmax(axis=1), p, names=["a", "b"]), path)
    return path


def write(
    path: Path,
    picture: Path,
    *,
    names: list[str],
    n: int = 200,
    title: str = "solarCells",
    paths: str = "class/image {}.jpg",
    count: int = 6,
    perfect: bool = False,
) -> tuple[str, Page, dict[str, Any]]:
    labels, p = example(n, len(names))
    if perfect:
        p = np.eye(len(names))[labels]
    result = metrics(labels, p, names=names)
    wrong = confident_mistakes(labels, p.argmax(axis=1), p, count=count)
    report.write_report(
        path,
        title=title,
        facts={"classifier": "svm & co", "date": "2026-03-03"},
        metrics=result,
        figures={"roc_and_confusion": picture, "reliability": picture.read_bytes(), "my <own>": picture},
        mistakes=[
            report.Mistake(paths.replace("{}", str(i)), names[labels[i]], names[p[i].argmax()], p[i].tolist())
            for i in wrong
        ],
        thumbnail=thumbnail,
        parameters={"svm_CVals": [0.1, 1.0]},
        provenance={"model.onnx": "sha256 <0>", "versions": {"numpy": "<2>"}},
        earlier=[
            EarlierRun("2026-02-02 10:00", ("other <test> images", "rf_views = 8"), 0.4321, None, False),
            EarlierRun("2026-01-01 10:00", ("nothing",), 0.1234, 0.2356, True),
        ],
    )
    html = path.read_text(encoding="utf-8")
    return html, Page(html), result


def test_says_what_matters(tmp_path: Path, picture: Path) -> None:
    _, page, result = write(tmp_path / "report.html", picture, names=["cat", "dog", "owl"])
    for text in (
        f"{result['overall_accuracy']:.1%}",
        wording.interval(result["intervals"]["overall_accuracy"]),
        "of 200 test images are right",
        "svm & co",
        "2026-03-03",
        "Most frequent confusions",
        "svm_CVals",
        "sha256 <0>",
        "numpy: <2>",
        "my <own>",
        *("Earlier runs", "2026-02-02 10:00", "other <test> images", "rf_views = 8", "43.2%", "12.3%", "23.6%"),
        *wording.sentences(result),
    ):
        assert text in page.text
    for label in ("cat", "dog", "owl"):
        assert f"{result['accuracy_per_class'][label]:.1%}" in page.text


def test_needs_nothing_from_outside(tmp_path: Path, picture: Path) -> None:
    html, page, _ = write(tmp_path / "report.html", picture, names=["cat", "dog"])
    assert len(page.named("img")) == 3 + 6
    assert all(image["src"].startswith("data:image/") for image in page.named("img"))
    assert all(image["alt"] for image in page.named("img"))
    assert not page.named("link") and not page.named("iframe") and not page.named("a")
    assert "http:" not in html and "https:" not in html and "@import" not in html and "url(" not in html
    policy = next(m["content"] for m in page.named("meta") if m.get("http-equiv") == "Content-Security-Policy")
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert policy.startswith("default-src 'none'")
    assert f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy
    assert "$" not in re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL).split("</style>")[1]


@pytest.mark.parametrize(
    "name",
    ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</style><b>", "a&lt;b", "$title ${body}", "'"],
)
def test_names_are_only_ever_text(name: str, tmp_path: Path, picture: Path) -> None:
    path = tmp_path / "report.html"
    html, page, _ = write(path, picture, names=[name, "other", "third"], title=name, paths=name + "/broken {}.jpg")
    assert html.count("<script") == 1
    assert not page.named("b") or all(not attributes for attributes in page.named("b"))
    assert page.text.count(name) > 5
    assert "onerror" not in {key for _, attributes in page.tags for key in attributes}
    assert "the file is <cut> short" in page.text  # an unreadable image leaves a gap, with the reason
    assert len(page.named("img")) == 3


def test_file_names_that_are_not_unicode(tmp_path: Path, picture: Path) -> None:
    paths = b"class/caf\xe9 {}.jpg".decode("utf-8", "surrogateescape")
    _, page, _ = write(tmp_path / "report.html", picture, names=["cat", "dog"], paths=paths)
    assert "class/caf? " in page.text


def test_no_mistakes(tmp_path: Path, picture: Path) -> None:
    _, page, _ = write(tmp_path / "report.html", picture, names=["cat", "dog", "owl"], perfect=True)
    assert "There are none." in page.text
    assert "100.0%" in page.text


def test_ten_thousand_images_of_a_hundred_classes_stay_small(tmp_path: Path, picture: Path) -> None:
    path = tmp_path / "report.html"
    _, page, _ = write(path, picture, names=[f"class {c}" for c in range(100)], n=10_000, count=10_000)
    assert path.stat().st_size < 10_000_000
    assert len(page.named("img")) == 3 + report.MOST_MISTAKES


def page_of(mistake: report.Mistake, labels: list[str], path: Path) -> Page:
    """A report that shows this mistake and no pictures else."""
    report.write_report(
        path,
        title="tiny",
        facts={},
        metrics=metrics(np.arange(len(labels)), np.eye(len(labels)), names=labels),
        figures={},
        mistakes=[mistake],
        thumbnail=thumbnail,
        parameters={},
        provenance={},
    )
    return Page(path.read_text(encoding="utf-8"))


def test_the_true_class_is_always_among_a_mistakes_probabilities(tmp_path: Path) -> None:
    mistake = report.Mistake("a.jpg", "last", "first", [0.5, 0.3, 0.1, 0.09, 0.01])
    page = page_of(mistake, ["first", "second", "third", "fourth", "last"], tmp_path / "report.html")
    assert [item["class"] for item in page.named("li") if item] == ["other", "other", "other", "truth"]
    bars = [item["style"] for item in page.named("i")]
    assert bars == ["--p:50.0%", "--p:30.0%", "--p:10.0%", "--p:1.0%"]


def test_evidence_and_the_images_alike_are_shown_where_there_are_any(tmp_path: Path) -> None:
    alike = [("first/1.jpg", "first"), ("last/broken.jpg", "last")]
    mistake = report.Mistake("a.jpg", "last", "first", [0.9, 0.1], evidence=b"map", alike=alike)
    page = page_of(mistake, ["first", "last"], tmp_path / "report.html")
    assert [image["alt"] for image in page.named("img")] == ["a.jpg", "", "first/1.jpg"]
    assert "data:image/png;base64,bWFw" in str(page.named("img")[1]["src"])
    assert [item["title"] for item in page.named("li") if item.get("title")] == [path for path, _ in alike]
    assert page.named("input") == [{"type": "checkbox", "id": "evidence"}]
    plain = report.Mistake("a.jpg", "last", "first", [0.9, 0.1])
    bare = page_of(plain, ["first", "last"], tmp_path / "plain.html")
    assert not bare.named("input")
    assert len(bare.named("ol")) == 1


def test_matrix_of_a_few_classes_can_be_sorted_by_each(tmp_path: Path, picture: Path) -> None:
    html, _, result = write(tmp_path / "report.html", picture, names=["cat", "<dog>", "owl"])
    table = html[html.index('<table class="sortable matrix">') :]
    cells = [int(value) for value in re.findall(r'<td data-value="(\d+)"', table[: table.index("</table>")])]
    assert cells == [images for row in result["confusion_matrix"] for images in row]
    assert "&lt;dog&gt;" in table
    for names in (["cat", "dog"], [f"class {i}" for i in range(report.MOST_COLUMNS + 1)]):
        html, _, _ = write(tmp_path / "report.html", picture, names=names, n=500)
        assert "matrix" not in html[html.index("</style>") :], (
            "of two classes the picture says it all; of many no page can"
        )


def test_jpeg_keeps_the_shape() -> None:
    with Image.open(io.BytesIO(jpeg(np.zeros((30, 60, 3), np.uint8)))) as image:
        assert image.size == (60, 30)
        assert image.format == "JPEG"


# In words


def told(labels: list[int], predictions: list[int], *, names: list[str], confidence: float = 0.9) -> str:
    p = np.full((len(labels), len(names)), (1 - confidence) / (len(names) - 1))
    p[np.arange(len(labels)), predictions] = confidence
    return " ".join(wording.sentences(metrics(labels, p, names=names)))


def test_reading_of_a_good_classifier() -> None:
    text = told([0] * 60 + [1] * 40, [0] * 57 + [1] * 3 + [1] * 33 + [0] * 7, names=["cat", "dog"])
    assert "Of 100 test images, none of them used for training, 90 are right and 10 wrong." in text
    assert "Always saying ‘cat’, the most frequent class, would be right for 60.0%" in text
    assert "avoids 75% of the mistakes of that rule" in text
    assert "best at ‘cat’ (95.0% right) and weakest at ‘dog’ (82.5%)" in text
    assert "take ‘dog’ for ‘cat’: 7 images, 17.5% of the class" in text
    assert "can be taken at face value" in text


@pytest.mark.parametrize(
    ("labels", "predictions", "names", "confidence", "expected"),
    [
        ([0] * 60 + [1] * 40, [0] * 100, ["a", "b"], 0.9, "no better than that"),
        ([0] * 12 + [1] * 8, [0] * 12 + [1] + [0] * 7, ["a", "b"], 0.9, "so few images do not show"),
        ([0] * 50, [0] * 50, ["a", "b"], 0.9, "says nothing about distinguishing classes"),
        ([0] * 50 + [1] * 50, [0, 1] * 50, ["a", "b"], 0.9, "should not be taken at face value"),
        ([0] * 50 + [1] * 50, [0] * 50 + [1] * 50, ["a", "b"], 0.95, "a fair guide: they are off by 5.0 points"),
        ([0] * 50 + [1] * 50, [0] * 50 + [1] * 50, ["a", "b"], 0.95, "rather too cautious"),
        ([0] * 50 + [1] * 5, [0] * 50 + [1] * 5, ["a", "b", "c"], 0.9, "Without test images, so left out: ‘c’"),
        ([0] * 50 + [1] * 5, [0] * 50 + [1] * 5, ["a", "b", "c"], 0.9, "fewer than 30 test images"),
        (list(range(8)), list(range(8)), list("abcdefgh"), 0.9, "‘e’ and 3 more"),
    ],
)
def test_reading_is_honest(
    labels: list[int], predictions: list[int], names: list[str], confidence: float, expected: str
) -> None:
    assert expected in told(labels, predictions, names=names, confidence=confidence)


def test_reading_of_folds_says_who_answered() -> None:
    labels, p = example(100, 2)
    text = " ".join(wording.sentences({**metrics(labels, p, names=["a", "b"]), "folds": {}}))
    assert "Of 100 images, each answered by a classifier that had not seen it, " in text


def test_reading_says_when_groups_were_resampled() -> None:
    labels, p = example(100, 2)
    result = metrics(labels, p, names=["a", "b"], groups=[f"{label} {i // 5}" for i, label in enumerate(labels)])
    assert "(whole groups resampled)" in " ".join(wording.sentences(result))


def test_confusions_are_sorted_by_count() -> None:
    labels, predictions = [0, 0, 0, 1, 1, 2], [1, 1, 0, 2, 1, 0]
    result = metrics(labels, np.eye(3)[predictions], names=["a", "b", "c"])
    pairs = [(c.true_label, c.predicted_label, c.images) for c in wording.confusions(result)]
    assert pairs == [("a", "b", 2), ("c", "a", 1), ("b", "c", 1)]
