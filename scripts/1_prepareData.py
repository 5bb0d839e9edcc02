"""Check every image, find duplicates, and split the data set into training and test images.

--removeDuplicates keeps the largest of exact and near copies and moves the rest to images/<datasetName>/.duplicates/,
--restoreDuplicates moves them back. --export writes metadata.csv and croissant.json beside the labels, and
labelStudio/; importLabels takes over the labels that people gave there. --recheck decodes every image again, also those
whose file has not changed since an earlier run.
"""

import itertools

from libraries.base.command import run
from libraries.base.console import ProgressBar, progress, say
from libraries.base.errors import ParameterError
from libraries.base.layout import Layout
from libraries.base.pool import usable_cores
from libraries.data import checking, dataset, duplicates, outputs, quality, removal, split
from libraries.data.annotations import Annotations
from libraries.data.class_map import ClassMap
from libraries.data.exchange import label_studio
from libraries.data.exchange.export import Export
from libraries.data.remembered import Remembered
from libraries.data.split import check_test_list, take_sides
from libraries.history import tracking
from libraries.review.queue import read_queue, suggestions, without_label
from PARAMETERS import Parameters


def main(
    parameters: Parameters,
    *,
    removeDuplicates: bool = False,
    restoreDuplicates: bool = False,
    export: bool = False,
    recheck: bool = False,
) -> None:
    if removeDuplicates and restoreDuplicates:
        raise ParameterError("--removeDuplicates and --restoreDuplicates are opposites: give one of them")
    layout = Layout(parameters)
    if export:
        (others := Export(layout.images, layout.proc)).check()
    with tracking.run("1_prepareData", parameters) as record:
        if restoreDuplicates:
            print(*removal.restore(layout.images).summary_lines("brought back"), sep="\n")
        print(f"Reading the images in {layout.images}")
        annotations = Annotations(layout.images)
        if parameters.importLabels is not None:
            print(*label_studio.import_answers(parameters.importLabels, annotations, dataset=layout.dataset), sep="\n")
        remembered = Remembered.of(layout, recheck=recheck)
        classes = ClassMap.read(parameters.classMap, annotations.folders)
        checked = check(layout, annotations, parameters.whiteLevel, remembered, cluster=parameters.cluster)
        checked, unmapped, lines = classes.applied(checked)
        print(*(f"  {line}\n" for line in lines), sep="", end="")
        alike = find_alike(parameters, layout, checked, remembered)
        if removeDuplicates:
            taken, lines = removal.take_out(layout.images, alike)
            print(*lines, sep="\n")
            checked = checked.without(taken)
            alike = find_alike(parameters, layout, checked, remembered)
        print(*alike.summary_lines(), sep="\n")
        odd = checked.review()
        print(quality.summary(odd))

        examples, lines = take_sides(
            checked.examples,
            alike,
            annotations,
            label_of=classes.label,
            by=parameters.imagesSplitBy,
            ratio_train=parameters.ratioTrainTest,
            seed=parameters.randomSeed,
        )
        for line in lines:
            print(line)

        left_out = [*(str(error.path) for error in checked.refused), *annotations.marks, *unmapped]
        target = outputs.write(layout.examples, examples, alike=alike, odd=odd, left_out=left_out, white=checked.white)
        counts = dataset.counts(examples)
        record.tags["data"] = layout.examples.identity()[:12]
        record.metrics.update(images=len(examples), classes=len(counts), left_out=len(left_out))
        print(split.summary(examples))
        if export:
            queue, decided = read_queue(layout.review), annotations.history.state.decided
            written = others.write(
                examples,
                moved=annotations.moved,
                suggested=suggestions(queue, decided=decided),
                unlabelled=without_label(queue, layout.images, decided=decided),
            )
            print("For others:", *written, sep="\n  ")
    print(f"Written: {target}")


def check(
    layout: Layout, annotations: Annotations, white_level: int | None, remembered: Remembered, *, cluster: str
) -> checking.Checked:
    found = dataset.leave_out(dataset.scan(layout.images), annotations.marks)
    check_test_list(annotations, itertools.chain(*found.paths.values()))
    checked = checking.check_images(
        layout.images,
        found,
        workers=usable_cores(),
        white_level=white_level,
        max_pixels=layout.max_pixels,
        remembered=remembered,
        cluster=cluster,
        progress=lambda items: progress(items, "Checking"),
        told=say,
    )
    for line in [*checking.left_out(found, checked), *annotations.summary_lines(), *checked.white.summary_lines()]:
        print(f"  {line}")
    return checked


def find_alike(
    parameters: Parameters, layout: Layout, checked: checking.Checked, remembered: Remembered
) -> duplicates.Duplicates:
    embeddings = None
    if parameters.duplicates == "scene":
        from libraries.network.scenes import embed_pretrained

        with ProgressBar("Embedding", total=2 * len(checked.examples)) as bar:
            embeddings = embed_pretrained(
                checked,
                layout,
                parameters.network_options(),
                parameters.run_options(),
                progress=bar.update,
                told=say,
            )
    return duplicates.find(
        checked,
        folder=layout.images,
        max_distance=None if parameters.duplicates == "exact" else parameters.duplicates_maxDistance,
        embeddings=embeddings,
        min_similarity=parameters.duplicates_minSimilarity,
        workers=usable_cores(),
        remembered=remembered,
    )


if __name__ == "__main__":
    run(main, Parameters)
