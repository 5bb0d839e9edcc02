"""What became of the objects of a store, counted, as lines of text."""

from collections import Counter
from dataclasses import dataclass, field

from libraries.base.console import counted, table
from libraries.data.formats import NotRead, foreign_called, why_not_of_name

_NAMED = 10  # objects of each problem that are told by name


@dataclass
class Outcome:
    """What became of the objects.

    Attributes:
        counts: of images, by the folder at the top: 'copied', 'replaced', or 'there' before.
        problems: objects that were left out, by the reason: how many, and the first of them.
        others: how many objects are not images, by what they are.
        gone: how many were copied once, and are not in the store any more.
    """

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    problems: dict[str, tuple[int, list[str]]] = field(default_factory=dict)
    others: Counter[NotRead] = field(default_factory=Counter)
    gone: int = 0

    def total(self, kind: str) -> int:
        """How many images were copied, replaced or there."""
        return sum(count[kind] for count in self.counts.values())

    def add(self, path: str, kind: str) -> None:
        """Count an image."""
        self.counts.setdefault(path.partition("/")[0], Counter())[kind] += 1

    def add_other(self, path: str, kind: str = "") -> None:
        """Count an object that is not an image; `kind` is what it is by its content."""
        name = path.rpartition("/")[2]
        self.others[why_not_of_name(name, foreign_called(kind))] += 1

    def leave_out(self, path: str, reason: str) -> None:
        """Count a problem."""
        count, first = self.problems.get(reason, (0, []))
        self.problems[reason] = count + 1, first if count >= _NAMED else [*first, path]

    def summary_lines(self) -> list[str]:
        """Lines about the images, the other objects and the problems."""
        kinds = ("copied", "replaced", "there")
        rows = [(label, *(count[kind] for kind in kinds)) for label, count in sorted(self.counts.items())]
        header = ["folder", "copied", "replaced", "there before"]
        lines = [table("Images", header, rows, footer=["all", *map(self.total, kinds)])]
        lines += [f"  left out: {other.describe(count)}" for other, count in sorted(self.others.items())]
        for reason, (count, first) in self.problems.items():
            lines += [f"  left out: {readable(path)}: {reason}" for path in first]
            lines += [f"  left out: {counted(count - len(first), 'more object')}: {reason}"] * (count > len(first))
        if self.gone:
            lines.append(f"not in the store any more: {counted(self.gone, 'image')} copied earlier; the files stay")
        return lines


def readable(path: str) -> str:
    """A path from a stranger as text of one line."""
    return path if path.isprintable() and len(path) <= 200 else f"{path[:200]!r}{'…' if len(path) > 200 else ''}"
