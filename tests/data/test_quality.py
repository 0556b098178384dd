import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import refused
from PIL import Image, ImageFilter

from gel_lightning.data.quality import poor_pictures


def test_each_kind_is_named(tmp_path: Path) -> None:
    sharp = np.random.default_rng(0).integers(0, 256, (200, 300), dtype=np.uint8)
    blobs = Image.fromarray(np.random.default_rng(8).integers(0, 256, (4, 6), dtype=np.uint8))
    pictures = {
        "sharp.png": Image.fromarray(sharp),
        "dark.png": Image.fromarray(sharp // 10),
        "overexposed.png": Image.fromarray(255 - sharp // 100),
        "blurred.png": blobs.resize((300, 200), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(30)),
        "blank.png": Image.new("L", (300, 200), 128),
    }
    for name, picture in pictures.items():
        picture.save(tmp_path / name)
    poor = poor_pictures([tmp_path / name for name in pictures])
    assert tmp_path / "sharp.png" not in poor
    for name in list(pictures)[1:]:
        assert Path(name).stem in poor[tmp_path / name]


def test_pictures_that_cleanvision_cannot_open_are_read_by_our_decoder(tmp_path: Path) -> None:
    import tifffile

    values = np.random.default_rng(0).integers(0, 4000, (60, 60)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "sixteen.tif", np.stack([values] * 2), compression="zlib")
    assert poor_pictures([tmp_path / "sixteen.tif"]) == {}


def test_no_pictures() -> None:
    assert poor_pictures([]) == {}


def test_without_cleanvision_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cleanvision", None)
    assert "gel-lightning[clean]" in refused(lambda: poor_pictures([]))
