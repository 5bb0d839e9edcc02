"""Folds for cross-validation: stratified by class, whole groups on one side, no class left out altogether."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Int = npt.NDArray[np.int64]

NEVER_LEFT_OUT = -1


def assign_folds(labels: npt.ArrayLike, *, folds: int, groups: Sequence[str] | None = None, seed: int = 0) -> Int:
    """The fold of every example, int64 [N], the same for the same seed.

    Groups are dealt out one by one, large ones first, each to the fold that has least of its classes, then least of
    all. With groups of one example this is the usual stratification: in every class the folds' counts differ by at most
    one. A class with fewer groups than folds is missing from some validation parts. If no class has as many groups as
    there are folds, there are that many fewer folds, but never less than two.

    What a model says of a class that it has never seen is worth nothing, so every class is in all training parts: a
    class with a single group is dealt out by its examples, and the examples of a class that would still lie in one fold
    alone, as a single example does, have the fold NEVER_LEFT_OUT. Where all have, there is nothing to cross-validate.
    """
    _, class_of = np.unique(np.asarray(labels), return_inverse=True)
    names = np.arange(len(class_of)) if groups is None else np.asarray(groups)
    group_of = _part_single_groups(np.unique(names, return_inverse=True)[1], class_of)
    counts = np.zeros((group_of.max() + 1, class_of.max() + 1))  # of examples, [groups, classes]
    np.add.at(counts, (group_of, class_of), 1)
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
    return _keep_whole_classes(fold_of_group[group_of], is_alone=(held > 0).sum(axis=0)[class_of] == 1)


def groups_per_class(labels: npt.ArrayLike, *, number_of_classes: int, groups: npt.ArrayLike | None = None) -> Int:
    """How many groups have examples of each class, int64 [K]; each example is its own group by default."""
    y = np.asarray(labels, np.int64)
    _, group_of = np.unique(np.arange(len(y)) if groups is None else np.asarray(groups), return_inverse=True)
    pairs = np.unique(np.stack([y, group_of]), axis=1)
    return np.bincount(pairs[0], minlength=number_of_classes)


def _part_single_groups(group_of: Int, class_of: Int) -> Int:
    """The groups [N], where each example of a class with a single group is a group of its own."""
    is_single = (groups_per_class(class_of, number_of_classes=class_of.max() + 1, groups=group_of) == 1)[class_of]
    parted = np.where(is_single, group_of.max() + 1 + np.arange(len(group_of)), group_of)
    return np.unique(parted, return_inverse=True)[1]


def _keep_whole_classes(fold_of: Int, *, is_alone: npt.NDArray[np.bool_]) -> Int:
    """The folds [N], without examples whose class lies in one fold alone; numbered without gaps."""
    kept = np.unique(fold_of[~is_alone])
    return np.where(is_alone, NEVER_LEFT_OUT, np.searchsorted(kept, fold_of))
