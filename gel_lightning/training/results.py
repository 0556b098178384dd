"""One row for each run in one CSV file that all runs share."""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from gel_lightning.core.errors import GelError
from gel_lightning.core.files import replacing

VAL_METRICS = ("loss", "accuracy", "balanced_accuracy", "precision", "recall", "f1", "auroc")
FIRST_COLUMNS = (
    # The original study's twelve, under its names and in its order.
    *("model_id", "hardware_type", "pretrained_model", "classifier_head", "opt_alg", "training_time_mins"),
    *("inference_time_secs", "accuracy", "precision", "recall", "conf_mat", "roc_auc"),
    *("weights", "seed", "epochs", "train_pictures", "val_pictures", "test_pictures"),
    *(f"val_{name}" for name in VAL_METRICS),
    *("version", "checkpoint", "device", "error"),
)
"""Of every results file, the oldest ones too."""
ADDED_COLUMNS = (
    "learning_rate",
    "batch_size",
    "class_weights",
    "lr_scheduler",
    "data_folder",
    "image_size",
    "unfreeze",
    "label_smoothing",
    "mixup",
    "size_mb",
    "parameters",
    "trainable_parameters",
    "multiply_adds",
    "config",
    "dataset",
    "colour",
)
"""Columns of later versions go here; a file that lacks some gets them with its next row."""
COLUMNS = (*FIRST_COLUMNS, *ADDED_COLUMNS)
NAMED_COLUMNS = re.compile(r"(test_pictures|accuracy|precision|recall|roc_auc|conf_mat)_\w+", re.ASCII)
"""Columns that only some files have: accuracy_NAME and so on, on the test set NAME."""


def add_result(path: Path, row: Mapping[str, Any]) -> None:
    """Adds a row to a results file, or begins one.

    Args:
        path: the CSV file. Columns of the row that it lacks are added to it, empty in its other rows.
        row: a value for each of :data:`COLUMNS`, and for any of :data:`NAMED_COLUMNS`; absent ones are left empty.

    Raises:
        GelError: the file is there and is not a results file, or has damaged rows and lacks columns.
        OSError: the file cannot be written; it is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        text = read_results(path)
        present = _header(text)
        columns = _columns(present, row)
        if len(columns) > len(present) > 0:
            text = _extended(path, text, columns)
        with replacing(path, newline="") as file:
            file.write(text + _lines([row], columns, header=not text))


def has_result(path: Path, version: str, checkpoint: str) -> bool:
    """Whether a results file has a row of the run with this folder and this best checkpoint."""
    rows = csv.DictReader(io.StringIO(read_results(path), newline=""))
    return any((row["version"], row["checkpoint"]) == (version, checkpoint) for row in rows)


def rewrite_results(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Replaces a results file by one of these rows."""
    with replacing(path, newline="") as file:
        file.write(_lines(rows, _columns((), *rows), header=True))


def read_results(path: Path) -> str:
    """Reads a results file of this or an older version, whole lines of it; empty if there is none.

    Raises:
        GelError: the file is there and is not a results file.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            text = file.read()
    except FileNotFoundError:
        return ""
    except (UnicodeDecodeError, IsADirectoryError):
        text = "not text"
    columns = _header(text)
    more = columns[len(FIRST_COLUMNS) :]
    known = all(name in ADDED_COLUMNS or NAMED_COLUMNS.fullmatch(name) for name in more)
    if text and not (columns[: len(FIRST_COLUMNS)] == FIRST_COLUMNS and known and len(set(more)) == len(more)):
        raise GelError(f"{path}: not a results file of this version; move it away, or name another file")
    return text if not text or text.endswith("\n") else text + "\n"


def _header(text: str) -> tuple[str, ...]:
    """The names of the columns; none where there is no text."""
    first = next(iter(text.splitlines()), "")
    return tuple(first.split(",")) if text else ()


def _columns(present: Sequence[str], *rows: Mapping[str, Any]) -> tuple[str, ...]:
    """The columns that a file has, then those of this version and of the rows that it lacks."""
    named = [name for row in rows for name in row if NAMED_COLUMNS.fullmatch(name)]
    return tuple(dict.fromkeys([*present, *COLUMNS, *named]))


def _extended(path: Path, text: str, columns: Sequence[str]) -> str:
    """A results file with empty cells in the columns that it lacks; nothing else of it changes.

    Raises:
        GelError: a row is damaged, so that its new cells could end up in the wrong columns.
    """
    lines, rows = io.StringIO(text, newline="").readlines(), []
    reader, begun = csv.reader(lines, strict=True), 0
    width = len(_header(text))
    try:
        for row in reader:
            *whole, last = lines[begun : reader.line_num]
            end = last[len(last.rstrip("\r\n")) :]
            if row and len(row) != width:
                raise csv.Error(f"{len(row)} cells in {width} columns")
            added = columns[width:] if begun == 0 else [""] * (len(columns) - width)
            rows.append("".join([*whole, last.removesuffix(end), *(f",{cell}" for cell in added if row), end]))
            begun = reader.line_num
    except csv.Error as error:
        raise GelError(f"{path}, line {reader.line_num}: {error}; mend the line, or name another file") from error
    return "".join(rows)


def _lines(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], header: bool) -> str:
    lines = io.StringIO()
    writer = csv.DictWriter(lines, columns, restval="", lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return lines.getvalue()
