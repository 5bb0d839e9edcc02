"""Training on a cluster: one process on each GPU, or on each node, trains on its share of the images.

The first one writes the same checkpoint as a training on one machine, which goes on from it, and so may the other way
round. At the end it writes what calibration needs, so that nobody else has to read the images.
"""

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from libraries.base.cluster import NONE, Nodes, connected, may_use_gpus
from libraries.base.errors import StorageError
from libraries.base.processes import Work
from libraries.base.storage import write_json
from libraries.base.worker_group import GroupWorker, Place, places, work_together
from libraries.data.images import ResizeRule
from libraries.network.backbones import EmbeddingNetwork
from libraries.network.devices import Device, Wanted
from libraries.network.export import load_network, save_weights
from libraries.network.graphs.graph_network import MANIFEST, WEIGHTS, network_facts
from libraries.network.training import refine
from libraries.network.training.recipe import RefineOptions
from libraries.network.training.refine import Epoch, Refined
from libraries.network.training.task import Task, Trained
from libraries.network.training.trainer import with_prefix
from libraries.network.training.world import joined

LEAST = 4  # images of a step for each process: batch normalisation needs some
_START, _TRAINED = "start", "trained.safetensors"  # beside the checkpoint


def train(
    task: Task,
    network: EmbeddingNetwork,
    *,
    cluster: str,
    device: Wanted,
    shared: Path,
    told: Callable[[str], object] = lambda line: None,
    on_epoch: Callable[[Epoch], object] = lambda epoch: None,
    on_step: Callable[[int, int], object] = lambda done, total: None,
) -> Trained | None:
    """Train on a cluster; None if there is none, or it is no more than this process has.

    Args:
        network: pretrained, without a head; it is changed.
        device: 'auto' for the GPUs of the cluster, if it has any; 'cuda' to insist on them.
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

            nodes, most = Nodes(told), max(1, task.options.batch // LEAST)
            use_gpus = may_use_gpus(nodes.look(), device=device)
            found = places(nodes.look(), most=most, use_gpus=use_gpus)
            if [place.id for place in found] == [ray.get_runtime_context().get_node_id()]:
                return None
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
    return f"{task.key} {task.options}"


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


def _write(task: Task, trained: Trained) -> None:
    """Write what `_read` reads."""
    refined = trained.refined
    tensors = {f"weights/{name}": tensor for name, tensor in refined.network.state_dict().items()}
    tensors["validation/logits"] = torch.from_numpy(refined.validation_logits)
    tensors["validation/labels"] = torch.from_numpy(refined.validation_labels)
    facts = {
        "history": [asdict(row) for row in refined.history],
        "best_epoch": refined.best_epoch,
        "names": trained.names,
        "groups": trained.groups,
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

        device: Device = "cuda" if place.has_gpu else "cpu"
        with (
            joined(place.rank, place.size, address=place.address, device=device) as world,
            tempfile.TemporaryDirectory() as scratch,
        ):
            sets = task.load(task.division(), scratch=Path(scratch), world=world)
            trained = task.on(device).train(
                load_network(task.checkpoint.parent / _START), sets, world=world, on_epoch=on_epoch, on_step=on_step
            )
            if place.rank == 0:
                _write(task, trained)
        return trained.left_out

    def close(self) -> None:
        """Nothing is open."""
