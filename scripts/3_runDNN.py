"""Run the network over all images and store their embeddings.

Embeddings that were computed before, for any data set, are taken from the store; so a stopped run continues where it
was.
"""

from dataclasses import replace
from typing import Any

from libraries.base.command import run
from libraries.base.console import ProgressBar, say
from libraries.base.layout import Layout
from libraries.history import tracking
from libraries.history.records import Record
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


def featurize(parameters: Parameters, layout: Layout, network: dict[str, Any], record: Record) -> None:
    from libraries.data.dataset import read_examples, read_white_level
    from libraries.data.images import ResizeRule
    from libraries.network.embedding_store import write_features
    from libraries.network.runners import Embeddings

    examples = read_examples(layout.examples.folder / "examples.csv")
    rule = replace(ResizeRule.from_json(network["resize"]), white_level=read_white_level(layout.examples))
    with Embeddings(layout, layout.network, rule, parameters.run_options()) as embeddings:
        if (stored := embeddings.stored(examples)) > 0:
            print(f"Stored in {layout.store} by earlier runs: {stored:,} of {len(examples):,} embeddings")
        if stored < len(examples):
            missing = len(examples) - stored
            print(f"Running {network['architecture']} over {missing:,} images in {embeddings.precision}")
        with ProgressBar("Computing on the cluster", total=len(examples) - stored) as bar:
            embeddings.compute(examples, progress=bar.update, told=say)
        layout.features.begin()
        with ProgressBar("Featurizing", total=len(examples)) as bar:
            parts, failed = write_features(
                layout.features.folder,
                examples,
                key=layout.features.key(),
                run=embeddings.of,
                progress=bar.update,
            )
    layout.features.commit(parts)
    for error in failed:
        print(f"  left out: {error}")
    record.tags["data"] = layout.examples.identity()[:12]
    record.metrics.update(images=len(examples), left_out=len(failed))


if __name__ == "__main__":
    run(main, Parameters)
