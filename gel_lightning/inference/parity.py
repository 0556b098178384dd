"""Checks that an exported model gives the same probabilities as the PyTorch model."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from gel_lightning.core.errors import GelError
from gel_lightning.data.datasets import picture_values
from gel_lightning.data.drawn.gels import draw_gel
from gel_lightning.data.images import PictureError, read_picture
from gel_lightning.data.picture_files import find_pictures
from gel_lightning.data.resizing import pixels
from gel_lightning.inference.exported import ExportedModel
from gel_lightning.inference.trained import Trained

TOLERANCE = 1e-3
"""The largest difference allowed between probabilities of the exported model and PyTorch."""

NOISE_SIZES = ((224, 224), (37, 900), (700, 50), (1, 1), (1200, 1600))  # height and width


class Checked(NamedTuple):
    """The result of comparing an exported model with PyTorch.

    Attributes:
        pictures: number of pictures compared.
        unreadable: number of pictures that could not be read.
        difference: the largest difference between two probabilities.
    """

    pictures: int
    unreadable: int
    difference: float


def check(content: bytes, trained: Trained, folder: Path | None = None) -> Checked:
    """Compares an exported file with its PyTorch model.

    Args:
        content: of the file.
        trained: the PyTorch model, as used by `gel-fit predict`.
        folder: of pictures to compare on; by default drawn gels, and noise of unusual sizes.

    Raises:
        GelError: a probability differs by more than :data:`TOLERANCE`, an answer differs, or no picture can be read.
    """
    exported = ExportedModel(content)
    pictures, unreadable, largest = 0, 0, 0.0
    given = _drawn(trained.colour) if folder is None else _read(folder, trained.colour)
    for name, picture in given:
        if picture is None:
            unreadable += 1
            continue
        with torch.inference_mode():
            expected = trained.model.predict_step(picture_values(picture, trained.image_size)[None], 0)[0].numpy()
        found = exported(pixels(picture)[None])[0]
        difference = float(abs(found - expected).max())
        # `not <=` also refuses NaN.
        if not difference <= TOLERANCE or found.argmax() != expected.argmax():
            raise GelError(
                f"{name}: the exported model gives other probabilities than PyTorch, by {difference:.2g} where "
                f"{TOLERANCE:g} is allowed; nothing was written (with --half, leave that out)"
            )
        pictures, largest = pictures + 1, max(largest, difference)
    if not pictures:
        raise GelError(f"{folder}: none of {unreadable} pictures can be read; name another folder with --check")
    return Checked(pictures, unreadable, largest)


def _drawn(colour: bool) -> Iterator[tuple[str, Image.Image]]:
    rng = np.random.default_rng(0)
    for number in range(4):
        yield f"drawn gel {number}", draw_gel(rng).convert("RGB" if colour else "L")
    for size in NOISE_SIZES:
        noise = rng.integers(0, 256, (*size, 3) if colour else size, np.uint8)
        yield "noise of {} x {}".format(*size), Image.fromarray(noise)


def _read(folder: Path, colour: bool) -> Iterator[tuple[str, Image.Image | None]]:
    for path in find_pictures(folder).paths:
        try:
            yield str(path), read_picture(path, colour)
        except PictureError:
            yield str(path), None
