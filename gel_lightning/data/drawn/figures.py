"""Figures of papers and reports: lettered panels on a white page."""

from collections.abc import Sequence

from numpy.random import Generator
from PIL import Image, ImageDraw, ImageOps

from gel_lightning.data.drawn import pages, plots, things
from gel_lightning.data.drawn.camera import SIDES, Array, font, one_of, picture_size

PANELS = (
    *(plots.bar_chart, plots.line_plot, plots.heat_map, plots.dot_plot, plots.box_plot),
    *(plots.plasmid_map, plots.plasmid_map, pages.text_page, pages.table, pages.alignment, things.cells, things.plate),
)
"""What may stand in a figure."""


def figure(rng: Generator) -> Image.Image:
    """A figure without a gel."""
    return _laid_out(rng, [one_of(rng, PANELS)(rng) for _ in range(int(rng.integers(2, 5)))])


def gel_in_a_figure(rng: Generator, picture: Image.Image, lanes: Array) -> Image.Image:
    """A figure with a gel, or with some lanes of it in a panel each, and often with panels of other things.

    Args:
        rng: the source of all randomness.
        picture: of a straight gel.
        lanes: their centres in pixels.
    """
    half, panels = (lanes[1] - lanes[0]) / 2, []
    for _ in range(int(rng.integers(1, 4))):
        first = int(rng.integers(len(lanes) - 1))
        last = min(first + int(rng.integers(1, 6)), len(lanes)) - 1
        whole = rng.random() < 0.3
        left, right = int(lanes[first] - half), int(lanes[last] + half)
        panels.append(picture if whole else picture.crop((left, 0, right, picture.height)))
    others = [one_of(rng, PANELS)(rng) for _ in range(int(rng.integers(0, 3)))]
    return _laid_out(rng, [*others, *panels] if rng.random() < 0.6 else [*panels, *others])


def _laid_out(rng: Generator, panels: Sequence[Image.Image]) -> Image.Image:
    """Puts panels on a white page, in a row or in two, with letters and captions."""
    width, height = picture_size(rng)
    rows = 2 if len(panels) > 3 or rng.random() < 0.2 else 1
    columns = -(-len(panels) // rows)
    if rows == 1:
        height = max(SIDES[0], int(height * rng.uniform(0.5, 1)))
    page, capital = Image.new("RGB", (width, height), "white"), rng.random() < 0.5
    pen, room = ImageDraw.Draw(page), (width // columns - 12, height // rows - 26)
    for n, panel in enumerate(panels):
        left, top = 6 + n % columns * (room[0] + 12), 20 + n // columns * (room[1] + 26)
        fitted = ImageOps.contain(panel.convert("RGB"), room)
        page.paste(fitted, (left + (room[0] - fitted.width) // 2, top + (room[1] - fitted.height) // 2))
        letter = chr(ord("A" if capital else "a") + n)
        pen.text((left, top - 16), letter, "black", font(14))
        if rng.random() < 0.4:
            pen.text((left + room[0] / 2, top - 12), f"{rng.integers(100, 5000)} bp", "black", font(10), anchor="mt")
    return page if rng.random() < 0.5 else page.convert("L")
