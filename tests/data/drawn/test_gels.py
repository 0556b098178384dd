"""Drawn gels: where their bands are."""

import numpy as np
import pytest

from gel_lightning.data.drawn import gels
from gel_lightning.data.drawn.samples import DNA_LADDERS


def test_bands_migrate_by_the_logarithm_of_their_size():
    sizes = np.array([10000, 5000, 2500, 1250, 625, 312.5])
    way = gels.migration(sizes, slowest=10000, fastest=312.5)
    steps = np.diff(way)
    assert way[0] == 0
    assert way[-1] == pytest.approx(1)
    assert (steps > 0).all()  # smaller runs farther
    assert (np.diff(steps) > 0).all()  # large ones crowd
    assert steps[-1] / steps[2] < 1.2  # but halving the size is otherwise about the same step
    assert way == pytest.approx((np.arange(6) / 5) ** gels.CROWDING)
    assert gels.migration(48000, slowest=10000, fastest=100) == 0  # stays in the well
    assert gels.migration(sizes / 1000, 10, 0.3125) == pytest.approx(way)  # any unit


def test_the_ladder_is_drawn_where_its_sizes_run():
    rng = np.random.default_rng(1)
    ladder = DNA_LADDERS[2]
    gel = gels._lay_out(rng, 300, 600, ladder, tilt=0)
    stain = gels._stained(rng, gel, [[] for _ in gel.lanes], ladders=[1])
    column = stain[:, int(gel.lanes[1])]
    for size in (0.1, 0.2, 0.3, 0.5):
        place = float(gel.where(size, gel.lanes[1]))
        near = column[int(place) - 8 : int(place) + 9]
        assert abs(int(near.argmax()) - 8) <= 3
        assert near.max() > 5 * near.min()
    assert not stain[:, int(gel.lanes[3])].any()  # an empty lane
