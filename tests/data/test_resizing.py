import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from gel_lightning.data import resizing
from gel_lightning.data.resizing import resized


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (200, 160), (333, 1000), (16, 3000)])
@pytest.mark.parametrize("strip", [2**22, 1000])
def test_as_torch_resizes_with_antialiasing(size, strip, monkeypatch):
    monkeypatch.setattr(resizing, "_STRIP", strip)
    values = np.random.default_rng(0).integers(0, 256, size[::-1], dtype=np.uint8)
    found = resized(Image.fromarray(values), 64)
    assert found.shape == (64, 64)
    assert found.dtype == np.float32
    picture = torch.from_numpy(values)[None, None].float()
    expected = functional.interpolate(picture, (64, 64), mode="bilinear", antialias=True)[0, 0] / 255
    np.testing.assert_allclose(found, expected.numpy(), atol=2e-5)


def test_not_rounded_and_not_changed_where_the_size_is_right():
    values = np.arange(64 * 64, dtype=np.uint32).reshape(64, 64).astype(np.uint8)
    np.testing.assert_array_equal(resized(Image.fromarray(values), 64), values / np.float32(255))
    halves = resized(Image.fromarray(values), 32) * 255
    assert (np.abs(halves - np.rint(halves)) > 0.1).any()
