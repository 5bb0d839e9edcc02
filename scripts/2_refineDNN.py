"""Make the network that turns images into embeddings: pretrained as it is, or refined on your images.

For 'svm' this takes seconds. A training that was stopped continues after its last finished epoch.
"""

from typing import TYPE_CHECKING

from libraries.base.command import run
from libraries.base.console import ProgressBar
from libraries.base.layout import Layout
from libraries.history import tracking
from libraries.history.records import Record
from PARAMETERS import Parameters

if TYPE_CHECKING:
    from libraries.data.images import ResizeRule
    from libraries.network.backbones import EmbeddingNetwork
    from libraries.network.graphs.graph_network import GraphNetwork


def main(parameters: Parameters) -> None:
    layout = Layout(parameters)
    if layout.is_refined:
        from libraries.data.dataset import changes_since_prepared

        layout.examples.check()
        if changes := changes_since_prepared(layout):
            print(changes)
    if layout.network.is_current():
        print("The network is up to date")
    else:
        with tracking.run("2_refineDNN", parameters) as record:
            make_network(parameters, layout, record)
    print(f"The network is in {layout.network.folder}; next: scripts/3_runDNN.py")


def make_network(parameters: Parameters, layout: Layout, record: Record) -> None:
    print(f"Loading {parameters.rf_pretrainedModelFilename}")
    from libraries.network.artefact import resize_rule, write_network
    from libraries.network.graphs.graph_network import GraphNetwork
    from libraries.network.pretrained import load_as_it_is, load_network_for

    options = parameters.network_options()
    is_as_it_is = layout.is_refined and parameters.rf_maxEpochs == 0
    network = load_as_it_is(options) if is_as_it_is else load_network_for(options, refine=layout.is_refined)
    rule = resize_rule(network, parameters.rf_resizeMode, white_level=layout.network.parameters.get("white_level"))
    print(f"{network.architecture}, {rule.size} x {rule.size} pixels, embedding of {network.embedding_size:,} numbers")
    if not layout.is_refined:
        write_network(layout.network, network, rule=rule)
    elif isinstance(network, GraphNetwork):
        take_as_it_is(network, rule, parameters, layout)
    else:
        refine_network(network, rule, parameters, layout, record)


def take_as_it_is(network: "GraphNetwork", rule: "ResizeRule", parameters: Parameters, layout: Layout) -> None:
    from libraries.classifier.calibration import fit_calibration
    from libraries.data.dataset import read_examples
    from libraries.network.training.outputs import write_network_as_it_is

    training = [e for e in read_examples(layout.examples.folder / "examples.csv") if e.split == "train"]
    with ProgressBar("Calibrating", total=len(training)) as bar:
        accuracy = write_network_as_it_is(
            layout.network,
            network,
            training,
            folder=layout.images,
            rule=rule,
            calibrate=fit_calibration,
            labels=parameters.rf_labels,
            progress=bar.update,
        )
    print(f"The network as it is: {accuracy:.1%} of {len(training):,} training images are right")
    print("  Images it was trained on elsewhere prove nothing: keep them out of the test images")


def refine_network(
    network: "EmbeddingNetwork", rule: "ResizeRule", parameters: Parameters, layout: Layout, record: Record
) -> None:
    from dataclasses import asdict

    from libraries.classifier.calibration import fit_calibration
    from libraries.network.training.making import refine_into

    kept = refine_into(
        layout.network,
        network,
        parameters.refine_task(layout, rule),
        cluster=parameters.cluster,
        device=parameters.device,
        shared=layout.store,
        calibrate=fit_calibration,
    )
    record.tags["data"] = layout.examples.identity()[:12]
    record.metrics.update({name: value for name, value in asdict(kept).items() if value is not None})
    record.files += [layout.network.folder / "training.csv", layout.network.folder / "training.png"]


if __name__ == "__main__":
    run(main, Parameters)
