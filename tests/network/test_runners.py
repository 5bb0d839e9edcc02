"""The work of a cluster that embeds images: on a processor, and with PyTorch as on a GPU."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from libraries.base.cluster import Given
from libraries.base.content_store import ContentStore
from libraries.base.layout import Layout
from libraries.data.dataset import read_examples
from libraries.data.images import ResizeRule
from libraries.network import runners
from libraries.network.runners import RunOptions, open_embedder
from tests.conftest import data_dir, run_main, small_run


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory, pictures: Path, quick_export: None) -> Layout:
    """Of a data set and its network. Read only."""
    parameters = small_run(data_dir(tmp_path_factory.mktemp("runners"), pictures))
    for step in ("1_prepareData", "2_refineDNN"):
        run_main(step, parameters)
    return Layout(parameters)


def test_a_worker_with_a_gpu_computes_what_one_with_a_core_does(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = read_examples(layout.examples.folder / "examples.csv")[:7]
    rule = ResizeRule.from_json(layout.network.check()["resize"]).to_json()
    rows = {}
    for device in ("cpu", "cpu:0"):  # for PyTorch the same; only the first is not a device of PyTorch
        monkeypatch.setattr(runners, "given", lambda device=device: Given(2, device))
        embedder = open_embedder(
            images=str(layout.images),
            network=str(layout.network.folder),
            rule=rule,
            precision="f32",
            batch_size=3,
            view="whole",
            store=str(tmp_path / device / "embeddings-x"),
        )
        embedder([asdict(example) for example in examples])
        with ContentStore(tmp_path / device / "embeddings-x", most_bytes=2**30) as store:
            rows[device] = [store.get(example.sha256) for example in examples]
    for of_core, of_gpu in zip(*rows.values(), strict=True):
        assert of_core is not None and of_gpu is not None and of_core.keys() == of_gpu.keys()
        assert not np.array_equal(of_core["embedding"], of_gpu["embedding"]), "it is not the same engine"
        np.testing.assert_allclose(of_gpu["embedding"], of_core["embedding"], rtol=1e-3, atol=1e-4)


def test_only_a_network_with_weights_runs_on_gpus_of_a_cluster(layout: Layout, tmp_path: Path) -> None:
    options = RunOptions("auto", "bf16", 8, "auto")
    assert options.device_of(layout.network.folder) == "auto"
    assert options.device_of(tmp_path) == "cpu"
    assert options.precision_of(tmp_path) == "bf16", "a node without bf16 is refused, by the worker"
