"""Scripts with Ray on the cores of this machine: the same files as without, and what is left when they are stopped."""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT, SCRIPTS, STEPS, data_dir, run_main, small_run

pytest.importorskip("ray")


def arguments(root: Path, step: str, *more: str) -> list[str]:
    given = [f"--rootDir={root}", "--datasetName=textures", "--rf_inputResolution=64", "--runHistory=false"]
    return [sys.executable, str(SCRIPTS / f"{step}.py"), *given, "--cluster=local", *more]


def test_the_files_have_the_same_bytes(tmp_path: Path, pictures: Path, quick_export: None) -> None:
    with_cluster, without = tmp_path / "with", tmp_path / "without"
    for root in (with_cluster, without):
        shutil.copytree(pictures, root / "images" / "textures")
    broken = next((with_cluster / "images" / "textures").rglob("*.png"))
    for root in (with_cluster, without):
        (root / broken.relative_to(with_cluster)).write_bytes(b"no image")
    for step in STEPS[:3]:
        run_main(step, small_run(without, rf_inputResolution=64))
        done = subprocess.run(arguments(with_cluster, step), capture_output=True, text=True, check=False, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        assert not done.stderr.strip()
    for name in ("examples.csv", "duplicates.csv", "quality.csv", "features_svm/part-00000.parquet"):
        made, expected = (root / "proc" / "textures" / name for root in (with_cluster, without))
        assert made.read_bytes() == expected.read_bytes(), name


def test_ctrl_c_ends_it_and_its_processes(tmp_path: Path, pictures: Path) -> None:
    images = shutil.copytree(pictures, tmp_path / "data" / "images" / "textures")
    for copy in range(12):  # enough to be interrupted
        for path in [p for p in images.rglob("*.png") if not p.name.startswith("copy")]:
            shutil.copyfile(path, path.with_name(f"copy {copy} {path.name}"))
    process = subprocess.Popen(
        arguments(tmp_path / "data", "1_prepareData"), stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert wait_for(lambda: bool(list((tmp_path / "data" / "store").rglob(".tmp-*"))), 60)
    process.send_signal(signal.SIGINT)
    start = time.monotonic()
    _, errors = process.communicate(timeout=20)
    assert time.monotonic() - start < 5 and process.returncode != 0
    assert "Traceback" not in errors
    assert wait_for(lambda: not ray_processes(process.pid), 10)


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def ray_processes(parent: int) -> list[str]:
    """Raylets of sessions that this process began: their folder's name has its number."""
    found = subprocess.run(["pgrep", "-af", f"session_.*_{parent}"], capture_output=True, text=True, check=False)
    return found.stdout.splitlines()


def test_without_a_store_it_is_told(tmp_path: Path, pictures: Path) -> None:
    data_dir(tmp_path / "data", pictures)
    done = subprocess.run(
        arguments(tmp_path / "data", "1_prepareData", "--storeGigabytes=0"),
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 2
    assert done.stderr.strip().endswith("a cluster puts its results into the store: set storeGigabytes above 0")
