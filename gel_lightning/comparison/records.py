"""What a comparison leaves on disk beside its results file, so that its report can be made again.

In the folder of the comparison there is ABOUT, what was run; in that of each model PREDICTIONS, what it made of the
pictures that it was not trained on, and CURVES, its metrics epoch by epoch.
"""

import csv
import json
import math
import os
import platform
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from itertools import chain, groupby, product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from filelock import FileLock, Timeout
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray

from gel_lightning.comparison.grid import display_names, kind, read_rows, run_name
from gel_lightning.core.errors import GelError
from gel_lightning.core.files import replacing

RESULTS, ABOUT, PREDICTIONS, CURVES = "results.csv", "about.json", "predictions.csv", "curves.csv"
REPORT, FIGURES, THUMBNAILS, LOCK = "report.html", "figures", "thumbnails", ".compare.lock"
MAX_FOLDS = 100_000
FACTORS = ("backbone", "head", "optimizer", "hardware")
TIMES = ("training_time_mins", "inference_time_secs")
SHARES = ("accuracy", "precision", "recall")
VALIDATED = ("val_accuracy", "val_loss")
AGAIN = "run its model again with gel-fit compare --resume"
# Names of files that are not text are kept as they are.
TEXT: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogateescape"}
# Of what is noted of a comparison: types, [of each item] and {str: of each value}.
KINDS: dict[str, Any] = {
    "commands": [str],
    "class_names": [str],
    "drawn": bool,
    "pictures": {"train": int, "val": int, "test": int},
    "test_sets": {str: int},  # pictures of each test set that has a name
    "groups": [str],  # that are folds, in their order; empty where folds are dealt
    "folds": (int, type(None)),
    "repeats": int,
    "seed": int,
    "weights": {str: {"name": str, "fingerprint": str}},
    "near_duplicates": [[str]],
    "versions": {str: str},
    "system": str,
    "devices": {str: str},
    "epoch": {"monitor": str, "mode": str},
}


class Outcome(NamedTuple):
    """What one fit made of the pictures that it was tested on.

    Attributes:
        repeat: of the cross-validation, from 1; 0 for the fixed test pictures.
        fold: likewise.
        paths: the pictures, n of them.
        labels: the actual class of each, [n].
        probabilities: of each class, [n, classes].
    """

    repeat: int
    fold: int
    paths: tuple[str, ...]
    labels: NDArray[np.intp]
    probabilities: NDArray[np.float64]


class Record(NamedTuple):
    """A model of a comparison.

    Attributes:
        row: of the results file.
        test: what it made of the fixed test pictures.
        folds: what the fits of a cross-validation made of their folds; empty if there was none.
        curves: metrics by name, such as ``val/loss``, of each epoch.
        named: what it made of each test set that has a name.
    """

    row: dict[str, str]
    test: Outcome
    folds: list[Outcome]
    curves: dict[str, list[float]]
    named: dict[str, Outcome]

    @property
    def levels(self) -> dict[str, str]:
        """Its level of each factor."""
        hardware, *others = kind(self.row)
        return dict(zip(FACTORS, [*others, hardware], strict=True))

    @property
    def name(self) -> str:
        """What it is called, such as ``resnet18 multi sgd cpu``."""
        return " ".join(self.levels.values())

    @property
    def validation(self) -> tuple[float, float]:
        """Accuracy and log loss on the validation pictures, nan where there were none."""
        accuracy, loss = (float(self.row[name] or "nan") for name in VALIDATED)
        return accuracy, loss

    @property
    def device(self) -> str:
        """What it ran on, as torch calls it."""
        return self.row["device"]

    @property
    def training_seconds(self) -> float:
        """Wall time of the fit, with that of computing the features."""
        return float(self.row["training_time_mins"]) * 60

    @property
    def inference_seconds(self) -> float:
        """Wall time of predicting the test pictures, with that of computing their features."""
        return float(self.row["inference_time_secs"])


class Comparison(NamedTuple):
    """All of a comparison.

    Attributes:
        folder: where it is.
        about: what was run.
        class_names: in the order of their labels.
        records: the models that were fitted, in the order of the results file.
        failed: the rows of those that could not be.
        names: what all of them are called, by the names of their folders.
    """

    folder: Path
    about: dict[str, Any]
    class_names: list[str]
    records: list[Record]
    failed: list[dict[str, str]]
    names: dict[str, str]


class CurvesFile(Callback):
    """Writes the metrics of each epoch of a fit to a CSV file.

    Args:
        path: the file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._rows: list[dict[str, float]] = []
        self._validated = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Notes that this epoch has validation metrics of its own."""
        self._validated = True

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps the metrics of the epoch before; those of training come after all callbacks at an epoch's end."""
        self._keep(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the file."""
        self._keep(trainer)
        if trainer.is_global_zero and self._rows:
            names = list(dict.fromkeys(name for row in self._rows for name in row))
            with replacing(self.path, newline="") as file:
                writer = csv.DictWriter(file, ["epoch", *names], lineterminator="\n")
                writer.writeheader()
                writer.writerows({"epoch": epoch, **row} for epoch, row in enumerate(self._rows, start=1))

    def _keep(self, trainer: Trainer) -> None:
        metrics = {
            name: value.item()
            for name, value in trainer.callback_metrics.items()
            if self._validated or not name.startswith("val/")  # Lightning keeps those of an epoch before
        }
        self._validated = False
        if metrics:
            self._rows.append(metrics)


def write_predictions(path: Path, class_names: Sequence[str], outcomes: Sequence[Outcome]) -> None:
    """Writes what a model made of pictures, a row for each."""
    with replacing(path, newline="", **TEXT) as file:
        # All text is quoted, since Python up to 3.12 does not quote a name for its carriage return.
        writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        writer.writerow(["repeat", "fold", "path", "actual", *(f"probability_{name}" for name in class_names)])
        for outcome in outcomes:
            for name, label, probabilities in zip(*outcome[2:], strict=True):
                shares = [float(f"{share:.9g}") for share in probabilities]
                writer.writerow([outcome.repeat, outcome.fold, name, class_names[label], *shares])


def predictions_file(test_set: str) -> str:
    """The name of the file of the predictions on a test set that has a name."""
    return f"predictions_{test_set}.csv"


def pooled(outcomes: Sequence[Outcome]) -> Outcome:
    """What several fits made of the pictures that each was tested on, as if it were one."""
    _, _, paths, labels, probabilities = zip(*outcomes, strict=True)
    shares = np.concatenate(probabilities)
    return Outcome(
        0, 0, tuple(chain.from_iterable(paths)), np.concatenate(labels), shares / shares.sum(axis=1, keepdims=True)
    )


def read_predictions(path: Path, class_names: Sequence[str]) -> list[Outcome]:
    """Reads what :func:`write_predictions` has written.

    Raises:
        GelError: the file is absent or damaged, or of other classes.
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
            raise GelError(f"{path}, line {line}: not a whole row of predictions; {AGAIN}") from error

    rows = [values(line, row) for line, row in _table(path, header)]
    outcomes = []
    for (repeat, fold), group in groupby(rows, key=lambda row: row[0]):
        _, paths, labels, probabilities = zip(*group, strict=True)
        outcomes.append(Outcome(repeat, fold, paths, np.array(labels), np.array(probabilities)))
    return outcomes


def read_comparison(folder: Path) -> Comparison:
    """Reads a comparison.

    Raises:
        GelError: it is none, or a file of it is absent or damaged.
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
                f"{folder / model_folder(record.row) / PREDICTIONS}: {record.name} was tested on other pictures than "
                f"{records[0].name}, and cannot be compared with it; {AGAIN}"
            )
    names = dict(zip(map(model_folder, rows), display_names(rows), strict=True))
    return Comparison(folder, about, about["class_names"], records, failed, names)


def read_record(folder: Path, row: dict[str, str], about: dict[str, Any]) -> Record:
    """Reads what a comparison has of a fitted model, and checks that it is whole and agrees with itself.

    Args:
        folder: of the comparison.
        row: of the results file.
        about: what is run: its classes and folds.

    Raises:
        GelError: a file is absent or damaged, or the row does not say what the predictions say.
    """
    if reason := _fault(row):
        raise GelError(f"{folder / RESULTS}: {reason}; {AGAIN}")
    home = folder / model_folder(row)
    places = product(range(1, about["repeats"] + 1), range(1, (about["folds"] or 0) + 1))
    fixed, *folds = _outcomes(home / PREDICTIONS, about, [(0, 0), *places])
    named = {name: _outcomes(home / predictions_file(name), about, [(0, 0)])[0] for name in about["test_sets"]}
    record = Record(row, fixed, folds, _curves(home / CURVES), named)
    matrix = confusion_counts([fixed], len(about["class_names"]))
    accuracy = float(matrix.trace() / matrix.sum())
    if json.loads(row["conf_mat"]) != matrix.tolist() or not math.isclose(
        float(row["accuracy"]), accuracy, abs_tol=1e-6
    ):
        raise GelError(f"{folder / RESULTS}: the row of {record.name} is not of its predictions; {AGAIN}")
    if not folds and not all(map(math.isfinite, record.validation)):
        raise GelError(f"{folder / RESULTS}: {record.name} was not validated, and cannot be ranked; {AGAIN}")
    return record


def finished(folder: Path, about: dict[str, Any]) -> list[Record]:
    """The models that a comparison need not run again: those whose records are whole.

    Args:
        folder: of the comparison.
        about: what is to be run: the classes and folds.

    Raises:
        GelError: the results file is of another program.
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


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps other runs of `gel-fit compare` out of a comparison's folder.

    Raises:
        GelError: another one is at work there.
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
    """Makes sure before the work that what a comparison writes has its place.

    Raises:
        GelError: a folder is in the place of a file, or the other way round.
    """
    for name in (RESULTS, ABOUT, REPORT):
        if (folder / name).exists() and not (folder / name).is_file():
            raise GelError(f"{folder / name}: not a file; move it away")
    for name in (FIGURES, THUMBNAILS):
        if (folder / name).exists() and not (folder / name).is_dir():
            raise GelError(f"{folder / name}: not a folder; move it away")


def confusion_counts(outcomes: Sequence[Outcome], classes: int) -> NDArray[np.int64]:
    """How many pictures of each actual class, a row each, were taken for each class; of the likeliest, the first."""
    counts = np.zeros((classes, classes), np.int64)
    for outcome in outcomes:
        np.add.at(counts, (outcome.labels, outcome.probabilities.argmax(axis=1)), 1)
    return counts


def _pictures(record: Record) -> list[tuple[Any, ...]]:
    """The pictures that a model was tested on, with their classes, fit by fit."""
    return [(*outcome[:3], outcome.labels.tolist()) for outcome in (record.test, *record.folds, *record.named.values())]


def model_folder(row: dict[str, str]) -> str:
    """The name of the folder of the model of a row."""
    return run_name(kind(row))


def this_machine() -> dict[str, Any]:
    """What computes here: versions, and the hardware as torch names it."""
    packages = ("gel-lightning", "torch", "torchvision", "lightning", "torchmetrics", "scikit-learn", "scipy", "numpy")
    devices = {"cpu": f"{_processor()}, {os.cpu_count()} cores"}
    if torch.cuda.is_available():
        devices["gpu"] = torch.cuda.get_device_name()
    return {
        "versions": {"Python": platform.python_version()} | {name: version(name) for name in packages},
        "system": platform.platform(),
        "devices": devices,
    }


def _processor() -> str:
    """The name of the processor: platform.processor() is empty on most systems."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def write_about(folder: Path, about: dict[str, Any]) -> None:
    """Writes what is run."""
    with replacing(folder / ABOUT, **TEXT) as file:
        json.dump(about, file, indent=1, ensure_ascii=False)


def read_about(folder: Path) -> dict[str, Any]:
    """Reads what was run.

    Raises:
        GelError: the file is damaged.
    """
    path = folder / ABOUT
    try:
        about = json.loads(path.read_text(**TEXT))
        if not _fits(about, KINDS):
            raise ValueError("not what gel-fit compare notes")
        if len(set(about["class_names"])) < max(len(about["class_names"]), 2):
            raise ValueError("no two classes, or two of one name")
        if not all(re.fullmatch(r"\w+", name, re.ASCII) for name in about["test_sets"]):
            raise ValueError("no such names of test sets")
        if about["repeats"] < 1 or (about["folds"] is not None and not 2 <= about["folds"] <= MAX_FOLDS):
            raise ValueError("no such folds")
        if about["epoch"]["mode"] not in ("min", "max"):
            raise ValueError("no such choice of an epoch")
    except (ValueError, OSError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise GelError(f"{path}: damaged ({reason}); run gel-fit compare --resume") from error
    assert isinstance(about, dict)
    return about


def _fits(value: Any, kind: Any) -> bool:
    """Whether plain data are of one of :data:`KINDS`."""
    if isinstance(kind, list):
        return isinstance(value, list) and all(_fits(item, kind[0]) for item in value)
    if isinstance(kind, dict):
        if not isinstance(value, dict):
            return False
        kinds = dict.fromkeys(value, kind[str]) if str in kind else kind
        return all(key in value and _fits(value[key], own) for key, own in kinds.items())
    return isinstance(value, kind)


def _rows(path: Path) -> list[dict[str, str]]:
    """The rows of the results file, each of another model."""
    try:
        rows = read_rows(path)
    except (OSError, csv.Error) as error:
        raise GelError(f"{path}: {_reason(error)}; run gel-fit compare --resume") from error
    lines: dict[tuple[str, ...], int] = {}
    for line, row in enumerate(rows, start=2):
        first = lines.setdefault(kind(row), line)
        if reason := f"of the model of line {first}" if first != line else _fault(row):
            raise GelError(f"{path}, line {line}: {reason}; {AGAIN}")
    return rows


def _fault(row: dict[str, Any]) -> str:
    """What is wrong with a row of the results file; empty if nothing is."""
    # The csv module puts None for cells that are missing, and under None those that are too many.
    if None in row or None in row.values():
        return "too few or too many cells"
    if not all(name.isidentifier() for name in kind(row)):
        return "no model"
    if row["error"]:
        return ""
    bounds = dict.fromkeys(TIMES, math.inf) | dict.fromkeys(SHARES, 1.0)
    bounds |= {name: most for name, most in zip(VALIDATED, (1.0, math.inf), strict=True) if row[name]}
    for name, most in bounds.items():
        try:
            number = float(row[name])
        except ValueError:
            number = math.nan
        if not 0 <= number <= most or math.isinf(number):
            return f"{name} is {row[name]!r}, not a number" + (" from 0 to 1" if most == 1 else "")
    try:
        whole = _fits(json.loads(row["conf_mat"]), [[int]])
    except (ValueError, RecursionError):
        whole = False
    return "" if whole else "conf_mat is no matrix of counts"


def _outcomes(path: Path, about: dict[str, Any], places: Sequence[tuple[int, int]]) -> list[Outcome]:
    """What a model made of pictures: of each repeat and fold, the fixed test pictures being 0 and 0."""
    outcomes = read_predictions(path, about["class_names"])
    if [outcome[:2] for outcome in outcomes] != list(places):
        folds, repeats = about["folds"] or 0, about["repeats"]
        cross = f", and of {folds} folds, {repeats} times" if len(places) > 1 else ""
        raise GelError(f"{path}: not the predictions of the test pictures{cross}; {AGAIN}")
    return outcomes


def _curves(path: Path) -> dict[str, list[float]]:
    """The curves of a fit; none if there was no epoch."""
    if not path.exists():
        return {}
    lines = list(_table(path, None))
    header = lines[0][1] if lines else []
    if header[:1] != ["epoch"] or len(lines) < 2:
        raise GelError(f"{path}: no metrics of epochs; remove the file")
    epochs = []
    for line, row in lines[1:]:
        try:
            if len(row) != len(header):
                raise ValueError
            epochs.append([float(value or "nan") for value in row])
        except ValueError as error:
            raise GelError(f"{path}, line {line}: not a whole row of metrics; remove the file") from error
    columns = [list(values) for values in zip(*epochs, strict=True)]
    return dict(zip(header[1:], columns[1:], strict=True))


def _table(path: Path, header: Sequence[str] | None) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV file with their lines, without its header if that is known."""
    try:
        with path.open(newline="", **TEXT) as file:
            rows = csv.reader(file)
            if header is not None and next(rows, None) != list(header):
                raise GelError(f"{path}: not the predictions of these classes; {AGAIN}")
            for row in rows:
                yield rows.line_num, row
    except (OSError, csv.Error) as error:
        raise GelError(f"{path}: {_reason(error)}; {AGAIN}") from error


def _reason(error: Exception) -> str:
    return str(error.strerror) if isinstance(error, OSError) else f"damaged ({error})"
