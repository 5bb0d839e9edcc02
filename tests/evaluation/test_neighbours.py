"""The training images most like an image, against the plain calculation."""

import numpy as np
import pytest

from libraries.evaluation import neighbours
from libraries.evaluation.neighbours import nearest


@pytest.mark.parametrize("rows", [7, 64, 8192])
def test_same_as_sorting_all_cosines(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(neighbours, "_ROWS", rows)
    generator = np.random.default_rng(0)
    embeddings = generator.normal(size=(200, 16)).astype(np.float32)
    queries = generator.normal(size=(9, 16)).astype(np.float32) * 100
    cosines = (queries @ embeddings.T) / np.outer(np.linalg.norm(queries, axis=1), np.linalg.norm(embeddings, axis=1))
    assert np.array_equal(nearest(embeddings, queries, count=5), np.argsort(-cosines, axis=1)[:, :5])


def test_an_image_is_most_like_itself_at_any_brightness() -> None:
    embeddings = np.eye(4, dtype=np.float32)
    assert nearest(embeddings, 3 * embeddings, count=1)[:, 0].tolist() == [0, 1, 2, 3]


def test_no_more_than_there_are_and_zeros_do_no_harm() -> None:
    embeddings = np.array([[0, 0], [1, 0]], np.float32)
    assert nearest(embeddings, np.array([[1, 1], [0, 0]], np.float32), count=3).tolist() == [[1, 0], [0, 1]]
