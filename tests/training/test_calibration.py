"""Temperature and thresholds against scikit-learn, and against counting by hand."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.metrics import log_loss

from gel_lightning.training.calibration import FIXED_THRESHOLD, NEVER, calibrate, fit_temperature, precise_threshold

NAMES = ("gel", "not_gel")


def overconfident(classes: int, each: int = 400, factor: float = 4.0) -> tuple[NDArray[Any], NDArray[Any]]:
    """Logits that are `factor` times as large as they should be, and labels drawn from what they should be."""
    rng = np.random.default_rng(classes)
    logits = 2 * rng.normal(size=(each * classes, classes))
    labels = np.array([rng.choice(classes, p=row) for row in softmax(logits, axis=1)])
    return (factor * logits).astype(np.float32), labels


class AsItIs(ClassifierMixin, BaseEstimator):
    """A classifier whose scores are the logits that it is given."""

    def fit(self, logits: Any, labels: Any) -> "AsItIs":
        self.classes_ = np.unique(labels)
        return self

    def decision_function(self, logits: Any) -> Any:
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def predict(self, logits: Any) -> Any:
        return logits.argmax(axis=1)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_temperature_undoes_overconfidence(classes: int) -> None:
    logits, labels = overconfident(classes)
    temperature = fit_temperature(logits, labels)
    assert temperature == pytest.approx(4, rel=0.15)
    before, after = softmax(logits, axis=1), softmax(logits / temperature, axis=1)
    assert log_loss(labels, after) < log_loss(labels, before) - 0.2


@pytest.mark.parametrize("classes", [2, 3])
def test_probabilities_are_those_of_scikit_learns_temperature_scaling(classes: int) -> None:
    pytest.importorskip("sklearn", "1.8")  # the first with temperature scaling
    logits, labels = overconfident(classes)
    frozen = pytest.importorskip("sklearn.frozen").FrozenEstimator(AsItIs().fit(logits, labels))
    theirs = CalibratedClassifierCV(frozen, method="temperature").fit(logits, labels).predict_proba(logits)
    ours = softmax(logits / fit_temperature(logits, labels), axis=1)
    # Not the same to the last digit: Platt's targets are a little below 1.
    np.testing.assert_allclose(ours, theirs, atol=0.01)


def test_a_model_without_a_mistake_is_not_given_infinite_confidence() -> None:
    labels = np.repeat([0, 1], 100)
    logits = np.where(labels[:, None] == [0, 1], 3.0, -3.0) + np.random.default_rng(0).normal(0, 0.1, (200, 2))
    probabilities = softmax(logits / fit_temperature(logits, labels), axis=1)
    assert probabilities.max(axis=1).mean() == pytest.approx(101 / 102, abs=0.001)


def test_threshold_is_the_lowest_one_of_99_percent() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 1000)
    right = rng.uniform(size=1000) < 1 - (1 - confidence) / 2
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    labels = np.where(right, 0, 1)
    threshold = precise_threshold(probabilities, labels, 0)
    assert threshold in confidence
    assert right[confidence >= threshold].mean() >= 0.99
    assert all(right[confidence >= lower].mean() < 0.99 for lower in confidence[confidence < threshold])


def test_a_class_that_is_never_precise_is_never_certain() -> None:
    logits, labels = np.tile([[2.0, 0.0], [0.0, 2.0]], (100, 1)), np.tile([0, 1], 100)
    labels[:10] = 1 - labels[:10]
    found = calibrate(logits, labels, NAMES)
    assert found.thresholds == (NEVER, NEVER)
    assert "no threshold reaches it for gel, not_gel" in found.note


@pytest.mark.parametrize("counts", [(0, 0), (99, 500), (100, 99)])
def test_too_few_pictures_fit_nothing_and_say_so(counts: tuple[int, int]) -> None:
    labels = np.repeat([0, 1], counts)
    found = calibrate(np.random.default_rng(0).normal(size=(len(labels), 2)), labels, NAMES)
    assert found[:2] == (1.0, (FIXED_THRESHOLD, FIXED_THRESHOLD))
    assert f"{min(counts)} validation pictures of {NAMES[int(np.argmin(counts))]}" in found.note
    assert "fixed at 0.9" in found.note


def test_enough_pictures_are_used_and_counted() -> None:
    logits, labels = overconfident(2)
    found = calibrate(logits, labels, NAMES)
    assert found.temperature == fit_temperature(logits, labels)
    probabilities = softmax(logits.astype(np.float64) / found.temperature, axis=1)
    assert found.thresholds == tuple(precise_threshold(probabilities, labels, label) for label in (0, 1))
    assert found.note.startswith("calibrated on 800 validation pictures")
