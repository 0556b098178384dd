"""Calibration of a classifier on its validation pictures: a temperature, and a threshold for each class."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

LEAST_PICTURES = 100
"""Validation pictures of each class that fitting needs."""

PRECISION = 0.99
"""Share of right answers that the threshold of a class gives on the validation pictures."""

FIXED_THRESHOLD = 0.9
"""Threshold of each class if none is fitted."""

NEVER = 2.0
"""A threshold that no probability reaches."""


class Calibration(NamedTuple):
    """How logits become probabilities, and which answers are certain.

    Attributes:
        temperature: divides the logits before the softmax.
        thresholds: for each class, the probability at which an answer is certain.
        note: where these numbers come from, in one line.
    """

    temperature: float
    thresholds: tuple[float, ...]
    note: str


@dataclass(frozen=True)
class Validation:
    """The output of a model for the validation pictures.

    Attributes:
        step: the trainer's global step.
        logits: shape ``[N, classes]``.
        labels: shape ``[N]``.
        class_names: of the labels.
        kind: ``validation``, or ``held-out`` for the pictures of a cross-validation.
    """

    step: int
    logits: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    kind: str = "validation"

    @cached_property
    def calibration(self) -> Calibration:
        """The calibration fitted on these pictures."""
        return calibrate(self.logits.numpy(), self.labels.numpy(), self.class_names, self.kind)


def calibrate(
    logits: NDArray[np.floating], labels: NDArray[np.integer], class_names: Sequence[str], kind: str = "validation"
) -> Calibration:
    """Fits a temperature and a threshold of 99 % precision for each class.

    Args:
        logits: of the validation pictures, shape ``[N, classes]``; N may be 0.
        labels: their classes, shape ``[N]``.
        class_names: of the labels.
        kind: of the pictures, for the note.

    Returns:
        The calibration. With fewer than 100 pictures of a class, it has a temperature of 1 and fixed thresholds.
    """
    counts = np.bincount(labels, minlength=len(class_names))
    rarest = int(counts.argmin())
    if counts[rarest] < LEAST_PICTURES:
        note = (
            f"not calibrated: {counts[rarest]} {kind} pictures of {class_names[rarest]}, and it takes "
            f"{LEAST_PICTURES} a class; thresholds are fixed at {FIXED_THRESHOLD:g}"
        )
        return Calibration(1.0, (FIXED_THRESHOLD,) * len(class_names), note)
    from scipy.special import softmax  # SciPy and scikit-learn take a while to import

    temperature = fit_temperature(logits, labels)
    probabilities = softmax(logits.astype(np.float64) / temperature, axis=1)
    thresholds = [precise_threshold(probabilities, labels, label) for label in range(len(class_names))]
    note = f"calibrated on {len(labels)} {kind} pictures, thresholds of {PRECISION:.0%} precision"
    never = [name for name, threshold in zip(class_names, thresholds, strict=True) if threshold == NEVER]
    if never:
        note += f"; no threshold reaches it for {', '.join(never)}, whose answers are never certain"
    return Calibration(temperature, tuple(thresholds), note)


def fit_temperature(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """Finds the temperature with the lowest cross-entropy on validation pictures (Guo et al. 2017).

    The targets are those of Platt (1999): for a class of n pictures (n + 1) / (n + 2) instead of 1. Otherwise a model
    without errors on the validation pictures would get infinite confidence.

    Args:
        logits: shape ``[N, classes]``.
        labels: shape ``[N]``, each class at least once.

    Returns:
        The temperature, between 0.01 and 100.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    values, classes = logits.astype(np.float64), logits.shape[1]
    others = 1 / (np.bincount(labels, minlength=classes)[labels] + 2)
    targets = np.repeat(others[:, None] / (classes - 1), classes, axis=1)
    targets[np.arange(len(labels)), labels] = 1 - others

    def cross_entropy(log_temperature: float) -> float:
        return float(-(targets * log_softmax(values / np.exp(log_temperature), axis=1)).sum(axis=1).mean())

    found = minimize_scalar(cross_entropy, bounds=(np.log(0.01), np.log(100)), method="bounded")
    return float(np.exp(found.x))


def precise_threshold(probabilities: NDArray[np.floating], labels: NDArray[np.integer], label: int) -> float:
    """Finds the lowest probability from which on answers of one class are precise enough.

    Args:
        probabilities: of the validation pictures, shape ``[N, classes]``.
        labels: their classes, shape ``[N]``.
        label: the class.

    Returns:
        The lowest threshold with :data:`PRECISION`; :data:`NEVER` if there is none.
    """
    from sklearn.metrics import precision_recall_curve

    answered = probabilities.argmax(axis=1) == label
    right = labels[answered] == label
    if not right.any():
        return NEVER
    precision, _, thresholds = precision_recall_curve(right, probabilities[answered, label])
    enough = precision[:-1] >= PRECISION
    return float(thresholds[enough][0]) if enough.any() else NEVER
