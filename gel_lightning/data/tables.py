"""CSV files of the user with a row for each picture: its path, and its class or its group."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path

from gel_lightning.core.errors import GelError
from gel_lightning.core.files import FORMULA_STARTS
from gel_lightning.data.folders import LabelledPictures

SUFFIX = ".csv"


def is_table(place: Path) -> bool:
    """Whether a path is that of a CSV file."""
    return place.suffix.lower() == SUFFIX


def read_table(
    file: Path, class_names: Sequence[str] | None = None, every_class: bool = True, leave_out: bool = False
) -> LabelledPictures:
    """Lists the pictures of a CSV file with the columns ``path`` and ``label``.

    Paths are relative to the folder of the file.

    Args:
        file: the CSV file.
        class_names: the expected classes, in the order of their labels; by default those of the file, sorted.
        every_class: whether all of ``class_names`` must be there; test pictures may lack some.
        leave_out: whether to leave out rows of classes that are not in ``class_names``; else they are an error.

    Raises:
        GelError: the file cannot be read, lacks a column, or names a picture twice or one that does not exist; there
            are fewer than two classes or not those of ``class_names``; or a spreadsheet would take a class for a
            formula.
    """
    rows = read_pairs(file, "label", "--data.train_dir")
    own = sorted({label for _, _, label in rows})
    if formulas := [label for label in own if label.startswith(FORMULA_STARTS)]:
        raise GelError(f"{file}: a spreadsheet would take the label {formulas[0]} for a formula: rename it")
    if class_names is None and len(own) < 2:
        raise GelError(f"{file}: {f'only the label {own[0]}' if own else 'no rows'}: it takes pictures of two classes")
    names = list(class_names or own)
    missing, extra = sorted(set(names) - set(own)), sorted(set(own) - set(names))
    if (extra and not leave_out) or (missing and every_class) or len(missing) == len(names):
        raise GelError(
            f"{file}: its labels are {_words(own)}, those of the training pictures {_words(names)} (missing: "
            f"{_words(missing)}; extra: {_words(extra)}): mend the labels, or name the classes to take with "
            "--data.class_names"
        )
    found: dict[str, tuple[Path, int]] = {}
    absent: list[tuple[int, str]] = []
    for line, path, label in rows:
        place = file.parent / path
        if not place.is_file():
            absent.append((line, path))
        elif (real := os.path.realpath(place)) in found:
            raise GelError(f"{file}, line {line}: {path} is there twice: give each picture one row")
        elif label in names:
            found[real] = (place, names.index(label))
    if absent:
        number = f"{len(absent)} of its pictures do" if len(absent) > 1 else "one of its pictures does"
        raise GelError(
            f"{file}: {number} not exist (first: line {absent[0][0]}, {file.parent / absent[0][1]}): mend the paths, "
            "which start at its folder, or remove the rows"
        )
    listed = sorted(found.values(), key=lambda pair: (pair[1], pair[0]))
    return LabelledPictures([path for path, _ in listed], [label for _, label in listed], names)


def read_pairs(file: Path, column: str, option: str) -> list[tuple[int, str, str]]:
    """Reads the columns ``path`` and another one of a CSV file.

    Args:
        file: the CSV file.
        column: the other column.
        option: that names the file, for error messages.

    Returns:
        The line number, path and other value of each row.

    Raises:
        GelError: the file cannot be read, lacks a column, or a row lacks a value.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            reader = csv.DictReader(opened)
            if not {"path", column} <= set(reader.fieldnames or ()):
                names = ", ".join(map(repr, reader.fieldnames or ())) or "none"
                raise GelError(
                    f"{file}: no columns path and {column}, separated by commas, in its first line, but {names[:200]} "
                    f"({option})"
                )
            rows = [(reader.line_num, row["path"] or "", (row[column] or "").strip()) for row in reader]
    except UnicodeDecodeError as error:
        raise GelError(f"{file}: is not in UTF-8; save it as CSV UTF-8 ({option})") from error
    except (OSError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise GelError(f"{file}: cannot be read as a CSV file ({reason}); name another with {option}") from error
    for line, path, value in rows:
        if not path or not value:
            raise GelError(f"{file}, line {line}: no {column if path else 'path'}: give each row both")
    return rows


def _words(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
