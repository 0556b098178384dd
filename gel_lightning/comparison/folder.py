"""The folder of a comparison: its files, its lock, and reading its CSV files.

It holds the results file, ABOUT (what was run), the report, and a folder for each model with PREDICTIONS (of all
pictures that the model was not trained on) and CURVES (its metrics of each epoch).
"""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from gel_lightning.core.errors import GelError

RESULTS, ABOUT, PREDICTIONS, CURVES = "results.csv", "about.json", "predictions.csv", "curves.csv"
REPORT, FIGURES, THUMBNAILS, LOCK = "report.html", "figures", "thumbnails", ".compare.lock"
RERUN = "run its model again with gel-fit compare --resume"
TEXT: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogateescape"}  # keeps file names that are not UTF-8


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Locks the folder of a comparison against other runs of `gel-fit compare`.

    Raises:
        GelError: another run holds the lock.
    """
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise GelError(f"{folder}: another gel-fit compare is running there; wait until it has ended") from error
    try:
        yield
    finally:
        lock.release()


def check_places(folder: Path) -> None:
    """Checks, before any work, that everything a comparison writes can be written.

    Raises:
        GelError: a folder has the name of a file that will be written, or the reverse.
    """
    for name in (RESULTS, ABOUT, REPORT):
        if (folder / name).exists() and not (folder / name).is_file():
            raise GelError(f"{folder / name}: not a file; move it away")
    for name in (FIGURES, THUMBNAILS):
        if (folder / name).exists() and not (folder / name).is_dir():
            raise GelError(f"{folder / name}: not a folder; move it away")


def csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yields the rows of a CSV file with their line numbers.

    Raises:
        GelError: the file cannot be read.
    """
    try:
        with path.open(newline="", **TEXT) as file:
            rows = csv.reader(file)
            for row in rows:
                yield rows.line_num, row
    except (OSError, csv.Error) as error:
        raise GelError(f"{path}: {why_unreadable(error)}; {RERUN}") from error


def why_unreadable(error: OSError | csv.Error) -> str:
    """The reason in an error message about a CSV file."""
    return str(error.strerror) if isinstance(error, OSError) else f"damaged ({error})"
