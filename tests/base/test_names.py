"""One name in two forms of Unicode."""

import sys
import unicodedata
from pathlib import Path

import pytest

from libraries.base.file_system import OnDisk, nfc, on_disk

COMPOSED, PARTS = "M\u00fcll", unicodedata.normalize("NFD", "M\u00fcll")


def test_forms_are_compared_in_c() -> None:
    assert PARTS != COMPOSED and nfc(PARTS) == nfc(COMPOSED) == COMPOSED


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems take both forms for one name")
def test_paths_are_found_as_they_are_on_disk(tmp_path: Path) -> None:
    (tmp_path / PARTS).mkdir()
    (tmp_path / PARTS / "\u00e9.png").touch()
    assert on_disk(tmp_path, f"{COMPOSED}/e\u0301.png") == f"{PARTS}/\u00e9.png"
    assert on_disk(tmp_path, f"{COMPOSED}/new-\u00e9.png") == f"{PARTS}/new-\u00e9.png"
    assert on_disk(tmp_path, f"{COMPOSED}-2/a.png") == f"{COMPOSED}-2/a.png"
    (tmp_path / COMPOSED).mkdir()
    assert on_disk(tmp_path, COMPOSED) == COMPOSED, "an exact match comes first"


def test_a_folder_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed: list[Path] = []
    monkeypatch.setattr(Path, "iterdir", lambda path: iter(listed.append(path) or []))
    find = OnDisk(tmp_path)
    for number in range(9):
        assert find(f"cat/\u00e9{number}.png") == f"cat/\u00e9{number}.png"
    assert listed == [tmp_path / "cat"]
