"""The search for pairs: the same as comparing all with all, in little memory."""

import itertools
import tracemalloc

import numpy as np
import pytest

from libraries.data import close_hashes, fingerprints
from libraries.data.fingerprints import Forest, Pairs, above_similarity, spanning, within_distance


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprints, "ROWS", 7)
    monkeypatch.setattr(fingerprints, "COLUMNS", 19)


def as_set(found: Pairs) -> set[tuple[int, int, float]]:
    listed = list(zip(found.one.tolist(), found.other.tolist(), np.round(found.measure, 5).tolist(), strict=True))
    assert len(listed) == len(set(listed))
    return set(listed)


def hashes(count: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Bits of which many are close, upright or mirrored."""
    generator = np.random.default_rng(seed)
    bits = generator.integers(0, 2, (count, 16, 16)).astype(bool)
    for row in range(1, count, 3):
        bits[row] = bits[row - 1] if row % 2 else bits[row - 1][:, ::-1]
        bits[row].flat[generator.choice(256, row % 20, replace=False)] ^= True
    return bits.reshape(count, 256), bits[:, :, ::-1].reshape(count, 256)


BY = pytest.mark.parametrize("worthwhile", [0.0, np.inf], ids=["matrix products", "bands"])


@BY
@pytest.mark.parametrize("count", [0, 1, 2, 7, 8, 61])
def test_hashes_as_a_naive_loop_finds_them(count: int, worthwhile: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprints, "WORTHWHILE", worthwhile)
    monkeypatch.setattr(close_hashes, "AT_ONCE", 3)
    bits, others = hashes(count)
    expected = set()
    for i, j in itertools.combinations(range(count), 2):
        distance = min(np.count_nonzero(bits[i] != bits[j]), np.count_nonzero(others[i] != bits[j]))
        if distance <= 12:
            expected.add((i, j, float(distance)))
    assert as_set(within_distance(bits, others, most=12)) == expected
    assert count < 61 or {d for _, _, d in expected} >= {0.0, 12.0}, "the limit itself is tried"


@pytest.mark.parametrize("most", [0, 3, 12, fingerprints.MOST_BANDED])
def test_bands_miss_nothing(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    bits, others = hashes(2000, seed=most)
    bits[:40], others[:40] = bits[40], others[40]  # in every band
    found = []
    for worthwhile in (0.0, np.inf):
        monkeypatch.setattr(fingerprints, "WORTHWHILE", worthwhile)
        found.append(within_distance(bits, others, most=most))
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(found[0].one) > 800


def test_embeddings_as_a_naive_loop_finds_them() -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(60, 8)).astype(np.float32) * generator.uniform(0.1, 10, (60, 1)).astype(np.float32)
    x[5], x[9], x[11] = 0, np.nan, np.inf
    usable = [i for i in range(60) if i not in (5, 9, 11)]
    expected = set()
    for i, j in itertools.combinations(usable, 2):
        cosine = float(x[i] @ x[j] / np.linalg.norm(x[i]) / np.linalg.norm(x[j]))
        if cosine >= 0.6:
            expected.add((i, j))
    found = above_similarity([x], least=0.6)
    assert {(i, j) for i, j, _ in as_set(found)} == expected and len(expected) > 20
    assert found.measure.min() >= 0.6 and found.measure.max() <= 1.00001


def test_of_several_views_the_most_similar_count_but_never_two_parts() -> None:
    generator = np.random.default_rng(1)
    x = generator.normal(size=(40, 3, 6)).astype(np.float32)
    x /= np.linalg.norm(x, axis=2, keepdims=True)
    expected = {}
    for i, j in itertools.combinations(range(40), 2):
        cosine = max(float(x[i, v] @ x[j, w]) for v in range(3) for w in range(3) if v == 0 or w == 0)
        if cosine >= 0.8:
            expected[i, j] = cosine
    found = above_similarity([x[:, view] for view in range(3)], least=0.8)
    assert {(i, j): c for i, j, c in as_set(found)} == pytest.approx(expected, abs=1e-4) and len(expected) > 20
    odd = np.arange(1, 40, 2)
    among = above_similarity([x[:, view] for view in range(3)], rows=odd, least=0.8).of(odd)
    assert {(i, j) for i, j, _ in as_set(among)} == {(i, j) for i, j in expected if i % 2 and j % 2}


@BY
@pytest.mark.parametrize("most_pairs", [1, 10, 50])
def test_too_many_pairs_become_fewer_that_join_the_same(
    most_pairs: int, worthwhile: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprints, "WORTHWHILE", worthwhile)
    bits, others = hashes(60)
    bits[30:50], others[30:50] = bits[30], others[30]  # 190 pairs
    everything = within_distance(bits, others, most=12)
    fewer = within_distance(bits, others, most=12, most_pairs=most_pairs)
    assert len(fewer.one) < 60 < len(everything.one)
    assert as_set(fewer) <= as_set(everything)
    groups = []
    for found in (everything, fewer):
        forest = Forest(60)
        forest.join_all(found)
        groups.append(forest.groups().tolist())
    assert groups[0] == groups[1]


def test_of_a_ring_the_weakest_link_goes() -> None:
    ring = Pairs(np.array([0, 1, 0]), np.array([1, 2, 2]), np.array([0.9, 0.7, 0.8], np.float32))

    assert spanning(ring, 3).measure.tolist() == pytest.approx([0.9, 0.8])


def test_groups_are_known_by_their_first_row() -> None:
    forest = Forest(6)
    assert forest.join(4, 2) and forest.join(5, 4) and not forest.join(2, 5)
    assert forest.groups().tolist() == [0, 1, 2, 3, 2, 2]


def test_memory_is_that_of_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprints, "ROWS", 256)
    monkeypatch.setattr(fingerprints, "COLUMNS", 512)
    bits = np.random.default_rng(0).integers(0, 2, (6000, 256)).astype(bool)
    tracemalloc.start()
    within_distance(bits, bits, most=10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30e6, "6000 x 6000 float32 would be 144 MB"
