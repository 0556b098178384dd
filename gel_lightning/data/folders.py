"""Folders of class folders: which pictures there are, and of which class."""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from gel_lightning.core.errors import GelError
from gel_lightning.data.images import IMAGE_SUFFIXES


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
    folders: str | Path | Sequence[str | Path], class_names: Sequence[str] | None = None, leave_out: bool = False
) -> LabelledPictures:
    """Lists the pictures of one folder or several that have one sub-folder a class; equal names are one class.

    A class has the pictures at any depth below its folder, in the order of their paths. Hidden files and
    folders are ignored, and files without one of :data:`~gel_lightning.data.images.IMAGE_SUFFIXES`. A picture
    that lies beside the class folders has no class: that is an error, since it would be lost unseen.

    Args:
        folders: one folder, or several, whose pictures follow one another within each class.
        class_names: the classes there must be, in the order of their labels; those of the folders, in
            alphabetical order, if not given.
        leave_out: whether class folders beside those of ``class_names`` are left out; else they are an error.

    Raises:
        GelError: there is no such folder, one is named twice or has no class folder, there are fewer than two
            classes or not those of ``class_names``, a class is empty, or a picture lies beside the class folders.
    """
    roots = [Path(folders)] if isinstance(folders, str | Path) else [Path(folder) for folder in folders]
    found = class_folders(roots)
    _check_classes(roots, sorted(found), class_names, leave_out)
    for folder in roots:
        _, _, files = next(os.walk(folder, onerror=_stop))
        if loose := sorted(name for name in files if not _is_hidden(name) and is_picture(Path(name))):
            raise GelError(
                f"{folder}: {_listed(loose)} beside the class folders: move each into the folder of its class"
            )
    names = list(class_names or sorted(found))
    pictures = [
        (path, label) for label, name in enumerate(names) for folder in found[name] for path in _class_pictures(folder)
    ]
    return LabelledPictures([path for path, _ in pictures], [label for _, label in pictures], names)


def class_folders(folders: Sequence[Path]) -> dict[str, list[Path]]:
    """Finds the class folders in one folder or several, without looking into them.

    Returns:
        For each class, in alphabetical order, its folder in each of ``folders`` that has one.

    Raises:
        GelError: there is no such folder, one is named twice, or one of several has no class folders.
    """
    found: dict[str, list[Path]] = {}
    places: set[str] = set()
    for folder in folders:
        if not _is_folder(folder):
            raise GelError(f"{folder}: is a file, not a folder: name the folder that holds the class folders")
        if os.path.realpath(folder) in places:
            raise GelError(f"{folder}: named twice: name each folder of pictures once")
        places.add(os.path.realpath(folder))
        _, subfolders, _ = next(os.walk(folder, onerror=_stop))
        names = [name for name in subfolders if not _is_hidden(name)]
        if len(folders) > 1 and not names:
            raise GelError(f"{folder}: has no class folders: put its pictures in folders named after their classes")
        for name in names:
            found.setdefault(name, []).append(folder / name)
    return dict(sorted(found.items()))


def count_left_out(folders: Sequence[Path], class_names: Sequence[str]) -> dict[str, int]:
    """Counts the pictures of each class that is not one of ``class_names``."""
    return {
        name: sum(is_picture(path) for place in places for path in visible_files(place))
        for name, places in class_folders(folders).items()
        if name not in class_names
    }


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


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except OSError as error:
        raise GelError(f"{path}: cannot be opened ({error.strerror}): check the path") from error


def _check_classes(
    folders: Sequence[Path], found: list[str], class_names: Sequence[str] | None, leave_out: bool
) -> None:
    where = ", ".join(map(str, folders))
    missing = [name for name in class_names or () if name not in found]
    if leave_out and missing:
        raise GelError(
            f"{where}: no class folder {', '.join(missing)}, but {', '.join(found) or 'none'}: "
            "name classes that are there with --data.class_names"
        )
    extra = [name for name in found if class_names is not None and name not in class_names]
    if missing or (extra and not leave_out):
        raise GelError(
            f"{where}: its class folders are not those of the training pictures "
            f"(missing: {', '.join(sorted(missing)) or 'none'}; extra: {', '.join(extra) or 'none'}): "
            "make, remove or rename them, or name the classes to take with --data.class_names"
        )
    if len(found) < 2:
        names = f"only the class folder {found[0]}" if found else "no class folders"
        raise GelError(
            f"{where}: has {names}: give each class a folder of its own, for example {folders[0] / 'gel'} "
            f"and {folders[0] / 'not_gel'}"
        )


def _listed(names: list[str]) -> str:
    few = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{len(names)} picture{'s' if len(names) > 1 else ''} ({few})"


def _suffixes() -> str:
    return " ".join(sorted(IMAGE_SUFFIXES))
