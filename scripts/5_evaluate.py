"""Evaluate the bundle on the test images, and write a report that shows every mistake.

--compare prints the last evaluations side by side instead.
"""

from libraries.base import tracking
from libraries.base.command import run
from libraries.base.console import ProgressBar
from libraries.base.layout import Layout
from PARAMETERS import RESOURCES, Parameters

EARLIER_RUNS = 12  # in the report


def main(parameters: Parameters, *, compare: bool = False) -> None:
    layout = Layout(parameters)
    if compare:
        from libraries.evaluation.comparison import describe_runs

        print(describe_runs(parameters.trackingUri or tracking.local_store(parameters.rootDir), parameters.datasetName))
        return
    from libraries.data.dataset import changes_told

    layout.bundle.check()
    layout.features.check()
    if changes := changes_told(layout):
        print(changes)
    with tracking.run("5_evaluate", parameters) as record:
        evaluate(parameters, layout, record)
    if record.model_uri:
        print(f"MLflow model: {record.model_uri}")


def evaluate(parameters: Parameters, layout: Layout, record: tracking.Record) -> None:
    from libraries.classifier.bundle import Classifier, add_metrics
    from libraries.data.dataset import read_examples
    from libraries.evaluation import outputs, test_run
    from libraries.evaluation.comparison import earlier_runs
    from libraries.evaluation.metrics import metrics
    from libraries.evaluation.wording import accuracy_table
    from libraries.service.hosts.mlflow_model import pack

    print(f"Classifying the test images with the bundle {layout.bundle.folder}")
    examples = [e for e in read_examples(layout.examples.folder / "examples.csv") if e.split == "test"]
    classifier = Classifier(layout.bundle.folder, precision=parameters.run_precision)
    with ProgressBar("Classifying", total=len(examples)) as bar:
        tested = test_run.classify(classifier, examples, images=layout.images, progress=bar.update)
    for error in tested.left_out:
        print(f"  left out: {error}")
    test_run.check_agreement(tested, layout.features.folder, precision=parameters.run_precision)

    measured = metrics(
        tested.labels, tested.probabilities, names=tested.names, groups=tested.groups, seed=parameters.randomSeed
    )
    record.tags.update(data=layout.examples.identity()[:12], test_set=test_run.fingerprint(tested))
    earlier = earlier_runs(
        tracking.earlier_runs("5_evaluate", parameters, count=EARLIER_RUNS),
        parameters=parameters.mattering(),
        data=record.tags["data"],
        test_set=record.tags["test_set"],
    )
    written = outputs.write(
        tested, measured, classifier=classifier, layout=layout, settings=parameters.portable(), earlier=earlier
    )
    add_metrics(layout.bundle, measured)
    print(f"{accuracy_table(measured)}\n\nWritten:")
    record.metrics.update(outputs.scalars(measured))
    record.files.extend(path for path in written if path.suffix != ".html")
    record.model = pack(
        layout.bundle.folder,
        name=f"{parameters.datasetName}_{parameters.classifier}",
        requirements=RESOURCES.parent / "requirements-serve.txt",
    )
    for path in written:
        print(f"  {path}")


if __name__ == "__main__":
    run(main, Parameters)
