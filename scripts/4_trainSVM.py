"""Train a linear SVM on the embeddings, choosing C by cross-validation, and write the bundle that is deployed."""

from libraries.base.command import run
from libraries.base.layout import Layout
from libraries.history import tracking
from libraries.history.records import Record
from PARAMETERS import Parameters


def main(parameters: Parameters) -> None:
    if parameters.classifier == "dnn":
        print("The classifier 'dnn' has its own head: there is no SVM to train; next: scripts/5_evaluate.py")
        return
    from libraries.data.dataset import changes_since_prepared

    layout = Layout(parameters)
    layout.features.check()
    if changes := changes_since_prepared(layout):
        print(changes)
    with tracking.run("4_trainSVM", parameters) as record:
        train(parameters, layout, record)
    print(f"Written: {layout.svm.folder} and the bundle {layout.bundle.folder}; next: scripts/5_evaluate.py")


def train(parameters: Parameters, layout: Layout, record: Record) -> None:
    import textwrap

    from libraries.base.console import ProgressBar
    from libraries.classifier import learning_curve, outputs
    from libraries.classifier.bundle import write_bundle
    from libraries.classifier.labelled import LabelledEmbeddings
    from libraries.classifier.sweep import normalisations, sweep
    from libraries.classifier.thresholds import trust_of

    data = LabelledEmbeddings.read(layout.features.folder, layout.examples.folder / "examples.csv")
    print(*data.summary_lines(), sep="\n")
    with ProgressBar("Cross-validating", unit="values of C") as bar:
        result = sweep(
            *data.training,
            number_of_classes=len(data.names),
            c_values=parameters.svm_CVals,
            normalisations=normalisations(parameters.svm_boL2Normalize),
            folds=parameters.svm_folds,
            groups=data.training_groups,
            seed=parameters.randomSeed,
            folder=layout.features.folder,
            progress=bar.show,
        )
    rows = outputs.sweep_rows(result, *data.test)
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
                seed=parameters.randomSeed,
                folder=layout.features.folder,
                progress=bar.show,
            )
        print("", *(textwrap.fill(sentence, 100) for sentence in curve.advice()), sep="\n")
    trust = None
    if parameters.classifier == "svm":  # a refined network has seen these images, so they tell nothing of others
        trust = trust_of(data, result, unknown_rate=parameters.unknownRate, coverage=parameters.coverage)
        for sentence in trust.told(data.names):
            print(textwrap.fill(sentence, 100))
    files = outputs.write_svm(layout.svm, result, rows, curve, names=data.names)
    write_bundle(
        layout.bundle,
        layout.network,
        labels=data.names,
        calibration=calibration,
        linear=model,
        trust=trust,
        settings=parameters.portable(),
    )
    record.tags["data"] = layout.examples.identity()[:12]
    record.metrics.update(chosen.scalars())
    record.files += [path for path in files if path.suffix == ".png"]


if __name__ == "__main__":
    run(main, Parameters)
