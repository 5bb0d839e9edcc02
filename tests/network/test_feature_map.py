"""The feature map: found where there is one, and each position shows what is there in the image."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from libraries.network.backbones import EmbeddingNetwork, build, orientations
from libraries.network.export import MappedNetwork, channels_first, channels_last, tokens, upright, with_map

SIZE, SIDE = 32, 4


def random_images(count: int, size: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8, generator=generator)


class Pooling(nn.Module):
    """A backbone whose map is the image itself at SIDE x SIDE, laid out as some architectures have it."""

    def __init__(self, lay: Callable[[Tensor], Tensor], pool: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.lay, self.pool = lay, pool

    def forward_features(self, images: Tensor) -> Tensor:
        return self.lay(torch.nn.functional.avg_pool2d(images, SIZE // SIDE))

    def forward_head(self, features: Tensor) -> Tensor:
        return self.pool(features)

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))


def with_class_token(features: Tensor) -> Tensor:
    """[N, C, h, w] → [N, 1 + h * w, C]."""
    rows = features.flatten(2).transpose(1, 2)
    return torch.cat((torch.ones_like(rows[:, :1]), rows), dim=1)


LAYOUTS = {
    "channels first": (lambda x: x, lambda x: x.mean((2, 3)), channels_first),
    "channels last": (lambda x: x.permute(0, 2, 3, 1), lambda x: x.mean((1, 2)), channels_last),
    "tokens": (lambda x: x.flatten(2).transpose(1, 2), lambda x: x.mean(1), tokens),
    "tokens after a class token": (with_class_token, lambda x: x[:, 1:].mean(1), tokens),
}


def network(lay: Callable[[Tensor], Tensor], pool: Callable[[Tensor], Tensor], *, views: int = 1) -> EmbeddingNetwork:
    made = EmbeddingNetwork(
        Pooling(lay, pool),
        architecture="pooling",
        input_size=SIZE,
        embedding_size=3,
        mean=(0.4, 0.5, 0.6),
        std=(0.2, 0.3, 0.4),
        interpolation="bilinear",
    ).eval()
    made.views = views
    return made


@pytest.mark.parametrize("views", [1, 2, 8])
@pytest.mark.parametrize(("lay", "pool", "layout"), LAYOUTS.values(), ids=LAYOUTS)
def test_every_position_is_where_it_is_in_the_image(
    lay: Callable[[Tensor], Tensor], pool: Callable[[Tensor], Tensor], layout: Callable[[Tensor], Tensor], views: int
) -> None:
    """However many views there are: this backbone sees the same in each, in another place."""
    mapped = with_map(network(lay, pool, views=views))
    assert isinstance(mapped, MappedNetwork)
    assert mapped.layout is layout
    assert mapped.output_names == ("embedding", "features")
    images = random_images(2, SIZE)
    _, features = mapped(images)
    cells = images.view(2, SIDE, SIZE // SIDE, SIDE, SIZE // SIDE, 3).float().mean((2, 4)).permute(0, 3, 1, 2)
    expected = (cells / 255 - torch.tensor([0.4, 0.5, 0.6])[:, None, None]) / torch.tensor([0.2, 0.3, 0.4])[
        :, None, None
    ]
    assert_close(features, expected, rtol=1e-5, atol=1e-5)


WITHOUT_MAP = {
    "the largest instead of the mean": (lambda x: x, lambda x: x.amax((2, 3))),
    "normalised after pooling": (lambda x: x, lambda x: x.mean((2, 3)) / x.mean((2, 3)).norm(dim=1, keepdim=True)),
    "the class token alone": (with_class_token, lambda x: x[:, 0]),
    "the class token in the mean": (with_class_token, lambda x: x.mean(1)),
    "several maps": (lambda x: (x, x), lambda x: x[0].mean((2, 3))),
    "no map at all": (lambda x: x.mean((2, 3)), lambda x: x),
    "not a number": (lambda x: x * torch.nan, lambda x: x.mean((2, 3))),
}


@pytest.mark.parametrize(("lay", "pool"), WITHOUT_MAP.values(), ids=WITHOUT_MAP)
def test_no_map_where_the_embedding_is_not_its_mean(lay: Callable[..., Tensor], pool: Callable[..., Tensor]) -> None:
    plain = network(lay, pool)
    assert with_map(plain) is plain


def test_a_backbone_in_one_part_has_no_map() -> None:
    plain = network(lambda x: x, lambda x: x.mean((2, 3)))
    plain.backbone = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert with_map(plain) is plain


@pytest.mark.parametrize(
    ("architecture", "layout"),
    [
        ("resnet10t", channels_first),
        ("tf_efficientnet_lite0", channels_first),
        ("levit_128s", tokens),
        ("vit_tiny_patch16_224", None),
        ("convnext_atto", None),
        ("mobilenetv3_small_050", None),
    ],
)
def test_real_networks(architecture: str, layout: Callable[[Tensor], Tensor] | None) -> None:
    plain = build(architecture, input_size=64)
    plain.add_head(3, dropout=0.5, seed=0)
    mapped = with_map(plain)
    if layout is None:
        assert mapped is plain
        return
    assert isinstance(mapped, MappedNetwork)
    assert mapped.layout is layout
    images = random_images(2, 64)
    with torch.inference_mode():
        *outputs, features = mapped(images)
        for found, expected in zip(outputs, plain(images), strict=True):
            assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert_close(features.mean((2, 3)), outputs[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 8])
def test_upright_undoes_the_orientations(count: int) -> None:
    image = torch.from_numpy(np.arange(2 * 3 * 5 * 5).reshape(2, 3, 5, 5))
    for back in upright(orientations(image)[:count]):
        assert torch.equal(back, image)
