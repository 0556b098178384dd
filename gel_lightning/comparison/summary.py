"""Summarising a comparison: metrics with intervals, ranking, tests."""

from collections.abc import Iterable
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from gel_lightning.comparison.predictions import Outcome, confusion_counts, pooled
from gel_lightning.comparison.records import FACTORS, Comparison, Record
from gel_lightning.comparison.statistics import (
    Effect,
    Estimate,
    Pair,
    compare_pairs,
    exact_interval,
    factor_effects,
    group_shares,
    not_worse_than_best,
    resampled_share,
)
from gel_lightning.training.metrics import measure, metrics_of_positive, positive_class, single_values


class Metric(NamedTuple):
    """A metric: its key, its name, whether it is between 0 and 1, and whether more is better."""

    key: str
    label: str
    bounded: bool = True
    more_is_better: bool = True


class Tested(NamedTuple):
    """Results on a test set.

    Attributes:
        right: number of right answers.
        total: number of pictures.
        accuracy: their ratio, with its exact interval.
        by_class: the number of right answers and of pictures of each class.
    """

    right: int
    total: int
    accuracy: Estimate
    by_class: tuple[tuple[int, int], ...]


class ModelSummary(NamedTuple):
    """A model and its metrics.

    Attributes:
        record: its results.
        right: number of right answers on the fixed test pictures.
        total: number of fixed test pictures.
        test_accuracy: accuracy on these, with its exact interval.
        test: each metric on these, by key.
        fits: each metric for each fit of the cross-validation, [fits]; empty if there was none, and only accuracy if
            groups were left out.
        estimates: each metric with its interval: the mean over the fits of the cross-validation, or else the value on
            the test pictures, where only accuracy has an interval.
        name: for display, without the hardware if it is the same for all models.
        named: its results on each named test set.
    """

    record: Record
    right: int
    total: int
    test_accuracy: Estimate
    test: dict[str, float]
    fits: dict[str, NDArray[np.float64]]
    estimates: dict[str, Estimate]
    name: str
    named: dict[str, Tested]

    @property
    def chosen_by(self) -> tuple[float, float]:
        """The accuracy and log loss that models are ranked by: cross-validated, or else on the validation pictures."""
        if self.fits:
            return self.estimates["accuracy"].value, self.estimates["log_loss"].value
        return self.record.validation


class Summary:
    """The metrics, ranking and tests of a comparison.

    Attributes:
        comparison: the comparison.
        metrics: all metrics.
        models: ranked by accuracy, then by log loss, cross-validated or else on the validation pictures. Test pictures
            play no part in the ranking, so that it does not bias the results on them.
        groups: number of different pictures in the cross-validation; near-duplicates count as one.

    Args:
        comparison: the comparison.
    """

    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison
        names = comparison.class_names
        positive = positive_class(names)
        if positive is None:
            of_class = [Metric("precision", "precision, weighted")]
        else:
            labels = [f"{metric} of {names[positive]}" for metric in ("precision", "recall", "F1")]
            of_class = [Metric(*both) for both in zip(metrics_of_positive(names), labels, strict=True)]
        self.metrics = [
            Metric("accuracy", "accuracy"),
            Metric("balanced_accuracy", "balanced accuracy"),
            *of_class,
            Metric("f1", "F1, mean of classes"),
            Metric("auroc", "ROC AUC"),
            Metric("log_loss", "log loss", bounded=False, more_is_better=False),
            Metric("calibration_error", "calibration error", more_is_better=False),
        ]
        first = comparison.records[0]
        self.groups = _different(first.folds, comparison.about["near_duplicates"])
        models = [self._model(record) for record in comparison.records]
        self.models = sorted(models, key=lambda model: rank(*model.chosen_by))

    @property
    def of_gels(self) -> bool:
        """Whether it asks what the original study asked, whose results then stand beside these."""
        return "gel" in self.comparison.class_names

    @property
    def of_configs(self) -> bool:
        """Whether its models come from config files, and may differ in any setting."""
        return any(model.record.model.config for model in self.models)

    @property
    def folds(self) -> int:
        """Number of folds; 0 if there was no cross-validation."""
        return max((outcome.fold for outcome in self.comparison.records[0].folds), default=0)

    @property
    def repeats(self) -> int:
        """Number of times that the folds were dealt."""
        return max((outcome.repeat for outcome in self.comparison.records[0].folds), default=0)

    @property
    def left_out(self) -> list[str]:
        """The groups that were left out one at a time; empty if folds were dealt or there was no cross-validation."""
        groups: list[str] = self.comparison.about["groups"]
        return groups

    @property
    def by_group(self) -> list[tuple[str, Tested]]:
        """The results of the best model on each group that was left out, the lowest accuracy first."""
        groups = zip(self.left_out, map(_tested, self.models[0].record.folds), strict=True) if self.left_out else ()
        return sorted(groups, key=lambda group: (group[1].accuracy.value, -group[1].total))

    @property
    def share(self) -> float:
        """Pictures of a fold over those of the others."""
        return 1 / (self.folds - 1)

    @property
    def no_spread(self) -> bool:
        """Whether a model had the same accuracy in all fits, so that its spread is unknown."""
        return any(np.ptp(model.fits["accuracy"]) == 0 for model in self.models if model.fits)

    @cached_property
    def pairs(self) -> list[Pair]:
        """The differences in accuracy between all pairs of models; empty without cross-validation."""
        if not self.folds:
            return []
        return compare_pairs({model.name: model.fits["accuracy"] for model in self.models}, self.share)

    @cached_property
    def effects(self) -> list[Effect]:
        """The effect of each factor on accuracy; empty without cross-validation, and for configs.

        Models of configs may differ in any setting, not in these factors alone.
        """
        if not self.folds or self.of_configs:
            return []
        scores = [model.fits["accuracy"] for model in self.models]
        return factor_effects([model.record.levels for model in self.models], scores, self.share)

    @cached_property
    def not_worse(self) -> dict[str, list[bool]]:
        """For each metric, which models are not shown to be worse than the best; all without cross-validation.

        The test is the corrected resampled t-test against the best, with Holm's correction over the others.
        """
        if not self.folds:
            return {metric.key: [True] * len(self.models) for metric in self.metrics}
        return {
            metric.key: not_worse_than_best(
                [m.fits[metric.key] for m in self.models], self.share, metric.more_is_better
            )
            if metric.key in self.models[0].fits
            else [True] * len(self.models)
            for metric in self.metrics
        }

    @cached_property
    def factors(self) -> list[str]:
        """The factors with more than one level in this comparison; none for configs."""
        if self.of_configs:
            return []
        levels = [model.record.levels for model in self.models]
        return [factor for factor in FACTORS if len({level[factor] for level in levels}) > 1]

    def _model(self, record: Record) -> ModelSummary:
        test = self._values(record.test)
        right, total, accuracy, _ = _tested(record.test)
        fits = {}
        if self.left_out:
            fits = {"accuracy": group_shares([right_of(fold) for fold in record.folds], list(map(_size, record.folds)))}
            whole = self._values(pooled(record.folds))
            estimates = {key: Estimate(value, np.nan, np.nan) for key, value in whole.items()}
            estimates["accuracy"] = resampled_share(fits["accuracy"], self.share)
        elif record.folds:
            values = [self._values(outcome) for outcome in record.folds]
            fits = {metric.key: np.array([value[metric.key] for value in values]) for metric in self.metrics}
            estimates = {
                metric.key: resampled_share(fits[metric.key], self.share, metric.bounded) for metric in self.metrics
            }
        else:
            estimates = {key: Estimate(value, np.nan, np.nan) for key, value in test.items()} | {"accuracy": accuracy}
        if fits and estimates["accuracy"].value in (0.0, 1.0):
            estimates["accuracy"] = exact_interval(round(estimates["accuracy"].value) * self.groups, self.groups)
        name = self.comparison.names[record.model.name]
        named = {test_set: _tested(outcome) for test_set, outcome in record.named.items()}
        return ModelSummary(record, right, total, accuracy, test, fits, estimates, name, named)

    def _values(self, outcome: Outcome) -> dict[str, float]:
        from sklearn.metrics import log_loss

        names = self.comparison.class_names
        probabilities = outcome.probabilities / outcome.probabilities.sum(axis=1, keepdims=True)
        measured = measure(torch.from_numpy(probabilities), torch.from_numpy(outcome.labels), names)
        values = {key: float(value) for key, value in single_values(measured, names).items()}
        values["log_loss"] = float(log_loss(outcome.labels, probabilities, labels=range(len(names))))
        return values


def rank(accuracy: float, log_loss: float) -> tuple[float, float]:
    """The key that sorts models, best first. Rounded, because equal means may differ in their last bits."""
    return -round(accuracy, 9), log_loss


def right_of(outcome: Outcome) -> int:
    """The number of right answers."""
    return int(confusion_counts([outcome], outcome.probabilities.shape[1]).trace())


def _tested(outcome: Outcome) -> Tested:
    counts = confusion_counts([outcome], outcome.probabilities.shape[1])
    by_class = tuple(zip(counts.diagonal().tolist(), counts.sum(axis=1).tolist(), strict=True))
    right = sum(number for number, _ in by_class)
    return Tested(right, _size(outcome), exact_interval(right, _size(outcome)), by_class)


def _size(outcome: Outcome) -> int:
    return len(outcome.labels)


def _different(folds: Iterable[Outcome], groups: Iterable[Iterable[str]]) -> int:
    """The number of different pictures in the folds; near-duplicates count as one."""
    group = {path: number for number, paths in enumerate(groups) for path in paths}
    return len({group.get(path, path) for outcome in folds for path in outcome.paths})
