"""Predictions of a model on the pictures that it was not trained on, as a CSV file."""

import csv
import math
from collections.abc import Sequence
from itertools import chain, groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gel_lightning.comparison.folder import RERUN, TEXT, csv_rows
from gel_lightning.core.errors import GelError
from gel_lightning.core.files import replacing


class Outcome(NamedTuple):
    """The predictions of one fit on the pictures that it was tested on.

    Attributes:
        repeat: of the cross-validation, from 1; 0 for the fixed test pictures.
        fold: of the cross-validation, from 1; 0 for the fixed test pictures.
        paths: of the n pictures.
        labels: the actual class of each, [n].
        probabilities: of each class, [n, classes].
    """

    repeat: int
    fold: int
    paths: tuple[str, ...]
    labels: NDArray[np.intp]
    probabilities: NDArray[np.float64]


def write_predictions(path: Path, class_names: Sequence[str], outcomes: Sequence[Outcome]) -> None:
    """Writes the predictions of a model, one row per picture."""
    with replacing(path, newline="", **TEXT) as file:
        # All text is quoted, because Python before 3.13 does not quote a carriage return.
        writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        writer.writerow(["repeat", "fold", "path", "actual", *(f"probability_{name}" for name in class_names)])
        for outcome in outcomes:
            for name, label, probabilities in zip(*outcome[2:], strict=True):
                shares = [float(f"{share:.9g}") for share in probabilities]
                writer.writerow([outcome.repeat, outcome.fold, name, class_names[label], *shares])


def predictions_file(test_set: str) -> str:
    """The name of the file with the predictions on a named test set."""
    return f"predictions_{test_set}.csv"


def read_predictions(path: Path, class_names: Sequence[str]) -> list[Outcome]:
    """Reads what :func:`write_predictions` wrote.

    Raises:
        GelError: the file is missing, damaged, or has other classes.
    """
    header = ["repeat", "fold", "path", "actual", *(f"probability_{name}" for name in class_names)]
    places = {name: label for label, name in enumerate(class_names)}

    def values(line: int, row: list[str]) -> tuple[tuple[int, int], str, int, list[float]]:
        try:
            repeat, fold, name, actual, *numbers = row
            probabilities = [float(number) for number in numbers]
            whole = math.isclose(sum(probabilities), 1, abs_tol=1e-3) and min(probabilities) >= 0
            if len(probabilities) != len(class_names) or not whole:
                raise ValueError
            return (int(repeat), int(fold)), name, places[actual], probabilities
        except (ValueError, KeyError) as error:
            raise GelError(f"{path}, line {line}: not a whole row of predictions; {RERUN}") from error

    lines = csv_rows(path)
    if next(lines, (0, []))[1] != header:
        raise GelError(f"{path}: not the predictions of these classes; {RERUN}")
    rows = [values(line, row) for line, row in lines]
    outcomes = []
    for (repeat, fold), group in groupby(rows, key=lambda row: row[0]):
        _, paths, labels, probabilities = zip(*group, strict=True)
        outcomes.append(Outcome(repeat, fold, paths, np.array(labels), np.array(probabilities)))
    return outcomes


def pooled(outcomes: Sequence[Outcome]) -> Outcome:
    """The predictions of several fits as those of one."""
    _, _, paths, labels, probabilities = zip(*outcomes, strict=True)
    shares = np.concatenate(probabilities)
    return Outcome(
        0, 0, tuple(chain.from_iterable(paths)), np.concatenate(labels), shares / shares.sum(axis=1, keepdims=True)
    )


def confusion_counts(outcomes: Sequence[Outcome], classes: int) -> NDArray[np.int64]:
    """The confusion matrix, actual classes in rows. Of equally likely classes the first is predicted."""
    counts = np.zeros((classes, classes), np.int64)
    for outcome in outcomes:
        np.add.at(counts, (outcome.labels, outcome.probabilities.argmax(axis=1)), 1)
    return counts
