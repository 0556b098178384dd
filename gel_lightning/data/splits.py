"""Groups of near-identical pictures, and splits that keep each group on one side."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageOps

from gel_lightning.core.errors import GelError
from gel_lightning.data.images import PictureError, read_picture
from gel_lightning.data.reading import in_threads

MAX_PAIRS = 2**22
"""About how many pairs of pictures are compared at once, which takes some 100 MB at most."""

MAX_FOLDS = 100
"""The most folds of a split, so that the smallest part that can be held out is a hundredth."""


_BITS = np.array([number.bit_count() for number in range(2**16)], np.uint8)

HASHES = 16
"""Perceptual hashes of a picture: of itself, mirrored and turned, and of the same in negative."""


def hash_picture(path: str | Path) -> tuple[int, ...] | PictureError:
    """Finds the hashes of a picture file, see :func:`perceptual_hashes`, or why it cannot be read."""
    try:
        return perceptual_hashes(read_picture(path))
    except PictureError as error:
        return error.to_keep()


def perceptual_hashes(picture: Image.Image) -> tuple[int, ...]:
    """Finds the :data:`HASHES` perceptual hashes of a picture of mode ``"L"``.

    The first is of the picture itself. The others are of its copies, turned by 90 degrees or more, mirrored, and in
    negative: imagers and readers store one blot in several of these ways.

    A hash is of 64 bits: which of the 8 x 8 lowest frequencies of the picture at 32 x 32 pixels exceed
    their median. Size, format, compression and contrast hardly change it. Source: imagehash's ``phash``,
    after https://www.hackerfactor.com/blog/index.php?/archives/432-Looks-Like-It.html.
    """
    import imagehash  # loads scipy

    small = picture.resize((32, 32), Image.Resampling.LANCZOS)  # as phash does; it leaves this size as it is
    turned = [small, *(small.transpose(transpose) for transpose in Image.Transpose)]
    copies = [*turned, *map(ImageOps.invert, turned)]
    return tuple(int(str(imagehash.phash(copy)), 16) for copy in copies)


def hash_pictures(paths: Sequence[str | Path]) -> list[tuple[int, ...] | PictureError]:
    """Finds the perceptual hashes of each picture, as :func:`hash_picture` does, or why it cannot be read.

    Args:
        paths: picture files, n of them.

    Returns:
        n hashes or errors, in the order of ``paths``.
    """
    return list(in_threads(hash_picture, paths))


def picture_hashes(results: Sequence[tuple[int, ...] | PictureError]) -> NDArray[np.uint64]:
    """Takes the hashes of pictures, all of which must be readable.

    Args:
        results: of :func:`hash_pictures`, n of them.

    Returns:
        Hashes, [n, HASHES].

    Raises:
        GelError: pictures cannot be read; all of them are named in its one line.
    """
    if errors := [result for result in results if isinstance(result, PictureError)]:
        pictures, them = ("picture", "it") if len(errors) == 1 else ("pictures", "them")
        reasons = "; ".join(str(error) for error in errors)
        raise GelError(f"{len(errors)} {pictures} cannot be read: {reasons}; remove or replace {them}")
    return np.array(results, dtype=np.uint64).reshape(-1, HASHES)


def near_duplicate_groups(hashes: NDArray[np.uint64], max_distance: int = 4) -> NDArray[np.intp]:
    """Groups pictures that are linked by pairs whose hashes differ in few bits.

    Where two hashes differ in d bits, at least one of d + 1 parts of them is equal: only those are compared.

    Args:
        hashes: perceptual hashes, [n]; or [n, k], a picture's own and those of its mirrored, turned and inverted
            copies, any of which may be near another picture's own.
        max_distance: Hamming distance, in bits, up to which two pictures are near-identical.

    Returns:
        The group of each picture, [n], numbered from 0; a picture like no other is a group of its own.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    own = hashes if hashes.ndim == 1 else hashes[:, 0]
    unique, first, place = np.unique(own, return_index=True, return_inverse=True)
    pairs = _near_pairs(unique, max_distance)
    if hashes.ndim > 1:
        pairs = chain(pairs, _near_copies(unique, hashes[first, 1:].T, max_distance))
    n = len(unique)
    groups = np.arange(n)
    for one, other in _gathered(pairs):
        links = coo_array((np.ones(len(one), bool), (groups[one], groups[other])), (n, n))
        groups = connected_components(links, directed=False)[1][groups]
    return np.unique(groups, return_inverse=True)[1][place]


def _near_pairs(hashes: NDArray[np.uint64], max_distance: int) -> Iterator[NDArray[np.intp]]:
    """Yields the pairs of indices of near-identical hashes, [2, m], some of them more than once."""
    for bits in np.array_split(np.arange(64), max_distance + 1):
        mask = np.uint64(sum(1 << int(bit) for bit in bits))
        order = np.argsort(hashes & mask)
        ends = np.flatnonzero(np.diff(hashes[order] & mask)) + 1
        for equal in np.split(order, ends):
            if len(equal) > 1:
                for pairs in _compared(hashes[equal], max_distance):
                    yield equal[pairs]


def _compared(hashes: NDArray[np.uint64], max_distance: int) -> Iterator[NDArray[np.intp]]:
    """Compares all of n hashes, some millions of pairs at a time, and yields the near pairs of indices, [2, m]."""
    n = len(hashes)
    # As vectors of 64 signs, two hashes at distance d have the dot product 64 - 2d.
    signs = 1 - 2 * np.unpackbits(hashes.view(np.uint8).reshape(n, 8), axis=1).astype(np.float32)
    rows = MAX_PAIRS // n + 1
    for start in range(0, n, rows):
        near = signs[start : start + rows] @ signs[start:].T >= 64 - 2 * max_distance
        row, column = np.divmod(np.flatnonzero(near), near.shape[1])  # several times as fast as near.nonzero()
        if (once := row < column).any():
            yield start + np.stack([row[once], column[once]])


def _near_copies(
    hashes: NDArray[np.uint64], copies: NDArray[np.uint64], max_distance: int
) -> Iterator[NDArray[np.intp]]:
    """Yields the pairs of indices of near hashes, one of n hashes and one of k x n of copies, [2, m].

    Where two hashes differ in d bits, two of d + 2 parts of them are equal. Two parts are long enough that few other
    hashes have the same ones.
    """
    for two in combinations(np.array_split(np.arange(64), max_distance + 2), 2):
        mask = np.uint64(sum(1 << int(bit) for bit in np.concatenate(two)))
        order = np.argsort(hashes & mask)
        keys = (hashes & mask)[order]
        for copy in copies:
            rows = np.argsort(copy & mask)  # to search in ascending order is several times as fast
            start, end = (np.searchsorted(keys, (copy & mask)[rows], side) for side in ("left", "right"))
            equal = end - start
            for part in np.split(np.arange(len(rows)), _steps(equal)):
                place = np.arange(equal[part].sum()) - np.repeat(np.cumsum(equal[part]) - equal[part], equal[part])
                one, other = order[np.repeat(start[part], equal[part]) + place], np.repeat(rows[part], equal[part])
                near = _distance(hashes[one], copy[other]) <= max_distance
                yield np.stack([one[near], other[near]])


def _steps(counts: NDArray[np.intp]) -> NDArray[np.intp]:
    """Where to split counts so that each part sums up to about :data:`MAX_PAIRS`."""
    ends = np.cumsum(counts)
    return np.unique(np.searchsorted(ends, np.arange(MAX_PAIRS, int(counts.sum()), MAX_PAIRS)))


def _distance(hashes: NDArray[np.uint64], others: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The number of bits in which hashes differ, [m]."""
    bits: NDArray[np.int64] = _BITS[(hashes ^ others).view(np.uint16)].reshape(-1, 4).sum(axis=1)
    return bits


def _gathered(parts: Iterator[NDArray[np.intp]]) -> Iterator[NDArray[np.intp]]:
    """Yields pairs, [2, m], some millions at a time."""
    held, number = list[NDArray[np.intp]](), 0
    for pairs in parts:
        held.append(pairs)
        number += pairs.shape[1]
        if number >= MAX_PAIRS:
            yield np.concatenate(held, axis=1)
            held, number = [], 0
    if held:
        yield np.concatenate(held, axis=1)


def repeated_groups(groups: ArrayLike) -> list[list[int]]:
    """Lists the groups of two pictures or more, each as indices in ascending order."""
    members: dict[int, list[int]] = {}
    for index, group in enumerate(np.asarray(groups).tolist()):
        members.setdefault(group, []).append(index)
    return [indices for indices in members.values() if len(indices) > 1]


def stratified_split(
    labels: ArrayLike,
    groups: ArrayLike,
    fraction: float,
    seed: int,
    class_names: Sequence[str] | None = None,
    named_groups: bool = False,
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Holds out a part of the pictures, each class in its share and each group on one side.

    scikit-learn's ``StratifiedGroupKFold`` makes k folds, m of which are held out: m / k is the fraction
    nearest to ``fraction`` of those for which each class has k groups. 0.2 is 1 of 5, 0.3 is 3 of 10.

    Args:
        labels: the class of each picture, [n].
        groups: the group of each picture, [n].
        fraction: the part to hold out, above 0 and below 1.
        seed: of the order in which groups of one size are dealt out. The same seed gives the same split.
        class_names: the name of each label, for errors; the label itself if not given.
        named_groups: whether the user has named the groups, for errors; else they are of near-duplicates.

    Returns:
        The indices kept and the indices held out, both sorted.

    Raises:
        GelError: ``fraction`` is out of range, or a class would be missing on one side.
    """
    if not 0 < fraction < 1:
        raise GelError(f"the fraction to hold out must be above 0 and below 1, not {fraction}: choose another")
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
    # A group larger than a fold swells the fold that it is in, which had better be kept.
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
    """Deals the pictures into folds, several times, each class in its share and each group in one fold.

    Args:
        labels: the class of each picture, [n].
        groups: the group of each picture, [n].
        folds: number of folds, at least 2.
        repeats: how many times all pictures are dealt, each time anew, at least 1.
        seed: the same seed gives the same folds.
        class_names: the name of each label, for errors; the label itself if not given.
        named_groups: whether the user has named the groups, for errors; else they are of near-duplicates.

    Returns:
        For each repeat the indices in each fold, sorted; every picture is in one fold of each repeat.

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
    from sklearn.model_selection import StratifiedGroupKFold

    # Shuffled here: the shuffle=True of scikit-learn before 1.8 loses the stratification (its pull 32540).
    shuffled = generator.permutation(groups.max() + 1)[groups]
    return [fold for _, fold in StratifiedGroupKFold(folds).split(labels, labels, shuffled)]
