"""``gel-fit data check``: the contents of a folder of pictures, and problems with them."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Column, Table

from gel_lightning.core.text import printable
from gel_lightning.data.duplicates import hash_pictures, near_duplicate_groups, picture_hashes, repeated_groups
from gel_lightning.data.folders import LabelledPictures, folder_notes
from gel_lightning.data.formats import PictureHeader
from gel_lightning.data.images import PictureError, describe_picture
from gel_lightning.data.sources import read_source

MAX_GROUPS = 100  # that are listed, of near-duplicates or of pictures with several pages
MAX_NAMES = 6  # of pictures, per group


class _Picture(NamedTuple):
    name: str  # path relative to the folder, printable
    label: int
    header: PictureHeader
    hashes: tuple[int, ...]


class _Folder(NamedTuple):
    path: Path
    class_names: list[str]
    pictures: list[_Picture]  # those that can be read
    errors: list[PictureError]  # of those that cannot
    notes: list[str]  # about other files


def check(train_dir: str | Path, test_dir: str | Path | None = None) -> int:
    """Prints the contents of folders of pictures, unreadable pictures and near-duplicates.

    Args:
        train_dir: folder of class folders, or a CSV file of paths and labels.
        test_dir: another one of the same classes, to compare with the first.

    Returns:
        The exit status: 1 if a picture cannot be read, else 0.

    Raises:
        GelError: as for :func:`~gel_lightning.data.sources.read_source`.
    """
    # rich must not interpret brackets and colons in file names.
    console = Console(markup=False, emoji=False, highlight=False)
    train = _read(Path(train_dir))
    folders = [train]
    if test_dir is not None:
        folders.append(_read(Path(test_dir), train.class_names))
    for folder in folders:
        _print_contents(console, folder)
        _print_unreadable(console, folder)
        _print_near_identical(console, folder)
    if test_dir is not None:
        _print_shared(console, *folders)
    return int(any(folder.errors for folder in folders))


def readable_pictures(folder: str | Path) -> tuple[LabelledPictures, NDArray[np.intp]]:
    """Lists the pictures of a folder or a CSV file that can be read, and numbers their groups of near-duplicates.

    Raises:
        GelError: as for :func:`~gel_lightning.data.sources.read_source`.
    """
    paths, labels, names = read_source([Path(folder)], None, every_class=False)[:3]
    read = [
        (path, label, hashes)
        for path, label, hashes in zip(paths, labels, hash_pictures(paths), strict=True)
        if not isinstance(hashes, PictureError)
    ]
    groups = near_duplicate_groups(picture_hashes([hashes for *_, hashes in read]))
    return LabelledPictures([path for path, *_ in read], [label for _, label, _ in read], names), groups


def _read(path: Path, class_names: Sequence[str] | None = None) -> _Folder:
    found = read_source([path], class_names, every_class=False)
    paths, labels, names = found[:3]
    pictures, errors = [], []
    for picture, label, result in zip(paths, labels, hash_pictures(paths), strict=True):
        if isinstance(result, PictureError):
            errors.append(result)
        else:
            name = printable(short_path(picture, path))
            pictures.append(_Picture(name, label, describe_picture(picture), result))
    return _Folder(path, [printable(name) for name in names], pictures, errors, folder_notes(path, found))


def short_path(picture: Path, source: Path) -> Path:
    """The path of a picture within the folder, or that of the CSV file, that it comes from; else as it is."""
    folder = source.parent if source.is_file() else source
    return picture.relative_to(folder) if picture.is_relative_to(folder) else picture


def _print_contents(console: Console, folder: _Folder) -> None:
    console.out(f"{printable(folder.path)}: {_number(folder.pictures, 'readable picture')}\n")
    sizes = Table("class", "pictures", "width", "height", box=None)
    for label, name in enumerate(folder.class_names):
        headers = [picture.header for picture in folder.pictures if picture.label == label]
        widths, heights = [header.width for header in headers], [header.height for header in headers]
        sizes.add_row(name, str(len(headers)), _range(widths), _range(heights))
    console.print(sizes, "", sep="\n")

    # By class, because a classifier may learn a format that only one class has instead of what a gel looks like.
    counts = Counter((header.format, header.pixels, label) for _, label, header, _ in folder.pictures)
    kinds = Table("format", "pixels", *folder.class_names, box=None)
    for file_format, mode in sorted({(file_format, mode) for file_format, mode, _ in counts}):
        in_classes = (counts[file_format, mode, label] for label in range(len(folder.class_names)))
        kinds.add_row(file_format, mode, *map(str, in_classes))
    console.print(kinds, "", sep="\n")

    several = [picture for picture in folder.pictures if picture.header.pages > 1]
    if several:
        console.out(f"{_number(several, 'picture')} of several pages or frames, of which one is read:")
        for picture in several[:MAX_GROUPS]:
            console.out(f"  {picture.name}: page {picture.header.page} of {picture.header.pages}")
        if len(several) > MAX_GROUPS:
            console.out(f"  ... and {len(several) - MAX_GROUPS} more")
        console.out("")
    for note in folder.notes:
        console.out(f"{printable(note)}.\n")


def _print_unreadable(console: Console, folder: _Folder) -> None:
    if not folder.errors:
        console.out("No unreadable pictures.\n")
        return
    console.out(f"{_number(folder.errors, 'unreadable picture')}, to remove or replace:")
    for error in folder.errors:
        console.out(f"  {printable(error)}")
    console.out("")


def _print_near_identical(console: Console, folder: _Folder) -> None:
    groups = [[[folder.pictures[index] for index in group]] for group in _near_identical(folder.pictures)]
    _print_groups(console, f"near-identical pictures in {printable(folder.path)}", ["pictures"], groups)


def _print_shared(console: Console, train: _Folder, test: _Folder) -> None:
    pictures, boundary = train.pictures + test.pictures, len(train.pictures)
    groups = [
        [
            [pictures[index] for index in group if index < boundary],
            [pictures[index] for index in group if index >= boundary],
        ]
        for group in _near_identical(pictures)
        if group[0] < boundary <= group[-1]
    ]
    if groups:
        console.out("A test picture that was trained on proves nothing; to remove from one of the two:")
    what = f"near-identical pictures across {printable(train.path)} and {printable(test.path)}"
    _print_groups(console, what, ["training", "test"], groups)


def _near_identical(pictures: list[_Picture]) -> list[list[int]]:
    """Groups of two or more near-duplicates, each as indices in ascending order."""
    return repeated_groups(near_duplicate_groups(picture_hashes([picture.hashes for picture in pictures])))


def _print_groups(console: Console, what: str, columns: list[str], groups: list[list[list[_Picture]]]) -> None:
    """Prints one row per group, with the pictures of each column. Groups with several labels come first."""
    if not groups:
        console.out(f"No {what}.\n")
        return
    console.out(f"{_number(groups, 'group')} of {what}:")
    table = Table(*(Column(column, overflow="fold") for column in columns), "", box=None)
    groups = sorted(groups, key=_labels_differ, reverse=True)
    for group in groups[:MAX_GROUPS]:
        table.add_row(*map(_names, group), "labels differ" if _labels_differ(group) else "")
    console.print(table)
    if len(groups) > MAX_GROUPS:
        console.out(f"  ... and {len(groups) - MAX_GROUPS} more")
    if _labels_differ(groups[0]):
        console.out("Where labels differ, look: one may be labelled wrongly. Pictures are compared in grey.")
    console.out("")


def _labels_differ(group: list[list[_Picture]]) -> bool:
    return len({picture.label for pictures in group for picture in pictures}) > 1


def _names(pictures: list[_Picture]) -> str:
    names = ", ".join(picture.name for picture in pictures[:MAX_NAMES])
    return names if len(pictures) <= MAX_NAMES else f"{names} and {len(pictures) - MAX_NAMES} more"


def _range(values: list[int]) -> str:
    return f"{min(values)} to {max(values)}, median {median(values):.0f}" if values else ""


def _number(things: Sequence[object], name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"
