"""Writing files atomically, and checks of the paths that users give for them."""

import os
import re
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from gel_lightning.core.errors import GelError

LEFTOVER_SECONDS = 24 * 60 * 60
"""Age at which a temporary file counts as left behind by a killed process, and is removed."""
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""Spreadsheets take cells that begin with these for formulas."""


@contextmanager
def replacing(path: str | Path, mode: str = "w", **options: Any) -> Iterator[IO[Any]]:
    """Opens a temporary file beside ``path`` and renames it to ``path`` when the block succeeds.

    If ``path`` is a symbolic link, its target is replaced. Temporary files of ``path`` older than
    :data:`LEFTOVER_SECONDS`, left by killed processes, are removed.

    Args:
        path: the file to write; its folder is created if missing.
        mode: ``"w"`` or ``"wb"``.
        **options: as for :func:`open`, for example ``newline=""``. Text is UTF-8; what cannot be encoded, such as a
            file name that is not UTF-8, is escaped.

    Yields:
        The open file. If the block raises, the temporary file is removed and ``path`` stays unchanged.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
        GelError: ``path`` is a folder, a device or a pipe.
    """
    path = regular_file(path).resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent, re.escape(path.name))
    if "b" not in mode:
        options = {"encoding": "utf-8", "errors": "backslashreplace", **options}
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    except FileNotFoundError as error:
        if not path.parent.is_dir():  # removed meanwhile
            raise
        # The folder takes no new files: /proc, for example.
        raise GelError(f"{path}: cannot be written there ({error.strerror}); name another place") from error
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, mode, **options) as file:
            yield file
        # mkstemp makes files private; results get the permissions of any other new file.
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)
        raise


def output_file(path: str | Path, option: str, *suffixes: str) -> Path:
    """Refuses a path for results whose suffix is of another kind of file, such as a picture.

    Args:
        path: the file to write.
        option: that names it on the command line.
        suffixes: that are allowed, in lower case.

    Returns:
        The path.

    Raises:
        GelError: it has another suffix, or is a folder, a device, a pipe or a socket.
    """
    path = regular_file(path, option)
    if path.suffix.lower() not in suffixes:
        raise GelError(f"{option} {path}: name a file that ends in {' or '.join(suffixes)}")
    return path


def regular_file(path: str | Path, option: str | None = None) -> Path:
    """Refuses a path at which there is anything but a regular file, a link to one, or nothing.

    Args:
        path: of a file to write or read.
        option: that names it on the command line.

    Returns:
        The path.

    Raises:
        GelError: it is a folder, a device, a pipe or a socket.
        OSError: no file can have this name.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return path  # problems of the folder are reported when the file is opened
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a device, pipe or socket"
        raise GelError(f"{path}: is {kind}, not a file; name another{f' with {option}' if option else ''}")
    return path


def plain_path(path: str | Path, option: str) -> Path:
    """Makes the path of a run absolute, and refuses one that Lightning or TensorBoard cannot use.

    Both open files through fsspec, which takes ``scheme://...`` for a URL and ``a::b`` for a chain of file systems:
    for ``/home/me/data::v2`` it would write to ``/home/me/data``. TensorBoard fails on names that are not UTF-8.

    Args:
        path: of a file or folder.
        option: that names it.

    Raises:
        GelError: fsspec takes it as a URL, or it is not UTF-8.
    """
    from fsspec.core import split_protocol  # comes with Lightning

    absolute = Path(path).absolute()
    for text in (str(path), str(absolute)):
        if split_protocol(text)[0] is not None or "::" in text:
            raise GelError(f"{text}: Lightning would take this as a URL; name a local path without '::' ({option})")
        if text != text.encode("utf-8", "replace").decode():
            raise GelError(f"{text}: TensorBoard cannot write where a name is not UTF-8; name another path ({option})")
    return absolute


def remove_leftovers(folder: Path, name: str) -> None:
    """Removes old temporary files of :func:`replacing` from a folder.

    Args:
        folder: to clean up.
        name: regular expression of the names of the final files.
    """
    own, before = re.compile(rf"\.{name}\..+\.tmp"), time.time() - LEFTOVER_SECONDS
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if own.fullmatch(entry.name):
                with suppress(OSError):  # another process may have removed it
                    if entry.is_file(follow_symlinks=False) and entry.stat().st_mtime < before:
                        Path(entry.path).unlink()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def formula_free(path: str) -> str:
    """Makes a path safe for a CSV cell, so that no spreadsheet takes it for a formula: ``./=1+1.png``."""
    return f"./{path}" if path.startswith(FORMULA_STARTS) else path


def text_cell(text: str) -> str:
    """Makes a text safe for a CSV cell, so that no spreadsheet takes it for a formula."""
    return f"'{text}" if text.startswith(FORMULA_STARTS) and len(text) > 1 else text
