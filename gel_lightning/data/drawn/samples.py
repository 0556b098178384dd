"""What is in the lanes of a drawn gel: size markers, PCR products, digests, dilutions, genomes, lysates."""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from gel_lightning.data.drawn.camera import log_uniform


@dataclass(frozen=True)
class Ladder:
    """A size marker and the range of the gel that suits it; sizes in thousand base pairs or daltons."""

    rungs: tuple[float, ...]
    bright: tuple[float, ...]  # rungs that are brighter, for orientation
    slowest: float  # stays in the well
    fastest: float  # reaches the end of the run
    unit: str


DNA_LADDERS = (
    Ladder((10, 8, 6, 5, 4, 3, 2.5, 2, 1.5, 1, 0.75, 0.5, 0.25), (3, 1), 30, 0.15, "kb"),
    Ladder((10, 7, 5, 4, 3, 2, 1.5, 1, 0.7, 0.5, 0.4, 0.3, 0.2, 0.1), (5, 1.5, 0.5), 30, 0.07, "kb"),
    Ladder((1.5, 1.2, 1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1), (1, 0.5), 7, 0.06, "bp"),
)
PROTEINS = Ladder((250, 150, 100, 75, 50, 37, 25, 20, 15, 10), (75, 25), 450, 8, "kDa")


@dataclass(frozen=True)
class Band:
    """Molecules of one size in a lane: ``amount`` 1 is bright; ``lead`` and ``trail`` widen the two edges."""

    size: float
    amount: float
    lead: float = 0.9
    trail: float = 1.15


Lanes = list[list[Band]]  # the bands of each lane


def _pcr(rng: Generator, count: int, ladder: Ladder) -> Lanes:
    """One product, present or not, and the fuzzy primers at the end of nearly every real gel."""
    product = log_uniform(rng, 2.5 * ladder.rungs[-1], 0.6 * ladder.rungs[0])
    second, primers, works = rng.choice([0, 0.5, 1]), rng.uniform(0, 0.6), rng.uniform(0.3, 1)
    lanes = [[Band(1.15 * ladder.fastest, primers * rng.uniform(0.6, 1), 2, 3.5)] for _ in range(count)]
    for lane in lanes:
        if rng.random() < works:
            amount = rng.uniform(0.3, 1.3)
            lane += [Band(product, amount), Band(0.88 * product, second * amount)]
    return lanes


def _digest(rng: Generator, count: int, ladder: Ladder) -> Lanes:
    """DNA cut into fragments that add up to the whole; longer fragments hold more dye."""
    whole, lanes = log_uniform(rng, 0.5 * ladder.rungs[0], 1.5 * ladder.rungs[0]), []
    for _ in range(count):
        parts, loaded = rng.dirichlet(np.full(rng.integers(1, 6), 1.5)), rng.uniform(0.6, 1.4)
        lanes.append([Band(whole * part, loaded * part**0.6) for part in parts if part > 0.02])
    return lanes


def _dilution(rng: Generator, count: int, ladder: Ladder) -> Lanes:
    """One sample, more dilute from lane to lane."""
    product = log_uniform(rng, 2 * ladder.rungs[-1], 0.7 * ladder.rungs[0])
    thinner, amount = rng.uniform(0.55, 0.85), rng.uniform(1, 2)
    return [[Band(product, amount * thinner**n, 0.9 + 0.6 * thinner**n)] for n in range(count)]


def _genomes(rng: Generator, count: int, ladder: Ladder) -> Lanes:
    """Genomic DNA: a thick band that hardly moves, more or less degraded to a smear."""
    lanes = []
    for _ in range(count):
        amount, broken = rng.uniform(0.3, 1.2), rng.random()
        middle = log_uniform(rng, 2 * ladder.rungs[-1], 0.4 * ladder.rungs[0])
        smear = Band(middle, 0.7 * amount * broken, rng.uniform(10, 22), rng.uniform(15, 30))
        lanes.append([Band(1.1 * ladder.rungs[0], amount * (1.1 - broken), 1.6, 2.2), smear])
    return lanes


def lysates(rng: Generator, count: int, ladder: Ladder) -> Lanes:
    """All proteins of a cell, similar in every lane, except one that is expressed more from lane to lane."""
    sizes = [log_uniform(rng, ladder.rungs[-1], ladder.rungs[0]) for _ in range(rng.integers(14, 28))]
    amounts, made, lanes = rng.gamma(1.2, 0.22, len(sizes)), rng.uniform(0.6, 1.8), []
    for n in range(count):
        loaded = rng.uniform(0.5, 1.2) * amounts * rng.uniform(0.7, 1.2, len(sizes))
        lane = [Band(size, amount) for size, amount in zip(sizes, loaded, strict=True)]
        lanes.append([*lane, Band(sizes[0], made * n / count, 1.5, 1.5)])
    return lanes


def fingerprints(rng: Generator, count: int, ladder: Ladder) -> Lanes:
    """Many thin bands, most of them shared by many lanes, as RAPD, AFLP and DGGE give."""
    sizes = [log_uniform(rng, ladder.fastest, ladder.rungs[0]) for _ in range(rng.integers(15, 60))]
    shared, amounts = rng.uniform(0.1, 1, len(sizes)), rng.gamma(1.5, 0.35, len(sizes))
    lanes = []
    for _ in range(count):
        there = rng.random(len(sizes)) < shared
        lanes.append([Band(sizes[n], amounts[n], 0.6, 0.7) for n in np.flatnonzero(there)])
    return lanes


DNA_SAMPLES = (_pcr, _pcr, _pcr, _digest, _digest, _dilution, _genomes)  # most gels show PCR
