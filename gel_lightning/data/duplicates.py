"""Perceptual hashes of pictures, and groups of near-duplicates."""

from collections.abc import Iterator, Sequence
from itertools import chain, combinations
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageChops

from gel_lightning.core.errors import GelError
from gel_lightning.data.images import PictureError, read_picture
from gel_lightning.data.reading import in_threads

MAX_PAIRS = 2**22  # about how many pairs of pictures are compared at once, in at most 100 MB or so
HASHES = 16  # hashes per picture: of its 8 rotations and mirror images, and of their negatives
_BITS = np.array([number.bit_count() for number in range(2**16)], np.uint8)


def hash_picture(path: str | Path) -> tuple[int, ...] | PictureError:
    """Computes the :func:`perceptual_hashes` of a picture file, or why it cannot be read."""
    try:
        return perceptual_hashes(read_picture(path))
    except PictureError as error:
        return error.to_keep()


def perceptual_hashes(picture: Image.Image) -> tuple[int, ...]:
    """Computes the :data:`HASHES` perceptual hashes of a picture of mode ``"L"``.

    The first hash is of the picture itself, the others of its rotated, mirrored and inverted copies, since different
    software stores one blot in several of these ways.

    A hash has 64 bits: which of the 8 x 8 lowest frequencies of the picture, at 32 x 32 pixels, exceed their median.
    Size, format, compression and contrast hardly change it. It is imagehash's ``phash``, after
    https://www.hackerfactor.com/blog/index.php?/archives/432-Looks-Like-It.html.
    """
    import imagehash  # loads scipy

    small = picture.resize((32, 32), Image.Resampling.LANCZOS)  # as phash would
    turned = [small, *(small.transpose(transpose) for transpose in Image.Transpose)]
    copies = [*turned, *map(ImageChops.invert, turned)]
    bits = np.stack([imagehash.phash(copy).hash.ravel() for copy in copies])
    return tuple(int.from_bytes(row, "big") for row in np.packbits(bits, axis=1))


def hash_pictures(paths: Sequence[str | Path]) -> list[tuple[int, ...] | PictureError]:
    """Computes the perceptual hashes of each picture with :func:`hash_picture`, or why it cannot be read.

    Args:
        paths: picture files, n of them.

    Returns:
        n hashes or errors, in the order of ``paths``.
    """
    return list(in_threads(hash_picture, paths))


def picture_hashes(results: Sequence[tuple[int, ...] | PictureError]) -> NDArray[np.uint64]:
    """Stacks the hashes of pictures, all of which must be readable.

    Args:
        results: of :func:`hash_pictures`, n of them.

    Returns:
        [n, HASHES].

    Raises:
        GelError: pictures cannot be read; the message names all of them.
    """
    if errors := [result for result in results if isinstance(result, PictureError)]:
        pictures, them = ("picture", "it") if len(errors) == 1 else ("pictures", "them")
        reasons = "; ".join(str(error) for error in errors)
        raise GelError(f"{len(errors)} {pictures} cannot be read: {reasons}; remove or replace {them}")
    return np.array(results, dtype=np.uint64).reshape(-1, HASHES)


def near_duplicate_groups(hashes: NDArray[np.uint64], max_distance: int = 4) -> NDArray[np.intp]:
    """Groups pictures that are connected by pairs whose hashes differ in few bits.

    If two hashes differ in at most d bits, at least one of d + 1 parts is equal: only such pairs are compared.

    Args:
        hashes: perceptual hashes, [n]; or [n, k], the first of the picture itself, the others of its copies (rotated,
            mirrored, inverted), each of which may match the first of another picture.
        max_distance: Hamming distance in bits up to which two pictures are near-duplicates.

    Returns:
        The group of each picture, [n], numbered from 0. A picture without duplicates is a group of its own.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    own = hashes if hashes.ndim == 1 else hashes[:, 0]
    unique, first, place = np.unique(own, return_index=True, return_inverse=True)
    pairs = _near_pairs(unique, max_distance)
    if hashes.ndim > 1:
        pairs = chain(pairs, _pairs_with_copies(unique, hashes[first, 1:].T, max_distance))
    n = len(unique)
    groups = np.arange(n)
    for one, other in _joined(pairs):
        links = coo_array((np.ones(len(one), bool), (groups[one], groups[other])), (n, n))
        groups = connected_components(links, directed=False)[1][groups]
    return np.unique(groups, return_inverse=True)[1][place]


def _near_pairs(hashes: NDArray[np.uint64], max_distance: int) -> Iterator[NDArray[np.intp]]:
    """Yields pairs of indices of near-duplicate hashes, [2, m], some of them more than once."""
    for bits in np.array_split(np.arange(64), max_distance + 1):
        mask = np.uint64(sum(1 << int(bit) for bit in bits))
        order = np.argsort(hashes & mask)
        ends = np.flatnonzero(np.diff(hashes[order] & mask)) + 1
        for equal in np.split(order, ends):
            if len(equal) > 1:
                for pairs in _compare_all(hashes[equal], max_distance):
                    yield equal[pairs]


def _compare_all(hashes: NDArray[np.uint64], max_distance: int) -> Iterator[NDArray[np.intp]]:
    """Compares all n hashes with each other, in chunks of rows, and yields pairs of indices of near ones, [2, m]."""
    n = len(hashes)
    # As vectors of 64 signs, two hashes at distance d have the dot product 64 - 2d.
    signs = 1 - 2 * np.unpackbits(hashes.view(np.uint8).reshape(n, 8), axis=1).astype(np.float32)
    rows = MAX_PAIRS // n + 1
    for start in range(0, n, rows):
        near = signs[start : start + rows] @ signs[start:].T >= 64 - 2 * max_distance
        row, column = np.divmod(np.flatnonzero(near), near.shape[1])  # several times as fast as near.nonzero()
        if (once := row < column).any():
            yield start + np.stack([row[once], column[once]])


def _pairs_with_copies(
    hashes: NDArray[np.uint64], copies: NDArray[np.uint64], max_distance: int
) -> Iterator[NDArray[np.intp]]:
    """Yields pairs of indices, [2, m], of ``hashes`` [n] and ``copies`` [k, n] that are near each other.

    If two hashes differ in at most d bits, at least two of d + 2 parts are equal. Two parts are long enough that few
    other hashes share them.
    """
    for two in combinations(np.array_split(np.arange(64), max_distance + 2), 2):
        mask = np.uint64(sum(1 << int(bit) for bit in np.concatenate(two)))
        order = np.argsort(hashes & mask)
        keys = (hashes & mask)[order]
        for copy in copies:
            rows = np.argsort(copy & mask)  # searchsorted is several times as fast for ascending values
            start, end = (np.searchsorted(keys, (copy & mask)[rows], side) for side in ("left", "right"))
            equal = end - start
            for part in np.split(np.arange(len(rows)), _split_points(equal)):
                place = np.arange(equal[part].sum()) - np.repeat(np.cumsum(equal[part]) - equal[part], equal[part])
                one, other = order[np.repeat(start[part], equal[part]) + place], np.repeat(rows[part], equal[part])
                near = _distance(hashes[one], copy[other]) <= max_distance
                yield np.stack([one[near], other[near]])


def _split_points(counts: NDArray[np.intp]) -> NDArray[np.intp]:
    """Indices at which to split ``counts`` so that each part sums to about :data:`MAX_PAIRS`."""
    ends = np.cumsum(counts)
    return np.unique(np.searchsorted(ends, np.arange(MAX_PAIRS, int(counts.sum()), MAX_PAIRS)))


def _distance(hashes: NDArray[np.uint64], others: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Hamming distances, [m]."""
    bits: NDArray[np.int64] = _BITS[(hashes ^ others).view(np.uint16)].reshape(-1, 4).sum(axis=1)
    return bits


def _joined(parts: Iterator[NDArray[np.intp]]) -> Iterator[NDArray[np.intp]]:
    """Joins small arrays of pairs, [2, m], into arrays of at least :data:`MAX_PAIRS`."""
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
    """The groups of two or more pictures, each as indices in ascending order."""
    members: dict[int, list[int]] = {}
    for index, group in enumerate(np.asarray(groups).tolist()):
        members.setdefault(group, []).append(index)
    return [indices for indices in members.values() if len(indices) > 1]
