"""An object store on loopback for each test, empty; and the copying of its images."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from libraries.web.store.outcome import Outcome
from libraries.web.store.store import StoreOptions, copy_store
from tests.fake_store import ROOT, FakeStore, serving, used


@pytest.fixture(scope="module")
def served() -> Iterator[FakeStore]:
    with serving() as store:
        yield store


@pytest.fixture
def store(served: FakeStore) -> Iterator[FakeStore]:
    served.reset()
    with used(served):
        yield served


@pytest.fixture
def copy(tmp_path: Path, store: FakeStore) -> Callable[..., Outcome]:
    """Copies the images of the store into tmp_path/images, as script 0 does, without waiting between tries."""

    def copy(url: str = ROOT, **options: Any) -> Outcome:
        store.forget()
        table = tmp_path / "proc" / "stored_images.csv"
        return copy_store(url, tmp_path / "images", table, StoreOptions(**options), wait=lambda tries, asked: 0.0)

    return copy
