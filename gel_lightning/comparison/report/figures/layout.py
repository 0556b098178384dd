"""Layout of figures in inches, and the marks, tables and legends that they share."""

import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

from gel_lightning.comparison.statistics import Difference, Estimate
from gel_lightning.training.figures import SURFACE, draw_cells, shorten

WIDTH = 7.2  # inches of every figure, so that all letters have one size on the page
EDGE = 0.15  # inches of margin at the right
SIZE = 8.5  # of most text, points
COLUMNS, GAP = 4, 0.14  # of small multiples
CELLS = "viridis"  # perceptually uniform


def text_width(texts: Sequence[str], size: float = SIZE) -> float:
    """The approximate width in inches of the longest text."""
    wide = [sum(1.0 if unicodedata.east_asian_width(c) in "WF" else 0.6 for c in text) for text in texts]
    return max(wide, default=0) * size / 72


def panels(
    count: int,
    columns: int,
    height: float | Sequence[float],
    *,
    left: float,
    top: float,
    bottom: float,
    right: float = EDGE,
    gap: float = 0,
    rise: float | Sequence[float] = 0,
    width: float | None = None,
) -> tuple[Figure, list[Axes]]:
    """Places axes row by row, all lengths in inches; the layouts of matplotlib take seconds.

    Args:
        count: number of axes.
        columns: number of axes in a row.
        height: of each axes, or of each row.
        left: margin of the figure.
        top: margin of the figure.
        bottom: margin of the figure.
        right: margin of the figure.
        gap: between two columns.
        rise: between two rows; several values take turns.
        width: of each axes; by default they fill the figure.
    """
    if width is None:
        width = (WIDTH - left - right - (columns - 1) * gap) / columns
    rows = -(-count // columns)
    heights = np.broadcast_to(height, rows)
    gaps = np.resize(rise, rows - 1) if rows > 1 else np.zeros(0)
    tops = top + np.cumsum(heights) - heights + np.cumsum([0, *gaps])
    whole = float(tops[-1] + heights[-1] + bottom)
    figure = Figure(figsize=(WIDTH, whole))
    axes = []
    for place in range(count):
        row, column = divmod(place, columns)
        corner = left + column * (width + gap), whole - float(tops[row] + heights[row])
        axes.append(add_axes(figure, *corner, width, float(heights[row])))
    return figure, axes


def add_axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Adds axes, all lengths in inches."""
    wide, high = figure.get_size_inches()
    return figure.add_axes((left / wide, bottom / high, width / wide, height / high))


def label_outer(axes: Sequence[Axes], columns: int) -> None:
    """Shows tick labels only at the first axes of each row and the last of each column."""
    for place, one in enumerate(axes):
        one.tick_params(labelleft=place % columns == 0, labelbottom=place + columns >= len(axes))


def legend_rows(keys: Sequence[Line2D], left: float = 0.1) -> list[Sequence[Line2D]]:
    """Divides the entries of a legend into rows that fit the figure."""
    columns = max(int((WIDTH - left) / (text_width([str(key.get_label()) for key in keys]) + 0.6)), 1)
    return [keys[first : first + columns] for first in range(0, len(keys), columns)]


def legend(figure: Figure, keys: Sequence[Line2D], place: float, left: float = 0.1) -> None:
    """Draws a legend whose top is ``place`` inches below that of the figure."""
    height = figure.get_size_inches()[1]
    corner = (left / WIDTH, 1 - place / height)
    columns = len(legend_rows(keys, left)[0])
    figure.legend(handles=keys, loc="upper left", bbox_to_anchor=corner, ncols=columns, borderaxespad=0, borderpad=0)


def note(figure: Figure, text: str, bottom: float) -> None:
    """Writes a text under the axes, ``bottom`` inches above the lower edge."""
    figure.text(0.5, bottom / figure.get_size_inches()[1], text, ha="center", va="bottom")


def row_axes(
    labels: Sequence[str],
    height: float,
    count: int = 1,
    columns: int = 3,
    *,
    top: float,
    bottom: float = 0.45,
    most: int = 36,
    right: float = EDGE,
    gap: float = 0.2,
    rise: float = 0,
) -> tuple[Figure, list[Axes]]:
    """Makes axes with a row for each label, from the top down, labelled at the left."""
    labels = [shorten(label, most) for label in labels]
    columns = min(columns, count)
    left = text_width(labels, 8) + 0.15
    across = {"left": left, "right": right, "gap": gap}
    figure, every = panels(count, columns, height * len(labels), top=top, bottom=bottom, rise=rise, **across)
    for place, axes in enumerate(every):
        axes.set_yticks(range(len(labels)), labels)
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.tick_params(labelleft=place % columns == 0)
    return figure, every


def small_multiples(
    count: int, height: float, *, top: float, rise: float | Sequence[float], columns: int = COLUMNS
) -> tuple[Figure, list[Axes]]:
    """Makes small axes, all of one size however few there are."""
    width = (WIDTH - 0.65 - EDGE - (COLUMNS - 1) * GAP) / COLUMNS
    return panels(count, columns, height, left=0.65, top=top, bottom=0.45, gap=GAP, rise=rise, width=width)


def name_axes(figure: Figure, every: Sequence[Axes], columns: int, x: str, y: str) -> None:
    """Names the axes of small multiples: y at the left of each row, x once below."""
    label_outer(every, columns)
    for axes in every[::columns]:
        axes.set_ylabel(y, size=8)
    name_below(figure, x)


def name_below(figure: Figure, text: str) -> None:
    """Writes the name of the x axis once, centred below all axes."""
    boxes = [axes.get_position() for axes in figure.axes]
    middle = (min(box.x0 for box in boxes) + max(box.x1 for box in boxes)) / 2
    figure.text(middle, 0.08 / figure.get_size_inches()[1], text, ha="center", va="bottom")


def draw_intervals(
    axes: Axes,
    places: ArrayLike,
    estimates: Sequence[Estimate | Difference],
    colour: str,
    marker: str,
    hollow: ArrayLike = False,
) -> None:
    """Draws shares as marks in %, some of them hollow, with their intervals, if any, as lines."""
    values, low, high = 100 * np.array([estimate[:3] for estimate in estimates]).T
    places, hollow = np.broadcast_to(places, len(values)), np.broadcast_to(hollow, len(values))
    some = np.isfinite(low)
    axes.hlines(places[some], low[some], high[some], color=colour, linewidth=1.3)
    for chosen, face in ((~hollow, colour), (hollow, SURFACE)):
        axes.plot(values[chosen], places[chosen], marker, color=colour, markerfacecolor=face)


def entry(label: str, colour: str, marker: str, stroke: Any = "-", face: str | None = None) -> Line2D:
    """An entry of a legend."""
    return Line2D([], [], color=colour, marker=marker, linestyle=stroke, markerfacecolor=face or colour, label=label)


def draw_table(axes: Axes, shares: NDArray[np.float64], texts: Sequence[Sequence[str]], colours: str = CELLS) -> None:
    """Draws a table with column names above it."""
    draw_cells(axes, shares, texts, colours, 8.5)
    separate(axes)
    axes.xaxis.tick_top()


def separate(axes: Axes) -> None:
    """Draws lines between the cells of a table and removes its frame."""
    right, bottom = axes.get_xlim()[1], axes.get_ylim()[0]
    axes.vlines(np.arange(0.5, right - 0.5), -0.5, bottom, color=SURFACE, linewidth=1)
    axes.hlines(np.arange(0.5, bottom - 0.5), -0.5, right, color=SURFACE, linewidth=1)
    axes.set(xlim=(-0.5, right), ylim=(bottom, -0.5))
    axes.spines[:].set_visible(False)
