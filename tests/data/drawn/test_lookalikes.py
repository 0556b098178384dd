"""Drawn look-alikes: each kind shows something and is reproducible."""

import numpy as np
import pytest

from gel_lightning.data.drawn.lookalikes import LOOK_ALIKES


@pytest.mark.parametrize("kind", LOOK_ALIKES)
def test_each_kind_of_look_alike_is_drawn(kind: str):
    draw = LOOK_ALIKES[kind]
    one, same, other = (draw(np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert one.mode in {"L", "RGB"}
    assert all(250 <= side <= 700 for side in one.size)
    assert np.asarray(one.convert("L")).std() > 3  # something is to be seen
    assert one.tobytes() == same.tobytes()
    assert one.tobytes() != other.tobytes()
