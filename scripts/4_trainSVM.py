"""Train a linear SVM on the embeddings, choosing C by cross-validation, and write the bundle that is deployed.

For 'dnn', whose network has a head of its own, there is no SVM to train: only the bundle is written.
"""

import textwrap
from typing import TYPE_CHECKING

from libraries.base.command import run
from libraries.base.console import ProgressBar
from libraries.base.layout import Layout
from libraries.history import tracking
from libraries.history.records import Record
from PARAMETERS import Parameters

if TYPE_CHECKING:
    from libraries.classifier.costs import Costs
    from libraries.classifier.labelled import LabelledEmbeddings
    from libraries.classifier.sweep import Sweep


def main(parameters: Parameters) -> None:
    from libraries.classifier.labelled import LabelledEmbeddings
    from libraries.data.dataset import changes_since_prepared

    layout = Layout(parameters)
    layout.features.check()
    if changes := changes_since_prepared(layout):
        print(changes)
    names = layout.network.read().get("labels")  # of a network that is used as it is, in an order of its own
    with tracking.run("4_trainSVM", parameters) as record:
        data = LabelledEmbeddings.read(
            layout.features.folder,
            layout.examples.folder / "examples.csv",
            seen=seen_in_training(parameters, layout),
            names=names if parameters.classifier == "dnn" else None,
        )
        record.tags["data"] = layout.examples.identity()[:12]
        if parameters.classifier == "dnn":
            take_head(data, parameters, layout)
        else:
            train(data, parameters, layout, record)
    svm = "" if parameters.classifier == "dnn" else f"{layout.svm.folder} and "
    print(f"Written: {svm}the bundle {layout.bundle.folder}; next: scripts/5_evaluate.py")


def seen_in_training(parameters: Parameters, layout: Layout) -> set[str]:
    """Paths of the images that the network was trained on."""
    from libraries.data.dataset import read_examples
    from libraries.data.division import divide

    if not layout.is_refined or parameters.rf_maxEpochs == 0:
        return set()
    division = divide(
        read_examples(layout.examples.folder / "examples.csv"),
        validation_fraction=parameters.rf_validationFraction,
        most=parameters.rf_maxTrainImages,
        seed=parameters.randomSeed,
    )
    return {example.path for example in division.training}


def take_head(data: "LabelledEmbeddings", parameters: Parameters, layout: Layout) -> None:
    """Write the bundle of a network with its own head."""
    from libraries.classifier.bundle import write_bundle
    from libraries.classifier.calibration import Calibration
    from libraries.classifier.costs import costs_of
    from libraries.classifier.thresholds import trust_of_head

    calibration = Calibration.from_json(layout.network.read()["calibration"])
    costs = costs_of(parameters.costs, data.training[1], data.names)
    trust = trust_of_head(data, calibration, unknown_rate=parameters.unknownRate, coverage=parameters.coverage)
    print(*(textwrap.fill(sentence, 100) for sentence in trust.told(data.names)), sep="\n", end="")
    write_bundle(
        layout.bundle,
        layout.network,
        labels=data.names,
        calibration=calibration,
        trust=trust,
        costs=costs,
        settings=parameters.portable(),
    )


def train(data: "LabelledEmbeddings", parameters: Parameters, layout: Layout, record: Record) -> None:
    """Train the SVM, and write its folder and the bundle."""
    from libraries.classifier import learning_curve, outputs
    from libraries.classifier.bundle import write_bundle
    from libraries.classifier.costs import costs_of
    from libraries.classifier.thresholds import trust_of_svm

    print(*data.summary_lines(), sep="\n")
    costs = costs_of(parameters.costs, data.training[1], data.names)
    result = cross_validate(data, costs, parameters, layout)
    rows = outputs.sweep_rows(result, *data.test, costs=costs)
    told = [outputs.sample_line(result.chosen_by), outputs.sweep_table(rows), outputs.untried_line(result.untried)]
    print(*filter(None, told), sep="\n")
    chosen, curve = rows[result.best], None
    model, calibration = result.models[result.best], result.calibrations[result.best]
    if not data.is_train.all():
        with ProgressBar("Learning curve", unit="fits") as bar:
            curve = learning_curve.learning_curve(
                data.embeddings,
                data.labels,
                is_train=data.is_train,
                groups=data.groups,
                names=data.names,
                model=model,
                c=chosen.C,
                calibration=calibration,
                costs=costs,
                seed=parameters.randomSeed,
                folder=layout.features.folder,
                progress=bar.show,
            )
        print("", *(textwrap.fill(sentence, 100) for sentence in curve.advice()), sep="\n")
    trust = trust_of_svm(data, result, unknown_rate=parameters.unknownRate, coverage=parameters.coverage)
    print(*(textwrap.fill(sentence, 100) for sentence in trust.told(data.names)), sep="\n", end="")
    files = outputs.write_svm(layout.svm, result, rows, curve, names=data.names)
    write_bundle(
        layout.bundle,
        layout.network,
        labels=data.names,
        calibration=calibration,
        linear=model,
        trust=trust,
        costs=costs,
        settings=parameters.portable(),
    )
    record.metrics.update(chosen.scalars())
    record.files += [path for path in files if path.suffix == ".png"]


def cross_validate(
    data: "LabelledEmbeddings", costs: "Costs | None", parameters: Parameters, layout: Layout
) -> "Sweep":
    """SVMs for every C, and the best of them."""
    from libraries.classifier.sweep import normalisations, sweep

    with ProgressBar("Cross-validating", unit="values of C") as bar:
        return sweep(
            *data.training,
            number_of_classes=len(data.names),
            c_values=parameters.svm_CVals,
            normalisations=normalisations(parameters.svm_boL2Normalize),
            folds=parameters.svm_folds,
            groups=data.training_groups,
            seen=data.training_seen,
            costs=costs,
            seed=parameters.randomSeed,
            folder=layout.features.folder,
            progress=bar.show,
        )


if __name__ == "__main__":
    run(main, Parameters)
