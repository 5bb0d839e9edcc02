"""The disk fills up in every script: one line that says so, no rubbish, and after that the same result as ever."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from libraries.base.errors import StorageError
from libraries.base.file_system import TEMPORARY
from libraries.base.layout import Layout
from tests.conftest import STEPS, files, hashes, run_main, small_run

MADE = dict(zip(STEPS, ("examples", "network", "features", "bundle", "evaluation"), strict=True))


@contextmanager
def disk(*, room_for: int | None = None) -> Iterator[list[int]]:
    """A disk with room for so many files more; gives a list that grows by one with every file flushed to it."""
    flushed: list[int] = []
    fsync = os.fsync

    def flush(descriptor: int) -> None:
        if room_for is not None and len(flushed) >= room_for:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)
        flushed.append(descriptor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", flush)
        yield flushed


@pytest.mark.parametrize("step", STEPS)
def test_full_disk_and_then_space_again(stages: Path, tmp_path: Path, step: str) -> None:
    undisturbed, root = (
        shutil.copytree(stages / step, tmp_path / name, symlinks=True) for name in ("undisturbed", "data")
    )
    earlier = hashes(undisturbed)
    with disk() as flushed:
        run_main(step, small_run(undisturbed))
    parameters = small_run(root)
    made = getattr(Layout(parameters), MADE[step])
    assert len(flushed) >= 2
    for room in (0, len(flushed) - 1):
        with disk(room_for=room), pytest.raises(StorageError) as caught:
            run_main(step, parameters)
        path, rest = str(caught.value).removeprefix("the disk is full: ").split(" could not be written; ")
        assert rest == "free some space and run again"
        assert Path(path).is_relative_to(root / "proc")
        assert Path(path).suffix, "a file, not a folder"
        assert TEMPORARY not in path, "by the name that the user knows"
        assert not [name for name in files(root) if TEMPORARY in name]
        assert {name: digest for name, digest in hashes(root).items() if name in earlier} == earlier
        assert not made.is_current()
    run_main(step, parameters)
    assert made.is_current()
    assert hashes(root) == hashes(undisturbed)
