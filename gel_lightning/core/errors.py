"""The errors that a user can mend: ours, and what others raise for the same reasons."""

import errno
import re
from pathlib import Path

from gel_lightning.core.text import printable

UNWRITABLE = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP),
)
"""What the operating system says where a file cannot be written, and a person can do something about it."""
OUT_OF_FILES = (errno.EMFILE, errno.ENFILE)
"""What it says where too many files are open: never the fault of the file that could not be opened."""

_LOST_WORKER = re.compile(r"DataLoader worker \(pid.*(killed by signal: \w+|exited unexpectedly)", re.DOTALL)
_NO_MEMORY = re.compile(r"can't allocate memory|Unable to allocate|not enough memory")


class GelError(Exception):
    """Something the user can mend: one line saying what is wrong, where, and what to do.

    The command line prints the text and exits with status 1, with no traceback. Everything else that is
    raised, apart from what :func:`explained` knows, is a bug of ours and keeps its traceback.
    """

    def __str__(self) -> str:
        """The line, with what would end it or control a terminal escaped: names of files may hold anything."""
        return printable(super().__str__())


def missing_package(name: str, extra: str) -> GelError:
    """Makes the error of a package that is not installed, and that an extra of this one brings."""
    return GelError(f"{name} is not installed; run pip install 'gel-lightning[{extra}]'")


def check_range(option: str, value: float, least: float, most: float) -> None:
    """Refuses a number outside of a range, and one that is not a number.

    Args:
        option: that gives it on the command line, such as ``--data.batch_size``.
        value: the number.
        least: the smallest that is allowed.
        most: the largest.

    Raises:
        GelError: names the option and the range.
    """
    if not least <= value <= most:
        raise GelError(f"{option} is {value}; give a number from {least:,} to {most:,}")


def one_line(error: BaseException) -> str:
    """The text of an error without line breaks."""
    return " ".join(str(error).split())


def explained(error: Exception) -> str | None:
    """Says in one line what a user can do about an error of the system or of a library; None if that is unknown.

    Known are full disks and other places that cannot be written, too many open files, too little memory, a working
    folder that was removed, and a worker process of a DataLoader that was killed.
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
