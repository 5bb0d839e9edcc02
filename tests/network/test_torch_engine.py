"""The PyTorch engine, here on the CPU: the same results and the same stream as PyTorch by hand."""

import itertools
import threading

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from libraries.base.errors import ImageError
from libraries.network.torch_engine import TorchEngine

SIZE = 16
IMAGES = np.random.default_rng(0).integers(0, 256, (11, SIZE, SIZE, 3), dtype=np.uint8)


class Small(nn.Module):
    """Has of an EmbeddingNetwork what the engine uses."""

    input_size = SIZE

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(3, 12, 3)
        self.head = nn.Linear(12, 4)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.convolution(images.permute(0, 3, 1, 2).float() / 255)
        embedding = features.relu().mean((2, 3)).float()
        return embedding, self.head(embedding).float()


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    with torch.inference_mode():
        embedding, scores = Small().eval()(torch.from_numpy(IMAGES))
    return {"embedding": embedding.numpy(), "scores": scores.numpy()}


def make(**options: object) -> TorchEngine:
    return TorchEngine(Small(), **({"device": "cpu", "precision": "f32", "batch_size": 4, "workers": 2} | options))  # type: ignore[arg-type]


@pytest.mark.parametrize("batch_size", [1, 4, 11, 64])
def test_equals_pytorch_for_any_batch_size(expected: dict[str, np.ndarray], batch_size: int) -> None:
    outputs = make(batch_size=batch_size).run(IMAGES)
    assert outputs.keys() == expected.keys()
    for name, values in outputs.items():
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, expected[name], rtol=1e-5, atol=1e-6)


def test_bf16_is_near(expected: dict[str, np.ndarray]) -> None:
    embedding = make(precision="bf16").run(IMAGES)["embedding"]
    error = np.abs(embedding - expected["embedding"]).max() / np.abs(expected["embedding"]).max()
    assert 0 < error < 0.02


@pytest.mark.parametrize("bad", [[], [0], [4, 5, 6, 7], [10], list(range(11))])
def test_a_bad_image_gives_its_error_in_its_place(expected: dict[str, np.ndarray], bad: list[int]) -> None:
    def load(index: int) -> np.ndarray:
        if index in bad:
            raise ImageError("not a whole image", f"{index}.jpg")
        return IMAGES[index]

    results = list(make().stream(range(11), load))
    assert [item for item, _ in results] == list(range(11))
    for item, outputs in results:
        if item in bad:
            assert str(outputs) == f"{item}.jpg: not a whole image"
        else:
            assert isinstance(outputs, dict)
            np.testing.assert_allclose(outputs["embedding"], expected["embedding"][item], rtol=1e-5, atol=1e-6)


def test_a_consumer_may_stop_early() -> None:
    stream = make().stream(itertools.count(), lambda index: IMAGES[index % 11])
    assert [item for item, _ in itertools.islice(stream, 3)] == [0, 1, 2]
    stream.close()
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("ordered_map")]


def test_any_other_exception_of_load_is_raised() -> None:
    def load(index: int) -> np.ndarray:
        raise ZeroDivisionError("a bug in load")

    with pytest.raises(ZeroDivisionError, match="a bug in load"):
        list(make().stream(range(11), load))
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("ordered_map")]


def test_an_array_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"0: the network takes uint8 \[16, 16, 3\], got uint8 \[8, 8, 3\]"):
        list(make().stream(range(1), lambda _: np.zeros((8, 8, 3), np.uint8)))
