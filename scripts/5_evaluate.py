"""Evaluate the bundle on the test images, and write a report that shows every mistake.

--review only makes the list of images to look at again. --drift compares the images in the pool with the test images,
and shows those that are strangest. --compare prints the last evaluations side by side instead,
--leakReport what a plain random split would have done, in which duplicates stand on both sides. --recheck classifies
all test images with the whole bundle, not only a sample of them: their embeddings are known from step 3.
"""

from typing import TYPE_CHECKING

from libraries.base.command import run
from libraries.base.console import ProgressBar
from libraries.base.layout import Layout
from libraries.history import tracking
from libraries.history.records import Record
from PARAMETERS import Parameters

if TYPE_CHECKING:
    from libraries.network.embedding_store import Features

EARLIER_RUNS = 12  # in the report


def main(
    parameters: Parameters,
    *,
    compare: bool = False,
    drift: bool = False,
    leakReport: bool = False,
    recheck: bool = False,
    review: bool = False,
) -> None:
    layout = Layout(parameters)
    if compare:
        from libraries.history.comparison import describe_runs

        print(describe_runs(parameters.trackingUri or tracking.local_store(parameters.rootDir), parameters.datasetName))
        return
    from libraries.data.dataset import changes_since_prepared

    layout.features.check()
    if changes := changes_since_prepared(layout):
        print(changes)
    if leakReport:
        report_leaks(parameters, layout)
        return
    if review:
        from libraries.network.embedding_store import read_features

        print(queue(parameters, layout, read_features(layout.features.folder)))
        return
    layout.bundle.check()
    if drift:
        report_drift(parameters, layout)
        return
    with tracking.run("5_evaluate", parameters) as record:
        evaluate(parameters, layout, record, recheck=recheck)
    if record.model_uri:
        print(f"MLflow model: {record.model_uri}")


def report_leaks(parameters: Parameters, layout: Layout) -> None:
    from libraries.data.dataset import read_examples
    from libraries.data.duplicates import read_groups
    from libraries.evaluation import leak
    from libraries.network.embedding_store import read_features

    examples = read_examples(layout.examples.folder / "examples.csv")
    normalisation, c = ("", 1.0) if layout.is_refined else leak.chosen_svm(layout.svm.folder / "sweep.csv")
    lines = leak.report(
        read_groups(layout.examples.folder / "duplicates.csv", examples),
        read_features(layout.features.folder),
        normalisation=normalisation,
        c=c,
        ratio_train=parameters.ratioTrainTest,
        seed=parameters.randomSeed,
    )
    print(*lines, sep="\n")


def queue(parameters: Parameters, layout: Layout, features: "Features") -> str:
    """Write the queue of images to look at again; returns what is said about it."""
    import textwrap

    from libraries.review.making import review
    from libraries.review.queue import summary

    with ProgressBar("Looking at the pool") as bar:
        found = review(layout, features, parameters.run_options(), seed=parameters.randomSeed, progress=bar.show)
    told = [f"  left out of the pool: {error}" for error in found.left_out]
    there = f"  {layout.review}; notebooks/showImages.ipynb and scripts/deploymain.py --review open there"
    return "\n".join([*told, summary(found.rows), there, *(textwrap.fill(line, 100) for line in found.told)])


def report_drift(parameters: Parameters, layout: Layout) -> None:
    from libraries.data.dataset import read_white_level
    from libraries.evaluation.drift import pool_drift, write_drift
    from libraries.network.embedding_store import read_features

    features = read_features(layout.features.folder)
    with ProgressBar("Looking at the pool") as bar:
        found = pool_drift(layout, features, parameters.run_options(), progress=bar.show)
    for error in found.left_out:
        print(f"  left out: {error}")
    write_drift(layout.drift, found, layout, white_level=read_white_level(layout.examples))
    print(found.table(), *found.sentences(), f"The strangest images: {layout.drift}", sep="\n")


def evaluate(parameters: Parameters, layout: Layout, record: Record, *, recheck: bool) -> None:
    import textwrap

    from libraries.classifier.bundle import Classifier, write_metrics
    from libraries.classifier.costs import CLASS_AVERAGED
    from libraries.data.dataset import read_examples
    from libraries.data.remembered import Remembered
    from libraries.evaluation import costs, outputs, testing, trust
    from libraries.evaluation.drift import reference_of, remember
    from libraries.evaluation.metrics import metrics
    from libraries.evaluation.since import since_previous
    from libraries.evaluation.wording import accuracy_table
    from libraries.history import reading
    from libraries.history.comparison import earlier_runs
    from libraries.network.embedding_store import read_features

    examples = [e for e in read_examples(layout.examples.folder / "examples.csv") if e.split == "test"]
    classifier = Classifier(layout.bundle.folder, precision=parameters.run_precision)
    print(f"Evaluating the bundle {layout.bundle.folder}")
    features, files = read_features(layout.features.folder, first="train"), Remembered.of(layout).files
    tested = testing.classify_stored(classifier, examples, features, images=layout.images, files=files)
    for error in tested.left_out:
        print(f"  left out: {error}")
    checked = tested.examples if recheck else testing.sample(tested)
    with ProgressBar("Checking the bundle", total=len(checked)) as bar:
        whole = testing.classify(classifier, checked, images=layout.images, progress=bar.update)
    testing.check_agreement(whole, tested, precision=parameters.run_precision)

    measured = metrics(
        tested.labels,
        tested.probabilities,
        predictions=tested.predictions,
        names=tested.names,
        groups=tested.groups,
        seed=parameters.randomSeed,
    )
    measured["trust"] = trust.trust_metrics(tested, classifier.model.get("trust", {}))
    if (of_mistakes := classifier.decision.costs) is not None:
        is_averaging = parameters.costs == CLASS_AVERAGED
        measured["costs"] = costs.cost_metrics(tested, of_mistakes, is_averaging=is_averaging)
    record.tags.update(data=layout.examples.identity()[:12], test_set=testing.fingerprint(tested))
    earlier = earlier_runs(
        reading.earlier_runs("5_evaluate", parameters, count=EARLIER_RUNS),
        parameters=parameters.mattering(),
        data=record.tags["data"],
        test_set=record.tags["test_set"],
    )
    since = since_previous(layout, tested)
    to_look_at = queue(parameters, layout, features)
    remember(layout.bundle, reference_of(tested, features))
    write_metrics(layout.bundle, measured)
    written = outputs.write(
        tested,
        measured,
        classifier=classifier,
        layout=layout,
        features=features,
        settings=parameters.portable(),
        earlier=earlier,
        since=since,
    )
    print(accuracy_table(measured))
    for sentence in [*trust.sentences(measured), *costs.sentences(measured)]:
        print(textwrap.fill(sentence, 100))
    if since is not None:
        print("", textwrap.fill(since.sentence(), 100), sep="\n")
    print("\nWritten:")
    record.metrics.update(outputs.scalars(measured))
    record.files.extend(path for path in written if path.suffix != ".html")
    record.bundle = layout.bundle.folder
    for path in written:
        print(f"  {path}")
    print(f"\n{to_look_at}")


if __name__ == "__main__":
    run(main, Parameters)
