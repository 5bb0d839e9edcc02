"""Make the network that turns images into embeddings: pretrained as it is, or refined on your images.

Reads:  the pretrained weights of `rf_pretrainedModelFilename`; for 'dnn' and 'svmDnnRefined' also examples.csv and the images.
Writes: for 'svm' proc/<datasetName>/dnn_fixed/ (seconds); otherwise dnn_refined/ with training.csv and training.png, and
        for 'dnn' the bundle model_dnn/. A killed training goes on at its last finished epoch.
"""

from typing import TYPE_CHECKING

from libraries.base import tracking
from libraries.base.command import run
from libraries.base.layout import Layout
from libraries.data.images import ResizeRule
from PARAMETERS import Parameters

if TYPE_CHECKING:  # torch takes seconds to import: only where it is needed
    from libraries.network.backbones import EmbeddingNetwork


def main(parameters: Parameters) -> None:
    layout = Layout(parameters)
    with tracking.run("2_refineDNN", parameters) as record:
        if layout.is_refined:
            refine(parameters, layout, record)
        else:
            cut(parameters, layout, record)
    print(f"Written: {layout.network.folder}; next: scripts/3_runDNN.py")


def cut(parameters: Parameters, layout: Layout, record: tracking.Record) -> None:
    """Cut the pretrained network at its penultimate layer."""
    if layout.network.is_current():
        print("The network is up to date")
        return
    print(f"Loading {parameters.rf_pretrainedModelFilename}")
    from libraries.network.backbones import load_pretrained

    network = load_pretrained(parameters.rf_pretrainedModelFilename, input_size=parameters.rf_inputResolution)
    commit(network, layout, resize_mode=parameters.rf_resizeMode, labels=None)
    record.metrics["embedding_size"] = network.embedding_size
    size = parameters.rf_inputResolution
    print(f"{network.architecture} at {size} x {size} pixels, embedding of {network.embedding_size:,} numbers")


def commit(network: "EmbeddingNetwork", layout: Layout, *, resize_mode: str, labels: list[str] | None) -> None:
    """Write the network folder, its manifest last."""
    from libraries.network.export import ONNX, WEIGHTS, save_network

    layout.network.begin()
    described = save_network(network, layout.network.folder)
    fill = tuple(round(255 * m) for m in network.mean)
    rule = ResizeRule(network.input_size, resize_mode, network.interpolation, fill)
    files = [layout.network.folder / name for name in (ONNX, WEIGHTS)]
    layout.network.commit(files, **described, resize=rule.to_json(), labels=labels)


if __name__ == "__main__":
    run(main, Parameters)
