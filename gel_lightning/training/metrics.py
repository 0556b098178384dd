"""The metrics of every stage and every comparison."""

import warnings
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

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


def positive_class(class_names: Sequence[str]) -> int | None:
    """The label of the class whose own precision, recall, F1 and ROC curve are reported.

    That is "gel", else the first of two classes. Of more classes without a "gel" none stands out: None.
    """
    if "gel" in class_names:
        return list(class_names).index("gel")
    return 0 if len(class_names) <= 2 else None


def metrics_of_positive(class_names: Sequence[str]) -> tuple[str, ...]:
    """The names of precision, recall and F1 of the positive class; none if there is no such class."""
    positive = positive_class(class_names)
    if positive is None:
        return ()
    name = class_names[positive].replace(".", "_")  # module names must not contain a dot
    return f"precision_{name}", f"recall_{name}", f"f1_{name}"


def make_metrics(class_names: Sequence[str]) -> MetricCollection:
    """Makes the metrics, which are updated with probabilities, ``[N, classes]``, and labels, ``[N]``.

    ``precision`` and ``recall`` are weighted by class, as in the original study; ``f1`` and ``auroc`` are means over
    the classes; ``calibration_error`` is the expected calibration error.
    """
    classes = len(class_names)
    # They are updated with predictions that were gathered from all ranks.
    alone: dict[str, Any] = {"sync_on_compute": False}
    of_one = zip(
        metrics_of_positive(class_names), (MulticlassPrecision, MulticlassRecall, MulticlassF1Score), strict=False
    )
    return MetricCollection(
        {
            "accuracy": MulticlassAccuracy(classes, average="micro", **alone),
            "balanced_accuracy": MulticlassAccuracy(classes, average="macro", **alone),
            "precision": MulticlassPrecision(classes, average="weighted", **alone),
            "recall": MulticlassRecall(classes, average="weighted", **alone),
            "f1": MulticlassF1Score(classes, average="macro", **alone),
            **{name: metric(classes, average=None, **alone) for name, metric in of_one},
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
    single = {
        name: value[positive or 0] if value.ndim == 1 else value for name, value in values.items() if value.ndim < 2
    }
    (matrix,) = (value for name, value in values.items() if name.endswith("confusion_matrix"))
    present = matrix.sum(dim=1) > 0
    if present.all():
        return single
    defined = {"accuracy", "recall", "calibration_error"}
    if positive is not None and present[positive]:
        defined.add(metrics_of_positive(class_names)[1])
    undefined = (name for name in single if name.rpartition("/")[2] not in defined)
    return single | {name: torch.full_like(single[name], torch.nan) for name in undefined}


class ClassMetrics(NamedTuple):
    """Precision, recall and F1 of each class, shape ``[classes]``; NaN where they are undefined."""

    precision: Tensor
    recall: Tensor
    f1: Tensor


def class_metrics(matrix: Tensor) -> ClassMetrics:
    """The metrics of each class, from a confusion matrix.

    Args:
        matrix: counts or mean counts, shape ``[classes, classes]``, a row for each actual class.
    """
    counts = matrix.double()
    right, actual, predicted = counts.diagonal(), counts.sum(dim=1), counts.sum(dim=0)
    return ClassMetrics(right / predicted, right / actual, 2 * right / (actual + predicted))
