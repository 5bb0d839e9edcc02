"""Arrays in temporary files."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from libraries.base import large_arrays
from libraries.base.errors import StorageError


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_arrays, "LARGE", 4000)


@pytest.mark.parametrize("has_fallocate", [True, False])
def test_a_large_one_is_in_a_file_that_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_fallocate: bool
) -> None:
    if not has_fallocate:
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    array = large_arrays.empty((1000, 7), folder=tmp_path)
    array[:] = np.arange(7000).reshape(1000, 7)
    assert isinstance(array, np.memmap)
    np.testing.assert_array_equal(array @ np.ones(7, np.float32), np.arange(7000).reshape(1000, 7).sum(axis=1))
    assert isinstance(array[10:20], np.memmap)
    del array
    assert list(tmp_path.iterdir()) == []


def test_others_are_in_memory(tmp_path: Path) -> None:
    assert not isinstance(large_arrays.empty((10, 7), folder=tmp_path), np.memmap)
    assert not isinstance(large_arrays.empty((1000, 7), folder=None), np.memmap)


def test_a_full_disk_is_told_before_anything_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, start: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(StorageError, match=r"the disk is full: .* could not be written; free some space and run again"):
        large_arrays.empty((1000, 7), folder=tmp_path)
    assert list(tmp_path.iterdir()) == []
