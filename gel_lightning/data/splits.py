"""Stratified splits and folds that keep each group of pictures on one side."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gel_lightning.core.errors import GelError

MAX_FOLDS = 100  # of a split, so the smallest fraction that can be held out is 1/100

MANY_PICTURES = 20_000
"""Above so many pictures, those without groups are split by ``StratifiedKFold``: the grouped one takes minutes."""


def stratified_split(
    labels: ArrayLike,
    groups: ArrayLike,
    fraction: float,
    seed: int,
    class_names: Sequence[str] | None = None,
    named_groups: bool = False,
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Holds out a fraction of the pictures, stratified by class, with each group on one side.

    Of k folds of scikit-learn's ``StratifiedGroupKFold``, m are held out. m / k is the fraction nearest to ``fraction``
    for which every class has at least k groups: 0.2 is 1 of 5 folds, 0.3 is 3 of 10.

    Args:
        labels: the class of each picture, [n].
        groups: the group of each picture, [n].
        fraction: to hold out, above 0 and below 1.
        seed: shuffles groups of the same size. The same seed gives the same split.
        class_names: for error messages; by default the labels.
        named_groups: for error messages: whether the user named the groups, or they are near-duplicates.

    Returns:
        The indices that are kept and those held out, both sorted.

    Raises:
        GelError: a class would be missing on one side.
    """
    labels = np.asarray(labels)
    _, groups = np.unique(groups, return_inverse=True)
    classes, pictures = np.unique(labels, return_counts=True)
    different = _different(labels, groups)

    def on_one_side_only(index: int) -> GelError:
        name = class_names[classes[index]] if class_names else classes[index]
        what, more = (
            ("groups", "pictures of other groups") if named_groups else ("different ones", "different pictures")
        )
        return GelError(
            f"class {name} (pictures: {pictures[index]}, {what}: {different[index]}) cannot be on both "
            f"sides of a split: add {more} of it"
        )

    if min(different) < 2:
        raise on_one_side_only(different.index(min(different)))
    most_folds = min(*different, MAX_FOLDS)
    nearest = Fraction(fraction).limit_denominator(most_folds)
    part = min(max(nearest, Fraction(1, most_folds)), Fraction(most_folds - 1, most_folds))

    folds = _deal(labels, groups, part.denominator, np.random.default_rng(seed))
    # A group larger than a fold makes its fold too large: such folds are kept, not held out.
    folds.sort(key=lambda fold: abs(len(fold) - len(labels) / part.denominator))
    held_out = np.sort(np.concatenate(folds[: part.numerator]))
    kept = np.sort(np.concatenate(folds[part.numerator :]))
    for index, label in enumerate(classes):
        if label not in labels[kept] or label not in labels[held_out]:
            raise on_one_side_only(index)
    return kept, held_out


def stratified_folds(
    labels: ArrayLike,
    groups: ArrayLike,
    folds: int,
    repeats: int,
    seed: int,
    class_names: Sequence[str] | None = None,
    named_groups: bool = False,
) -> list[list[NDArray[np.intp]]]:
    """Deals the pictures into folds, several times, stratified by class, with each group in one fold.

    Args:
        labels: the class of each picture, [n].
        groups: the group of each picture, [n].
        folds: number of folds, at least 2.
        repeats: how many times all pictures are dealt, at least 1.
        seed: the same seed gives the same folds.
        class_names: for error messages; by default the labels.
        named_groups: for error messages: whether the user named the groups, or they are near-duplicates.

    Returns:
        For each repeat, the sorted indices in each fold; every picture is in one fold of each repeat.

    Raises:
        GelError: the numbers are out of range, or a class has too few groups to be in all folds.
    """
    if folds < 2 or repeats < 1:
        raise GelError(f"{folds} folds, repeated {repeats} times: give 2 folds or more, and 1 repeat or more")
    labels = np.asarray(labels)
    _, groups = np.unique(groups, return_inverse=True)
    for label, different in zip(np.unique(labels), _different(labels, groups), strict=True):
        if different < folds:
            name = class_names[label] if class_names else label
            what = "groups" if named_groups else "different pictures"
            raise GelError(f"class {name} has {different} {what}, too few for {folds} folds: ask for fewer")
    generators = np.random.default_rng(seed).spawn(repeats)
    dealt = [[np.sort(fold) for fold in _deal(labels, groups, folds, generator)] for generator in generators]
    if any(len(np.unique(labels[fold])) < len(np.unique(labels)) for repeat in dealt for fold in repeat):
        if named_groups:
            raise GelError("the groups leave a fold without one of the classes: ask for fewer folds, or --folds groups")
        raise GelError(
            "near-identical pictures of different classes leave a fold without one of the classes; gel-fit data check "
            "lists them: mend their labels, or ask for fewer folds"
        )
    return dealt


def _different(labels: NDArray[Any], groups: NDArray[np.intp]) -> list[int]:
    """The number of groups of each class."""
    return [len(np.unique(groups[labels == label])) for label in np.unique(labels)]


def _deal(
    labels: NDArray[Any], groups: NDArray[np.intp], folds: int, generator: np.random.Generator
) -> list[NDArray[np.intp]]:
    """The indices in each fold."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    if len(groups) > MANY_PICTURES and groups.max() + 1 == len(groups):
        seeded = StratifiedKFold(folds, shuffle=True, random_state=int(generator.integers(2**32)))
        return [fold for _, fold in seeded.split(labels, labels)]
    # Shuffled here, because shuffle=True loses the stratification before scikit-learn 1.8 (its pull 32540).
    shuffled = generator.permutation(groups.max() + 1)[groups]
    return [fold for _, fold in StratifiedGroupKFold(folds).split(labels, labels, shuffled)]
