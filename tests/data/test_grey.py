"""Deep pictures whose range is not that of the gel."""

import numpy as np
import pytest

from gel_lightning.data.grey import grey_of_deep, robust_range

GEL = (np.add.outer(np.arange(160) ** 2, np.arange(200) * 7) % 3000 + 5500).astype(np.uint16)
PLAIN = np.asarray(grey_of_deep(GEL)).astype(int)


def changed(**changes):
    values = GEL.astype(np.float64)
    for place, value in changes.values():
        values[place] = value
    return values


RANDOM = np.random.default_rng(0)
PIXELS = np.unravel_index(RANDOM.choice(GEL.size, 100, replace=False), GEL.shape)
CASES = {
    "one hot pixel": {"a": ((5, 7), 65535)},
    "many hot pixels": {"a": (PIXELS, RANDOM.integers(9000, 65535, 100))},
    "dead pixels": {"a": (PIXELS, 0)},
    "dead row": {"a": (0, 0)},
    "noisy row": {"a": (50, RANDOM.integers(0, 30, 200))},
    "hot column": {"a": ((slice(None), 8), 65535)},
    "dead row and hot column": {"a": (3, 0), "b": ((slice(None), 8), 65535)},
    "border": {"a": (slice(0, 30), 0), "b": (slice(-10, None), 0)},
    "label": {"a": ((slice(0, 20), slice(0, 60)), 65535)},
    "no data": {"a": (slice(100, None), -9999)},
    "least float": {"a": (slice(100, None), np.finfo(np.float32).min)},
    "not finite": {"a": (slice(0, 3), np.nan), "b": (3, np.inf), "c": (4, -np.inf)},
}


@pytest.mark.parametrize("name", CASES)
def test_what_does_not_belong_to_the_gel_does_not_change_it(name):
    values = changed(**CASES[name])
    kept = values == GEL
    assert kept.mean() > 0.5
    grey = np.asarray(grey_of_deep(values)).astype(int)
    assert np.abs(grey - PLAIN)[kept].max() <= 8


def test_a_no_data_value_that_is_told(tmp_path):
    values = changed(a=(slice(0, 159), 7000))
    grey = np.asarray(grey_of_deep(values, no_data=7000))
    assert grey[159].min() < 10 < 245 < grey[159].max()


def test_fine_lines_on_a_blank_page_are_kept():
    page = np.full((100, 100), 60000, np.uint16)
    page[50, 10:90] = 0
    grey = np.asarray(grey_of_deep(page))
    assert set(grey[50, 10:90]) == {0}
    assert grey[0, 0] == 255


def test_two_values():
    page = np.zeros((100, 100), np.uint16)
    page[:, 40:] = 65535
    assert np.unique(grey_of_deep(page)).tolist() == [0, 255]


def test_faint_bands_are_not_taken_for_outliers():
    values = RANDOM.normal(600, 5, (300, 300))
    y, x = np.mgrid[:300, :300]
    values += 3000 * np.exp(-((y - 100) ** 2) / 8 - (x - 150) ** 2 / 200)
    low, high = robust_range(values.ravel())
    assert low == pytest.approx(585, abs=5)
    assert high > 2000  # and not 620, where the noise ends


def test_few_pixels_have_their_whole_range():
    assert robust_range(np.array([3, 900, 7, 65535])) == (3, 65535)
