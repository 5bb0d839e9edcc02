"""Networks written as ONNX once for all processes of a test run: PyTorch's exporter takes many seconds for each."""

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock

from libraries.network import export
from libraries.network.backbones import EmbeddingNetwork
from libraries.network.graphs.graph_network import network_facts


@contextmanager
def exported_once(folder: Path) -> Iterator[None]:
    """During the block, a network that was exported before is copied from the folder."""
    folder.mkdir(exist_ok=True)
    original = export.export_onnx

    def export_onnx(network: EmbeddingNetwork | export.MappedNetwork, path: Path) -> None:
        kept = folder / f"{identity(network)}.onnx"
        with FileLock(f"{kept}.lock"):
            if not kept.exists():
                original(network, path)
                shutil.copyfile(path, f"{kept}.part")
                Path(f"{kept}.part").rename(kept)
        shutil.copyfile(kept, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "export_onnx", export_onnx)
        yield


def identity(network: EmbeddingNetwork | export.MappedNetwork) -> str:
    """The SHA-256 of all that decides what the exporter writes."""
    inner = network.network if isinstance(network, export.MappedNetwork) else network
    layout = network.layout.__name__ if isinstance(network, export.MappedNetwork) else None
    digest = hashlib.sha256(repr((layout, network_facts(inner))).encode())
    for name, tensor in inner.state_dict().items():
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()
