"""Script 0 copies images out of a package: killed at any moment and run again, the result is as if undisturbed."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from libraries.base.file_system import TEMPORARY
from PARAMETERS import Parameters
from tests.conftest import command_line, files, hashes

IMAGES = 40
BLOCKED = (3, 17, 30)  # where a run waits to be killed


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The images of a package of the same shape as elpv-dataset, which scripts find before an installed one."""
    folder = tmp_path / "site-packages" / "elpv_dataset"
    (folder / "data" / "images").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    lines = [f"images/cell{i:04d}.png  {i % 4 / 3}  mono" for i in range(IMAGES)]
    (folder / "data" / "labels.csv").write_text("\n".join(lines))
    for i in range(IMAGES):
        (folder / "data" / "images" / f"cell{i:04d}.png").write_bytes(b"%d " % i * 1000)
    monkeypatch.setenv("PYTHONPATH", str(folder.parent))
    return folder / "data" / "images"


def parameters(root: Path) -> Parameters:
    return Parameters.load({"rootDir": root, "runHistory": False})


def copied(root: Path) -> int:
    return sum(TEMPORARY not in name for name in files(root)) if root.exists() else 0


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes, from which reading waits")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_copying_goes_on_to_the_same_result(package: Path, tmp_path: Path, how: signal.Signals) -> None:
    interrupted, undisturbed = tmp_path / "interrupted", tmp_path / "undisturbed"
    subprocess.run(command_line("0_downloadData", parameters(undisturbed)), check=True, capture_output=True)
    assert copied(undisturbed) == IMAGES

    for number in BLOCKED:
        source = package / f"cell{number:04d}.png"
        content = source.read_bytes()
        source.unlink()
        os.mkfifo(source)
        command = command_line("0_downloadData", parameters(interrupted))
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            try:
                while copied(interrupted) < number and process.poll() is None:
                    time.sleep(0.01)
                process.send_signal(how)
                error = process.communicate(timeout=60)[1]
            finally:
                process.kill()
        assert copied(interrupted) == number
        assert process.returncode == (-how if how is signal.SIGKILL else 130)
        assert "Traceback" not in error
        source.unlink()
        source.write_bytes(content)
        for label in ("defective", "functional"):  # as if killed while writing an image
            (interrupted / "images" / "solarCells" / label / f"{TEMPORARY}0123-cell.png").write_bytes(b"half")

    subprocess.run(command_line("0_downloadData", parameters(interrupted)), check=True, capture_output=True)
    assert hashes(interrupted) == hashes(undisturbed)
