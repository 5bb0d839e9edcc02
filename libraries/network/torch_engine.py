"""Runs a network over a stream of images with PyTorch on a GPU, with the interface of `engine.Engine` on the CPU.

Threads load images while the GPU computes earlier batches: a batch is copied to the GPU from pinned memory, and its
results are fetched only after the next batch was started, so that neither side waits for the other.
"""

import contextlib
import functools
import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor

from libraries.base.arrays import Pixels
from libraries.base.errors import ImageError
from libraries.base.pool import ordered_map, usable_cores
from libraries.network.engine import Outputs, Precision, load_or_error

if TYPE_CHECKING:
    from libraries.network.backbones import EmbeddingNetwork

T = TypeVar("T")
Loaded = list[tuple[T, Pixels | ImageError]]

NAMES = ("embedding", "scores")  # of the network's outputs, in order


class TorchEngine:
    """A network on a device.

    Attributes:
        size: S, the side of the images it takes.
        precision: used for computing.
    """

    def __init__(
        self,
        network: "EmbeddingNetwork",
        *,
        device: str = "cuda",
        precision: Precision = "bf16",
        batch_size: int = 128,
        compiled: bool = False,
        workers: int | None = None,
    ) -> None:
        """Move `network`, e.g. from `export.load_network`, to `device`.

        Args:
            batch_size: rows of every batch, even the last one, so that kernels are chosen only once.
            compiled: whether torch.compile generates the kernels: takes a minute, pays off in long runs.
            workers: number of threads that load images; by default one per core.
        """
        self.size, self.precision, self.batch_size = network.input_size, precision, batch_size
        self.device = torch.device(device)
        self.workers = workers or usable_cores()
        network = network.to(device=self.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self._network: Callable[[Tensor], tuple[Tensor, ...]] = torch.compile(network) if compiled else network

    def stream(self, items: Iterable[T], load: Callable[[T], Pixels]) -> Generator[tuple[T, Outputs | ImageError]]:
        """As `Engine.stream`."""
        work = functools.partial(load_or_error, load, size=self.size)
        with contextlib.closing(ordered_map(work, items, workers=self.workers, ahead=2 * self.batch_size)) as loaded:
            running: deque[tuple[Loaded[T], Running]] = deque()
            while batch := list(itertools.islice(loaded, self.batch_size)):
                running.append((batch, self._start([image for _, image in batch if not isinstance(image, ImageError)])))
                if len(running) == 2:
                    yield from _finish(*running.popleft())
            for batch, outputs in running:
                yield from _finish(batch, outputs)

    def run(self, images: Pixels) -> Outputs:
        """The outputs, each float32 [N, size of the output], of images uint8 [N, S, S, 3]; N at least 1."""
        rows = [
            outputs for _, outputs in self.stream(range(len(images)), lambda i: images[i]) if isinstance(outputs, dict)
        ]
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    def _start(self, images: list[Pixels]) -> "Running":
        """Start the network on up to `batch_size` images, and return at once."""
        pinned = self.device.type == "cuda"
        batch = torch.zeros((self.batch_size, self.size, self.size, 3), dtype=torch.uint8, pin_memory=pinned)
        for row, image in enumerate(images):
            batch[row] = torch.from_numpy(image)
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"),
            torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False),  # f32 means true float32
        ):
            outputs = self._network(batch.to(self.device, non_blocking=True))
            host = [torch.empty(o.shape, pin_memory=pinned).copy_(o, non_blocking=True) for o in outputs]
        if not pinned:
            return Running(host, done=None)
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record()
        return Running(host, done)


@dataclass(frozen=True)
class Running:
    """A batch being computed on the GPU: `outputs` in host memory are valid after the event `done`."""

    outputs: list[Tensor]
    done: torch.cuda.Event | None


def _finish(batch: Loaded[T], running: Running) -> Iterator[tuple[T, Outputs | ImageError]]:
    """The items of a batch with their results, waiting for the GPU if need be."""
    if running.done is not None:
        running.done.synchronize()
    outputs = {name: tensor.numpy().copy() for name, tensor in zip(NAMES, running.outputs, strict=False)}
    row = itertools.count()
    for item, image in batch:
        if isinstance(image, ImageError):
            yield item, image
        else:
            i = next(row)
            yield item, {name: values[i] for name, values in outputs.items()}
