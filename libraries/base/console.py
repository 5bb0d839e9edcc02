"""Console output of the scripts: progress bars, tables, and text that every console can show.

Consoles, and the pipes and files that replace them, often support few characters: code page 1252 or 932 on Windows,
ASCII in a container. Unsupported characters are replaced, and never stop a script.
"""

import codecs
import io
import itertools
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Self, TypeVar

T = TypeVar("T")

_PLAIN = dict(zip("–−×…→·±‘’“”", ("-", "-", "x", "...", "->", "*", "+-", "'", "'", '"', '"'), strict=True))


def prepare_console() -> None:
    """Make standard output and error accept any text, and write each line at once, so that log files are up to date."""
    codecs.register_error("plain", _plainly)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not a test's stream, nor None, as under pythonw.exe
            stream.reconfigure(line_buffering=True, errors="plain")


def _plainly(error: UnicodeError) -> tuple[str, int]:
    """A `codecs` error handler: replaces unsupported characters by similar ASCII ones, or by their escapes."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_PLAIN.get(c) or c.encode("ascii", "backslashreplace").decode() for c in text), error.end


def _shown(text: str) -> str:
    """A text as standard output shows it; columns are aligned by that."""
    out = sys.stdout
    if not isinstance(out, io.TextIOWrapper) or out.errors != "plain":
        return text
    return text.encode(out.encoding, "plain").decode(out.encoding)


class ProgressBar:
    """A progress bar, shown after one second, and only if standard error is a terminal."""

    def __init__(self, what: str, *, total: int | None = None, unit: str = "images") -> None:
        from tqdm import tqdm

        hidden = sys.stderr is None or not sys.stderr.isatty()
        self._bar = tqdm(desc=what, total=total, unit=f" {unit}", delay=1, leave=False, disable=hidden)

    def update(self, count: int = 1) -> None:
        """Count more items as done."""
        self._bar.update(count)

    def show(self, done: int, total: int | None = None) -> None:
        """Set the number of items done so far and, if it was unknown, their total."""
        if total is not None:
            self._bar.total = total
        self._bar.update(done - self._bar.n)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()


def say(line: str) -> None:
    """Print a line without disturbing a progress bar."""
    from tqdm import tqdm

    if sys.stdout is not None:
        tqdm.write(line)


def counting(progress: Callable[[int, int], object] | None, total: int) -> Callable[[], None]:
    """A function that tells `progress` how much is done, and of how much; each call, from any thread, is one more."""
    done, one_at_a_time = itertools.count(1), threading.Lock()

    def count() -> None:
        if progress is not None:
            with one_at_a_time:
                progress(next(done), total)

    return count


def counted(count: int, noun: str) -> str:
    """A number and what it counts: '1 image', '2,000 images'."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def progress(items: Sequence[T], what: str) -> Iterator[T]:
    """The items, with a progress bar."""
    with ProgressBar(what, total=len(items)) as bar:
        for item in items:
            yield item
            bar.update()


def table(title: str, header: Sequence[str], rows: Iterable[Sequence[object]], *, footer: Sequence[object] = ()) -> str:
    """A table as text, as standard output can show it: the first column left-aligned, the others right-aligned."""
    lines = [[_shown(str(cell)) for cell in row] for row in (header, *rows, *([footer] if footer else []))]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]

    def line(row: Sequence[str]) -> str:
        first, *rest = (
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        return "  " + "   ".join([first, *rest]).rstrip()

    rule = "  " + "-" * (sum(widths) + 3 * (len(widths) - 1))
    body = [line(row) for row in lines[1:]]
    if footer:
        body.insert(-1, rule)
    return "\n".join([title, line(lines[0]), rule, *body])
