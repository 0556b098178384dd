"""Listing the pictures that are meant by files, folders, or a list of them."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from gel_lightning.core.errors import GelError
from gel_lightning.data.picture_files import is_picture, visible_files

STDIN = "-"
"""Stands for a list on standard input."""


class File(NamedTuple):
    """A picture file.

    Attributes:
        path: as it was given, or the given folder and the path in it.
        below: the given folder, or the one that contains a given file.
        error: why it cannot be read, if that is known already.
    """

    path: str
    below: str
    error: str = ""


class Listed(NamedTuple):
    """The pictures that were found.

    Attributes:
        files: each path once, sorted.
        left_out: number of other files in folders by their suffix in lower case, which may be empty.
    """

    files: Sequence[File]
    left_out: Mapping[str, int]


def list_pictures(given: Iterable[str | Path], leave_out: Path | None = None) -> Listed:
    """Lists pictures.

    Args:
        given: files with any suffix, and folders with pictures at any depth. A path that does not exist becomes a file
            that cannot be read.
        leave_out: a folder to skip, which may be in a given one.

    Raises:
        GelError: there is no picture.
    """
    found: dict[str, File] = {}
    left_out = Counter[str]()
    folders = []
    for path in map(Path, given):
        if not path.is_dir():
            found.setdefault(str(path), File(str(path), str(path.parent)))
            continue
        folders.append(str(path))

        def unlisted(error: OSError, below: str = str(path)) -> None:
            place = str(error.filename)
            found[place] = File(place, below, f"cannot be listed ({error.strerror})")

        for file in visible_files(path, leave_out, unlisted):
            if is_picture(file):
                found.setdefault(str(file), File(str(file), str(path)))
            else:
                left_out[file.suffix.lower()] += 1
    if not found:
        count = sum(left_out.values())
        others = f" among {count} {'file' if count == 1 else 'files'}" if count else ""
        raise GelError(
            f"{', '.join(folders) or 'nothing named'}: no picture{others}; name pictures, or folders of them"
        )
    return Listed(sorted(found.values(), key=lambda file: Path(file.path)), left_out)


def read_list(content: bytes) -> list[str]:
    """Parses a list of paths, separated by NUL if there is any, else one per line.

    Args:
        content: of the list, in the encoding of the file system.
    """
    separator = b"\0" if b"\0" in content else b"\n"
    return [os.fsdecode(path) for path in content.split(separator) if path]
