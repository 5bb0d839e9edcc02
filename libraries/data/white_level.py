"""Which value is white in files of more than 8 bits per channel: one for all images of a data set.

A 16-bit file says how wide its values are stored, not how far they reach: a camera of 12 bits gives 4,095 at most,
which on the scale of 16 bits is nearly black. So script 1 looks how far the values of all images reach, and takes the
least of 8, 10, 12, 14 and 16 bits that holds them. A level for each image would make dark pictures bright, and pictures
of one camera incomparable. That test images have a say is no leak: the level is a property of the files.

- Values beyond the level become white. Hot pixels do not decide: what up to one pixel in 10,000 of an image has.
- Where a TIFF says its greatest value (MaxSampleValue), that counts. PNG's sBIT does not: there, values are spread over
  all 16 bits however many of them mean something.
- At full range, 65,535, there is no common scale for 32-bit integers outside 0..65535 and floats outside 0..255: each
  such image is stretched from its least to its greatest value. At any other level that one is white for them, too.
- Floats within 0..1 always have 1 for white.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from libraries.base.console import counted

FULL_RANGE = 65535  # where nothing is said, as in all bundles and data sets of earlier versions
LEVELS = (255, 1023, 4095, 16383, FULL_RANGE)  # of 8, 10, 12, 14 and 16 bits

_FEW = 10  # one in so many images, or fewer, that decide the level for all are worth a warning


class Depth(NamedTuple):
    """How far the values of a picture of more than 8 bits reach.

    Attributes:
        level: the least of LEVELS that holds them; None: they have no part in the choice of the data set's level.
        is_stretched: at full range, it is stretched from its least to its greatest value.
    """

    level: int | None
    is_stretched: bool = False


@dataclass(frozen=True)
class WhiteLevel:
    """What is white in the files of a data set, and why.

    Attributes:
        level: the value.
        is_given: whether a person has said so.
        depths: of all images of more than 8 bits, by path.
    """

    level: int
    is_given: bool
    depths: Mapping[str, Depth]

    @classmethod
    def of(cls, depths: Mapping[str, Depth], *, given: int | None = None) -> "WhiteLevel":
        """The white level of images that belong together; `given`: by a person."""
        measured = max((depth.level for depth in depths.values() if depth.level), default=FULL_RANGE)
        return cls(given or measured, given is not None, depths)

    def to_json(self) -> dict[str, int]:
        """As it stands in examples.json; at full range nothing is said of it, as in earlier versions."""
        return {} if self.level == FULL_RANGE else {"white_level": self.level}

    def told(self) -> list[str]:
        """What is taken for white, and for which images that is doubtful, in sentences."""
        reaching = {path: depth.level for path, depth in self.depths.items() if depth.level}
        lines = self._told_if_given(reaching) if self.is_given else self._told_if_measured(reaching)
        stretched = [path for path, depth in self.depths.items() if depth.is_stretched]
        if stretched and self.level == FULL_RANGE:
            lines.append(
                f"Warning: values of no known range in {counted(len(stretched), 'image')}, e.g. {stretched[0]}: each "
                "is stretched from its least to its greatest value, so that brightness says nothing; whiteLevel gives "
                "all one white"
            )
        return lines

    def _told_if_given(self, reaching: Mapping[str, int]) -> list[str]:
        if not self.depths:
            return []
        lines = [f"whiteLevel: {self.level:,} is white in {counted(len(self.depths), 'image')} of more than 8 bits"]
        if beyond := [path for path, level in reaching.items() if _below(level) >= self.level]:
            lines.append(f"Warning: {len(beyond):,} of them with brighter pixels, e.g. {beyond[0]}")
        return lines

    def _told_if_measured(self, reaching: Mapping[str, int]) -> list[str]:
        count = Counter(reaching.values())
        lines = []
        if count and self.level != FULL_RANGE:
            bits = self.level.bit_length()
            lines.append(f"{bits}-bit values in 16-bit files: {self.level:,} is taken for white")
        if len(count) > 1 and count[self.level] * _FEW <= len(reaching):
            second = sorted(count)[-2]
            first = next(path for path, level in reaching.items() if level == self.level)
            lines.append(
                f"Warning: of {len(reaching):,} images of more than 8 bits only {count[self.level]:,} have values "
                f"above {second:,}, e.g. {first}: for their sake {self.level:,} is white, and the others are dark. If "
                f"they come from another camera, leave them out, or set whiteLevel = {second}"
            )
        return lines


def _below(level: int) -> int:
    """The next lower level: a picture that reaches `level` has greater values."""
    return max((lower for lower in LEVELS if lower < level), default=0)
