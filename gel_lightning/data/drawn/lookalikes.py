"""Look-alikes drawn from a seed: pictures with rows, stripes or spots that are not gels."""

from collections.abc import Callable

from numpy.random import Generator
from PIL import Image

from gel_lightning.data.drawn import pages, patterns, plots, things

LOOK_ALIKES: dict[str, Callable[[Generator], Image.Image]] = {
    draw.__name__: draw
    for draw in (
        *(plots.bar_chart, plots.line_plot, plots.heat_map, plots.dot_plot, plots.box_plot, plots.plasmid_map),
        *(pages.text_page, pages.table, pages.alignment, pages.ruled_paper, pages.barcode),
        *(patterns.stripes, patterns.checkers, patterns.spectrogram, patterns.gradient, patterns.stars),
        *(patterns.ultrasound, things.cells, things.plate, things.tubes, things.lateral_flow),
        *(things.keys, things.circuit),
    )
}
"""What draws a picture of a kind, by the name of the kind; a data set takes them in turn."""
