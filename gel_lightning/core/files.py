"""Writing files so that a reader never sees half of one, and only where a file of ours may go."""

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
"""Age from which a temporary file is taken as left behind by a killed process, and removed."""
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""With these a cell begins that spreadsheets compute."""


@contextmanager
def replacing(path: str | Path, mode: str = "w", **options: Any) -> Iterator[IO[Any]]:
    """Opens a temporary file beside ``path`` and renames it to ``path`` when the block ends well.

    Where ``path`` is a symbolic link, the file that it points to is replaced. Temporary files of ``path`` that killed
    processes left there more than :data:`LEFTOVER_SECONDS` ago are removed.

    Args:
        path: the file to write; its folder is made if it is not there.
        mode: ``"w"`` or ``"wb"``.
        **options: as for :func:`open`, for example ``newline=""``. Text is UTF-8; what that cannot encode, such as a
            byte of a file name that is not UTF-8, is written as an escape.

    Yields:
        The open file. If the block raises, the temporary file is removed and ``path`` is as it was.

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
        # /proc, say, takes no new file.
        raise GelError(f"{path}: cannot be written there ({error.strerror}); name another place") from error
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, mode, **options) as file:
            yield file
        # mkstemp makes files for their owner alone; a result is as readable as any other new file.
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)
        raise


def output_file(path: str | Path, option: str, *suffixes: str) -> Path:
    """Refuses to write results over a file of another kind, such as a picture, by the suffix of its name.

    Args:
        path: the file to write.
        option: that names it on the command line.
        suffixes: those that it may have, in lower case.

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
    """Refuses a place where there is something other than a regular file, a link to one, or nothing.

    Args:
        path: where a file is to be written or read.
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
        return path  # what is wrong with its folder shows when the file is opened
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a device, pipe or socket"
        raise GelError(f"{path}: is {kind}, not a file; name another{f' with {option}' if option else ''}")
    return path


def plain_path(path: str | Path, option: str) -> Path:
    """Makes the path of a run absolute, and refuses one that Lightning or TensorBoard would not take as a path.

    Lightning and TensorBoard open files through fsspec, to which ``scheme://...`` is a URL and ``a::b`` a chain of
    file systems: of ``/home/me/data::v2`` it would write to ``/home/me/data``. TensorBoard fails where a name is not
    UTF-8.

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
        folder: where they are.
        name: regular expression of the names of the files that they were to become.
    """
    own, before = re.compile(rf"\.{name}\..+\.tmp"), time.time() - LEFTOVER_SECONDS
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if own.fullmatch(entry.name):
                with suppress(OSError):  # another process removes it, too
                    if entry.is_file(follow_symlinks=False) and entry.stat().st_mtime < before:
                        Path(entry.path).unlink()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def formula_free(path: str) -> str:
    """A path as a CSV file has it, so that no spreadsheet computes it: ``./=1+1.png`` for ``=1+1.png``."""
    return f"./{path}" if path.startswith(FORMULA_STARTS) else path


def text_cell(text: str) -> str:
    """A text as a CSV file has it, so that no spreadsheet computes it; a sign alone is no formula."""
    return f"'{text}" if text.startswith(FORMULA_STARTS) and len(text) > 1 else text
