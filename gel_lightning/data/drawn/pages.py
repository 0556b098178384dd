"""Drawn pages: look-alikes with lines of text, tables, sequences and barcodes."""

import numpy as np
from numpy.random import Generator
from PIL import Image

from gel_lightning.data.drawn.camera import font, one_of
from gel_lightning.data.drawn.paper import white_page, words


def barcode(rng: Generator) -> Image.Image:
    page, pen = white_page(rng)
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
    return turned


def text_page(rng: Generator) -> Image.Image:
    page, pen = white_page(rng)
    width, height = page.size
    size, columns = int(rng.integers(9, 20)), int(rng.integers(1, 3))
    room = 0.88 * width / columns
    for left in 0.06 * width + room * np.arange(columns):
        for y in np.arange(0.08 * height, 0.92 * height, 1.35 * size):
            line = words(rng, 20) if rng.random() > 0.1 else ""  # else a new paragraph
            while pen.textlength(line, font(size)) > room - 10:
                line = line.rpartition(" ")[0]
            pen.text((left, y), line, fill=0, font=font(size))
    return page


def table(rng: Generator) -> Image.Image:
    """Words and numbers in ruled cells, with a shaded head."""
    page, pen = white_page(rng)
    width, height = page.size
    size, columns = int(rng.integers(9, 15)), int(rng.integers(3, 9))
    ruled, high, room = rng.random() < 0.6, rng.uniform(1.5, 2.4) * size, 0.92 * width / columns
    for row, y in enumerate(np.arange(0.06 * height, 0.92 * height - high, high)):
        for column in range(columns):
            x = 0.04 * width + column * room
            shade = 215 if row == 0 or (not ruled and row % 2) else 255
            pen.rectangle((x, y, x + room, y + high), fill=shade, outline=0 if ruled else shade)
            name = words(rng, 1) if column == 0 or row == 0 else f"{rng.normal(0, 30):.{rng.integers(0, 3)}f}"
            pen.text((x + 4, y + high / 2), name, 0, font(size), anchor="lm")
    return page


def alignment(rng: Generator) -> Image.Image:
    """Sequences below each other, with shaded columns where they agree."""
    page, pen = white_page(rng)
    width, height = page.size
    size, letters = int(rng.integers(9, 15)), one_of(rng, ("ACGT", "ACDEFGHIKLMNPQRSTVWY-"))
    rows, columns, block = int(rng.integers(3, 12)), int(0.8 * width / size), 0.05 * height
    while block < 0.9 * height:
        shared, kept = rng.integers(len(letters), size=columns), rng.random(columns)
        for row in range(rows):
            y = block + row * 1.3 * size
            pen.text((4, y), f"seq{row}", 0, font(size))
            for column in range(columns):
                x, same = 0.15 * width + column * size, rng.random() < kept[column]
                letter = letters[int(shared[column] if same else rng.integers(len(letters)))]
                if same and kept[column] > 0.6:
                    pen.rectangle((x - 1, y, x + size - 1, y + 1.3 * size), fill=int(255 - 190 * kept[column]))
                pen.text((x + size / 2 - 1, y), letter, 0, font(size), anchor="ma")
        block += (rows + 2) * 1.3 * size
    return page


def ruled_paper(rng: Generator) -> Image.Image:
    """A notebook with lines, holes or rings at a side, and some handwriting, a little turned."""
    page, pen = white_page(rng)
    width, height = page.size
    pitch, margin = rng.uniform(14, 40), rng.uniform(0.06, 0.18) * width
    for y in np.arange(rng.uniform(0, pitch), height, pitch):
        pen.line((0, y, width, y), fill=int(rng.integers(110, 190)), width=int(rng.integers(1, 3)))
        pen.ellipse((0.3 * margin, y - pitch / 4, 0.3 * margin + pitch / 2, y + pitch / 4), fill=40)
        if rng.random() < 0.4:
            steps = np.arange(margin, rng.uniform(margin, width), 4)
            pen.line(np.stack([steps, y - rng.uniform(0, 0.6 * pitch, len(steps))], axis=1).ravel().tolist(), fill=50)
    pen.line((margin, 0, margin, height), fill=120, width=2)
    return page.rotate(rng.normal(0, 5), Image.Resampling.BICUBIC, fillcolor=int(rng.integers(30, 255)))
