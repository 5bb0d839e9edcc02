"""One CUDA GPU: does it compute what a processor does, and how fast, against plain loops of timm and PyTorch.

    python benchmarks/gpu.py [--images 4096] [--rounds 3] [--json results.json]
    python benchmarks/gpu.py --device cpu --images 64 --rounds 1 --size 64          tries the program without one

Needs no network: weights are random, images are random crops of scikit-learn's photographs. About ten minutes.

Featurizing   Image files to embeddings in bf16: ours is the engine of scripts/3_runDNN.py; the plain loop is timm's
              model in channels_last under autocast, and a DataLoader with as many workers as cores. Beside them what
              bounds both: decoding and fitting alone, and the network alone on images that are in the GPU's memory.
Refining      Images a second of an epoch after the first, in bf16: ours decodes once and augments on the GPU, as
              scripts/2_refineDNN.py does; the plain loop is that of training.py, under autocast.
Agreement     Embeddings of the device against those of the processor, in float32 (largest difference, relative to the
              largest value) and in bf16 (least cosine). Three epochs in float32, by one process and by two that share
              the device: their validation errors.
"""

import argparse
import functools
import multiprocessing
import socket
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import timm
import torch
import torch.distributed as distributed
from common import circumstances, interleaved, median_ratio, photographs, write_results
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from libraries.base.console import table
from libraries.base.pool import ordered_map, usable_cores
from libraries.data.images import ResizeRule, load
from libraries.network.backbones import EmbeddingNetwork, load_pretrained
from libraries.network.torch_engine import TorchEngine
from libraries.network.training.recipe import AREA, JITTER, RATIO, RefineOptions, make_optimizer, stored_size
from libraries.network.training.refine import refine
from libraries.network.training.trainer import Trainer
from libraries.network.training.training_sets import ImageSet, decode_once
from libraries.network.training.world import World

NETWORKS = {"ResNet-50": "resnet50", "ConvNeXt-Tiny": "convnext_tiny", "ViT-S/16": "vit_small_patch16_224"}
REFINED = "resnet50"
BATCH = 128
CHECKED = 32  # images whose embeddings are compared
CLASSES = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=224, help="of the networks' input [pixels]; a ViT takes 224 alone")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    device, size = torch.device(options.device), options.size
    networks = {name: each for name, each in NETWORKS.items() if size == 224 or not each.startswith("vit")}
    with tempfile.TemporaryDirectory() as folder:
        files = photographs(Path(folder) / "images", options.images)
        featurizing = {
            name: featurize(network, files, device, size=size, rounds=options.rounds)
            for name, network in networks.items()
        }
        refining = refine_both(files, device, size=size, rounds=options.rounds)
        agreement = {name: agree(network, files[:CHECKED], device, size=size) for name, network in networks.items()}
        together = two_processes(files[: max(CHECKED, len(files) // 8)], device, folder=Path(folder), size=size)
    title = f"{options.images:,} photographs of 533 x 400, {options.rounds} rounds"
    show(f"Featurizing in bf16, images a second: {title}", featurizing)
    show(f"Refining in bf16, images a second, batch {BATCH}: {title}", {REFINED: refining})
    show("Device against processor", agreement, digits=6)
    print(f"Two processes on the device: validation error {together[1]:.1%} and by one {together[0]:.1%}")
    about = circumstances()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "no GPU"
    print(f"{name}; {about['machine']}; {about['date']}")
    figures = {"featurizing": featurizing, "refining": refining, "agreement": agreement, "together": together}
    write_results(options.json, {"device": name, **figures})


def show(title: str, figures: dict[str, dict[str, float]], *, digits: int = 2) -> None:
    """A column for each network."""
    names = list(next(iter(figures.values())))
    rows = [[row, *(f"{of[row]:,.{0 if of[row] > 100 else digits}f}" for of in figures.values())] for row in names]
    print(table(title, ["", *figures], rows))


def random_network(architecture: str, *, size: int) -> EmbeddingNetwork:
    return load_pretrained(f"random:{architecture}", input_size=size)


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def featurize(
    architecture: str, files: list[Path], device: torch.device, *, size: int, rounds: int
) -> dict[str, float]:
    """Images a second (medians), and the ratio to the plain loop."""
    network = random_network(architecture, size=size)
    fit = functools.partial(load, rule=ResizeRule(size))
    engine = TorchEngine(network, device=str(device), precision="bf16", batch_size=BATCH)
    model = timm.create_model(architecture, num_classes=0).eval().to(device, memory_format=torch.channels_last)
    to_tensor = transforms.Compose([transforms.Resize((size, size)), transforms.ToTensor()])
    pinned = device.type == "cuda"
    loader = DataLoader(
        ImageFolder(str(files[0].parents[1]), to_tensor),
        batch_size=BATCH,
        num_workers=usable_cores(),
        persistent_workers=True,
        pin_memory=pinned,
    )
    resident = torch.rand(BATCH, 3, size, size, device=device).to(memory_format=torch.channels_last)

    def computed(batch: Tensor) -> Tensor:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16):
            found: Tensor = model(batch)
        return found

    def plain() -> None:
        for batch, _ in loader:
            computed(batch.to(device, memory_format=torch.channels_last, non_blocking=True)).float().cpu()

    def network_alone() -> None:
        for _ in range(-(-len(files) // BATCH)):
            computed(resident)
        wait_for(device)

    contenders: dict[str, Callable[[], object]] = {
        "plain": plain,
        "ours": lambda: [None for _ in engine.stream(files, fit)],
        "decoding alone": lambda: [None for _ in ordered_map(fit, files)],
        "network alone": network_alone,
    }
    for run in contenders.values():
        run()  # warm
    seconds = interleaved(contenders, rounds=rounds)
    figures = {name: len(files) / statistics.median(values) for name, values in seconds.items()}
    return figures | {"ours / plain": median_ratio(seconds["plain"], seconds["ours"])}


def decoded(files: list[Path], *, size: int) -> ImageSet:
    names = sorted({path.parent.name for path in files})
    labels = [names.index(path.parent.name) for path in files]
    reader = functools.partial(load, rule=ResizeRule(size))
    return decode_once(files, labels, load=reader, size=size, scratch=files[0].parents[2])[0]


def refine_both(files: list[Path], device: torch.device, *, size: int, rounds: int) -> dict[str, float]:
    """Images a second (medians) of an epoch after the first, and the ratio."""
    options = RefineOptions(batch=BATCH, device=str(device), bf16=True)
    network = random_network(REFINED, size=size)
    network.add_head(CLASSES, dropout=options.dropout, seed=0)
    trainer = Trainer(network, decoded(files, size=stored_size(size)), options)
    model = timm.create_model(REFINED, num_classes=CLASSES).to(device, memory_format=torch.channels_last).train()
    optimizer = make_optimizer(model, options)
    augmented = transforms.Compose(
        [
            transforms.RandomResizedCrop(size, scale=AREA, ratio=RATIO),
            transforms.RandomHorizontalFlip(),
            transforms.ColorJitter(JITTER, JITTER, JITTER),
            transforms.ToTensor(),
        ]
    )
    loader = DataLoader(
        ImageFolder(str(files[0].parents[1]), augmented),
        batch_size=BATCH,
        shuffle=True,
        num_workers=usable_cores(),
        persistent_workers=True,
        pin_memory=device.type == "cuda",
    )

    def plain() -> None:
        for images, labels in loader:
            optimizer.zero_grad()
            with torch.autocast(device.type, torch.bfloat16):
                scores = model(images.to(device, memory_format=torch.channels_last, non_blocking=True))
            torch.nn.functional.cross_entropy(scores.float(), labels.to(device)).backward()
            optimizer.step()
        wait_for(device)

    def ours() -> None:
        trainer.train_epoch(1)
        wait_for(device)

    contenders: dict[str, Callable[[], object]] = {"plain": plain, "ours": ours}
    for run in contenders.values():
        run()  # warm
    seconds = interleaved(contenders, rounds=rounds)
    figures = {name: len(files) / statistics.median(values) for name, values in seconds.items()}
    return figures | {"ours / plain": median_ratio(seconds["plain"], seconds["ours"])}


def agree(architecture: str, files: list[Path], device: torch.device, *, size: int) -> dict[str, float]:
    """How far embeddings of the device are from those of the processor."""
    fit = functools.partial(load, rule=ResizeRule(size))
    images = np.stack([fit(path) for path in files])
    found = {}
    for where, precision in (("cpu", "f32"), (str(device), "f32"), (str(device), "bf16")):
        network = random_network(architecture, size=size)
        engine = TorchEngine(network, device=where, precision=precision, batch_size=CHECKED)
        found[where, precision] = engine.run(images)["embedding"].astype(np.float64)
    reference = found["cpu", "f32"]
    of_device, half = found[str(device), "f32"], found[str(device), "bf16"]
    norms = np.linalg.norm(reference, axis=1) * np.linalg.norm(half, axis=1)
    return {
        "f32: largest difference": float(np.abs(of_device - reference).max() / np.abs(reference).max()),
        "bf16: least cosine": float(((half * reference).sum(axis=1) / norms).min()),
    }


def two_processes(files: list[Path], device: torch.device, *, folder: Path, size: int) -> list[float]:
    """Validation errors after three epochs, by one process and by two on the same device."""
    train, test = (decoded(files, size=side) for side in (stored_size(size), size))
    np.savez(folder / "sets.npz", train=train.images, test=test.images, labels=train.labels)
    errors = []
    for processes in (1, 2):
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            address = f"tcp://127.0.0.1:{found.getsockname()[1]}"
        spawn = multiprocessing.get_context("spawn")
        given = (processes, address, folder, str(device), size)
        started = [spawn.Process(target=train_together, args=(rank, *given)) for rank in range(processes)]
        for each in started:
            each.start()
        for each in started:
            each.join()
        errors.append(float((folder / "error").read_text(encoding="ascii")))
    return errors


def train_together(rank: int, processes: int, address: str, folder: Path, device: str, size: int) -> None:
    """One of the processes. By gloo, since NCCL wants a device for each."""
    data = np.load(folder / "sets.npz")
    distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=processes)
    world = World(rank, processes, device)
    mine = np.array(world.share(range(len(data["labels"]))), int)
    train, test = (ImageSet(data[name][mine], data["labels"][mine]) for name in ("train", "test"))
    options = RefineOptions(epochs=3, batch=min(32, len(data["labels"]) // 2), device=device, bf16=False, seed=0)
    result = refine(
        random_network("resnet18", size=size),
        train=train,
        validation=test,
        classes=CLASSES,
        options=options,
        checkpoint=folder / f"checkpoint-{processes}",
        world=world,
    )
    if rank == 0:
        (folder / "error").write_text(str(result.history[-1].validation_error), encoding="ascii")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
