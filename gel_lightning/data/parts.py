"""The training, validation and test parts of the data, from folders of class folders, CSV files or a known data set."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from gel_lightning.core.errors import GelError
from gel_lightning.data.builtin import read_builtin
from gel_lightning.data.duplicates import near_duplicate_groups
from gel_lightning.data.folders import DEFAULT_CLASSES, LabelledPictures, folder_notes, read_class_folders
from gel_lightning.data.groups import joined_groups, read_groups
from gel_lightning.data.named_sets import MAIN, name_of
from gel_lightning.data.pool import Pool
from gel_lightning.data.sources import read_source, source_left_out

Hashes = Callable[[Sequence[Path]], NDArray[np.uint64]]
"""Computes the perceptual hashes of n pictures, [n, HASHES]; an unreadable one is an error."""


@dataclass(frozen=True)
class Folders:
    """Folders of class folders, or CSV files, and which of their pictures are used.

    Attributes:
        train: folders of class folders to train on.
        test: the folder of each test part.
        class_names: the classes to use, in the order of their labels; by default all.
        groups: CSV file of groups that must stay together.
        extra: folder of drawn pictures to add to the training part.
        finds_duplicates: whether near-duplicates are found, and kept on one side of each split.
    """

    train: Sequence[Path]
    test: dict[str, Path]
    class_names: Sequence[str] | None = None
    groups: Path | None = None
    extra: Path | None = None
    finds_duplicates: ClassVar[bool] = True

    def read_train(self) -> LabelledPictures:
        """Lists the pictures to train on."""
        return read_source(self.train, self.class_names, leave_out=self.class_names is not None)

    def read_tests(self, class_names: Sequence[str] | None = None) -> dict[str, LabelledPictures]:
        """Lists the pictures of each test part, all of the same classes, some of which may be missing.

        Args:
            class_names: these classes; by default those to use, or those of the first folder.

        Raises:
            GelError: a folder has other classes, or a test set has the name of a class.
        """
        parts: dict[str, LabelledPictures] = {}
        leave_out, class_names = self.class_names is not None, class_names or self.class_names
        for part, folder in self.test.items():
            parts[part] = read_source([folder], class_names, every_class=False, leave_out=leave_out)
            class_names = parts[part].class_names
            if name_of(part) in class_names:
                raise GelError(f"test set {name_of(part)} has the name of a class: give it another (--data.test_dir)")
        return parts

    def left_out(self) -> dict[str, int]:
        """Counts the pictures of each class that is left out."""
        counts: dict[str, int] = {}
        if self.class_names is not None:
            for place in (*self.train, *self.test.values()):
                for name, pictures in source_left_out(place, self.class_names).items():
                    counts[name] = counts.get(name, 0) + pictures
        return counts


@dataclass(frozen=True)
class Official:
    """A data set of torchvision, with its official test part; a stand-in for :class:`Folders`.

    Near-duplicates are not looked for: they would chain MNIST's digits into one group.

    Attributes:
        dataset: its name.
        root: its folder.
        class_names: the classes to use, in the order of their labels; by default all.
    """

    dataset: str
    root: Path
    class_names: Sequence[str] | None = None
    groups: ClassVar[None] = None
    extra: ClassVar[None] = None
    finds_duplicates: ClassVar[bool] = False

    @property
    def train(self) -> Sequence[Path]:
        """Its folder."""
        return [self.root]

    @property
    def test(self) -> dict[str, Path]:
        """Its folder, which has the test part too."""
        return {MAIN: self.root}

    def read_train(self) -> LabelledPictures:
        """Lists the pictures to train on."""
        return self._parts["train"]

    def read_tests(self, class_names: Sequence[str] | None = None) -> dict[str, LabelledPictures]:
        """Lists the test pictures."""
        return {MAIN: self._parts[MAIN]}

    def left_out(self) -> dict[str, int]:
        """Classes that are left out are not counted."""
        return {}

    @cached_property
    def _parts(self) -> dict[str, LabelledPictures]:
        return read_builtin(self.dataset, self.root, self.class_names)


class Split:
    """Pictures split into parts, with near-duplicates and pictures of one group on one side.

    Attributes:
        parts: ``train``, ``val``, ``test``, and ``test_NAME`` for each named test set.
        extra: path and label of the drawn pictures that are added to every training part.
        notes: lines for the user about the folders.
        near_training: for each test folder, how many pictures are near-duplicates of training or validation pictures.

    Args:
        folders: where the pictures are.
        hashes: computes perceptual hashes.
        test_fraction: fraction of the pictures to hold out for testing, if there is no unnamed test set.
        val_fraction: fraction of the remaining pictures to hold out for validation.
        seed: of the split.

    Raises:
        GelError: folders, classes, groups or pictures cannot be used.
    """

    def __init__(
        self, folders: Folders | Official, hashes: Hashes, *, test_fraction: float, val_fraction: float, seed: int
    ) -> None:
        self._hashes, self._val_fraction, self._seed = hashes, val_fraction, seed
        self._finds_duplicates = folders.finds_duplicates
        pictures = folders.read_train()
        tests = folders.read_tests(pictures.class_names)
        self.notes = folder_notes(folders.train, pictures)
        self.notes += [note for part in tests for note in folder_notes(folders.test[part], tests[part])]
        drawn = _drawn(folders.extra, pictures.class_names) if folders.extra else LabelledPictures([], [], [])
        if self._finds_duplicates:
            hashes([path for some in (pictures, *tests.values(), drawn) for path in some.paths])  # computed in one pass
        self._pool = self._grouped(pictures, folders)
        if MAIN not in tests:
            self._pool, held_out = self._pool.hold_out(test_fraction, seed)
            tests = {MAIN: held_out.pictures, **tests}
        self.near_training = {
            part: int(self._near(tests[part].paths, self._pool.pictures.paths).sum()) for part in folders.test
        }
        # Without near-duplicates of other pictures, which may be held out.
        near = self._near(drawn.paths, [path for some in (pictures, *tests.values()) for path in some.paths])
        self.extra = [(path, label) for path, label, no in zip(drawn.paths, drawn.labels, near, strict=True) if not no]
        self.parts = {**self._train_and_val(self._pool), **tests}

    def folds(self, folds: int | Literal["groups"], repeats: int) -> list[dict[str, LabelledPictures]]:
        """Splits the training and validation pictures into folds: see :meth:`GelDataModule.cross_validation`."""
        pairs: Iterable[tuple[Pool, Pool]]
        pairs = self._pool.group_folds() if folds == "groups" else self._pool.folds(folds, repeats, self._seed)
        return [{**self._train_and_val(rest), MAIN: fold.pictures} for rest, fold in pairs]

    @property
    def group_names(self) -> list[str]:
        """The names of the groups of the training and validation pictures, in the order they are left out."""
        return [self._pool.names[group] for group in np.unique(self._pool.groups).tolist()]

    def _grouped(self, pictures: LabelledPictures, folders: Folders | Official) -> Pool:
        """The pictures with their groups: those of near-duplicates, joined with those of the user's file."""
        if not self._finds_duplicates:
            return Pool(pictures, np.arange(len(pictures.paths)), {})
        groups = near_duplicate_groups(self._hashes(pictures.paths))
        if folders.groups is None:
            return Pool(pictures, groups, {})
        named = read_groups(folders.groups, pictures.paths, folders.train)
        groups = joined_groups(named, groups)
        members: dict[int, list[str]] = {}
        for name, group in sorted(set(zip(named, groups.tolist(), strict=True))):
            members.setdefault(group, []).append(name)  # sorted by first name
        numbers = np.empty(len(members), np.intp)
        numbers[list(members)] = np.arange(len(members))
        return Pool(pictures, numbers[groups], dict(enumerate(" + ".join(names) for names in members.values())))

    def _near(self, paths: Sequence[Path], others: Sequence[Path]) -> NDArray[np.bool_]:
        """Whether each picture is a near-duplicate of one of the others."""
        if not paths or not self._finds_duplicates:
            return np.zeros(len(paths), bool)
        groups = near_duplicate_groups(self._hashes([*paths, *others]))
        return np.isin(groups[: len(paths)], groups[len(paths) :])

    def _train_and_val(self, pool: Pool) -> dict[str, LabelledPictures]:
        """Splits pictures in two, and adds drawn ones to the training part."""
        train, val = pool.hold_out(self._val_fraction, self._seed)
        paths, labels, names, *_ = train.pictures
        extra = [path for path, _ in self.extra], [label for _, label in self.extra]
        return {"train": LabelledPictures(paths + extra[0], labels + extra[1], names), "val": val.pictures}


def check_drawn_classes(class_names: Sequence[str]) -> None:
    """Refuses to add drawn pictures to those of other classes than gel and not_gel.

    Raises:
        GelError: names the classes.
    """
    if missing := [name for name in DEFAULT_CLASSES if name not in class_names]:
        raise GelError(
            f"drawn pictures are of the classes {' and '.join(DEFAULT_CLASSES)}, and there is no class "
            f"{' or '.join(missing)} here but {', '.join(class_names)}: leave out --data.extra_drawn, or rename the "
            "class folders"
        )


def _drawn(folder: Path, class_names: Sequence[str]) -> LabelledPictures:
    """The drawn pictures of a folder, with labels for ``class_names``."""
    paths, labels, names, *_ = read_class_folders(folder)
    check_drawn_classes(class_names)
    places = [list(class_names).index(name) for name in names]
    return LabelledPictures(paths, [places[label] for label in labels], list(class_names))
