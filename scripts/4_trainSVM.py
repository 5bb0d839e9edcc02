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
    from libraries.classifier.fitting import Fitted
    from libraries.classifier.labelled import LabelledEmbeddings
    from libraries.classifier.learning_curve import LearningCurve
    from libraries.classifier.sweep import Sweep


def main(parameters: Parameters) -> None:
    from libraries.classifier.labelled import LabelledEmbeddings
    from libraries.data.dataset import changes_since_prepared, read_examples

    layout = Layout(parameters)
    layout.features.check()
    if changes := changes_since_prepared(layout):
        print(changes)
    names = layout.network.read().get("labels")  # of a network that is used as it is, in an order of its own
    with tracking.run("4_trainSVM", parameters) as record:
        data = LabelledEmbeddings.read(
            layout.features.folder,
            layout.examples.folder / "examples.csv",
            seen=parameters.seen_in_training(read_examples(layout.examples.folder / "examples.csv")),
            names=names if parameters.classifier == "dnn" else None,
        )
        record.tags["data"] = layout.examples.identity()[:12]
        if parameters.classifier == "dnn":
            take_head(data, parameters, layout)
        else:
            train(data, parameters, layout, record)
    svm = "" if parameters.classifier == "dnn" else f"{layout.svm.folder} and "
    print(f"Written: {svm}the bundle {layout.bundle.folder}; next: scripts/5_evaluate.py")


def take_head(data: "LabelledEmbeddings", parameters: Parameters, layout: Layout) -> None:
    """Write the bundle of a network with its own head."""
    from libraries.classifier.calibration import Calibration
    from libraries.classifier.fitting import fit_head

    calibration = Calibration.from_json(layout.network.read()["calibration"])
    finish(fit_head(data, calibration, parameters.fit_options()), data, parameters, layout)


def train(data: "LabelledEmbeddings", parameters: Parameters, layout: Layout, record: Record) -> None:
    """Train the SVM, and write its folder and the bundle."""
    from libraries.classifier import outputs
    from libraries.classifier.fitting import fit_svm

    print(*data.summary_lines(), sep="\n")
    with ProgressBar("Cross-validating", unit="values of C") as bar:
        fitted, result = fit_svm(data, parameters.fit_options(), folder=layout.features.folder, progress=bar.show)
    rows = outputs.sweep_rows(result, *data.test, costs=fitted.costs)
    told = [
        outputs.sample_line(result.chosen_by),
        outputs.sweep_table(rows, fitted.costs),
        outputs.untried_line(result.untried),
    ]
    print(*filter(None, told), sep="\n")
    curve = None if data.is_train.all() else learn(data, fitted, result, parameters, layout)
    if curve is not None:
        print("", *(textwrap.fill(sentence, 100) for sentence in curve.advice()), sep="\n")
    files = outputs.write_svm(layout.svm, result, rows, curve, names=data.names)
    finish(fitted, data, parameters, layout)
    record.metrics.update(rows[result.best].scalars())
    record.files += [path for path in files if path.suffix == ".png"]


def learn(
    data: "LabelledEmbeddings", fitted: "Fitted", result: "Sweep", parameters: Parameters, layout: Layout
) -> "LearningCurve":
    """What fewer training images would give."""
    from libraries.classifier.learning_curve import learning_curve

    with ProgressBar("Learning curve", unit="fits") as bar:
        return learning_curve(
            data.embeddings,
            data.labels,
            is_train=data.is_train,
            groups=data.groups,
            names=data.names,
            model=result.models[result.best],
            c=result.rows[result.best].C,
            calibration=fitted.calibration,
            costs=fitted.costs,
            aims_at_accuracy=isinstance(parameters.costs, str),
            seed=parameters.randomSeed,
            folder=layout.features.folder,
            progress=bar.show,
        )


def finish(fitted: "Fitted", data: "LabelledEmbeddings", parameters: Parameters, layout: Layout) -> None:
    """Write the bundle, and say what it cannot promise."""
    from libraries.classifier.bundle import write_bundle

    for sentence in fitted.trust.told(data.names):
        print(textwrap.fill(sentence, 100))
    write_bundle(
        layout.bundle,
        layout.network,
        labels=data.names,
        calibration=fitted.calibration,
        linear=fitted.linear,
        trust=fitted.trust,
        costs=fitted.costs,
        settings=parameters.portable(),
    )


if __name__ == "__main__":
    run(main, Parameters)
