"""Fixtures of the widgets' tests: data sets to change, the small bundle, and the messages to the front end."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from libraries.base.layout import Layout
from libraries.data.dataset import read_examples
from libraries.widgets.viewer import Viewer
from tests.conftest import run_main, small_run

Sent = list[tuple[dict[str, Any], list[bytes]]]


@pytest.fixture
def layout(tmp_path: Path, pictures: Path) -> Layout:
    """A separate data set that script 1 has prepared."""
    shutil.copytree(pictures, tmp_path / "data" / "images" / "textures")
    parameters = small_run(tmp_path / "data")
    run_main("1_prepareData", parameters)
    assert len(read_examples(Layout(parameters).examples.folder / "examples.csv")) == 48
    return Layout(parameters)


@pytest.fixture(scope="session")
def evaluated(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> Path:
    """A DATA_DIR with a whole run, made once for all processes. Read only: copy it to change it."""
    root = bundle.parents[3] / "evaluated"
    with FileLock(f"{root}.lock"):
        if not root.exists():
            temporary = tmp_path_factory.mktemp("evaluated") / "data"
            shutil.copytree(bundle.parents[2], temporary)
            run_main("5_evaluate", small_run(temporary, svm_CVals=(0.01,), svm_boL2Normalize=True))
            temporary.rename(root)
    return root


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    """The messages of all widgets to their front ends."""
    messages: Sent = []
    monkeypatch.setattr(Viewer, "send", lambda self, content, buffers=None: messages.append((content, buffers or [])))
    return messages


@pytest.fixture
def wait_for(sent: Sent) -> Callable[..., tuple[dict[str, Any], list[bytes]]]:
    """The first message of a kind; waits until a thread has sent it."""

    def wait(kind: str) -> tuple[dict[str, Any], list[bytes]]:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            for message in list(sent):
                if kind in message[0]:
                    sent.remove(message)
                    return message
            time.sleep(0.01)
        raise AssertionError(f"no message '{kind}' among {[content for content, _ in sent]}")

    return wait
