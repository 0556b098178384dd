"""Folders of class folders: which pictures there are, and of which class."""

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from gel_lightning.core.errors import GelError
from gel_lightning.core.files import FORMULA_STARTS
from gel_lightning.core.text import printable
from gel_lightning.data.images import IMAGE_SUFFIXES, starts_as_picture

UNREAD_SUFFIXES = frozenset(
    {
        *(".1sc", ".ai", ".arw", ".cr2", ".czi", ".dcm", ".dng", ".emf", ".eps", ".ico", ".jls", ".jxl", ".jxr"),
        *(".lif", ".nd2", ".nef", ".oib", ".pbm", ".pcx", ".pdf", ".pgm", ".pnm", ".ppm", ".psd", ".scn", ".svg"),
        *(".tga", ".vsi", ".wmf", ".xcf"),
    }
)
"""Suffixes of other pictures: :func:`find_pictures` takes them, so that each gets a row with why it is not read."""

CLUTTER = frozenset({"@eadir", "__macosx", "$recycle.bin", "thumbs.db", "desktop.ini"})
"""Names, in lower case, of folders and files that systems add unasked."""

_NONE_LEFT_OUT: Mapping[str, int] = {}


class FoundPictures(NamedTuple):
    """The pictures at any depth below a folder.

    Attributes:
        paths: the picture files, in the order of their paths.
        left_out: number of other files by their suffix in lower case; "" is none.
    """

    paths: list[Path]
    left_out: Mapping[str, int] = _NONE_LEFT_OUT


DEFAULT_CLASSES = ("gel", "not_gel")
"""Of the default pictures, and of a classifier that is told no others."""


class LabelledPictures(NamedTuple):
    """The pictures of a folder of class folders.

    Attributes:
        paths: the picture files, n of them.
        labels: the index into ``class_names`` of each.
        class_names: the names of the class folders.
        left_out: number of other files in and beside the class folders, by their suffix in lower case; "" is none.
        shared: names of folders that all class folders have in them, where they all hold pictures.
    """

    paths: list[Path]
    labels: list[int]
    class_names: list[str]
    left_out: Mapping[str, int] = _NONE_LEFT_OUT
    shared: tuple[str, ...] = ()


def read_class_folders(
    folders: str | Path | Sequence[str | Path],
    class_names: Sequence[str] | None = None,
    every_class: bool = True,
    leave_out: bool = False,
) -> LabelledPictures:
    """Lists the pictures of one folder or several that have one sub-folder a class; equal names are one class.

    A class has the pictures at any depth below its folder, in the order of their paths. Pictures are files with one of
    :data:`~gel_lightning.data.images.IMAGE_SUFFIXES`, and those with no suffix that begin as a picture does. Hidden
    files and folders and :data:`CLUTTER` are ignored. A picture that lies beside the class folders has no class: that
    is an error, since it would be lost unseen.

    Args:
        folders: one folder, or several, whose pictures follow one another within each class.
        class_names: the classes there must be, in the order of their labels; those of the folders, in
            alphabetical order, if not given.
        every_class: False lets some of ``class_names`` be absent, as in a folder of pictures to test on.
        leave_out: whether class folders beside those of ``class_names`` are left out; else they are an error.

    Raises:
        GelError: there is no such folder, one is named twice or has no class folder, there are fewer than two
            classes or not those of ``class_names``, a class is empty or has a name that a spreadsheet would take for a
            formula, or a picture lies beside the class folders.
    """
    roots = _roots(folders)
    found = find_class_folders(roots)
    _check_classes(roots, list(found), class_names, every_class, leave_out)
    beside = [sorted(folder / name for name in _listing(folder)[1] if not _is_hidden(name)) for folder in roots]
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
    """Finds the class folders in one folder or several, without looking into them.

    Returns:
        For each class, in alphabetical order, its folder in each of ``folders`` that has one.

    Raises:
        GelError: there is no such folder, one is named twice, or one of several has no class folders.
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
    """Lists the names of the class folders of one folder or several, without a look into them.

    Raises:
        GelError: as for :func:`find_class_folders`, or there are fewer than two classes.
    """
    found = list(find_class_folders(_roots(folders)))
    _check_classes(_roots(folders), found)
    return found


def count_left_out(folders: Sequence[Path], class_names: Sequence[str]) -> dict[str, int]:
    """Counts the pictures of each class that is not one of ``class_names``."""
    return {
        name: sum(len(_pictures(place).paths) for place in places)
        for name, places in find_class_folders(folders).items()
        if name not in class_names
    }


def folder_notes(folders: str | Path | Sequence[str | Path], found: FoundPictures | LabelledPictures) -> list[str]:
    """Says what a person should know of the pictures found in one folder or several: a line for each such thing."""
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
    """A name as messages have it: quoted where it begins or ends with a space."""
    return name if name == name.strip() else repr(name)


def find_pictures(path: str | Path) -> FoundPictures:
    """Lists the pictures to predict on.

    Args:
        path: a file, whatever its suffix, or a folder with pictures at any depth.

    Returns:
        The file, or the folder's pictures, with those of :data:`UNREAD_SUFFIXES`.

    Raises:
        GelError: there is no such file or folder, or no picture in the folder.
    """
    path = Path(path)
    if not _is_folder(path):
        return FoundPictures([path])
    if (found := _pictures(path, UNREAD_SUFFIXES)).paths:
        return found
    raise GelError(f"{path}: no picture in it or below it ({_suffixes()}): put pictures in or name another")


def visible_files(
    folder: Path, leave_out: Path | None = None, on_error: Callable[[OSError], object] | None = None
) -> list[Path]:
    """Lists the files at any depth below a folder, sorted, without hidden files and folders.

    Symbolic links are followed, each folder entered once, so that a loop of links ends.

    Args:
        folder: the folder.
        leave_out: a folder that is not entered, wherever it is.
        on_error: is told of each folder that cannot be listed; without it that is an error.

    Raises:
        GelError: a folder cannot be listed.
    """
    return sorted(_walk(folder, leave_out, on_error or _stop))


def is_picture(path: Path) -> bool:
    """Tells by its suffix, or by its first bytes if it has none, whether a file in a folder is taken as a picture."""
    return path.suffix.lower() in IMAGE_SUFFIXES if path.suffix else starts_as_picture(path)


def _pictures(folder: Path, more_suffixes: frozenset[str] = frozenset()) -> FoundPictures:
    paths, left_out = [], Counter[str]()
    for path in visible_files(folder):
        if is_picture(path) or path.suffix.lower() in more_suffixes:
            paths.append(path)
        else:
            left_out[path.suffix.lower()] += 1
    return FoundPictures(paths, left_out)


def _shared_folders(folders: Sequence[Path], classes: Sequence[FoundPictures]) -> tuple[str, ...]:
    """The names of folders with pictures, if each of some folders has the same two or more and no other pictures."""
    below = [
        {path.relative_to(folder).parts[0] if path.parent != folder else "" for path in pictures.paths}
        for folder, pictures in zip(folders, classes, strict=True)
    ]
    same = len(below[0]) > 1 and "" not in below[0] and all(names == below[0] for names in below)
    return tuple(sorted(below[0])) if same else ()


def _walk(folder: Path, leave_out: Path | None, on_error: Callable[[OSError], object]) -> Iterator[Path]:
    entered = {os.path.realpath(leave_out)} if leave_out else set()
    if os.path.realpath(folder) in entered:
        return
    entered.add(os.path.realpath(folder))
    for parent, subfolders, files in os.walk(folder, followlinks=True, onerror=on_error):
        places = {os.path.realpath(Path(parent, name)): name for name in subfolders if not _is_hidden(name)}
        # os.walk goes on into what is left in its own list.
        subfolders[:] = sorted(name for place, name in places.items() if place not in entered)
        entered.update(places)
        yield from (Path(parent, name) for name in files if not _is_hidden(name))


def _stop(error: OSError) -> None:
    raise GelError(f"{error.filename}: cannot be listed ({error.strerror}): check its permissions") from error


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in CLUTTER


def _class_pictures(folder: Path) -> FoundPictures:
    if (found := _pictures(folder)).paths:
        return found
    raise GelError(f"{folder}: no picture in this class folder ({_suffixes()}): put pictures in or remove the folder")


def _listing(folder: Path) -> tuple[dict[str, str], list[str]]:
    """The class folders of a folder by their class names, sorted, and the names of the files beside them."""
    if not _is_folder(folder):
        raise GelError(f"{folder}: is a file, not a folder: name the folder that holds the class folders")
    _, subfolders, files = next(os.walk(folder, onerror=_stop))
    return {printable(name): name for name in sorted(subfolders) if not _is_hidden(name)}, files


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except OSError as error:
        raise GelError(f"{path}: cannot be opened ({error.strerror}): check the path") from error


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


def _suffixes() -> str:
    return " ".join(sorted(IMAGE_SUFFIXES))
