"""Errors that a user can fix: our own, and those of the system and of libraries that have the same causes."""

import errno
import re
from pathlib import Path

from gel_lightning.core.text import printable

UNWRITABLE = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP),
)
"""Errors of writing a file that a user can do something about."""
OUT_OF_FILES = (errno.EMFILE, errno.ENFILE)
"""Errors of opening any file when too many are open."""

_LOST_WORKER = re.compile(r"DataLoader worker \(pid.*(killed by signal: \w+|exited unexpectedly)", re.DOTALL)
_NO_MEMORY = re.compile(r"can't allocate memory|Unable to allocate|not enough memory")


class GelError(Exception):
    """An error that the user can fix, in one line: what is wrong, where, and what to do.

    The command line prints the line and exits with status 1, without a traceback. Any other exception that
    :func:`explained` does not know is a bug and keeps its traceback.
    """

    def __str__(self) -> str:
        """The line, with line breaks and control characters escaped: file names may hold anything."""
        return printable(super().__str__())


def missing_package(name: str, extra: str) -> GelError:
    """Makes the error for a missing package that an extra of this one installs."""
    return GelError(f"{name} is not installed; run pip install 'gel-lightning[{extra}]'")


def check_range(option: str, value: float, least: float, most: float) -> None:
    """Refuses a number outside a range, and NaN.

    Args:
        option: its name on the command line, such as ``--data.batch_size``.
        value: the number.
        least: the smallest allowed value.
        most: the largest allowed value.

    Raises:
        GelError: names the option and the range.
    """
    if not least <= value <= most:
        raise GelError(f"{option} is {value}; give a number from {least:,} to {most:,}")


def one_line(error: BaseException) -> str:
    """The text of an error without line breaks."""
    return " ".join(str(error).split())


def explained(error: Exception) -> str | None:
    """Says in one line what a user can do about an error of the system or a library; None if that is unknown.

    Known are unwritable places such as full disks, too many open files, too little memory, a removed working folder,
    a killed DataLoader worker, and layers that work on GPUs only.
    """
    if isinstance(error, OSError):
        return _of_system(error)
    text = one_line(error)
    if isinstance(error, MemoryError) or _NO_MEMORY.search(text):
        return "there is not enough memory; give a smaller --data.batch_size or --data.image_size"
    if isinstance(error, RuntimeError) and (lost := _LOST_WORKER.search(text)):
        return (
            f"a process that reads pictures was lost ({lost[1]}); if the machine is short of memory, give a smaller "
            "--data.num_workers or --data.batch_size"
        )
    if "SyncBatchNorm layers only work with GPU" in text:
        return "--trainer.sync_batchnorm true works on GPUs only; leave it out"
    return None


def _of_system(error: OSError) -> str | None:
    file = error.filename or "a file"
    if error.errno in UNWRITABLE:
        return f"{file}: {error.strerror}; free some space or name another place"
    if error.errno in OUT_OF_FILES:
        return f"{file}: {error.strerror}; close other programs, or allow more open files (ulimit -n 4096)"
    if isinstance(error, FileNotFoundError):
        try:
            Path.cwd()
        except FileNotFoundError:
            return "the working folder was removed; change to one that exists"
    return None
