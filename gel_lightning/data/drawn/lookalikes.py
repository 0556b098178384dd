"""Look-alikes drawn from a seed: pictures with rows, stripes or spots that are not gels."""

from collections.abc import Callable
from functools import partial

from numpy.random import Generator
from PIL import Image

from gel_lightning.data.drawn import pages, patterns, plots, things
from gel_lightning.data.drawn.camera import PAPER_TINTS, UV_TINTS, Array, one_of, photographed, to_array
from gel_lightning.data.drawn.figures import figure

DRAWINGS: tuple[Callable[[Generator], Array | Image.Image], ...] = (
    *(plots.bar_chart, plots.line_plot, plots.heat_map, plots.dot_plot, plots.box_plot, plots.plasmid_map),
    *(pages.text_page, pages.table, pages.alignment, pages.ruled_paper, pages.barcode),
    *(patterns.stripes, patterns.checkers, patterns.spectrogram, patterns.gradient, patterns.stars),
    *(patterns.ultrasound, things.cells, things.plate, things.tubes, things.lateral_flow),
    *(things.keys, things.circuit),
)


def _photograph(draw: Callable[[Generator], Array | Image.Image], rng: Generator) -> Image.Image:
    """Photographs a drawing, or grey (height, width; 0 to 1), at a random contrast, sometimes inverted."""
    drawn = draw(rng)
    grey = to_array(drawn) if isinstance(drawn, Image.Image) else drawn
    low, high = rng.uniform(0, 0.35), rng.uniform(0.5, 1)
    grey = 1 - grey if rng.random() < 0.6 else grey
    return photographed(rng, low + (high - low) * grey, one_of(rng, (UV_TINTS, PAPER_TINTS)))


LOOK_ALIKES: dict[str, Callable[[Generator], Image.Image]] = {
    **{draw.__name__: partial(_photograph, draw) for draw in DRAWINGS},
    "figure": figure,
}
"""What draws a picture of a kind, by the name of the kind; a data set takes them in turn."""
