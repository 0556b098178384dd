"""Gels drawn from a seed.

A comb leaves wells, molecules run down the lanes by the logarithm of their size, a dye makes them shine or a stain
makes them dark, and a camera takes an uneven, grainy photograph.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageOps

from gel_lightning.data.drawn.camera import (
    PAPER_TINTS,
    UV_TINTS,
    Array,
    blurred,
    font,
    one_of,
    photographed,
    picture_size,
    smooth_noise,
)
from gel_lightning.data.drawn.figures import gel_in_a_figure
from gel_lightning.data.drawn.samples import (
    DNA_LADDERS,
    DNA_SAMPLES,
    PROTEINS,
    Band,
    Ladder,
    Lanes,
    fingerprints,
    lysates,
)
from gel_lightning.data.drawn.scenes import in_strips, on_a_bench

CROWDING = 1.25  # how much large molecules crowd together below the wells; 1 is not at all
MARGIN = 48  # white beside a gel that is printed as a figure, pixels: room for the sizes


@dataclass(frozen=True)
class Gel:
    """The geometry of a gel in pixels. ``across`` and ``down`` (height, width) are coordinates turned by the tilt."""

    across: Array
    down: Array
    lanes: Array  # (lanes,) centres
    lane_width: float
    wells: float
    run: float  # from the wells to the fastest molecules
    thickness: float
    smile: float  # how far a band at the side lags behind one in the middle, as a share of its way
    bend: float  # how far the ends of a band run ahead of its middle, in thicknesses
    ladder: Ladder

    def where(self, size: float, across: Array | float) -> Array:
        """How far down (pixels) molecules of ``size`` are, ``across`` pixels (any shape) from the left."""
        lag = self.smile * np.square(2 * np.asarray(across) / self.across.shape[1] - 1)
        way = migration(size, self.ladder.slowest, self.ladder.fastest)
        return np.asarray(self.wells + self.run * way * (1 - lag))


def migration(size: Array | float, slowest: float, fastest: float) -> Array:
    """How far molecules run, as a share of the whole run.

    Args:
        size: base pairs or daltons, a number or an array of any shape.
        slowest: the size that stays in the well, in the unit of ``size``.
        fastest: the size that reaches the end of the run, in the unit of ``size``.

    Returns:
        Same shape as ``size``: 0 at ``slowest`` and above, 1 at ``fastest``; logarithmic in between, with the
        large sizes a little closer together.
    """
    way = np.log(slowest / np.asarray(size)) / np.log(slowest / fastest)
    return np.asarray(np.maximum(way, 0) ** CROWDING)


def _lay_out(rng: Generator, width: int, height: int, ladder: Ladder, tilt: float, crowded: bool = False) -> Gel:
    """Places lanes and wells; crowded gels have many lanes and are cropped below the wells."""
    y, x = np.mgrid[0:height, 0:width] - np.array([height / 2, width / 2])[:, None, None]
    left, right = rng.uniform(0.02, 0.12, 2) * width
    count = max(4, int((width - left - right) / (rng.uniform(9, 30) if crowded else rng.uniform(26, 62))))
    pitch = (width - left - right) / count
    cropped = crowded or rng.random() < 0.12  # below the wells
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
    bend, skew = gel.bend + rng.normal(0, 0.08), rng.normal(0, 0.08)  # no two bands are exactly alike
    y = gel.down[rows, columns] - gel.where(band.size, across) - gel.thickness * (bend * x**2 + skew * x)
    edge = np.where(y < 0, trail, lead)
    stain[rows, columns] += band.amount * np.exp(-0.5 * (y / edge) ** 2) / (1 + np.abs(x) ** 9)


def _stained(rng: Generator, gel: Gel, samples: Lanes, ladders: Sequence[int]) -> Array:
    """Stain (height, width) of the samples, with ladders in the lanes numbered ``ladders``."""
    stain = np.zeros_like(gel.down)
    strength, haze = rng.uniform(0.45, 1), rng.exponential(0.05)  # haze: what is left along the lane
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
    """Draws wells into ``light`` (height, width): a dark slot in a pocket whose rim shines, brightest below."""
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
    """Light (height, width) of the gel itself: steps of free dye, shadows of loading dye, dust."""
    height, width = gel.down.shape
    light = rng.uniform(0.06, 0.4) * (1 + 0.35 * smooth_noise(rng, height, width, 3))
    light *= 1 + rng.uniform(0, 0.06) * smooth_noise(rng, height, width, 40)
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
    """The same light (height, width) as a slab on a darker table, whose cut edges shine in places."""
    height, width = light.shape
    left, top, right, bottom = rng.uniform(0.01, 0.05, 4) * (width, height, width, height)
    sides = (gel.across - left, gel.down - top, width - right - gel.across, height - bottom - gel.down)
    inside = np.minimum(np.minimum(sides[0], sides[1]), np.minimum(sides[2], sides[3]))
    shine = rng.uniform(0.05, 0.25) * np.exp(-((inside / 1.8) ** 2)) * (1 + smooth_noise(rng, height, width, 6))
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
        samples = one_of(rng, DNA_SAMPLES)(rng, count, gel.ladder)
        loaded = count - rng.integers(0, count // 3 + 1) if rng.random() < 0.92 else rng.integers(0, 3)
        stain += _stained(rng, comb, [*samples[:loaded], *([] for _ in range(loaded, count))], ladders)
        _add_wells(rng, light, comb)
    if rng.random() < 0.25:
        light = _cut_out(rng, gel, light)
    glow = blurred(stain, 12) * rng.uniform(0.1, 0.6)
    exposure = rng.uniform(0.6, 2) if rng.random() < 0.9 else rng.uniform(2, 8)
    return np.asarray(1 - np.exp(-exposure * (light + stain + glow)))


def _protein_light(rng: Generator, gel: Gel, ladders: Sequence[int]) -> Array:
    """Dark bands in a clear gel on a light table: grey (height, width) between 0 and 1."""
    stain = _stained(rng, gel, lysates(rng, len(gel.lanes), gel.ladder), ladders)
    way = (gel.down - gel.wells) / gel.run
    stain += rng.uniform(0, 0.5) * np.exp(-(((way - 1.03) / 0.008) ** 2))  # the dye front
    stain += rng.uniform(0, 0.2) * np.exp(-((way / 0.006) ** 2)) + 0.04 * (way < 0)  # the stacking gel
    table = rng.uniform(0.75, 0.97) * (1 + 0.06 * smooth_noise(rng, len(stain), stain.shape[1], 3))
    return np.asarray(table * np.exp(-rng.uniform(0.9, 1.6) * stain))


def _fingerprint_light(rng: Generator, gel: Gel, ladders: Sequence[int]) -> Array:
    """Many thin bands, dark in a clear gel or bright in a dark one: grey (height, width) between 0 and 1."""
    stain = _stained(rng, gel, fingerprints(rng, len(gel.lanes), gel.ladder), ladders)
    ground = rng.uniform(0.02, 0.3) * (1 + 0.3 * smooth_noise(rng, len(stain), stain.shape[1], 4))
    dark = np.exp(-rng.uniform(0.8, 2) * (stain + ground))
    return np.asarray(dark if rng.random() < 0.6 else 1 - dark)


def _print_lanes(picture: Image.Image, gel: Gel, ladders: Sequence[int], x0: int, y: float, ink: str) -> None:
    pen = ImageDraw.Draw(picture)
    for n, lane in enumerate(gel.lanes):
        name = "M" if n in ladders else f"{n + 1}"
        pen.text((x0 + lane, y), name, fill=ink, font=font(11), anchor="mm")


def _print_sizes(picture: Image.Image, gel: Gel, right: bool, top: int) -> None:
    """Writes the sizes of the ladder beside it, each with a tick, where there is room."""
    pen, (edge, step) = ImageDraw.Draw(picture), (picture.width - MARGIN, 1) if right else (MARGIN, -1)
    last = -1.0
    for size in gel.ladder.rungs:
        y = top + float(gel.where(size, gel.lanes[-1 if right else 0]))
        if top + 5 < y < picture.height - 8 and y - last > 10:
            name = f"{size * 1000 if gel.ladder.unit == 'bp' else size:g}"
            name += f" {gel.ladder.unit}" if last < 0 else ""
            pen.line((edge, y, edge + 4 * step, y), fill="black")
            pen.text((edge + 6 * step, y), name, "black", font(10), anchor="lm" if right else "rm")
            last = y


def draw_gel(rng: Generator) -> Image.Image:
    """Draws one gel electrophoresis picture.

    Args:
        rng: the source of all randomness; it is advanced.

    Returns:
        A picture of mode ``"L"`` or ``"RGB"``, each side within ``SIDES`` pixels.
    """
    width, height = picture_size(rng)
    kind, right = one_of(rng, ("agarose",) * 7 + ("protein",) * 2 + ("fingerprint",)), rng.random() < 0.3
    labels = one_of(rng, ("none", "none", "none", "numbers", "figure"))
    border = (0, 0, 0, 0)  # left, top, right, bottom
    if labels == "figure":
        border = (6, 22, MARGIN, 6) if right else (MARGIN, 22, 6, 6)
    width, height = width - border[0] - border[2], height - border[1] - border[3]
    tilt = np.radians(rng.normal(0, 0.9)) if labels == "none" else 0.0  # labelled gels are straight
    ladder = PROTEINS if kind == "protein" else one_of(rng, DNA_LADDERS)
    gel = _lay_out(rng, width, height, ladder, tilt, crowded=kind == "fingerprint")
    last = len(gel.lanes) - 1
    ladders = [last] if right else one_of(rng, ([0], [0], [0, last], [0, last // 2]))
    if kind == "protein":
        picture, ink = photographed(rng, _protein_light(rng, gel, ladders), PAPER_TINTS), "black"
    elif kind == "fingerprint":
        picture, ink = photographed(rng, _fingerprint_light(rng, gel, ladders), PAPER_TINTS[:2]), "black"
    elif rng.random() < 0.2:  # inverted, as printed to save ink and show faint bands
        picture, ink = photographed(rng, 1 - 0.9 * _uv_light(rng, gel, ladders), PAPER_TINTS[:2]), "black"
    else:
        picture, ink = photographed(rng, _uv_light(rng, gel, ladders), UV_TINTS), "white"
    scene = one_of(rng, ("plain",) * 12 + ("strips", "bench", "bench", "figure", "figure", "figure"))
    if labels == "none" and scene == "bench":
        return on_a_bench(rng, picture)
    if labels == "none" and scene != "plain":
        return (in_strips if scene == "strips" else gel_in_a_figure)(rng, picture, gel.lanes)
    if labels == "numbers":
        _print_lanes(picture, gel, ladders, 0, max(7.0, gel.wells - 0.25 * gel.lane_width - 9), ink)
    elif labels == "figure":
        picture = ImageOps.expand(picture, border, "white")
        _print_lanes(picture, gel, ladders, border[0], border[1] / 2, "black")
        _print_sizes(picture, gel, right, border[1])
    return picture
