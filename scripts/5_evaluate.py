"""Evaluate the bundle on the test images, and write a report that shows every mistake.

Reads:  the bundle proc/<datasetName>/model_<classifier>/, the test images, features_<classifier>/ (to check it).
Writes: evaluation_<classifier>/metrics.json, predictions.csv, pictures, and report.html (open it in a browser).
--compare prints the last evaluations side by side instead.
"""

from typing import Any

from libraries.base import tracking
from libraries.base.command import run
from libraries.base.console import ProgressBar, table
from libraries.base.layout import Layout
from PARAMETERS import Parameters


def main(parameters: Parameters, *, compare: bool = False) -> None:
    layout = Layout(parameters)
    if compare:
        from libraries.evaluation.comparison import describe_runs

        print(describe_runs(parameters.trackingUri or tracking.local_store(parameters.rootDir), parameters.datasetName))
        return
    layout.bundle.check()
    layout.features.check()
    with tracking.run("5_evaluate", parameters) as record:
        evaluate(parameters, layout, record)


def evaluate(parameters: Parameters, layout: Layout, record: tracking.Record) -> None:
    from libraries.classifier.bundle import Classifier, add_metrics
    from libraries.data.dataset import read_examples
    from libraries.evaluation import bundle_test, outputs
    from libraries.evaluation.metrics import metrics

    print(f"Classifying the test images with the bundle {layout.bundle.folder}")
    examples = [e for e in read_examples(layout.examples.folder / "examples.csv") if e.split == "test"]
    classifier = Classifier(layout.bundle.folder, precision=parameters.run_precision)
    with ProgressBar("Classifying", total=len(examples)) as bar:
        tested = bundle_test.classify(classifier, examples, images=layout.images, progress=bar.update)
    for error in tested.left_out:
        print(f"  left out: {error}")
    bundle_test.check_agreement(tested, layout.features.folder, precision=parameters.run_precision)

    groups = [e.group if e.group != e.path else "" for e in tested.examples]
    measured = metrics(
        tested.labels, tested.probabilities, names=tested.names, groups=groups, seed=parameters.randomSeed
    )
    written = outputs.write(tested, measured, layout=layout, settings=parameters.model_dump(mode="json"))
    add_metrics(layout.bundle, measured)
    show(measured)
    record.tags.update(data=layout.examples.identity()[:12], test_set=bundle_test.fingerprint(tested))
    record.metrics.update(outputs.scalars(measured))
    record.files.extend(path for path in written if path.suffix != ".html")
    for path in written:
        print(f"  {path}")


def show(measured: dict[str, Any]) -> None:
    def percent(value: float | None, interval: list[float] | None = None) -> str:
        text = "–" if value is None else f"{value:.1%}"
        return text if not interval else f"{text}  ({interval[0]:.1%} to {interval[1]:.1%})"

    intervals = measured["intervals"]
    rows = [
        (
            label,
            measured["number_of_test_images_per_class"][label],
            percent(accuracy, intervals["accuracy_per_class"][label]),
        )
        for label, accuracy in measured["accuracy_per_class"].items()
    ]
    rows += [
        (
            "class-averaged accuracy",
            "",
            percent(measured["class_averaged_accuracy"], intervals["class_averaged_accuracy"]),
        ),
        (
            "overall accuracy",
            measured["number_of_test_images"],
            percent(measured["overall_accuracy"], intervals["overall_accuracy"]),
        ),
    ]
    print(table("Accuracy on the test images", ["", "images", "accuracy (95% interval)"], rows))
    print(
        f"  AUC {measured['class_averaged_auc'] or 0:.3f}, F1 {measured['class_averaged_f1'] or 0:.3f}, "
        f"log loss {measured['log_loss']:.3f}, calibration error {measured['ece']:.1%}; "
        f"always saying the commonest class: {measured['majority_accuracy']:.1%}\n\nWritten:"
    )


if __name__ == "__main__":
    run(main, Parameters)
