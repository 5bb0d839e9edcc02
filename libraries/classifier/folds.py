"""Folds for cross-validation: stratified by class, whole groups on one side."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from libraries.base.errors import InputError

Int = npt.NDArray[np.int64]


def assign_folds(labels: npt.ArrayLike, *, folds: int, groups: Sequence[str] | None = None, seed: int = 0) -> Int:
    """The fold of every example, int64 [N], the same for the same seed.

    Groups are dealt out one by one, large ones first, each to the fold that has least of its classes, then least of
    all. With groups of one example this is the usual stratification: in every class the folds' counts differ by at most
    one. A class with fewer groups than folds is missing from some validation parts; a class with a single group also
    from one training part, whose models then score examples of a class they have never seen. If no class has as many
    groups as there are folds, there are that many fewer folds, but never less than two.

    Raises:
        InputError: all examples are in one group, so that there is nothing to cross-validate.
    """
    _, class_of = np.unique(np.asarray(labels), return_inverse=True)
    names = np.arange(len(class_of)) if groups is None else np.asarray(groups)
    _, group_of = np.unique(names, return_inverse=True)
    counts = np.zeros((group_of.max() + 1, class_of.max() + 1))  # of examples, [groups, classes]
    np.add.at(counts, (group_of, class_of), 1)
    if len(counts) < 2:
        raise InputError("all training examples belong to one group: cross-validation needs at least two")
    folds = max(2, min(folds, int((counts > 0).sum(axis=0).max())))

    shuffled = np.random.default_rng(seed).permutation(len(counts))
    large_first = shuffled[np.argsort(-counts.sum(axis=1)[shuffled], kind="stable")]
    share = counts / counts.sum(axis=0)  # of its classes that a group holds
    held = np.zeros((folds, counts.shape[1]))  # by each fold so far, of each class
    sizes = np.zeros(folds)
    fold_of_group = np.empty(len(counts), np.int64)
    for group in large_first:
        of_its_classes = (held @ share[group]).round(9)  # rounded, so that equal folds tie
        fold = np.lexsort((sizes, of_its_classes))[0]
        fold_of_group[group] = fold
        held[fold] += counts[group]
        sizes[fold] += counts[group].sum()
    return fold_of_group[group_of]
