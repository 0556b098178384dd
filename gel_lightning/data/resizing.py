"""Resizing grey pictures, to the float32 values that networks take and to smaller pictures."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_STRIP = 2**22
"""Pixels that are converted to floats at once: rows are independent while the width is reduced."""


def resized(picture: Image.Image, side: int) -> NDArray[np.float32]:
    """Resizes a picture with an antialiased bilinear filter, in float32 and without rounding.

    torch's ``interpolate(mode="bilinear", antialias=True)`` computes the same, so that an exported network can resize.

    Args:
        picture: of mode ``"L"``.
        side: width and height of the result.

    Returns:
        Values in [0, 1], shape ``[side, side]``.
    """
    width, height = picture.size
    narrow, rows = Image.new("F", (side, height)), max(_STRIP // width, 1)
    for top in range(0, height, rows):
        strip = picture.crop((0, top, width, min(top + rows, height))).convert("F")
        narrow.paste(strip.resize((side, strip.height), Image.Resampling.BILINEAR), (0, top))
    values: NDArray[np.float32] = np.asarray(narrow.resize((side, side), Image.Resampling.BILINEAR)) / np.float32(255)
    return values


def network_input(picture: Image.Image, side: int) -> NDArray[np.float32]:
    """Resizes a grey or RGB picture to what networks take: values in [0, 1], shape ``[1 or 3, side, side]``."""
    return np.stack([resized(band, side) for band in picture.split()])


def pixels(picture: Image.Image) -> NDArray[np.uint8]:
    """The values of a grey or RGB picture, shape ``[1 or 3, H, W]``."""
    values: NDArray[np.uint8] = np.atleast_3d(np.asarray(picture)).transpose(2, 0, 1)
    return values


def shortened(picture: Image.Image, at_least: int) -> Image.Image:
    """Reduces each side of a picture that is at least twice as long as needed by a whole factor, averaging pixels.

    Args:
        picture: of mode ``"L"`` or ``"RGB"``.
        at_least: pixels that each side keeps, if it has that many.
    """
    factors = (max(picture.width // at_least, 1), max(picture.height // at_least, 1))
    return picture.reduce(factors) if max(factors) > 1 else picture
