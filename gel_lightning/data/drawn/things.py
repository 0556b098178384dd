"""Drawn things: look-alikes such as cells, plates, tubes, strips, keyboards and circuit boards."""

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageFilter

from gel_lightning.data.drawn.camera import font, one_of
from gel_lightning.data.drawn.paper import white_page, words


def cells(rng: Generator) -> Image.Image:
    page, pen = white_page(rng)
    angles = np.linspace(0, 2 * np.pi, 40)
    circle, size = np.stack([np.cos(angles), np.sin(angles)], axis=1), rng.uniform(9, 40)
    body, rim, core = (int(grey) for grey in rng.integers(0, 220, 3))
    for _ in range(rng.integers(12, 70)):
        centre, turn = rng.random(2) * page.size, rng.uniform(0, 2 * np.pi)
        wobble = 1 + 0.2 * np.sin(2 * angles + turn) + 0.08 * np.sin(3 * angles + 2 * turn)
        wall = size * rng.uniform(0.7, 1.3) * wobble[:, None] * circle
        pen.polygon((centre + wall).ravel().tolist(), fill=body, outline=rim, width=2)
        pen.polygon((centre + rng.normal(0, 2, 2) + 0.35 * wall).ravel().tolist(), fill=core)
    return page.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 4)))


def plate(rng: Generator) -> Image.Image:
    """Wells in rows and columns, or colonies or printed spots, darker or lighter than what they are in."""
    page, pen = white_page(rng)
    width, height = page.size
    rows, columns = one_of(rng, ((4, 6), (8, 12), (16, 24), (30, 30)))
    pen.rectangle((0, 0, width, height), fill=int(rng.integers(0, 256)))
    rim, share = int(rng.integers(0, 256)), rng.uniform(0.25, 0.48)
    pitch = 0.9 * min(width / columns, height / rows)
    for row in range(rows):
        for column in range(columns):
            x, y = 0.07 * width + (column + 0.5) * pitch, 0.07 * height + (row + 0.5) * pitch
            size = share * pitch
            pen.ellipse((x - size, y - size, x + size, y + size), fill=int(rng.integers(0, 256)), outline=rim)
    return page.filter(ImageFilter.GaussianBlur(rng.uniform(0, 2)))


def tubes(rng: Generator) -> Image.Image:
    """Tubes or cuvettes beside each other, filled to different heights."""
    page, pen = white_page(rng)
    width, height = page.size
    pen.rectangle((0, 0, width, height), fill=int(rng.integers(60, 256)))
    count = int(rng.integers(3, 13))
    pitch, top, bottom = width / (count + 1), rng.uniform(0.1, 0.3) * height, rng.uniform(0.7, 0.95) * height
    for n in range(count):
        left, right, level = (n + 0.7) * pitch, (n + 1.3) * pitch, rng.uniform(top, bottom - 10)
        pen.rounded_rectangle((left, top, right, bottom), pitch / 4, fill=235, outline=60, width=2)
        pen.rounded_rectangle((left + 2, level, right - 2, bottom - 2), pitch / 5, fill=int(rng.integers(20, 200)))
        pen.rectangle((left - 3, top - 14, right + 3, top), fill=int(rng.integers(0, 256)))
    return page.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 2)))


def lateral_flow(rng: Generator) -> Image.Image:
    """Lateral-flow tests: a case with a window in which one line or two are seen."""
    page, pen = white_page(rng)
    width, height = page.size
    pen.rectangle((0, 0, width, height), fill=int(rng.integers(0, 200)))
    count = int(rng.integers(1, 5))
    pitch = width / count
    for n in range(count):
        left, right = (n + 0.25) * pitch, (n + 0.75) * pitch
        pen.rounded_rectangle((left, 0.08 * height, right, 0.92 * height), pitch / 8, fill=240, outline=150)
        window = (left + 0.15 * pitch, 0.25 * height, right - 0.15 * pitch, 0.55 * height)
        pen.rectangle(window, fill=225, outline=120)
        for y in (0.33, 0.45)[: int(rng.integers(1, 3))]:
            pen.rectangle((window[0], y * height, window[2], (y + 0.018) * height), fill=int(rng.integers(40, 190)))
        pen.ellipse((left + 0.15 * pitch, 0.65 * height, right - 0.15 * pitch, 0.8 * height), fill=200, outline=110)
    return page.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 2)))


def keys(rng: Generator) -> Image.Image:
    """The keys of a keyboard or a piano, or windows of a house: rectangles in rows."""
    page, pen = white_page(rng)
    width, height = page.size
    ground, key, ink = rng.permutation([30, 110, 230])
    pen.rectangle((0, 0, width, height), fill=int(ground))
    rows, columns = int(rng.integers(1, 9)), int(rng.integers(5, 17))
    for row in range(rows):
        shift = rng.uniform(0, 0.6) * width / columns
        for column in range(-1, columns):
            x, y = column * width / columns + shift, row * height / rows
            box = (x + 3, y + 3, x + width / columns - 3, y + height / rows - 3)
            pen.rounded_rectangle(box, 4, fill=int(key))
            pen.text((x + width / columns / 2, y + height / rows / 2), words(rng, 1)[:1].upper(), int(ink), font(14))
    return page.rotate(rng.normal(0, 6), Image.Resampling.BICUBIC, fillcolor=int(ground))


def circuit(rng: Generator) -> Image.Image:
    """A circuit board: chips with rows of pins, traces, pads."""
    page, pen = white_page(rng)
    width, height = page.size
    board, metal = int(rng.integers(30, 130)), int(rng.integers(150, 256))
    pen.rectangle((0, 0, width, height), fill=board)
    for _ in range(int(rng.integers(20, 70))):
        x, y = rng.random(2) * page.size
        bend = x + rng.choice([-1, 0, 1]) * rng.uniform(10, 90)
        pen.line(
            (x, y, bend, y + rng.uniform(-90, 90), bend, rng.random() * height), fill=(board + metal) // 2, width=2
        )
        pen.ellipse((x - 3, y - 3, x + 3, y + 3), fill=metal)
    for _ in range(int(rng.integers(2, 9))):
        (x, y), (wide, tall) = rng.random(2) * page.size, rng.uniform(30, 150, 2)
        for pin in np.arange(x, x + wide, 9):
            pen.rectangle((pin, y - 7, pin + 4, y + tall + 7), fill=metal)
        pen.rectangle((x, y, x + wide, y + tall), fill=20)
        pen.text((x + 4, y + tall / 2), words(rng, 1).upper() + str(rng.integers(100)), metal, font(12))
    return page.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.2)))
