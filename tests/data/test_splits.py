import inspect
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gel_lightning.core.errors import GelError
from gel_lightning.data import splits
from gel_lightning.data.splits import stratified_folds, stratified_split


@st.composite
def pictures_in_groups(draw):
    """Labels and groups, each group of one class, each class of at least two groups."""
    classes = draw(st.integers(2, 4))
    sizes = draw(st.lists(st.lists(st.integers(1, 4), min_size=2, max_size=20), min_size=classes, max_size=classes))
    labels, groups = [], []
    for label, group_sizes in enumerate(sizes):
        for size in group_sizes:
            groups += [len(set(groups))] * size
            labels += [label] * size
    order = draw(st.permutations(range(len(labels))))
    return np.array(labels)[order], np.array(groups)[order]


class TestStratifiedSplit:
    @settings(max_examples=150, deadline=None)
    @given(pictures=pictures_in_groups(), fraction=st.floats(0.01, 0.99), seed=st.integers(0, 2**32 - 1))
    def test_properties(self, pictures, fraction, seed):
        labels, groups = pictures
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            kept, held_out = stratified_split(labels, groups, fraction, seed)
        np.testing.assert_array_equal(np.sort(np.concatenate([kept, held_out])), np.arange(len(labels)))
        assert (np.diff(kept) > 0).all()
        assert (np.diff(held_out) > 0).all()
        assert not set(groups[kept]) & set(groups[held_out])
        assert set(labels[kept]) == set(labels[held_out]) == set(labels)
        again = stratified_split(labels, groups, fraction, seed)
        np.testing.assert_array_equal(again[0], kept)
        np.testing.assert_array_equal(again[1], held_out)

    @settings(max_examples=30, deadline=None)
    @given(
        pairs=st.integers(0, 20),
        singles=st.integers(60, 90),
        fraction=st.sampled_from([0.1, 0.2, 0.25, 0.3, 0.5, 0.8]),
        seed=st.integers(0, 1000),
    )
    def test_every_class_in_its_share(self, pairs, singles, fraction, seed):
        labels = np.repeat([0, 1], [2 * pairs + singles, singles])
        groups = np.concatenate([np.repeat(np.arange(pairs), 2), pairs + np.arange(2 * singles)])
        _, held_out = stratified_split(labels, groups, fraction, seed)
        for label in (0, 1):
            share = (labels[held_out] == label).sum() / (labels == label).sum()
            assert share == pytest.approx(fraction, abs=0.06)

    def test_another_seed_is_another_split(self):
        labels = np.repeat([0, 1], 30)
        held_out = {tuple(stratified_split(labels, np.arange(60), 0.2, seed)[1]) for seed in range(10)}
        assert len(held_out) == 10

    def test_same_split_whatever_the_groups_and_classes_are_called(self):
        labels, groups = np.repeat([0, 1], 20), np.arange(40) // 2
        expected = stratified_split(labels, groups, 0.3, 1)
        found = stratified_split(np.array(["gel", "not"])[labels], groups * 7 + 3, 0.3, 1)
        np.testing.assert_array_equal(found[1], expected[1])

    def test_a_group_larger_than_the_part_to_hold_out_is_kept(self):
        labels = np.repeat([0, 1], 100)
        groups = np.concatenate([np.zeros(60, int), np.arange(1, 141)])
        kept, held_out = stratified_split(labels, groups, 0.2, 0)
        assert 0 in groups[kept]
        assert 30 <= len(held_out) <= 40

    def test_a_class_of_one_group(self):
        labels, groups = [0, 0, 0, 1, 1, 1], [0, 1, 2, 3, 3, 3]
        message = r"class {} \(pictures: 3, different ones: 1\) cannot be on both sides of a split: add"
        with pytest.raises(GelError, match=message.format(1)):
            stratified_split(labels, groups, 0.5, 0)
        with pytest.raises(GelError, match=message.format("not_gel")):
            stratified_split(labels, groups, 0.5, 0, class_names=["gel", "not_gel"])

    def test_groups_of_many_classes_never_lose_a_class_unseen(self):
        rng = np.random.default_rng(0)
        failed = 0
        for seed in range(200):
            labels, groups = rng.integers(0, 3, 20), rng.integers(0, 7, 20)
            try:
                kept, held_out = stratified_split(labels, groups, 0.3, seed)
            except GelError:
                failed += 1
            else:
                assert set(labels[kept]) == set(labels[held_out]) == set(labels)
        assert 0 < failed < 100


def in_folds(dealt, values):
    """The values of the pictures of each fold, of all repeats."""
    return [np.asarray(values)[fold].tolist() for folds in dealt for fold in folds]


class TestStratifiedFolds:
    @settings(max_examples=150, deadline=None)
    @given(
        pictures=pictures_in_groups(),
        folds=st.integers(2, 6),
        repeats=st.integers(1, 3),
        seed=st.integers(0, 2**32 - 1),
    )
    def test_properties(self, pictures, folds, repeats, seed):
        labels, groups = pictures
        different = [len(set(groups[labels == label])) for label in sorted(set(labels))]
        if too_few := [number for number in different if number < folds]:
            message = rf"^class \d has {too_few[0]} different pictures, too few for {folds} folds"
            with pytest.raises(GelError, match=message):
                stratified_folds(labels, groups, folds, repeats, seed)
            return
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            dealt = stratified_folds(labels, groups, folds, repeats, seed)
        assert [len(parts) for parts in dealt] == [folds] * repeats
        for parts in dealt:
            np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(len(labels)))
            for fold in parts:
                assert (np.diff(fold) > 0).all()
                assert set(labels[fold]) == set(labels)
                for label in set(labels):
                    of_class = groups[labels == label]
                    share = (labels[fold] == label).sum()
                    # As near to its share as its groups, which cannot be parted, allow.
                    assert abs(share - len(of_class) / folds) <= np.bincount(of_class).max()
            places = np.empty(len(labels), int)
            for number, fold in enumerate(parts):
                places[fold] = number
            assert len(set(zip(groups, places, strict=True))) == len(set(groups)), "a group is in several folds"
        again = stratified_folds(labels, groups, folds, repeats, seed)
        assert in_folds(again, range(len(labels))) == in_folds(dealt, range(len(labels)))

    @pytest.mark.parametrize(("counts", "folds"), [((46, 46), 5), ((37, 20), 4), ((30, 10, 3), 3), ((7, 2), 2)])
    def test_pictures_like_no_other_are_dealt_out_evenly(self, counts, folds):
        labels = np.repeat(range(len(counts)), counts)
        for fold in in_folds(stratified_folds(labels, np.arange(len(labels)), folds, 4, 0), labels):
            for label, count in enumerate(counts):
                assert count // folds <= fold.count(label) <= -(-count // folds)

    def test_repeats_and_seeds_are_all_different(self):
        labels, groups = np.repeat([0, 1], 30), np.arange(60) // 2
        dealt = [
            frozenset(map(tuple, parts)) for seed in range(5) for parts in stratified_folds(labels, groups, 5, 10, seed)
        ]
        folds = [
            tuple(fold)
            for seed in range(5)
            for fold in in_folds(stratified_folds(labels, groups, 5, 10, seed), range(60))
        ]
        assert len(set(dealt)) == 50
        assert len(set(folds)) > 240, "many folds are those of another repeat"

    def test_more_repeats_begin_with_the_same(self):
        labels, groups = np.repeat([0, 1], 30), np.arange(60) // 2
        few, many = (stratified_folds(labels, groups, 5, repeats, 7) for repeats in (2, 5))
        assert in_folds(many[:2], range(60)) == in_folds(few, range(60))

    def test_each_two_pictures_share_a_fold_about_as_often(self):
        """Which groups are together is left to chance: no two of a class always or never are."""
        labels, groups = np.repeat([0, 1], 20), np.arange(40)
        together = np.zeros((40, 40), int)
        for fold in in_folds(stratified_folds(labels, groups, 4, 300, 0), range(40)):
            together[np.ix_(fold, fold)] += 1
        assert (together.diagonal() == 300).all()
        of_class = together[:20, :20][~np.eye(20, dtype=bool)]
        assert of_class.mean() == pytest.approx(300 * 4 / 19)
        assert 30 < of_class.min() < of_class.max() < 100
        assert 40 < together[:20, 20:].min() < together[:20, 20:].max() < 115

    def test_same_folds_whatever_the_groups_and_classes_are_called(self):
        labels, groups = np.repeat([0, 1], 20), np.arange(40) // 2
        expected = stratified_folds(labels, groups, 5, 2, 1)
        found = stratified_folds(np.array(["gel", "not"])[labels], groups * 7 + 3, 5, 2, 1)
        assert in_folds(found, range(40)) == in_folds(expected, range(40))

    @pytest.mark.parametrize(("folds", "repeats"), [(1, 1), (0, 1), (-2, 3), (5, 0), (2, -1)])
    def test_numbers_out_of_range(self, folds, repeats):
        with pytest.raises(
            GelError, match=rf"^{folds} folds, repeated {repeats} times: give 2 folds or more, and 1 rep"
        ):
            stratified_folds([0, 0, 1, 1], [0, 1, 2, 3], folds, repeats, 0)

    def test_a_class_of_too_few_groups(self):
        labels, groups = [0, 0, 0, 1, 1, 1, 1, 1], [0, 1, 2, 3, 3, 4, 4, 4]
        message = "^class {} has 2 different pictures, too few for 3 folds: ask for fewer$"
        with pytest.raises(GelError, match=message.format(1)):
            stratified_folds(labels, groups, 3, 1, 0)
        with pytest.raises(GelError, match=message.format("not_gel")):
            stratified_folds(labels, groups, 3, 1, 0, class_names=["gel", "not_gel"])
        assert len(stratified_folds(labels, groups, 2, 1, 0)[0]) == 2

    def test_groups_of_many_classes_never_lose_a_class_unseen(self):
        rng = np.random.default_rng(0)
        failed = 0
        for seed in range(200):
            labels, groups = rng.integers(0, 3, 20), rng.integers(0, 7, 20)
            try:
                dealt = stratified_folds(labels, groups, 3, 1, seed)
            except GelError:
                failed += 1
            else:
                assert all(set(fold) == set(labels) for fold in in_folds(dealt, labels))
        assert failed < 150


def test_scikit_learn_is_loaded_only_when_used():
    imports = [line for line in inspect.getsource(splits).splitlines() if line.startswith(("import", "from"))]
    assert not any("sklearn" in line for line in imports)
