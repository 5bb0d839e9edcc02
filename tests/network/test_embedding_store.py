"""The feature store: what is written is read, a stopped run ends as an undisturbed one, and damage is noticed."""

import errno
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from libraries.base.errors import ImageError, MissingInput, StorageError
from libraries.base.file_system import TEMPORARY
from libraries.network.embedding_store import Features, read_features, write_features

KEY, OTHER_KEY = "ab" * 32, "cd" * 32


@dataclass(frozen=True)
class Example:
    path: str
    label: str
    split: str


EXAMPLES = [Example(f"Hütte & Wald/{i}.jpg", "ab"[i % 2], "train" if i % 4 else "test") for i in range(25)]
Stream = Generator[tuple[Example, dict[str, np.ndarray] | ImageError]]


class Network:
    """Stands for an engine: outputs that depend on the path alone; counts what it is asked for; can break off."""

    def __init__(self, *, bad: Iterable[int] = (), stop_after: int | None = None, scores: bool = True) -> None:
        self.bad = {EXAMPLES[i].path for i in bad}
        self.stop_after, self.scores = stop_after, scores
        self.seen: list[str] = []
        self.closed = False

    def __call__(self, examples: Iterable[Example]) -> Stream:
        try:
            for example in examples:
                if len(self.seen) == self.stop_after:
                    raise KeyboardInterrupt
                self.seen.append(example.path)
                yield (
                    example,
                    ImageError("cut off", f"/somewhere/{example.path}")
                    if example.path in self.bad
                    else self.outputs(example),
                )
        finally:
            self.closed = True

    def outputs(self, example: Example) -> dict[str, np.ndarray]:
        generator = np.random.default_rng(list(example.path.encode()))
        outputs = {"embedding": generator.normal(size=6).astype(np.float32)}
        return outputs | ({"scores": generator.normal(size=2).astype(np.float32)} if self.scores else {})


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., tuple[list[Path], list[ImageError]]]:
    def call(
        network: Network, examples: list[Example] = EXAMPLES, key: str = KEY
    ) -> tuple[list[Path], list[ImageError]]:
        return write_features(tmp_path, examples, key=key, run=network, rows_per_part=10)

    return call


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def check(features: Features, examples: list[Example]) -> None:
    assert list(zip(features.path, features.label, features.split, strict=True)) == [
        (e.path, e.label, e.split) for e in examples
    ]
    outputs = [Network().outputs(example) for example in examples]
    np.testing.assert_array_equal(features.embedding, [o["embedding"] for o in outputs])
    assert features.scores is not None
    np.testing.assert_array_equal(features.scores, [o["scores"] for o in outputs])
    assert features.embedding.dtype == features.scores.dtype == np.float32


def test_what_is_written_is_read(tmp_path: Path) -> None:
    progress: list[int] = []
    parts, failed = write_features(
        tmp_path, EXAMPLES, key=KEY, run=Network(), rows_per_part=10, progress=progress.append
    )
    assert [part.name for part in parts] == ["part-00000.parquet", "part-00001.parquet", "part-00002.parquet"]
    assert failed == []
    assert sum(progress) == 25
    check(read_features(tmp_path), EXAMPLES)


def test_one_part_and_no_scores(tmp_path: Path, write: Callable) -> None:
    write(Network(scores=False), EXAMPLES[:3])
    features = read_features(tmp_path)
    assert features.scores is None
    assert features.embedding.shape == (3, 6)


def test_the_columns_are_as_documented(write: Callable) -> None:
    parts, _ = write(Network())
    schema = pq.read_schema(parts[0])
    assert [f"{field.name}: {field.type}" for field in schema] == [
        "path: string",
        "label: string",
        "split: string",
        "embedding: fixed_size_list<element: float not null>[6]",
        "scores: fixed_size_list<element: float not null>[2]",
    ]
    assert schema.metadata[b"key"].decode() == KEY


@pytest.mark.parametrize("stop_after", [0, 1, 9, 10, 11, 24])
def test_a_stopped_run_ends_with_the_same_bytes(tmp_path: Path, stop_after: int) -> None:
    write_features(tmp_path / "whole", EXAMPLES, key=KEY, run=Network(bad=[3, 12]), rows_per_part=10)
    stopped = Network(bad=[3, 12], stop_after=stop_after)
    with pytest.raises(KeyboardInterrupt):
        write_features(tmp_path / "resumed", EXAMPLES, key=KEY, run=stopped, rows_per_part=10)
    network = Network(bad=[3, 12])
    _, failed = write_features(tmp_path / "resumed", EXAMPLES, key=KEY, run=network, rows_per_part=10)
    assert network.seen == [example.path for example in EXAMPLES[stop_after // 10 * 10 :]]
    assert [error.path for error in failed] == [EXAMPLES[3].path, EXAMPLES[12].path]
    assert contents(tmp_path / "resumed") == contents(tmp_path / "whole")


def test_a_finished_run_is_not_repeated(tmp_path: Path, write: Callable) -> None:
    parts, failed = write(Network(bad=[3]))
    again = Network()
    progress: list[int] = []
    assert (
        write_features(tmp_path, EXAMPLES, key=KEY, run=again, rows_per_part=10, progress=progress.append)[0] == parts
    )
    assert again.seen == []
    assert sum(progress) == 25
    assert (
        [str(error) for error in write(again)[1]]
        == [str(error) for error in failed]
        == [f"{EXAMPLES[3].path}: cut off"]
    )


def test_bad_images_are_left_out_and_reported(tmp_path: Path, write: Callable) -> None:
    bad = [0, 9, 10, 24]
    _, failed = write(Network(bad=bad))
    assert [error.path for error in failed] == [EXAMPLES[i].path for i in bad]
    check(read_features(tmp_path), [example for i, example in enumerate(EXAMPLES) if i not in bad])


def test_a_part_may_be_all_bad(tmp_path: Path, write: Callable) -> None:
    write(Network(bad=range(10)))
    check(read_features(tmp_path), EXAMPLES[10:])
    again = Network()
    write(again)
    assert again.seen == []


def test_no_image_at_all_gives_no_features(tmp_path: Path, write: Callable) -> None:
    write(Network(bad=range(25)))
    with pytest.raises(MissingInput, match="holds no features"):
        read_features(tmp_path)
    assert write(Network(), []) == ([], [])
    assert contents(tmp_path) == {}
    with pytest.raises(MissingInput, match="run the script that writes them first"):
        read_features(tmp_path)


def test_parts_with_another_key_are_written_again(tmp_path: Path, write: Callable) -> None:
    write(Network(), key=OTHER_KEY)
    network = Network()
    write(network)
    assert len(network.seen) == 25
    write(Network(), key=KEY)
    check(read_features(tmp_path), EXAMPLES)


def test_other_examples_under_the_same_key_are_noticed(tmp_path: Path, write: Callable) -> None:
    write(Network())
    shuffled = [*EXAMPLES[:10], *reversed(EXAMPLES[10:])]
    network = Network()
    write(network, shuffled)
    assert network.seen == [example.path for example in shuffled[10:]]
    check(read_features(tmp_path), shuffled)


def test_leftovers_are_removed(tmp_path: Path, write: Callable) -> None:
    write(Network())
    (tmp_path / f"{TEMPORARY}1234-part-00001.parquet").write_bytes(b"half a part")
    (tmp_path / "manifest.json").write_text("{}")
    write(Network(), EXAMPLES[:15])
    assert sorted(contents(tmp_path)) == ["manifest.json", "part-00000.parquet", "part-00001.parquet"]
    check(read_features(tmp_path), EXAMPLES[:15])


def damaged(data: bytes) -> dict[str, bytes]:
    middle = data.index(Network().outputs(EXAMPLES[12])["embedding"].tobytes())
    flipped = bytes([data[middle] ^ 1])
    return {
        "empty": b"",
        "truncated": data[:-20],
        "text": b"not a Parquet file",
        "one bit flipped": data[:middle] + flipped + data[middle + 1 :],
        "no key": data.replace(b"key", b"kex"),
    }


@pytest.mark.parametrize("kind", ["empty", "truncated", "text", "one bit flipped", "no key"])
def test_a_damaged_part_is_named_and_written_again(tmp_path: Path, write: Callable, kind: str) -> None:
    parts, _ = write(Network())
    before = contents(tmp_path)
    parts[1].write_bytes(damaged(parts[1].read_bytes())[kind])
    with pytest.raises(StorageError, match=r"part-00001\.parquet cannot be read \(.*\): run the script"):
        read_features(tmp_path)
    network = Network()
    write(network)
    assert network.seen == [example.path for example in EXAMPLES[10:20]]
    assert contents(tmp_path) == before


def test_parts_of_two_runs_are_not_mixed(tmp_path: Path, write: Callable) -> None:
    parts, _ = write(Network())
    other, _ = write_features(tmp_path / "other", EXAMPLES, key=OTHER_KEY, run=Network(), rows_per_part=10)
    parts[2].write_bytes(other[2].read_bytes())
    with pytest.raises(StorageError, match="from different runs"):
        read_features(tmp_path)


def test_a_full_disk_is_one_line_and_stops_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    network = Network()
    with pytest.raises(StorageError, match="the disk is full") as caught:
        write_features(tmp_path, EXAMPLES, key=KEY, run=network, rows_per_part=10)
    assert network.closed
    assert "\n" not in str(caught.value)
    assert contents(tmp_path) == {}


def test_rows_of_a_split_come_first_if_wanted(tmp_path: Path, write: Callable) -> None:
    write(Network(bad=[3]))
    stored, sorted_ = read_features(tmp_path), read_features(tmp_path, first="test")
    order = sorted(range(24), key=lambda row: stored.split[row] != "test")
    assert sorted_.split == [stored.split[row] for row in order] != stored.split
    assert (sorted_.path, sorted_.label) == tuple([each[row] for row in order] for each in (stored.path, stored.label))
    np.testing.assert_array_equal(sorted_.embedding, stored.embedding[order])
    assert stored.scores is not None
    np.testing.assert_array_equal(sorted_.scores, stored.scores[order])
