"""Figures of papers and reports: lettered panels on a white page."""

from collections.abc import Sequence

from numpy.random import Generator
from PIL import Image, ImageDraw, ImageOps

from gel_lightning.data.drawn import pages, plots, things
from gel_lightning.data.drawn.camera import SIDES, Array, font, one_of, picture_size

PANELS = (
    *(plots.bar_chart, plots.line_plot, plots.heat_map, plots.dot_plot, plots.box_plot, plots.gene_map),
    *(plots.plasmid_map, plots.plasmid_map, plots.sorted_curves),
    *(pages.text_page, pages.table, pages.alignment, things.cells, things.plate),
)
"""What may stand in a figure."""


def figure(rng: Generator) -> Image.Image:
    """A figure without a gel."""
    return _laid_out(rng, [one_of(rng, PANELS)(rng) for _ in range(int(rng.integers(2, 5)))])


def gel_in_a_figure(rng: Generator, picture: Image.Image, lanes: Array) -> Image.Image:
    """A figure with a gel, or with two or more lanes of it in a panel each, and often with panels of other things.

    Args:
        rng: the source of all randomness.
        picture: of a straight gel.
        lanes: their centres in pixels.
    """
    half, panels = (lanes[1] - lanes[0]) / 2, []
    for _ in range(int(rng.integers(1, 4))):
        first = int(rng.integers(len(lanes) - 1))
        last = min(first + int(rng.integers(1, 7)), len(lanes) - 1)
        whole = rng.random() < 0.3
        left, right = int(lanes[first] - half), int(lanes[last] + half)
        panel = picture if whole else picture.crop((left, 0, right, picture.height))
        panels.append(_with_sizes(rng, panel) if rng.random() < 0.5 else panel)
    others = [one_of(rng, PANELS)(rng) for _ in range(int(rng.integers(0, 3)))]
    return _laid_out(rng, [*others, *panels] if rng.random() < 0.6 else [*panels, *others])


def _with_sizes(rng: Generator, panel: Image.Image) -> Image.Image:
    """Writes sizes at the left of a panel with a gel, lane names above it and what a band is at its right."""
    zoom = rng.uniform(1, 2.5) * 200 / panel.height
    panel = panel.convert("RGB").resize((max(20, int(zoom * panel.width)), int(zoom * panel.height)))
    page = ImageOps.expand(panel, (34, 16, 44, 0), "white")
    pen, bottom = ImageDraw.Draw(page), page.height - 6
    for n, y in enumerate(range(int(rng.integers(18, 40)), bottom, int(rng.integers(12, 30)))):
        pen.text((32, y), f"{max(100, 5000 - 500 * n)}", "black", font(9), anchor="rm")
    for x in range(40, page.width - 44, int(rng.integers(34, 60))):
        pen.text((x, 8), one_of(rng, ("Marker", "Target", "WT", "1", "M", "PCR")), "black", font(9), anchor="lm")
    if rng.random() < 0.5:
        place = (page.width - 42, rng.uniform(30, bottom))
        pen.text(place, one_of(rng, ("< Target", "< 750 bp", "< band")), "black", font(9), anchor="lm")
    return page


def _laid_out(rng: Generator, panels: Sequence[Image.Image]) -> Image.Image:
    """Puts panels on a white page, in a row or in two, with letters and captions."""
    width, height = picture_size(rng)
    rows = 2 if len(panels) > 3 or rng.random() < 0.2 else 1
    columns = -(-len(panels) // rows)
    if rows == 1:
        height = max(SIDES[0], int(height * rng.uniform(0.5, 1)))
    page, capital, share = Image.new("RGB", (width, height), "white"), rng.random() < 0.5, rng.uniform(0.65, 1)
    pen, room = ImageDraw.Draw(page), (width // columns - 12, height // rows - 26)
    for n, panel in enumerate(panels):
        left, top = 6 + n % columns * (room[0] + 12), 20 + n // columns * (room[1] + 26)
        fitted = ImageOps.contain(panel.convert("RGB"), (int(share * room[0]), int(share * room[1])))
        page.paste(fitted, (left + (room[0] - fitted.width) // 2, top + (room[1] - fitted.height) // 2))
        letter = chr(ord("A" if capital else "a") + n)
        pen.text((left, top - 16), letter, "black", font(14))
        if rng.random() < 0.4:
            pen.text((left + room[0] / 2, top - 12), f"{rng.integers(100, 5000)} bp", "black", font(10), anchor="mt")
    return page if rng.random() < 0.5 else page.convert("L")
