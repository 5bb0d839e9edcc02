"""For the tests of the scripts: what the scripts have made so far, to go on from."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from filelock import FileLock

from PARAMETERS import Parameters
from tests.conftest import STEPS, data_dir, run_main, small_run

FINISHED = "finished"


@pytest.fixture(scope="session")
def stages(tmp_path_factory: pytest.TempPathFactory, pictures: Path, shared_folder: Path, quick_export: None) -> Path:
    """DATA_DIRs of a small run, one as it was before each step, and one at the end: `finished`.

    Made once for all processes of the test run. Read only: see `stage`.
    """
    folder = shared_folder / "stages"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            made = tmp_path_factory.mktemp("stages")
            root = data_dir(made / FINISHED, pictures)
            for step in STEPS:
                shutil.copytree(root, made / step, symlinks=True)
                run_main(step, small_run(root))
            made.rename(folder)
    return folder


@pytest.fixture
def stage(stages: Path, tmp_path: Path) -> Callable[[str], Callable[..., Parameters]]:
    """Parameters of a small run in a DATA_DIR of its own, as it was before a step, or `finished`."""

    def copy(name: str) -> Callable[..., Parameters]:
        return partial(small_run, shutil.copytree(stages / name, tmp_path / "data", symlinks=True))

    return copy
