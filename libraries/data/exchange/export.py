"""A data set described for others: metadata.csv and croissant.json beside the labels, and tasks for Label Studio."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from libraries.base.own_files import OwnFiles
from libraries.data.dataset import Example
from libraries.data.exchange import describe, label_studio

RECORD, TASKS = "exported.json", "labelStudio"


class Export:
    """The files of one data set, of which nobody else's are ever overwritten."""

    def __init__(self, images: Path, proc: Path) -> None:
        """
        Args:
            images, proc: the folders of the data set.
        """
        self._images, self._tasks = images, proc / TASKS
        self._own = OwnFiles(proc / RECORD, is_ours=_is_ours)

    def check(self) -> None:
        """Make sure, before anything is changed, that all can be written.

        Raises:
            StorageError: a file is somebody else's.
        """
        self._own.check(self._placed(dict.fromkeys((describe.METADATA, describe.CROISSANT), ""), self._images))
        self._own.check(self._placed(dict.fromkeys((label_studio.TASKS, label_studio.INTERFACE), ""), self._tasks))

    def write(self, examples: Sequence[Example], *, moved: Mapping[str, str]) -> list[Path]:
        """Write the files, all or none; gives back their paths.

        Args:
            moved: the present path of every image that was moved by hand, by its first path.

        Raises:
            StorageError: a file is somebody else's, or cannot be written.
        """
        name = self._images.name
        described = self._placed(describe.describe(examples, name=name), self._images)
        tasks = self._placed(label_studio.describe(examples, dataset=name, moved=moved), self._tasks)
        return self._own.write(described | tasks)

    @staticmethod
    def _placed(texts: Mapping[str, str], folder: Path) -> dict[Path, str]:
        return {folder / name: text for name, text in texts.items()}


def _is_ours(path: Path) -> bool:
    """Whether an earlier version wrote a file, by its form."""
    is_description = path.name in (describe.METADATA, describe.CROISSANT)
    return describe.is_ours(path) if is_description else label_studio.is_ours(path)
