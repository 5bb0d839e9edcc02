"""Check every image and split the data set into training and test images.

Reads:  images/<datasetName>/<label>/*, and beside the labels, if they exist, dedicatedTestImages.tsv (it fixes the test
        set) and annotations.jsonl (images that were marked by hand are left out).
Writes: proc/<datasetName>/examples.csv: path, label, split, group, size and SHA-256 of every intact image.
"""

import os
from collections import Counter

from libraries.base import tracking
from libraries.base.command import run
from libraries.base.console import progress, table
from libraries.base.layout import ANNOTATIONS, Layout
from libraries.data import dataset
from libraries.data.annotations import Annotations
from PARAMETERS import Parameters


def main(parameters: Parameters) -> None:
    layout = Layout(parameters)
    with tracking.run("1_prepareData", parameters) as record:
        print(f"Reading the images in {layout.images}")
        annotations = Annotations(layout.images)
        found = dataset.leave_out(dataset.scan(layout.images), annotations.marks)
        examples, refused = dataset.check_images(
            layout.images, found, workers=os.cpu_count() or 1, progress=lambda items: progress(items, "Checking")
        )
        for error in refused:
            print(f"  left out: {error}")
        for suffix, count in found.skipped.items():
            print(f"  left out: {count} {suffix} (not an image format that is read)")

        for mark, count in Counter(annotations.marks.values()).items():
            print(f"  left out: {count:,} marked {mark} in {ANNOTATIONS}")
        if pending := annotations.pending():
            print(f"  Warning: {len(pending):,} labels changed by hand are not in the folders: see showImages.ipynb")
        for one, other in dataset.contradictions(examples):
            print(f"  Warning: {one} and {other} are the same file under two labels: one of them is wrong")

        examples = dataset.group_examples(examples, parameters.imagesSplitBy)
        test_list = layout.images / dataset.DEDICATED_TEST_IMAGES
        if test_list.exists():
            print(f"The test set is the one in {test_list}")
            examples = dataset.split_by_list(examples, test_list, moved=annotations.moved, left_out=annotations.marks)
        else:
            examples = dataset.split(examples, ratio_train=parameters.ratioTrainTest, seed=parameters.randomSeed)

        layout.examples.begin()
        target = layout.examples.folder / "examples.csv"
        dataset.write_examples(target, examples)
        layout.examples.commit([target], left_out=[*(str(error.path) for error in refused), *annotations.marks])
        counts = dataset.counts(examples)
        record.tags["data"] = layout.examples.identity()[:12]
        record.metrics.update(images=len(examples), classes=len(counts), left_out=len(refused) + len(annotations.marks))
        show(counts)
    print(f"Written: {target}")


def show(counts: dict[str, dict[str, int]]) -> None:
    rows = [(label, c["train"], c["test"], c["train"] + c["test"]) for label, c in counts.items()]
    totals = [sum(column) for column in list(zip(*rows, strict=True))[1:]]
    print(table("Images per class", ["label", "train", "test", "all"], rows, footer=["all", *totals]))
    for label, c in counts.items():
        if not c["train"] or not c["test"]:
            side = "test" if not c["test"] else "training"
            print(f"Warning: class '{label}' has no {side} image; add more images of it, or remove the class")


if __name__ == "__main__":
    run(main, Parameters)
