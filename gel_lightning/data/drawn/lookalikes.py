"""Look-alikes drawn from a seed: pictures with rows, stripes or spots that are not gels."""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFilter

from gel_lightning.data.drawn.camera import (
    PAPER_TINTS,
    UV_TINTS,
    Array,
    font,
    one_of,
    photographed,
    picture_size,
    smooth_noise,
    to_array,
)

WORDS = ("a", "and", "band", "buffer", "cell", "count", "figure", "from", "gel", "in", "lane", "light", "of")


def _shown(rng: Generator, grey: Array) -> Image.Image:
    """``grey`` (height, width; 0 to 1) photographed at a random contrast, sometimes inverted."""
    low, high = rng.uniform(0, 0.35), rng.uniform(0.5, 1)
    grey = 1 - grey if rng.random() < 0.6 else grey
    return photographed(rng, low + (high - low) * grey, one_of(rng, (UV_TINTS, PAPER_TINTS)))


def _white_page(rng: Generator) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    page = Image.new("L", picture_size(rng), 255)
    return page, ImageDraw.Draw(page)


def _axes(rng: Generator, pen: ImageDraw.ImageDraw, width: int, height: int) -> tuple[int, int, int, int]:
    """Draws axes, ticks and titles; returns left, top, right and bottom of the plot, pixels."""
    left, top, right, bottom = int(0.14 * width), int(0.1 * height), int(0.95 * width), int(0.86 * height)
    pen.line((left, top, left, bottom, right, bottom), fill=0, width=2)
    count, most = one_of(rng, (4, 5, 8)), one_of(rng, (1, 10, 40, 100))
    for n in range(count + 1):
        y = bottom - (bottom - top) * n / count
        pen.line((left - 4, y, left, y), fill=0)
        pen.text((left - 7, y), f"{most * n / count:g}", fill=0, font=font(10), anchor="rm")
    pen.text(((left + right) / 2, top / 2), _words(rng, 3).capitalize(), 0, font(14), anchor="mm")
    pen.text(((left + right) / 2, height - 10), _words(rng, 2), 0, font(11), anchor="mm")
    return left, top, right, bottom


def _bar_chart(rng: Generator) -> Image.Image:
    page, pen = _white_page(rng)
    left, top, right, bottom = _axes(rng, pen, *page.size)
    count, greys = int(rng.integers(4, 15)), rng.integers(30, 220, rng.integers(1, 5))
    pitch = (right - left) / count
    for n in range(count):
        x, y = left + pitch * (n + 0.2), float(bottom)
        for grey in greys:
            foot, y = y, y - (bottom - top) * rng.uniform(0.03, 0.95) / len(greys)
            pen.rectangle((x, y, x + 0.65 * pitch, foot), fill=int(grey))
        pen.text((x + 0.3 * pitch, bottom + 8), chr(ord("A") + n), 0, font(10), anchor="mm")
    return _shown(rng, to_array(page))


def _line_plot(rng: Generator) -> Image.Image:
    page, pen = _white_page(rng)
    left, top, right, bottom = _axes(rng, pen, *page.size)
    x = np.linspace(0, 1, 200)
    for _ in range(rng.integers(1, 5)):
        curve = rng.uniform(0, 0.3) + rng.uniform(0, 0.4) * x + rng.normal(0, rng.choice([0, 0.02]), 200)
        for place, wide in zip(rng.random(6), rng.uniform(0.01, 0.15, 6), strict=True):
            curve += rng.uniform(0, 0.6) * np.exp(-(((x - place) / wide) ** 2))
        y = bottom - (bottom - top) * curve / max(1, curve.max())
        points = np.stack([left + (right - left) * x, y], axis=1).ravel().tolist()
        pen.line(points, fill=int(rng.integers(0, 150)), width=int(rng.integers(1, 4)))
    return _shown(rng, to_array(page))


def _barcode(rng: Generator) -> Image.Image:
    page, pen = _white_page(rng)
    width, height = page.size
    left, top, bottom = rng.uniform(0.05, 0.15) * width, rng.uniform(0.05, 0.3) * height, 0.8 * height
    unit, x = rng.uniform(1.5, 4), left
    while x < width - left:
        bar, gap = unit * rng.integers(1, 5, 2)
        pen.rectangle((x, top, x + bar, bottom), fill=0)
        x += bar + gap
    digits = "  ".join(str(n) for n in rng.integers(0, 10, 12))
    pen.text((width / 2, bottom + 14), digits, fill=0, font=font(16), anchor="mm")
    turned = page.rotate(rng.choice([0, 0, 90]) + rng.normal(0, 2), Image.Resampling.BICUBIC, fillcolor=255)
    return _shown(rng, to_array(turned))


def _text_page(rng: Generator) -> Image.Image:
    page, pen = _white_page(rng)
    width, height = page.size
    size, columns = int(rng.integers(9, 20)), int(rng.integers(1, 3))
    room = 0.88 * width / columns
    for left in 0.06 * width + room * np.arange(columns):
        for y in np.arange(0.08 * height, 0.92 * height, 1.35 * size):
            line = _words(rng, 20) if rng.random() > 0.1 else ""  # else a new paragraph
            while pen.textlength(line, font(size)) > room - 10:
                line = line.rpartition(" ")[0]
            pen.text((left, y), line, fill=0, font=font(size))
    return _shown(rng, to_array(page))


def _waves(rng: Generator) -> tuple[Array, Array, float]:
    """Waves along and across a rotated grid (both height, width; -1 to 1), and how sharp to draw them."""
    width, height = picture_size(rng)
    y, x = np.mgrid[0:height, 0:width]
    angle, period = rng.uniform(0, np.pi), rng.uniform(12, 70)
    scale = 2 * np.pi / period * (1 + rng.uniform(0, 1.2) * y / height)  # finer at the far end, as in perspective
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    return np.sin(scale * along), np.sin(scale * across), one_of(rng, (1.0, 3.0, 12.0))


def _stripes(rng: Generator) -> Image.Image:
    along, _, sharp = _waves(rng)
    return _shown(rng, 0.5 + 0.5 * np.tanh(sharp * along))


def _checkers(rng: Generator) -> Image.Image:
    along, across, sharp = _waves(rng)
    return _shown(rng, 0.5 + 0.5 * np.tanh(2 * sharp * along * across))


def _spectrogram(rng: Generator) -> Image.Image:
    """The harmonics of a voice that starts and stops, in noise that decreases with the pitch."""
    width, height = picture_size(rng)
    pitch = np.linspace(1, 0, height)[:, None]
    tone = rng.uniform(0.05, 0.15) * (1 + 0.35 * smooth_noise(rng, 1, width, 6))
    voice = np.clip(4 * smooth_noise(rng, 1, width, int(rng.integers(6, 16))) + 1, 0, 1)
    harmonics = (0.5 + 0.5 * np.cos(2 * np.pi * pitch / tone)) ** 4 * (0.6 + 0.4 * smooth_noise(rng, height, 1, 8))
    noise = rng.exponential(0.12, (height, width)) + 0.15
    return _shown(rng, 1 - np.clip((voice * harmonics + noise) * np.exp(-1.5 * pitch), 0, 1))


def _cells(rng: Generator) -> Image.Image:
    page, pen = _white_page(rng)
    angles = np.linspace(0, 2 * np.pi, 40)
    circle, size = np.stack([np.cos(angles), np.sin(angles)], axis=1), rng.uniform(9, 40)
    body, rim, core = (int(grey) for grey in rng.integers(0, 220, 3))
    for _ in range(rng.integers(12, 70)):
        centre, turn = rng.random(2) * page.size, rng.uniform(0, 2 * np.pi)
        wobble = 1 + 0.2 * np.sin(2 * angles + turn) + 0.08 * np.sin(3 * angles + 2 * turn)
        wall = size * rng.uniform(0.7, 1.3) * wobble[:, None] * circle
        pen.polygon((centre + wall).ravel().tolist(), fill=body, outline=rim, width=2)
        pen.polygon((centre + rng.normal(0, 2, 2) + 0.35 * wall).ravel().tolist(), fill=core)
    return _shown(rng, to_array(page.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 4)))))


def _gradient(rng: Generator) -> Image.Image:
    width, height = picture_size(rng)
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    slope = rng.normal(0, 1, 3)
    field = slope[0] * x + slope[1] * y + slope[2] * np.hypot(x - rng.random(), y - rng.random())
    field += rng.uniform(0, 0.8) * smooth_noise(rng, height, width, int(rng.integers(3, 9)))
    return _shown(rng, (field - field.min()) / np.ptp(field))


LOOK_ALIKES: dict[str, Callable[[Generator], Image.Image]] = {
    "bar_chart": _bar_chart,
    "line_plot": _line_plot,
    "barcode": _barcode,
    "text_page": _text_page,
    "stripes": _stripes,
    "checkers": _checkers,
    "spectrogram": _spectrogram,
    "cells": _cells,
    "gradient": _gradient,
}


def _words(rng: Generator, count: int) -> str:
    return " ".join(rng.choice(WORDS, count))
