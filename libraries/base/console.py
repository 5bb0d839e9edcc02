"""What scripts show to people: progress bars and tables. Quiet where no terminal looks on."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Self, TypeVar

T = TypeVar("T")


class ProgressBar:
    """A bar for long work, shown once it has taken a second, and only where standard error is a terminal."""

    def __init__(self, what: str, *, total: int | None = None, unit: str = "images") -> None:
        from tqdm import tqdm

        self._bar = tqdm(desc=what, total=total, unit=f" {unit}", delay=1, leave=False, disable=not sys.stderr.isatty())

    def update(self, count: int = 1) -> None:
        """Count further work as done."""
        self._bar.update(count)

    def show(self, done: int, total: int | None = None) -> None:
        """Say how much is done in all; and of how much, where that was not known before."""
        if total is not None:
            self._bar.total = total
        self._bar.update(done - self._bar.n)

    def write(self, line: str) -> None:
        """Print a line without disturbing the bar."""
        self._bar.write(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()


def progress(items: Sequence[T], what: str) -> Iterator[T]:
    """The items, with a progress bar."""
    with ProgressBar(what, total=len(items)) as bar:
        for item in items:
            yield item
            bar.update()


def table(title: str, header: Sequence[str], rows: Iterable[Sequence[object]], *, footer: Sequence[object] = ()) -> str:
    """A table as text: the first column to the left, the others to the right."""
    lines = [[str(cell) for cell in row] for row in (header, *rows, *([footer] if footer else []))]
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
