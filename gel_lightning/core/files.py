"""Writing files so that a reader never sees half of one."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

FORMULA_STARTS = ("=", "+", "-", "@")
"""With these a cell begins that spreadsheets compute."""


@contextmanager
def replacing(path: str | Path, mode: str = "w", **options: Any) -> Iterator[IO[Any]]:
    """Opens a temporary file beside ``path`` and renames it to ``path`` when the block ends well.

    Args:
        path: the file to write; its folder is made if it is not there.
        mode: ``"w"`` or ``"wb"``.
        **options: as for :func:`open`, for example ``newline=""``.

    Yields:
        The open file. If the block raises, the temporary file is removed and ``path`` is as it was.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if "b" not in mode:
        options.setdefault("encoding", "utf-8")
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
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


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def formula_free(path: str) -> str:
    """A path as a CSV file has it, so that no spreadsheet computes it: ``./=1+1.png`` for ``=1+1.png``."""
    return f"./{path}" if path.startswith(FORMULA_STARTS) else path
