"""The images of a data set, to look at and to correct: other labels and marks, by keyboard, each step to be undone."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Literal

from libraries.base.errors import ImageError, InputError, MissingInput
from libraries.base.file_system import nfc
from libraries.base.layout import Layout
from libraries.data.annotation_log import MARKS, Mark
from libraries.data.annotations import Annotations, StepResult
from libraries.data.dataset import Example, read_examples, read_white_level
from libraries.data.decoding import MAX_PIXELS, header, max_bytes_for, read
from libraries.data.depth import FULL_RANGE
from libraries.data.quality import read_review
from libraries.widgets.viewer import PAGES, Message, Viewer, page_code, shown

Split = Literal["train", "test"]


class ImageViewer(Viewer):
    """The images of one data set, with what script 1 knows of them, and all annotations."""

    _esm = page_code("parts.js", "images.js")
    _css = PAGES / "viewer.css"

    def __init__(
        self,
        images: Path,
        *,
        examples: Sequence[Example] = (),
        prepared: str | None = None,
        findings: Mapping[str, Sequence[str]] = MappingProxyType({}),
        thumbnails: Path,
        white_level: int = FULL_RANGE,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        """
        Args:
            images: the data set's folder, with one folder per class.
            examples: what script 1 has found; none if it has not run.
            prepared: the state of the annotations that it has found.
            findings: what is worth a second look: paths, the most striking first, by what was found (`data.quality`).
            thumbnails: the file that keeps them.
            white_level: as script 1 has found it.
            max_pixels: larger images are not shown.

        Raises:
            InputError: there is no such folder, or no folder of a class in it.
            StorageError: the log of annotations is damaged.
        """
        super().__init__(images, thumbnails, white_level=white_level, max_pixels=max_pixels)
        if not images.is_dir():
            raise InputError(
                f"{images} does not exist: put one folder of images per class there, or run scripts/0_downloadData.py"
            )
        self._examples = {example.path: example for example in examples}
        self._prepared = prepared
        self._findings = findings
        self._label: str | None = None
        self._mark: Mark | None = None
        self._finding: str | None = None
        self._split: Split | Literal["new"] | None = None
        self._name = ""
        self._said = ""
        self._annotations = Annotations(images)
        self._read_folder()
        self._actions |= {
            "filter": self._filter,
            "relabel": lambda images, label: self._step(
                self._annotations.relabel(self._paths_of(images), label), label
            ),
            "mark": self._mark_images,
            "undo": lambda: self._step(self._annotations.undo(), "undone"),
            "redo": lambda: self._step(self._annotations.redo(), "done again"),
            "replay": self._replay,
        }
        self.show()

    @classmethod
    def of(cls, layout: Layout) -> "ImageViewer":
        """The images of the data set of these parameters."""
        try:
            made = layout.examples.read()
            examples = read_examples(layout.examples.folder / "examples.csv")
            white_level = read_white_level(layout.examples)
        except MissingInput:
            made, examples, white_level = {"parameters": {}}, [], FULL_RANGE
        return cls(
            layout.images,
            examples=examples,
            prepared=made["parameters"].get("annotations"),
            findings=read_review(layout.proc / "quality.csv"),
            thumbnails=layout.thumbnails,
            white_level=white_level,
            max_pixels=layout.max_pixels,
        )

    # What the page shows

    def path(self, image: int) -> str:
        return self._paths[image]

    def item(self, image: int) -> Message:
        path = self._paths[image]
        folders = self._annotations.folders
        first = self._annotations.first_path(path)
        return {
            "name": shown(folders.inside(path)),
            "label": folders.label(path),
            "was": folders.label(first) if first != path else None,
            "mark": self._annotations.marks.get(path),
            "split": self._split_of(path),
        }

    def facts(self, image: int) -> tuple[Message, list[bytes]]:
        path = self._paths[image]
        example = self._example(path)
        facts: dict[str, str] = {"file": shown(path)}
        try:
            data = read(self._images / path, max_bytes=max_bytes_for(self._max_pixels))
            head = header(data)
            facts["image"] = f"{head.format}, {head.mode}, {head.width:,} × {head.height:,} pixels, {len(data):,} bytes"
        except ImageError as error:
            facts["image"] = error.reason
        if example is None:
            facts["split"] = "new: script 1 has not seen it"
        else:
            facts["split"] = {"train": "training", "test": "test"}[example.split]
            copies = [e.path for e in self._copies[example.sha256] if e is not example]
            if copies:
                facts["the same file"] = _some(copies)
            if example.group != example.path:
                facts["group"] = shown(example.group)
        then = self._then.get(path, path)
        if found := [finding for finding, paths in self._findings.items() if then in paths]:
            facts["worth a look"] = ", ".join(found)
        if (first := self._annotations.first_path(path)) != path:
            facts["was"] = shown(first)
        return {"facts": facts}, []

    def summary(self) -> Message:
        count = Counter(map(self._annotations.folders.label, self._paths))
        marks = Counter(self._annotations.marks.values())
        return {
            "labels": [{"name": label, "images": count[label]} for label in self._labels],
            "marks": {mark: marks[mark] for mark in MARKS},
            "images": len(self._paths),
            "findings": {finding: len(paths) for finding, paths in self._findings.items()},
            "filter": {
                "label": self._label,
                "mark": self._mark,
                "finding": self._finding,
                "split": self._split,
                "name": self._name,
            },
            "canUndo": self._annotations.can_undo,
            "canRedo": self._annotations.can_redo,
            "pending": self._pending,
            "isPrepared": bool(self._examples),
            "isStale": bool(self._examples) and self._annotations.state != self._prepared,
            "said": self._said,
        }

    # Actions

    def _filter(
        self,
        label: str | None = None,
        mark: Mark | None = None,
        finding: str | None = None,
        split: Split | Literal["new"] | None = None,
        name: str = "",
    ) -> None:
        """Show the images with this label, mark, finding and side of the split, and these letters in their name."""
        self._label, self._mark, self._finding, self._split, self._name = label, mark, finding, split, str(name)
        marks, folders, wanted = self._annotations.marks, self._annotations.folders, nfc(self._name).casefold()
        self._show_matching(
            [
                image
                for image, path in self._found(finding)
                if (label is None or folders.label(path) == label)
                and (mark is None or marks.get(path) == mark)
                and (split is None or self._split_of(path) == split)
                and (not wanted or wanted in nfc(folders.inside(path)).casefold())
            ]
        )

    def _found(self, finding: str | None) -> Iterable[tuple[int, str]]:
        """Number and path of all images, or of those with a finding, the most striking first."""
        if finding is None:
            return enumerate(self._paths)
        now = {then: path for path, then in self._then.items()}
        paths = [now.get(path, path) for path in self._findings.get(finding, ())]
        return [(self._numbers[path], path) for path in paths if path in self._numbers]

    def _mark_images(self, images: Sequence[int], mark: Mark) -> None:
        """Mark images; those that all have the mark lose it."""
        paths = self._paths_of(images)
        new = None if all(self._annotations.marks.get(path) == mark for path in paths) else mark
        self._step(self._annotations.mark(paths, new), new or f"not {mark}")

    def _step(self, outcome: StepResult, what: str) -> None:
        """Take in what a step of the annotations has done, and say it."""
        for before, after, *_ in outcome.changes:
            image = self._numbers.pop(before.path, None)
            if image is not None:  # else another notebook has moved it there
                self._paths[image] = after.path
                self._numbers[after.path] = image
        self._follow_moves()
        if len(outcome.changes) == 1:
            self._said = f"{shown(PurePosixPath(outcome.changes[0].before.path).name)}: {what}"
        else:
            self._said = f"{len(outcome.changes):,} images: {what}"
        self._problem = " ".join(outcome.problems[:3])

    def _read_folder(self) -> None:
        """Find the images of every class."""
        folders = self._annotations.folders
        if not folders.by_label:
            raise InputError(f"{self._images} holds no folder: put one folder of images per class there")
        self._labels = list(folders.by_label)
        self._paths = folders.images(self._images)
        self._numbers = {path: image for image, path in enumerate(self._paths)}
        self._copies: defaultdict[str, list[Example]] = defaultdict(list)
        for example in self._examples.values():
            self._copies[example.sha256].append(example)
        self._follow_moves()
        self._pending = len(self._annotations.pending())
        self._filter(self._label, self._mark, self._finding, self._split, self._name)

    def _replay(self) -> None:
        self._step(self._annotations.replay(), "moved again")
        self._pending = len(self._annotations.pending())

    def _follow_moves(self) -> None:
        self._then = {now: then for then, now in self._annotations.moves_since(self._prepared).items()}

    def _paths_of(self, images: Sequence[int]) -> list[str]:
        return [self._paths[image] for image in images]

    def _example(self, path: str) -> Example | None:
        """What script 1 knows of an image, which may have moved since."""
        return self._examples.get(self._then.get(path, path))

    def _split_of(self, path: str) -> Split | Literal["new"]:
        example = self._example(path)
        return "new" if example is None else example.split


def _some(paths: Sequence[str], most: int = 5) -> str:
    named = ", ".join(shown(path) for path in paths[:most])
    return named if len(paths) <= most else f"{named} and {len(paths) - most:,} more"
