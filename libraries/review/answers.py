"""What people's answers say: how many labels may still be wrong, and whether it is worth to look at more."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from libraries.base.console import counted
from libraries.data.annotation_log import History, Place
from libraries.data.class_folders import in_pool

DRAWN = 50  # images drawn at random: with one wrong among them, between 0.05 and 11% of the others are
_LAST = 200  # answers that say whether the next ones will be worth it
_FEWEST = 100
_FEW = 0.05  # of these that changed something


@dataclass(frozen=True)
class Answers:
    """Whether each image on which people have decided has another label than before, or a mark; the pool left out.

    Attributes:
        all: in the order of the last answers.
        drawn: of the images that were drawn at random among those that looked right.
    """

    all: list[bool]
    drawn: list[bool]

    @classmethod
    def of(cls, history: History) -> "Answers":
        """What is in effect now, whatever was answered, taken back or corrected before."""
        judged: dict[str, tuple[str, bool, Place]] = {}  # by present path: the first path, whether drawn, the place
        for step in history.done:
            for change in step.changes:
                first, drawn, _ = judged.pop(change.before.path, (change.before.path, False, None))
                judged[change.after.path] = first, drawn or change.drawn, change.after
        decided = history.state.decided
        found = [
            (drawn, PurePosixPath(first).parent != PurePosixPath(now.path).parent or now.mark is not None)
            for path, (first, drawn, now) in judged.items()
            if path in decided and not in_pool(first)
        ]
        return cls([is_wrong for _, is_wrong in found], [is_wrong for drawn, is_wrong in found if drawn])

    def told(self, *, left: int, advice: Sequence[str] = ()) -> list[str]:
        """What they say, in sentences.

        Args:
            left: images with a label that nobody has looked at, and that look right.
            advice: what script 4 says about more images.
        """
        lines = []
        if len(self.drawn) >= DRAWN and left:
            wrong, drawn = sum(self.drawn), len(self.drawn)
            low, high = (left * end for end in proportion_interval(wrong, drawn))
            lines.append(
                f"Of {drawn:,} labels drawn at random among those that looked right, "
                + (
                    f"{wrong:,} {'was' if wrong == 1 else 'were'} wrong. So of the {left:,} others, about "
                    f"{wrong / drawn * left:,.0f} may be, between {math.floor(low):,} and {math.ceil(high):,}."
                    if wrong
                    else f"none was wrong. So of the {left:,} others, {math.ceil(high):,} at most may be."
                )
            )
        last = self.all[-_LAST:]
        if len(last) >= _FEWEST and sum(last) <= _FEW * len(last):
            changes = counted(sum(last), "label") if any(last) else "no label"
            lines.append(f"The last {len(last):,} answers changed {changes}: to look at more brings little.")
            lines += [sentence for sentence in advice if sentence.startswith("More images of")]
        return lines


def proportion_interval(count: int, of: int) -> tuple[float, float]:
    """The exact 95% interval of the probability by which `count` of `of` trials came (Clopper & Pearson 1934).

    Its ends are the probabilities by which so many or more, or so many or fewer, come in one of 40 cases.
    """

    def at_least(fewest: int, p: float) -> float:
        def log_probability(i: int) -> float:
            ways = math.lgamma(of + 1) - math.lgamma(i + 1) - math.lgamma(of - i + 1)
            return ways + i * math.log(p) + (of - i) * math.log1p(-p)

        return math.fsum(math.exp(log_probability(i)) for i in range(fewest, of + 1))

    def root(is_beyond: Callable[[float], bool]) -> float:
        low, high = 0.0, 1.0
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (low, middle) if is_beyond(middle) else (middle, high)
        return (low + high) / 2

    low = 0.0 if count == 0 else root(lambda p: at_least(count, p) > 0.025)
    high = 1.0 if count == of else root(lambda p: 1 - at_least(count + 1, p) < 0.025)
    return low, high
