"""The side of the split of each image."""

import os
import unicodedata
from pathlib import Path

import pytest

from libraries.base.errors import InputError
from libraries.data.split import DEDICATED_TEST_IMAGES, split_by_list
from tests.data.test_dataset import example


@pytest.mark.parametrize("line", ["cat\t1.png", "cat/1.png", "cat\\1.png"])
def test_dedicated_test_images_fix_the_test_set(tmp_path: Path, line: str) -> None:
    listed = tmp_path / DEDICATED_TEST_IMAGES
    listed.write_text(f"{line}\r\n\n", encoding="utf-8-sig", newline="")
    examples = [example("cat/1.png"), example("cat/2.png"), example("dog/1.png")]
    assert [e.path for e in split_by_list(examples, listed) if e.split == "test"] == ["cat/1.png"]


def test_dedicated_test_images_name_the_wrong_line(tmp_path: Path) -> None:
    listed = tmp_path / DEDICATED_TEST_IMAGES
    listed.write_text("cat\t1.png\ncat\tnone.png\n")
    with pytest.raises(InputError, match=r"line 2: there is no intact image 'cat/none.png'"):
        split_by_list([example("cat/1.png")], listed)


def test_dedicated_test_images_may_have_moved_or_be_left_out(tmp_path: Path) -> None:
    listed = tmp_path / DEDICATED_TEST_IMAGES
    listed.write_text("cat\t1.png\ncat\t2.png\ncat\t3.png\n")
    examples = [example("cat/1.png"), example("dog/2.png"), example("dog/1.png")]
    split = split_by_list(examples, listed, moved={"cat/2.png": "dog/2.png"}, left_out=["cat/3.png"])
    assert [e.path for e in split if e.split == "test"] == ["cat/1.png", "dog/2.png"]


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
@pytest.mark.parametrize("in_list", ["NFC", "NFD"])
def test_dedicated_test_images_in_another_form_of_unicode(tmp_path: Path, in_list: str, on_disk: str) -> None:
    def path(form: str, name: str) -> str:
        return unicodedata.normalize(form, f"M\u00fcll/{name}")

    listed = tmp_path / DEDICATED_TEST_IMAGES
    listed.write_text("".join(path(in_list, f"\u00e9{i}.png\n") for i in (1, 2, 3)), encoding="utf-8")
    examples = [example(path(on_disk, "\u00e91.png")), example("cat/\u00e9.png"), example("cat/2.png")]
    moved = {path(on_disk, "\u00e92.png"): unicodedata.normalize(on_disk, "cat/\u00e9.png")}
    split = split_by_list(examples, listed, moved=moved, left_out=[path(on_disk, "\u00e93.png")])
    assert [e.path for e in split if e.split == "test"] == [examples[0].path, examples[1].path], "as they are on disk"


def test_dedicated_test_images_of_another_encoding(tmp_path: Path) -> None:
    listed = tmp_path / DEDICATED_TEST_IMAGES
    examples = [example("cat/000.png"), example("dog/m\u00fcll.png")]
    listed.write_text("dog\tm\u00fcll.png\n", encoding="utf-16")
    assert [e.split for e in split_by_list(examples, listed)] == ["train", "test"]
    listed.write_text("cat\t000.png\ndog\tm\u00fcll.png\n", encoding="cp1252")
    with pytest.raises(InputError, match=r"dedicatedTestImages\.tsv, line 2 is neither UTF-8 nor UTF-16 text"):
        split_by_list(examples, listed)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_in_place_of_the_list_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / DEDICATED_TEST_IMAGES)
    with pytest.raises(InputError, match=r"dedicatedTestImages\.tsv cannot be read: it is not a regular file"):
        split_by_list([example("cat/1.png")], tmp_path / DEDICATED_TEST_IMAGES)
