"""What both viewers share: images page by page, thumbnails as soon as they are made, and a large view of one image."""

import logging
import operator
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
from libraries.data.class_folders import image_file
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
    """The JavaScript of a widget: files joined into one module."""
    return "\n".join((PAGES / name).read_text(encoding="utf-8") for name in names)


def displayed(path: str) -> str:
    """A path as valid Unicode, for the browser, even if its bytes are not."""
    return os.fsencode(path).decode(errors="replace")


class Viewer(anywidget.AnyWidget):
    """Images in a grid, page by page, and one of them large.

    The front end in the browser draws `state` and sends actions: {"do": name, …}. Each action ends with a new state.
    Thumbnails and large views are sent as separate messages, as soon as they are made.
    """

    state = traitlets.Dict().tag(sync=True)

    def __init__(
        self, images: Path, thumbnails: Path, *, white_level: int = FULL_RANGE, max_pixels: int = MAX_PIXELS
    ) -> None:
        """
        Args:
            images: folder that the images' paths are relative to.
            thumbnails: the file that stores them.
            white_level: the data set's.
            max_pixels: larger images are not shown.
        """
        self._images = images
        self._white_level, self._max_pixels = white_level, max_pixels
        self._thumbnails = Thumbnails(images, thumbnails, white_level=white_level, max_pixels=max_pixels)
        self._pool: Threads[Callable[[], None], None] = Threads(_run_logged, _THREADS, name="viewer", abandon=True)
        self._lock = threading.Lock()
        self._wanted: list[int] = []  # images whose thumbnails are missing in the front end, in order
        self._large_image = -1  # the image in the large view
        self._matching: list[int] = []  # images that match the filter, in the order shown
        self._page = 0
        self._problem = ""
        super().__init__()
        self.on_msg(self._receive)

    def actions(self) -> dict[str, Callable[..., None]]:
        """What the front end can ask for, by name."""
        return {"page": self._turn_to, "thumbnails": self._request_thumbnails, "look": self._look}

    @abstractmethod
    def path(self, image: int) -> str:
        """The path of an image, by its number."""

    @abstractmethod
    def item(self, image: int) -> Message:
        """The data of an image in the grid."""

    @abstractmethod
    def facts(self, image: int) -> tuple[Message, list[bytes]]:
        """The facts about an image in the large view, and further pictures for it. Called on any thread."""

    @abstractmethod
    def summary(self) -> Message:
        """The state other than the images of the page."""

    # Actions

    def act(self, action: Mapping[str, Any]) -> None:
        """Do what the front end asks for; an error becomes the message that it shows."""
        self._problem = ""
        arguments = {key: value for key, value in action.items() if key != "do"}
        try:
            self.actions()[action["do"]](**arguments)
        except PipelineError as error:
            self._problem = str(error)
        if action["do"] not in ("thumbnails", "look"):
            self.show()

    def show(self) -> None:
        """Send the present state to the front end."""
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
        """Close the widget, its threads and its file of thumbnails."""
        self._pool.cancel()
        self._thumbnails.close()
        super().close()

    def take(self, content: Any) -> None:
        """Do what a message from the browser asks for, if it can be understood."""
        try:
            self.act(content)
        except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:  # not from our front end
            log.warning("the message %.200r is not understood: %r", content, error)

    def thumbnail(self, image: int) -> bytes:
        """The thumbnail of an image, a JPEG.

        Raises:
            ImageError: it cannot be read or decoded.
            IndexError: there is no such image.
        """
        return self._thumbnails.get(self.path(image))

    def large(self, image: int) -> tuple[Message, list[bytes]]:
        """The large view of an image: facts and, if it cannot be shown, the problem; a JPEG, and further pictures.

        Raises:
            IndexError: there is no such image.
        """
        try:
            large, problem = jpeg(self._pixels(image, at_least=LARGE), LARGE, quality=92), ""
        except ImageError as error:
            large, problem = b"", error.reason
        facts, pictures = self.facts(image)
        return {"look": image, "problem": problem, **facts}, [large, *pictures]

    def _receive(self, _: object, content: Any, __: object) -> None:
        self.take(content)

    def _turn_to(self, page: int) -> None:
        self._page = operator.index(page)

    def _show_matching(self, matching: Sequence[int]) -> None:
        """Show these images, from the first page on."""
        self._matching = list(matching)
        self._page = 0

    # Pictures, made in threads

    def _in_background(self, function: Callable[..., None], *arguments: object) -> None:
        self._pool.take(0.0)  # drops earlier results, which nobody needs
        self._pool.give(partial(function, *arguments))

    def _request_thumbnails(self, images: Sequence[int]) -> None:
        """Send the thumbnails of these images, and no longer those requested before."""
        with self._lock:
            self._wanted = list(images)
        for _ in range(_THREADS):
            self._in_background(self._send_thumbnails)

    def _send_thumbnails(self) -> None:
        while True:
            with self._lock:
                if not self._wanted:
                    return
                image = self._wanted.pop(0)
            try:
                self.send({"thumbnail": image}, [self.thumbnail(image)])
            except ImageError as error:
                self.send({"thumbnail": image, "problem": error.reason}, [b""])

    def _pixels(self, image: int, *, at_least: int | None = None) -> Pixels:
        """The image as uint8 [H, W, 3], upright; see `decode`."""
        data = read(image_file(self._images, self.path(image)), max_bytes=max_bytes_for(self._max_pixels))
        return decode(data, at_least=at_least, white_level=self._white_level, max_pixels=self._max_pixels)

    def _look(self, image: int) -> None:
        self._large_image = image
        self._in_background(self._send_large, image)

    def _send_large(self, image: int) -> None:
        if image != self._large_image:
            return  # another image has been chosen since
        message, pictures = self.large(image)
        self.send(message, pictures)


def _run_logged(task: Callable[[], None]) -> None:
    """Do a task, and log its error, as nobody looks at its result."""
    try:
        task()
    except Exception:
        log.exception("a picture could not be made")
