"""How good a classifier is: the metrics of every stage, and of every comparison."""

from collections.abc import Mapping, Sequence
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
"""Of equal width, in which confidence is compared with accuracy."""


def positive_class(class_names: Sequence[str]) -> int:
    """Label of the class that precision, recall and F1 "of gel" are about: the first where there is no gel."""
    return list(class_names).index("gel") if "gel" in class_names else 0


def metrics_of_positive(class_names: Sequence[str]) -> tuple[str, str, str]:
    """The names of precision, recall and F1 of that class."""
    name = class_names[positive_class(class_names)].replace(".", "_")  # torch names no module with a dot
    return f"precision_{name}", f"recall_{name}", f"f1_{name}"


def make_metrics(class_names: Sequence[str]) -> MetricCollection:
    """Makes the metrics, to be updated with probabilities, ``[N, classes]``, and labels, ``[N]``.

    ``precision`` and ``recall`` are weighted by class, as in the original study, ``f1`` and ``auroc`` are means over
    the classes, and ``calibration_error`` is the expected one.
    """
    classes = len(class_names)
    # What they are updated with has been gathered from all processes.
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


def single_values(values: Mapping[str, Tensor], class_names: Sequence[str]) -> dict[str, Tensor]:
    """Takes what :func:`make_metrics` has computed as single numbers, without the confusion matrix.

    Args:
        values: by name, which may have a prefix such as ``test/``.
        class_names: in the order of the labels.

    Returns:
        A scalar for each metric: nan where it is undefined because there was no label of some class.
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
