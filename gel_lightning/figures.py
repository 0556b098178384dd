"""Pictures of what a model does: confusion matrix, ROC curve, sheets of pictures with captions.

All functions return a matplotlib figure of their own and touch no global state.
"""

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional
from torchmetrics.functional.classification import binary_auroc, binary_roc

# Blue and vermilion of the Okabe-Ito palette: told apart by colour-blind readers too.
RIGHT, WRONG = "#0072B2", "#D55E00"
COLUMNS, MOST = 6, 24
CELL = (2.1, 2.25)  # width and height in inches of a picture of a sheet with its caption
SHOWN = 190  # side in pixels of that picture at matplotlib's 100 dots an inch


class Caption(NamedTuple):
    """A picture of a sheet: values in [0, 1] of shape ``[1 or 3, H, W]``, its text, and the text's colour."""

    picture: Tensor
    text: str
    colour: str = "black"


def confusion_figure(matrix: Tensor, class_names: Sequence[str], title: str) -> Figure:
    """Draws counts of shape ``[classes, classes]``: a row for each actual class, a column for each predicted."""
    cells = 0.9 * len(class_names)
    figure, axes = _square_axes(cells, left=0.8, bottom=0.7, right=0.8, top=0.5)
    counts = matrix.cpu()
    share = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    axes.imshow(share.numpy(), cmap="Blues", vmin=0, vmax=1)
    for actual in range(len(class_names)):
        for predicted in range(len(class_names)):
            ink = "white" if share[actual, predicted] > 0.5 else "black"
            count = int(counts[actual, predicted])
            axes.text(predicted, actual, str(count), ha="center", va="center", color=ink, size=14)
    axes.set_xticks(range(len(class_names)), class_names)
    axes.set_yticks(range(len(class_names)), class_names, rotation=90, va="center")
    axes.set(xlabel="predicted class", ylabel="actual class", title=title)
    return figure


def roc_figure(probabilities: Tensor, labels: Tensor, class_names: Sequence[str], title: str) -> Figure:
    """Draws the ROC curve of each class against the rest; of the first alone where there are two.

    Args:
        probabilities: shape ``[N, classes]``.
        labels: shape ``[N]``.
        class_names: of the labels, in order.
        title: above the curves.
    """
    figure, axes = _square_axes(3.6, left=0.7, bottom=0.6, right=0.2, top=0.4)
    axes.plot([0, 1], [0, 1], color="0.7", linestyle="--", linewidth=1, label="chance")
    shown = class_names[:1] if len(class_names) == 2 else class_names
    for label, name in enumerate(shown):
        actual = (labels == label).long()
        if 0 < actual.sum() < len(actual):  # a curve needs pictures of both sides
            false_positives, true_positives, _ = binary_roc(probabilities[:, label], actual)
            area = binary_auroc(probabilities[:, label], actual)
            axes.plot(false_positives, true_positives, linewidth=2, label=f"{name}: area {area:.3f}")
    axes.set(xlabel="false positive rate", ylabel="true positive rate", title=title)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.legend(loc="lower right", frameon=False)
    return figure


def sheet_figure(captions: Sequence[Caption], title: str) -> Figure:
    """Draws at most :data:`MOST` pictures in rows of :data:`COLUMNS`, each with its caption above it."""
    captions = captions[:MOST]
    rows = -(-len(captions) // COLUMNS)
    width, height = CELL[0] * COLUMNS, CELL[1] * rows + 0.5
    figure = Figure(figsize=(width, height))
    figure.suptitle(title, y=1 - 0.25 / height, va="center")
    # All pictures are in one system of axes, in inches: axes of their own would take ten times as long.
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    for place, (picture, text, colour) in enumerate(captions):
        row, column = divmod(place, COLUMNS)
        left, top = CELL[0] * column + 0.1, height - 0.5 - CELL[1] * row
        extent = (left, left + CELL[0] - 0.2, top - CELL[1] + 0.1, top - 0.25)
        # Scaled here, to the pixels it gets: matplotlib takes several times as long.
        shown = functional.interpolate(picture[None].float(), size=(SHOWN, SHOWN), mode="bilinear", antialias=True)[0]
        values = shown.permute(1, 2, 0).clamp(0, 1).numpy()
        axes.imshow(values, cmap="gray", vmin=0, vmax=1, extent=extent, interpolation="nearest")
        axes.text((extent[0] + extent[1]) / 2, top - 0.2, text, ha="center", size=9, color=colour)
    axes.set(xlim=(0, width), ylim=(0, height))
    return figure


def _square_axes(side: float, left: float, bottom: float, right: float, top: float) -> tuple[Figure, Axes]:
    """Axes of one side length with margins around them, all in inches: matplotlib's own layouts take seconds."""
    width, height = left + side + right, bottom + side + top
    figure = Figure(figsize=(width, height))
    return figure, figure.add_axes((left / width, bottom / height, side / width, side / height))
