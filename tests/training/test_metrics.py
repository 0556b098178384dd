import warnings
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from gel_lightning.training.metrics import CALIBRATION_BINS, make_metrics, positive_class, single_values


def expected_metrics(
    labels: np.ndarray, probabilities: np.ndarray, class_names: Sequence[str], positive: int
) -> dict[str, float]:
    """The metrics that scikit-learn finds, and the calibration error by hand."""
    name, predicted = class_names[positive], probabilities.argmax(axis=1)
    confidence, right = probabilities.max(axis=1), predicted == labels
    tenth = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    return {
        "accuracy": sk.accuracy_score(labels, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted),
        "precision": sk.precision_score(labels, predicted, average="weighted"),
        "recall": sk.recall_score(labels, predicted, average="weighted"),
        "f1": sk.f1_score(labels, predicted, average="macro"),
        f"precision_{name}": sk.precision_score(labels == positive, predicted == positive),
        f"recall_{name}": sk.recall_score(labels == positive, predicted == positive),
        f"f1_{name}": sk.f1_score(labels == positive, predicted == positive),
        "auroc": np.mean([sk.roc_auc_score(labels == i, probabilities[:, i]) for i in range(len(class_names))]),
        "calibration_error": sum(abs((right * 1.0 - confidence)[tenth == i].sum()) for i in range(10)) / len(labels),
    }


@pytest.mark.parametrize(
    ("class_names", "positive"),
    [
        (("gel", "not_gel"), 0),
        (["not_a_gel", "gel"], 1),
        (("blot", "gel", "photo"), 1),
        (("cat", "dog", "eel"), 0),
        (("no gel", "Gel"), 0),
    ],
)
def test_metrics_are_those_of_scikit_learn_of_gel_or_else_of_the_first_class(
    class_names: Sequence[str], positive: int
) -> None:
    rng = np.random.default_rng(len(class_names))
    number = len(class_names)
    labels = rng.integers(0, number, 200)
    scores = rng.normal(0, 1, (200, number)) + np.eye(number)[labels] + np.arange(number)
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    expected = expected_metrics(labels, probabilities, class_names, positive)
    assert positive_class(class_names) == positive
    metrics = make_metrics(class_names)
    for part in (slice(0, 70), slice(70, 200)):  # as batches
        metrics.update(torch.from_numpy(probabilities[part]), torch.from_numpy(labels[part]))
    computed = metrics.compute()
    values = single_values(computed, class_names)
    assert {key: value.item() for key, value in values.items()} == pytest.approx(expected, rel=1e-5)
    assert len({round(value, 6) for value in expected.values()}) >= 9, "some could be confused"
    predicted = probabilities.argmax(axis=1)
    assert computed["confusion_matrix"].tolist() == sk.confusion_matrix(labels, predicted).tolist()
    assert computed.keys() - values.keys() == {"confusion_matrix"}


def test_a_classifier_that_is_sure_and_right_has_no_calibration_error_and_one_that_is_wrong_has_all_of_it() -> None:
    labels = torch.tensor([0, 1, 0, 1])
    for answers, error in ((labels, 0.0), (1 - labels, 1.0)):
        metrics = make_metrics(["gel", "not_gel"])
        metrics.update(torch.eye(2)[answers], labels)
        assert metrics.compute()["calibration_error"].item() == error


@pytest.mark.parametrize("name", ["a class", "keys", "", "ゲル", "accuracy", "1"])
def test_the_first_class_may_have_any_name(name: str) -> None:
    metrics = make_metrics([name, "other"])
    metrics.update(torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6]]), torch.tensor([0, 1, 1]))
    values = single_values(metrics.compute(), [name, "other"])
    assert values[f"precision_{name}"].item() == 0.5
    assert len(values) == 10


def test_the_first_class_may_have_a_dot_in_its_name() -> None:
    make_metrics(["gel 1.0", "other"])


@pytest.mark.parametrize(("label", "recall"), [(0, {"recall_gel": 0.75}), (1, {})])
def test_without_labels_of_a_class_only_what_is_defined_is_a_number(label: int, recall: dict[str, float]) -> None:
    metrics = make_metrics(["gel", "not_gel"])
    right = torch.tensor([[0.8, 0.2], [0.1, 0.9], [0.7, 0.3], [0.6, 0.4]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # GelClassifier hides torchmetrics' own
        metrics.update(right if label == 0 else right.flip(1), torch.full((4,), label))
        values = single_values(metrics.compute(), ["gel", "not_gel"])
    numbers = {name: value.item() for name, value in values.items() if value == value}
    assert numbers == pytest.approx({"accuracy": 0.75, "recall": 0.75, "calibration_error": 0.45, **recall})
    assert len(values) == 10
