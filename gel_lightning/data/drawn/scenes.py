"""Where a drawn gel is seen: cut into strips, or lying on a bench."""

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw

from gel_lightning.data.drawn.camera import PAPER_TINTS, SIDES, Array, font, one_of, photographed, smooth_noise


def in_strips(rng: Generator, picture: Image.Image, lanes: Array) -> Image.Image:
    """Cuts lanes out and puts them beside each other with gaps between them, as in figures.

    Args:
        rng: the source of all randomness.
        picture: of a straight gel.
        lanes: their centres in pixels.
    """
    first = int(rng.integers(len(lanes) - 2))
    half = (lanes[1] - lanes[0]) / 2
    strips = [
        picture.crop((int(x - half), 0, int(x + half), picture.height)) for x in lanes[first:][: rng.integers(3, 10)]
    ]
    zoom = max(1.0, SIDES[0] / (len(strips) * (2 * half - 2)))
    wide = int(zoom * strips[0].width)
    gap = int(wide * rng.uniform(0.05, 0.5))
    page = Image.new(picture.mode, (min(SIDES[1], (wide + gap) * len(strips) + gap), picture.height), "white")
    for n, strip in enumerate(strips):
        page.paste(strip.resize((wide, int(0.86 * page.height))), (gap + n * (wide + gap), int(0.1 * page.height)))
        ImageDraw.Draw(page).text((gap + (n + 0.5) * (wide + gap), 8), f"{n + 1}", "black", font(12), anchor="mt")
    return page


def on_a_bench(rng: Generator, picture: Image.Image) -> Image.Image:
    """Lays a picture of a gel on a table, turned, with a ruler, a glove or a tray beside it."""
    width, height = picture.size
    table = rng.uniform(0.1, 0.9) * (1 + 0.3 * smooth_noise(rng, height, width, int(rng.integers(2, 40))))
    scene = photographed(rng, np.clip(table, 0, 1), PAPER_TINTS).convert(picture.mode)
    pen = ImageDraw.Draw(scene)
    for _ in range(int(rng.integers(0, 4))):
        x, y, grey = rng.uniform(-0.2, 1) * width, rng.uniform(-0.2, 1) * height, int(rng.integers(0, 256))
        box, shade = (x, y, x + rng.uniform(30, 200), y + rng.uniform(30, 200)), (grey,) * len(scene.getbands())
        one_of(rng, (pen.rectangle, pen.ellipse))(box, fill=shade[0] if len(shade) == 1 else shade)
    if rng.random() < 0.5:
        pen.rectangle((0, height - 26, width, height), fill="white")
        for n, x in enumerate(range(0, width, int(rng.integers(5, 12)))):
            pen.line((x, height - 26, x, height - (12 if n % 10 else 4)), fill="black")
    share = rng.uniform(0.55, 0.9)
    laid = picture.resize((int(share * width), int(share * height)))
    mask, angle = Image.new("L", laid.size, 255), rng.normal(0, 12)
    turned, mask = (one.rotate(angle, Image.Resampling.BICUBIC, expand=True) for one in (laid, mask))
    place = (int(rng.uniform(0, max(1, width - turned.width))), int(rng.uniform(0, max(1, height - turned.height))))
    scene.paste(turned, place, mask)
    return scene
