"""Groups of pictures from a file of the user, such as the labs that they come from."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gel_lightning.core.errors import GelError
from gel_lightning.data.tables import read_pairs


def read_groups(file: str | Path, paths: Sequence[Path], folders: Sequence[Path] = ()) -> list[str]:
    """Reads the group of each picture from a CSV file.

    The file has one row per picture and at least the columns ``path`` and ``group``. Paths are relative to the folder
    of the file or to one of ``folders``. Rows of other pictures, such as those of a class that is left out, are ignored
    as long as the pictures exist.

    Args:
        file: the CSV file.
        paths: of n pictures.
        folders: that paths in the file may be relative to.

    Returns:
        The name of the group of each picture.

    Raises:
        GelError: the file cannot be read, lacks a column or one of ``paths``, or names a picture that does not exist or
            has two groups.
    """
    file = Path(file)
    roots = [file.parent, *folders]
    groups: dict[str, str] = {}
    absent: list[str] = []
    for line, path, group in read_pairs(file, "group", "--data.groups"):
        place = next((place for root in roots if (place := root / path).exists()), None)
        if place is None:
            absent.append(path)
        elif groups.setdefault(os.path.realpath(place), group) != group:
            raise GelError(f"{file}, line {line}: {path} is in two groups: give each picture one")
    if absent:
        raise GelError(
            f"{file}: {_number(absent)} in it cannot be found from {' or '.join(map(str, roots))} "
            f"(first: {absent[0]}): mend the paths or remove the rows (--data.groups)"
        )
    found = [groups.get(os.path.realpath(path)) for path in paths]
    if missing := [path for path, group in zip(paths, found, strict=True) if group is None]:
        raise GelError(
            f"{file}: no group for {_number(missing)} (first: {missing[0]}): add a row for each (--data.groups)"
        )
    return [group for group in found if group is not None]


def groups_digest(file: Path) -> str:
    """Identifies a file of groups by its content."""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise GelError(f"{file}: cannot be read ({error.strerror}); name another with --data.groups") from error


def joined_groups(*groupings: ArrayLike) -> NDArray[np.intp]:
    """Joins groupings: pictures that share a group in any of them share one in the result.

    Args:
        groupings: arrays with the group of each of n pictures.

    Returns:
        The group of each picture, [n], numbered from 0 in the order of their first pictures.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = len(np.asarray(groupings[0]))
    links = coo_array((n, n), dtype=bool)
    for grouping in groupings:
        _, first, groups = np.unique(grouping, return_index=True, return_inverse=True)
        links = links + coo_array((np.ones(n, bool), (np.arange(n), first[groups])), (n, n))
    return np.asarray(connected_components(links, directed=False)[1], np.intp)


def _number(things: Sequence[object]) -> str:
    return f"{len(things)} picture{'' if len(things) == 1 else 's'}"
