"""Heat maps by occlusion, of models whose answer rests on a known place."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from test_exported import tiny

from gel_lightning.inference.explain import heat_map
from gel_lightning.inference.exported import ExportedModel


class Corner:
    """A model to which a picture is a gel the more white there is in its upper left quarter."""

    class_names = ("gel", "not_gel", "other")

    def __init__(self, strength: float = 6.0, image_size: int = 60) -> None:
        self.strength, self.image_size = strength, image_size
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        assert pictures.dtype == np.uint8
        self.shapes.append(pictures.shape)
        side = pictures.shape[-1] // 2
        white = pictures[:, 0, :side, :side].mean(axis=(1, 2)) / 255
        scores = np.stack([self.strength * (white - 0.5), 0 * white, 0 * white], axis=1)
        shares = np.exp(scores)
        return (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)


def white_corner(size: tuple[int, int] = (90, 60)) -> Image.Image:
    """Black but for its upper left quarter."""
    picture = Image.new("L", size)
    picture.paste(255, (0, 0, size[0] // 2, size[1] // 2))
    return picture


def mapped(model: Any, picture: Image.Image, looked_for: str = "gel") -> NDArray[np.int64]:
    """The heat map, as numbers that can be subtracted."""
    heat = heat_map(model, picture, looked_for)
    assert heat.dtype == np.uint8
    return heat.astype(int)


def test_heat_is_where_the_answer_comes_from() -> None:
    model = Corner()
    heat = mapped(model, white_corner())
    assert heat.shape == (60, 60)
    assert heat[:24, :24].min() > 100
    assert heat[42:].max() == heat[:, 42:].max() == 0
    assert {shape[1:] for shape in model.shapes} == {(1, 60, 60)}
    assert 50 <= sum(shape[0] for shape in model.shapes) <= 100
    assert len(model.shapes) <= 4


def test_what_speaks_against_a_class_has_no_heat() -> None:
    # White speaks against the other classes, and covering black elsewhere changes nothing.
    assert mapped(Corner(), white_corner(), "not_gel").max() == 0


def test_what_hardly_matters_stays_pale() -> None:
    strong, weak, none = (mapped(Corner(strength), white_corner()) for strength in (30, 1, 0))
    assert strong.max() > 200
    assert 0 < weak.max() < 80
    assert none.max() == 0


def test_certain_answers_have_maps_too() -> None:
    # Probabilities of 1 to the last bit, whose log-odds would be infinite.
    heat = mapped(Corner(500), white_corner())
    assert np.isfinite(heat).all()


def test_it_works_with_an_exported_file_and_any_picture(tmp_path: Path) -> None:
    model = ExportedModel(tiny(tmp_path / "m.onnx", image_size="32"))  # the share of white
    dark = Image.new("L", (400, 30))
    dark.paste(255, (0, 0, 100, 30))
    heat = mapped(model, dark)
    assert heat.shape == (32, 32)
    assert heat[:, :8].mean() > heat[:, 16:].mean() + 20
    assert mapped(model, Image.new("L", (1, 1), 9)).max() == 0  # plain grey covered with itself


def test_an_unknown_class_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="not in"):
        mapped(Corner(), white_corner(), "horse")
