"""The results of a comparison, read from its folder and checked."""

import csv
import json
import math
import re
from collections.abc import Sequence
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from gel_lightning.comparison.about import matches, read_about
from gel_lightning.comparison.curves import read_curves
from gel_lightning.comparison.folder import ABOUT, CURVES, PREDICTIONS, RERUN, RESULTS, why_unreadable
from gel_lightning.comparison.grid import read_rows
from gel_lightning.comparison.predictions import Outcome, confusion_counts, predictions_file, read_predictions
from gel_lightning.core.errors import GelError
from gel_lightning.models.spec import ModelSpec, titles

FACTORS = ("backbone", "head", "optimizer", "hardware")
TIMES = ("training_time_mins", "inference_time_secs")
SHARES = ("accuracy", "precision", "recall")
NAMED = re.compile(r"(timm/)?[\w.]+")
"""Levels of factors; some networks of timm have the name of their weights in theirs, after a dot."""
COSTS = ("size_mb", "parameters", "trainable_parameters", "multiply_adds")
CONFIG_NAME = re.compile(r"\w[\w.-]*")
VALIDATED = ("val_accuracy", "val_loss")


class Record(NamedTuple):
    """One model of a comparison and its results.

    Attributes:
        row: its row of the results file.
        test: its predictions of the fixed test pictures.
        folds: the predictions of each fit of a cross-validation of its fold; empty if there was none.
        curves: the values of each epoch of metrics such as ``val/loss``.
        named: its predictions of each named test set.
    """

    row: dict[str, str]
    test: Outcome
    folds: list[Outcome]
    curves: dict[str, list[float]]
    named: dict[str, Outcome]

    @property
    def model(self) -> ModelSpec:
        """The model."""
        return ModelSpec.of_row(self.row)

    @property
    def levels(self) -> dict[str, str]:
        """Its level of each factor."""
        return self.model.levels

    @property
    def name(self) -> str:
        """Its name in one line, such as ``resnet18 multi sgd cpu``."""
        return f"{self.model.title} {self.model.accelerator}"

    @property
    def validation(self) -> tuple[float, float]:
        """Accuracy and log loss on the validation pictures, NaN if there were none."""
        accuracy, loss = (float(self.row[name] or "nan") for name in VALIDATED)
        return accuracy, loss

    @property
    def device(self) -> str:
        """What it ran on, as torch calls it."""
        return self.row["device"]

    @property
    def training_seconds(self) -> float:
        """Wall time of the fit, including computing the features."""
        return float(self.row["training_time_mins"]) * 60

    @property
    def inference_seconds(self) -> float:
        """Wall time of predicting the test pictures, including computing their features."""
        return float(self.row["inference_time_secs"])


class Comparison(NamedTuple):
    """A comparison and its results.

    Attributes:
        folder: its folder.
        about: what was run, see :func:`~gel_lightning.comparison.about.read_about`.
        class_names: in the order of their labels.
        records: the models that were fitted, in the order of the results file.
        failed: the rows of the models whose fit failed.
        names: the display name of each model, by the name of its folder.
    """

    folder: Path
    about: dict[str, Any]
    class_names: list[str]
    records: list[Record]
    failed: list[dict[str, str]]
    names: dict[str, str]


def read_comparison(folder: Path) -> Comparison:
    """Reads a comparison.

    Raises:
        GelError: the folder is not a comparison, or a file is missing or damaged.
    """
    if not folder.is_dir():
        raise GelError(f"{folder}: no such folder; name the folder of a comparison that gel-fit compare has left")
    for name in (RESULTS, ABOUT):
        if not (folder / name).is_file():
            raise GelError(
                f"{folder}: no comparison, for it has no {name}; name a folder that gel-fit compare has left"
            )
    about = read_about(folder)
    rows = _rows(folder / RESULTS)
    failed = [row for row in rows if row["error"]]
    records = [read_record(folder, row, about) for row in rows if not row["error"]]
    if not records:
        raise GelError(f"{folder / RESULTS}: no model in it was fitted, and there is nothing to report")
    for record in records[1:]:
        if _pictures(record) != _pictures(records[0]):
            raise GelError(
                f"{folder / record.model.name / PREDICTIONS}: {record.name} was tested on other pictures than "
                f"{records[0].name}, and cannot be compared with it; {RERUN}"
            )
    models = [ModelSpec.of_row(row) for row in rows]
    names = dict(zip([model.name for model in models], titles(models), strict=True))
    return Comparison(folder, about, about["class_names"], records, failed, names)


def read_record(folder: Path, row: dict[str, str], about: dict[str, Any]) -> Record:
    """Reads the results of a fitted model and checks that they are complete and consistent.

    Args:
        folder: of the comparison.
        row: of the model in the results file.
        about: what is run, with its classes and folds.

    Raises:
        GelError: a file is missing or damaged, or the row contradicts the predictions.
    """
    if reason := _fault(row):
        raise GelError(f"{folder / RESULTS}: {reason}; {RERUN}")
    home = folder / ModelSpec.of_row(row).name
    places = product(range(1, about["repeats"] + 1), range(1, (about["folds"] or 0) + 1))
    fixed, *folds = _outcomes(home / PREDICTIONS, about, [(0, 0), *places])
    named = {name: _outcomes(home / predictions_file(name), about, [(0, 0)])[0] for name in about["test_sets"]}
    record = Record(row, fixed, folds, read_curves(home / CURVES), named)
    matrix = confusion_counts([fixed], len(about["class_names"]))
    accuracy = float(matrix.trace() / matrix.sum())
    if json.loads(row["conf_mat"]) != matrix.tolist() or not math.isclose(
        float(row["accuracy"]), accuracy, abs_tol=1e-6
    ):
        raise GelError(f"{folder / RESULTS}: the row of {record.name} is not of its predictions; {RERUN}")
    if not folds and not all(map(math.isfinite, record.validation)):
        raise GelError(f"{folder / RESULTS}: {record.name} was not validated, and cannot be ranked; {RERUN}")
    return record


def finished(folder: Path, about: dict[str, Any]) -> list[Record]:
    """The models that a resumed comparison can skip, because their results are complete.

    Args:
        folder: of the comparison.
        about: what is to be run, with its classes and folds.

    Raises:
        GelError: the results file was not written by this program.
    """
    records: dict[str, Record] = {}
    rows: list[dict[str, str]] = []
    with suppress(OSError, csv.Error):
        rows = read_rows(folder / RESULTS)
    for row in rows:
        with suppress(GelError):
            if not row["error"]:
                record = read_record(folder, row, about)
                records.setdefault(record.name, record)
    return list(records.values())


def _pictures(record: Record) -> list[tuple[Any, ...]]:
    """The pictures that a model was tested on, with their classes, fit by fit."""
    return [(*outcome[:3], outcome.labels.tolist()) for outcome in (record.test, *record.folds, *record.named.values())]


def _rows(path: Path) -> list[dict[str, str]]:
    """Reads and checks the rows of the results file, one per model."""
    try:
        rows = read_rows(path)
    except (OSError, csv.Error) as error:
        raise GelError(f"{path}: {why_unreadable(error)}; run gel-fit compare --resume") from error
    lines: dict[str, int] = {}
    for line, row in enumerate(rows, start=2):
        reason = _fault(row)
        first = line if reason else lines.setdefault(ModelSpec.of_row(row).name, line)
        if reason := f"of the model of line {first}" if first != line else reason:
            raise GelError(f"{path}, line {line}: {reason}; {RERUN}")
    return rows


def _fault(row: dict[str, Any]) -> str:
    """What is wrong with a row of the results file; empty if it is valid."""
    # DictReader gives None for missing cells, and puts surplus cells under the key None.
    if None in row or None in row.values():
        return "too few or too many cells"
    try:
        model = ModelSpec.of_row(row)
    except ValueError:
        return "no model"
    if not all(map(NAMED.fullmatch, model.levels.values())) or not 0 <= model.unfreeze <= 1:
        return "no model"
    if model.config and not CONFIG_NAME.fullmatch(model.config):
        return "no model"
    if row["error"]:
        return ""
    bounds = dict.fromkeys(TIMES, math.inf) | dict.fromkeys(SHARES, 1.0)
    bounds |= dict.fromkeys((name for name in COSTS if row[name]), math.inf)
    bounds |= {name: most for name, most in zip(VALIDATED, (1.0, math.inf), strict=True) if row[name]}
    for name, most in bounds.items():
        try:
            number = float(row[name])
        except ValueError:
            number = math.nan
        if not 0 <= number <= most or math.isinf(number):
            return f"{name} is {row[name]!r}, not a number" + (" from 0 to 1" if most == 1 else "")
    try:
        valid = matches(json.loads(row["conf_mat"]), [[int]])
    except (ValueError, RecursionError):
        valid = False
    return "" if valid else "conf_mat is no matrix of counts"


def _outcomes(path: Path, about: dict[str, Any], places: Sequence[tuple[int, int]]) -> list[Outcome]:
    """Reads the predictions of a model; there must be one outcome per place (repeat, fold), in this order."""
    outcomes = read_predictions(path, about["class_names"])
    if [outcome[:2] for outcome in outcomes] != list(places):
        folds, repeats = about["folds"] or 0, about["repeats"]
        cross = f", and of {folds} folds, {repeats} times" if len(places) > 1 else ""
        raise GelError(f"{path}: not the predictions of the test pictures{cross}; {RERUN}")
    return outcomes
