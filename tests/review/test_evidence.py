"""What is said about labels: planted errors are found, and nobody judges a copy of itself."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from libraries.base.arrays import Float32, Int
from libraries.review import evidence as module
from libraries.review.evidence import NEIGHBOURS, evidence, unlike_others


def clusters(count: int, classes: int, *, spread: float = 1.0, seed: int = 0) -> tuple[Float32, Int]:
    """Embeddings >= 0 of classes that overlap a little."""
    generator = np.random.default_rng(seed)
    centres = generator.gamma(1.0, 1.0, (classes, 64))
    labels = np.arange(count) % classes
    return np.abs(centres[labels] + spread * generator.normal(0, 1, (count, 64))).astype(np.float32), labels


def flipped(labels: Int, classes: int, share: float) -> Int:
    generator = np.random.default_rng(1)
    chosen = generator.choice(len(labels), round(share * len(labels)), replace=False)
    wrong = labels.copy()
    wrong[chosen] = (labels[chosen] + generator.integers(1, classes, len(chosen))) % classes
    return wrong


@pytest.mark.parametrize("most", [20_000, 300])
def test_planted_errors_come_first_and_the_true_label_is_suggested(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_FITTED", most)
    monkeypatch.setattr(module, "MOST_COMPARED", most)
    x, labels = clusters(800, 5)
    given = flipped(labels, 5, 0.1)
    found = evidence(x, given, np.arange(800), number_of_classes=5)
    is_wrong = given != labels
    assert average_precision_score(is_wrong, 1 - found.confidence) > 0.95
    assert (found.other == labels)[is_wrong].mean() > 0.95
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(found.votes.sum(axis=1), 1, atol=1e-5)


def test_many_classes_are_fitted_fold_by_fold_to_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x, labels = clusters(300, 5)
    together = evidence(x, labels, np.arange(300), number_of_classes=5)
    monkeypatch.setattr(module, "MOST_COLUMNS", 1)
    one_by_one = evidence(x, labels, np.arange(300), number_of_classes=5)
    # SVMs are fitted until their gradient is 1e-2 of the loss's
    np.testing.assert_allclose(one_by_one.probabilities, together.probabilities, atol=0.03)


def test_networks_that_have_not_seen_an_image_judge_it_alone() -> None:
    x, labels = clusters(200, 4)
    told = np.full((200, 4), np.nan, np.float32)
    told[:50] = np.random.default_rng(0).dirichlet(np.ones(4), 50)
    usual = evidence(x, labels, np.arange(200), number_of_classes=4)
    found = evidence(x, labels, np.arange(200), number_of_classes=4, judged=told)
    np.testing.assert_array_equal(found.probabilities[:50], told[:50])
    np.testing.assert_array_equal(found.probabilities[50:], usual.probabilities[50:])


def test_images_of_one_group_do_not_judge_each_other() -> None:
    x, labels = clusters(200, 2, spread=0.5)
    copies = np.repeat(x[:1], 30, axis=0)  # of an image of the first class, all under the second
    together, apart = np.full(30, 200), np.arange(200, 230)
    x, labels = np.concatenate([x, copies]), np.concatenate([labels, np.ones(30, int)])
    grouped = evidence(x, labels, np.concatenate([np.arange(200), together]), number_of_classes=2)
    assert grouped.confidence[200:].max() < 0.2 and grouped.votes[200:, 1].max() == 0
    alone = evidence(x, labels, np.concatenate([np.arange(200), apart]), number_of_classes=2)
    assert alone.votes[200:, 1].min() > 0.8, "this is why groups matter"


def test_neighbours_are_those_of_a_plain_search() -> None:
    x, labels = clusters(90, 3)
    found = evidence(x, labels, np.arange(90), number_of_classes=3)
    z = np.sqrt(x)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    similarity = z @ z.T
    np.fill_diagonal(similarity, -np.inf)
    nearest = np.argsort(-similarity, axis=1)[:, :NEIGHBOURS]
    expected = 1 - np.take_along_axis(similarity, nearest, axis=1).mean(axis=1)
    np.testing.assert_allclose(found.strangeness, expected, atol=1e-5)
    np.testing.assert_allclose(found.votes[:, 1], (labels[nearest] == 1).mean(axis=1), atol=1e-5)


def test_what_nobody_may_judge_is_unknown() -> None:
    x, labels = clusters(41, 2)
    labels[40] = 2  # the only one of its class
    found = evidence(x, labels, np.arange(41), number_of_classes=3)
    assert np.isnan(found.confidence[40]) and np.isfinite(found.confidence[:40]).all()
    assert 0 <= found.other[40] < 3


def test_a_class_of_one_group_is_judged_by_nobody() -> None:
    x, labels = clusters(90, 3)
    groups = np.arange(90)
    groups[labels == 2] = 99
    found = evidence(x, labels, groups, number_of_classes=3)
    assert np.isnan(found.confidence[labels == 2]).all() and np.isfinite(found.confidence[labels < 2]).all()
    assert found.votes[labels == 2, 2].max() == 0


def test_where_all_images_are_one_group_nothing_is_said() -> None:
    x, labels = clusters(20, 2)
    found = evidence(x, labels, np.zeros(20, int), number_of_classes=2)
    assert np.isnan(found.confidence).all() and not found.votes.any() and not found.strangeness.any()
    assert not unlike_others(found).any()


def test_a_few_other_images_vote_with_all_their_weight() -> None:
    x, labels = clusters(40, 2)
    groups = np.where(np.arange(40) < 36, 0, np.arange(40))
    found = evidence(x, labels, groups, number_of_classes=2)
    np.testing.assert_allclose(found.votes.sum(axis=1), 1, atol=1e-5)
    assert (found.strangeness >= 0).all() and found.strangeness.max() < 1


@pytest.mark.parametrize("count", [2, 3, 12])
def test_few_images(count: int) -> None:
    x, labels = clusters(count, 2)
    found = evidence(x, labels, np.arange(count), number_of_classes=2)
    assert found.probabilities.shape == (count, 2)
    assert not unlike_others(found).any() or count > 3


def test_an_image_unlike_all_others_is_told() -> None:
    x, labels = clusters(300, 3, spread=0.3)
    x[7] = np.random.default_rng(9).gamma(0.2, 5, 64)
    found = evidence(x, labels, np.arange(300), number_of_classes=3)
    assert np.flatnonzero(unlike_others(found)).tolist() == [7]
