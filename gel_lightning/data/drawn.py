"""Pictures drawn from a seed, in the layout of the real data set, so that the project runs with no network.

A gel is drawn as it comes about: a comb leaves wells, pieces run down the lanes by the logarithm of their
size, a dye makes them shine (or a stain makes them dark), and a camera takes an uneven, grainy photograph.
The look-alikes have rows, stripes and spots but are no gels. They go through the same camera and the same
colours, so that neither mode, colour, grain nor brightness tells the classes apart.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TypeVar

import imagehash
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps
from rich.console import Console
from rich.progress import track

from gel_lightning.core.errors import GelError

Array = NDArray[np.float64]
Choice = TypeVar("Choice")

COUNTS = {"dataset": 46, "test_images": 11}  # pictures of each class, as in the real data set
EXTRA_SEED = 7  # of the pictures that are added to training: others than those of a drawn data set
SIDES = (250, 700)  # shortest and longest side of a picture, pixels
TOO_ALIKE = 6  # pictures whose perceptual hashes differ in no more of the 64 bits count as the same
CROWDING = 1.25  # how much large pieces crowd together below the wells; 1 is no crowding
MARGIN = 48  # white beside a gel that is printed as a figure, pixels: room for the sizes
WORDS = ("a", "and", "band", "buffer", "cell", "count", "figure", "from", "gel", "in", "lane", "light", "of")

# Ink for dark, middle and light grey. The first two rows are the greys of cameras and scanners.
Tint = tuple[str, str, str]
UV_TINTS: tuple[Tint, ...] = (
    ("#000000", "#80848c", "#ffffff"),
    ("#050505", "#85827a", "#fffdf8"),
    ("#080200", "#d2581a", "#fff0c0"),  # ethidium bromide through an orange filter
    ("#02060c", "#2f9a48", "#eaffc8"),  # SYBR green
    ("#050828", "#3f62d8", "#f0f8ff"),  # a blue light table
)
PAPER_TINTS: tuple[Tint, ...] = (
    ("#000000", "#80848c", "#ffffff"),
    ("#0a0806", "#8c8578", "#fffdf4"),
    ("#10143c", "#6f80b8", "#f4f6fb"),  # Coomassie blue
    ("#2a1608", "#b08a5c", "#fff8ea"),  # silver
)


@dataclass(frozen=True)
class Ladder:
    """A size marker, and the range of the gel that suits it; sizes in thousand base pairs (or daltons)."""

    rungs: tuple[float, ...]
    bright: tuple[float, ...]  # the rungs with more in them, for orientation
    slowest: float  # hardly leaves the well
    fastest: float  # is at the end of the run
    unit: str


DNA_LADDERS = (
    Ladder((10, 8, 6, 5, 4, 3, 2.5, 2, 1.5, 1, 0.75, 0.5, 0.25), (3, 1), 30, 0.15, "kb"),
    Ladder((10, 7, 5, 4, 3, 2, 1.5, 1, 0.7, 0.5, 0.4, 0.3, 0.2, 0.1), (5, 1.5, 0.5), 30, 0.07, "kb"),
    Ladder((1.5, 1.2, 1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1), (1, 0.5), 7, 0.06, "bp"),
)
PROTEINS = Ladder((250, 150, 100, 75, 50, 37, 25, 20, 15, 10), (75, 25), 450, 8, "kDa")


@dataclass(frozen=True)
class Band:
    """Pieces of one size in a lane: ``amount`` 1 is bright; ``lead`` and ``trail`` widen its two edges."""

    size: float
    amount: float
    lead: float = 0.9
    trail: float = 1.15


@dataclass(frozen=True)
class Gel:
    """Where things are in a gel, pixels. ``across`` and ``down`` (height, width) are turned by the tilt."""

    across: Array
    down: Array
    lanes: Array  # (lanes,) centres
    lane_width: float
    wells: float
    run: float  # from the wells to the fastest pieces
    thickness: float
    smile: float  # the part of its way by which a band at the side lags behind the middle
    bend: float  # by how many thicknesses the ends of a band run ahead of its own middle
    ladder: Ladder

    def where(self, size: float, across: Array | float) -> Array:
        """How far down (pixels) pieces of ``size`` are, at ``across`` pixels from the left (any shape)."""
        lag = self.smile * np.square(2 * np.asarray(across) / self.across.shape[1] - 1)
        way = migration(size, self.ladder.slowest, self.ladder.fastest)
        return np.asarray(self.wells + self.run * way * (1 - lag))


def migration(size: Array | float, slowest: float, fastest: float) -> Array:
    """How far pieces run, as a part of the whole run.

    Args:
        size: base pairs or daltons, a number or an array of any shape.
        slowest: the size that stays in the well, in the unit of ``size``.
        fastest: the size that reaches the end of the run, in the unit of ``size``.

    Returns:
        Same shape as ``size``: 0 at ``slowest`` and above, 1 at ``fastest``; in between it goes with the
        logarithm of the size, the large ones crowding a little.
    """
    way = np.log(slowest / np.asarray(size)) / np.log(slowest / fastest)
    return np.asarray(np.maximum(way, 0) ** CROWDING)


# What is in the lanes: one list of bands a lane.
Lanes = list[list[Band]]


def _pcr(rng: Generator, count: int, ladder: Ladder) -> Lanes:
    """One product, there or not, and the fuzzy primers that nearly every real one has at the end."""
    product = _log_uniform(rng, 2.5 * ladder.rungs[-1], 0.6 * ladder.rungs[0])
    second, primers, works = rng.choice([0, 0.5, 1]), rng.uniform(0, 0.6), rng.uniform(0.3, 1)
    lanes = [[Band(1.15 * ladder.fastest, primers * rng.uniform(0.6, 1), 2, 3.5)] for _ in range(count)]
    for lane in lanes:
        if rng.random() < works:
            amount = rng.uniform(0.3, 1.3)
            lane += [Band(product, amount), Band(0.88 * product, second * amount)]
    return lanes


def _digest(rng: Generator, count: int, ladder: Ladder) -> Lanes:
    """DNA cut into pieces: they add up to the whole, and a longer piece holds more dye."""
    whole, lanes = _log_uniform(rng, 0.5 * ladder.rungs[0], 1.5 * ladder.rungs[0]), []
    for _ in range(count):
        parts, loaded = rng.dirichlet(np.full(rng.integers(1, 6), 1.5)), rng.uniform(0.6, 1.4)
        lanes.append([Band(whole * part, loaded * part**0.6) for part in parts if part > 0.02])
    return lanes


def _dilution(rng: Generator, count: int, ladder: Ladder) -> Lanes:
    """The same sample, thinner from lane to lane."""
    product = _log_uniform(rng, 2 * ladder.rungs[-1], 0.7 * ladder.rungs[0])
    thinner, amount = rng.uniform(0.55, 0.85), rng.uniform(1, 2)
    return [[Band(product, amount * thinner**n, 0.9 + 0.6 * thinner**n)] for n in range(count)]


def _genomes(rng: Generator, count: int, ladder: Ladder) -> Lanes:
    """A thick band that hardly moves, more or less broken into a smear."""
    lanes = []
    for _ in range(count):
        amount, broken = rng.uniform(0.3, 1.2), rng.random()
        middle = _log_uniform(rng, 2 * ladder.rungs[-1], 0.4 * ladder.rungs[0])
        smear = Band(middle, 0.7 * amount * broken, rng.uniform(10, 22), rng.uniform(15, 30))
        lanes.append([Band(1.1 * ladder.rungs[0], amount * (1.1 - broken), 1.6, 2.2), smear])
    return lanes


def _lysates(rng: Generator, count: int, ladder: Ladder) -> Lanes:
    """All proteins of a cell, alike in every lane but for one that is made more and more."""
    sizes = [_log_uniform(rng, ladder.rungs[-1], ladder.rungs[0]) for _ in range(rng.integers(14, 28))]
    amounts, made, lanes = rng.gamma(1.2, 0.22, len(sizes)), rng.uniform(0.6, 1.8), []
    for n in range(count):
        loaded = rng.uniform(0.5, 1.2) * amounts * rng.uniform(0.7, 1.2, len(sizes))
        lane = [Band(size, amount) for size, amount in zip(sizes, loaded, strict=True)]
        lanes.append([*lane, Band(sizes[0], made * n / count, 1.5, 1.5)])
    return lanes


DNA_SAMPLES = (_pcr, _pcr, _pcr, _digest, _digest, _dilution, _genomes)  # most gels show PCR


# The gel, and the light that it sends out.
def _lay_out(rng: Generator, width: int, height: int, ladder: Ladder, tilt: float) -> Gel:
    y, x = np.mgrid[0:height, 0:width] - np.array([height / 2, width / 2])[:, None, None]
    left, right = rng.uniform(0.02, 0.12, 2) * width
    count = max(4, int((width - left - right) / rng.uniform(26, 62)))
    pitch = (width - left - right) / count
    cropped = rng.random() < 0.12  # below the wells
    wells = height * (rng.uniform(-0.1, -0.04) if cropped else rng.uniform(0.06, 0.16))
    run = (height - wells) * rng.uniform(0.72, 0.98)
    return Gel(
        across=width / 2 + x * np.cos(tilt) + y * np.sin(tilt),
        down=height / 2 - x * np.sin(tilt) + y * np.cos(tilt),
        lanes=left + pitch * (np.arange(count) + 0.5),
        lane_width=pitch * rng.uniform(0.62, 0.82),
        wells=wells,
        run=run,
        thickness=max(1.2, run * rng.uniform(0.004, 0.008)),
        smile=rng.normal(0, 0.025),
        bend=rng.normal(-0.3, 0.35),
        ladder=ladder,
    )


def _add_band(rng: Generator, stain: Array, gel: Gel, lane: float, band: Band) -> None:
    """Adds one band to ``stain`` (height, width), touching only the pixels near it."""
    lead, trail, half = gel.thickness * band.lead, gel.thickness * band.trail, gel.lane_width / 2
    place, slack = float(gel.where(band.size, lane)), 16 + 0.04 * gel.run  # slack for tilt and smile
    rows = slice(max(0, int(place - 3.5 * trail - slack)), max(0, int(place + 3.5 * lead + slack)))
    columns = slice(max(0, int(lane - 1.5 * half - slack)), max(0, int(lane + 1.5 * half + slack)))
    across = gel.across[rows, columns]
    x = (across - lane) / half
    bend, skew = gel.bend + rng.normal(0, 0.08), rng.normal(0, 0.08)  # no two bands are quite alike
    y = gel.down[rows, columns] - gel.where(band.size, across) - gel.thickness * (bend * x**2 + skew * x)
    edge = np.where(y < 0, trail, lead)
    stain[rows, columns] += band.amount * np.exp(-0.5 * (y / edge) ** 2) / (1 + np.abs(x) ** 9)


def _stained(rng: Generator, gel: Gel, samples: Lanes, ladders: Sequence[int]) -> Array:
    """Stain (height, width) of the samples, and of ladders in the lanes numbered ``ladders``."""
    stain = np.zeros_like(gel.down)
    strength, haze = rng.uniform(0.45, 1), rng.exponential(0.05)  # haze: what got stuck along the lane
    middle = (gel.ladder.slowest * gel.ladder.fastest) ** 0.5
    faint = rng.uniform(0.35, 0.65, len(gel.ladder.rungs))
    amounts = np.where(np.isin(gel.ladder.rungs, gel.ladder.bright), 1, faint) * strength
    marker = [Band(size, amount) for size, amount in zip(gel.ladder.rungs, amounts, strict=True)]
    for n, lane in enumerate(gel.lanes):
        sample = [*samples[n], Band(middle, haze * rng.uniform(0.5, 1), 30, 30)] if samples[n] else []
        for band in marker if n in ladders else sample:
            _add_band(rng, stain, gel, lane, band)
    return stain


def _add_wells(rng: Generator, light: Array, gel: Gel) -> None:
    """Puts wells into ``light`` (height, width): a dark slot in a pocket whose rim shines, most so below."""
    half, tall = gel.lane_width / 2, gel.lane_width * rng.uniform(0.12, 0.25)
    depth, rim, place = rng.uniform(0.2, 0.75), rng.uniform(0.02, 0.25), rng.uniform(-0.5, 0.2)
    rows = slice(max(0, int(gel.wells - 3 * tall - 16)), max(0, int(gel.wells + 3 * tall + 16)))
    for lane in gel.lanes:
        columns = slice(max(0, int(lane - 2 * half - 16)), int(lane + 2 * half + 16))
        x, y = (gel.across[rows, columns] - lane) / half, (gel.down[rows, columns] - gel.wells) / tall
        slot = np.exp(-(((y - place - rng.normal(0, 0.1)) / 0.5) ** 2)) / (1 + (x / 0.85) ** 10)
        edge = np.exp(-((((x**4 + y**4) ** 0.25 - 1) / 0.2) ** 2)) * (0.5 + 0.5 * np.tanh(2 * y - 0.3))
        light[rows, columns] *= 1 - depth * rng.uniform(0.6, 1) * slot
        light[rows, columns] += rim * rng.uniform(0.4, 1) * edge


def _background(rng: Generator, gel: Gel) -> Array:
    """Light (height, width) of the gel itself: free dye in steps, shadows of loading dye, dust."""
    height, width = gel.down.shape
    light = rng.uniform(0.06, 0.4) * (1 + 0.35 * _cloud(rng, height, width, 3))
    light *= 1 + rng.uniform(0, 0.06) * _cloud(rng, height, width, 40)
    way = (gel.down - gel.wells) / gel.run
    for place, step in ((0, rng.normal(0, 0.25)), (rng.uniform(0.6, 0.95), rng.normal(0.05, 0.2))):
        light *= 1 + step * np.tanh((way - place) / rng.uniform(0.02, 0.12))
    for place in rng.uniform(0.1, 1, rng.integers(0, 3)):
        light *= 1 - rng.uniform(0.05, 0.3) * np.exp(-(((way - place) / 0.05) ** 2))
    for _ in range(rng.poisson(rng.choice([2, 12, 60]))):
        (y, x), (tall, wide) = rng.integers((height, width)), rng.integers(1, 4, 2)
        light[y : y + tall, x : x + wide] += rng.exponential(0.08)
    return np.maximum(light, 0.01)


def _cut_out(rng: Generator, gel: Gel, light: Array) -> Array:
    """The same light (height, width), of a slab on a darker table, its cut edges shining here and there."""
    height, width = light.shape
    left, top, right, bottom = rng.uniform(0.01, 0.05, 4) * (width, height, width, height)
    sides = (gel.across - left, gel.down - top, width - right - gel.across, height - bottom - gel.down)
    inside = np.minimum(np.minimum(sides[0], sides[1]), np.minimum(sides[2], sides[3]))
    shine = rng.uniform(0.05, 0.25) * np.exp(-((inside / 1.8) ** 2)) * (1 + _cloud(rng, height, width, 6))
    return np.asarray(light * (0.2 + 0.8 / (1 + np.exp(-inside))) + shine)


def _uv_light(rng: Generator, gel: Gel, ladders: Sequence[int]) -> Array:
    """Bright bands in a dark gel: grey (height, width) between 0 and 1."""
    light, combs = _background(rng, gel), [gel]
    height = len(light)
    if height > 320 and len(gel.lanes) > 6 and gel.wells > 0 and rng.random() < 0.3:
        upper = replace(gel, run=0.44 * height - gel.wells / 2, thickness=max(1.2, 0.55 * gel.thickness))
        combs = [upper, replace(upper, wells=gel.wells + 0.48 * height)]
    stain = np.zeros_like(light)
    for comb in combs:
        count = len(gel.lanes)
        samples = _one_of(rng, DNA_SAMPLES)(rng, count, gel.ladder)
        loaded = count - rng.integers(0, count // 3 + 1)
        stain += _stained(rng, comb, [*samples[:loaded], *([] for _ in range(loaded, count))], ladders)
        _add_wells(rng, light, comb)
    if rng.random() < 0.25:
        light = _cut_out(rng, gel, light)
    glow = _blurred(stain, 12) * rng.uniform(0.1, 0.6)
    return np.asarray(1 - np.exp(-rng.uniform(0.6, 2) * (light + stain + glow)))


def _protein_light(rng: Generator, gel: Gel, ladders: Sequence[int]) -> Array:
    """Dark bands in a clear gel on a light table: grey (height, width) between 0 and 1."""
    stain = _stained(rng, gel, _lysates(rng, len(gel.lanes), gel.ladder), ladders)
    way = (gel.down - gel.wells) / gel.run
    stain += rng.uniform(0, 0.5) * np.exp(-(((way - 1.03) / 0.008) ** 2))  # the dye front
    stain += rng.uniform(0, 0.2) * np.exp(-((way / 0.006) ** 2)) + 0.04 * (way < 0)  # the stacking gel
    table = rng.uniform(0.75, 0.97) * (1 + 0.06 * _cloud(rng, len(stain), stain.shape[1], 3))
    return np.asarray(table * np.exp(-rng.uniform(0.9, 1.6) * stain))


# Print, camera and colour.
def _print_lanes(picture: Image.Image, gel: Gel, ladders: Sequence[int], x0: int, y: float, ink: str) -> None:
    pen = ImageDraw.Draw(picture)
    for n, lane in enumerate(gel.lanes):
        name = "M" if n in ladders else f"{n + 1}"
        pen.text((x0 + lane, y), name, fill=ink, font=_font(11), anchor="mm")


def _print_sizes(picture: Image.Image, gel: Gel, right: bool, top: int) -> None:
    """Writes the sizes of the ladder beside it, each with a tick, where they have room."""
    pen, (edge, step) = ImageDraw.Draw(picture), (picture.width - MARGIN, 1) if right else (MARGIN, -1)
    last = -1.0
    for size in gel.ladder.rungs:
        y = top + float(gel.where(size, gel.lanes[-1 if right else 0]))
        if top + 5 < y < picture.height - 8 and y - last > 10:
            name = f"{size * 1000 if gel.ladder.unit == 'bp' else size:g}"
            name += f" {gel.ladder.unit}" if last < 0 else ""
            pen.line((edge, y, edge + 4 * step, y), fill="black")
            pen.text((edge + 6 * step, y), name, "black", _font(10), anchor="lm" if right else "rm")
            last = y


def _photographed(rng: Generator, grey: Array, tints: Sequence[Tint]) -> Image.Image:
    """What a camera makes of ``grey`` (height, width; 0 to 1): uneven light, grain, blur, a tint or none."""
    height, width = grey.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    light = 1 - rng.uniform(0, 0.25) * (x**2 + y**2) / 2 + rng.uniform(-0.1, 0.1) * x
    grain = rng.choice([0.6, 1.5, 4]) * (0.4 + np.sqrt(np.maximum(grey, 0))) * rng.standard_normal(grey.shape)
    values = np.clip(255 * grey * light + grain, 0, 255).astype(np.uint8)
    picture = Image.fromarray(values).filter(ImageFilter.GaussianBlur(rng.uniform(0, 1)))
    if rng.random() < 0.35:
        return picture
    dark, middle, bright = _one_of(rng, tints[:2] if rng.random() < 0.5 else tints)
    return ImageOps.colorize(picture, dark, bright, middle)


def draw_gel(rng: Generator) -> Image.Image:
    """Draws one gel electrophoresis picture.

    Args:
        rng: where all chance comes from; it is advanced.

    Returns:
        A picture of mode ``"L"`` or ``"RGB"``, each side within ``SIDES`` pixels.
    """
    width, height = _size(rng)
    protein, right = rng.random() < 0.15, rng.random() < 0.3
    labels = _one_of(rng, ("none", "none", "none", "numbers", "figure"))
    border = (0, 0, 0, 0)  # left, top, right, bottom
    if labels == "figure":
        border = (6, 22, MARGIN, 6) if right else (MARGIN, 22, 6, 6)
    width, height = width - border[0] - border[2], height - border[1] - border[3]
    tilt = np.radians(rng.normal(0, 0.9)) if labels == "none" else 0.0  # who labels a gel sets it straight
    gel = _lay_out(rng, width, height, PROTEINS if protein else _one_of(rng, DNA_LADDERS), tilt)
    last = len(gel.lanes) - 1
    ladders = [last] if right else _one_of(rng, ([0], [0], [0, last], [0, last // 2]))
    if protein:
        picture, ink = _photographed(rng, _protein_light(rng, gel, ladders), PAPER_TINTS), "black"
    elif rng.random() < 0.2:  # printed the other way round, which spares ink and shows faint bands
        picture, ink = _photographed(rng, 1 - 0.9 * _uv_light(rng, gel, ladders), PAPER_TINTS[:2]), "black"
    else:
        picture, ink = _photographed(rng, _uv_light(rng, gel, ladders), UV_TINTS), "white"
    if labels == "numbers":
        _print_lanes(picture, gel, ladders, 0, max(7.0, gel.wells - 0.25 * gel.lane_width - 9), ink)
    elif labels == "figure":
        picture = ImageOps.expand(picture, border, "white")
        _print_lanes(picture, gel, ladders, border[0], border[1] / 2, "black")
        _print_sizes(picture, gel, right, border[1])
    return picture


# Look-alikes.
def _shown(rng: Generator, grey: Array) -> Image.Image:
    """``grey`` (height, width; 0 to 1) photographed at some contrast, as it is or the other way round."""
    low, high = rng.uniform(0, 0.35), rng.uniform(0.5, 1)
    grey = 1 - grey if rng.random() < 0.6 else grey
    return _photographed(rng, low + (high - low) * grey, _one_of(rng, (UV_TINTS, PAPER_TINTS)))


def _white_page(rng: Generator) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    page = Image.new("L", _size(rng), 255)
    return page, ImageDraw.Draw(page)


def _axes(rng: Generator, pen: ImageDraw.ImageDraw, width: int, height: int) -> tuple[int, int, int, int]:
    """Draws axes, ticks and titles; returns left, top, right and bottom of the plot, pixels."""
    left, top, right, bottom = int(0.14 * width), int(0.1 * height), int(0.95 * width), int(0.86 * height)
    pen.line((left, top, left, bottom, right, bottom), fill=0, width=2)
    count, most = _one_of(rng, (4, 5, 8)), _one_of(rng, (1, 10, 40, 100))
    for n in range(count + 1):
        y = bottom - (bottom - top) * n / count
        pen.line((left - 4, y, left, y), fill=0)
        pen.text((left - 7, y), f"{most * n / count:g}", fill=0, font=_font(10), anchor="rm")
    pen.text(((left + right) / 2, top / 2), _words(rng, 3).capitalize(), 0, _font(14), anchor="mm")
    pen.text(((left + right) / 2, height - 10), _words(rng, 2), 0, _font(11), anchor="mm")
    return left, top, right, bottom


def _bar_chart(rng: Generator) -> Image.Image:
    page, pen = _white_page(rng)
    left, top, right, bottom = _axes(rng, pen, *page.size)
    count, greys = int(rng.integers(4, 15)), rng.integers(30, 220, rng.integers(1, 5))
    pitch = (right - left) / count
    for n in range(count):
        x, y = left + pitch * (n + 0.2), float(bottom)
        for grey in greys:
            foot, y = y, y - (bottom - top) * rng.uniform(0.03, 0.95) / len(greys)
            pen.rectangle((x, y, x + 0.65 * pitch, foot), fill=int(grey))
        pen.text((x + 0.3 * pitch, bottom + 8), chr(ord("A") + n), 0, _font(10), anchor="mm")
    return _shown(rng, _grey(page))


def _line_plot(rng: Generator) -> Image.Image:
    page, pen = _white_page(rng)
    left, top, right, bottom = _axes(rng, pen, *page.size)
    x = np.linspace(0, 1, 200)
    for _ in range(rng.integers(1, 5)):
        curve = rng.uniform(0, 0.3) + rng.uniform(0, 0.4) * x + rng.normal(0, rng.choice([0, 0.02]), 200)
        for place, wide in zip(rng.random(6), rng.uniform(0.01, 0.15, 6), strict=True):
            curve += rng.uniform(0, 0.6) * np.exp(-(((x - place) / wide) ** 2))
        y = bottom - (bottom - top) * curve / max(1, curve.max())
        points = np.stack([left + (right - left) * x, y], axis=1).ravel().tolist()
        pen.line(points, fill=int(rng.integers(0, 150)), width=int(rng.integers(1, 4)))
    return _shown(rng, _grey(page))


def _barcode(rng: Generator) -> Image.Image:
    page, pen = _white_page(rng)
    width, height = page.size
    left, top, bottom = rng.uniform(0.05, 0.15) * width, rng.uniform(0.05, 0.3) * height, 0.8 * height
    unit, x = rng.uniform(1.5, 4), left
    while x < width - left:
        bar, gap = unit * rng.integers(1, 5, 2)
        pen.rectangle((x, top, x + bar, bottom), fill=0)
        x += bar + gap
    digits = "  ".join(str(n) for n in rng.integers(0, 10, 12))
    pen.text((width / 2, bottom + 14), digits, fill=0, font=_font(16), anchor="mm")
    turned = page.rotate(rng.choice([0, 0, 90]) + rng.normal(0, 2), Image.Resampling.BICUBIC, fillcolor=255)
    return _shown(rng, _grey(turned))


def _text_page(rng: Generator) -> Image.Image:
    page, pen = _white_page(rng)
    width, height = page.size
    size, columns = int(rng.integers(9, 20)), int(rng.integers(1, 3))
    room = 0.88 * width / columns
    for left in 0.06 * width + room * np.arange(columns):
        for y in np.arange(0.08 * height, 0.92 * height, 1.35 * size):
            line = _words(rng, 20) if rng.random() > 0.1 else ""  # else a new paragraph
            while pen.textlength(line, _font(size)) > room - 10:
                line = line.rpartition(" ")[0]
            pen.text((left, y), line, fill=0, font=_font(size))
    return _shown(rng, _grey(page))


def _waves(rng: Generator) -> tuple[Array, Array, float]:
    """Waves along and across a turned grid (both height, width; -1 to 1), and how sharp to draw them."""
    width, height = _size(rng)
    y, x = np.mgrid[0:height, 0:width]
    angle, period = rng.uniform(0, np.pi), rng.uniform(12, 70)
    scale = 2 * np.pi / period * (1 + rng.uniform(0, 1.2) * y / height)  # the far end of a slope is finer
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    return np.sin(scale * along), np.sin(scale * across), _one_of(rng, (1.0, 3.0, 12.0))


def _stripes(rng: Generator) -> Image.Image:
    along, _, sharp = _waves(rng)
    return _shown(rng, 0.5 + 0.5 * np.tanh(sharp * along))


def _checkers(rng: Generator) -> Image.Image:
    along, across, sharp = _waves(rng)
    return _shown(rng, 0.5 + 0.5 * np.tanh(2 * sharp * along * across))


def _spectrogram(rng: Generator) -> Image.Image:
    """The harmonics of a voice that starts and stops, in noise that falls with the pitch."""
    width, height = _size(rng)
    pitch = np.linspace(1, 0, height)[:, None]
    tone = rng.uniform(0.05, 0.15) * (1 + 0.35 * _cloud(rng, 1, width, 6))
    voice = np.clip(4 * _cloud(rng, 1, width, int(rng.integers(6, 16))) + 1, 0, 1)
    harmonics = (0.5 + 0.5 * np.cos(2 * np.pi * pitch / tone)) ** 4 * (0.6 + 0.4 * _cloud(rng, height, 1, 8))
    noise = rng.exponential(0.12, (height, width)) + 0.15
    return _shown(rng, 1 - np.clip((voice * harmonics + noise) * np.exp(-1.5 * pitch), 0, 1))


def _cells(rng: Generator) -> Image.Image:
    page, pen = _white_page(rng)
    angles = np.linspace(0, 2 * np.pi, 40)
    circle, size = np.stack([np.cos(angles), np.sin(angles)], axis=1), rng.uniform(9, 40)
    body, rim, core = (int(grey) for grey in rng.integers(0, 220, 3))
    for _ in range(rng.integers(12, 70)):
        centre, turn = rng.random(2) * page.size, rng.uniform(0, 2 * np.pi)
        wobble = 1 + 0.2 * np.sin(2 * angles + turn) + 0.08 * np.sin(3 * angles + 2 * turn)
        wall = size * rng.uniform(0.7, 1.3) * wobble[:, None] * circle
        pen.polygon((centre + wall).ravel().tolist(), fill=body, outline=rim, width=2)
        pen.polygon((centre + rng.normal(0, 2, 2) + 0.35 * wall).ravel().tolist(), fill=core)
    return _shown(rng, _grey(page.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 4)))))


def _gradient(rng: Generator) -> Image.Image:
    width, height = _size(rng)
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    slope = rng.normal(0, 1, 3)
    field = slope[0] * x + slope[1] * y + slope[2] * np.hypot(x - rng.random(), y - rng.random())
    field += rng.uniform(0, 0.8) * _cloud(rng, height, width, int(rng.integers(3, 9)))
    return _shown(rng, (field - field.min()) / np.ptp(field))


LOOK_ALIKES: dict[str, Callable[[Generator], Image.Image]] = {
    "bar_chart": _bar_chart,
    "line_plot": _line_plot,
    "barcode": _barcode,
    "text_page": _text_page,
    "stripes": _stripes,
    "checkers": _checkers,
    "spectrogram": _spectrogram,
    "cells": _cells,
    "gradient": _gradient,
}


def draw_data_set(to: str | Path, seed: int = 42) -> Path:
    """Draws a whole data set into ``to/dataset`` and ``to/test_images``, or nothing.

    Each of the two gets folders ``gel`` and ``not_gel`` with ``COUNTS`` pictures: ``gel_1.png``,
    ``gel_2.jpg`` and so on, the kinds of look-alikes in turn. No two pictures are near-duplicates.

    Args:
        to: the folder to draw into; made if it is not there.
        seed: not negative. The same seed gives the same bytes, with the same numpy and Pillow.

    Returns:
        ``to``.

    Raises:
        GelError: ``to/dataset`` or ``to/test_images`` is there already, or ``to`` cannot be made.
        ValueError: ``seed`` is negative.
        OSError: ``to`` cannot be written, or the disk is full.
    """
    return _draw_whole(Path(to), COUNTS, seed)


def draw_extra(folder: Path, count: int) -> None:
    """Draws folders ``gel`` and ``not_gel`` with ``count`` pictures each into ``folder``, or nothing.

    They are drawn from :data:`EXTRA_SEED`, always the same ones. No two of them are near-duplicates.

    Raises:
        GelError: ``folder`` is there already, or cannot be made.
        OSError: it cannot be written, or the disk is full.
    """
    _draw_whole(folder.parent, {folder.name: count}, EXTRA_SEED)


def _draw_whole(to: Path, counts: Mapping[str, int], seed: int) -> Path:
    """Draws ``to/NAME`` with so many pictures of each class for each of ``counts``, all of them or none."""
    for name in counts:
        if (to / name).exists():
            raise GelError(f"{to / name} is there already: name another folder to draw into")
    made = [folder for folder in (to, *to.parents) if not folder.exists()]
    try:
        to.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GelError(f"{to} cannot be made ({error.strerror}): name another folder to draw into") from error
    try:
        # Inside `to`, beside its folders: `to` may be a mount, and nothing can be renamed into a mount.
        with tempfile.TemporaryDirectory(prefix=".drawing-", dir=to) as temporary:
            _draw_all(Path(temporary), counts, seed)
            renamed: list[str] = []
            try:
                for name in counts:
                    (Path(temporary) / name).rename(to / name)
                    renamed.append(name)
            except BaseException:
                for name in renamed:
                    (to / name).rename(Path(temporary) / name)
                raise
    except BaseException:
        with suppress(OSError):  # somebody else put something there meanwhile
            for folder in made:
                folder.rmdir()
        raise
    return to


def _draw_all(folder: Path, counts: Mapping[str, int], seed: int) -> None:
    kinds, jobs = list(LOOK_ALIKES.values()), []
    for part, count in counts.items():
        for name in ("gel", "not_gel"):
            (folder / part / name).mkdir(parents=True)
            for n in range(count):
                draw = draw_gel if name == "gel" else kinds[n % len(kinds)]
                jobs.append((folder / part / name / f"{name}_{n + 1}", draw))
    hashes: list[imagehash.ImageHash] = []
    console = Console(stderr=True)
    bar = track(jobs, "drawing pictures", console=console, transient=True, disable=not console.is_terminal)
    for path, draw in bar:
        rng = np.random.default_rng([seed, len(hashes)])
        picture = draw(rng)
        look = imagehash.phash(picture)
        while any(look - other <= TOO_ALIKE for other in hashes):
            picture = draw(rng)
            look = imagehash.phash(picture)
        hashes.append(look)
        _save(rng, picture, path)


def _save(rng: Generator, picture: Image.Image, path: Path) -> None:
    """Saves as JPEG or as PNG, some of these with an alpha channel, as screenshots have."""
    if rng.random() < 0.4:
        picture.save(path.with_suffix(".jpg"), quality=int(rng.integers(60, 96)))
    else:
        alpha = picture.mode == "RGB" and rng.random() < 0.5
        (picture.convert("RGBA") if alpha else picture).save(path.with_suffix(".png"), compress_level=1)


# Small tools.
def _size(rng: Generator) -> tuple[int, int]:
    """Width and height, pixels: gels are cropped to any shape."""
    shape, area = np.exp(rng.normal(0.05, 0.3)), rng.uniform(300, 520) ** 2
    width, height = np.clip([np.sqrt(area * shape), np.sqrt(area / shape)], *SIDES)
    return int(width), int(height)


def _log_uniform(rng: Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _one_of(rng: Generator, choices: Sequence[Choice]) -> Choice:
    return choices[int(rng.integers(len(choices)))]


def _words(rng: Generator, count: int) -> str:
    return " ".join(rng.choice(WORDS, count))


def _cloud(rng: Generator, height: int, width: int, hills: int) -> Array:
    """Smooth chance (height, width), about -1 to 1, with up to so many hills a side."""
    coarse = rng.uniform(-1, 1, (min(hills, height), min(hills, width))).astype(np.float32)
    return _grey(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), white=1)


def _blurred(field: Array, pixels: int) -> Array:
    """``field`` (height, width) without what is finer than so many pixels: made small, and large again."""
    picture = Image.fromarray(field.astype(np.float32))
    small = picture.resize((picture.width // pixels, picture.height // pixels), Image.Resampling.BOX)
    return _grey(small.resize(picture.size, Image.Resampling.BICUBIC), white=1)


def _grey(picture: Image.Image, white: float = 255) -> Array:
    return np.asarray(picture, dtype=np.float64) / white


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
