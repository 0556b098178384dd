"""Statistics of a comparison: intervals, tests, and the effect of each factor.

All functions work on plain numbers. scipy is imported where it is used, because that takes a second.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

CONFIDENCE = 0.95
LEVEL = 1 - CONFIDENCE


class Estimate(NamedTuple):
    """A value and the ends of its 95 % interval; NaN if there is none."""

    value: float
    low: float
    high: float


class Difference(NamedTuple):
    """The difference of two values, first minus second, with its 95 % interval and p-value."""

    value: float
    low: float
    high: float
    p: float

    @property
    def shown(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0


class Pair(NamedTuple):
    """Two models, their difference, and its p-value with Holm's correction over all pairs."""

    first: str
    second: str
    difference: Difference
    adjusted: float

    @property
    def shown(self) -> bool:
        """Whether they differ significantly, with all pairs considered."""
        return self.adjusted < LEVEL


class Effect(NamedTuple):
    """Two levels of a factor, and their mean difference over the other factors."""

    factor: str
    first: str
    second: str
    difference: Difference


@cache
def exact_interval(right: int, total: int) -> Estimate:
    """The share of right answers with its exact binomial interval.

    Source: C. J. Clopper and E. S. Pearson, "The use of confidence or fiducial limits illustrated in the case of the
    binomial", Biometrika 26, 1934; as in :func:`scipy.stats.binomtest`.
    """
    from scipy.stats import binomtest

    interval = binomtest(right, total).proportion_ci(CONFIDENCE, method="exact")
    return Estimate(right / total, float(interval.low), float(interval.high))


def resampled(values: ArrayLike, share: float) -> Difference:
    """Estimates the mean of a metric over the fits of a repeated cross-validation, and tests whether it is zero.

    The fits of a cross-validation share training pictures, so their values vary less than those of independent fits,
    and the usual t-test finds differences by chance far too often. The corrected resampled t-test replaces ``1 / fits``
    in the variance of the mean by ``1 / fits + share``.

    The alternative is a paired test over pictures, which takes the trained models as given and asks how they would do
    on other test pictures. Here the question is which way of training is better, on other training pictures too. And
    one test serves all metrics; ROC AUC, F1 and calibration are not means over pictures. The price is that the test is
    somewhat conservative if models hardly depend on their training pictures.

    If all fits have the same nonzero value, no variance can be estimated: the ends are NaN, and p is that of the sign
    test, 2 ** (1 - fits).

    Source: C. Nadeau and Y. Bengio, "Inference for the generalization error", Machine Learning 52, 2003; for repeated
    cross-validation R. R. Bouckaert and E. Frank, "Evaluating the replicability of significance tests for comparing
    learning algorithms", PAKDD 2004.

    Args:
        values: of each fit, [fits]: a metric, or the difference of a metric between two models.
        share: test pictures of a fit per training picture, 1 / (folds - 1).
    """
    from scipy import stats

    values = np.asarray(values, dtype=float)
    mean, fits = float(values.mean()), len(values)
    if fits < 2:
        return Difference(mean, np.nan, np.nan, np.nan)
    if np.ptp(values) < 1e-9:  # equal values may differ in their last bits
        if abs(mean) < 1e-9:
            return Difference(0.0, 0.0, 0.0, 1.0)
        return Difference(mean, np.nan, np.nan, float(stats.binomtest(fits, fits).pvalue))
    spread = float(np.sqrt((1 / fits + share) * values.var(ddof=1)))
    low, high = stats.t.interval(CONFIDENCE, fits - 1, loc=mean, scale=spread)
    return Difference(mean, float(low), float(high), float(2 * stats.t.sf(abs(mean) / spread, fits - 1)))


def group_shares(right: Sequence[int], total: Sequence[int]) -> NDArray[np.float64]:
    """Values of groups whose plain mean and its variance are those of the share of right answers over all pictures.

    Groups are weighted by their pictures. This weighted mean is a ratio of two sums, whose variance equals that of the
    plain mean of these values to first order.

    Source: W. G. Cochran, "Sampling Techniques", 3rd edition 1977, chapter 9A: single-stage cluster sampling with
    clusters of unequal sizes.

    Args:
        right: right answers in each group, [groups].
        total: pictures in each group, [groups].
    """
    shares, sizes = np.asarray(right, dtype=float) / np.asarray(total), np.asarray(total, dtype=float)
    mean = np.average(shares, weights=sizes)
    values: NDArray[np.float64] = mean + sizes / sizes.mean() * (shares - mean)
    return values


def resampled_share(values: ArrayLike, share: float, bounded: bool = True) -> Estimate:
    """Estimates the mean of a metric over fits with :func:`resampled`; no interval if all fits have the same value.

    Args:
        values: of each fit, [fits].
        share: as for :func:`resampled`.
        bounded: whether the metric, and so its interval, is between 0 and 1.
    """
    value, low, high, _ = resampled(values, share)
    if np.ptp(np.asarray(values, dtype=float)) < 1e-9:
        low = high = np.nan
    if bounded:
        low, high = np.clip([low, high], 0, 1)
    return Estimate(value, float(low), float(high))


def compare_pairs(scores: Mapping[str, ArrayLike], share: float) -> list[Pair]:
    """Compares all pairs of models, the better one first.

    Source: S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6,
    1979.

    Args:
        scores: of each model by name, between 0 and 1, for the same fits, [fits].
        share: as for :func:`resampled`.
    """
    values = {name: np.asarray(score, dtype=float) for name, score in scores.items()}
    pairs = []
    for one, other in combinations(values, 2):
        first, second = (one, other) if values[one].mean() >= values[other].mean() else (other, one)
        pairs.append((first, second, _of_shares(values[first] - values[second], share)))
    adjusted = _holm([pair[2].p for pair in pairs])
    return [Pair(*pair, float(p)) for pair, p in zip(pairs, adjusted, strict=True)]


def not_worse_than_best(scores: Sequence[ArrayLike], share: float, more_is_better: bool) -> list[bool]:
    """Finds which models are not shown to be worse than the best, by the tests of :func:`compare_pairs`.

    Args:
        scores: a metric of each model for the same fits, [models, fits].
        share: as for :func:`resampled`.
        more_is_better: whether the best has the highest mean.
    """
    values = np.asarray(scores, dtype=float) * (1 if more_is_better else -1)
    best = values[values.mean(axis=1).argmax()]
    others = [place for place, one in enumerate(values) if one is not best and not np.array_equal(one, best)]
    alike = [True] * len(values)
    adjusted = _holm([resampled(best - values[place], share).p for place in others])
    for place, p in zip(others, adjusted, strict=True):
        alike[place] = bool(p >= LEVEL)
    return alike


def _holm(tests: Sequence[float]) -> NDArray[np.float64]:
    """The p-values with Holm's correction. statsmodels' own runs the garbage collector each time."""
    p = np.nan_to_num(tests, nan=1.0)  # a single fit shows no difference
    order = p.argsort()
    adjusted = np.empty(len(p))
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return adjusted


def factor_effects(levels: Sequence[Mapping[str, str]], scores: Sequence[ArrayLike], share: float) -> list[Effect]:
    """Finds the effect of each factor: the mean difference between models that differ in nothing else.

    Args:
        levels: the level of each factor, for each model, [models].
        scores: of each model, between 0 and 1, for the same fits, [models, fits].
        share: as for :func:`resampled`.

    Returns:
        One effect for each pair of levels in which some models differ alone, the better level first.
    """
    values = np.asarray(scores, dtype=float)
    effects = []
    for factor in levels[0] if levels else ():
        others = [tuple(level for name, level in model.items() if name != factor) for model in levels]
        named = [model[factor] for model in levels]
        for one, other in combinations(dict.fromkeys(named), 2):
            differences = [
                values[i] - values[j]
                for i, j in np.ndindex(len(levels), len(levels))
                if (named[i], named[j]) == (one, other) and others[i] == others[j]
            ]
            if not differences:
                continue
            difference: NDArray[np.float64] = np.mean(differences, axis=0)
            if difference.mean() < 0:
                one, other, difference = other, one, -difference
            effects.append(Effect(factor, one, other, _of_shares(difference, share)))
    return effects


def _of_shares(differences: NDArray[np.float64], share: float) -> Difference:
    """The difference of shares, which is at most 1."""
    value, low, high, p = resampled(differences, share)
    return Difference(value, float(max(low, -1.0)), float(min(high, 1.0)), p)
