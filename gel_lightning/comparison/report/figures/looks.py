"""Colours, names and scales that several figures share."""

import numpy as np
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from gel_lightning.comparison.summary import ModelSummary, Summary
from gel_lightning.training.figures import RIGHT, WRONG, shorten

TEST, FOLDS = "test pictures", "cross-validation"
LOOKS = {TEST: (WRONG, "D"), FOLDS: (RIGHT, "o")}  # colour and marker
PLAIN = FuncFormatter(lambda value, _: f"{value:g}")


def accuracy_scale(summary: Summary) -> tuple[float, float]:
    """The limits of an accuracy axis in %: all intervals fit, and small differences do not look large."""
    ends = [
        (estimate.low, estimate.value)
        for m in summary.models
        for estimate in (m.test_accuracy, m.estimates["accuracy"])
    ]
    return min(100 * float(np.nanmin(ends)) - 1, 90), 101


def model_title(model: ModelSummary) -> list[str]:
    """The name of a model on two lines, for narrow axes."""
    backbone = model.record.levels["backbone"]
    return [shorten(backbone, 22), shorten(model.name.removeprefix(f"{backbone} "), 22)]


def spread(number: int) -> NDArray[np.float64]:
    """Positions of ``number`` marks within a row."""
    return np.linspace(-0.28, 0.28, number) if number > 1 else np.zeros(number)


def tested_on(summary: Summary) -> str:
    """The test pictures, for a caption."""
    number = summary.models[0].total
    return f"the {number} fixed test pictures" if number > 1 else "the one fixed test picture"


def cross_validation(summary: Summary) -> str:
    """The kind of cross-validation, for a caption."""
    if summary.left_out:
        return f"cross-validation that leaves one of {summary.folds} groups out at a time"
    times = f", dealt {summary.repeats} times" if summary.repeats > 1 else ""
    return f"{summary.folds}-fold cross-validation{times}"
