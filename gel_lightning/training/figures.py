"""Figures of a model: confusion matrix, ROC curve, sheets of pictures; and the style that all figures share.

All functions create matplotlib figures of their own and change no global state.
"""

import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps, style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import get_font_names
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional
from torchmetrics.functional.classification import binary_auroc, binary_roc

from gel_lightning.training.metrics import ClassMetrics, class_metrics

# Blue and vermilion of the Okabe-Ito palette, which colour-blind readers can distinguish.
RIGHT, WRONG = "#0072B2", "#D55E00"
# A page replaces these four with its own colours, so nothing else may use them.
INK, MUTED, GRID, SURFACE = "#1b1f24", "#57606a", "#dfe3e8", "#ffffff"
# The Okabe-Ito colours with a contrast of 3 to white and near-black, then two that a page replaces.
PALETTE = (RIGHT, WRONG, "#009E73", "#CC79A7", INK, MUTED)
# Text on cells, which have the same colours on any page. Not pure black, which matplotlib omits from SVGs.
ON_LIGHT, ON_DARK = "#060606", "#fcfcfc"
STYLE: dict[str, Any] = {
    **{"font.size": 8.5, "axes.labelsize": 8.5, "axes.titlesize": 8.5, "legend.fontsize": 8.5},
    **{"xtick.labelsize": 8, "ytick.labelsize": 8, "text.parse_math": False, "axes.titlepad": 4},
    "axes.titley": 1.0,  # a fixed place, for which matplotlib need not measure all tick labels
    **{"text.color": INK, "axes.labelcolor": INK, "axes.titlecolor": INK, "axes.edgecolor": MUTED},
    **{"xtick.color": MUTED, "ytick.color": MUTED, "xtick.labelcolor": INK, "ytick.labelcolor": INK},
    **{"axes.facecolor": "none", "figure.facecolor": SURFACE, "savefig.facecolor": "auto"},
    **{"axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6},
    **{"axes.grid": True, "axes.axisbelow": True, "grid.color": GRID, "grid.linewidth": 0.6},
    **{"xtick.major.size": 0, "ytick.major.size": 0, "legend.frameon": False},
    **{"lines.linewidth": 1.4, "lines.markersize": 5, "image.interpolation": "none"},
    **{"svg.fonttype": "none", "svg.hashsalt": "gel-lightning"},
}
# The first covers European scripts; the others are common fonts for Chinese, Japanese and Korean.
FONTS = (
    *("DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC"),
    *("WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback", "Microsoft YaHei", "SimHei", "PingFang SC"),
    *("Hiragino Sans", "Malgun Gothic", "Apple SD Gothic Neo", "Arial Unicode MS"),
)
NUMBERED = 12
"""Classes up to which the cells of a confusion matrix have numbers and each class a ROC curve with its name."""
MOST_CLASSES, NAMED_CLASS = 60, 24
"""How many classes have bars, and how many characters of a name are shown."""
COLUMNS, MOST = 6, 24
CELL = (2.1, 2.42)  # width and height in inches of a picture on a sheet, with its caption and name
NAMED = 34  # characters of a file name that fit below a picture
SHOWN = 190  # side in pixels of a picture on a sheet, at matplotlib's 100 dots per inch


class Caption(NamedTuple):
    """A picture on a sheet: values in [0, 1] of shape ``[1 or 3, H, W]``, a text with its colour, and a name."""

    picture: Tensor
    text: str
    colour: str = "black"
    name: str = ""


@contextmanager
def report_style() -> Iterator[None]:
    """The matplotlib style of a report; the previous settings are restored at the end."""
    with warnings.catch_warnings(), style.context(["default", STYLE | {"font.family": _fonts()}]):
        # Class names may be in any script. A glyph that no font has is a box in the PNG; browsers may know a font.
        warnings.filterwarnings("ignore", "Glyph .* missing from|Matplotlib currently does not support .* natively")
        yield


@cache
def _fonts() -> list[str]:
    present = set(get_font_names())
    return [name for name in FONTS if name in present]


def plain(text: str) -> str:
    """The text on one line, without characters that HTML does not allow."""
    kept = (" " if c.isspace() else "\ufffd" if unicodedata.category(c) in ("Cc", "Cs", "Cn") else c for c in text)
    return "".join(kept)


def shorten(text: str, most: int) -> str:
    """The text in at most ``most`` characters, without its middle: the end often says more."""
    text = plain(text)
    return text if len(text) <= most else f"{text[: most // 2]}…{text[len(text) - (most - 1) // 2 :]}"


def draw_cells(axes: Axes, shares: ArrayLike, texts: Sequence[Sequence[str]] | None, colours: str, size: float) -> None:
    """Draws a table of cells, coloured by a share from 0 to 1, with texts if any. NaN leaves a cell without colour."""
    axes.imshow(shares, cmap=colours, vmin=0, vmax=1, aspect="auto")
    axes.grid(False)
    if texts is None:
        return
    for (row, column), share in np.ndenumerate(np.asarray(shares)):
        ink = INK if np.isnan(share) else ink_on(colormaps[colours](float(share)))
        axes.text(column, row, texts[row][column], ha="center", va="center", color=ink, size=size)


def ink_on(colour: Sequence[float]) -> str:
    """The colour of text with the best contrast (WCAG 2) on a background."""
    channels = np.asarray(colour[:3])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return ON_DARK if linear @ (0.2126, 0.7152, 0.0722) < 0.179 else ON_LIGHT


def draw_confusion(axes: Axes, matrix: Tensor, size: float) -> None:
    """Draws counts or mean counts, shape ``[classes, classes]``, coloured by their share of the actual class.

    Beyond :data:`NUMBERED` classes the cells have no numbers, which nobody could read.
    """
    counts = matrix.cpu()
    share = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    texts = None
    if len(counts) <= NUMBERED:
        texts = [[f"{count:.{0 if float(count).is_integer() else 1}f}" for count in row] for row in counts.tolist()]
    draw_cells(axes, share.numpy(), texts, "Blues", size)


def confusion_figure(matrix: Tensor, class_names: Sequence[str], title: str) -> Figure:
    """Draws counts, shape ``[classes, classes]``, with actual classes in rows and predicted ones in columns."""
    cell = 0.9 if len(class_names) <= 4 else max(0.62 if len(class_names) <= NUMBERED else 0.17, 6 / len(class_names))
    size = min(9, 60 * cell)  # of names, so that they do not touch
    names = [shorten(name, NAMED_CLASS) for name in class_names]
    long = max(map(len, names)) * 0.6 * size / 72
    turned = long > cell - 0.1
    bottom = 0.5 + (long if turned else 0.2)
    side = cell * len(names)
    right = max(0.3, len(title) * 0.042 - side / 2)  # half of the title's width, which is centred above the cells
    figure, axes = _square_axes(side, left=max(0.5 + long, right), bottom=bottom, right=right, top=0.5)
    draw_confusion(axes, matrix, size=min(14, 20 * cell))
    axes.set_xticks(range(len(names)), names, rotation=90 if turned else 0, size=size)
    axes.set_yticks(range(len(names)), names, size=size)
    key = "" if len(names) <= NUMBERED else "; colour: share of the actual class"
    axes.set(xlabel=f"predicted class{key}", ylabel="actual class")
    axes.set_title(title, size=10)
    return figure


def class_figure(matrix: Tensor, class_names: Sequence[str], title: str) -> Figure:
    """Draws precision, recall and F1 of each class as bars, the class with the lowest F1 first.

    Args:
        matrix: counts, shape ``[classes, classes]``, a row for each actual class.
        class_names: of the labels, in order.
        title: above the bars.
    """
    shown = min(len(class_names), MOST_CLASSES)
    names = [shorten(name, NAMED_CLASS) for name in class_names]
    left, high = 0.3 + max(map(len, names)) * 0.6 * 8 / 72, max(0.19 * shown, 1)
    width, height = left + 3 * 1.9 + 0.3, 1.05 + high
    figure = Figure(figsize=(width, height))
    figure.suptitle(title, y=1 - 0.25 / height, va="center", size=10)
    every = [
        figure.add_axes(((left + 1.9 * place) / width, 0.35 / height, 1.75 / width, high / height))
        for place in range(3)
    ]
    draw_classes(every, class_metrics(matrix.cpu()), names)
    return figure


def draw_classes(every: Sequence[Axes], metrics: ClassMetrics, class_names: Sequence[str]) -> None:
    """Draws precision, recall and F1 in three axes, a bar for each class, the class with the lowest F1 first.

    Args:
        every: the axes.
        metrics: of the classes. Classes without pictures come last, and their bars are missing.
        class_names: of the labels, in order. Beyond :data:`MOST_CLASSES` those with the highest F1 are left out.
    """
    order = metrics.f1.nan_to_num(nan=2.0).argsort(stable=True).tolist()[:MOST_CLASSES]
    places = range(len(order))
    for axes, name, values in zip(every, ("precision", "recall", "F1"), metrics, strict=True):
        axes.barh(places, values[order].nan_to_num(0.0).tolist(), height=0.7, color=RIGHT)
        axes.set(xlim=(0, 1), ylim=(len(order) - 0.4, -0.6), xticks=[0, 0.5, 1])
        axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"], size=8)
        axes.set_yticks(places, [class_names[label] for label in order] if axes is every[0] else [], size=8)
        axes.set_axisbelow(True)
        axes.grid(True, axis="x", color=GRID, linewidth=0.6)
        axes.grid(False, axis="y")
        axes.tick_params(length=0)
        axes.spines[["top", "right"]].set_visible(False)
        missing = f", {int(values.isnan().sum())} undefined" if values.isnan().any() else ""
        axes.set_title(f"{name}, mean {values.nanmean():.3f}{missing}", loc="left", size=8.5)


def roc_figure(probabilities: Tensor, labels: Tensor, class_names: Sequence[str], title: str) -> Figure:
    """Draws the ROC curve of each class against the rest; of two classes only that of the first.

    Beyond :data:`NUMBERED` classes the curves are pale, but for the three with the smallest areas.

    Args:
        probabilities: shape ``[N, classes]``.
        labels: shape ``[N]``.
        class_names: of the labels, in order.
        title: above the curves.
    """
    figure, axes = _square_axes(3.6, left=0.7, bottom=0.6, right=0.2, top=0.4)
    axes.plot([0, 1], [0, 1], color="0.7", linestyle="--", linewidth=1, label="chance")
    shown = class_names[:1] if len(class_names) == 2 else class_names
    curves = []
    for label, name in enumerate(shown):
        actual = (labels == label).long()
        if 0 < actual.sum() < len(actual):  # a curve needs pictures of both classes
            false_positives, true_positives, _ = binary_roc(probabilities[:, label], actual)
            area = float(binary_auroc(probabilities[:, label], actual))
            curves.append((area, f"{shorten(name, NAMED_CLASS)}: area {area:.3f}", false_positives, true_positives))
    if len(curves) > NUMBERED:
        curves.sort(key=lambda curve: curve[0])
        mean = sum(area for area, *_ in curves) / len(curves)
        for place, (*_, x, y) in enumerate(curves[3:]):
            text = f"{len(curves) - 3} others; all: mean area {mean:.3f}" if place == 0 else None
            axes.plot(x, y, color="0.75", linewidth=0.7, label=text)
        curves = curves[:3]
    for _, text, x, y in curves:
        axes.plot(x, y, linewidth=2, label=text)
    axes.set(xlabel="false positive rate", ylabel="true positive rate", title=title)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.legend(loc="lower right", frameon=False, fontsize=8)
    return figure


def sheet_figure(captions: Sequence[Caption], title: str) -> Figure:
    """Draws at most :data:`MOST` pictures in rows of :data:`COLUMNS`, with captions above and names below."""
    captions = captions[:MOST]
    rows = -(-len(captions) // COLUMNS)
    width, height = CELL[0] * COLUMNS, CELL[1] * rows + 0.5
    figure = Figure(figsize=(width, height))
    figure.suptitle(title, y=1 - 0.25 / height, va="center")
    # All pictures are in one axes, in inches: separate axes would take ten times as long.
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    for place, (picture, text, colour, name) in enumerate(captions):
        row, column = divmod(place, COLUMNS)
        left, top = CELL[0] * column + 0.1, height - 0.5 - CELL[1] * row
        side = CELL[0] - 0.2
        extent = (left, left + side, top - 0.25 - side, top - 0.25)
        # Resized here to the final pixels: matplotlib takes several times as long.
        shown = functional.interpolate(picture[None].float(), size=(SHOWN, SHOWN), mode="bilinear", antialias=True)[0]
        values = shown.permute(1, 2, 0).clamp(0, 1).numpy()
        axes.imshow(values, cmap="gray", vmin=0, vmax=1, extent=extent, interpolation="nearest")
        middle = (extent[0] + extent[1]) / 2
        axes.text(middle, top - 0.2, plain(text), ha="center", size=9, color=colour, parse_math=False)
        if name:
            axes.text(middle, extent[2] - 0.04, shorten(name, NAMED), ha="center", va="top", size=6.5, parse_math=False)
    axes.set(xlim=(0, width), ylim=(0, height))
    return figure


def _square_axes(side: float, left: float, bottom: float, right: float, top: float) -> tuple[Figure, Axes]:
    """Square axes with margins, all in inches; the layouts of matplotlib take seconds."""
    width, height = left + side + right, bottom + side + top
    figure = Figure(figsize=(width, height))
    return figure, figure.add_axes((left / width, bottom / height, side / width, side / height))
