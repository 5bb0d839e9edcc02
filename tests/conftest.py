"""A small data set, made anew for every test run, and scripts run as a user runs them."""

import hashlib
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from PARAMETERS import Parameters

# Tests run side by side, one to a core; threads that wait for each other across them would cost minutes.
os.environ["OMP_NUM_THREADS"] = "1"

# Matplotlib keeps a list of fonts for a user; a bad one, from another program, would make the scripts under test warn.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _matplotlib = tempfile.TemporaryDirectory(prefix="matplotlib-")
    os.environ["MPLCONFIGDIR"] = _matplotlib.name
    from matplotlib import font_manager as font_manager  # makes the list, once for all the processes

# A shell starts background jobs with Ctrl-C ignored, and the scripts under test would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parents[1]
SCRIPTS = ROOT / "scripts"
STEPS = ("1_prepareData", "2_refineDNN", "3_runDNN", "4_trainSVM", "5_evaluate")


def texture(label: str, generator: np.random.Generator) -> Image.Image:
    """A picture of stripes, checks or blobs, with noise: easy, but not trivial, to tell apart."""
    height, width = generator.integers(60, 100, 2)
    y, x = np.mgrid[:height, :width] / 8.0
    angle, phase = generator.uniform(-0.3, 0.3), generator.uniform(0, 6)
    waves = {
        "stripes": np.sin(2 * (x * np.cos(angle) + y * np.sin(angle)) + phase),
        "checks": np.sign(np.sin(2 * x + phase) * np.sin(2 * y + phase)),
        "blobs": np.sin(x / 2 + phase) + np.cos(y / 2 + phase),
    }[label]
    colour = generator.uniform(20, 60, 3)
    pixels = 128 + waves[..., None] * colour + generator.normal(0, 25, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three classes of 16 pictures each. Read only: copy it to change it."""
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for label in ("stripes", "checks", "blobs"):
        (folder / label).mkdir()
        for i in range(16):
            suffix = "png" if i % 4 == 0 else "jpg"
            texture(label, generator).save(folder / label / f"{i:02d}.{suffix}")
    return folder


def data_dir(root: Path, pictures: Path) -> Path:
    """Make `root` a DATA_DIR that holds the pictures."""
    (root / "images").mkdir(parents=True)
    (root / "images" / "textures").symlink_to(pictures, target_is_directory=True)
    return root


def small_run(root: Path, **changes: object) -> Parameters:
    """Parameters of a small, fast run in this DATA_DIR."""
    small: dict[str, object] = {
        "rootDir": root,
        "datasetName": "textures",
        "rf_inputResolution": 64,
        "rf_maxEpochs": 2,
        "svm_CVals": (0.01, 1.0),
        "runHistory": False,
    }
    return Parameters.load({**small, **changes})


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For what is made once for all processes of the test run."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def quick_export(shared_folder: Path) -> Iterator[None]:
    """Networks that were exported before are copied, in scripts that run in this process."""
    from tests.exports import exported_once  # imports PyTorch

    with exported_once(shared_folder / "exported"):
        yield


@pytest.fixture
def parameters(tmp_path: Path, pictures: Path, quick_export: None) -> Callable[..., Parameters]:
    """Parameters of a small, fast run in a DATA_DIR of its own that holds the pictures."""
    return partial(small_run, data_dir(tmp_path / "data", pictures))


def run_main(step: str, parameters: Parameters, **flags: bool) -> None:
    """Run a script's `main(parameters)` in this process."""
    runpy.run_path(str(SCRIPTS / f"{step}.py"))["main"](parameters, **flags)


@pytest.fixture
def main() -> Callable[..., None]:
    """`run_main`."""
    return run_main


def files(folder: Path) -> set[str]:
    """The paths of all files, relative to the folder."""
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file, without those that hold a date, and the store, in which anything may be missing."""
    dated = {"report.html", "manifest.json", "model.json"}
    return {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in sorted(files(folder))
        if Path(name).name not in dated and not name.startswith("store/")
    }


def command_line(step: str, parameters: Parameters) -> list[str]:
    """The command with which a user runs a script with these parameters."""
    defaults = Parameters.load()
    changed = {k: v for k, v in parameters.model_dump().items() if v != getattr(defaults, k)}
    options = [f"--{k}={','.join(map(str, v)) if isinstance(v, tuple) else v}" for k, v in changed.items()]
    return [sys.executable, str(SCRIPTS / f"{step}.py"), *options]


@pytest.fixture
def process() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a script as a process, from another folder, and give back its output."""

    def call(step: str, parameters: Parameters, *extra: str) -> subprocess.CompletedProcess[str]:
        command = [*command_line(step, parameters), *extra]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=os.sep, check=False)

    return call


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory, pictures: Path, shared_folder: Path, quick_export: None) -> Path:
    """The bundle of a small run, made once for all processes of the test run. Read only: copy it to change it."""
    root = shared_folder / "served"
    with FileLock(f"{root}.lock"):
        if not root.exists():  # written elsewhere and then renamed: it is complete from the start
            made = data_dir(tmp_path_factory.mktemp("served") / "data", pictures)
            for step in STEPS[:4]:
                run_main(step, small_run(made, svm_CVals=(0.01,), svm_boL2Normalize=True))
            made.rename(root)
    return root / "proc" / "textures" / "model_svm"
