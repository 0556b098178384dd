from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import read_rows
from made_up import CLASSES, change_about, make_comparison
from numpy.typing import NDArray
from sklearn import metrics as sk

from gel_lightning.comparison.folder import PREDICTIONS
from gel_lightning.comparison.predictions import Outcome, confusion_counts, write_predictions
from gel_lightning.comparison.records import read_comparison
from gel_lightning.comparison.statistics import compare_pairs, exact_interval, factor_effects, resampled_share
from gel_lightning.comparison.summary import ModelSummary, Summary, right_of
from gel_lightning.models.spec import ModelSpec
from gel_lightning.training.results import rewrite_results

THREE = ("blot", "gel", "photo")
CATS = ("cat", "dog", "eel")


def summary(folder: Path, **options: Any) -> Summary:
    return Summary(read_comparison(make_comparison(folder / "version_0", **options)))


def calibration_error(actual: NDArray[Any], probabilities: NDArray[Any]) -> float:
    """By hand: in each tenth of confidence, how far it is from the share of right answers."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == actual
    tenth = np.minimum((confidence * 10).astype(int), 9)
    return sum(abs(right[tenth == i].sum() - confidence[tenth == i].sum()) for i in range(10)) / len(actual)


def expected(rows: list[dict[str, str]], classes: Sequence[str], positive: int | None) -> dict[str, float]:
    """The metrics that scikit-learn finds in rows of a file of predictions."""
    actual = np.array([classes.index(row["actual"]) for row in rows])
    probabilities = np.array([[float(row[f"probability_{name}"]) for name in classes] for row in rows])
    probabilities /= probabilities.sum(axis=1, keepdims=True)  # of 7 digits each
    predicted = probabilities.argmax(axis=1)
    if positive is None:
        weighted = sk.precision_score(actual, predicted, average="weighted", zero_division=0)
        of_class = {"precision": weighted}
    else:
        of_it, name = (actual == positive, predicted == positive), classes[positive]
        of_class = {
            f"precision_{name}": sk.precision_score(*of_it, zero_division=0),
            f"recall_{name}": sk.recall_score(*of_it),
            f"f1_{name}": sk.f1_score(*of_it),
        }
    return {
        "accuracy": sk.accuracy_score(actual, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(actual, predicted),
        **of_class,
        "f1": sk.f1_score(actual, predicted, average="macro"),
        "auroc": np.mean([sk.roc_auc_score(actual == i, probabilities[:, i]) for i in range(len(classes))]),
        "log_loss": sk.log_loss(actual, probabilities),
        "calibration_error": calibration_error(actual, probabilities),
    }


def folder_of(model: ModelSummary, folder: Path) -> Path:
    return folder / "version_0" / model.record.name.replace(" ", "_")


@pytest.mark.parametrize(
    ("classes", "positive"),
    [(CLASSES, 0), (("blot", "gel"), 1), (THREE, 1), (CATS, None)],
    ids=lambda value: str(value),
)
def test_metrics_of_each_fit_are_those_of_scikit_learn(
    classes: Sequence[str], positive: int | None, tmp_path: Path
) -> None:
    found = summary(tmp_path, classes=classes, folds=3, repeats=2, per_class=12, skill=0.4, backbones=["resnet18"])
    assert len(found.models) == 4
    for model in found.models:
        rows = read_rows(folder_of(model, tmp_path) / PREDICTIONS)
        fits = [(str(repeat), str(fold)) for repeat in (1, 2) for fold in (1, 2, 3)]
        for place in [("0", "0"), *fits]:
            some = [row for row in rows if (row["repeat"], row["fold"]) == place]
            assert len(some) == len(classes) * (4 if place in fits else 6)
            values = expected(some, classes, positive)
            mine = {key: model.fits[key][fits.index(place)] for key in values} if place in fits else model.test
            assert {key: mine[key] for key in values} == pytest.approx(values, rel=1e-5, abs=1e-7), place
        assert list(values) == [metric.key for metric in found.metrics] == list(model.fits)
        assert model.right == round(model.test["accuracy"] * len(classes) * 6)
        assert (model.total, model.test_accuracy) == (len(classes) * 6, exact_interval(model.right, model.total))
    spread = [model.fits[metric.key] for model in found.models for metric in found.metrics]
    assert len({value for values in spread for value in values.round(6)}) > 40, "too many metrics are alike"
    labels = {metric.key: metric.label for metric in found.metrics}
    if positive is None:
        assert not {key for key in labels if key.startswith(("recall_", "f1_", "precision_"))}
    else:
        assert labels[f"recall_{classes[positive]}"] == f"recall of {classes[positive]}"


def test_means_intervals_tests_and_effects_are_those_of_the_statistics(tmp_path: Path) -> None:
    found = summary(tmp_path, folds=5, repeats=2, skill={"sgd": 0.2, "adam": 1.5}, failed=["resnet18_multi_sgd_cpu"])
    assert (found.folds, found.repeats, found.share, found.groups) == (5, 2, 1 / 4, 39)
    for model in found.models:
        for metric in found.metrics:
            assert model.fits[metric.key].shape == (10,)
            assert model.estimates[metric.key] == resampled_share(model.fits[metric.key], 1 / 4, metric.bounded)
        assert model.estimates["log_loss"].low < model.estimates["log_loss"].value
    unbounded = {metric.key for metric in found.metrics if not metric.bounded}
    worse = {metric.key for metric in found.metrics if not metric.more_is_better}
    assert (unbounded, worse) == ({"log_loss"}, {"log_loss", "calibration_error"})

    scores = {model.name: model.fits["accuracy"] for model in found.models}
    assert len(found.pairs) == 7 * 6 / 2
    assert found.pairs == compare_pairs(scores, 1 / 4)
    assert any(pair.shown for pair in found.pairs)
    levels = [model.record.levels for model in found.models]
    assert found.effects == factor_effects(levels, list(scores.values()), 1 / 4)
    effects = {effect.factor: effect for effect in found.effects}
    assert list(effects) == found.factors == ["backbone", "head", "optimizer"]
    assert effects["optimizer"][1:3] == ("adam", "sgd")
    assert effects["optimizer"].difference.shown
    assert [row["error"] for row in found.comparison.failed] == ["RuntimeError: it did not work"]


def write_model(folder: Path, name: str, right: Sequence[int], sure: float = 0.9) -> None:
    """Lets a model be right about the first pictures of each fit, of the test and of two folds of 10 each."""
    outcomes = []
    for fold, number in enumerate(right):
        labels = np.tile([0, 1], 5)
        share = np.where(np.arange(10) < number, sure, 1 - sure)
        probabilities = np.where(labels[:, None] == [0, 1], share[:, None], 1 - share[:, None])
        paths = tuple(f"{fold}_{i}.png" for i in range(10))
        outcomes.append(Outcome(int(fold > 0), fold, paths, labels, probabilities))
    write_predictions(folder / "version_0" / name / PREDICTIONS, CLASSES, outcomes)
    rows = read_rows(folder / "version_0/results.csv")
    matrix = confusion_counts(outcomes[:1], 2)
    for row in rows:
        if ModelSpec.of_row(row).name == name:
            row |= {"conf_mat": str(matrix.tolist()), "accuracy": str(matrix.trace() / 10)}
    rewrite_results(folder / "version_0/results.csv", rows)


@pytest.fixture
def two_models(tmp_path: Path) -> Path:
    """The folder above a comparison of two models whose predictions are to be written."""
    grid = {"backbones": ["resnet18", "vgg16"], "heads": ["single"], "optimizers": ["sgd"]}
    make_comparison(tmp_path / "version_0", folds=2, repeats=1, per_class=10, **grid)
    return tmp_path


RESNET, VGG = "resnet18_single_sgd_cpu", "vgg16_single_sgd_cpu"


def read_two(folder: Path) -> Summary:
    return Summary(read_comparison(folder / "version_0"))


def test_the_best_is_the_most_accurate_in_cross_validation_and_not_on_the_test_pictures(two_models: Path) -> None:
    write_model(two_models, RESNET, [10, 6, 7])
    write_model(two_models, VGG, [2, 9, 8])
    found = read_two(two_models)
    assert [(model.name, model.right, model.total) for model in found.models] == [
        ("vgg16 single sgd", 2, 10),
        ("resnet18 single sgd", 10, 10),
    ]
    assert [model.estimates["accuracy"].value for model in found.models] == pytest.approx([0.85, 0.65])
    assert (found.pairs[0].first, found.pairs[0].second) == ("vgg16 single sgd", "resnet18 single sgd")
    assert found.models[1].test_accuracy == exact_interval(10, 10)


def test_of_equally_accurate_models_that_of_the_lowest_log_loss_is_the_best(two_models: Path) -> None:
    write_model(two_models, RESNET, [9, 8, 8], sure=0.9)
    write_model(two_models, VGG, [5, 8, 8], sure=0.6)
    for sure, best in ((0.9, "resnet18"), (0.55, "vgg16")):
        write_model(two_models, RESNET, [9, 8, 8], sure=sure)
        found = read_two(two_models)
        assert [model.estimates["accuracy"].value for model in found.models] == pytest.approx([0.8, 0.8])
        losses = [model.estimates["log_loss"].value for model in found.models]
        assert losses[0] < losses[1]
        assert found.models[0].record.levels["backbone"] == best
    assert (found.pairs[0].difference.value, found.pairs[0].difference.p, found.pairs[0].shown) == (0, 1, False)


def test_without_folds_validation_chooses_and_the_test_pictures_do_not(tmp_path: Path) -> None:
    folder = make_comparison(tmp_path / "version_0", folds=0, skill={"adam": 3.0, "sgd": 0.1}, heads=["single"])
    rows = read_rows(folder / "results.csv")
    chosen = {"resnet18 sgd": (0.95, 0.2), "mobilenet_v2 sgd": (0.95, 0.1)}
    for row in rows:
        row["val_accuracy"], row["val_loss"] = map(
            str, chosen.get(f"{row['pretrained_model']} {row['opt_alg']}", (0.5, 0.01))
        )
    rewrite_results(folder / "results.csv", rows)
    found = Summary(read_comparison(folder))
    assert [model.name for model in found.models[:2]] == ["mobilenet_v2 single sgd", "resnet18 single sgd"]
    assert found.models[0].right < found.models[2].right
    assert found.models[0].chosen_by == (0.95, 0.1)


def test_only_what_tests_show_is_called_worse_than_the_best(tmp_path: Path) -> None:
    found = summary(tmp_path, skill={"resnet18": 3.0, "mobilenet_v2": 0.0}, heads=["single"], repeats=4)
    backbones = [model.record.levels["backbone"] for model in found.models]
    assert found.not_worse["accuracy"] == [backbone == "resnet18" for backbone in backbones]
    assert found.not_worse["log_loss"] == [backbone == "resnet18" for backbone in backbones]
    assert set(map(len, found.not_worse.values())) == {4}
    one_split = summary(tmp_path / "other", folds=0, heads=["single"])
    assert all(all(alike) for alike in one_split.not_worse.values())


@pytest.mark.parametrize(("right", "value"), [(10, 1.0), (0, 0.0)])
def test_an_accuracy_that_never_varies_at_its_end_has_the_interval_of_that_many_different_pictures(
    right: int, value: float, two_models: Path
) -> None:
    write_model(two_models, RESNET, [10, right, right])
    write_model(two_models, VGG, [10, 8, 8])
    change_about(two_models / "version_0", near_duplicates=[["1_0.png", "2_0.png", "1_4.png"], ["2_1.png", "0_1.png"]])
    found = read_two(two_models)
    models = {model.record.levels["backbone"]: model for model in found.models}
    assert found.groups == 18  # of 20; a test picture is not one of them
    assert models["resnet18"].estimates["accuracy"] == exact_interval(18 if value else 0, 18)
    assert models["resnet18"].estimates["accuracy"].value == value
    # Anywhere else nothing is known of how it would vary.
    assert models["vgg16"].estimates["accuracy"] == pytest.approx((0.8, np.nan, np.nan), nan_ok=True)
    assert models["resnet18"].estimates["recall_gel"] == pytest.approx((value, np.nan, np.nan), nan_ok=True)


@pytest.mark.parametrize(
    ("near", "groups"),
    [
        ([], 40),
        ([["gel/gel_0.png", "gel/gel_1.png"]], 39),
        ([["gel/gel_0.png", "gel/gel_1.png", "gel/gel_2.png"], ["not_gel/not_gel_3.png", "gel/gel_7.png"]], 37),
        ([["gel/gel_0.png", "test/gel/gel_0.png"]], 40),
        ([["test/gel/gel_0.png", "test/gel/gel_1.png"]], 40),
    ],
)
def test_near_duplicates_of_the_cross_validated_pictures_count_once(
    near: list[list[str]], groups: int, tmp_path: Path
) -> None:
    folder = make_comparison(tmp_path / "version_0", heads=["single"], folds=2)
    change_about(folder, near_duplicates=[[f"pictures/{path}" for path in group] for group in near])
    assert Summary(read_comparison(folder)).groups == groups


def test_without_folds_the_test_pictures_are_all_there_is(tmp_path: Path) -> None:
    found = summary(tmp_path, folds=0, skill={"adam": 0.3, "sgd": 1.0})
    assert (found.folds, found.repeats, found.groups, found.pairs, found.effects) == (0, 0, 0, [], [])
    assert found.factors == ["backbone", "head", "optimizer"]
    for model in found.models:
        assert model.fits == {}
        assert model.estimates["accuracy"] == model.test_accuracy == exact_interval(model.right, 20)
        for metric in found.metrics[1:]:
            assert model.estimates[metric.key] == pytest.approx((model.test[metric.key], np.nan, np.nan), nan_ok=True)
    keys = [(-model.record.validation[0], model.record.validation[1]) for model in found.models]
    assert keys == sorted(keys)
    assert len(set(keys)) > 2


def test_one_model_alone_is_compared_with_none(tmp_path: Path) -> None:
    one = {"backbones": ["vgg16"], "heads": ["multi"], "optimizers": ["sgd", "adam"]}
    found = summary(tmp_path, **one, failed=["vgg16_multi_adam_cpu"], skill=0.5)
    (model,) = found.models
    assert (model.name, model.record.name) == ("vgg16 multi sgd", "vgg16 multi sgd cpu")
    assert (found.pairs, found.effects, found.factors) == ([], [], [])
    assert model.estimates["accuracy"].low < model.estimates["accuracy"].value < model.estimates["accuracy"].high
    assert len(found.comparison.failed) == 1


def test_a_factor_that_only_a_failed_model_had_is_none(tmp_path: Path) -> None:
    found = summary(tmp_path, heads=["multi"], optimizers=["sgd"], hardware=["cpu", "gpu"], failed=[
        "resnet18_multi_sgd_gpu", "mobilenet_v2_multi_sgd_gpu"
    ])  # fmt: skip
    assert found.factors == ["backbone"]
    assert {effect.factor for effect in found.effects} == {"backbone"}


def test_two_answers_that_are_equally_likely_are_one_answer_everywhere(two_models: Path) -> None:
    """A picture is right in the count, in the accuracy and in the confusion matrix, or in none of them."""
    for name in (RESNET, VGG):
        write_model(two_models, name, [10, 10, 10], sure=0.5)
    for model in read_two(two_models).models:
        assert right_of(model.record.test) == model.right == 5  # the first class it is
        assert model.test["accuracy"] == 0.5
        assert model.test["recall_gel"] == 1
