"""Several processes that train together come to the result of one: exactly where nothing is random, else nearly."""

import dataclasses
import json
import multiprocessing
import socket
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from libraries.network.training.refine import Epoch, Refined, refine
from libraries.network.training.training_sets import ImageSet
from libraries.network.training.world import ALONE, World, joined
from tests.network.training.test_refine import LEARNING, OPTIONS, TEST, TRAIN, VALIDATION, fresh, pictures

PROCESSES = 2
# Nothing random, batch normalisation as pretrained, all images in a step: only the order of sums differs.
EXACT = dataclasses.replace(OPTIONS, epochs=3, batch=len(TRAIN), dropout=0.0, freeze=True, augmentation="none")
CASES: dict[str, dict[str, Any]] = {
    "exact": {"options": EXACT},
    "balanced": {"options": dataclasses.replace(EXACT, balance=True)},
    "unequal": {
        "options": EXACT,
        "train": pictures(37, seed=7, size=TRAIN.images.shape[1]),
        "test": pictures(1, seed=3),
    },
    "learning": {"options": LEARNING},
}


class Killed(BaseException):
    """Ends a training after some epochs."""


def part(images: ImageSet, world: World) -> ImageSet:
    mine = np.array(world.share(range(len(images))), int)
    return images.take(mine)


def train(case: str, checkpoint: Path, world: World = ALONE, **changes: Any) -> Refined:
    given = {"train": TRAIN, "validation": VALIDATION, "test": TEST, **CASES[case]}
    sets = {name: part(given.pop(name), world) for name in ("train", "validation", "test")}
    return refine(fresh(), **sets, classes=2, checkpoint=checkpoint, world=world, **{**given, **changes})


def kill_after(epochs: int) -> Callable[[Epoch], None]:
    def on_epoch(row: Epoch) -> None:
        if row.epoch == epochs:
            raise Killed

    return on_epoch


def process(rank: int, address: str, folder: Path) -> None:
    """One of the processes: trains every case, and writes what came out."""
    torch.set_num_threads(1)
    with joined(rank, PROCESSES, address=address, device="cpu") as world:
        for case in CASES:
            result = train(case, folder / case, world)
            np.save(folder / f"{case}-{rank}.npy", result.validation_logits)
            np.save(folder / f"{case}-{rank}-labels.npy", result.validation_labels)
            rows = [asdict(row) for row in result.history]
            (folder / f"{case}-{rank}.json").write_text(json.dumps(rows))
        assert world.total(rank + 1) == 3
        gathered = world.rows(np.arange(6).reshape(3, 2)[: 2 * rank])
        assert gathered.tolist() == [[0, 1], [2, 3]], "the first process has no rows"
        # killed together after an epoch, then continued by one process alone: see the test
        with pytest.raises(Killed):
            train("exact", folder / "killed", world, on_epoch=kill_after(2))
        torch.distributed.barrier()
        (folder / f"ended-{rank}").touch()


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what two processes wrote."""
    folder = tmp_path_factory.mktemp("together")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{found.getsockname()[1]}"
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=process, args=(rank, address, folder)) for rank in range(PROCESSES)]
    for each in processes:
        each.start()
    for each in processes:
        each.join(timeout=240)
        each.kill()
    assert all((folder / f"ended-{rank}").exists() for rank in range(PROCESSES))
    return folder


def rows(folder: Path, case: str, rank: int = 0) -> list[Epoch]:
    found = json.loads((folder / f"{case}-{rank}.json").read_text())
    return [Epoch(**row | {"seconds": 0.0}) for row in found]


@pytest.mark.parametrize("case", ["exact", "balanced", "unequal"])
def test_two_processes_train_as_one_does(together: Path, tmp_path: Path, case: str) -> None:
    expected = train(case, tmp_path / "checkpoint")
    for row, alone in zip(rows(together, case), expected.history, strict=True):
        for name, value in asdict(dataclasses.replace(alone, seconds=0.0)).items():
            assert getattr(row, name) == pytest.approx(value, rel=1e-3, abs=1e-4), name
    labels = np.load(together / f"{case}-0-labels.npy")
    order = [index for rank in range(PROCESSES) for index in World(rank, PROCESSES).share(range(len(VALIDATION)))]
    assert labels.tolist() == VALIDATION.labels[order].tolist()
    found = np.load(together / f"{case}-0.npy")
    np.testing.assert_allclose(found, expected.validation_logits[order], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("case", CASES)
def test_all_processes_return_the_same(together: Path, case: str) -> None:
    assert rows(together, case, 0) == rows(together, case, 1)
    np.testing.assert_array_equal(np.load(together / f"{case}-0.npy"), np.load(together / f"{case}-1.npy"))


def test_they_learn(together: Path) -> None:
    assert min(row.validation_error for row in rows(together, "learning")) <= 0.1


def test_one_process_goes_on_where_two_were_killed(together: Path, tmp_path: Path) -> None:
    expected, seen = train("exact", tmp_path / "checkpoint"), []
    result = train("exact", together / "killed", on_epoch=lambda row: seen.append(row.epoch))
    assert seen == [1, 2, 3]
    assert [row.validation_error for row in result.history] == [row.validation_error for row in expected.history]
    np.testing.assert_allclose(result.validation_logits, expected.validation_logits, rtol=1e-3, atol=1e-3)


def test_every_item_has_one_process() -> None:
    shares = [World(rank, 3).share(range(10)) for rank in range(3)]
    assert sorted(number for share in shares for number in share) == list(range(10))
    assert {len(share) for share in shares} == {3, 4}
