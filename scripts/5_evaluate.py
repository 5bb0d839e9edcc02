"""Evaluate the bundle on the test images, and write a report that shows every mistake.

--review only makes the list of images to look at again. --drift compares the images in the pool with the test images,
and shows those that are strangest. --compare prints the last evaluations side by side instead,
--leakReport what a plain random split would have done, in which duplicates stand on both sides. --recheck classifies
all test images with the whole bundle, not only a sample of them: their embeddings are known from step 3.

--release NAME keeps the bundle under that name. --against NAME compares the present one with such a release on the same
test images, says for which classes and slices it is better or worse, shows what has flipped, and ends with the exit
status 3 if it is worse. With both, it is kept only if it is not worse.

--folds N tests every image once, training images too: N times, a classifier is fitted without the images that it is
tested on. For 'svm' that takes seconds; for a refined network N trainings, which can be stopped and go on.
"""

import textwrap
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from libraries.base.command import Verdict, run
from libraries.base.console import ProgressBar, say
from libraries.base.layout import Layout
from libraries.history import tracking
from libraries.history.records import Record
from PARAMETERS import Parameters

if TYPE_CHECKING:
    from libraries.base.storage import Artefact
    from libraries.classifier.costs import Costs
    from libraries.evaluation.folds import FoldRow
    from libraries.evaluation.refined_folds import Refining
    from libraries.evaluation.testing import Tested
    from libraries.network.embedding_store import Features

EARLIER_RUNS = 12  # in the report
WORSE = 3  # exit status of --against


def main(
    parameters: Parameters,
    *,
    against: str | None = None,
    compare: bool = False,
    drift: bool = False,
    folds: int | None = None,
    leakReport: bool = False,
    recheck: bool = False,
    release: str | None = None,
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
    if folds is not None:
        layout.features.check()
        with tracking.run("5_evaluate --folds", parameters) as record:
            cross_test(parameters, layout, record, folds=folds)
        return
    layout.bundle.check()
    if drift:
        report_drift(parameters, layout)
        return
    if release is None and against is not None:
        if compare_with(parameters, layout, against) == "worse":
            raise Verdict(WORSE)
        return
    if release is not None:
        from libraries.evaluation.release import check_is_free

        check_is_free(layout, release)
    with tracking.run("5_evaluate", parameters) as record:
        evaluate(parameters, layout, record, recheck=recheck)
        is_worse = against is not None and compare_with(parameters, layout, against) == "worse"
        if release is not None and not is_worse:
            keep(layout, release, record)
    if record.model_uri:
        print(f"MLflow model: {record.model_uri}")
    if is_worse:
        print(f"\nNot released as '{release}', as it is worse than '{against}'")
        raise Verdict(WORSE)


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
    from libraries.classifier.bundle import Classifier, write_metrics
    from libraries.data.dataset import read_examples
    from libraries.data.remembered import Remembered
    from libraries.evaluation import outputs, testing
    from libraries.evaluation.drift import reference_of, remember
    from libraries.evaluation.since import since_previous
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

    measured = measured_of(tested, classifier.model.get("trust", {}), classifier.decision.costs, parameters)
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
    tell(measured, written, record)
    if since is not None:
        print("", textwrap.fill(since.sentence(), 100), sep="\n")
    record.bundle = layout.bundle.folder
    print(f"\n{to_look_at}")


def keep(layout: Layout, name: str, record: Record) -> None:
    """Keep the bundle under a name."""
    from libraries.data.dataset import read_examples
    from libraries.evaluation.release import folder_of, keep_release

    was_there = (folder_of(layout) / name).exists()
    folder = keep_release(layout, name, read_examples(layout.examples.folder / "examples.csv"))
    record.tags["release"] = name
    print(f"\n{'It was released before' if was_there else 'Released'} as '{name}': {folder}")
    print(f"  to serve it: python scripts/deploymain.py --bundle '{folder / 'model'}'")


def compare_with(parameters: Parameters, layout: Layout, name: str) -> str:
    """Compare the bundle with a release; returns 'better', 'same' or 'worse'."""
    from libraries.evaluation.against import against_release, write_comparison

    with ProgressBar(f"Classifying by '{name}'") as bar:
        found = against_release(
            layout, name, precision=parameters.run_precision, seed=parameters.randomSeed, progress=bar.show
        )
    written = write_comparison(found, layout)
    print(found.table(), *(textwrap.fill(sentence, 100) for sentence in found.sentences()), sep="\n")
    print("\nWritten:", *(f"  {path}" for path in written), sep="\n")
    return found.verdict


def measured_of(
    tested: "Tested", promised: dict[str, Any], of_mistakes: "Costs | None", parameters: Parameters
) -> dict[str, Any]:
    from libraries.classifier.costs import CLASS_AVERAGED
    from libraries.evaluation.measured import measure

    return measure(
        tested,
        promised=promised,
        of_mistakes=of_mistakes,
        is_averaging=parameters.costs == CLASS_AVERAGED,
        seed=parameters.randomSeed,
    )


def tell(measured: dict[str, Any], written: list[Path], record: Record) -> None:
    """Print the figures and what has been written, and keep both in the run history."""
    from libraries.evaluation.measured import told
    from libraries.evaluation.outputs import scalars

    print(told(measured), "\nWritten:", *(f"  {path}" for path in written), sep="\n")
    record.metrics.update(scalars(measured))
    record.files.extend(path for path in written if path.suffix != ".html")


def cross_test(parameters: Parameters, layout: Layout, record: Record, *, folds: int) -> None:
    """Test every image once."""
    from libraries.classifier.costs import costs_of
    from libraries.data.dataset import read_examples, read_white_level
    from libraries.evaluation import outputs
    from libraries.evaluation.folds import cross_test, deal, of_stored, sentence
    from libraries.network.embedding_store import read_features

    features = read_features(layout.features.folder)
    by_path = {example.path: example for example in read_examples(layout.examples.folder / "examples.csv")}
    examples = [by_path[path] for path in features.path]
    fold_of = deal(examples, folds=folds, seed=parameters.randomSeed)
    count = int(fold_of.max()) + 1
    if count < folds:
        print(f"{count} folds, since no class has more images that are not alike")
    refining = None
    if layout.is_refined and parameters.rf_maxEpochs:
        refining = refining_folds(parameters, layout, folds=count)
    names = layout.network.read().get("labels") if parameters.classifier == "dnn" else None
    with ProgressBar("Testing every image", total=count, unit="folds") as bar:

        def told(row: "FoldRow") -> None:
            bar.update()
            say(f"  fold {row.fold}: {row.accuracy:.1%} of {row.images:,} images are right")

        options, of_fold = parameters.fit_options(), refining or of_stored(features, names=names)
        found = cross_test(examples, fold_of, of_fold, options, folder=layout.features.folder, told=told)
    promised = {"unknown_rate": parameters.unknownRate, "coverage": parameters.coverage}
    of_mistakes = costs_of(parameters.costs, found.tested.labels, found.tested.names)
    measured = measured_of(found.tested, promised, of_mistakes, parameters)
    measured["folds"] = found.summary()
    white_level = read_white_level(layout.examples)
    written = outputs.write_folds(
        found, measured, layout=layout, features=features, settings=parameters.portable(), white_level=white_level
    )
    if refining is not None:
        refining.clean()
    record.tags["data"] = layout.examples.identity()[:12]
    tell(measured, written, record)
    print("", textwrap.fill(sentence(measured["folds"]), 100), sep="\n")
    print(f"\n{queue(parameters, layout, features)}")


def refining_folds(parameters: Parameters, layout: Layout, *, folds: int) -> "Refining":
    """The networks of the folds, to be trained."""
    from libraries.classifier.calibration import fit_calibration
    from libraries.evaluation.refined_folds import Refining
    from libraries.network.training.making import refine_anew

    def refine(artefact: "Artefact", examples: Path) -> None:
        refine_anew(
            artefact,
            examples,
            parameters.network_options(),
            partial(parameters.refine_task, layout),
            white_level=layout.network.parameters.get("white_level"),
            cluster=parameters.cluster,
            device=parameters.device,
            shared=layout.store,
            calibrate=fit_calibration,
        )

    return Refining(
        layout,
        layout.crossvalidation.folder,
        folds=folds,
        refine=refine,
        seen=parameters.seen_in_training,
        options=parameters.run_options(),
        told=say,
    )


if __name__ == "__main__":
    run(main, Parameters)
