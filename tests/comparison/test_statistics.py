from itertools import product
from math import atan, nan, pi, sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from gel_lightning.comparison.statistics import (
    LEVEL,
    Difference,
    compare_pairs,
    exact_interval,
    factor_effects,
    resampled,
    resampled_share,
)

Array = NDArray[Any]
SHARE = 1 / 4  # of 5 folds
FACTORS = ("backbone", "head", "optimizer")


# One share of right answers


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [
        # What is published of the best result of the original study, and the usual tables of C. J. Clopper and
        # E. S. Pearson's limits.
        (21, 22, 0.772, 0.999),
        (0, 10, 0.0, 0.308),
        (10, 10, 0.692, 1.0),
        (5, 10, 0.187, 0.813),
        (1, 20, 0.001, 0.249),
        (0, 1, 0.0, 0.975),
    ],
)
def test_exact_intervals_are_the_published_ones(right: int, total: int, low: float, high: float) -> None:
    found = exact_interval(right, total)
    assert found.value == right / total
    assert (round(found.low, 3), round(found.high, 3)) == (low, high)


@pytest.mark.parametrize("total", [1, 5, 22, 92])
def test_an_exact_interval_holds_the_truth_in_95_of_100_cases_or_more(total: int) -> None:
    """Not simulated: the probability of each number of right answers is known."""
    ends = np.array([exact_interval(right, total)[1:] for right in range(total + 1)])
    truth = np.linspace(0.001, 0.999, 999)
    chance = stats.binom.pmf(np.arange(total + 1)[:, None], total, truth)
    coverage = (chance * ((ends[:, :1] <= truth) & (truth <= ends[:, 1:]))).sum(axis=0)
    assert coverage.min() >= 0.95
    missed = (chance * (ends[:, 1:] < truth)).sum(axis=0), (chance * (ends[:, :1] > truth)).sum(axis=0)
    assert max(map(np.max, missed)) <= 0.025 + 1e-9  # on each side
    assert total < 22 or coverage.min() < 0.97, "wider than need be"


# The mean over the fits of a cross-validation


def test_resampled_is_what_a_hand_computes() -> None:
    # Mean 2, variance (0 + 4 + 4 + 0) / 3, times 1 / 4 + 1 / 3: 14 / 9. Three degrees of freedom, of which the
    # t-distribution has a closed form, and 95 % of it lie within 3.182446.
    t = 2 / sqrt(14 / 9)
    p = 1 - 2 / pi * (t / sqrt(3) / (1 + t**2 / 3) + atan(t / sqrt(3)))
    found = resampled([2, 4, 0, 2], 1 / 3)
    assert found.value == 2
    assert found.low == pytest.approx(2 - 3.182446 * sqrt(14 / 9), abs=1e-5)
    assert found.high == pytest.approx(2 + 3.182446 * sqrt(14 / 9), abs=1e-5)
    assert found.p == pytest.approx(p, rel=1e-9)
    assert not found.shown
    assert resampled([-2, -4, 0, -2], 1 / 3) == pytest.approx((-2, -found.high, -found.low, found.p))


@given(
    values=st.lists(st.floats(-1, 1, allow_subnormal=False), min_size=2, max_size=20).filter(
        lambda v: np.ptp(v) > 1e-3
    ),
    share=st.floats(0, 1),
)
@settings(deadline=None, max_examples=100)
def test_an_interval_leaves_zero_out_exactly_if_p_is_small(values: list[float], share: float) -> None:
    found = resampled(values, share)
    assert found.low < found.value < found.high
    assert found.value - found.low == pytest.approx(found.high - found.value)
    assert found.shown == (found.p < LEVEL)
    assert found == pytest.approx(resampled(values[::-1], share), abs=1e-12)
    # Without the correction it is the t-test of the textbooks, and with it never surer.
    usual = stats.ttest_1samp(values, 0)
    assert resampled(values, 0).p == pytest.approx(usual.pvalue, rel=1e-6, abs=1e-12)
    assert found.p >= usual.pvalue - 1e-12


def test_a_tie_is_no_difference() -> None:
    third = 1 / 3
    for values in ([0.0] * 10, [1e-17, -1e-17, 0.0], [third - (1 - 2 * third), 0.0]):
        found = resampled(values, SHARE)
        assert found == Difference(0.0, 0.0, 0.0, 1.0)
        assert not found.shown


@pytest.mark.parametrize(("fits", "p"), [(2, 1 / 2), (5, 1 / 16), (6, 1 / 32), (50, 2.0**-49)])
def test_the_same_difference_in_all_fits_has_the_p_of_the_sign_test_and_no_interval(fits: int, p: float) -> None:
    for value in (0.1, -0.1):
        found = resampled([value] * fits, SHARE)
        assert found == pytest.approx((value, nan, nan, p), nan_ok=True)
        assert not found.shown


def test_one_fit_alone_shows_nothing() -> None:
    found = resampled([0.4], SHARE)
    assert found == pytest.approx((0.4, nan, nan, nan), nan_ok=True)
    assert not found.shown
    assert resampled_share([0.4], SHARE) == pytest.approx((0.4, nan, nan), nan_ok=True)
    (pair,) = compare_pairs({"a": [0.4], "b": [0.6]}, SHARE)
    assert (pair.first, pair.second, pair.adjusted, pair.shown) == ("b", "a", 1.0, False)


def test_a_figure_that_is_not_a_number_shows_nothing_and_harms_no_other() -> None:
    values = np.linspace(0.5, 0.9, 10)
    found = resampled([*values, nan], SHARE)
    assert np.isnan(found).all()
    assert not found.shown
    assert np.isnan(resampled_share([*values, nan], SHARE)).all()
    scores = {"a": values + 0.3, "b": values * 0.9, "broken": values * nan}
    pairs = {frozenset(pair[:2]): pair for pair in compare_pairs(scores, SHARE)}
    (alone,) = compare_pairs({"a": scores["a"], "b": scores["b"]}, SHARE)
    assert pairs[frozenset("ab")].difference == alone.difference
    assert alone.adjusted < pairs[frozenset("ab")].adjusted < 1
    assert [pair.adjusted for pair in pairs.values() if "broken" in pair[:2]] == [1.0, 1.0]


def test_the_interval_of_a_share_ends_at_0_and_1_and_that_of_a_loss_does_not() -> None:
    near_one, near_zero = [0.8, 1.0, 1.0, 1.0, 1.0], [0.2, 0.0, 0.0, 0.0, 0.0]
    unbounded = resampled(near_one, SHARE)
    assert unbounded.high > 1
    assert resampled_share(near_one, SHARE) == (unbounded.value, unbounded.low, 1.0)
    assert resampled_share(near_zero, SHARE) == pytest.approx((0.04, 0.0, 1 - unbounded.low))
    assert resampled_share(near_one, SHARE, bounded=False) == unbounded[:3]
    assert resampled_share([0.5] * 5, SHARE) == pytest.approx((0.5, nan, nan), nan_ok=True)
    assert resampled_share([0.0] * 5, SHARE) == pytest.approx((0.0, nan, nan), nan_ok=True)


# Simulated: the real thing on made-up pictures, many times


def deal(rng: np.random.Generator, labels: Array, folds: int = 5, repeats: int = 10) -> Array:
    """Which picture each fit is tested on, [fits, pictures]."""
    place = np.empty((repeats, len(labels)), int)
    for row in place:
        for label in (0, 1):
            of_class = rng.permutation(np.flatnonzero(labels == label))
            row[of_class] = np.arange(len(of_class)) % folds
    return (place[:, None] == np.arange(folds)[:, None]).reshape(-1, len(labels))


def accuracies(features: Array, labels: Array, tests: Array) -> Array:
    """The accuracy of each fit of the nearest centroid, which has no luck of its own, [fits]."""
    means = []
    for label in (0, 1):
        trained = ~tests & (labels == label)
        means.append(trained @ features / trained.sum(axis=1, keepdims=True))
    middle = ((means[1] ** 2).sum(axis=1) - (means[0] ** 2).sum(axis=1)) / 2
    taken_for_1 = (features @ (means[1] - means[0]).T > middle).T
    right = taken_for_1 == (labels == 1)
    return (right & tests).sum(axis=1) / tests.sum(axis=1)


def cross_validated(seed: int, distances: list[float], features: int = 4, per_class: int = 46) -> list[Array]:
    """The accuracies of learners that see other features of the same pictures, of classes at some distances."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], per_class)
    pictures = rng.normal(size=(len(distances), len(labels), features))
    pictures[:, labels == 1] += np.array(distances)[:, None, None]
    tests = deal(rng, labels)
    return [accuracies(own, labels, tests) for own in pictures]


@pytest.mark.parametrize(("distance", "features"), [(0.5, 4), (0.35, 20)])
def test_equal_learners_differ_in_5_of_100_comparisons_and_uncorrected_in_half_of_them(
    distance: float, features: int
) -> None:
    runs = 600
    corrected = usual = 0
    for seed in range(runs):
        one, other = cross_validated(seed, [distance, distance], features)
        corrected += resampled(one - other, SHARE).shown
        usual += resampled(one - other, 0).shown
    # Were it 5 of 100, fewer than 1 or more than 8 would be found once in a thousand times.
    assert stats.binom.cdf(0.01 * runs, runs, 0.05) + stats.binom.sf(0.08 * runs, runs, 0.05) < 0.001
    assert 0.01 * runs < corrected < 0.08 * runs
    assert usual > 0.4 * runs


def test_of_many_equal_learners_hardly_ever_any_two_differ() -> None:
    runs, false_alarms, uncorrected, effects = 500, 0, 0, 0
    levels = [dict(zip(FACTORS, level, strict=True)) for level in product("ab", repeat=3)]
    for seed in range(runs):
        scores = cross_validated(seed, [0.5] * 8)
        pairs = compare_pairs(dict(zip("abcdefgh", scores, strict=True)), SHARE)
        assert len(pairs) == 28
        false_alarms += any(pair.shown for pair in pairs)
        uncorrected += any(pair.difference.shown for pair in pairs)
        effects += sum(effect.difference.shown for effect in factor_effects(levels, scores, SHARE))
    assert stats.binom.sf(0.08 * runs, runs, 0.05) < 0.002
    assert false_alarms < 0.08 * runs
    assert uncorrected > 0.2 * runs, "Holm's correction would not be needed"
    assert 0.01 * 3 * runs < effects < 0.08 * 3 * runs


def test_a_clear_winner_is_found_among_many() -> None:
    for seed in range(20):
        scores = dict(zip("abcdefgh", cross_validated(seed, [0.4] * 5 + [2.0] + [0.4] * 2), strict=True))
        found = {(pair.first, pair.second) for pair in compare_pairs(scores, SHARE) if pair.shown}
        assert {pair for pair in found if "f" in pair} == {("f", other) for other in "abcdegh"}


# Pairs


def test_pairs_have_the_better_one_first_and_holms_correction() -> None:
    rng = np.random.default_rng(0)
    scores = {
        name: 0.7 + skill + rng.normal(0, 0.08, 50) for name, skill in zip("abcd", (0, 0.2, 0.14, 0.02), strict=True)
    }
    pairs = compare_pairs(scores, SHARE)
    assert {frozenset(pair[:2]) for pair in pairs} == {frozenset(pair) for pair in ("ab", "ac", "ad", "bc", "bd", "cd")}
    for pair in pairs:
        assert pair.difference == resampled(scores[pair.first] - scores[pair.second], SHARE)
        assert pair.difference.value == pytest.approx(scores[pair.first].mean() - scores[pair.second].mean())
        assert pair.difference.value >= 0
        assert pair.shown == (pair.adjusted < 0.05)
    # By hand: the smallest p times 6, the next times 5, and so on, and never below the one before.
    expected, least = {}, 0.0
    for place, pair in enumerate(sorted(pairs, key=lambda pair: pair.difference.p)):
        least = expected[pair[:2]] = min(1.0, max(least, pair.difference.p * (6 - place)))
    assert {pair[:2]: pair.adjusted for pair in pairs} == pytest.approx(expected)
    assert 0 < sum(pair.shown for pair in pairs) < 6

    turned = compare_pairs(dict(reversed(scores.items())), SHARE)
    assert sorted(turned) == sorted(pairs)


def test_a_pair_of_equals_keeps_its_order_and_one_model_has_none() -> None:
    (pair,) = compare_pairs({"b": [0.5, 0.6], "a": [0.5, 0.6]}, SHARE)
    assert (pair.first, pair.second) == ("b", "a")
    assert pair.difference == Difference(0.0, 0.0, 0.0, 1.0)
    assert (pair.adjusted, pair.shown) == (1.0, False)
    assert compare_pairs({"a": [0.5, 0.6]}, SHARE) == compare_pairs({}, SHARE) == []


# Factors


def made_up_grid(*levels: tuple[str, ...]) -> tuple[list[dict[str, str]], Array]:
    """All models of some levels, and scores in which a level is worth a tenth of its digit, and chance little."""
    models = [dict(zip(FACTORS, level, strict=True)) for level in product(*levels)]
    worth = np.array([sum(float(level[-1]) for level in model.values()) / 10 for model in models])
    return models, worth[:, None] + np.random.default_rng(1).normal(0, 0.02, (len(models), 10))


def found(models: list[dict[str, str]], scores: Array) -> dict[tuple[str, str, str], Difference]:
    effects = factor_effects(models, scores, SHARE)
    assert len({effect[:3] for effect in effects}) == len(effects)
    return {effect[:3]: effect.difference for effect in effects}


def test_effects_of_a_balanced_grid_are_those_of_the_means_of_levels() -> None:
    models, scores = made_up_grid(("net1", "net2", "net5"), ("head3", "head1"), ("adam0",))
    effects = found(models, scores)
    expected = {
        ("backbone", "net2", "net1"): 0.1,
        ("backbone", "net5", "net1"): 0.4,
        ("backbone", "net5", "net2"): 0.3,
        ("head", "head3", "head1"): 0.2,
    }
    assert effects.keys() == expected.keys(), "a factor of one level has no effect, and the better level comes first"
    for (factor, first, second), difference in effects.items():
        means = [scores[[model[factor] == level for model in models]].mean(axis=0) for level in (first, second)]
        assert difference == pytest.approx(resampled(means[0] - means[1], SHARE))
        assert difference.value == pytest.approx(expected[factor, first, second], abs=0.03)
        assert difference.shown


def test_a_model_that_is_missing_takes_its_counterparts_along() -> None:
    models, scores = made_up_grid(("net1", "net2"), ("head3", "head1"), ("adam0", "sgd4"))
    gone = models.index({"backbone": "net2", "head": "head3", "optimizer": "sgd4"})
    left = [i for i in range(8) if i != gone]
    effects = found([models[i] for i in left], scores[left])
    by_levels = {tuple(model.values()): score for model, score in zip(models, scores, strict=True)}
    pairs = {
        ("backbone", "net2", "net1"): [("head3", "adam0"), ("head1", "adam0"), ("head1", "sgd4")],
        ("head", "head3", "head1"): [("net1", "adam0"), ("net1", "sgd4"), ("net2", "adam0")],
        ("optimizer", "sgd4", "adam0"): [("net1", "head3"), ("net1", "head1"), ("net2", "head1")],
    }
    assert effects.keys() == pairs.keys()
    for (factor, first, second), others in pairs.items():
        place = FACTORS.index(factor)
        differences = []
        for other in others:
            one, two = ([*other[:place], level, *other[place:]] for level in (first, second))
            differences.append(by_levels[tuple(one)] - by_levels[tuple(two)])
        assert effects[factor, first, second] == pytest.approx(resampled(np.mean(differences, axis=0), SHARE))
    # With the means of levels the missing model, the best, would make its levels look worse than they are.
    assert effects["backbone", "net2", "net1"].value == pytest.approx(0.1, abs=0.03)


def test_levels_that_no_two_models_differ_in_alone_have_no_effect() -> None:
    models, scores = made_up_grid(("net1", "net2"), ("head3", "head1"), ("adam0",))
    diagonal = [0, 3]
    assert factor_effects([models[i] for i in diagonal], scores[diagonal], SHARE) == []
    assert factor_effects(models[:1], scores[:1], SHARE) == []
    assert factor_effects([], [], SHARE) == []


@given(order=st.permutations(range(12)))
@settings(deadline=None, max_examples=20)
def test_effects_do_not_depend_on_the_order_of_the_models(order: list[int]) -> None:
    models, scores = made_up_grid(("net1", "net2", "net5"), ("head3", "head1"), ("adam0", "sgd1"))
    expected = found(models, scores)
    effects = found([models[i] for i in order], scores[order])
    assert effects.keys() == expected.keys()
    for key, difference in effects.items():
        assert difference == pytest.approx(expected[key])
