"""Drawn patterns: look-alikes with stripes, squares, harmonics, gradients and stars."""

import numpy as np
from numpy.random import Generator
from PIL import ImageFilter

from gel_lightning.data.drawn.camera import Array, one_of, picture_size, smooth_noise, to_array
from gel_lightning.data.drawn.paper import white_page


def _waves(rng: Generator) -> tuple[Array, Array, float]:
    """Waves along and across a rotated grid (both height, width; -1 to 1), and how sharp to draw them."""
    width, height = picture_size(rng)
    y, x = np.mgrid[0:height, 0:width]
    angle, period = rng.uniform(0, np.pi), rng.uniform(12, 70)
    scale = 2 * np.pi / period * (1 + rng.uniform(0, 1.2) * y / height)  # finer at the far end, as in perspective
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    return np.sin(scale * along), np.sin(scale * across), one_of(rng, (1.0, 3.0, 12.0))


def stripes(rng: Generator) -> Array:
    along, _, sharp = _waves(rng)
    return np.asarray(0.5 + 0.5 * np.tanh(sharp * along))


def checkers(rng: Generator) -> Array:
    along, across, sharp = _waves(rng)
    return np.asarray(0.5 + 0.5 * np.tanh(2 * sharp * along * across))


def spectrogram(rng: Generator) -> Array:
    """The harmonics of a voice that starts and stops, in noise that decreases with the pitch."""
    width, height = picture_size(rng)
    pitch = np.linspace(1, 0, height)[:, None]
    tone = rng.uniform(0.05, 0.15) * (1 + 0.35 * smooth_noise(rng, 1, width, 6))
    voice = np.clip(4 * smooth_noise(rng, 1, width, int(rng.integers(6, 16))) + 1, 0, 1)
    harmonics = (0.5 + 0.5 * np.cos(2 * np.pi * pitch / tone)) ** 4 * (0.6 + 0.4 * smooth_noise(rng, height, 1, 8))
    noise = rng.exponential(0.12, (height, width)) + 0.15
    return np.asarray(1 - np.clip((voice * harmonics + noise) * np.exp(-1.5 * pitch), 0, 1))


def gradient(rng: Generator) -> Array:
    width, height = picture_size(rng)
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    slope = rng.normal(0, 1, 3)
    field = slope[0] * x + slope[1] * y + slope[2] * np.hypot(x - rng.random(), y - rng.random())
    field += rng.uniform(0, 0.8) * smooth_noise(rng, height, width, int(rng.integers(3, 9)))
    return np.asarray((field - field.min()) / np.ptp(field))


def stars(rng: Generator) -> Array:
    """Points of light on black, some of them large and soft, as in the sky or under a microscope."""
    sky, pen = white_page(rng)
    width, height = sky.size
    pen.rectangle((0, 0, width, height), fill=0)
    for x, y in rng.random((int(rng.integers(40, 400)), 2)) * sky.size:
        size = rng.exponential(1.2)
        pen.ellipse((x - size, y - size, x + size, y + size), fill=int(rng.integers(60, 256)))
    light = to_array(sky.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 2))))
    y, x = np.mgrid[0:height, 0:width]
    for _ in range(int(rng.integers(0, 3))):
        place, size = rng.random(2) * (height, width), rng.uniform(0.05, 0.3) * height
        light += rng.random() * np.exp(-np.hypot(y - place[0], x - place[1]) / size)
    return np.asarray(np.clip(light + 0.1 * rng.random(), 0, 1))


def ultrasound(rng: Generator) -> Array:
    """Speckle in layers and dark hollows within a fan, as in medical pictures."""
    width, height = picture_size(rng)
    y, x = np.mgrid[0 : 1 : height * 1j, -1 : 1 : width * 1j]
    layers = 0.5 + 0.5 * smooth_noise(rng, height, width, int(rng.integers(4, 16)))
    layers *= 0.6 + 0.4 * np.sin(rng.uniform(10, 60) * (y + 0.1 * smooth_noise(rng, height, width, 4)))
    for _ in range(int(rng.integers(0, 4))):
        place, size = rng.uniform((0.2, -0.6), (0.9, 0.6)), rng.uniform(0.05, 0.25)
        layers *= 1 - 0.9 * np.exp(-((np.hypot(y - place[0], x - place[1]) / size) ** 4))
    speckle = layers * rng.rayleigh(0.5, (height, width))
    fan = np.abs(x) < one_of(rng, (2.0, 0.25 + 0.75 * rng.random())) * (0.3 + y)
    return np.asarray(np.clip(speckle * fan, 0, 1))
