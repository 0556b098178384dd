"""Draws 61,200 pictures of 51 emoji, each turned, tinted and placed on a background: a large set that anybody can make.

    python benchmarks/emoji.py                  data/emoji, 180 pixels wide, some 750 MB on disk

Needs the font Noto Color Emoji (Debian: fonts-noto-color-emoji). Every picture depends on its own number alone.
"""

import argparse
import unicodedata
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFont
from rich.progress import track

FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
STRIKE = 109  # the only size of its bitmaps
EMOJI = [chr(0x1F400 + i) for i in range(51)]  # 51 animals, from rat to dragon
SIDE = 180


def draw(emoji: str, number: int) -> Image.Image:
    """One picture of an emoji: shapes on a gradient, the emoji turned and tinted, and noise."""
    random = np.random.default_rng((ord(emoji), number))
    corners = random.integers(0, 256, (2, 2, 3)).astype(np.uint8)
    picture = Image.fromarray(corners).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(picture)
    for _ in range(random.integers(0, 8)):
        x, y = random.integers(0, SIDE, 2)
        wide, high = random.integers(5, 60, 2)
        colour = tuple(random.integers(0, 256, 3).tolist())
        random.choice([pen.ellipse, pen.rectangle])((x, y, x + wide, y + high), fill=colour)
    glyph = tinted(sprite(emoji), random)
    side = int(random.uniform(0.35, 0.95) * SIDE)
    glyph = glyph.rotate(random.uniform(-40, 40), Image.Resampling.BICUBIC, expand=True).resize((side, side))
    if random.random() < 0.5:
        glyph = glyph.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    picture.paste(glyph, tuple(random.integers(0, SIDE - side + 1, 2).tolist()), glyph)
    noisy = np.asarray(picture) + random.normal(0, random.uniform(0, 20), (SIDE, SIDE, 1))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def tinted(glyph: Image.Image, random: np.random.Generator) -> Image.Image:
    """An emoji of another saturation, brightness and contrast, with the same transparency."""
    colours, alpha = glyph.convert("RGB"), glyph.getchannel("A")
    for change in (ImageEnhance.Color, ImageEnhance.Brightness, ImageEnhance.Contrast):
        colours = change(colours).enhance(random.uniform(0.4, 1.5))
    colours.putalpha(alpha)
    return colours


@cache
def sprite(emoji: str) -> Image.Image:
    """The bitmap of an emoji, cut to its edges."""
    font = ImageFont.truetype(FONT, STRIKE)
    picture = Image.new("RGBA", (2 * STRIKE, 2 * STRIKE))
    ImageDraw.Draw(picture).text((STRIKE // 2, STRIKE // 2), emoji, font=font, embedded_color=True)
    return picture.crop(picture.getbbox())


def draw_class(to: Path, pictures: int, emoji: str) -> None:
    """The pictures of one emoji, in a folder with its name."""
    folder = to / unicodedata.name(emoji).lower().replace(" ", "_")
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(pictures):
        draw(emoji, number).save(folder / f"{number:05d}.jpg", quality=85)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, default=Path("data/emoji"), help="folder for them")
    parser.add_argument("--pictures", type=int, default=1200, help="of each class")
    options = parser.parse_args()
    with ProcessPoolExecutor() as pool:
        drawn = pool.map(partial(draw_class, options.to, options.pictures), EMOJI)
        for _ in track(drawn, "Drawing", len(EMOJI)):
            pass
