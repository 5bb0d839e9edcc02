"""The evidence of every position adds up to the logits, whatever lies between the feature map and them."""

from pathlib import Path

import numpy as np
import onnx
import onnx.utils
import onnxruntime
import pytest
import torch
from torch import nn

from libraries.classifier import svm
from libraries.classifier.bundle_graph import write_graph
from libraries.classifier.calibration import Calibration
from libraries.classifier.svm import LinearModel
from libraries.network.backbones import EmbeddingNetwork, build, seeded
from libraries.network.engine import Engine
from libraries.network.export import save_network, with_map

SIZE, CLASSES = 64, 3
CALIBRATION = Calibration(slope=1.7, bias=np.array([-0.5, 0.2, 0.3]))
IMAGES = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3), dtype=np.uint8)
IMAGES[0] = 0
IMAGES[1:, :, : SIZE // 2] //= 4  # the left half is darker
TOLERANCE = 1e-5  # of the largest evidence: float32, sums of some hundred numbers


@pytest.fixture(scope="module", params=[1, 2, 8], ids="{} views".format)
def saved(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest, quick_export: None
) -> tuple[EmbeddingNetwork, Path]:
    """A network with a head, and its file."""
    folder = tmp_path_factory.mktemp("network")
    network = build("resnet10t", input_size=SIZE)
    network.add_head(CLASSES, dropout=0.0, seed=1)
    network.views = request.param
    save_network(network, folder)
    return network, folder / "model.onnx"


def linear_model(normalisation: str, embeddings: np.ndarray) -> LinearModel:
    """As if fitted on these embeddings [N, D]; the last class has a weight for every feature."""
    generator = np.random.default_rng(2)
    width = embeddings.shape[1]
    mean, scale = np.zeros(width), np.ones(width)
    if normalisation == "standardise":
        mean, scale = embeddings.mean(axis=0), embeddings.std(axis=0) + 0.1
    weights = generator.normal(size=(width, CLASSES))
    return LinearModel(
        normalisation, *(a.astype(np.float32) for a in (mean, scale, weights, generator.normal(size=CLASSES)))
    )


def check(graph: Path, images: np.ndarray, features: np.ndarray) -> None:
    """The evidence of images, in OpenVINO and ONNX Runtime, against the logits that the same graph gives."""
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    assert sorted(names) == ["embedding", "evidence", "probabilities", "scores"], "the features need not leave it"
    reference = dict(zip(names, session.run(None, {"images": images}), strict=True))
    scores = Engine(graph, cores=1).run(images)["scores"]
    evidence = Engine(graph, cores=1, outputs=("evidence",)).run(images)["evidence"]
    assert evidence.shape == (len(images), CLASSES, *features.shape[2:])
    largest = np.abs(evidence).max()
    logits = CALIBRATION.slope * scores + CALIBRATION.bias
    assert np.abs(evidence.mean(axis=(2, 3)) - logits).max() <= TOLERANCE * largest
    assert np.abs(evidence - reference["evidence"]).max() <= TOLERANCE * largest
    assert evidence.std(axis=(2, 3)).max() > 0.02 * largest, "positions differ"


def check_positions(graph: Path, features: np.ndarray, linear: LinearModel | None, head: np.ndarray) -> None:
    """Between two positions the evidence differs by what the classifier makes of their features."""
    evidence = Engine(graph, cores=1, outputs=("evidence",)).run(IMAGES)["evidence"]
    embedding = features.mean((2, 3), dtype=np.float64)  # [N, D]
    factor = np.ones_like(embedding)
    weights = head.astype(np.float64)
    if linear is not None:
        weights = linear.weights / linear.scale[:, None]
        if linear.takes_root:
            factor = np.divide(1, np.sqrt(np.abs(embedding)), out=np.zeros_like(embedding), where=embedding != 0)
        if linear.divides_by_norm:
            factor = factor / np.linalg.norm(embedding * factor, axis=1, keepdims=True)
    expected = CALIBRATION.slope * np.einsum("ndhw,nd,dk->nkhw", features, factor, weights)
    differences = evidence - evidence[:, :, :1, :1], expected - expected[:, :, :1, :1]
    assert np.abs(differences[0] - differences[1]).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("normalisation", [*svm.NORMALISATIONS, None], ids=lambda n: n or "the network's own head")
def test_evidence_adds_up_to_the_logits(
    saved: tuple[EmbeddingNetwork, Path], tmp_path: Path, normalisation: str | None
) -> None:
    network, file = saved
    with torch.inference_mode():
        embedding, _, features = (output.numpy() for output in with_map(network)(torch.from_numpy(IMAGES)))
    linear = linear_model(normalisation, embedding) if normalisation else None
    write_graph(file, tmp_path / "model.onnx", calibration=CALIBRATION, linear=linear)
    check(tmp_path / "model.onnx", IMAGES, features)
    assert network.head is not None
    check_positions(tmp_path / "model.onnx", features, linear, network.head.weight.detach().numpy().T)


class Tokens(nn.Module):
    """The smallest transformer there is, without attention: its map is rows of tokens, and the embedding their mean."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 24, 16, stride=16)
        self.mixed = nn.Linear(24, 24)

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        mixed: torch.Tensor = self.mixed(torch.tanh(self.patches(images)).flatten(2).transpose(1, 2))  # [N, T, C]
        return mixed

    def forward_head(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens.mean(1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.forward_head(self.forward_features(images))


def test_tokens_below_zero_and_all(tmp_path: Path) -> None:
    """A map that is rows of tokens, of both signs, whose means have square roots near zero."""
    with seeded(0):
        backbone = Tokens()
    facts = {"architecture": "tokens", "input_size": SIZE, "embedding_size": 24, "interpolation": "bicubic"}
    network = EmbeddingNetwork(backbone, mean=(0.5,) * 3, std=(0.5,) * 3, **facts).eval()
    save_network(network, tmp_path)
    with torch.inference_mode():
        embedding, features = (output.numpy() for output in with_map(network)(torch.from_numpy(IMAGES)))
    assert (embedding < 0).any() and (embedding > 0).any()
    linear = linear_model("sqrt_l2", embedding)
    write_graph(tmp_path / "model.onnx", tmp_path / "bundle.onnx", calibration=CALIBRATION, linear=linear)
    check(tmp_path / "bundle.onnx", IMAGES, features)


@pytest.mark.parametrize("has_svm", [True, False])
def test_no_evidence_without_a_map(saved: tuple[EmbeddingNetwork, Path], tmp_path: Path, has_svm: bool) -> None:
    network, file = saved
    onnx.utils.extract_model(file, tmp_path / "model.onnx", ["images"], ["embedding", "scores"])
    linear = linear_model("l2", np.zeros((1, network.embedding_size))) if has_svm else None
    write_graph(tmp_path / "model.onnx", tmp_path / "bundle.onnx", calibration=CALIBRATION, linear=linear)
    names = [output.name for output in onnx.load(tmp_path / "bundle.onnx").graph.output]
    assert sorted(names) == ["embedding", "probabilities", "scores"]
