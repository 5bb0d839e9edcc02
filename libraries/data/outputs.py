"""The output of step 1: examples.csv, duplicates.csv and quality.csv."""

from collections.abc import Sequence
from pathlib import Path

from libraries.base.storage import Artefact
from libraries.base.tables import write_table
from libraries.data.dataset import Example, write_examples
from libraries.data.depth import WhiteLevel
from libraries.data.duplicates import Duplicates
from libraries.data.quality import QualityRow


def write(
    artefact: Artefact,
    examples: Sequence[Example],
    *,
    alike: Duplicates,
    odd: Sequence[QualityRow],
    left_out: Sequence[str],
    white: WhiteLevel,
) -> Path:
    """Write examples.csv, duplicates.csv and quality.csv, the manifest last.

    Args:
        left_out: paths of images that are not examples, so that later steps do not take them for new ones.

    Returns:
        The path of examples.csv.
    """
    path = artefact.folder / "examples.csv"
    artefact.begin()
    write_examples(path, examples)
    alike.write(artefact.folder / "duplicates.csv")
    write_table(artefact.folder / "quality.csv", QualityRow, odd)
    artefact.commit([path], left_out=list(left_out), **white.to_json())
    return path
