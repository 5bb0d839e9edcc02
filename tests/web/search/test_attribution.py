"""ATTRIBUTION.md: the right images, under the right labels, and no markup injected by strangers."""

from pathlib import Path

import pytest

from libraries.base.errors import StorageError
from libraries.data.annotations import Annotations
from libraries.web.download.outcomes import Ledger, UrlOutcome
from libraries.web.search.attribution import write_attribution
from libraries.web.search.results import FoundImage, link, text
from libraries.web.search.search import SearchRow, write_results


class DataSet:
    """A data set of which some images were found by searching."""

    def __init__(self, root: Path) -> None:
        self.images, self.table, self.outcomes = root / "images", root / "search.csv", root / "downloads.csv"

    def found(self, *rows: SearchRow) -> None:
        write_results(rows, urls=self.table.with_suffix(".tsv"), table=self.table)

    def downloaded(self, *outcomes: UrlOutcome) -> None:
        table = Ledger(self.outcomes, [], is_due=lambda outcome: False)
        table.add(outcomes)
        for outcome in outcomes:
            if outcome.file:
                (self.images / outcome.file).parent.mkdir(parents=True, exist_ok=True)
                (self.images / outcome.file).write_bytes(b"an image")
        table.close()

    def write(self) -> list[str]:
        """The lines about images, and the headings above them."""
        write_attribution(self.images, table=self.table, outcomes=self.outcomes)
        lines = (self.images / "ATTRIBUTION.md").read_text(encoding="utf-8").splitlines()
        return [line for line in lines if line.startswith(("- ", "## "))]


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    return DataSet(tmp_path)


def image(number: int, **changes: object) -> FoundImage:
    values: dict[str, object] = {"page": f"https://pages.example/{number}", "title": f"Cat {number}", "creator": "Ann"}
    values |= {"licence": "CC BY 2.0", "licence_url": "https://licences.example/by"}
    return FoundImage(f"https://images.example/{number}.jpg", **{**values, **changes})


def had(label: str, found: FoundImage, file: str) -> UrlOutcome:
    return UrlOutcome(label, found.url, "ok", "downloaded", file)


def test_existing_images_are_listed_by_label(data: DataSet) -> None:
    cats = [image(n) for n in range(6)]
    data.found(*(SearchRow.of("cat", "cats", cat) for cat in cats[:4]), SearchRow.of("a dog", "dogs", cats[4]))
    data.downloaded(
        had("cat", cats[1], "cat/1.jpg"),
        had("cat", cats[0], "cat/0.jpg"),
        UrlOutcome("cat", cats[2].url, "failed", "not found"),
        had("a dog", cats[4], "a dog/4.jpg"),
        had("cat", cats[3], "cat/3.jpg"),
        had("cat", cats[5], "cat/5.jpg"),  # from the user's own list
        had("cat", cats[4], "cat/4.jpg"),  # likewise
    )
    (data.images / "cat" / "3.jpg").unlink()  # by the user
    licence = "[CC BY 2.0](https://licences.example/by)"
    assert data.write() == [
        "## a dog",
        f"- [4.jpg](a%20dog/4.jpg): “Cat 4”, by Ann, {licence}, [source](https://pages.example/4)",
        "## cat",
        f"- [0.jpg](cat/0.jpg): “Cat 0”, by Ann, {licence}, [source](https://pages.example/0)",
        f"- [1.jpg](cat/1.jpg): “Cat 1”, by Ann, {licence}, [source](https://pages.example/1)",
    ]


def test_unknown_details_are_said_to_be_unknown(data: DataSet) -> None:
    bare = FoundImage("https://images.example/1.jpg")
    data.found(SearchRow.of("cat", "cats", bare))
    data.downloaded(had("cat", bare, "cat/1.jpg"))
    said = "without a title, creator not known, licence not known, [source](https://images.example/1.jpg)"
    assert data.write()[1:] == [f"- [1.jpg](cat/1.jpg): {said}"]


def test_an_image_whose_label_was_changed_by_hand(data: DataSet) -> None:
    cat, dog = image(1), image(2)
    data.found(SearchRow.of("cat", "cats", cat), SearchRow.of("dog", "dogs", dog))
    data.downloaded(had("cat", cat, "cat/1.jpg"), had("dog", dog, "dog/2.jpg"))
    Annotations(data.images).relabel(["cat/1.jpg"], "dog")
    assert [line.partition(":")[0] for line in data.write()] == [
        "## dog",
        "- [1.jpg](dog/1.jpg)",
        "- [2.jpg](dog/2.jpg)",
    ]


def test_images_are_listed_by_class_where_the_split_is_on_disk(data: DataSet) -> None:
    files = ["train/cat/1.jpg", "train/dog/2.jpg", "test/cat/3.jpg", "test/dog/4.jpg"]
    images = [image(n) for n in range(4)]
    data.found(*(SearchRow.of("train", "pets", each) for each in images))
    data.downloaded(*(had("train", each, file) for each, file in zip(images, files, strict=True)))
    assert [line.partition(":")[0] for line in data.write()] == [
        "## cat",
        "- [3.jpg](test/cat/3.jpg)",
        "- [1.jpg](train/cat/1.jpg)",
        "## dog",
        "- [4.jpg](test/dog/4.jpg)",
        "- [2.jpg](train/dog/2.jpg)",
    ]


def test_images_are_listed_by_topmost_folder_where_the_classes_are_not_clear(data: DataSet) -> None:
    cat = image(1)
    data.found(SearchRow.of("cat", "cats", cat))
    data.downloaded(had("cat", cat, "cat/1.jpg"))
    (data.images / "CAT").mkdir()
    assert data.write()[0] == "## cat"


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("<script>alert(1)</script>", r"\<script\>alert(1)\</script\>"),
        ("[click](javascript:alert(1))", r"\[click\](javascript\:alert(1))"),
        ("![x](https://spy.example/1.gif)", r"\!\[x\](https\://spy.example/1.gif)"),
        ("**bold** _x_ `code` ~~no~~ a|b", r"\*\*bold\*\* \_x\_ \`code\` \~\~no\~\~ a\|b"),
        ("&lt;b&gt; \\", r"\&lt;b\&gt; \\"),
        ("line\n\n# heading\r\n- item", r"line \# heading - item"),
        ("$x^2$ @all #12", r"\$x^2\$ \@all \#12"),
    ],
)
def test_texts_from_strangers_are_only_text(data: DataSet, hostile: str, shown: str) -> None:
    found = image(1, title=text(hostile), creator=text(hostile), licence=text(hostile))
    data.found(SearchRow.of("cat", "cats", found))
    data.downloaded(had("cat", found, "cat/1.jpg"))
    [line] = data.write()[1:]
    assert f"“{shown}”, by {shown}, [{shown}](https://licences.example/by)" in line


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "data:text/html,x", 'https://a.example/"><b>', "https://a.example/) x"]
)
def test_links_lead_only_to_the_web_and_end_where_they_should(data: DataSet, url: str) -> None:
    found = image(1, page=link(url), licence_url=link(url))
    data.found(SearchRow.of("cat", "cats", found))
    data.downloaded(had("cat", found, "cat/1.jpg"))
    [line] = data.write()[1:]
    assert "javascript" not in line and "data:" not in line and "<" not in line
    targets = [part.partition(")")[0] for part in line.split("](")[1:]]
    assert all(t == "cat/1.jpg" or (t.startswith("https://") and " " not in t) for t in targets)
    assert line.endswith(")")


def test_addresses_with_brackets_and_ampersands_stay_whole(data: DataSet) -> None:
    found = image(1, page=link("https://a.example/File:Cat_(2)).jpg?a=1&copy;=2"))
    data.found(SearchRow.of("cat", "cats", found))
    data.downloaded(had("cat", found, "cat/1 (a).jpg"))
    [line] = data.write()[1:]
    assert line.startswith("- [1 (a).jpg](cat/1%20%28a%29.jpg): ")
    assert line.endswith("[source](https://a.example/File:Cat_%282%29%29.jpg?a=1&amp;copy;=2)")


def test_nothing_is_written_without_a_search(data: DataSet) -> None:
    data.downloaded(had("cat", image(1), "cat/1.jpg"))
    assert write_attribution(data.images, table=data.table, outcomes=data.outcomes) == 0
    assert not (data.images / "ATTRIBUTION.md").exists()


def test_somebody_elses_file_is_left_alone(data: DataSet) -> None:
    data.found(SearchRow.of("cat", "cats", image(1)))
    data.downloaded(had("cat", image(1), "cat/1.jpg"))
    path = data.images / "ATTRIBUTION.md"
    path.write_text("# My own notes\n")
    with pytest.raises(StorageError, match=r"ATTRIBUTION\.md was not written by scripts/0_downloadData\.py: move it"):
        data.write()
    assert path.read_text() == "# My own notes\n"
    path.unlink()
    assert data.write() == data.write()
