"""The images of a data set, to view and to correct: change labels and marks by keyboard; every step can be undone."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from libraries.base.errors import ImageError, InputError, MissingInput, StorageError
from libraries.base.file_system import nfc
from libraries.base.layout import Layout
from libraries.data.annotation_log import MARKS, Mark
from libraries.data.annotations import Annotations, StepResult
from libraries.data.class_folders import check_label, in_pool, pool_images
from libraries.data.dataset import Example, read_examples, read_white_level
from libraries.data.decoding import MAX_PIXELS, header, max_bytes_for, read
from libraries.data.depth import FULL_RANGE
from libraries.data.duplicates import read_groups
from libraries.data.quality import read_review
from libraries.review.queue import REASONS, QueueRow, Reason, read_queue, time_for
from libraries.widgets.renewing import Renewing, renewed
from libraries.widgets.viewer import PAGES, Message, Viewer, displayed, page_code

if TYPE_CHECKING:
    from libraries.evaluation.renewal import Renewal
    from libraries.network.runners import RunOptions

RENEWED_AFTER = 100  # answers

Split = Literal["train", "test", "new", "pool"]  # new: not seen by script 1; pool: without a label


@dataclass(frozen=True)
class Filter:
    """The images to show; None: all.

    Attributes:
        queue: only those to look at, all of them or for one reason, in the order of the queue.
        split: images of the pool are shown if it says so, if they are in the queue, or by their mark.
        name: letters in the image's path within its class.
    """

    label: str | None = None
    mark: Mark | None = None
    finding: str | None = None
    queue: Literal["all"] | Reason | None = None
    split: Split | None = None
    name: str = ""


class ImageViewer(Viewer):
    """The images of one data set, with what script 1 recorded about them, and all annotations."""

    _esm = page_code("parts.js", "images.js")
    _css = PAGES / "viewer.css"

    def __init__(
        self,
        images: Path,
        *,
        examples: Sequence[Example] = (),
        prepared: str | None = None,
        findings: Mapping[str, Sequence[str]] = MappingProxyType({}),
        queue: Sequence[QueueRow] = (),
        alike: Mapping[str, Sequence[str]] = MappingProxyType({}),
        thumbnails: Path,
        white_level: int = FULL_RANGE,
        max_pixels: int = MAX_PIXELS,
        renew: "Callable[[], Renewal] | None" = None,
    ) -> None:
        """
        Args:
            images: the data set's folder, with one folder per class.
            examples: as script 1 found them; empty if it has not run.
            prepared: the state of the annotations when script 1 ran.
            findings: images worth a second look (`data.quality`): finding → paths, the most striking first.
            queue: images to look at again, by script 5, the best first; the viewer begins with them.
            alike: the duplicates of each image that has any, by path, as script 1 found them.
            thumbnails: the file that stores them.
            white_level: as script 1 found it.
            max_pixels: larger images are not shown.
            renew: makes the queue anew, in another thread: when somebody asks for it, and after a hundred answers.

        Raises:
            InputError: there is no such folder, or it has no folder of a class.
            StorageError: the log of annotations is damaged.
        """
        super().__init__(images, thumbnails, white_level=white_level, max_pixels=max_pixels)
        if not images.is_dir():
            raise InputError(
                f"{images} does not exist: put one folder of images per class there, or run scripts/0_downloadData.py"
            )
        self._examples = {example.path: example for example in examples}
        self._prepared = prepared
        self._findings, self._alike = findings, alike
        self._queue, self._queued_in = queue, prepared
        self._renew, self._renewal = renew, Renewing()
        self._told: list[str] = []  # by the newest renewal
        self._answers = 0  # since then
        self._later: dict[int, int] = {}  # images of the queue that were put off: the last one has the largest number
        self._steps = 0  # of the annotations, that `_paths` takes into account
        self._filter = Filter()
        self._said = ""
        self._annotations = Annotations(images)
        self._read_folder()
        if self._undecided():
            self._apply_filter(queue="all")
        self.show()

    @classmethod
    def of(cls, layout: Layout, run: "RunOptions | None" = None, *, seed: int = 0) -> "ImageViewer":
        """A viewer of the data set of these parameters.

        Args:
            run: how the network is run to make the queue anew; None: that is not offered.
            seed: of what is drawn for that.
        """
        try:
            made = layout.examples.read()
            examples = read_examples(layout.examples.folder / "examples.csv")
            white_level = read_white_level(layout.examples)
        except MissingInput:
            made, examples, white_level = {"parameters": {}}, [], FULL_RANGE
        try:
            queue, problem = read_queue(layout.review), ""
        except StorageError as error:
            queue, problem = [], str(error)
        viewer = cls(
            layout.images,
            examples=examples,
            prepared=made["parameters"].get("annotations"),
            findings=read_review(layout.proc / "quality.csv"),
            queue=queue,
            alike=_alike(layout, examples),
            thumbnails=layout.thumbnails,
            white_level=white_level,
            max_pixels=layout.max_pixels,
            renew=None if run is None else partial(renewed, layout, run, seed),
        )
        if problem:
            viewer._problem = problem
            viewer.show()
        return viewer

    def actions(self) -> dict[str, Callable[..., None]]:
        return {
            **super().actions(),
            "filter": self._apply_filter,
            "relabel": self._relabel,
            "mark": self._toggle_mark,
            "accept": self._accept,
            "keep": self._keep,
            "later": self._put_off,
            "renew": self._start_renewal,
            "refresh": self._take_renewal,
            "undo": lambda: self._take_over(self._annotations.undo(), "undone"),
            "redo": lambda: self._take_over(self._annotations.redo(), "done again"),
            "replay": self._replay,
        }

    # What the front end shows

    def path(self, image: int) -> str:
        if image < 0:
            raise IndexError(image)
        return self._paths[image]

    def item(self, image: int) -> Message:
        path = self._paths[image]
        folders = self._annotations.folders
        first = self._annotations.first_path(path)
        return {
            "name": displayed(folders.inside(path)),
            "label": folders.label(path),
            "was": folders.label(first) if first != path else None,
            "mark": self._annotations.marks.get(path),
            "split": self._split_of(path),
            "settled": path in self._annotations.history.state.decided,
            **self._doubt(image),
        }

    def _doubt(self, image: int) -> Message:
        """Why an image is in the queue, and what it may be instead."""
        row = self._row_of.get(image)
        return {} if row is None else {"reason": row.reason, "suggested": row.suggested}

    def facts(self, image: int) -> tuple[Message, list[bytes]]:
        path = self._paths[image]
        example = self._example(path)
        facts: dict[str, str] = {"file": displayed(path)}
        try:
            data = read(self._annotations.file(path), max_bytes=max_bytes_for(self._max_pixels))
            head = header(data)
            facts["image"] = f"{head.format}, {head.mode}, {head.width:,} × {head.height:,} pixels, {len(data):,} bytes"
        except ImageError as error:
            facts["image"] = error.reason
        if in_pool(path):
            facts["split"] = "pool: it has no label"
        elif example is None:
            facts["split"] = "new: script 1 has not seen it"
        else:
            facts["split"] = {"train": "training", "test": "test"}[example.split]
            copies = [e.path for e in self._copies[example.sha256] if e is not example]
            if copies:
                facts["the same file"] = _first(copies)
            if alike := [other for other in self._alike.get(example.path, ()) if other not in copies]:
                facts["looks the same"] = _first(alike)
            if example.group != example.path:
                facts["group"] = displayed(example.group)
        then = self._prepared_paths.get(path, path)
        if found := [finding for finding, paths in self._findings.items() if then in paths]:
            facts["worth a look"] = ", ".join(found)
        if (row := self._row_of.get(image)) is not None:
            instead = "" if row.suggested is None else f": {row.suggested}?"
            like = f", like {row.label}" if row.reason == "hard negative" else ""
            facts["to look at"] = f"{row.reason}{like}{instead}"
        if (first := self._annotations.first_path(path)) != path:
            facts["was"] = displayed(first)
        return {"facts": facts}, []

    def summary(self) -> Message:
        count = Counter(map(self._annotations.folders.label, self._paths))
        marks = Counter(self._annotations.marks.values())
        left = Counter[str](self._row_of[image].reason for image in self._undecided())
        count_left = left.total()
        if self._row_of:
            left["all"] = count_left
        return {
            "labels": [{"name": label, "images": count[label]} for label in self._labels],
            "marks": {mark: marks[mark] for mark in MARKS},
            "images": len(self._paths) - count[""],
            "pool": count[""],
            "findings": {finding: len(paths) for finding, paths in self._findings.items()},
            "queue": {r: left[r] for r in ("all", *REASONS) if r in left or r == self._filter.queue},
            "next": f"Next: {count_left:,} to look at; {time_for(count_left)}" if count_left else "",
            "told": self._told,
            "canRenew": self._renew is not None and bool(self._examples),
            "isRenewing": self._renewal.is_running or self._renewal.result is not None,
            "filter": asdict(self._filter),
            "canUndo": self._annotations.can_undo,
            "canRedo": self._annotations.can_redo,
            "pending": self._pending,
            "isPrepared": bool(self._examples),
            "isStale": bool(self._examples) and self._annotations.state != self._prepared,
            "said": self._said,
        }

    # Actions

    def _apply_filter(self, *, name: str = "", **wanted: Any) -> None:
        """Show the images that match a filter."""
        if not all(isinstance(value, str | None) for value in wanted.values()):
            raise TypeError(wanted)
        self._filter = only = Filter(name=str(name), **wanted)
        self._follow_others()
        marks, folders, letters = self._annotations.marks, self._annotations.folders, nfc(only.name).casefold()
        self._show_matching(
            [
                image
                for image, path in self._to_show(only)
                if (only.label is None or folders.label(path) == only.label)
                and (only.mark is None or marks.get(path) == only.mark)
                and (only.split is None or self._split_of(path) == only.split)
                and (not letters or letters in nfc(folders.inside(path)).casefold())
                and (only.queue or only.mark or only.split == "pool" or not in_pool(path))
            ]
        )

    def _to_show(self, only: Filter) -> Iterable[tuple[int, str]]:
        """Number and path of the images in the queue, or with a finding, the most striking first; else of all."""
        if only.queue is not None:
            wanted = [i for i in self._undecided() if only.queue in ("all", self._row_of[i].reason)]
            return [(image, self._paths[image]) for image in sorted(wanted, key=self._lateness)]
        if only.finding is None:
            return enumerate(self._paths)
        now = self._now(self._findings.get(only.finding, ()))
        return [(self._numbers[path], path) for path in now if path in self._numbers]

    def _now(self, paths: Iterable[str]) -> list[str]:
        """Where images are now that were there when script 1 ran."""
        now = {then: path for path, then in self._prepared_paths.items()}
        return [now.get(path, path) for path in paths]

    def _undecided(self) -> list[int]:
        """The images of the queue on which nobody has decided, in its order."""
        decided = self._annotations.history.state.decided
        return [image for image in self._row_of if self._paths[image] not in decided]

    def _accept(self, images: Sequence[int]) -> None:
        """Give images the labels that the queue suggests, but for those on which somebody has decided."""
        folders, labels = self._annotations.folders, {}
        undecided = set(self._undecided())
        for image in images:
            if image in undecided:
                path = self._paths[image]
                labels[path] = self._row_of[image].suggested or folders.label(path)
        if labels:
            self._answer(labels, " or ".join(sorted({*labels.values()})))
        else:
            self._said = "nothing to accept"

    def _keep(self, images: Sequence[int]) -> None:
        folders = self._annotations.folders
        labels = {path: folders.label(path) for path in self._paths_of(images)}
        self._answer(labels, "right as it is" if any(labels.values()) else "left as it is")

    def _put_off(self, images: Sequence[int]) -> None:
        """Show these images after all others of the queue."""
        for image in images:
            self._later[image] = 1 + max(self._later.values(), default=0)
        self._matching.sort(key=self._lateness)

    def _lateness(self, image: int) -> int:
        return self._later.get(image, 0)

    def _relabel(self, images: Sequence[int], label: str) -> None:
        label = check_label(label)
        self._answer(dict.fromkeys(self._paths_of(images), label), label)

    def _toggle_mark(self, images: Sequence[int], mark: Mark) -> None:
        """Mark images, or remove the mark if all of them have it."""
        paths = self._paths_of(images)
        new = None if all(self._annotations.marks.get(path) == mark for path in paths) else mark
        self._take_over(self._annotations.mark(paths, new, drawn=self._drawn(paths)), new or f"not {mark}")
        self._count_answers(len(paths))

    def _answer(self, labels: Mapping[str, str], what: str) -> None:
        """Give images labels, by path, and report `what` that was."""
        self._take_over(self._annotations.decide(labels, drawn=self._drawn(labels)), what)
        self._count_answers(len(labels))

    def _drawn(self, paths: Iterable[str]) -> list[str]:
        """Those that are in the queue by chance, and on which nobody has decided."""
        decided, row_of = self._annotations.history.state.decided, self._row_of
        found = [(path, row_of.get(self._numbers[path])) for path in paths if path not in decided]
        return [path for path, row in found if row is not None and row.reason == "random"]

    def _count_answers(self, count: int) -> None:
        self._answers += count
        if self._answers >= RENEWED_AFTER and self._renew is not None and self._queue:
            self._start_renewal()

    def _start_renewal(self) -> None:
        """Make the queue anew, in another thread."""
        if self._renew is None:
            self._said = "the list cannot be made anew here"
        elif not self._renewal.is_running:
            self._answers = 0
            self._renewal = Renewing(is_running=True)
            self._in_background(self._renewal.run, self._renew)

    def _take_renewal(self) -> None:
        """Show the queue that another thread has made, if it has ended."""
        done, self._renewal.result = self._renewal.result, None
        if isinstance(done, str):
            self._problem = done
        elif done is not None:
            self._queue, self._queued_in, self._told = done.rows, done.state, done.told
            self._later.clear()
            self._follow_others()
            self._add_new()
            self._place_queue()
            self._said = "the list is new"
            self._apply_filter(**({"queue": "all"} if self._filter.queue else asdict(self._filter)))

    def _take_over(self, outcome: StepResult, what: str) -> None:
        """Update the paths after a step of the annotations, and report it."""
        self._follow_others()
        if len(outcome.changes) == 1:
            self._said = f"{displayed(PurePosixPath(outcome.changes[0].before.path).name)}: {what}"
        else:
            self._said = f"{len(outcome.changes):,} images: {what}"
        self._problem = " ".join(outcome.problems[:3])

    def _read_folder(self) -> None:
        """Find the images of all classes."""
        folders = self._annotations.folders
        if not folders.by_label:
            raise InputError(f"{self._images} holds no folder: put one folder of images per class there")
        self._labels = list(folders.by_label)
        self._paths: list[str] = []
        self._numbers: dict[str, int] = {}
        self._add_new()
        self._copies: defaultdict[str, list[Example]] = defaultdict(list)
        for example in self._examples.values():
            self._copies[example.sha256].append(example)
        self._steps = self._annotations.history.steps
        self._follow_moves()
        self._place_queue()
        self._pending = len(self._annotations.pending())
        self._apply_filter(**asdict(self._filter))

    def _add_new(self) -> None:
        """Give numbers to images that have none; others keep theirs, which the front end knows."""
        for path in (*self._annotations.folders.images(self._images), *pool_images(self._images)):
            if path not in self._numbers:
                self._numbers[path] = len(self._paths)
                self._paths.append(path)

    def _place_queue(self) -> None:
        """Find the images of the queue where they are now."""
        moves = self._annotations.moves_since(self._queued_in)
        places = [(moves.get(row.path, row.path), row) for row in self._queue]
        self._row_of = {self._numbers[path]: row for path, row in places if path in self._numbers}

    def _replay(self) -> None:
        made = self._annotations.replay()  # steps of before, which are in the log already
        self._move({change.before.path: change.after.path for change in made.changes})
        self._take_over(made, "moved again")
        self._pending = len(self._annotations.pending())

    def _follow_others(self) -> None:
        """Update the paths by all steps that are new, also those of other notebooks."""
        self._annotations.refresh()
        self._move(self._annotations.history.moves_after(self._steps))
        self._steps = self._annotations.history.steps
        self._follow_moves()

    def _move(self, moves: Mapping[str, str]) -> None:
        """Update the paths of images: present path by the one before."""
        images = {after: self._numbers.pop(before) for before, after in moves.items() if before in self._numbers}
        for path, image in images.items():
            self._paths[image] = path
            self._numbers[path] = image

    def _follow_moves(self) -> None:
        self._prepared_paths = {now: then for then, now in self._annotations.moves_since(self._prepared).items()}

    def _paths_of(self, images: Sequence[int]) -> list[str]:
        return [self.path(image) for image in images]

    def _example(self, path: str) -> Example | None:
        """The record that script 1 made of an image, which may have moved since."""
        return self._examples.get(self._prepared_paths.get(path, path))

    def _split_of(self, path: str) -> Split:
        example = self._example(path)
        return "pool" if in_pool(path) else "new" if example is None else example.split


def _alike(layout: Layout, examples: Sequence[Example]) -> dict[str, list[str]]:
    """The duplicates of each image that has any, by path; none if script 1 has not found them."""
    members: defaultdict[str, list[str]] = defaultdict(list)
    try:
        for example in read_groups(layout.examples.folder / "duplicates.csv", examples):
            members[example.group].append(example.path)
    except StorageError:
        return {}
    groups = [paths for paths in members.values() if len(paths) > 1]
    return {path: [other for other in paths if other != path] for paths in groups for path in paths}


def _first(paths: Sequence[str], most: int = 5) -> str:
    named = ", ".join(displayed(path) for path in paths[:most])
    return named if len(paths) <= most else f"{named} and {len(paths) - most:,} more"
