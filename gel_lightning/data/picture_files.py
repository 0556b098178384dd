"""The picture files in a folder, at any depth."""

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from gel_lightning.core.errors import GelError
from gel_lightning.data.images import IMAGE_SUFFIXES, starts_as_picture

UNREAD_SUFFIXES = frozenset(
    {
        *(".1sc", ".ai", ".arw", ".cr2", ".czi", ".dcm", ".dng", ".emf", ".eps", ".ico", ".jls", ".jxl", ".jxr"),
        *(".lif", ".nd2", ".nef", ".oib", ".pbm", ".pcx", ".pdf", ".pgm", ".pnm", ".ppm", ".psd", ".scn", ".svg"),
        *(".tga", ".vsi", ".wmf", ".xcf"),
    }
)
"""Suffixes of unsupported pictures. :func:`find_pictures` lists them, so that each gets a row with the reason."""
CLUTTER = frozenset({"@eadir", "__macosx", "$recycle.bin", "thumbs.db", "desktop.ini"})
"""Names, in lower case, of folders and files that operating systems create."""
NONE_LEFT_OUT: Mapping[str, int] = {}


class FoundPictures(NamedTuple):
    """The pictures in a folder, at any depth.

    Attributes:
        paths: the picture files, sorted.
        left_out: number of other files by their suffix in lower case, which may be empty.
    """

    paths: list[Path]
    left_out: Mapping[str, int] = NONE_LEFT_OUT


def find_pictures(path: str | Path) -> FoundPictures:
    """Lists the pictures to predict on.

    Args:
        path: a file with any suffix, or a folder with pictures at any depth.

    Returns:
        The file, or the pictures in the folder, including those with :data:`UNREAD_SUFFIXES`.

    Raises:
        GelError: there is no such file or folder, or no picture in the folder.
    """
    path = Path(path)
    if not is_folder(path):
        return FoundPictures([path])
    if (found := pictures_in(path, UNREAD_SUFFIXES)).paths:
        return found
    raise GelError(f"{path}: no picture in it or below it ({suffixes_in_words()}): put pictures in or name another")


def visible_files(
    folder: Path, leave_out: Path | None = None, on_error: Callable[[OSError], object] | None = None
) -> list[Path]:
    """Lists the files in a folder at any depth, sorted, without hidden files and folders.

    Symbolic links are followed, but each folder is entered only once, so that loops end.

    Args:
        folder: the folder.
        leave_out: a folder to skip.
        on_error: called for each folder that cannot be listed; by default an error is raised.

    Raises:
        GelError: a folder cannot be listed.
    """
    return sorted(_walk(folder, leave_out, on_error or raise_unlistable))


def is_picture(path: Path) -> bool:
    """Whether a file is taken as a picture, by its suffix, or by its first bytes if it has none."""
    return path.suffix.lower() in IMAGE_SUFFIXES if path.suffix else starts_as_picture(path)


def pictures_in(folder: Path, more_suffixes: frozenset[str] = frozenset()) -> FoundPictures:
    """Lists the pictures in a folder, which may be none."""
    paths, left_out = [], Counter[str]()
    for path in visible_files(folder):
        if is_picture(path) or path.suffix.lower() in more_suffixes:
            paths.append(path)
        else:
            left_out[path.suffix.lower()] += 1
    return FoundPictures(paths, left_out)


def is_folder(path: Path) -> bool:
    """Whether a path is a folder; an error if it does not exist."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except OSError as error:
        raise GelError(f"{path}: cannot be opened ({error.strerror}): check the path") from error


def is_hidden(name: str) -> bool:
    """Whether a file or folder is ignored because of its name."""
    return name.startswith(".") or name.lower() in CLUTTER


def raise_unlistable(error: OSError) -> None:
    """Raises the error of a folder that cannot be listed."""
    raise GelError(f"{error.filename}: cannot be listed ({error.strerror}): check its permissions") from error


def suffixes_in_words() -> str:
    """The supported suffixes, for messages."""
    return " ".join(sorted(IMAGE_SUFFIXES))


def _walk(folder: Path, leave_out: Path | None, on_error: Callable[[OSError], object]) -> Iterator[Path]:
    entered = {os.path.realpath(leave_out)} if leave_out else set()
    if os.path.realpath(folder) in entered:
        return
    entered.add(os.path.realpath(folder))
    for parent, subfolders, files in os.walk(folder, followlinks=True, onerror=on_error):
        places = {os.path.realpath(Path(parent, name)): name for name in subfolders if not is_hidden(name)}
        # os.walk continues with the folders left in this list.
        subfolders[:] = sorted(name for place, name in places.items() if place not in entered)
        entered.update(places)
        yield from (Path(parent, name) for name in files if not is_hidden(name))
