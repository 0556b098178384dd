"""Drawing a figure as the SVG of an HTML page, and saving it as PNG and as SVG."""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from xml.etree import ElementTree

from matplotlib.figure import Figure

from gel_lightning.core.files import replacing
from gel_lightning.training.figures import GRID, INK, MUTED, SURFACE, report_style

DOTS = 150  # an inch, of the PNG
BACKGROUND = "background"
VARIABLES = {INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--grid)", SURFACE: "var(--surface)"}
XLINK, SVG = "{http://www.w3.org/1999/xlink}", "{http://www.w3.org/2000/svg}"


@dataclass(frozen=True)
class Plot:
    """A figure of a report.

    Attributes:
        name: of its files, without suffix.
        title: a short heading.
        caption: what is shown, of which pictures, and what the intervals are; also the text for screen readers.
        draw: draws the figure.
        on_page: whether the page shows it, or it is only in the folder of figures.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[], Figure]
    on_page: bool = True

    @cached_property
    def figure(self) -> Figure:
        """The figure, drawn on first use."""
        with report_style():
            return self.draw()


def render(plot: Plot, folder: Path | None = None) -> str:
    """Renders a figure as SVG.

    Args:
        plot: the figure.
        folder: where it is also written as PNG and as SVG, in files named after the figure. This takes longer than
            the SVG alone, because matplotlib renders each format separately.

    Returns:
        The SVG for use within a page: the colours of ink, grid and background are the page's variables ``--ink``,
        ``--muted``, ``--grid`` and ``--surface``, the font is the page's, and ids are unique to the figure.
    """
    picture, drawing = io.BytesIO(), io.StringIO()
    plot.figure.patch.set_gid(BACKGROUND)
    with report_style():
        plot.figure.savefig(drawing, format="svg", metadata={"Date": None})
        if folder is not None:
            plot.figure.savefig(picture, format="png", dpi=DOTS)
    if folder is not None:
        for suffix, mode, content in ((".png", "wb", picture.getvalue()), (".svg", "w", drawing.getvalue())):
            with replacing(folder / f"{plot.name}{suffix}", mode) as file:
                file.write(content)
    return _inline(drawing.getvalue(), plot)


def _inline(text: str, plot: Plot) -> str:
    """Prepares an SVG of matplotlib for use within a page."""
    root = ElementTree.fromstring(text)
    for parent in list(root.iter()):
        for child in list(parent):
            # A style sheet would apply to the whole page; the metadata names the version of matplotlib.
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
            if name != "id" or value in referred:  # identical images have identical ids, which nothing refers to
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
        # Older versions of matplotlib write "font: 8px 'A', 'B'", newer ones separate size and family.
        value = re.sub(r"font: [^;]*?([\d.]+px)[^;]*", r"font-size: \1; font-family: inherit", value)
        value = re.sub(r"font-family: [^;]*", "font-family: inherit", value)
        return re.sub("#[0-9a-f]{6}", lambda colour: VARIABLES.get(colour[0], colour[0]), value)
    return value
