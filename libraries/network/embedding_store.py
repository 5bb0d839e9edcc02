"""The feature store: a folder of Parquet parts with the outputs of a network for every example.

Columns: path, label, split (strings), and each output of the network as a FixedSizeList<float32>: embedding [D] and, if
the network has a head, scores [K]. Part i has the examples from i x ROWS_PER_PART on, in order; images that could not
be read have no row, but are listed with the reason in its metadata. A part has the key of its recipe, and checksums, so
that a stopped run continues with the complete parts, and ends with the same bytes as an uninterrupted one.
"""

import contextlib
import itertools
import json
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from libraries.base import large_arrays
from libraries.base.arrays import Float32
from libraries.base.errors import ImageError, MissingInput, StorageError
from libraries.base.file_system import TEMPORARY
from libraries.base.storage import atomic_path

STRINGS = ("path", "label", "split")
PARTS = "part-*.parquet"
ROWS_PER_PART = 1024  # 5 MB at D = 1280: little to lose when stopped, little overhead per file


class LabelledImage(Protocol):
    """The facts about an example that the store keeps."""

    @property
    def path(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def split(self) -> str: ...


E = TypeVar("E", bound=LabelledImage)


@dataclass(frozen=True)
class Features:
    """The feature store in memory; row i of every field belongs to the same image.

    Attributes:
        embedding: float32 [N, D].
        scores: float32 [N, K]; None if the network has no head.
    """

    path: list[str]
    label: list[str]
    split: list[str]
    embedding: Float32
    scores: Float32 | None


def write_features(
    folder: Path,
    examples: Sequence[E],
    *,
    key: str,
    run: Callable[[Iterable[E]], Generator[tuple[E, Mapping[str, Float32] | ImageError]]],
    progress: Callable[[int], object] = lambda count: None,
    rows_per_part: int = ROWS_PER_PART,
) -> tuple[list[Path], list[ImageError]]:
    """Write the outputs for all examples into `folder`; complete parts that exist are kept.

    Args:
        key: hash of what the features are made from; parts with another key are written again.
        run: examples → (example, outputs by name, each float32 [size]) in the same order, e.g. an Engine's stream;
            called once, with the examples of all missing parts, or not at all.
        progress: called with the number of examples just done.

    Returns:
        The paths of all parts, in order, and the errors of the images that could not be read.

    Raises:
        StorageError: a part cannot be written.
    """
    slices = [examples[start : start + rows_per_part] for start in range(0, len(examples), rows_per_part)]
    parts = [StorePart(folder / f"part-{i:05d}.parquet", key, slice_) for i, slice_ in enumerate(slices)]
    _remove_all_but(folder, {part.path for part in parts})
    missing = []
    for part in parts:
        if part.is_whole():
            progress(len(part.examples))
        else:
            missing.append(part)
    if missing:
        with contextlib.closing(run(itertools.chain.from_iterable(part.examples for part in missing))) as results:
            for part in missing:
                part.write(itertools.islice(results, len(part.examples)), progress)
    failed = [ImageError(reason, path) for part in parts for path, reason in _failed(pq.read_schema(part.path))]
    return [part.path for part in parts], failed


@dataclass(frozen=True)
class StorePart(Generic[E]):
    """One file of the store, written or not, and the examples that belong in it."""

    path: Path
    key: str
    examples: Sequence[E]

    def is_whole(self) -> bool:
        """Whether the file exists, is undamaged, and has this key and these examples."""
        try:
            table = _read(self.path)
        except StorageError:
            return False
        if table.schema.metadata[b"key"].decode() != self.key:
            return False
        failed = {path for path, _ in _failed(table.schema)}
        return bool(table["path"].to_pylist() == [e.path for e in self.examples if e.path not in failed])

    def write(
        self, results: Iterable[tuple[E, Mapping[str, Float32] | ImageError]], progress: Callable[[int], object]
    ) -> None:
        """Write the file, atomically, from the results for its examples."""
        done: list[E] = []
        rows: list[Mapping[str, Float32]] = []
        failed: list[tuple[str, str]] = []
        for example, outputs in results:
            if isinstance(outputs, ImageError):
                failed.append((example.path, outputs.reason))
            else:
                done.append(example)
                rows.append(outputs)
            progress(1)
        columns = {name: pa.array([getattr(example, name) for example in done], pa.string()) for name in STRINGS}
        if rows:  # if every image failed, the sizes of the outputs are not known
            columns |= {name: _fixed_size_lists(np.stack([row[name] for row in rows])) for name in rows[0]}
        fields = [pa.field(name, column.type, nullable=False) for name, column in columns.items()]
        metadata = {"key": self.key, "failed": json.dumps(failed)}
        table = pa.Table.from_arrays(list(columns.values()), schema=pa.schema(fields, metadata))
        with atomic_path(self.path) as temporary:
            # Embeddings hardly compress, and uncompressed ones are read four times as fast.
            pq.write_table(table, temporary, compression="none", use_dictionary=STRINGS, write_page_checksum=True)


def read_features(folder: Path, *, first: str | None = None) -> Features:
    """All rows of all parts in a folder, in order; very many are in a temporary file there instead of in memory.

    Args:
        first: the split whose rows come before all others, so that they are a slice of the whole.

    Raises:
        MissingInput: there are no parts, or they have no rows.
        StorageError: a part is damaged, or the parts are from different runs.
    """
    paths = sorted(folder.glob(PARTS))
    tables = [_read(path, STRINGS) for path in paths]
    if not any(table.num_rows for table in tables):
        raise MissingInput(f"{folder} holds no features: run the script that writes them first")
    if len({table.schema.metadata[b"key"] for table in tables if table.num_rows}) > 1:
        raise StorageError(f"the parts in {folder} are from different runs: run the script that writes them again")
    strings = pa.concat_tables([table.replace_schema_metadata() for table in tables])
    order = np.argsort(np.array([split != first for split in strings["split"].to_pylist()]), kind="stable")
    place = np.argsort(order)  # of each stored row
    outputs: dict[str, Float32] = {}
    start = 0
    for path, rows in zip(paths, (table.num_rows for table in tables), strict=True):
        part = _read(path)
        for name in ("embedding", "scores"):
            if rows and name in part.column_names:
                values = _matrix(part[name])
                if name not in outputs:
                    outputs[name] = large_arrays.empty((len(place), values.shape[1]), folder=folder)
                outputs[name][place[start : start + rows]] = values
        start += rows
    path_of, label, split = (strings[name].take(order).to_pylist() for name in STRINGS)
    return Features(path_of, label, split, outputs["embedding"], outputs.get("scores"))


def _read(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """A part's content, or some columns of it, their checksums verified."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            table = file.read(columns)
        if b"key" not in (table.schema.metadata or {}):
            raise ValueError("no key in its metadata")
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = str(error).partition("\n")[0]
        raise StorageError(f"{path} cannot be read ({reason}): run the script that writes it again") from error
    return table


def _failed(schema: pa.Schema) -> list[tuple[str, str]]:
    """(path, reason) of the images that are missing from a part."""
    return [(path, reason) for path, reason in json.loads(schema.metadata[b"failed"])]


def _fixed_size_lists(values: Float32) -> pa.Array:
    """float32 [N, D] → N lists of D; declared without nulls, which makes reading twice as fast."""
    element = pa.field("element", pa.float32(), nullable=False)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), type=pa.list_(element, values.shape[1]))


def _matrix(column: pa.ChunkedArray) -> Float32:
    """N lists of D → float32 [N, D]."""
    flat = [np.asarray(np.from_dlpack(chunk.flatten()), np.float32) for chunk in column.chunks]  # to_numpy needs pandas
    chunks = [values.reshape(len(chunk), -1) for values, chunk in zip(flat, column.chunks, strict=True)]
    return chunks[0] if len(chunks) == 1 else np.concatenate(chunks)


def _remove_all_but(folder: Path, keep: set[Path]) -> None:
    """Delete what earlier runs left: parts beyond the last, and temporary files of killed runs."""
    for path in [*folder.glob(PARTS), *folder.glob(f"{TEMPORARY}*")]:
        if path not in keep:
            path.unlink(missing_ok=True)
