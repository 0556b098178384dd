"""Decoded pixels of any number type to one 8-bit grey picture."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CLIPPED = 0.001
"""Share of the pixels that is clipped at either end of the range of a deep picture: hot and dead pixels."""

FEW_PIXELS = 1000
"""Below this number of pixels, the whole range of a deep picture is used instead of percentiles."""

_LUMA = (0.299, 0.587, 0.114)  # ITU-R 601-2, as in PIL.Image.Image.convert
_BLOCK = 2**22  # pixels that are scaled at once, to bound the float64 copies
_SAMPLE = 2**24  # at most so many pixels are used to find the range of a picture
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_OPAQUE = [0] * 255 + [255]  # lookup table for Image.point: whether an alpha value is opaque


def converted(picture: Image.Image, mode: str = "L") -> Image.Image:
    """Converts an 8-bit picture of any Pillow mode to ``"L"`` or ``"RGB"``, and a deep grey one to ``"L"``.

    A deep one is scaled by :func:`grey_of_deep`.
    """
    if picture.mode.startswith(("I", "F")):
        return grey_of_deep(np.asarray(picture))
    if picture.mode in ("LAB", "La"):  # Pillow converts these to "L" and "RGBA" only indirectly
        picture = picture.convert({"LAB": "RGB", "La": "LA"}[picture.mode])
    if picture.has_transparency_data:
        return _on_white(picture.convert("RGBA"), mode)
    return picture.convert(mode)


def grey_of_deep(
    colour: NDArray[Any],
    alpha: NDArray[Any] | None = None,
    min_is_white: bool = False,
    no_data: float | None = None,
    multiplied: bool = False,
) -> Image.Image:
    """Scales a picture of more than 8 bits, or of signed or float values, to 8-bit grey by :func:`robust_range`.

    Args:
        colour: grey ``[height, width]`` or RGB ``[height, width, 3]`` of any real number type.
        alpha: opacity, ``[height, width]``; 1.0 or the largest integer is opaque.
        min_is_white: whether the smallest value is white.
        no_data: a value that marks pixels without data.
        multiplied: whether alpha is premultiplied.

    Returns:
        A picture of mode ``"L"``. NaN is black, infinities are black and white.

    Raises:
        ValueError: no pixel has a finite value.
    """
    grey = colour if colour.ndim == 2 else _luma(colour)
    cover = None if alpha is None else _cover(alpha)
    if cover is not None and multiplied:
        grey = grey * (255 / np.maximum(cover, 1, dtype=np.float32))
    low, high = _range(grey, cover, no_data)
    scaled = Image.fromarray(_scaled(grey, low, high, min_is_white))
    return scaled if cover is None else _on_white(Image.merge("LA", [scaled, Image.fromarray(cover)]))


def grey_of_samples(samples: NDArray[Any]) -> Image.Image:
    """Converts interleaved deep samples to grey with :func:`grey_of_deep`.

    Args:
        samples: ``[height, width]``, or with 1 to 4 channels as the last axis: grey, grey and alpha, RGB, RGBA.
    """
    if samples.ndim == 2:
        return grey_of_deep(samples)
    channels = samples.shape[2]
    colour = samples[..., :3] if channels >= 3 else samples[..., 0]
    return grey_of_deep(colour, samples[..., -1] if channels in (2, 4) else None)


def upright(grey: Image.Image, orientation: int) -> Image.Image:
    """Rotates and mirrors a picture according to its EXIF orientation, 1 to 8."""
    transpose = _TRANSPOSE.get(orientation)
    return grey if transpose is None else grey.transpose(transpose)


def _range(grey: NDArray[Any], cover: NDArray[np.uint8] | None, no_data: float | None) -> tuple[float, float]:
    """The values of a picture, [height, width], that become black and white, by :func:`robust_range`.

    Single pixels, rows and columns that differ from both neighbours, as with a damaged sensor, are first removed by a
    median filter of width three; not so in a picture that has only such fine lines.
    """
    step = math.isqrt(grey.size // _SAMPLE) + 1
    sample, cover = grey[::step, ::step], None if cover is None else cover[::step, ::step]
    smooth = _median_of_three(_median_of_three(sample).T).T if sample.size >= FEW_PIXELS else sample
    for picture in (smooth, sample):
        counted = np.isfinite(picture)
        if no_data is not None:
            counted &= picture != no_data
        if cover is not None:
            counted &= cover > 0
        values = picture[counted] if counted.any() else picture[np.isfinite(picture)]
        if values.size:
            low, high = robust_range(values)
            if high > low:
                return low, high
    if not values.size:
        raise ValueError("no pixel has a finite value")
    return float(values.min()), float(values.max())


def _median_of_three(rows: NDArray[Any]) -> NDArray[Any]:
    """Replaces each row except the first and last by the median of it and both neighbours."""
    before, at, after = rows[:-2], rows[1:-1], rows[2:]
    median = np.maximum(np.minimum(before, at), np.minimum(np.maximum(before, at), after))
    return np.concatenate([rows[:1], median, rows[-1:]])


def robust_range(values: NDArray[Any]) -> tuple[float, float]:
    """Finds the values that become black and white.

    These are the percentiles 0.1 and 99.9, so that a few hot or dead pixels do not determine the range. A value at
    either end is also left out, however many pixels have it, if it is further from all others than those are from each
    other: an empty border, a label at full scale, or a marker such as -9999 for missing data.

    Args:
        values: finite values, [n]; below :data:`FEW_PIXELS` of them the whole range is used.

    Returns:
        Low and high.
    """
    n = len(values)
    if n < FEW_PIXELS:
        return float(values.min()), float(values.max())
    first, last = int(CLIPPED * (n - 1)), math.ceil((1 - CLIPPED) * (n - 1))
    ordered = np.partition(values, [first, last])
    low, high = ordered[first], ordered[last]
    inside = values[(values > low) & (values < high)]
    if len(inside) >= max(FEW_PIXELS, n // 100):
        inner_low, inner_high = float(inside.min()), float(inside.max())
        too_low = float(low) if inner_low - float(low) > inner_high - inner_low > 0 else -math.inf
        too_high = float(high) if float(high) - inner_high > inner_high - inner_low > 0 else math.inf
        if too_low > -math.inf or too_high < math.inf:
            return robust_range(values[(values > too_low) & (values < too_high)])
    return float(low), float(high)


def _luma(colour: NDArray[Any]) -> NDArray[Any]:
    """The luma of RGB, computed channel by channel to save memory."""
    factors = np.asarray(_LUMA, np.float32 if colour.dtype.itemsize <= 2 else np.float64)
    luma: NDArray[Any] = colour[..., 0] * factors[0]
    for channel in (1, 2):
        luma += colour[..., channel] * factors[channel]
    return luma


def _cover(alpha: NDArray[Any]) -> NDArray[np.uint8] | None:
    """Opacity from 0 to 255; None if nothing is opaque, because programs leave unused alpha channels empty."""
    opaque = np.iinfo(alpha.dtype).max if alpha.dtype.kind in "iu" else 1.0
    if not (alpha >= opaque).any():
        return None
    cover: NDArray[np.uint8] = (np.clip(alpha, 0, opaque) * (255 / opaque)).astype(np.uint8)
    return cover


def _scaled(grey: NDArray[Any], low: float, high: float, min_is_white: bool) -> NDArray[np.uint8]:
    """Scales pixels [height, width] so that ``low`` becomes 0 and ``high`` 255; a constant picture becomes 0."""
    scaled = np.empty(grey.shape, np.uint8)
    rows = max(_BLOCK // grey.shape[1], 1)
    factor = 255 / (high - low) if high > low else 0
    with np.errstate(invalid="ignore"):  # a signalling NaN
        for start in range(0, len(grey), rows):
            block = grey[start : start + rows].astype(np.float64)
            np.nan_to_num(block, copy=False, nan=low, posinf=high, neginf=low)
            block = (np.clip(block, low, high) - low) * factor
            scaled[start : start + rows] = np.rint(block)
    return 255 - scaled if min_is_white else scaled


def _on_white(picture: Image.Image, mode: str = "L") -> Image.Image:
    """Composites a picture with alpha onto white, without outermost rows or columns that have no opaque pixel.

    Office programs leave such a line where they crop between two pixels. On white it would be a bright edge that
    marks gels which were once in a slide. A picture without any opaque pixel has an unused alpha channel, which is
    ignored.
    """
    alpha = picture.getchannel("A")
    opaque = alpha.point(_OPAQUE).getbbox()
    if opaque is None:
        return picture.convert(mode)
    left, top, right, bottom = opaque
    width, height = picture.size
    picture = picture.crop((min(left, 1), min(top, 1), max(right, width - 1), max(bottom, height - 1)))
    page = Image.new(mode, picture.size, "white")
    page.paste(picture.convert(mode), mask=picture.getchannel("A"))
    return page
