"""Folders of class folders: their pictures, and the class of each."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from gel_lightning.core.errors import GelError
from gel_lightning.core.files import FORMULA_STARTS
from gel_lightning.core.text import printable
from gel_lightning.data.picture_files import (
    NONE_LEFT_OUT,
    FoundPictures,
    is_folder,
    is_hidden,
    is_picture,
    pictures_in,
    raise_unlistable,
    suffixes_in_words,
)

DEFAULT_CLASSES = ("gel", "not_gel")
"""The classes of the default pictures, and the default classes of a classifier."""


class LabelledPictures(NamedTuple):
    """The pictures of a folder of class folders.

    Attributes:
        paths: of n picture files.
        labels: the index into ``class_names`` of each.
        class_names: the names of the class folders.
        left_out: number of other files in and beside the class folders, by their suffix in lower case.
        shared: names of the subfolders, if all class folders have the same ones and no pictures beside them.
    """

    paths: list[Path]
    labels: list[int]
    class_names: list[str]
    left_out: Mapping[str, int] = NONE_LEFT_OUT
    shared: tuple[str, ...] = ()


def read_class_folders(
    folders: str | Path | Sequence[str | Path],
    class_names: Sequence[str] | None = None,
    every_class: bool = True,
    leave_out: bool = False,
) -> LabelledPictures:
    """Lists the pictures of one or more folders that have one subfolder per class; equal names are one class.

    A class has the pictures in its folders at any depth, sorted by path: files with one of
    :data:`~gel_lightning.data.images.IMAGE_SUFFIXES`, and files without a suffix that begin like a picture. Hidden
    files and folders are ignored. A picture beside the class folders is an error, so that it is not lost silently.

    Args:
        folders: one folder or several.
        class_names: the expected classes, in the order of their labels; by default those of the folders, sorted.
        every_class: whether all of ``class_names`` must be there; a folder of test pictures may lack some.
        leave_out: whether to leave out class folders that are not in ``class_names``; else they are an error.

    Raises:
        GelError: a folder does not exist, is named twice or has no class folders; there are fewer than two classes or
            not those of ``class_names``; a class is empty or has a name that a spreadsheet would take for a formula; or
            a picture lies beside the class folders.
    """
    roots = _roots(folders)
    found = find_class_folders(roots)
    _check_classes(roots, list(found), class_names, every_class, leave_out)
    beside = [sorted(folder / name for name in _listing(folder)[1] if not is_hidden(name)) for folder in roots]
    for folder, files in zip(roots, beside, strict=True):
        if loose := [path.name for path in files if is_picture(path)]:
            raise GelError(
                f"{folder}: {_listed(loose)} beside the class folders: move each into the folder of its class"
            )

    names = list(class_names or found)
    places = [(label, place) for label, name in enumerate(names) for place in found.get(name, ())]
    classes = [_class_pictures(place) for _, place in places]
    left_out = Counter(path.suffix.lower() for files in beside for path in files)
    return LabelledPictures(
        [path for pictures in classes for path in pictures.paths],
        [label for (label, _), pictures in zip(places, classes, strict=True) for _ in pictures.paths],
        names,
        sum((Counter(pictures.left_out) for pictures in classes), left_out),
        _shared_folders([place for _, place in places], classes),
    )


def find_class_folders(folders: Sequence[Path]) -> dict[str, list[Path]]:
    """Finds the class folders in one or more folders, without listing their contents.

    Returns:
        The folders of each class, sorted by class.

    Raises:
        GelError: a folder does not exist or is named twice, or one of several has no class folders.
    """
    found: dict[str, list[Path]] = {}
    places: set[str] = set()
    for folder in folders:
        names, _ = _listing(folder)
        if os.path.realpath(folder) in places:
            raise GelError(f"{folder}: named twice: name each folder of pictures once")
        places.add(os.path.realpath(folder))
        if len(folders) > 1 and not names:
            raise GelError(f"{folder}: has no class folders: put its pictures in folders named after their classes")
        for shown, name in names.items():
            found.setdefault(shown, []).append(folder / name)
    return dict(sorted(found.items()))


def class_folders(folders: str | Path | Sequence[str | Path]) -> list[str]:
    """Lists the names of the class folders in one or more folders, without listing their contents.

    Raises:
        GelError: as for :func:`find_class_folders`, or there are fewer than two classes.
    """
    found = list(find_class_folders(_roots(folders)))
    _check_classes(_roots(folders), found)
    return found


def count_left_out(folders: Sequence[Path], class_names: Sequence[str]) -> dict[str, int]:
    """Counts the pictures of each class that is not one of ``class_names``."""
    return {
        name: sum(len(pictures_in(place).paths) for place in places)
        for name, places in find_class_folders(folders).items()
        if name not in class_names
    }


def folder_notes(folders: str | Path | Sequence[str | Path], found: FoundPictures | LabelledPictures) -> list[str]:
    """Lines for the user about the pictures found in one or more folders: other files, and doubtful classes."""
    notes, folder = [], ", ".join(map(str, _roots(folders)))
    if found.left_out:
        count = sum(found.left_out.values())
        by_suffix = sorted(found.left_out.items(), key=lambda item: (-item[1], item[0]))
        kinds = ", ".join(f"{number} {suffix or 'without a suffix'}" for suffix, number in by_suffix)
        notes.append(f"{folder}: {count} {'file' if count == 1 else 'files'} left out, not taken for pictures: {kinds}")
    if isinstance(found, LabelledPictures) and found.shared:
        notes.append(
            f"{folder}: the class folders {', '.join(map(shown_name, found.class_names))} all have the folders "
            f"{', '.join(map(shown_name, found.shared))} in them. If those are the classes, name one of the two as "
            "train_dir and the other as test_dir"
        )
    return notes


def shown_name(name: str) -> str:
    """A name for messages: quoted if it begins or ends with a space."""
    return name if name == name.strip() else repr(name)


def _shared_folders(folders: Sequence[Path], classes: Sequence[FoundPictures]) -> tuple[str, ...]:
    """The names of the subfolders, if all class folders have the same two or more and no pictures beside them."""
    below = [
        {path.relative_to(folder).parts[0] if path.parent != folder else "" for path in pictures.paths}
        for folder, pictures in zip(folders, classes, strict=True)
    ]
    same = len(below[0]) > 1 and "" not in below[0] and all(names == below[0] for names in below)
    return tuple(sorted(below[0])) if same else ()


def _class_pictures(folder: Path) -> FoundPictures:
    if (found := pictures_in(folder)).paths:
        return found
    raise GelError(
        f"{folder}: no picture in this class folder ({suffixes_in_words()}): put pictures in or remove the folder"
    )


def _listing(folder: Path) -> tuple[dict[str, str], list[str]]:
    """The class folders of a folder by class name, sorted, and the names of the files beside them."""
    if not is_folder(folder):
        raise GelError(f"{folder}: is a file, not a folder: name the folder that holds the class folders")
    _, subfolders, files = next(os.walk(folder, onerror=raise_unlistable))
    return {printable(name): name for name in sorted(subfolders) if not is_hidden(name)}, files


def _roots(folders: str | Path | Sequence[str | Path]) -> list[Path]:
    return [Path(folders)] if isinstance(folders, str | Path) else [Path(folder) for folder in folders]


def _check_classes(
    folders: Sequence[Path],
    found: list[str],
    class_names: Sequence[str] | None = None,
    every_class: bool = True,
    leave_out: bool = False,
) -> None:
    where = ", ".join(map(str, folders))
    if formulas := [name for name in found if name.startswith(FORMULA_STARTS)]:
        raise GelError(
            f"{folders[0] / formulas[0]}: a spreadsheet would take this class for a formula: rename the folder"
        )
    if class_names is not None:
        missing = sorted(set(class_names) - set(found))
        extra = [] if leave_out else sorted(set(found) - set(class_names))
        none = len(missing) == len(class_names)
        if extra or (missing and every_class) or none:
            own, expected, missing_names, extra_names = (
                ", ".join(map(shown_name, names)) or "none" for names in (found, class_names, missing, extra)
            )
            if leave_out:
                raise GelError(
                    f"{where}: no class folder {missing_names}, but {own}: name classes that are there with "
                    "--data.class_names"
                )
            raise GelError(
                f"{where}: its class folders are {own}, those of the training pictures {expected} "
                f"(missing: {missing_names}; extra: {extra_names}): make, remove or rename them, or name the classes "
                "to take with --data.class_names"
            )
    elif len(found) < 2:
        names = f"only the class folder {found[0]}" if found else "no class folders"
        raise GelError(
            f"{where}: has {names}: give each class a folder of its own, for example {folders[0] / 'gel'} "
            f"and {folders[0] / 'not_gel'}"
        )


def _listed(names: list[str]) -> str:
    few = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{len(names)} picture{'s' if len(names) > 1 else ''} ({few})"
