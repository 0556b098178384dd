"""The metrics of every stage and every comparison."""

import warnings
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassCalibrationError,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
)

CALIBRATION_BINS = 10
"""Number of equal bins in which confidence is compared with accuracy."""


def positive_class(class_names: Sequence[str]) -> int:
    """The label of the class whose precision, recall and F1 are reported: "gel", or the first if there is none."""
    return list(class_names).index("gel") if "gel" in class_names else 0


def metrics_of_positive(class_names: Sequence[str]) -> tuple[str, str, str]:
    """The names of precision, recall and F1 of the positive class."""
    name = class_names[positive_class(class_names)].replace(".", "_")  # module names must not contain a dot
    return f"precision_{name}", f"recall_{name}", f"f1_{name}"


def make_metrics(class_names: Sequence[str]) -> MetricCollection:
    """Makes the metrics, which are updated with probabilities, ``[N, classes]``, and labels, ``[N]``.

    ``precision`` and ``recall`` are weighted by class, as in the original study; ``f1`` and ``auroc`` are means over
    the classes; ``calibration_error`` is the expected calibration error.
    """
    classes = len(class_names)
    # They are updated with predictions that were gathered from all ranks.
    alone: dict[str, Any] = {"sync_on_compute": False}
    precision, recall, f1 = metrics_of_positive(class_names)
    return MetricCollection(
        {
            "accuracy": MulticlassAccuracy(classes, average="micro", **alone),
            "balanced_accuracy": MulticlassAccuracy(classes, average="macro", **alone),
            "precision": MulticlassPrecision(classes, average="weighted", **alone),
            "recall": MulticlassRecall(classes, average="weighted", **alone),
            "f1": MulticlassF1Score(classes, average="macro", **alone),
            precision: MulticlassPrecision(classes, average=None, **alone),
            recall: MulticlassRecall(classes, average=None, **alone),
            f1: MulticlassF1Score(classes, average=None, **alone),
            "auroc": MulticlassAUROC(classes, **alone),
            "calibration_error": MulticlassCalibrationError(classes, CALIBRATION_BINS, norm="l1", **alone),
            "confusion_matrix": MulticlassConfusionMatrix(classes, **alone),
        }
    )


@lru_cache(maxsize=4)
def _metrics(class_names: tuple[str, ...]) -> MetricCollection:
    return make_metrics(class_names)  # takes longer than computing them


def measure(probabilities: Tensor, labels: Tensor, class_names: Sequence[str]) -> dict[str, Tensor]:
    """Computes the metrics of :func:`make_metrics` of ``[N, classes]`` probabilities and ``[N]`` labels."""
    metrics = _metrics(tuple(class_names))
    metrics.reset()
    metrics.update(probabilities, labels)
    with warnings.catch_warnings():
        # For classes without pictures, whose metrics single_values sets to NaN.
        warnings.filterwarnings("ignore", message="No (negative|positive) samples in targets", category=UserWarning)
        return metrics.compute()


def single_values(values: Mapping[str, Tensor], class_names: Sequence[str]) -> dict[str, Tensor]:
    """Reduces the results of :func:`make_metrics` to single numbers, without the confusion matrix.

    Args:
        values: by name, with or without a prefix such as ``test/``.
        class_names: in the order of the labels.

    Returns:
        A scalar for each metric; NaN if it is undefined because a class has no pictures.
    """
    positive = positive_class(class_names)
    single = {name: value[positive] if value.ndim == 1 else value for name, value in values.items() if value.ndim < 2}
    (matrix,) = (value for name, value in values.items() if name.endswith("confusion_matrix"))
    present = matrix.sum(dim=1) > 0
    if present.all():
        return single
    defined = {"accuracy", "recall", "calibration_error"}
    if present[positive]:
        defined.add(metrics_of_positive(class_names)[1])
    undefined = (name for name in single if name.rpartition("/")[2] not in defined)
    return single | {name: torch.full_like(single[name], torch.nan) for name in undefined}
