"""Training: the same result whatever happens on the way, on data small enough to see through."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from torch import Tensor
from torch.testing import assert_close

from libraries.base.errors import ImageError, NetworkError
from libraries.network.backbones import EmbeddingNetwork, build, orientations
from libraries.network.training import recipe
from libraries.network.training.recipe import KINDS, RefineOptions, augment, resample, stored_size
from libraries.network.training.refine import Epoch, Refined, load_checkpoint, logits, refine, save_checkpoint
from libraries.network.training.trainer import DepthwiseGradients, Trainer
from libraries.network.training.training_sets import ImageSet, decode_once

SIZE = 32
OPTIONS = RefineOptions(epochs=4, batch=16, dropout=0.2, bf16=False, seed=5)
LEARNING = dataclasses.replace(OPTIONS, epochs=20, learning_rates=(0.1,))  # from untrained weights


def pictures(count: int, *, seed: int, size: int = SIZE) -> ImageSet:
    """Noise with a bright spot somewhere: red for class 0, blue for class 1."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 100, (count, size, size, 3), np.uint8)
    labels = np.arange(count) % 2
    for image, label in zip(images, labels, strict=True):
        row, column = generator.integers(0, size - 8, 2)
        image[row : row + 8, column : column + 8, 2 * label] = 255
    return ImageSet(images, labels)


TRAIN, VALIDATION, TEST = pictures(40, seed=0, size=stored_size(SIZE)), pictures(20, seed=1), pictures(12, seed=2)


def fresh() -> EmbeddingNetwork:
    return build("test_efficientnet", input_size=SIZE, seed=3)


def train(checkpoint: Path, options: RefineOptions = OPTIONS, **changes: Any) -> Refined:
    arguments: dict[str, Any] = {"train": TRAIN, "validation": VALIDATION, "test": TEST, "classes": 2}
    return refine(fresh(), options=options, checkpoint=checkpoint, **{**arguments, **changes})


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Refined:
    return train(tmp_path_factory.mktemp("undisturbed") / "checkpoint")


def rows(result: Refined) -> list[Epoch]:
    """The history without the times, which are never the same."""
    return [dataclasses.replace(row, seconds=0.0) for row in result.history]


def assert_same(result: Refined, expected: Refined) -> None:
    assert rows(result) == rows(expected)
    assert result.best_epoch == expected.best_epoch
    np.testing.assert_array_equal(result.validation_logits, expected.validation_logits)
    for name, tensor in expected.network.state_dict().items():
        assert torch.equal(result.network.state_dict()[name], tensor), name


# The run as a whole


def test_learns_and_chooses_the_best_epoch(tmp_path: Path) -> None:
    result = train(tmp_path / "checkpoint", LEARNING)
    best = result.history[result.best_epoch - 1]
    assert best.validation_error <= 0.1
    assert best.validation_error == min(row.validation_error for row in result.history)
    assert [row.epoch for row in result.history] == list(range(1, 21))
    assert result.validation_logits.shape == (20, 2)
    assert (result.validation_logits.argmax(1) != VALIDATION.labels).mean() == best.validation_error
    assert not result.network.training


def test_killed_run_goes_on_to_the_same_bits(tmp_path: Path, undisturbed: Refined) -> None:
    class Killed(BaseException):
        pass

    def kill_after(epochs: int) -> Callable[[Epoch], None]:
        def on_epoch(row: Epoch) -> None:
            if row.epoch == epochs:
                raise Killed

        return on_epoch

    for epochs in (1, 3):
        with pytest.raises(Killed):
            train(tmp_path / "checkpoint", on_epoch=kill_after(epochs))
    torch.rand(17)  # what else happened to the random numbers does not matter
    seen: list[int] = []
    assert_same(train(tmp_path / "checkpoint", on_epoch=lambda row: seen.append(row.epoch)), undisturbed)
    assert seen == [1, 2, 3, 4]


def test_finished_run_is_not_trained_again(
    tmp_path: Path, undisturbed: Refined, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path / "checkpoint")
    monkeypatch.setattr(Trainer, "train_epoch", None)
    assert_same(train(tmp_path / "checkpoint"), undisturbed)


@pytest.mark.parametrize("foreign", ["key", "options", "damaged", "empty"])
def test_checkpoint_of_another_run_is_not_taken_up(tmp_path: Path, undisturbed: Refined, foreign: str) -> None:
    path = tmp_path / "checkpoint"
    if foreign == "key":
        train(path, key="another", options=dataclasses.replace(OPTIONS, epochs=1))
    elif foreign == "options":
        train(path, options=dataclasses.replace(OPTIONS, seed=6, epochs=1))
    else:
        path.write_bytes(b"\x08\0\0\0\0\0\0\0{}" if foreign == "damaged" else b"")
    assert_same(train(path), undisturbed)


def test_the_test_set_decides_nothing(tmp_path: Path, undisturbed: Refined) -> None:
    result = train(tmp_path / "checkpoint", test=ImageSet(TEST.images, 1 - TEST.labels))
    errors = [
        (row.test_error, expected.test_error) for row, expected in zip(result.history, undisturbed.history, strict=True)
    ]
    assert all(error == pytest.approx(1 - expected) for error, expected in errors)
    assert result.best_epoch == undisturbed.best_epoch
    np.testing.assert_array_equal(result.validation_logits, undisturbed.validation_logits)


def test_no_test_set(tmp_path: Path, undisturbed: Refined) -> None:
    result = train(tmp_path / "checkpoint", test=None)
    assert all(row.test_error is None for row in result.history)
    np.testing.assert_array_equal(result.validation_logits, undisturbed.validation_logits)


def test_random_numbers_outside_are_left_alone(tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    train(tmp_path / "checkpoint", options=dataclasses.replace(OPTIONS, epochs=1))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_steps_are_reported(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    train(tmp_path / "checkpoint", dataclasses.replace(OPTIONS, epochs=2), on_step=lambda *step: seen.append(step))
    assert seen == [(1, 3), (2, 3), (3, 3)] * 2


def test_frozen_backbone_does_not_move(tmp_path: Path) -> None:
    result = train(tmp_path / "checkpoint", dataclasses.replace(OPTIONS, freeze=True))
    original = fresh()
    for name, tensor in original.backbone.state_dict().items():  # the statistics of its normalisation included
        assert torch.equal(result.network.backbone.state_dict()[name], tensor), name
    original.add_head(2, dropout=0, seed=OPTIONS.seed)
    assert original.head is not None
    assert result.network.head is not None
    assert not torch.equal(result.network.head.weight, original.head.weight)


def test_mixed_precision_learns_too(tmp_path: Path) -> None:
    result = train(tmp_path / "checkpoint", dataclasses.replace(LEARNING, bf16=True))
    assert result.history[result.best_epoch - 1].validation_error <= 0.15
    assert result.validation_logits.dtype == np.float32


# What can go wrong


def test_loss_that_is_not_finite_names_the_parameter(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match="in epoch 1: lower rf_lrPerMb"):
        train(tmp_path / "checkpoint", dataclasses.replace(OPTIONS, learning_rates=(1e30,)))
    assert not (tmp_path / "checkpoint").exists()


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes."),
        RuntimeError("MPS backend out of memory (MPS allocated: 18.00 GB)"),
        MemoryError(),
    ],
    ids=lambda error: str(error)[:8],
)
def test_out_of_memory_names_the_parameter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(EmbeddingNetwork, "forward", fail)
    with pytest.raises(NetworkError, match="do not fit into memory: lower rf_mbSize"):
        train(tmp_path / "checkpoint")


def test_other_errors_stay_what_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(EmbeddingNetwork, "forward", fail)
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        train(tmp_path / "checkpoint")


# Recipe


def test_learning_rate_rises_and_falls() -> None:
    options = RefineOptions(epochs=10)
    rates = [recipe.learning_rate(options, epoch=e, step=s, steps=20) for e in range(10) for s in range(20)]
    top = rates.index(max(rates))
    assert max(rates) == pytest.approx(options.peak, rel=1e-3)
    assert top == pytest.approx(recipe.WARM_UP * 200, abs=1)
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] == pytest.approx(0, abs=1e-9)


def test_learning_rates_per_epoch() -> None:
    options = RefineOptions(epochs=5, learning_rates=(0.01, 0.001))
    assert [recipe.learning_rate(options, epoch=e, step=3, steps=9) for e in range(5)] == [0.01] + [0.001] * 4


def test_a_list_of_learning_rates_means_what_it_meant_in_the_tutorial() -> None:
    """CNTK's momentum_sgd with unit gain: v ← m·v + (1 − m)·(g + l2·w), w ← w − lr·v; the first v is the first g."""
    network = fresh()
    network.add_head(2, dropout=0, seed=0)
    optimizer = recipe.make_optimizer(network, RefineOptions(learning_rates=(0.1,), momentum=0.9, l2=0.01))
    assert network.head is not None
    weight = network.head.weight
    expected, velocity = weight.detach().clone(), None
    for step in range(3):
        gradient = torch.full_like(weight, float(step - 1))
        total = gradient + 0.01 * expected
        velocity = total if velocity is None else 0.9 * velocity + 0.1 * total
        expected = expected - 0.1 * velocity
        weight.grad = gradient
        optimizer.param_groups[0]["lr"] = 0.1
        optimizer.step()
    assert_close(weight.detach(), expected, rtol=1e-6, atol=1e-6)


def test_class_weights_make_classes_count_alike() -> None:
    labels = np.array([0] * 6 + [1] * 3 + [2])
    weights = recipe.class_weights(torch.bincount(torch.from_numpy(labels), minlength=3)).numpy()
    np.testing.assert_allclose(weights * [6, 3, 1], 10 / 3, rtol=1e-6)


@pytest.mark.parametrize("count", [1, 15, 16, 17, 100])
def test_batches_take_every_image_once(count: int) -> None:
    steps = recipe.steps_per_epoch(count, OPTIONS)
    taken = list(recipe.batches(count, steps, seed=0))
    assert len(taken) == steps == math.ceil(count / 16)
    assert sorted(torch.cat(taken).tolist()) == list(range(count))
    sizes = [len(indices) for indices in taken]
    assert max(sizes) <= 16
    assert max(sizes) - min(sizes) <= 1
    again, other = (torch.cat(list(recipe.batches(count, steps, seed=seed))) for seed in (0, 1))
    assert torch.equal(again, torch.cat(taken))
    assert count == 1 or not torch.equal(other, again)


def test_running_average_against_its_definition() -> None:
    """In every step the average moves towards the weights by 1 − min(exp(−1 / steps of two epochs), n / (n + 10))."""
    network = fresh()
    network.add_head(2, dropout=0, seed=0)
    trainer = Trainer(network, TRAIN, dataclasses.replace(OPTIONS, average_epochs=2.0))
    name = "backbone.conv_stem.weight"
    expected = trainer.network.state_dict()[name].clone()

    def on_step(step: int, steps: int) -> None:
        decay = min(math.exp(-1 / (2 * steps)), step / (step + 10))
        expected.lerp_(trainer.network.state_dict()[name], 1 - decay)

    trainer.train_epoch(0, on_step)
    assert_close(trainer.averaged.state_dict()[name], expected, rtol=1e-6, atol=1e-7)
    assert not torch.equal(expected, trainer.network.state_dict()[name])


def test_logits_do_not_depend_on_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    network = fresh()
    network.add_head(2, dropout=0.5, seed=0)
    whole = logits(network, VALIDATION.images, bf16=False)
    monkeypatch.setattr("libraries.network.training.refine.EVALUATION_BATCH", 7)
    np.testing.assert_allclose(logits(network, VALIDATION.images, bf16=False), whole, rtol=1e-4, atol=1e-5)


# Augmentation


def quadrants(images: Tensor) -> list[int]:
    """Which quarter of each image [N, S, S, 3] is the brightest."""
    return functional.adaptive_avg_pool2d(images.mean(3)[:, None], 2).flatten(1).argmax(1).tolist()


def corner(count: int) -> Tensor:
    """Images whose upper left quarter is bright."""
    images = torch.full((count, 46, 46, 3), 30, dtype=torch.uint8)
    images[:, :23, :23] = 220
    return images


@pytest.mark.parametrize(("kind", "seen"), [("photo", {0, 1}), ("anyOrientation", {0, 1, 2, 3}), ("none", {0})])
def test_orientations_that_a_kind_shows(kind: Any, seen: set[int]) -> None:
    assert set(quadrants(augment(corner(64), size=40, kind=kind, seed=0))) == seen


def test_affine_orientations_are_those_of_a_square() -> None:
    """Without crop and colours, a view at the size of the image is exactly one of its eight orientations."""
    from libraries.network.training.recipe import _ORIENTATIONS

    image = torch.randint(0, 256, (1, 6, 6, 3), dtype=torch.uint8)
    maps = torch.cat([_ORIENTATIONS, torch.zeros(8, 2, 1)], dim=2)
    found = {tuple(view.round().int().flatten().tolist()) for view in resample(image.expand(8, -1, -1, -1), maps, 6)}
    expected = {tuple(o.permute(0, 2, 3, 1).int().flatten().tolist()) for o in orientations(image.permute(0, 3, 1, 2))}
    assert found == expected
    assert len(found) == 8


def test_none_is_a_plain_resize() -> None:
    images = torch.randint(0, 256, (2, 46, 46, 3), dtype=torch.uint8)
    expected = functional.interpolate(images.permute(0, 3, 1, 2).float(), size=(40, 40), mode="bilinear")
    assert_close(augment(images, size=40, kind="none", seed=0).permute(0, 3, 1, 2), expected, rtol=0, atol=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_views_are_reproducible_and_in_range(kind: Any) -> None:
    images = torch.randint(0, 256, (16, 46, 46, 3), dtype=torch.uint8)
    views = augment(images, size=40, kind=kind, seed=1)
    assert views.shape == (16, 40, 40, 3)
    assert views.is_contiguous()
    assert views.min() >= 0
    assert views.max() <= 255
    assert torch.equal(views, augment(images, size=40, kind=kind, seed=1))
    assert torch.equal(views, augment(images, size=40, kind=kind, seed=2)) == (kind == "none")


def test_grey_stays_grey_and_images_differ() -> None:
    images = torch.randint(0, 256, (1, 46, 46, 1), dtype=torch.uint8).expand(8, 46, 46, 3)
    views = augment(images, size=40, kind="photo", seed=0)
    assert_close(views[..., 0], views[..., 2], rtol=0, atol=1e-3)
    assert len({round(view.mean().item(), 2) for view in views}) == 8


# Gradients of depthwise convolutions


@pytest.mark.parametrize(
    "geometry", [{}, {"stride": 2}, {"padding": 2, "kernel_size": 5}, {"dilation": 2, "bias": False}]
)
def test_depthwise_gradients_are_the_gradients(geometry: dict[str, Any]) -> None:
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(24, 24, **{"kernel_size": 3, "groups": 24, **geometry})
    images = torch.randn(4, 24, 15, 15)

    def gradients(*, bf16: bool, helped: bool) -> list[Tensor]:
        layer.zero_grad()
        leaf = images.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            if helped:
                with DepthwiseGradients():
                    output = layer(leaf)
            else:
                output = layer(leaf)
        (output.float() ** 2).sum().backward()
        return [output.float(), leaf.grad, *(p.grad for p in layer.parameters())]

    exact = gradients(bf16=False, helped=False)
    for found, expected in zip(gradients(bf16=False, helped=True), exact, strict=True):
        assert_close(found, expected, rtol=1e-4, atol=1e-4)
    for found, expected in zip(gradients(bf16=True, helped=True), exact, strict=True):
        assert (found - expected).abs().max() <= 0.02 * expected.abs().max()


def test_depthwise_help_leaves_other_convolutions_alone() -> None:
    layer, images = torch.nn.Conv2d(4, 8, 3, groups=2), torch.randn(1, 4, 8, 8)
    expected = layer(images)
    with DepthwiseGradients():
        assert torch.equal(layer(images), expected)


# Checkpoints, decoding


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="tells what is mapped on Linux only")
def test_what_a_checkpoint_gave_does_not_hold_its_file(tmp_path: Path) -> None:
    """Windows would not let the next epoch's checkpoint take the place of a file that is mapped into memory."""
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, key="a", tensors={"x": torch.zeros(100_000)}, facts={})
    loaded = load_checkpoint(path, key="a")
    assert loaded and "checkpoint.safetensors" not in Path("/proc/self/maps").read_text(encoding="utf-8")


def test_checkpoint_gives_back_what_was_saved(tmp_path: Path) -> None:
    shared = torch.randn(3, 4)
    tensors = {"a": shared, "b": shared[1:], "c": torch.tensor(7), "d": shared.T}
    save_checkpoint(tmp_path / "c", key="k", tensors=tensors, facts={"history": [1, None, 0.1]})
    loaded = load_checkpoint(tmp_path / "c", key="k")
    assert loaded is not None
    assert loaded[1] == {"history": [1, None, 0.1]}
    assert all(torch.equal(loaded[0][name], tensor) for name, tensor in tensors.items())
    assert load_checkpoint(tmp_path / "c", key="other") is None
    assert load_checkpoint(tmp_path / "none", key="k") is None


@pytest.mark.parametrize("limit", [10**9, 0], ids=["memory", "file"])
def test_decode_once_leaves_out_what_does_not_decode(tmp_path: Path, limit: int) -> None:
    def load(number: int) -> np.ndarray:
        if number in (0, 3):
            raise ImageError("broken", str(number))
        return np.full((8, 8, 3), number, np.uint8)

    ticks: list[None] = []
    found, errors = decode_once(
        range(6), [5, 4, 3, 2, 1, 0], load=load, size=8, scratch=tmp_path / "scratch", in_memory_bytes=limit,
        on_image=lambda: ticks.append(None),
    )  # fmt: skip
    assert found.images[:, 0, 0, 0].tolist() == [1, 2, 4, 5]
    assert found.labels.tolist() == [4, 3, 1, 0]
    assert [error.path for error in errors] == ["0", "3"]
    assert len(ticks) == 6
