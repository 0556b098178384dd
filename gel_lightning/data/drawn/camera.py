"""What gels and look-alikes share: picture sizes, the photograph and its colours, random numbers, arrays.

All pictures go through one camera, so that neither mode, colour, grain nor brightness tells the classes apart.
"""

from collections.abc import Sequence
from functools import cache
from typing import TypeVar

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageFont, ImageOps

Array = NDArray[np.float64]
Choice = TypeVar("Choice")
SIDES = (250, 700)  # shortest and longest side of a picture, pixels

# Ink for dark, middle and light grey. The first two rows are the greys of cameras and scanners.
Tint = tuple[str, str, str]
UV_TINTS: tuple[Tint, ...] = (
    ("#000000", "#80848c", "#ffffff"),
    ("#050505", "#85827a", "#fffdf8"),
    ("#080200", "#d2581a", "#fff0c0"),  # ethidium bromide through an orange filter
    ("#02060c", "#2f9a48", "#eaffc8"),  # SYBR green
    ("#050828", "#3f62d8", "#f0f8ff"),  # a blue light table
)
PAPER_TINTS: tuple[Tint, ...] = (
    ("#000000", "#80848c", "#ffffff"),
    ("#0a0806", "#8c8578", "#fffdf4"),
    ("#10143c", "#6f80b8", "#f4f6fb"),  # Coomassie blue
    ("#2a1608", "#b08a5c", "#fff8ea"),  # silver
)


def photographed(rng: Generator, grey: Array, tints: Sequence[Tint]) -> Image.Image:
    """A photograph of ``grey`` (height, width; 0 to 1): uneven light, grain, blur, and sometimes a tint."""
    height, width = grey.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    light = 1 - rng.uniform(0, 0.25) * (x**2 + y**2) / 2 + rng.uniform(-0.1, 0.1) * x
    grain = rng.choice([0.6, 1.5, 4]) * (0.4 + np.sqrt(np.maximum(grey, 0))) * rng.standard_normal(grey.shape)
    values = np.clip(255 * grey * light + grain, 0, 255).astype(np.uint8)
    picture = Image.fromarray(values).filter(ImageFilter.GaussianBlur(rng.uniform(0, 1)))
    if rng.random() < 0.35:
        return picture
    dark, middle, bright = one_of(rng, tints[:2] if rng.random() < 0.5 else tints)
    return ImageOps.colorize(picture, dark, bright, middle)


def picture_size(rng: Generator) -> tuple[int, int]:
    """A random width and height in pixels; gels are cropped to all shapes."""
    shape, area = np.exp(rng.normal(0.05, 0.3)), rng.uniform(300, 520) ** 2
    width, height = np.clip([np.sqrt(area * shape), np.sqrt(area / shape)], *SIDES)
    return int(width), int(height)


def log_uniform(rng: Generator, low: float, high: float) -> float:
    """A random number whose logarithm is uniform."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def one_of(rng: Generator, choices: Sequence[Choice]) -> Choice:
    """A random item."""
    return choices[int(rng.integers(len(choices)))]


def smooth_noise(rng: Generator, height: int, width: int, hills: int) -> Array:
    """Smooth random values (height, width), about -1 to 1, with at most ``hills`` hills along each side."""
    coarse = rng.uniform(-1, 1, (min(hills, height), min(hills, width))).astype(np.float32)
    return to_array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), white=1)


def blurred(field: Array, pixels: int) -> Array:
    """``field`` (height, width) without detail finer than ``pixels``: shrunk and enlarged again."""
    picture = Image.fromarray(field.astype(np.float32))
    small = picture.resize((picture.width // pixels, picture.height // pixels), Image.Resampling.BOX)
    return to_array(small.resize(picture.size, Image.Resampling.BICUBIC), white=1)


def to_array(picture: Image.Image, white: float = 255) -> Array:
    """The values of a picture, with ``white`` as 1."""
    return np.asarray(picture, dtype=np.float64) / white


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
