"""The SVMs against scikit-learn's, the folds, and the honesty of the sweep."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from libraries.base.errors import InputError, ParameterError
from libraries.classifier import squared_hinge, svm
from libraries.classifier.calibration import fit_calibration
from libraries.classifier.cross_validation import (
    NEVER_LEFT_OUT,
    SweepRow,
    assign_folds,
    choose,
    choose_for_more,
    has_turned,
)
from libraries.classifier.svm import LinearModel, fit_path
from libraries.classifier.sweep import FEWEST, sample, sweep

C_VALUES = (1e-3, 1e-1, 10.0)


def examples(n: int, d: int, k: int, *, seed: int = 0, noise: float = 1.0) -> tuple[Any, Any]:
    """Like a network's embeddings: correlated, of unequal scales, not centred; classes overlap and are unbalanced."""
    generator = np.random.default_rng(seed)
    labels = np.sort(generator.integers(0, k, n) * generator.integers(0, 2, n)) if k > 2 else np.arange(n) % 4 // 3
    labels[:k] = np.arange(k)
    latent = generator.normal(size=(k, 8))[labels] + noise * generator.normal(size=(n, 8))
    mixing = generator.normal(size=(8, d)) * generator.uniform(0.1, 1, d)
    x = latent @ mixing + 0.3 * generator.normal(size=(n, d))
    return np.maximum(x + 0.5, 0).astype(np.float32), labels.astype(np.int64)


def normalised(x: npt.NDArray[np.float32], normalisation: str) -> npt.NDArray[np.float64]:
    wide = x.astype(np.float64)
    if normalisation == "standardise":
        return np.asarray(StandardScaler().fit_transform(wide))
    root = np.sqrt(wide) if normalisation == "sqrt_l2" else wide
    return root / np.linalg.norm(root, axis=1, keepdims=True)


def reference(x: Any, y: Any, c: float, class_weight: str | None) -> LinearSVC:
    """LIBLINEAR at a tight tolerance, as far as it gets."""
    return LinearSVC(C=c, class_weight=class_weight, dual=False, tol=1e-10, max_iter=1000).fit(x, y)


@pytest.mark.parametrize("normalisation", svm.NORMALISATIONS)
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("class_weight", ["balanced", None])
def test_models_equal_those_of_scikit_learn(normalisation: str, classes: int, class_weight: Any) -> None:
    x, y = examples(200, 40, classes)
    z = normalised(x, normalisation)
    models = fit_path(
        x, y, number_of_classes=classes, c_values=C_VALUES, normalisation=normalisation, class_weight=class_weight
    )
    for c, model in zip(C_VALUES, models, strict=True):
        theirs = reference(z, y, c, class_weight)
        weights, bias = (model.weights[:, 1:], model.bias[1:]) if classes == 2 else (model.weights, model.bias)
        largest = np.abs(theirs.coef_).max()
        np.testing.assert_allclose(weights.T, theirs.coef_, rtol=1e-4, atol=1e-4 * largest)
        np.testing.assert_allclose(bias, theirs.intercept_, rtol=1e-4, atol=1e-4 * largest)
        decision = theirs.decision_function(z).reshape(len(x), -1)
        ours = model.scores(x)[:, 1:] if classes == 2 else model.scores(x)
        np.testing.assert_allclose(ours, decision, rtol=1e-3, atol=1e-3)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # LIBLINEAR gives up at large C
@pytest.mark.parametrize(("n", "d"), [(300, 60), (60, 300), (50, 50)])
def test_objective_is_no_higher_than_scikit_learns_and_the_gradient_vanishes(n: int, d: int) -> None:
    x, y = examples(n, d, 2, noise=3)
    z = np.hstack([normalised(x, "standardise"), np.ones((n, 1))])
    targets, weights = np.where(y == 1, 1.0, -1.0)[:, None], np.ones((n, 1))
    c_values = (1e-4, 1e-2, 1.0, 100.0)  # from all rows active to interpolation
    for c, solution in zip(c_values, squared_hinge.solve_path(z, targets, weights, c_values), strict=True):
        ours = squared_hinge.objective(z, targets, weights, c, solution)[0]
        svc = reference(z[:, :-1], y, c, None)
        theirs = squared_hinge.objective(z, targets, weights, c, np.append(svc.coef_[0], svc.intercept_)[:, None])[0]
        assert ours <= theirs * (1 + 1e-12)
        slack = np.maximum(0, 1 - targets * (z @ solution))
        loss_gradient = 2 * c * z.T @ (targets * slack)
        assert np.linalg.norm(solution - loss_gradient) <= 1e-8 * np.linalg.norm(loss_gradient)


def test_objective_is_exact_where_regularisation_vanishes() -> None:
    """Least squares with the rows inside the margin: the solution stays the same, and so must twice the way to it."""
    x, y = examples(300, 60, 2, noise=3)
    z = np.hstack([normalised(x, "standardise"), np.ones((300, 1))])
    targets, weights = np.where(y == 1, 1.0, -1.0)[:, None], np.ones((300, 1))
    ((warm, _), (cold,)) = (
        list(squared_hinge.solve_path(z, targets, weights, c_values))[::-1] for c_values in ((1.0, 1e5), (1e5,))
    )
    np.testing.assert_allclose(warm, cold, rtol=1e-4, atol=1e-6)


def test_direct_solutions_agree_with_conjugate_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = examples(150, 30, 5)
    targets = np.where(y[:, None] == np.arange(5), 1.0, -1.0)
    weights = np.random.default_rng(0).uniform(0.5, 2, targets.shape)
    by_cg = list(squared_hinge.solve_path(x.astype(float), targets, weights, C_VALUES))
    monkeypatch.setattr(squared_hinge, "CG_ITERATIONS", 1)
    directly = list(squared_hinge.solve_path(x.astype(float), targets, weights, C_VALUES))
    np.testing.assert_allclose(by_cg, directly, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("normalisation", svm.NORMALISATIONS)
@pytest.mark.parametrize("classes", [2, 5])
def test_parts_give_what_each_gives_alone_up_to_their_precision(
    normalisation: str, classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = examples(200, 40, classes)
    x[:100, 3] = 0.7  # never changes in one part
    parts = [np.ones(200, bool), np.arange(200) % 3 > 0, np.arange(200) < 100]
    y[:classes] = y[100 : 100 + classes] = np.arange(classes)
    alone = [
        list(fit_path(x[part], y[part], number_of_classes=classes, c_values=C_VALUES, normalisation=normalisation))
        for part in parts
    ]
    for module in (svm, squared_hinge):
        monkeypatch.setattr(module, "ROWS_AT_ONCE", 64)
    monkeypatch.setattr(svm, "COLUMNS_AT_ONCE", 4)
    prepared = svm.Examples(x, y, normalisation, number_of_classes=classes)
    for exactly, tolerance in ((True, 1e-5), (False, 2e-2)):
        together = svm.Parts(prepared, parts, exactly=exactly)
        for i, c in enumerate(C_VALUES):
            together.fit(c)
            for number, by_c in enumerate(alone):
                expected = by_c[i].scores(x)
                scale = np.abs(expected).max()
                np.testing.assert_allclose(together.scores(number), expected, atol=tolerance * scale)
                np.testing.assert_allclose(together.model(number).scores(x), expected, atol=tolerance * scale)


def test_warm_start_does_not_change_the_solution() -> None:
    x, y = examples(200, 40, 3)
    path = list(fit_path(x, y, number_of_classes=3, c_values=C_VALUES, normalisation="standardise"))
    (alone,) = fit_path(x, y, number_of_classes=3, c_values=C_VALUES[-1:], normalisation="standardise")
    np.testing.assert_allclose(path[-1].weights, alone.weights, rtol=1e-5, atol=1e-6)


def test_two_classes_give_two_opposite_columns() -> None:
    x, y = examples(100, 20, 2)
    (model,) = fit_path(x, y, number_of_classes=2, c_values=[1.0], normalisation="l2")
    scores = model.scores(x)
    assert scores.shape == (100, 2) and scores.dtype == np.float32
    np.testing.assert_array_equal(scores[:, 0], -scores[:, 1])
    assert (scores.argmax(axis=1) == y).mean() > 0.9


@pytest.mark.parametrize("normalisation", svm.NORMALISATIONS)
def test_constant_features_zero_rows_and_huge_values_are_safe(normalisation: str) -> None:
    x, y = examples(60, 10, 2)
    x[5], x[:, 0], x[:, 2] = 0, 0, 1e6 * x[:, 2]
    (model,) = fit_path(x, y, number_of_classes=2, c_values=[1.0], normalisation=normalisation)
    assert np.isfinite(model.scores(x)).all()
    assert abs(model.weights[0]).max() < 1e-12


def test_a_feature_that_never_changes_is_not_blown_up() -> None:
    x, y = examples(61, 10, 2)
    x[:, 0] = 0.1  # not exact in binary: its computed deviation is not zero
    (model,) = fit_path(x, y, number_of_classes=2, c_values=[1.0], normalisation="standardise")
    assert model.scale[0] == 1
    assert abs(model.weights[0]).max() < 1e-6


def test_signed_root_handles_negative_features() -> None:
    one = np.ones(2, np.float32)
    model = LinearModel("sqrt_l2", 0 * one, one, np.eye(2, dtype=np.float32), 0 * one)
    np.testing.assert_allclose(model.scores(np.float32([[-9, 16]])), [[-0.6, 0.8]], rtol=1e-6)


def test_scores_are_what_the_attributes_say() -> None:
    """The ONNX bundle is built from the attributes alone."""
    x, y = examples(90, 20, 3)
    for normalisation in svm.NORMALISATIONS:
        (model,) = fit_path(x, y, number_of_classes=3, c_values=[1.0], normalisation=normalisation)
        z = np.sign(x) * np.sqrt(np.abs(x)) if model.takes_root else x
        z = (z - model.mean) / model.scale
        z = z / np.linalg.norm(z, axis=1, keepdims=True) if model.divides_by_norm else z
        np.testing.assert_allclose(model.scores(x), z @ model.weights + model.bias, rtol=1e-5, atol=1e-5)


# ---- folds


def test_folds_are_stratified_and_reproducible() -> None:
    labels = np.repeat([0, 1, 2], [53, 22, 10])
    fold = assign_folds(labels, folds=5, seed=3)
    for label in range(3):
        counts = np.bincount(fold[labels == label], minlength=5)
        assert counts.max() - counts.min() <= 1
    assert np.ptp(np.bincount(fold)) <= 1
    np.testing.assert_array_equal(fold, assign_folds(labels, folds=5, seed=3))
    assert (fold != assign_folds(labels, folds=5, seed=4)).any()


def test_groups_stay_whole_and_classes_spread() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 600)
    groups = [f"{label}/{generator.integers(20)}" for label in labels]
    fold = assign_folds(labels, folds=4, groups=groups)
    for group in set(groups):
        assert len(set(fold[[g == group for g in groups]])) == 1
    for label in range(3):
        share = np.bincount(fold[labels == label], minlength=4) / (labels == label).sum()
        assert abs(share - 0.25).max() < 0.06


@pytest.mark.parametrize(
    ("labels", "folds", "expected"),
    [
        ([0, 0, 0, 1], 5, [-1, 0, 1, 2]),
        ([0, 1], 5, [-1]),
        ([0] * 9 + [1], 5, [-1, 0, 1, 2, 3, 4]),
        ([0, 0, 1, 1], 9, [0, 1]),
    ],
)
def test_tiny_data_have_fewer_folds_and_a_single_example_is_in_none(
    labels: Sequence[int], folds: int, expected: list[int]
) -> None:
    fold = assign_folds(labels, folds=folds)
    assert sorted(set(fold.tolist())) == expected
    assert {labels[i] for i in np.flatnonzero(fold == NEVER_LEFT_OUT)} <= {0, 1} - {
        c for c in (0, 1) if labels.count(c) > 1
    }


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), min_size=1, max_size=30), st.booleans(), st.integers(2, 6)
)
@settings(max_examples=200, deadline=None, database=None)
def test_no_fold_leaves_out_a_whole_class(rows: list[tuple[int, int]], across: bool, folds: int) -> None:
    labels = np.array([label for label, _ in rows])
    groups = [f"{'' if across else label}/{group}" for label, group in rows]
    fold = assign_folds(labels, folds=folds, groups=groups)
    assert sorted(set(fold.tolist()) - {NEVER_LEFT_OUT}) == list(range(fold.max() + 1))
    for number in range(fold.max() + 1):
        assert set(labels[fold == number]) <= set(labels[fold != number])


def test_a_class_of_one_group_is_folded_by_image_and_others_by_group() -> None:
    labels, groups = np.array([0] * 6 + [1] * 6), ["one"] * 6 + [f"{i // 2}" for i in range(6)]
    fold = assign_folds(labels, folds=3, groups=groups)
    assert np.bincount(fold[:6]).tolist() == [2, 2, 2]
    assert all(len(set(fold[6 + i : 8 + i])) == 1 for i in (0, 2, 4))


# ---- sweep


def test_out_of_fold_scores_come_from_models_that_never_saw_the_example() -> None:
    x, y = examples(80, 12, 3)
    result = sweep(x, y, number_of_classes=3, c_values=[0.1, 1.0], folds=4, seed=7, normalisations=["standardise"])
    fold_of = assign_folds(y, folds=4, seed=7)
    for fold in range(4):
        train = fold_of != fold
        models = fit_path(x[train], y[train], number_of_classes=3, c_values=[0.1, 1.0], normalisation="standardise")
        for scores, model in zip(result.out_of_fold_scores, models, strict=True):
            np.testing.assert_allclose(scores[~train], model.scores(x[~train]), rtol=1e-2, atol=1e-2)


def test_rows_report_the_accuracy_of_calibrated_labels() -> None:
    x, y = examples(120, 12, 3, noise=2)
    calls: list[tuple[int, int]] = []
    result = sweep(
        x,
        y,
        number_of_classes=3,
        c_values=[10, 0.1],
        normalisations=["l2", "standardise"],
        folds=3,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert [(r.normalisation, r.C) for r in result.rows] == [(n, c) for n in ("l2", "standardise") for c in (0.1, 10.0)]
    assert calls == [(i, 5) for i in range(1, 6)]
    for row, model, scores in zip(result.rows, result.models, result.out_of_fold_scores, strict=True):
        fold_of, right = assign_folds(y, folds=3), np.zeros(len(y), bool)
        for fold in range(3):
            others = fold_of != fold
            cross_fitted = fit_calibration(scores[others], y[others])
            right[~others] = cross_fitted.probabilities(scores[~others]).argmax(axis=1) == y[~others]
        assert row.validation_accuracy == right.mean()
        calibration = fit_calibration(scores, y)
        assert row.train_accuracy == (calibration.labels(model.scores(x)) == y).mean(), "by the rule of all the others"
        assert row.validation_std is not None and 0 <= row.validation_std < 0.5


def test_best_is_the_row_of_the_highest_validation_accuracy() -> None:
    x, y = examples(240, 12, 3, noise=2)
    result = sweep(x, y, number_of_classes=3, c_values=C_VALUES, folds=3)
    assert result.best == choose(result.rows)


def test_the_chosen_model_is_fitted_to_convergence() -> None:
    x, y = examples(240, 12, 3, noise=2)
    result = sweep(x, y, number_of_classes=3, c_values=C_VALUES, folds=3)
    row = result.rows[result.best]
    (alone,) = fit_path(x, y, number_of_classes=3, c_values=[row.C], normalisation=row.normalisation)
    np.testing.assert_allclose(result.models[result.best].weights, alone.weights, rtol=1e-5, atol=1e-6)


def test_a_path_ends_where_accuracy_has_turned_and_the_choice_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = examples(600, 200, 3, noise=3)
    c_values = [10.0**e for e in range(-4, 3)]
    calls: list[tuple[int, int]] = []
    options: Any = {"number_of_classes": 3, "c_values": c_values, "folds": 3}
    short = sweep(x, y, **options, progress=lambda done, total: calls.append((done, total)))
    monkeypatch.setattr("libraries.classifier.sweep.has_turned", lambda *_, **__: False)
    whole = sweep(x, y, **options)
    assert short.untried and not whole.untried
    for name in svm.NORMALISATIONS:
        tried = [row.C for row in short.rows if row.normalisation == name]
        assert tried + short.untried.get(name, []) == c_values
    assert short.rows[short.best] == whole.rows[whole.best]
    assert calls == [(i, 22) for i in range(1, 23)], "what is not tried counts as done"


def test_a_sample_of_many_examples_chooses_and_all_are_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = examples(1200, 12, 3, noise=2)
    options: Any = {"number_of_classes": 3, "c_values": C_VALUES, "folds": 3}
    monkeypatch.setattr("libraries.classifier.sweep.MOST", 600)
    result = sweep(x, y, **options)
    chosen_by = result.chosen_by
    assert abs(chosen_by.sum() - 600) <= 3, "a share of each class, rounded up"
    of_sample = sweep(x[chosen_by], y[chosen_by], **options)
    assert of_sample.chosen_by.all()
    validated = [(row.C, row.validation_accuracy) for row in result.rows]
    assert validated == [(row.C, row.validation_accuracy) for row in of_sample.rows]
    assert result.rows[result.best].normalisation == of_sample.rows[of_sample.best].normalisation
    assert result.rows[result.best].C <= of_sample.rows[of_sample.best].C
    row = result.rows[result.best]
    (of_all,) = fit_path(x, y, number_of_classes=3, c_values=[row.C], normalisation=row.normalisation)
    np.testing.assert_allclose(result.models[result.best].weights, of_all.weights, rtol=1e-5, atol=1e-6)
    right = result.calibrations[result.best].labels(of_all.scores(x)) == y
    assert row.train_accuracy == pytest.approx(right.mean(), abs=0.002), "on all training examples"


def test_for_more_examples_the_least_c_of_equals_is_chosen() -> None:
    n = 400
    is_right = [(np.arange(n) >= wrong).astype(float) for wrong in (40, 21, 20, 20)]
    is_right[1] = np.roll(is_right[1], 5)  # disagrees with the best now and then
    rows = [
        SweepRow(name, c, 1.0, float(right.mean()), 0.0)
        for (name, c), right in zip(
            [("l2", 0.01), ("l2", 0.1), ("l2", 1.0), ("standardise", 1e-4)], is_right, strict=True
        )
    ]
    assert choose(rows) == 3
    rows[3] = dataclasses.replace(rows[3], validation_accuracy=0.9)
    assert choose(rows) == 2
    assert choose_for_more(rows, is_right, groups=np.arange(n)) == 1, "within one standard error"
    assert choose_for_more(rows, [is_right[0], is_right[0], *is_right[2:]], groups=np.arange(n)) == 2


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_a_sample_has_its_share_of_each_class_and_whole_groups(seed: int) -> None:
    generator = np.random.default_rng(seed)
    y = np.repeat([0, 1, 2, 4], [3000, 900, 70, 3])
    groups = generator.integers(0, 2000, len(y))
    groups = np.unique(groups, return_inverse=True)[1]
    taken = sample(y, groups, most=800, seed=seed)
    of_class = np.bincount(y[taken], minlength=5)
    assert of_class[3] == 0 and of_class[4] == 3, "of a rare class all"
    assert of_class[2] >= FEWEST
    assert of_class[0] >= 0.9 * 800 * 3000 / len(y) and of_class[1] >= 0.9 * 800 * 900 / len(y)
    assert not set(groups[taken]) & set(groups[~taken]), "a group is taken whole or not at all"
    alone = sample(y, np.arange(len(y)), most=800, seed=seed)
    assert abs(alone.sum() - 800) <= FEWEST


def test_every_value_is_tried_where_examples_are_few() -> None:
    x, y = examples(90, 60, 3, noise=3)
    assert not sweep(x, y, number_of_classes=3, c_values=[1e-4, 1e-2, 1.0, 1e2], folds=3).untried


def test_hopeless_data_are_reported_as_hopeless() -> None:
    """Random labels, as many features as examples: training accuracy is high, validation is that of a guess."""
    generator = np.random.default_rng(1)
    x, y = generator.normal(size=(200, 200)).astype(np.float32), generator.integers(0, 2, 200)
    result = sweep(x, y, number_of_classes=2, c_values=[1.0], normalisations=["standardise"])
    assert result.rows[0].validation_accuracy < 0.62
    assert (result.models[0].scores(x).argmax(axis=1) == y).all()


def test_a_class_with_one_example_does_not_stop_the_sweep() -> None:
    x, y = examples(60, 10, 3)
    y = np.where(y == 2, 0, y)
    y[7] = 2
    result = sweep(x, y, number_of_classes=3, c_values=[1.0])
    for scores in result.out_of_fold_scores:
        assert np.isnan(scores[7]).all() and np.isfinite(np.delete(scores, 7, axis=0)).all()
    assert all(np.isfinite(c.bias).all() for c in result.calibrations)


def test_duplicates_in_one_group_do_not_flatter_validation() -> None:
    """Every example twice, labels random: without groups the copy gives the answer away."""
    generator = np.random.default_rng(2)
    half, labels = generator.normal(size=(60, 100)).astype(np.float32), generator.integers(0, 2, 60)
    x, y = np.vstack([half, half]), np.tile(labels, 2)
    options: Any = {"number_of_classes": 2, "c_values": [10.0], "normalisations": ["standardise"]}
    leaky = sweep(x, y, **options).rows[0].validation_accuracy
    honest = sweep(x, y, **options, groups=[str(i % 60) for i in range(120)]).rows[0].validation_accuracy
    assert leaky > 0.8 and honest < 0.7


def test_folds_in_threads_give_what_they_give_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = examples(80, 12, 3)
    both = []
    for cores in (1, 3):
        monkeypatch.setattr("libraries.base.pool.usable_cores", lambda cores=cores: cores)
        both.append(sweep(x, y, number_of_classes=3, c_values=C_VALUES))
    one, three = both
    assert one.rows == three.rows and one.best == three.best
    np.testing.assert_allclose(one.out_of_fold_scores, three.out_of_fold_scores, rtol=1e-4, atol=1e-5)


def test_an_error_in_one_fold_ends_the_sweep() -> None:
    x, y = examples(80, 12, 2)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(x, y, number_of_classes=2, c_values=C_VALUES, progress=stop)


@pytest.mark.parametrize(
    ("right", "c_values", "has_ended"),
    [
        pytest.param([50, 60], [0.1, 1], False, id="rises"),
        pytest.param([60, 58], [0.1, 1], False, id="hardly falls"),
        pytest.param([60, 40], [0.01, 0.1], True, id="falls clearly"),
        pytest.param([60, 58, 59], [0.1, 1, 10], True, id="two that are no better"),
        pytest.param([60, 58, 59], [0.001, 0.01, 0.1], False, id="the same below the usual C"),
        pytest.param([40, 39], [0.1, 1], True, id="far from the best of all"),
        pytest.param([40, 39], [0.01, 0.1], False, id="far from it, below the usual C"),
        pytest.param([30, 40], [0.1, 1], False, id="far from the best of all, but rising"),
        pytest.param([60], [1], False, id="the first"),
    ],
)
def test_when_accuracy_has_turned(right: list[int], c_values: list[float], has_ended: bool) -> None:
    rows = [SweepRow("l2", c, 1.0, n / 100, 0.01) for c, n in zip(c_values, right, strict=True)]
    is_right = [(np.random.default_rng(n).permutation(100) < n).astype(float) for n in right]
    best = np.arange(100) < 65
    assert has_turned(rows, is_right, best=best, groups=np.arange(100), dimensions=8) == has_ended


def test_choice_prefers_accuracy_then_smaller_c() -> None:
    rows = [SweepRow("l2", c, 1.0, accuracy, 0.01) for c, accuracy in ((0.1, 0.8), (1.0, 0.9), (10.0, 0.9))]
    assert choose(rows) == 1
    assert choose(rows[::-1]) == 1


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros(3), [0, 1, 0], r"\[N, D\]"),
        (np.zeros((3, 2)), [0, 1], "one label each"),
        (np.zeros((3, 2)), [0, 1, 2], "from 0 to 1"),
        (np.zeros((3, 2)), [0, -1, 1], "from 0 to 1"),
        (np.zeros((0, 2)), [], "at least one"),
        (np.zeros((3, 2)), [1, 1, 1], "same label"),
        (np.array([[0, 0], [np.nan, 1], [1, 1]]), [0, 1, 1], "example 1 is not finite"),
    ],
)
def test_unusable_examples_are_refused(x: Any, y: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        sweep(x, y, number_of_classes=2, c_values=[1.0])


@pytest.mark.parametrize(
    "options",
    [{"c_values": []}, {"c_values": [0.0]}, {"c_values": [np.nan]}, {"normalisations": ["l1"]}, {"normalisations": []}],
)
def test_unusable_parameters_are_refused(options: dict[str, Any]) -> None:
    x, y = examples(20, 4, 2)
    with pytest.raises(ParameterError):
        sweep(x, y, number_of_classes=2, **{"c_values": [1.0], **options})
