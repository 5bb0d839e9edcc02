"""Which files are one picture, and the groups they form."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image, ImageOps

from libraries.data import checking, dataset, duplicates
from libraries.data.checking import Checked
from libraries.data.dataset import Example
from libraries.data.duplicates import Duplicates, Kind
from libraries.data.fingerprints import Pairs
from libraries.data.remembered import Remembered
from libraries.data.split import group_examples
from tests.data.pictures import recompressed, rescaled, scene

# Of the examples in test_without_duplicates_the_split_is_what_it_was, by the code before there was a search.
TEST_SIDE = [
    *("a/4/12.png", "a/4/13.png", "a/5/17.png", "a/6/18.png", "a/6/19.png", "a/8/25.png", "a/8/26.png"),
    *("b/0/2.png", "b/3/11.png", "b/4/13.png", "b/6/18.png", "b/7/22.png", "b/9/27.png", "b/9/28.png"),
]


def checked(folder: Path) -> Checked:
    return checking.check_images(folder, dataset.scan(folder), workers=1)


def find(folder: Path, *, max_distance: int | None = 10, embeddings: list[np.ndarray] | None = None) -> Duplicates:
    return duplicates.find(
        checked(folder),
        folder=folder,
        max_distance=max_distance,
        embeddings=embeddings,
        min_similarity=0.9,
    )


def linked(found: Duplicates) -> set[tuple[str, str, str]]:
    """Kind and paths of all pairs."""
    return {
        (kind, found.examples[one].path, found.examples[other].path)
        for kind, pairs in found.pairs.items()
        for one, other in zip(pairs.one, pairs.other, strict=True)
    }


def of_pairs(labels: str, **pairs: list[tuple[int, int, float]]) -> Duplicates:
    """Examples with these labels, one letter each, and these pairs."""
    examples = [Example(f"{c}/{i}.png", c, "train", str(i), 8, 6, 100, str(i)) for i, c in enumerate(labels)]
    columns: dict[Kind, Pairs] = {"exact": Pairs.none()}
    for kind, rows in pairs.items():
        one, other, measure = (np.array(column) for column in zip(*rows, strict=True))
        columns[kind] = Pairs(one, other, measure.astype(np.float32))  # type: ignore[index]
    return Duplicates(examples, columns)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of pictures that are not alike."""
    for label, seeds in (("cat", range(4)), ("dog", range(4, 8))):
        (tmp_path / label).mkdir()
        for seed in seeds:
            scene(seed).save(tmp_path / label / f"{seed}.png")
    return tmp_path


def test_different_pictures_have_no_duplicates(folder: Path) -> None:
    found = find(folder)
    assert linked(found) == set() and found.members() == [] and found.rows() == []
    assert found.groups().tolist() == list(range(8))
    assert found.summary_lines() == ["No duplicates were found (exact, near)"]


def test_exact_is_the_same_pixels_in_any_file(folder: Path) -> None:
    jpeg = folder / "cat" / "photo.jpg"
    scene(0).save(jpeg, quality=90)
    Image.open(jpeg).save(folder / "cat" / "photo.png")  # of another format
    (folder / "cat" / "photo copy.jpg").write_bytes(jpeg.read_bytes())  # the same file
    about = Image.Exif()
    about[0x010E] = "with a description"
    Image.open(folder / "dog" / "4.png").save(folder / "cat" / "described.png", exif=about)
    found = find(folder, max_distance=None)
    assert linked(found) == {
        ("exact", "cat/photo copy.jpg", "cat/photo.jpg"),
        ("exact", "cat/photo copy.jpg", "cat/photo.png"),
        ("exact", "cat/described.png", "dog/4.png"),
    }
    assert found.contradictions() == [("exact", "cat/described.png", "dog/4.png")]
    assert linked(find(folder)) - linked(found) == {("near", "cat/0.png", "cat/photo copy.jpg")}


def test_plain_pictures_are_duplicates_only_if_exact(folder: Path) -> None:
    for name, colour in (("white", "white"), ("white again", "white"), ("gray", "gray"), ("black", "black")):
        Image.new("RGB", (64, 48), colour).save(folder / "cat" / f"{name}.png", pnginfo=None)
    Image.new("RGB", (64, 48), "white").save(folder / "cat" / "white too.bmp")
    Image.new("RGB", (65, 48), "white").save(folder / "cat" / "wider.png")
    assert linked(find(folder)) == {
        ("exact", "cat/white again.png", "cat/white too.bmp"),
        ("exact", "cat/white again.png", "cat/white.png"),
    }


def test_near_are_scaled_mirrored_and_compressed_copies(folder: Path) -> None:
    rescaled(scene(0), 0.6).save(folder / "cat" / "small.png")
    ImageOps.mirror(scene(1)).save(folder / "cat" / "mirrored.png")
    recompressed(scene(5), 60).save(folder / "dog" / "sent.png")
    found = find(folder)
    assert {(kind, *sorted((one, other))) for kind, one, other in linked(found)} == {
        ("near", "cat/0.png", "cat/small.png"),
        ("near", "cat/1.png", "cat/mirrored.png"),
        ("near", "dog/5.png", "dog/sent.png"),
    }
    assert linked(find(folder, max_distance=None)) == set()


def test_scenes_are_embeddings_that_point_the_same_way(folder: Path) -> None:
    embeddings = np.eye(9, dtype=np.float32)
    rescaled(scene(0), 0.6).save(folder / "cat" / "small.png")  # row 4
    embeddings[4] = 3 * embeddings[0]
    embeddings[6] = embeddings[1] + 0.2 * embeddings[6]
    embeddings[7] = np.nan  # could not be read
    found = find(folder, embeddings=[embeddings])
    assert linked(found) == {("near", "cat/0.png", "cat/small.png"), ("scene", "cat/1.png", "dog/5.png")}
    assert found.contradictions() == [], "pictures of one scene may show different things"
    assert [(row.path, row.kind, row.distance is None, row.similarity) for row in found.rows()] == [
        ("cat/0.png", "near", False, None),
        ("cat/small.png", "near", False, None),
        ("cat/1.png", "scene", True, pytest.approx(0.9806, abs=5e-5)),
        ("dog/5.png", "scene", True, pytest.approx(0.9806, abs=5e-5)),
    ]


def test_groups_are_what_links_join_and_named_by_the_loosest_needed() -> None:
    found = of_pairs(
        "aaaaaaab",
        exact=[(0, 1, 0)],
        near=[(2, 3, 4), (3, 4, 6)],
        scene=[(2, 4, 0.99), (0, 5, 0.98), (6, 7, 0.97)],
    )
    assert found.groups().tolist() == [0, 0, 2, 2, 2, 0, 6, 6]
    assert found.groups(("exact", "near")).tolist() == [0, 0, 2, 2, 2, 5, 6, 7]
    assert found.summary_lines() == ["Duplicates: 8 images in 3 groups (1 near, 2 scene)"]
    rows = {row.path: (row.group, row.kind, row.like, row.distance) for row in found.rows()}
    assert rows["a/0.png"] == (1, "exact", "a/1.png", 0)
    assert rows["a/3.png"] == (2, "near", "a/2.png", 4), "the closest is reported"
    assert rows["a/5.png"] == (1, "scene", "a/0.png", None)


def test_a_giant_group_is_warned_of() -> None:
    chain = [(i, i + 1, 5.0) for i in range(11)]
    assert "Warning: the largest group has 12 images" in of_pairs("a" * 40, near=chain).summary_lines()[1]
    assert len(of_pairs("a" * 40, near=chain[:-2]).summary_lines()) == 1, "ten pictures are not a giant group"
    assert len(of_pairs("a" * 400, near=chain).summary_lines()) == 1, "of many images, twelve are few"


def test_the_first_ten_contradictions_are_reported() -> None:
    lines = of_pairs("ab" * 20, near=[(2 * i, 2 * i + 1, 3.0) for i in range(13)]).summary_lines()
    assert lines[1].startswith("  Warning: a/0.png and b/1.png look the same but have different labels")
    assert len(lines) == 12 and lines[-1] == "  and 3 more such pairs: see duplicates.csv"


def test_the_table_has_its_header_without_rows(tmp_path: Path) -> None:
    of_pairs("ab").write(tmp_path / "duplicates.csv")
    assert (tmp_path / "duplicates.csv").read_text() == "group,kind,path,label,like,distance,similarity\n"


@pytest.mark.parametrize("by", ["filename", "subdir"])
@pytest.mark.parametrize("seed", range(4))
def test_duplicates_stand_on_one_side_together_with_the_other_rules(
    by: Literal["filename", "subdir"], seed: int
) -> None:
    examples = [
        Example(f"{c}/o{i // 4}/{i}.png", c, "train", "", 8, 6, 100, f"{c}{i if i % 9 else 0}")
        for c in "abc"
        for i in range(60)
    ]
    generator = np.random.default_rng(seed)
    alike = np.arange(180)
    alike[generator.choice(np.arange(90, 180), 30, replace=False)] = generator.choice(90, 30)
    parts = dataset.split(group_examples(examples, by, alike=alike), ratio_train=0.7, seed=seed)
    sides = {row: part.split for row, part in enumerate(parts)}
    assert all(sides[row] == sides[int(first)] for row, first in enumerate(alike))
    assert {p.split for p in parts} == {"train", "test"}
    together = (lambda e: e.path.rsplit("/", 1)[0]) if by == "subdir" else (lambda e: e.sha256)
    for key in {together(e) for e in examples}:
        assert len({p.split for p in parts if together(p) == key}) == 1


def test_without_duplicates_the_split_is_what_it_was() -> None:
    """Names of groups decide the split: those of groups without duplicates must not change, ever."""
    examples = [Example(f"{c}/{i // 3}/{i}.png", c, "train", "", 8, 6, 100, f"{c}{i}") for c in "ab" for i in range(30)]
    for by in ("filename", "subdir"):
        plain = group_examples(examples, by)
        assert group_examples(examples, by, alike=np.arange(60)) == plain
        assert [e.group for e in plain] == [e.path if by == "filename" else e.path.rpartition("/")[0] for e in examples]
    split = dataset.split(group_examples(examples, "filename"), ratio_train=0.75, seed=0)
    test = [e.path for e in split if e.split == "test"]
    assert test == TEST_SIDE


def test_images_parted_by_a_given_test_set_are_counted() -> None:
    examples = of_pairs("aabb").examples
    sides = [replace(e, split="test" if i in (1, 3) else "train") for i, e in enumerate(examples)]
    assert duplicates.count_leaks(sides, np.array([0, 0, 2, 3])) == 1


def test_pixels_are_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = tmp_path / "images"
    for label in ("a", "b"):
        (images / label).mkdir(parents=True)
        for i in range(3):  # other files of the same picture
            scene(ord(label)).save(images / label / f"{i}.png", compress_level=i)

    def groups() -> list[list[int]]:
        known = Remembered(store=tmp_path / "store", most_bytes=10**9)
        return duplicates.find(checked(images), folder=images, max_distance=10, remembered=known).members()

    first = groups()
    monkeypatch.setattr(duplicates, "pixel_sha256", None)
    assert groups() == first == [[0, 1, 2], [3, 4, 5]]
