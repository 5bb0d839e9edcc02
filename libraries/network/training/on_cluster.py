"""Training on a cluster: one process on each GPU, or on each node, trains on its share of the images.

The first one writes the same checkpoint as a training on one machine, which goes on from it, and so may the other way
round. At the end it writes what calibration needs, so that nobody else has to read the images.
"""

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from libraries.base.cluster import NONE, Nodes, connected
from libraries.base.errors import StorageError
from libraries.base.processes import Work
from libraries.base.storage import write_json
from libraries.base.worker_group import GroupWorker, Place, places, work_together
from libraries.data.dataset import read_examples
from libraries.data.images import ResizeRule
from libraries.network.backbones import EmbeddingNetwork
from libraries.network.export import load_network, save_weights
from libraries.network.graphs.graph_network import MANIFEST, WEIGHTS, network_facts
from libraries.network.training import refine, training_sets
from libraries.network.training.recipe import RefineOptions
from libraries.network.training.refine import Epoch, Refined
from libraries.network.training.trainer import with_prefix
from libraries.network.training.world import joined

LEAST = 4  # images of a step for each process: batch normalisation needs some
_START, _TRAINED = "start", "trained.safetensors"  # beside the checkpoint


@dataclass(frozen=True)
class Task:
    """What to train on, and how.

    Attributes:
        examples: examples.csv.
        images: folder of the data set.
        validation_fraction, most, seed: of `training_sets.divide`.
        rule: how images are fitted.
        checkpoint, key: of `refine.refine`.
    """

    examples: Path
    images: Path
    validation_fraction: float
    most: int | None
    seed: int
    rule: ResizeRule
    options: RefineOptions
    checkpoint: Path
    key: str

    def division(self) -> training_sets.Division:
        """The examples for training, validation and test."""
        return training_sets.divide(
            read_examples(self.examples), validation_fraction=self.validation_fraction, most=self.most, seed=self.seed
        )


@dataclass(frozen=True)
class Trained:
    """A trained network, and what its calibration needs.

    Attributes:
        names: of the classes.
        groups: number of groups of validation images, per class.
        left_out: what is wrong with the images that could not be decoded.
    """

    refined: Refined
    names: list[str]
    groups: list[int]
    left_out: list[str]


def train(
    task: Task,
    network: EmbeddingNetwork,
    *,
    cluster: str,
    shared: Path,
    told: Callable[[str], object] = lambda line: None,
    on_epoch: Callable[[Epoch], object] = lambda epoch: None,
    on_step: Callable[[int, int], object] = lambda done, total: None,
) -> Trained | None:
    """Train on a cluster; None if there is none, or it is no more than this process has.

    Args:
        network: pretrained, without a head; it is changed.
        shared: a folder that all nodes must see.
        told: called with lines about the cluster.
        on_step: called with the number of steps that are done, and of all.

    Raises:
        ParameterError, PipelineError: there is no such cluster, or the work cannot be done; see `work_together`.
        NetworkError, StorageError: as `refine.refine` raises them.
    """
    if cluster == NONE:
        return None
    told_of = 0

    def progress(found: dict[str, Any]) -> None:
        nonlocal told_of
        rows = [Epoch(**row) for row in found.get("epochs", [])]
        for row in rows[told_of:]:
            on_epoch(row)
        told_of = max(told_of, len(rows))
        if "steps" in found:
            on_step(len(rows) * found["steps"] + found["step"], task.options.epochs * found["steps"])

    if (trained := _read(task, network)) is None:
        with connected(cluster, folder=shared):
            import ray

            most, use_gpus = max(1, task.options.batch // LEAST), task.options.device != "cpu"
            nodes = Nodes(told)
            found = places(nodes.look(), most=most, use_gpus=use_gpus)
            if [place.id for place in found] == [ray.get_runtime_context().get_node_id()]:
                return None
            if any(place.gpus for place in found):
                task = dataclasses.replace(task, options=dataclasses.replace(task.options, device="cuda"))
            start = task.checkpoint.parent / _START
            start.mkdir(parents=True, exist_ok=True)
            save_weights(network, start / WEIGHTS)
            write_json(start / MANIFEST, network_facts(network))
            told(_summary(task, len(found), could_be=len(places(nodes.look(), most=10**6, use_gpus=use_gpus))))
            left_out = work_together(_work(task), nodes, most=most, use_gpus=use_gpus, progress=progress, told=told)
        trained = _read(task, network)
        if trained is None:
            raise StorageError(f"{_trained(task)}, which a node has written, is not there: do all see the same folder?")
        trained = dataclasses.replace(trained, left_out=[line for lines in left_out for line in lines])
    progress({"epochs": [asdict(row) for row in trained.refined.history]})
    return trained


def _summary(task: Task, processes: int, *, could_be: int) -> str:
    """The line about what is trained, and by how many processes."""
    division, batch = task.division(), task.options.batch
    line = (
        f"Training on {len(division.training):,} images, choosing the epoch on {len(division.validation):,}: "
        f"{processes} process{'' if processes == 1 else 'es'}, each with {batch / processes:.0f} of the {batch} images "
        "of a step"
    )
    if processes < could_be:
        line += f"; with rf_mbSize = {LEAST * could_be}, all {could_be} could take part"
    return line


def clean(task: Task) -> None:
    """Remove what a training leaves beside its result."""
    start = task.checkpoint.parent / _START
    for path in (task.checkpoint, _trained(task), start / WEIGHTS, start / MANIFEST):
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        start.rmdir()


def _trained(task: Task) -> Path:
    return task.checkpoint.with_name(_TRAINED)


def _key(task: Task) -> str:
    return f"{task.key} {dataclasses.replace(task.options, device='')}"


def _read(task: Task, network: EmbeddingNetwork) -> Trained | None:
    """What a cluster has trained, with its weights in `network`; None if there is nothing."""
    saved = refine.load_checkpoint(_trained(task), key=_key(task))
    if saved is None:
        return None
    tensors, facts = saved
    network.add_head(len(facts["names"]), dropout=task.options.dropout, seed=task.options.seed)
    network.load_state_dict(with_prefix(tensors, "weights/"))
    refined = Refined(
        network=network,
        history=[Epoch(**row) for row in facts["history"]],
        best_epoch=facts["best_epoch"],
        validation_logits=tensors["validation/logits"].numpy(),
        validation_labels=tensors["validation/labels"].numpy(),
    )
    return Trained(refined, facts["names"], facts["groups"], [])


def _write(task: Task, refined: Refined, sets: training_sets.TrainingSets) -> None:
    """Write what `_read` reads."""
    tensors = {f"weights/{name}": tensor for name, tensor in refined.network.state_dict().items()}
    tensors["validation/logits"] = torch.from_numpy(refined.validation_logits)
    tensors["validation/labels"] = torch.from_numpy(refined.validation_labels)
    facts = {
        "history": [asdict(row) for row in refined.history],
        "best_epoch": refined.best_epoch,
        "names": sets.names,
        "groups": sets.groups,
    }
    refine.save_checkpoint(_trained(task), key=_key(task), tensors=tensors, facts=facts)


def _work(task: Task) -> Work[Place, list[str]]:
    settings = asdict(task) | {"rule": task.rule.to_json()}
    paths = {name: str(getattr(task, name)) for name in ("examples", "images", "checkpoint")}
    return Work(open_trainer, settings | paths, asdict, list)


def open_trainer(
    *, examples: str, images: str, checkpoint: str, rule: dict[str, Any], options: dict[str, Any], **others: Any
) -> GroupWorker:
    """A process of the cluster that trains; the arguments are those of `Task`, as JSON."""
    rates = options["learning_rates"]
    return _Trainer(
        Task(
            examples=Path(examples),
            images=Path(images),
            checkpoint=Path(checkpoint),
            rule=ResizeRule.from_json(rule),
            options=RefineOptions(**options | {"learning_rates": rates and tuple(rates)}),
            **others,
        )
    )


class _Trainer:
    """A place → the images of its share that could not be decoded."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self.progress: dict[str, Any] = {}

    def __call__(self, job: dict[str, Any], /) -> list[str]:
        task, place = self._task, Place(**job)
        torch.set_num_threads(place.cores)
        rows: list[dict[str, Any]] = []

        def on_epoch(row: Epoch) -> None:
            rows.append(asdict(row))
            self.progress = self.progress | {"epochs": list(rows), "saved": len(rows), "step": 0}

        def on_step(step: int, steps: int) -> None:
            if step < steps:  # the last one is told with the epoch
                self.progress = self.progress | {"step": step, "steps": steps, "saved": len(rows)}

        device = "cuda" if place.has_gpu else "cpu"
        with (
            joined(place.rank, place.size, address=place.address, device=device) as world,
            tempfile.TemporaryDirectory() as scratch,
        ):
            sets = training_sets.load(
                task.division(), folder=task.images, rule=task.rule, scratch=Path(scratch), world=world
            )
            refined = refine.refine(
                load_network(task.checkpoint.parent / _START),
                train=sets.train,
                validation=sets.validation,
                test=sets.test,
                classes=len(sets.names),
                options=dataclasses.replace(task.options, device=device),
                checkpoint=task.checkpoint,
                key=task.key,
                world=world,
                on_epoch=on_epoch,
                on_step=on_step,
            )
            if place.rank == 0:
                _write(task, refined, sets)
        return [str(error) for error in sets.left_out]

    def close(self) -> None:
        """Nothing is open."""
