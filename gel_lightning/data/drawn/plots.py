"""Drawn plots: look-alikes with bars, peaks, spots and shaded cells beside axes."""

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw

from gel_lightning.data.drawn.camera import font, one_of
from gel_lightning.data.drawn.paper import white_page, words


def _axes(rng: Generator, pen: ImageDraw.ImageDraw, width: int, height: int) -> tuple[int, int, int, int]:
    """Draws axes, ticks and titles; returns left, top, right and bottom of the plot, pixels."""
    left, top, right, bottom = int(0.14 * width), int(0.1 * height), int(0.95 * width), int(0.86 * height)
    pen.line((left, top, left, bottom, right, bottom), fill=0, width=2)
    count, most = one_of(rng, (4, 5, 8)), one_of(rng, (1, 10, 40, 100))
    for n in range(count + 1):
        y = bottom - (bottom - top) * n / count
        pen.line((left - 4, y, left, y), fill=0)
        pen.text((left - 7, y), f"{most * n / count:g}", fill=0, font=font(10), anchor="rm")
    pen.text(((left + right) / 2, top / 2), words(rng, 3).capitalize(), 0, font(14), anchor="mm")
    pen.text(((left + right) / 2, height - 10), words(rng, 2), 0, font(11), anchor="mm")
    return left, top, right, bottom


def bar_chart(rng: Generator) -> Image.Image:
    page, pen = white_page(rng)
    left, top, right, bottom = _axes(rng, pen, *page.size)
    count, greys = int(rng.integers(4, 15)), rng.integers(30, 220, rng.integers(1, 5))
    pitch = (right - left) / count
    for n in range(count):
        x, y = left + pitch * (n + 0.2), float(bottom)
        for grey in greys:
            foot, y = y, y - (bottom - top) * rng.uniform(0.03, 0.95) / len(greys)
            pen.rectangle((x, y, x + 0.65 * pitch, foot), fill=int(grey))
        pen.text((x + 0.3 * pitch, bottom + 8), chr(ord("A") + n), 0, font(10), anchor="mm")
    return page


def line_plot(rng: Generator) -> Image.Image:
    page, pen = white_page(rng)
    left, top, right, bottom = _axes(rng, pen, *page.size)
    x = np.linspace(0, 1, 200)
    for _ in range(rng.integers(1, 5)):
        curve = rng.uniform(0, 0.3) + rng.uniform(0, 0.4) * x + rng.normal(0, rng.choice([0, 0.02]), 200)
        for place, wide in zip(rng.random(6), rng.uniform(0.01, 0.15, 6), strict=True):
            curve += rng.uniform(0, 0.6) * np.exp(-(((x - place) / wide) ** 2))
        y = bottom - (bottom - top) * curve / max(1, curve.max())
        points = np.stack([left + (right - left) * x, y], axis=1).ravel().tolist()
        pen.line(points, fill=int(rng.integers(0, 150)), width=int(rng.integers(1, 4)))
    return page


def heat_map(rng: Generator) -> Image.Image:
    """Shaded cells in blocks, as clustered samples have, with names and often a tree on top."""
    page, pen = white_page(rng)
    left, top, right, bottom = (int(s) for s in np.array([0.06, 0.16, 0.86, 0.86]) * [*page.size, *page.size])
    rows, columns = int(rng.integers(4, 40)), int(rng.integers(4, 40))
    blocks = np.repeat(np.repeat(rng.random((6, 6)), 7, axis=0), 7, axis=1)[:rows, :columns]
    values = np.clip(0.75 * blocks + rng.uniform(0.05, 0.4) * rng.random((rows, columns)), 0, 1)
    shades = Image.fromarray((255 * values).astype(np.uint8))
    page.paste(shades.resize((right - left, bottom - top), Image.Resampling.NEAREST), (left, top))
    high, wide = (bottom - top) / rows, (right - left) / columns
    if rng.random() < 0.4:
        for row in range(rows + 1):
            pen.line((left, top + row * high, right, top + row * high), fill=255)
        for column in range(columns + 1):
            pen.line((left + column * wide, top, left + column * wide, bottom), fill=255)
    for row in range(0, rows, max(1, int(11 / high))):
        pen.text((right + 4, top + (row + 0.5) * high), words(rng, 1)[:5] + str(row), 0, font(9), anchor="lm")
    if rng.random() < 0.5:
        _tree(rng, pen, [left + (column + 0.5) * wide for column in range(columns)], top - 2, 0.13 * page.height)
    return page


def _tree(rng: Generator, pen: ImageDraw.ImageDraw, places: list[float], foot: float, height: float) -> None:
    """Draws a dendrogram upwards from ``foot``: two random neighbours are joined until one is left."""
    leaves = [(place, foot) for place in places]
    for level in range(1, len(places)):
        n = int(rng.integers(len(leaves) - 1))
        (x0, y0), (x1, y1) = leaves[n : n + 2]
        y = foot - height * level / len(places)
        pen.line((x0, y0, x0, y, x1, y, x1, y1), fill=0)
        leaves[n : n + 2] = [((x0 + x1) / 2, y)]


def dot_plot(rng: Generator) -> Image.Image:
    """Dots whose size and shade are values, in rows and columns beside axes."""
    page, pen = white_page(rng)
    left, top, right, bottom = _axes(rng, pen, *page.size)
    rows, columns = int(rng.integers(3, 14)), int(rng.integers(3, 18))
    pitch = min((right - left) / columns, (bottom - top) / rows)
    for x in np.linspace(left + pitch, right - pitch / 2, columns):
        for y in np.linspace(top + pitch / 2, bottom - pitch, rows):
            size = 0.5 * pitch * rng.random() ** 0.7
            pen.ellipse((x - size, y - size, x + size, y + size), fill=int(rng.integers(0, 220)))
    return page


def box_plot(rng: Generator) -> Image.Image:
    """Boxes with medians, whiskers and outliers: short dark lines at many heights in columns."""
    page, pen = white_page(rng)
    left, top, right, bottom = _axes(rng, pen, *page.size)
    centres = np.linspace(left, right, int(rng.integers(3, 13)) + 2)[1:-1]
    half, shade = 0.3 * (centres[0] - left), int(rng.integers(120, 256))
    for x in centres:
        low, q1, middle, q3, high = np.sort(rng.uniform(top, bottom, 5))
        pen.line((x, low, x, high), fill=0)
        pen.rectangle((x - half, q1, x + half, q3), fill=shade, outline=0)
        pen.line((x - half, middle, x + half, middle), fill=0, width=3)
        for y in (low, high):
            pen.line((x - half / 2, y, x + half / 2, y), fill=0)
    return page


def plasmid_map(rng: Generator) -> Image.Image:
    """Rings with arcs of different shades and the names of genes around them, and a name in the middle."""
    page, pen = white_page(rng)
    (x, y), radius = np.array(page.size) / 2, 0.36 * min(page.size)
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), outline=60, width=int(rng.integers(1, 4)))
    for _ in range(int(rng.integers(2, 9))):
        start, ring = rng.uniform(0, 360), radius * rng.uniform(0.75, 1.05)
        end, box = start + rng.uniform(15, 150), (x - ring, y - ring, x + ring, y + ring)
        pen.arc(box, start, end, fill=int(rng.integers(0, 210)), width=int(rng.uniform(0.02, 0.09) * radius) + 1)
        angle = np.radians((start + end) / 2)
        place = (x + 1.2 * radius * np.cos(angle), y + 1.2 * radius * np.sin(angle))
        pen.text(place, words(rng, 1), 0, font(10), anchor="mm")
    pen.text((x, y), f"p{words(rng, 1).upper()}-{rng.integers(1, 40)}", 0, font(14), anchor="mm")
    return page
