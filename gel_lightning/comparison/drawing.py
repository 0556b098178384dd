"""What the figures of a report are made of, and how they get to the disk and into its page."""

import io
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

from gel_lightning.comparison.statistics import Difference, Estimate
from gel_lightning.core.files import replacing
from gel_lightning.training.figures import GRID, INK, MUTED, SURFACE, draw_cells, report_style, shorten

WIDTH = 7.2  # inches of every figure, so that their letters are of one size on the page
EDGE = 0.15  # inches left free at the right
DOTS = 150  # an inch, of the PNG
SIZE = 8.5  # points of most text
COLUMNS, GAP = 4, 0.14  # of small multiples
CELLS = "viridis"  # perceptually uniform
BACKGROUND = "background"
VARIABLES = {INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--grid)", SURFACE: "var(--surface)"}
XLINK, SVG = "{http://www.w3.org/1999/xlink}", "{http://www.w3.org/2000/svg}"


class Plot(NamedTuple):
    """A figure of a report.

    Attributes:
        name: of its files, without suffix.
        title: a short heading.
        caption: what is shown, of which pictures, and what the intervals are; its text for those who cannot see it too.
        figure: the figure.
        on_page: whether the page shows it; or else it is in the folder of figures alone.
    """

    name: str
    title: str
    caption: str
    figure: Figure
    on_page: bool = True


def save(plot: Plot, folder: Path) -> str:
    """Writes a figure as PNG and as SVG.

    Args:
        plot: the figure.
        folder: of the files, which get its name.

    Returns:
        The SVG for use within a page: its colours of ink, grid and background are the variables ``--ink``, ``--muted``,
        ``--grid`` and ``--surface`` of the page, its letters are of the page's font, and its ids are its own.
    """
    picture, drawing = io.BytesIO(), io.StringIO()
    plot.figure.patch.set_gid(BACKGROUND)
    with report_style():
        plot.figure.savefig(picture, format="png", dpi=DOTS)
        plot.figure.savefig(drawing, format="svg", metadata={"Date": None})
    for suffix, mode, content in ((".png", "wb", picture.getvalue()), (".svg", "w", drawing.getvalue())):
        with replacing(folder / f"{plot.name}{suffix}", mode) as file:
            file.write(content)
    return _inline(drawing.getvalue(), plot)


def _inline(text: str, plot: Plot) -> str:
    """Makes what a page takes of an SVG of matplotlib."""
    root = ElementTree.fromstring(text)
    for parent in list(root.iter()):
        for child in list(parent):
            # The style sheet would be that of the whole page; the metadata names the version of matplotlib.
            if child.tag in (f"{SVG}metadata", f"{SVG}style") or child.get("id") == BACKGROUND:
                parent.remove(child)
    referred = set(re.findall(r"""(?:href="|url\()#([^")]+)""", text))
    for element in root.iter():
        element.tag = element.tag.removeprefix(SVG)
        if element.tag != "text":
            element.text = None
        element.tail = "\n" if element.tag == "g" else None
        attributes = {name.removeprefix(XLINK): value for name, value in element.attrib.items()}
        element.attrib.clear()
        for name, value in attributes.items():
            if name != "id" or value in referred:  # ids of equal images are equal, and nobody needs them
                element.set(name, _attribute(name, value, plot.name))
    width = float(root.attrib.pop("width").removesuffix("pt"))
    del root.attrib["height"]
    root.attrib |= {
        "xmlns": "http://www.w3.org/2000/svg",
        "role": "img",
        "aria-label": plot.caption,
        "width": "100%",
        "style": f"max-width: {width / 72:g}in; stroke-linejoin: round; stroke-linecap: butt",
    }
    return ElementTree.tostring(root, encoding="unicode")


def _attribute(name: str, value: str, prefix: str) -> str:
    if name == "id":
        return f"{prefix}-{value}"
    if name == "href":
        return re.sub("^#", f"#{prefix}-", value)
    if name == "clip-path":
        return value.replace("url(#", f"url(#{prefix}-")
    if name == "d":
        return " ".join(value.split())
    if name == "style":
        # Older versions of matplotlib write "font: 8px 'A', 'B'", newer ones size and family apart.
        value = re.sub(r"font: [^;]*?([\d.]+px)[^;]*", r"font-size: \1; font-family: inherit", value)
        value = re.sub(r"font-family: [^;]*", "font-family: inherit", value)
        return re.sub("#[0-9a-f]{6}", lambda colour: VARIABLES.get(colour[0], colour[0]), value)
    return value


def text_width(texts: Sequence[str], size: float = SIZE) -> float:
    """About the width in inches of the longest text."""
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
    """Places axes row by row, all lengths in inches: the layouts of matplotlib take seconds.

    Args:
        count: of the axes.
        columns: of them.
        height: of each, or of those of each row.
        left: margin of the figure, as the next three.
        top: see left.
        bottom: see left.
        right: see left.
        gap: between two columns.
        rise: between two rows; if there are several, in turns.
        width: of each; by default they fill the figure.
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
    """Adds axes, in inches."""
    wide, high = figure.get_size_inches()
    return figure.add_axes((left / wide, bottom / high, width / wide, height / high))


def label_outer(axes: Sequence[Axes], columns: int) -> None:
    """Leaves the numbers at axes to the first of each row and the last of each column."""
    for place, one in enumerate(axes):
        one.tick_params(labelleft=place % columns == 0, labelbottom=place + columns >= len(axes))


def legend_rows(keys: Sequence[Line2D], left: float = 0.1) -> list[Sequence[Line2D]]:
    """Parts the entries of a legend into rows that fit."""
    columns = max(int((WIDTH - left) / (text_width([str(key.get_label()) for key in keys]) + 0.6)), 1)
    return [keys[first : first + columns] for first in range(0, len(keys), columns)]


def legend(figure: Figure, keys: Sequence[Line2D], place: float, left: float = 0.1) -> None:
    """Draws a legend, its upper end so many inches below that of the figure."""
    height = figure.get_size_inches()[1]
    corner = (left / WIDTH, 1 - place / height)
    columns = len(legend_rows(keys, left)[0])
    figure.legend(handles=keys, loc="upper left", bbox_to_anchor=corner, ncols=columns, borderaxespad=0, borderpad=0)


def note(figure: Figure, text: str, bottom: float) -> None:
    """Writes a text under the axes, so many inches above the lower edge."""
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
    """Axes with a row for each label, from the top down; the labels are at the left of them all."""
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
    """Small axes for each model, all of one size however few they are."""
    width = (WIDTH - 0.65 - EDGE - (COLUMNS - 1) * GAP) / COLUMNS
    return panels(count, columns, height, left=0.65, top=top, bottom=0.45, gap=GAP, rise=rise, width=width)


def name_axes(figure: Figure, every: Sequence[Axes], columns: int, x: str, y: str) -> None:
    """Names the axes of small multiples: y at the left of each row, x below them all."""
    label_outer(every, columns)
    for axes in every[::columns]:
        axes.set_ylabel(y, size=8)
    name_below(figure, x)


def name_below(figure: Figure, text: str) -> None:
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
    """Draws shares as marks in %, some of them hollow, and their intervals as lines where there are any."""
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
    """Draws a table with its columns named above it."""
    draw_cells(axes, shares, texts, colours, 8.5)
    separate(axes)
    axes.xaxis.tick_top()


def separate(axes: Axes) -> None:
    """Parts the cells of a table by lines, and takes the frame away."""
    right, bottom = axes.get_xlim()[1], axes.get_ylim()[0]
    axes.vlines(np.arange(0.5, right - 0.5), -0.5, bottom, color=SURFACE, linewidth=1)
    axes.hlines(np.arange(0.5, bottom - 0.5), -0.5, right, color=SURFACE, linewidth=1)
    axes.set(xlim=(-0.5, right), ylim=(bottom, -0.5))
    axes.spines[:].set_visible(False)
