"""A whole data set of drawn gels and look-alikes, written to disk completely or not at all."""

import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import imagehash
import numpy as np
from numpy.random import Generator
from PIL import Image
from rich.console import Console
from rich.progress import track

from gel_lightning.core.errors import GelError
from gel_lightning.data.drawn.gels import draw_gel
from gel_lightning.data.drawn.lookalikes import LOOK_ALIKES

COUNTS = {"dataset": 46, "test_images": 11}  # pictures of each class, as in the real data set
EXTRA_SEED = 7  # of the pictures added to training: different ones than in a drawn data set
TOO_ALIKE = 6  # bits (of 64) up to which perceptual hashes count as the same picture


def draw_data_set(to: str | Path, seed: int = 42) -> Path:
    """Draws a data set into ``to/dataset`` and ``to/test_images``, completely or not at all.

    Each gets folders ``gel`` and ``not_gel`` with ``COUNTS`` pictures (``gel_1.png``, ``gel_2.jpg``, ...); the kinds of
    look-alikes take turns. No two pictures are near-duplicates.

    Args:
        to: the folder to draw into; made if it is not there.
        seed: not negative. The same seed gives the same bytes with the same versions of numpy and Pillow.

    Returns:
        ``to``.

    Raises:
        GelError: ``to/dataset`` or ``to/test_images`` is there already, or ``to`` cannot be made.
        ValueError: ``seed`` is negative.
        OSError: ``to`` cannot be written, or the disk is full.
    """
    return _draw_whole(Path(to), COUNTS, seed)


def draw_extra(folder: Path, count: int) -> None:
    """Draws folders ``gel`` and ``not_gel`` with ``count`` pictures each into ``folder``, completely or not at all.

    They are always the same, drawn from :data:`EXTRA_SEED`. No two of them are near-duplicates.

    Raises:
        GelError: ``folder`` is there already, or cannot be made.
        OSError: it cannot be written, or the disk is full.
    """
    _draw_whole(folder.parent, {folder.name: count}, EXTRA_SEED)


def _draw_whole(to: Path, counts: Mapping[str, int], seed: int) -> Path:
    """Draws folders ``to/NAME``, each with the number of pictures per class that ``counts`` gives, or none at all."""
    for name in counts:
        if (to / name).exists():
            raise _there(to / name)
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
                    _move(Path(temporary) / name, to / name)
                    renamed.append(name)
            except BaseException:
                for name in renamed:
                    (to / name).rename(Path(temporary) / name)
                raise
    except BaseException:
        with suppress(OSError):  # another process may have put something there
            for folder in made:
                folder.rmdir()
        raise
    return to


def _move(drawn: Path, to: Path) -> None:
    try:
        drawn.rename(to)
    except OSError as error:
        if to.exists():  # another run has drawn the same meanwhile
            raise _there(to) from error
        raise


def _there(folder: Path) -> GelError:
    return GelError(f"{folder} is there already: name another folder to draw into")


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
    """Saves as JPEG or as PNG, some PNGs with an alpha channel like screenshots."""
    if rng.random() < 0.4:
        picture.save(path.with_suffix(".jpg"), quality=int(rng.integers(60, 96)))
    else:
        alpha = picture.mode == "RGB" and rng.random() < 0.5
        (picture.convert("RGBA") if alpha else picture).save(path.with_suffix(".png"), compress_level=1)
