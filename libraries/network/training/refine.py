"""Fine-tunes a pretrained network on a user's images: all of it, or only a new head.

An epoch depends only on (seed, epoch, step) and on the state at its beginning, which is saved after every epoch. So a
killed run resumes and comes to the same result; on a CPU, to the same bits.
"""

import contextlib
import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor

from libraries.base.errors import NetworkError, StorageError
from libraries.base.storage import atomic_path
from libraries.base.tables import Column
from libraries.network.backbones import EmbeddingNetwork
from libraries.network.training.recipe import RefineOptions
from libraries.network.training.trainer import Trainer, with_prefix
from libraries.network.training.training_sets import ImageSet
from libraries.network.training.world import ALONE, World

EVALUATION_BATCH = 64


@dataclass(frozen=True)
class Epoch:
    """One row of training.csv. Errors are fractions of images; test_error is only reported."""

    epoch: Annotated[int, Column("number of the epoch, from 1")]
    learning_rate: Annotated[float, Column("learning rate per minibatch at the end of the epoch")]
    train_loss: Annotated[float, Column("loss on the training images")]
    train_error: Annotated[float, Column("fraction of the training images that are wrong")]
    validation_loss: Annotated[float, Column("loss on the validation images")]
    validation_error: Annotated[float, Column("fraction of the validation images that are wrong; chooses the epoch")]
    test_error: Annotated[float | None, Column("fraction of the test images that are wrong; only reported")]
    seconds: Annotated[float, Column("duration of the epoch")]

    def __str__(self) -> str:
        test = "" if self.test_error is None else f", test {self.test_error:.1%}"
        errors = f"training {self.train_error:.1%}, validation {self.validation_error:.1%}{test}"
        return f"epoch {self.epoch:3}: error in {errors} ({self.seconds:.0f} s)"


@dataclass(frozen=True)
class Refined:
    """The result of training: the network with the weights of its best epoch, and its history.

    Attributes:
        best_epoch: counted from 1, the one with the fewest validation errors; of several, that with the lowest loss.
        validation_logits: float32 [N, K], of the best weights, for calibration.
        validation_labels: int64 [N].
    """

    network: EmbeddingNetwork
    history: list[Epoch]
    best_epoch: int
    validation_logits: np.ndarray
    validation_labels: np.ndarray


def refine(
    network: EmbeddingNetwork,
    *,
    train: ImageSet,
    validation: ImageSet,
    test: ImageSet | None = None,
    classes: int,
    options: RefineOptions,
    checkpoint: Path,
    key: str = "",
    world: World = ALONE,
    on_epoch: Callable[[Epoch], None] | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> Refined:
    """Give `network` a new head for `classes` and train it; the network is changed.

    Args:
        train: images somewhat larger than the network's input (`recipe.stored_size`), so that crops keep detail.
        validation: images at the network's input size, none of them in `train`; they choose the best epoch.
        test: images at the network's input size; their error is only reported. Each set is this process's share.
        classes: number of classes.
        checkpoint: file for the state after the latest epoch; the caller deletes it when the result is saved.
        key: identifies the data and whatever else the result depends on. A checkpoint with another key, or with other
            options, is ignored.
        world: the processes that train together; all return the same result.
        on_epoch: called after every epoch, including those that an earlier run has finished.
        on_step: called after every step with its number and the number of steps in the epoch.

    Raises:
        NetworkError: out of memory (names rf_mbSize), or the loss is not finite (names rf_lrPerMb).
        StorageError: the checkpoint cannot be written.
    """
    images = (world.total(len(train)), *train.images.shape[1:])
    described = f"{key} {options} {images} {world.total(len(validation))} {classes}"
    identity = hashlib.sha256(described.encode()).hexdigest()
    network.add_head(classes, dropout=options.dropout, seed=options.seed)
    # With more views, evaluating an epoch would take longer than training it.
    views, network.views = network.views, 1
    with memory_errors(), torch.random.fork_rng():
        trainer = Trainer(network, train, options, world)
        history, best = _resume(trainer, checkpoint, key=identity)
        if world.total(len(history)) != world.size * len(history):
            raise StorageError(f"the nodes of the cluster do not see the same state of {checkpoint}: run again")
        for row in history:
            if on_epoch:
                on_epoch(row)
        for number in range(len(history), options.epochs):
            row = _run_epoch(trainer, number, validation, test, on_step)
            history.append(row)
            if row is kept_epoch(history):
                best = {name: tensor.clone() for name, tensor in trainer.averaged.state_dict().items()}
            state = trainer.state() | {f"best/{name}": tensor for name, tensor in best.items()}
            facts = {"history": [dataclasses.asdict(row) for row in history]}
            if world.rank == 0:
                save_checkpoint(checkpoint, key=identity, tensors=state, facts=facts)
            if on_epoch:
                on_epoch(row)
        result = trainer.averaged
        result.load_state_dict(best)
        result.requires_grad_(True)
        result.views = views
        return Refined(
            network=result,
            history=history,
            best_epoch=kept_epoch(history).epoch,
            validation_logits=world.rows(logits(result, validation.images, bf16=False)),
            validation_labels=world.rows(validation.labels),
        )


def _resume(trainer: Trainer, checkpoint: Path, *, key: str) -> tuple[list[Epoch], dict[str, Tensor]]:
    """Restore the trainer from a checkpoint, if there is one; returns the finished epochs and the best weights."""
    saved = load_checkpoint(checkpoint, key=key)
    if saved is None:
        return [], {}
    state, facts = saved
    trainer.restore(state)
    return [Epoch(**row) for row in facts["history"]], with_prefix(state, "best/")


def _run_epoch(
    trainer: Trainer,
    number: int,
    validation: ImageSet,
    test: ImageSet | None,
    on_step: Callable[[int, int], None] | None,
) -> Epoch:
    """Train for one epoch, then evaluate."""
    start = time.monotonic()
    trained = trainer.train_epoch(number, on_step)
    loss, error = _evaluate(trainer, validation)
    test_error = None
    if test is not None and trainer.world.total(len(test)):
        test_error = _evaluate(trainer, test)[1]
    return Epoch(
        epoch=number + 1,
        learning_rate=trained["learning_rate"],
        train_loss=trained["train_loss"],
        train_error=trained["train_error"],
        validation_loss=loss,
        validation_error=error,
        test_error=test_error,
        seconds=time.monotonic() - start,
    )


def logits(network: EmbeddingNetwork, images: np.ndarray, *, bf16: bool) -> np.ndarray:
    """The scores, float32 [N, K], of a network in evaluation mode for images uint8 [N, S, S, 3]."""
    device = network.scale.device
    scores = [torch.empty(0, network.classes or 0)]
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        for start in range(0, len(images), EVALUATION_BATCH):
            batch = torch.from_numpy(images[start : start + EVALUATION_BATCH]).to(device)
            scores.append(network(batch)[1].cpu())
    return torch.cat(scores).numpy()


def _evaluate(trainer: Trainer, images: ImageSet) -> tuple[float, float]:
    """The mean loss of the averaged network over a set, and the fraction of it that is wrong."""
    scores = trainer.world.rows(logits(trainer.averaged, images.images, bf16=trainer.bf16))
    labels = trainer.world.rows(images.labels)
    loss = functional.cross_entropy(torch.from_numpy(scores), torch.from_numpy(labels)).item()
    return loss, float((scores.argmax(axis=1) != labels).mean())


def kept_epoch(history: Sequence[Epoch]) -> Epoch:
    """That whose weights are kept."""
    return min(history, key=_rank)


def _rank(row: Epoch) -> tuple[float, float]:
    return row.validation_error, row.validation_loss


@contextlib.contextmanager
def memory_errors() -> Iterator[None]:
    """Turn running out of memory, on any device, into an error that says what to do."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _out_of_memory() from error
    except RuntimeError as error:  # as PyTorch reports it on a CPU and on Apple's GPU
        if "can't allocate memory" in str(error) or "out of memory" in str(error):
            raise _out_of_memory() from error
        raise


def _out_of_memory() -> NetworkError:
    return NetworkError(
        "the network and its images do not fit into memory: lower rf_mbSize (or rf_inputResolution) and run again"
    )


def save_checkpoint(path: Path, *, key: str, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Write tensors by name and facts (JSON) as one .safetensors file, replacing an earlier one.

    Args:
        key: identifies the run; a run with another key ignores the file.

    Raises:
        StorageError: the disk is full, or the folder cannot be written.
    """
    from safetensors.torch import save_file

    # copies, since safetensors does not accept tensors that share memory
    flat = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(flat, temporary, metadata={"key": key, "facts": json.dumps(facts)})


def load_checkpoint(path: Path, *, key: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and facts as saved; None if there is no file, or it is damaged or of another run."""
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("key") != key:
                return None
            # Copies: Windows could not replace the file while tensors map it into memory.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            return tensors, json.loads(metadata["facts"])
    except (OSError, SafetensorError, ValueError, KeyError):
        return None
