"""The processes that train one network together, each on its share of the images; usually there is only one.

They compute what one process would, but for what is drawn at random: a step takes the mean of their gradients, sums are
exact, and only batch normalisation sees the images of one process, which must not be too few. By torch.distributed:
NCCL between GPUs, gloo between processors.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as distributed
from torch import Tensor, nn

T = TypeVar("T")

PATIENCE = timedelta(minutes=10)  # for a process that decodes its images, or writes the checkpoint


@dataclass(frozen=True)
class World:
    """One of `size` processes, whose number is `rank`."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """The items of this process, in order; those of all processes are all items.

        Drawn at random: with every second image, say, of pairs of two classes, batch normalisation would see one class.
        """
        if self.size == 1:
            return items
        order = np.random.default_rng(0).permutation(len(items))
        return [items[index] for index in sorted(order[self.rank :: self.size])]

    def together(self, network: nn.Module) -> nn.Module:
        """The network whose gradients become the mean over all processes, and which begins with the first one's."""
        if self.size == 1:
            return network
        return nn.parallel.DistributedDataParallel(network, broadcast_buffers=False, gradient_as_bucket_view=True)

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, the same in each."""
        if self.size > 1:
            values = values.to(self.device, copy=True)
            distributed.all_reduce(values)
        return values

    def total(self, count: int) -> int:
        """The sum of a number over all processes."""
        return int(self.sum(torch.tensor(count)))

    def rows(self, own: np.ndarray) -> np.ndarray:
        """The rows [N, …] of all processes, one process after the other."""
        if self.size == 1:
            return own
        counts = torch.zeros(self.size, dtype=torch.int64)
        counts[self.rank] = len(own)
        start, *ends = np.concatenate([[0], self.sum(counts).cpu().numpy().cumsum()])
        starts = [start, *ends[:-1]]
        everything = torch.zeros((int(ends[-1]), *own.shape[1:]), dtype=torch.from_numpy(own).dtype)
        everything[starts[self.rank] : ends[self.rank]] = torch.from_numpy(own)
        return self.sum(everything).cpu().numpy()

    @torch.no_grad()
    def average_buffers(self, *networks: nn.Module) -> None:
        """Set running statistics to their mean over all processes.

        They, and averages of them, are linear in what each batch contributes: once an epoch is as good as every step.
        """
        if self.size > 1:
            for network in networks:
                for buffer in network.buffers():
                    if buffer.is_floating_point():
                        buffer.copy_(self.sum(buffer) / self.size)


ALONE = World()


@contextlib.contextmanager
def joined(rank: int, size: int, *, address: str, device: str) -> Iterator[World]:
    """This process as one of several, during the block.

    Args:
        address: host:port at which the first of them listens.
        device: 'cpu', or 'cuda' if each has a GPU of its own.
    """
    options: dict[str, Any] = {"device_id": torch.device("cuda", 0)} if device == "cuda" else {}
    distributed.init_process_group(
        "nccl" if device == "cuda" else "gloo",
        init_method=f"tcp://{address}",
        rank=rank,
        world_size=size,
        timeout=PATIENCE,
        **options,
    )
    try:
        yield World(rank, size, device)
    finally:
        distributed.destroy_process_group()
