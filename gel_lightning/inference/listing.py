"""Which pictures a person means who names files, folders, or a list of them."""

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
        path: as it was named, or the named folder's and what follows.
        below: the folder that was named, or the one that holds a named file.
        error: why it cannot be read, where that is known already.
    """

    path: str
    below: str
    error: str = ""


class Listed(NamedTuple):
    """What was found.

    Attributes:
        files: each path once, in the order of the paths.
        left_out: number of other files in folders by their suffix in lower case; "" is none.
    """

    files: Sequence[File]
    left_out: Mapping[str, int]


def list_pictures(given: Iterable[str | Path], searched_not: Path | None = None) -> Listed:
    """Lists pictures.

    Args:
        given: files, whatever their suffix, and folders with pictures at any depth, told by their suffix, or by their
            first bytes where they have none. What is not there is a file that cannot be read.
        searched_not: a folder whose pictures are none of these, although it may lie in one that is given.

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

        for file in visible_files(path, searched_not, unlisted):
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
    """The paths in a list, each in a line, or ended by a NUL where there are any.

    Args:
        content: of the list, paths as the file system has them.
    """
    separator = b"\0" if b"\0" in content else b"\n"
    return [os.fsdecode(path) for path in content.split(separator) if path]
