"""Folders of class folders: which pictures there are, and of which class."""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from gel_lightning.core.errors import GelError
from gel_lightning.data.images import IMAGE_SUFFIXES

DEFAULT_CLASSES = ("gel", "not_gel")
"""Of the default pictures, and of a classifier that is told no others."""


class LabelledPictures(NamedTuple):
    """The pictures of a folder of class folders.

    Attributes:
        paths: the picture files, n of them.
        labels: the index into ``class_names`` of each.
        class_names: the names of the class folders.
    """

    paths: list[Path]
    labels: list[int]
    class_names: list[str]


def read_class_folders(
    folder: str | Path, class_names: Sequence[str] | None = None, every_class: bool = True
) -> LabelledPictures:
    """Lists the pictures of a folder that has one sub-folder a class.

    A class has the pictures at any depth below its folder, in the order of their paths. Hidden files and
    folders are ignored, and files without one of :data:`~gel_lightning.data.images.IMAGE_SUFFIXES`. A picture
    that lies beside the class folders has no class: that is an error, since it would be lost unseen.

    Args:
        folder: the folder.
        class_names: the classes there must be, in the order of their labels; from the folder itself, in
            alphabetical order, if not given.
        every_class: False lets some of ``class_names`` be absent, as in a folder of pictures to test on.

    Raises:
        GelError: there is no such folder, it has fewer than two class folders or not those of
            ``class_names``, a class is empty, or a picture lies beside the class folders.
    """
    folder = Path(folder)
    found, files = _listing(folder)
    _check_classes(folder, found, class_names, every_class)
    if loose := sorted(name for name in files if not _is_hidden(name) and is_picture(Path(name))):
        raise GelError(f"{folder}: {_listed(loose)} beside the class folders: move each into the folder of its class")

    names = list(class_names or found)
    pictures = [
        (path, label) for label, name in enumerate(names) if name in found for path in _class_pictures(folder / name)
    ]
    return LabelledPictures([path for path, _ in pictures], [label for _, label in pictures], names)


def class_folders(folder: str | Path) -> list[str]:
    """Lists the names of the class folders of a folder, without a look into them.

    Raises:
        GelError: there is no such folder, or it has fewer than two class folders.
    """
    folder = Path(folder)
    found, _ = _listing(folder)
    _check_classes(folder, found)
    return found


def find_pictures(path: str | Path) -> list[Path]:
    """Lists the pictures to predict on.

    Args:
        path: a file, whatever its suffix, or a folder with pictures at any depth.

    Returns:
        The file, or the folder's pictures in the order of their paths.

    Raises:
        GelError: there is no such file or folder, or no picture in the folder.
    """
    path = Path(path)
    if not _is_folder(path):
        return [path]
    if pictures := [file for file in visible_files(path) if is_picture(file)]:
        return pictures
    raise GelError(f"{path}: no picture in it or below it ({_suffixes()}): put pictures in or name another")


def visible_files(folder: Path) -> list[Path]:
    """Lists the files at any depth below a folder, sorted, without hidden files and folders.

    Symbolic links are followed, each folder entered once, so that a loop of links ends.

    Raises:
        GelError: a folder cannot be listed.
    """
    return sorted(_walk(folder))


def is_picture(path: Path) -> bool:
    """Tells by its suffix whether a file in a folder is taken as a picture."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def _walk(folder: Path) -> Iterator[Path]:
    entered = {os.path.realpath(folder)}
    for parent, subfolders, files in os.walk(folder, followlinks=True, onerror=_stop):
        places = {os.path.realpath(Path(parent, name)): name for name in subfolders if not _is_hidden(name)}
        # os.walk goes on into what is left in its own list.
        subfolders[:] = sorted(name for place, name in places.items() if place not in entered)
        entered.update(places)
        yield from (Path(parent, name) for name in files if not _is_hidden(name))


def _stop(error: OSError) -> None:
    raise GelError(f"{error.filename}: cannot be listed ({error.strerror}): check its permissions") from error


def _is_hidden(name: str) -> bool:
    return name.startswith(".")


def _class_pictures(folder: Path) -> list[Path]:
    if pictures := [path for path in visible_files(folder) if is_picture(path)]:
        return pictures
    raise GelError(f"{folder}: no picture in this class folder ({_suffixes()}): put pictures in or remove the folder")


def _listing(folder: Path) -> tuple[list[str], list[str]]:
    """The names of the class folders of a folder, sorted, and of the files beside them."""
    if not _is_folder(folder):
        raise GelError(f"{folder}: is a file, not a folder: name the folder that holds the class folders")
    _, subfolders, files = next(os.walk(folder, onerror=_stop))
    return sorted(name for name in subfolders if not _is_hidden(name)), files


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except OSError as error:
        raise GelError(f"{path}: cannot be opened ({error.strerror}): check the path") from error


def _check_classes(
    folder: Path, found: list[str], class_names: Sequence[str] | None = None, every_class: bool = True
) -> None:
    if class_names is not None:
        missing, extra = sorted(set(class_names) - set(found)), sorted(set(found) - set(class_names))
        if extra or (missing and every_class) or not found:
            raise GelError(
                f"{folder}: its class folders are {', '.join(found) or 'none'}, those of the training pictures "
                f"{', '.join(class_names)} (missing: {', '.join(missing) or 'none'}; extra: "
                f"{', '.join(extra) or 'none'}): make, remove or rename them"
            )
    elif len(found) < 2:
        names = f"only the class folder {found[0]}" if found else "no class folders"
        raise GelError(
            f"{folder}: has {names}: give each class a folder of its own, for example {folder / 'gel'} "
            f"and {folder / 'not_gel'}"
        )


def _listed(names: list[str]) -> str:
    few = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{len(names)} picture{'s' if len(names) > 1 else ''} ({few})"


def _suffixes() -> str:
    return " ".join(sorted(IMAGE_SUFFIXES))
