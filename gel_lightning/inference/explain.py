"""Heat maps of what an answer rests on, by occlusion: all that this needs is the model's answers."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gel_lightning.inference.exported import ExportedModel

CELLS, PATCH = 10, 2
"""Cells of a side of the grid, and of the patch that moves over it cell by cell: 81 places."""
BATCH = 27
LEAST_DROP = 0.5
"""Drop of log-odds that is shown at full heat at least: what matters less than this anywhere stays pale."""
SMALLEST = 1e-9
"""Probability below which there is no difference."""


def heat_map(model: ExportedModel, picture: Image.Image, class_name: str) -> NDArray[np.uint8]:
    """Finds the places that speak for a class.

    A patch of the picture's mean grey covers one place after another. The heat of a place is how far that lowers the
    log-odds of the class, averaged over the patches that cover the place (Zeiler and Fergus 2014). Where it raises
    them, the heat is 0.

    Args:
        model: the classifier.
        picture: of mode ``"L"`` and any size.
        class_name: the class.

    Returns:
        From 0 to 255, shape ``[side, side]``, where side is that of the model's input. 255 is the strongest drop in the
        picture, or 0.5 if no drop is larger. The map is spread over the whole picture, as the model's input is.

    Raises:
        ValueError: the model has no such class.
    """
    side, label = model.image_size, model.class_names.index(class_name)
    square = np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR))
    edges = np.linspace(0, side, CELLS + 1).round().astype(int)
    places = [(row, column) for row in range(CELLS - PATCH + 1) for column in range(CELLS - PATCH + 1)]
    pictures = np.repeat(square[None, None], len(places) + 1, axis=0)  # the last one is left whole
    for covered, (row, column) in zip(pictures[:, 0], places, strict=False):
        covered[edges[row] : edges[row + PATCH], edges[column] : edges[column + PATCH]] = round(square.mean())
    odds = np.concatenate([_log_odds(model(batch), label) for batch in np.array_split(pictures, len(places) // BATCH)])
    drops, times = np.zeros((CELLS, CELLS)), np.zeros((CELLS, CELLS))
    for (row, column), drop in zip(places, odds[-1] - odds[:-1], strict=True):
        drops[row : row + PATCH, column : column + PATCH] += drop
        times[row : row + PATCH, column : column + PATCH] += 1
    heat = (drops / times).clip(0)
    cells = Image.fromarray((255 * heat / max(heat.max(), LEAST_DROP)).round().astype(np.uint8))
    return np.asarray(cells.resize((side, side), Image.Resampling.BICUBIC))


def _log_odds(probabilities: NDArray[np.float32], label: int) -> NDArray[np.float64]:
    """Of a class against all others, shape ``[N]``; of the others' sum, which near 1 is exacter than the rest to 1."""
    shares = probabilities.astype(np.float64).clip(SMALLEST)
    odds: NDArray[np.float64] = np.log(shares[:, label]) - np.log(np.delete(shares, label, axis=1).sum(axis=1))
    return odds
