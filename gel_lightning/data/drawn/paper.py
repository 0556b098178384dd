"""What look-alikes share: a white page to draw on, and words."""

from numpy.random import Generator
from PIL import Image, ImageDraw

from gel_lightning.data.drawn.camera import picture_size

WORDS = ("a", "and", "band", "buffer", "cell", "count", "figure", "from", "gel", "in", "lane", "light", "of")


def white_page(rng: Generator) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """A white page of a random size, and a pen to draw on it with grey, 0 to 255."""
    page = Image.new("L", picture_size(rng), 255)
    return page, ImageDraw.Draw(page)


def words(rng: Generator, count: int) -> str:
    """Some random words."""
    return " ".join(rng.choice(WORDS, count))
