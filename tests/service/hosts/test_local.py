"""The service as a process that a notebook starts and stops."""

import os
from pathlib import Path

import pytest
import requests

from libraries.base.errors import ServiceError
from libraries.service.hosts.local import LocalService
from tests.conftest import SCRIPTS

SCRIPT = SCRIPTS / "deploymain.py"


def test_it_answers_until_it_is_stopped(bundle: Path) -> None:
    with LocalService(SCRIPT, f"--bundle={bundle}", environment={"SERVICE_KEY": "a-key-of-16-signs"}) as service:
        model = requests.get(f"{service.url}/model", headers={"Authorization": "Bearer a-key-of-16-signs"}, timeout=10)
        assert model.json()["name"] == "textures_svm"
        assert any(line.startswith("Ready: textures_svm") for line in service.output)
    with pytest.raises(requests.ConnectionError):
        requests.get(service.url, timeout=10)
    service.stop()  # stopping again does no harm
    assert "SERVICE_KEY" not in os.environ


def test_start_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match=r"the service ended: .*model\.json does not exist"):
        LocalService(SCRIPT, f"--bundle={tmp_path}")


def test_start_that_takes_too_long_is_abandoned(tmp_path: Path) -> None:
    script = tmp_path / "slow.py"
    script.write_text("import threading\nprint('loading', flush=True)\nthreading.Event().wait()\n")
    with pytest.raises(ServiceError, match=r"the service was not ready within 1 s: (loading|it wrote nothing)"):
        LocalService(script, timeout=1.0)
