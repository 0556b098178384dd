import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from scipy.sparse.csgraph import connected_components

from gel_lightning.core.errors import GelError
from gel_lightning.data import duplicates, reading
from gel_lightning.data.duplicates import HASHES, hash_pictures, near_duplicate_groups, picture_hashes, repeated_groups
from gel_lightning.data.folders import read_class_folders
from gel_lightning.data.images import PictureError


def save_noise(path, seed, size=(64, 48)):
    values = np.random.default_rng(seed).integers(0, 255, (9, 9), dtype=np.uint8)
    Image.fromarray(values).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


def distances(hashes):
    return np.array([[(int(a) ^ int(b)).bit_count() for b in hashes] for a in hashes])


class TestPictureHashes:
    def test_same_picture_in_other_forms(self, tmp_path):
        paths = [
            save_noise(tmp_path / "a.png", 0),
            save_noise(tmp_path / "a.jpg", 0),
            save_noise(tmp_path / "a.bmp", 0, size=(128, 96)),
            save_noise(tmp_path / "b.png", 1),
        ]
        dim = np.asarray(Image.open(paths[0])) // 2 + 30
        Image.fromarray(dim.astype(np.uint8)).save(tmp_path / "dim.png")
        hashes = picture_hashes(hash_pictures([*paths, tmp_path / "dim.png"]))
        assert hashes.dtype == np.uint64
        hashes = hashes[:, 0]
        assert (distances(hashes)[0, [0, 1, 2, 4]] <= 4).all()
        assert distances(hashes)[0, 3] > 15

    def test_in_the_order_of_the_paths(self, tmp_path):
        paths = [save_noise(tmp_path / f"{seed}.png", seed) for seed in range(12)]
        alone = [hash_pictures([path])[0] for path in paths]
        assert hash_pictures(paths) == alone
        assert hash_pictures(paths[::-1]) == alone[::-1]

    def test_every_unreadable_picture_is_named_in_one_line(self, tmp_path):
        (tmp_path / "empty.png").touch()
        (tmp_path / "text.png").write_text("text")
        good = save_noise(tmp_path / "good.png", 0)
        paths = [tmp_path / "empty.png", good, tmp_path / "text.png", tmp_path / "gone.png"]
        with pytest.raises(GelError, match=r"^3 pictures cannot be read: .*; remove or replace them$") as caught:
            picture_hashes(hash_pictures(paths))
        for name in ("empty.png: is empty", "text.png: is not", "gone.png: cannot"):
            assert name in str(caught.value)
        assert "\n" not in str(caught.value)
        with pytest.raises(GelError, match=r"^1 picture cannot be read: .*; remove or replace it$"):
            picture_hashes(hash_pictures(paths[:2]))

        results = hash_pictures(paths)
        assert [isinstance(result, PictureError) for result in results] == [True, False, True, True]
        assert results[1] == tuple(picture_hashes(hash_pictures([good]))[0])

    def test_no_pictures(self):
        assert picture_hashes(hash_pictures([])).shape == (0, HASHES)

    @pytest.mark.parametrize(("many", "terminal", "is_shown"), [(3, 1, True), (4, 1, False), (3, 0, False)])
    def test_progress_of_many_pictures_on_a_terminal(self, tmp_path, monkeypatch, capsys, many, terminal, is_shown):
        monkeypatch.setattr(reading, "MANY_PICTURES", many)
        monkeypatch.setattr("rich.console.Console.is_terminal", bool(terminal))
        picture_hashes(hash_pictures([save_noise(tmp_path / f"{seed}.png", seed) for seed in range(4)]))
        output = capsys.readouterr()
        assert output.out == ""
        assert ("Reading pictures" in output.err) == is_shown
        assert is_shown or output.err == ""

    @pytest.mark.parametrize("inverted", [False, True])
    @pytest.mark.parametrize("turn", [None, *Image.Transpose])
    def test_copies_are_near_identical(self, tmp_path, turn, inverted):
        picture = Image.open(save_noise(tmp_path / "a.png", 0, size=(300, 200)))
        copy = picture if turn is None else picture.transpose(turn)
        copy = ImageOps.invert(copy) if inverted else copy
        copy.resize((copy.width // 2, copy.height // 2)).save(tmp_path / "copy.jpg", quality=70)
        paths = [tmp_path / "a.png", tmp_path / "copy.jpg", save_noise(tmp_path / "other.png", 1)]
        assert repeated_groups(near_duplicate_groups(picture_hashes(hash_pictures(paths)))) == [[0, 1]]

    def test_blank_pictures_are_near_identical(self, tmp_path):
        for value in (0, 100, 255):
            Image.new("L", (50, 40), value).save(tmp_path / f"{value}.png")
        hashes = picture_hashes(hash_pictures(sorted(tmp_path.iterdir())))
        assert len(set(near_duplicate_groups(hashes))) == 1


class TestNearDuplicateGroups:
    def test_groups_are_chains_of_pairs(self):
        hashes = np.array([0, 0b1111, 0b11111111, 1 << 63, 0xFFFF << 20, 0xFFFF << 20], np.uint64)
        groups = near_duplicate_groups(hashes)
        assert groups[0] == groups[1] == groups[2] == groups[3]
        assert groups[4] == groups[5] != groups[0]
        assert len(set(near_duplicate_groups(hashes, max_distance=0))) == 5
        assert len(set(near_duplicate_groups(hashes, max_distance=64))) == 1

    @settings(max_examples=100, deadline=None)
    @given(
        centres=st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4),
        flips=st.lists(st.tuples(st.integers(0, 3), st.sets(st.integers(0, 63), max_size=5)), max_size=30),
        max_distance=st.integers(0, 8),
    )
    def test_as_by_comparing_all_pairs(self, centres, flips, max_distance):
        hashes = np.array(
            [centres[index % len(centres)] ^ sum(1 << bit for bit in bits) for index, bits in flips], np.uint64
        )
        groups = near_duplicate_groups(hashes, max_distance)
        assert groups.shape == hashes.shape
        if len(hashes):
            count, expected = connected_components(distances(hashes) <= max_distance, directed=False)
            assert sorted(set(groups.tolist())) == list(range(count))
            assert ((groups[:, None] == groups) == (expected[:, None] == expected)).all()

    @settings(max_examples=50, deadline=None)
    @given(
        centres=st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=3),
        flips=st.lists(
            st.lists(st.tuples(st.integers(0, 2), st.sets(st.integers(0, 63), max_size=3)), min_size=3, max_size=3),
            max_size=12,
        ),
        max_distance=st.integers(0, 5),
    )
    def test_copies_as_by_comparing_all_pairs(self, centres, flips, max_distance):
        hashes = np.array(
            [[centres[i % len(centres)] ^ sum(1 << bit for bit in bits) for i, bits in row] for row in flips], np.uint64
        ).reshape(-1, 3)
        # Of pictures with the same hash of their own, one stands for all.
        _, first = np.unique(hashes[:, 0], return_index=True)
        hashes = hashes[first]
        groups = near_duplicate_groups(hashes, max_distance)
        if len(hashes):
            near = [
                [any((int(a[0]) ^ int(one)).bit_count() <= max_distance for one in b) for b in hashes] for a in hashes
            ]
            _, expected = connected_components(np.array(near), directed=False)
            assert ((groups[:, None] == groups) == (expected[:, None] == expected)).all()

    @pytest.mark.parametrize("rows_at_once", [1, 7])
    def test_in_many_parts(self, monkeypatch, rows_at_once):
        rng = np.random.default_rng(0)
        hashes = rng.integers(0, 2**64, 50, dtype=np.uint64)
        hashes = rng.permutation(np.concatenate([hashes, hashes ^ np.uint64(0b1001)]))
        whole = near_duplicate_groups(hashes)
        monkeypatch.setattr(duplicates, "MAX_PAIRS", 100 * rows_at_once - 1)
        np.testing.assert_array_equal(near_duplicate_groups(hashes), whole)
        assert (np.bincount(whole) == 2).all()

    def test_copies_in_many_parts(self, monkeypatch):
        hashes = np.random.default_rng(0).integers(0, 2**64, (40, 16), dtype=np.uint64)
        hashes[20:, 5] = hashes[:20, 0] ^ np.uint64(0b1001)
        monkeypatch.setattr(duplicates, "MAX_PAIRS", 3)
        groups = near_duplicate_groups(hashes)
        np.testing.assert_array_equal(groups[:20], groups[20:])
        assert len(set(groups.tolist())) == 20

    def test_many_pictures(self):
        hashes = np.random.default_rng(0).integers(0, 2**64, 5_000, dtype=np.uint64)
        groups = near_duplicate_groups(np.concatenate([hashes, hashes ^ np.uint64(1 << 40), hashes]))
        np.testing.assert_array_equal(groups, np.tile(groups[:5_000], 3))
        assert len(set(groups.tolist())) == 5_000


@given(groups=st.lists(st.integers(0, 8), max_size=30))
def test_repeated_groups_are_those_of_two_or_more(groups):
    found = repeated_groups(np.array(groups, int))
    assert found == repeated_groups(groups)
    assert sorted(i for group in found for i in group) == [
        i for i, group in enumerate(groups) if groups.count(group) > 1
    ]
    for group in found:
        assert group == sorted(group)
        assert len(group) == groups.count(groups[group[0]])
        assert len({groups[i] for i in group}) == 1
    assert [group[0] for group in found] == sorted(group[0] for group in found)
    assert all(type(i) is int for group in found for i in group)


def test_slow_libraries_are_loaded_only_when_used():
    imports = [line for line in inspect.getsource(duplicates).splitlines() if line.startswith(("import", "from"))]
    assert not any(name in line for line in imports for name in ("sklearn", "scipy", "imagehash"))


@pytest.mark.real
class TestRealPictures:
    def test_the_pairs_of_the_original_data_set(self, shared):
        pictures = read_class_folders(shared / "gel" / "dataset")
        groups = near_duplicate_groups(picture_hashes(hash_pictures(pictures.paths)))
        sizes = np.bincount(groups)
        assert sorted(sizes[sizes > 1]) == [2] * 19  # each looked at: the same gel twice
        pairs = {
            frozenset(path.stem for path, group in zip(pictures.paths, groups, strict=True) if group == number)
            for number in np.flatnonzero(sizes > 1)
        }
        assert {frozenset({"gel_1", "gel_11"}), frozenset({"gel_26", "gel_40"})} <= pairs

    def test_pictures_of_other_labs_are_all_different(self, shared):
        paths = [path for name in ("dataset", "other_labs") for path in read_class_folders(shared / "gel" / name).paths]
        hashes = picture_hashes(hash_pictures(paths))
        assert len(set(near_duplicate_groups(hashes[:, 0], max_distance=12))) == 138 - 19
        assert len(set(near_duplicate_groups(hashes))) == 138 - 19
