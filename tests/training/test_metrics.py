import warnings
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from gel_lightning.training.metrics import (
    CALIBRATION_BINS,
    class_metrics,
    make_metrics,
    measure,
    positive_class,
    single_values,
)


def expected_metrics(
    labels: np.ndarray, probabilities: np.ndarray, class_names: Sequence[str], positive: int | None
) -> dict[str, float]:
    """The metrics that scikit-learn finds, and the calibration error by hand."""
    predicted = probabilities.argmax(axis=1)
    of_one = {}
    if positive is not None:
        name = class_names[positive]
        of_one = {
            f"precision_{name}": sk.precision_score(labels == positive, predicted == positive),
            f"recall_{name}": sk.recall_score(labels == positive, predicted == positive),
            f"f1_{name}": sk.f1_score(labels == positive, predicted == positive),
        }
    confidence, right = probabilities.max(axis=1), predicted == labels
    tenth = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    return {
        "accuracy": sk.accuracy_score(labels, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted),
        "precision": sk.precision_score(labels, predicted, average="weighted"),
        "recall": sk.recall_score(labels, predicted, average="weighted"),
        "f1": sk.f1_score(labels, predicted, average="macro"),
        **of_one,
        "auroc": np.mean([sk.roc_auc_score(labels == i, probabilities[:, i]) for i in range(len(class_names))]),
        "calibration_error": sum(abs((right * 1.0 - confidence)[tenth == i].sum()) for i in range(10)) / len(labels),
    }


@pytest.mark.parametrize(
    ("class_names", "positive"),
    [
        (("gel", "not_gel"), 0),
        (["not_a_gel", "gel"], 1),
        (("blot", "gel", "photo"), 1),
        (("cat", "dog", "eel"), None),
        (("no gel", "Gel"), 0),
    ],
)
def test_metrics_are_those_of_scikit_learn_of_gel_or_else_of_the_first_of_two_classes(
    class_names: Sequence[str], positive: int | None
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
    assert len({round(value, 6) for value in expected.values()}) >= len(expected) - 1, "some could be confused"
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


def test_a_class_with_no_picture_has_no_ranking_and_warns_of_nothing(recwarn: pytest.WarningsRecorder) -> None:
    shares = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.8, 0.2]])
    values = measure(shares, torch.zeros(3, dtype=torch.long), ["gel", "not_gel"])
    assert values["accuracy"].item() == pytest.approx(2 / 3)
    assert values["confusion_matrix"].tolist() == [[2, 1], [0, 0]]
    assert single_values(values, ["gel", "not_gel"])["auroc"].isnan()
    assert measure(shares, torch.tensor([0, 1, 0]), ["gel", "not_gel"])["auroc"].item() == 1
    assert not recwarn.list


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


@pytest.mark.parametrize("classes", [2, 10, 51])
def test_metrics_of_each_class_are_those_of_scikit_learn(classes: int) -> None:
    rng = np.random.default_rng(classes)
    labels, predicted = rng.integers(0, classes, 2000), rng.integers(0, classes, 2000)
    predicted[::2] = labels[::2]
    found = class_metrics(torch.from_numpy(sk.confusion_matrix(labels, predicted)))
    for values, expected in zip(found, sk.precision_recall_fscore_support(labels, predicted)[:3], strict=True):
        assert values.tolist() == pytest.approx(expected.tolist())


def test_a_class_that_is_never_there_or_never_predicted_has_no_recall_or_no_precision() -> None:
    precision, recall, f1 = class_metrics(torch.tensor([[3, 1, 0], [0, 0, 0], [2, 0, 0]]))
    assert precision.tolist()[:2] == pytest.approx([0.6, 0.0])
    assert precision[2].isnan()
    assert recall[1].isnan()
    assert [recall[0].item(), recall[2].item()] == [0.75, 0.0]
    assert f1.tolist() == pytest.approx([6 / 9, 0, 0])
