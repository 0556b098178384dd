"""Pictures with their groups, and the ways to split them so that each group stays on one side."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gel_lightning.core.errors import GelError
from gel_lightning.data.folders import LabelledPictures
from gel_lightning.data.splits import stratified_folds, stratified_split


class Pool(NamedTuple):
    """Pictures to split.

    Attributes:
        pictures: n pictures.
        groups: the group of each picture, [n], which stays on one side of every split.
        names: the names of groups from a file of the user; empty if there is none.
    """

    pictures: LabelledPictures
    groups: NDArray[np.intp]
    names: dict[int, str]

    def hold_out(self, fraction: float, seed: int) -> tuple["Pool", "Pool"]:
        """Splits the pictures in two with :func:`~gel_lightning.data.splits.stratified_split`.

        Returns:
            The pictures kept and those held out.

        Raises:
            GelError: a class would be missing on one side.
        """
        kept, held_out = stratified_split(
            self.pictures.labels, self.groups, fraction, seed, self.pictures.class_names, bool(self.names)
        )
        return self.subset(kept), self.subset(held_out)

    def folds(self, folds: int, repeats: int, seed: int) -> Iterator[tuple["Pool", "Pool"]]:
        """Splits the pictures into folds with :func:`~gel_lightning.data.splits.stratified_folds`.

        Yields:
            For each fold of each repeat: the pictures of the other folds, and those of the fold.

        Raises:
            GelError: a class has too few groups to be in all folds.
        """
        labels, names = self.pictures.labels, self.pictures.class_names
        for dealt in stratified_folds(labels, self.groups, folds, repeats, seed, names, bool(self.names)):
            yield from map(self._without, dealt)

    def group_folds(self) -> Iterator[tuple["Pool", "Pool"]]:
        """Leaves out one group at a time, in the order of their names.

        Yields:
            For each group: the pictures of the other groups, and those of the group.

        Raises:
            GelError: there is only one group.
        """
        from sklearn.model_selection import LeaveOneGroupOut

        if len(present := np.unique(self.groups)) < 2:
            raise GelError(f"all pictures are of one group, {self.names[present[0]]}: none can be left out")
        for _, fold in LeaveOneGroupOut().split(self.groups, groups=self.groups):
            yield self._without(fold)

    def subset(self, indices: Sequence[int] | NDArray[np.intp]) -> "Pool":
        """Takes some of the pictures."""
        paths, labels, class_names, *_ = self.pictures
        taken = LabelledPictures([paths[i] for i in indices], [labels[i] for i in indices], class_names)
        return Pool(taken, self.groups[indices], self.names)

    def _without(self, fold: NDArray[np.intp]) -> tuple["Pool", "Pool"]:
        return self.subset(np.setdiff1d(np.arange(len(self.groups)), fold)), self.subset(fold)
