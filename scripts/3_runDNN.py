"""Run the network over all images and store their embeddings.

A run that was stopped continues where it was.
"""

from dataclasses import replace
from functools import partial
from typing import Any

from libraries.base import tracking
from libraries.base.command import run
from libraries.base.console import ProgressBar
from libraries.base.layout import Layout
from PARAMETERS import Parameters


def main(parameters: Parameters) -> None:
    from libraries.data.dataset import changes_since_prepared

    layout = Layout(parameters)
    layout.examples.check()
    network = layout.network.check()
    if changes := changes_since_prepared(layout):
        print(changes)
    if layout.features.is_current():
        print(f"Up to date: {layout.features.folder}; next: scripts/4_trainSVM.py")
        return
    with tracking.run("3_runDNN", parameters) as record:
        featurize(parameters, layout, network, record)
    print(f"Written: {layout.features.folder}; next: scripts/4_trainSVM.py")


def featurize(parameters: Parameters, layout: Layout, network: dict[str, Any], record: tracking.Record) -> None:
    from libraries.data.dataset import load_example, read_examples, read_white_level
    from libraries.data.images import ResizeRule
    from libraries.network.embedding_store import write_features
    from libraries.network.runners import open_engine

    examples = read_examples(layout.examples.folder / "examples.csv")
    rule = replace(ResizeRule.from_json(network["resize"]), white_level=read_white_level(layout.examples))
    load = partial(load_example, folder=layout.images, rule=rule)
    engine = open_engine(
        layout.network.folder,
        device=parameters.device,
        precision=parameters.run_precision,
        batch_size=parameters.run_mbSize,
    )
    print(f"Running {network['architecture']} over {len(examples):,} images in {engine.precision}")
    layout.features.begin()
    with ProgressBar("Featurizing", total=len(examples)) as bar:
        parts, failed = write_features(
            layout.features.folder,
            examples,
            key=layout.features.key(),
            run=lambda wanted: engine.stream(wanted, load),
            progress=bar.update,
        )
    layout.features.commit(parts)
    for error in failed:
        print(f"  left out: {error}")
    record.tags["data"] = layout.examples.identity()[:12]
    record.metrics.update(images=len(examples), left_out=len(failed))


if __name__ == "__main__":
    run(main, Parameters)
