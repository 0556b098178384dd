"""What look-alikes share: a white page to draw on, words, and its photograph."""

from numpy.random import Generator
from PIL import Image, ImageDraw

from gel_lightning.data.drawn.camera import PAPER_TINTS, UV_TINTS, Array, one_of, photographed, picture_size, to_array

WORDS = ("a", "and", "band", "buffer", "cell", "count", "figure", "from", "gel", "in", "lane", "light", "of")


def shown(rng: Generator, drawn: Array | Image.Image) -> Image.Image:
    """A drawing, or grey (height, width; 0 to 1), photographed at a random contrast, sometimes inverted."""
    grey = to_array(drawn) if isinstance(drawn, Image.Image) else drawn
    low, high = rng.uniform(0, 0.35), rng.uniform(0.5, 1)
    grey = 1 - grey if rng.random() < 0.6 else grey
    return photographed(rng, low + (high - low) * grey, one_of(rng, (UV_TINTS, PAPER_TINTS)))


def white_page(rng: Generator) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """A white page of a random size, and a pen to draw on it with grey, 0 to 255."""
    page = Image.new("L", picture_size(rng), 255)
    return page, ImageDraw.Draw(page)


def words(rng: Generator, count: int) -> str:
    """Some random words."""
    return " ".join(rng.choice(WORDS, count))
