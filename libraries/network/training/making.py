"""A network refined on images, from decoding to its folder, with its progress shown."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from libraries.base.console import ProgressBar, say
from libraries.base.storage import Artefact
from libraries.data.images import ResizeRule
from libraries.network.artefact import resize_rule
from libraries.network.backbones import EmbeddingNetwork
from libraries.network.devices import Wanted, find_device
from libraries.network.pretrained import NetworkOptions, load_network_for
from libraries.network.training import on_cluster, outputs
from libraries.network.training.outputs import Calibrate
from libraries.network.training.recipe import steps_per_epoch
from libraries.network.training.refine import Epoch
from libraries.network.training.task import Task, Trained


def refine_into(
    artefact: Artefact,
    network: EmbeddingNetwork,
    task: Task,
    *,
    cluster: str,
    device: Wanted,
    shared: Path,
    calibrate: Calibrate,
    told: Callable[[str], None] = say,
) -> Epoch:
    """Train, on the cluster if there is one, and write the folder of the network; one that was stopped goes on.

    Args:
        network: pretrained, without a head; it is changed.
        cluster, device, shared: see `on_cluster.train`.
        calibrate: see `outputs.write_refined_network`.
        told: called with lines about the progress.

    Returns:
        The epoch whose weights are kept.
    """
    with ProgressBar("Training on the cluster", unit="steps") as bar:
        trained = on_cluster.train(
            task,
            network,
            cluster=cluster,
            device=device,
            shared=shared,
            told=told,
            on_epoch=lambda epoch: told(f"  {epoch}"),
            on_step=bar.show,
        )
    trained = trained or _train_here(task.on(find_device(device)), network, scratch=artefact.folder, told=told)
    for error in trained.left_out:
        told(f"  left out: {error}")
    outputs.write_refined_network(
        artefact, trained.refined, names=trained.names, groups=trained.groups, rule=task.rule, calibrate=calibrate
    )
    on_cluster.clean(task)
    told(f"Kept the weights of epoch {trained.refined.best_epoch}")
    return trained.refined.history[trained.refined.best_epoch - 1]


def refine_anew(
    artefact: Artefact,
    examples: Path,
    options: NetworkOptions,
    task: Callable[[ResizeRule], Task],
    *,
    white_level: int | None,
    cluster: str,
    device: Wanted,
    shared: Path,
    calibrate: Calibrate,
    told: Callable[[str], None] = say,
) -> Epoch:
    """Train a pretrained network on a table of examples, into a folder of its own; see `refine_into`.

    Args:
        task: how, but for the table and the folder.
        white_level: of the images; see `resize_rule`.
    """
    network = load_network_for(options, refine=True)
    given = task(resize_rule(network, options.mode, white_level=white_level))
    checkpoint = artefact.folder / "checkpoint.safetensors"
    own = replace(given, examples=examples, checkpoint=checkpoint, key=artefact.key())
    return refine_into(
        artefact, network, own, cluster=cluster, device=device, shared=shared, calibrate=calibrate, told=told
    )


def _train_here(task: Task, network: EmbeddingNetwork, *, scratch: Path, told: Callable[[str], None]) -> Trained:
    division, options = task.division(), task.options
    with ProgressBar("Decoding", total=len(division)) as bar:
        sets = task.load(division, scratch=scratch, on_image=bar.update)
    told(f"Training on {len(sets.train):,} images, choosing the epoch on {len(sets.validation):,} ({options.device})")
    steps = options.epochs * steps_per_epoch(len(sets.train), options)
    with ProgressBar("Training", total=steps, unit="steps") as bar:
        return task.train(
            network, sets, on_epoch=lambda epoch: told(f"  {epoch}"), on_step=lambda step, steps: bar.update()
        )
