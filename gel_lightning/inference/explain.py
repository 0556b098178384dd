"""Heat maps that explain an answer, by occlusion, which needs nothing but the output of the model."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gel_lightning.data.resizing import pixels
from gel_lightning.inference.exported import ExportedModel

CELLS, PATCH = 10, 2
"""Cells per side of the grid, and of the patch that moves over it cell by cell: 81 places."""
BATCH = 27
LEAST_DROP = 0.5
"""The smallest drop of log-odds that is shown at full heat, so that maps of small drops stay pale."""
SMALLEST = 1e-9
"""Smaller probabilities count as this."""


def heat_map(model: ExportedModel, picture: Image.Image, class_name: str) -> NDArray[np.uint8]:
    """Finds the parts of a picture that are evidence for a class.

    A patch of the picture's mean colour is moved over it. The heat of a cell is the drop of the log-odds of
    the class, averaged over the patches that cover the cell (Zeiler and Fergus 2014), or 0 if they rise.

    Args:
        model: the classifier.
        picture: as the model takes it, grey or RGB, of any size.
        class_name: the class.

    Returns:
        Values from 0 to 255, shape ``[side, side]``, where side is that of the model's input. 255 is the largest drop,
        but at least 0.5. The map covers the whole picture, like the model's input.

    Raises:
        ValueError: the model has no such class.
    """
    side, label = model.image_size, model.class_names.index(class_name)
    square = pixels(picture.resize((side, side), Image.Resampling.BILINEAR))
    mean = square.mean(axis=(1, 2), keepdims=True).round().astype(np.uint8)
    edges = np.linspace(0, side, CELLS + 1).round().astype(int)
    places = [(row, column) for row in range(CELLS - PATCH + 1) for column in range(CELLS - PATCH + 1)]
    pictures = np.repeat(square[None], len(places) + 1, axis=0)  # the last one stays uncovered
    for covered, (row, column) in zip(pictures, places, strict=False):
        covered[:, edges[row] : edges[row + PATCH], edges[column] : edges[column + PATCH]] = mean
    odds = np.concatenate([_log_odds(model(batch), label) for batch in np.array_split(pictures, len(places) // BATCH)])
    drops, times = np.zeros((CELLS, CELLS)), np.zeros((CELLS, CELLS))
    for (row, column), drop in zip(places, odds[-1] - odds[:-1], strict=True):
        drops[row : row + PATCH, column : column + PATCH] += drop
        times[row : row + PATCH, column : column + PATCH] += 1
    heat = (drops / times).clip(0)
    cells = Image.fromarray((255 * heat / max(heat.max(), LEAST_DROP)).round().astype(np.uint8))
    return np.asarray(cells.resize((side, side), Image.Resampling.BICUBIC))


def _log_odds(probabilities: NDArray[np.float32], label: int) -> NDArray[np.float64]:
    """Log-odds of a class, shape ``[N]``, from the sum of the others, which is more precise than 1 - p near 1."""
    shares = probabilities.astype(np.float64).clip(SMALLEST)
    odds: NDArray[np.float64] = np.log(shares[:, label]) - np.log(np.delete(shares, label, axis=1).sum(axis=1))
    return odds
