"""What has changed in the folders of a data set since 1_prepareData read them."""

from libraries.base.errors import InputError
from libraries.base.layout import Layout
from libraries.data.class_folders import find_class_folders
from libraries.data.dataset import read_examples


def changes_told(layout: Layout) -> str:
    """A warning of images that are new or gone since the data set was prepared; empty where all are as then.

    Only names are looked at: 100,000 images take about a second. A file that has other content by now is noticed when
    it is read (`dataset.load_example`).

    Raises:
        MissingInput, StorageError: the data set has not been prepared, or what was written then cannot be read.
    """
    manifest = layout.examples.read()
    if "left_out" not in manifest:  # earlier versions did not say which of the images they left out
        return ""
    then = [example.path for example in read_examples(layout.examples.folder / "examples.csv")]
    try:
        folders = find_class_folders(layout.images)
    except InputError as error:
        return f"Warning: the images can no longer be prepared as they are: {error}"
    now = set(folders.images(layout.images))
    new, gone = sorted(now.difference(then, manifest["left_out"])), [path for path in then if path not in now]
    parts = [
        f"{len(paths):,} image{' is' if len(paths) == 1 else 's are'} {what} (such as {paths[0]})"
        for paths, what in ((new, "new"), (gone, "gone"))
        if paths
    ]
    if not parts:
        return ""
    return f"Warning: {' and '.join(parts)} since the data set was prepared: run scripts/1_prepareData.py again"
