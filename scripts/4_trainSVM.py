"""Train a linear SVM on the embeddings, choosing C by cross-validation, and write the bundle that is deployed."""

from libraries.base import tracking
from libraries.base.command import run
from libraries.base.layout import Layout
from PARAMETERS import Parameters


def main(parameters: Parameters) -> None:
    if parameters.classifier == "dnn":
        print("The classifier 'dnn' has its own head: there is no SVM to train; next: scripts/5_evaluate.py")
        return
    from libraries.data.dataset import changes_told

    layout = Layout(parameters)
    layout.features.check()
    if changes := changes_told(layout):
        print(changes)
    with tracking.run("4_trainSVM", parameters) as record:
        train(parameters, layout, record)
    print(f"Written: {layout.svm.folder} and the bundle {layout.bundle.folder}; next: scripts/5_evaluate.py")


def train(parameters: Parameters, layout: Layout, record: tracking.Record) -> None:
    import textwrap
    from dataclasses import asdict

    import numpy as np

    from libraries.base import figures
    from libraries.base.console import ProgressBar
    from libraries.base.tables import write_table
    from libraries.classifier import svm
    from libraries.classifier.bundle import write_bundle
    from libraries.classifier.learning_curve import learning_curve, write_learning_curve
    from libraries.classifier.svm import save_model
    from libraries.classifier.sweep import sweep_figure, sweep_table, sweep_text
    from libraries.data.dataset import read_examples
    from libraries.data.split import training_warnings
    from libraries.network.embedding_store import read_features

    features = read_features(layout.features.folder)
    group_of = {e.path: e.group for e in read_examples(layout.examples.folder / "examples.csv")}
    labels = sorted(set(features.label))
    y = np.array([labels.index(label) for label in features.label])  # [N]
    is_train = np.array([split == "train" for split in features.split])  # [N]
    groups = [group_of[path] for path in features.path]
    training_groups = [group for group, train in zip(groups, is_train, strict=True) if train]
    print(
        f"Training on {is_train.sum():,} embeddings of {features.embedding.shape[1]:,} numbers, {len(labels)} classes"
    )
    for warning in training_warnings(labels, [labels[i] for i in y[is_train]], training_groups):
        print(warning)

    normalise = parameters.svm_boL2Normalize
    normalisations = svm.NORMALISATIONS if normalise == "auto" else ("l2",) if normalise else ("standardise",)
    with ProgressBar("Cross-validating", unit="fits") as bar:
        result = svm.sweep(
            features.embedding[is_train],
            y[is_train],
            number_of_classes=len(labels),
            c_values=parameters.svm_CVals,
            normalisations=normalisations,
            folds=parameters.svm_folds,
            groups=training_groups,
            seed=parameters.randomSeed,
            progress=bar.show,
        )
    rows = sweep_table(result, features.embedding[~is_train], y[~is_train])
    print(sweep_text(rows))
    model, calibration = result.models[result.best], result.calibrations[result.best]
    folder = layout.svm.folder
    layout.svm.begin()
    save_model(folder / "svm.npz", model, calibration, labels=labels)
    write_table(folder / "sweep.csv", rows)
    chosen = rows[result.best]
    figures.save(sweep_figure(rows), folder / "sweep.png")
    files, advice = [folder / name for name in ("svm.npz", "sweep.csv", "sweep.png")], []
    if not is_train.all():
        with ProgressBar("Learning curve", unit="fits") as bar:
            curve = learning_curve(
                features.embedding,
                y,
                is_train=is_train,
                groups=groups,
                names=labels,
                normalisation=chosen.normalisation,
                c=chosen.C,
                calibration=calibration,
                seed=parameters.randomSeed,
                progress=bar.show,
            )
        advice = curve.advice()
        print("", *(textwrap.fill(sentence, 100) for sentence in advice), sep="\n")
        files += write_learning_curve(curve, folder)
    layout.svm.commit(files, advice=advice)
    settings = parameters.portable()
    write_bundle(layout.bundle, layout.network, labels=labels, calibration=calibration, linear=model, settings=settings)
    record.tags["data"] = layout.examples.identity()[:12]
    record.metrics.update({k: v for k, v in asdict(chosen).items() if isinstance(v, float)})
    record.files += [path for path in files if path.suffix == ".png"]


if __name__ == "__main__":
    run(main, Parameters)
