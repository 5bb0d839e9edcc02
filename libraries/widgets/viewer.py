"""What the widgets share: images page by page, thumbnails as they are made, and a large view of one."""

import logging
import os
import threading
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from libraries.base.arrays import Pixels
from libraries.base.errors import ImageError, PipelineError
from libraries.base.pool import Threads
from libraries.data.decoding import MAX_PIXELS, max_bytes_for, read
from libraries.data.depth import FULL_RANGE
from libraries.data.images import decode
from libraries.widgets.thumbnails import Thumbnails, jpeg

PAGES = Path(__file__).parent / "pages"
PER_PAGE = 60
LARGE = 1024  # pixels of the longer side of the large view
_THREADS = 4  # decoding releases the GIL

log = logging.getLogger(__name__)

Message = dict[str, Any]


def page_code(*names: str) -> str:
    """The JavaScript of a widget, from parts that share one module."""
    return "\n".join((PAGES / name).read_text(encoding="utf-8") for name in names)


def shown(path: str) -> str:
    """A path as text that a browser takes, also if it is not Unicode."""
    return os.fsencode(path).decode(errors="replace")


class Viewer(anywidget.AnyWidget):
    """Images in a grid, page by page, and one of them large.

    The widget's page in the browser draws `state` and sends actions: {"do": name, …}. Each ends with a new state.
    Thumbnails and large views go to it as messages of their own, as soon as they are there.
    """

    state = traitlets.Dict().tag(sync=True)

    def __init__(
        self, images: Path, thumbnails: Path, *, white_level: int = FULL_RANGE, max_pixels: int = MAX_PIXELS
    ) -> None:
        """
        Args:
            images: folder that the paths of the images are relative to.
            thumbnails: the file that keeps them.
            white_level: the data set's.
            max_pixels: larger images are not shown.
        """
        self._images = images
        self._white_level, self._max_pixels = white_level, max_pixels
        self._thumbnails = Thumbnails(images, thumbnails, white_level=white_level, max_pixels=max_pixels)
        self._pool: Threads[Callable[[], None], None] = Threads(_logged, _THREADS, name="viewer", abandon=True)
        self._lock = threading.Lock()
        self._wanted: list[int] = []  # images whose thumbnails the page waits for, the first one next
        self._looked_at = -1  # the image that the large view is for
        self._matching: list[int] = []  # images that pass the filter, in the order shown
        self._page = 0
        self._problem = ""
        self._actions: dict[str, Callable[..., None]] = {
            "page": self._turn_to,
            "thumbnails": self._want,
            "look": self._look,
        }
        super().__init__()
        self.on_msg(self._receive)

    @abstractmethod
    def path(self, image: int) -> str:
        """The path of an image, by its number."""

    @abstractmethod
    def item(self, image: int) -> Message:
        """What the grid tells of an image."""

    @abstractmethod
    def facts(self, image: int) -> tuple[Message, list[bytes]]:
        """What the large view tells of an image, and further pictures for it. Called on any thread."""

    @abstractmethod
    def summary(self) -> Message:
        """What stands around the grid."""

    # Actions

    def act(self, action: Mapping[str, Any]) -> None:
        """Do what the page asks for; an error becomes the message that it shows."""
        self._problem = ""
        arguments = {key: value for key, value in action.items() if key != "do"}
        try:
            self._actions[action["do"]](**arguments)
        except PipelineError as error:
            self._problem = str(error)
        if action["do"] not in ("thumbnails", "look"):
            self.show()

    def show(self) -> None:
        """Send the present state to the page."""
        pages = max(1, -(-len(self._matching) // PER_PAGE))
        self._page = min(max(self._page, 0), pages - 1)
        on_page = self._matching[self._page * PER_PAGE : (self._page + 1) * PER_PAGE]
        self.state = {
            "items": [{"id": image, **self.item(image)} for image in on_page],
            "page": self._page,
            "pages": pages,
            "matching": len(self._matching),
            "first": self._page * PER_PAGE,
            "problem": self._problem,
            **self.summary(),
        }

    def close(self) -> None:
        """End the threads, too."""
        self._pool.cancel()
        self._thumbnails.close()
        super().close()

    def _receive(self, _: object, content: Any, __: object) -> None:
        try:
            self.act(content)
        except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:  # not from our page
            log.warning("the message %.200r is not understood: %r", content, error)

    def _turn_to(self, page: int) -> None:
        self._page = page

    def _show_matching(self, matching: Sequence[int]) -> None:
        """Show other images, from the first page on."""
        self._matching = list(matching)
        self._page = 0

    # Pictures, made on threads

    def _in_background(self, function: Callable[..., None], *arguments: object) -> None:
        self._pool.take(0.0)  # nobody asks for the results
        self._pool.give(partial(function, *arguments))

    def _want(self, images: Sequence[int]) -> None:
        """Send the thumbnails of these images, and no longer those asked for before."""
        with self._lock:
            self._wanted = list(images)
        for _ in range(_THREADS):
            self._in_background(self._send_wanted)

    def _send_wanted(self) -> None:
        while True:
            with self._lock:
                if not self._wanted:
                    return
                image = self._wanted.pop(0)
            try:
                self.send({"thumbnail": image}, [self._thumbnails.get(self.path(image))])
            except ImageError as error:
                self.send({"thumbnail": image, "problem": error.reason}, [b""])

    def _pixels(self, image: int, *, at_least: int | None = None) -> Pixels:
        """The image as uint8 [H, W, 3], upright; see `decode`."""
        data = read(self._images / self.path(image), max_bytes=max_bytes_for(self._max_pixels))
        return decode(data, at_least=at_least, white_level=self._white_level, max_pixels=self._max_pixels)

    def _look(self, image: int) -> None:
        self._looked_at = image
        self._in_background(self._send_large, image)

    def _send_large(self, image: int) -> None:
        if image != self._looked_at:
            return  # the eye has moved on
        try:
            large, problem = jpeg(self._pixels(image, at_least=LARGE), LARGE, quality=92), ""
        except ImageError as error:
            large, problem = b"", error.reason
        facts, pictures = self.facts(image)
        self.send({"look": image, "problem": problem, **facts}, [large, *pictures])


def _logged(task: Callable[[], None]) -> None:
    """Do it; nobody asks for the result, so that an error would not be seen."""
    try:
        task()
    except Exception:
        log.exception("a picture could not be made")
