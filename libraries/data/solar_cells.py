"""The solar-cell images, a data set that comes inside a Python package."""

import importlib.util
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from libraries.base.errors import InputError
from libraries.base.file_system import sweep
from libraries.base.storage import atomic
from libraries.data.annotations import Annotations
from libraries.data.removal import removed

SOLAR_CELLS_ABOUT = (
    "2,624 electroluminescence images of solar cells (elpv-dataset, Deitsch et al. 2019), "
    "licence CC BY-NC-SA 4.0: name the source, no commercial use, share alike"
)
SOLAR_CELLS_RULE = "label 'defective' when the defect probability is above 0.5, else 'functional'"


def copy_solar_cells(
    folder: Path, *, progress: Callable[[Sequence[tuple[Path, Path]]], Iterable[tuple[Path, Path]]] = iter
) -> int:
    """Copy the images of the package elpv-dataset to `folder`/<label>/; existing files are kept.

    Images whose labels were changed by hand keep their new labels; removed duplicates stay removed.

    Returns:
        How many images were copied.

    Raises:
        InputError: the package is not installed, or is incomplete.
    """
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None or spec.origin is None:
        raise InputError(
            "the solar-cell images come in the package elpv-dataset: install it with 'pip install elpv-dataset'"
        )
    data = Path(spec.origin).parent / "data"
    moved = Annotations(folder).moved
    named = [(data / name, f"{label}/{Path(name).name}") for name, label in _solar_cell_labels(data / "labels.csv")]
    pairs = [(source, folder / moved.get(path, path)) for source, path in named]
    for label_folder in {target.parent for _, target in pairs}:
        sweep(label_folder)
    taken_out = {folder / path for path in removed(folder)}
    missing = [(source, target) for source, target in pairs if not target.exists() and target not in taken_out]
    for source, target in progress(missing):
        image = _read(source)
        with atomic(target) as file:
            file.write(image)
    return len(missing)


def _solar_cell_labels(table: Path) -> list[tuple[str, str]]:
    """File name and label of every image, from a table of path, probability and mono|poly, separated by blanks."""
    rows = [line.split() for line in _read(table).decode().splitlines() if line.strip()]
    return [(path, "defective" if float(probability) > 0.5 else "functional") for path, probability, *_ in rows]


def _read(file: Path) -> bytes:
    """The content of a file of the package."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise InputError(
            f"{file} cannot be read ({error.strerror}): repair its package with "
            "'pip install --force-reinstall elpv-dataset'"
        ) from error
