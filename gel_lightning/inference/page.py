"""`--page`: all classified pictures on one self-contained HTML page."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO
from urllib.parse import quote

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from gel_lightning.core.files import formula_free, output_file, replacing, text_cell
from gel_lightning.core.html import SIDE, environment, jpeg_uri, small_jpeg
from gel_lightning.core.text import printable
from gel_lightning.inference.rows import UNSURE, Row

HEAT_COLOUR = np.array([255, 110, 0], np.float32)
HEAT_OPACITY = 0.6
"""Opacity of the hottest place, so that the picture stays visible."""


class Page:
    """Writes the page when the ``with`` block ends without an error.

    The part of each picture is rendered immediately and kept in a temporary file, so that memory holds only about 100
    bytes per picture. The page is written atomically: a killed process leaves the old one.

    Args:
        path: of the page.
        class_names: of the model.
        looked_for: the class by whose probability pictures are sorted.

    Raises:
        GelError: the path is a folder, device or pipe, or does not end in .html or .htm.
    """

    def __init__(self, path: str | Path, class_names: Sequence[str], looked_for: str) -> None:
        self.path = output_file(path, "--page", ".html", ".htm")
        self.class_names, self.looked_for = tuple(class_names), looked_for
        self._templates = environment("gel_lightning.inference")
        self._card = self._templates.get_template("page_card.html.jinja")
        self._places: list[tuple[float, int, int]] = []  # probability, start and length of the part of a picture
        self._counts = dict.fromkeys((*self.class_names, UNSURE, ""), 0)
        self._heats = False

    def __enter__(self) -> "Page":
        """Opens the file of the page, so that an unwritable place is noticed at once."""
        self._open = ExitStack()
        self._file: IO[str] = self._open.enter_context(replacing(self.path))
        self._parts: IO[bytes] = self._open.enter_context(tempfile.TemporaryFile())
        return self

    def add(self, row: Row, thumbnail: NDArray[np.uint8] | None, heat: NDArray[np.uint8] | None = None) -> None:
        """Adds a picture.

        Args:
            row: its row.
            thumbnail: grey values, shape ``[height, width]``, or ``[height, width, 3]`` in colour, of any size; None if
                the picture could not be read.
            heat: heat map of the answer, 0 to 255, shape ``[side, side]``, stretched over the whole picture.
        """
        picture = None if thumbnail is None else Image.fromarray(thumbnail)
        if picture:
            picture.thumbnail((SIDE, SIDE))
        others = {name: share for name, share in row.probabilities.items() if name != row.answer}
        path = Path(row.path)
        part = self._card.render(
            row=row._replace(error=printable(row.error), note=printable(row.note)),
            name=printable(path.name),
            folder=printable(f"{path.parent.name}/" if path.parent.name else ""),
            title=printable(path),
            path=_path_cell(path),
            href=self._link(path),
            next=max(others, key=others.__getitem__, default=""),
            picture=picture and jpeg_uri(small_jpeg(picture)),
            size=picture and picture.size,
            heat=picture and heat is not None and jpeg_uri(small_jpeg(_heated(picture, heat))),
        ).encode()
        self._places.append((row.probabilities.get(self.looked_for, -1.0), self._parts.tell(), len(part)))
        self._counts[row.answer] += 1
        self._heats |= heat is not None
        self._parts.write(part)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Writes the page; after an error the old one stays."""
        if error is not None:
            self._open.__exit__(kind, error, trace)
            return
        with self._open:
            self._write()

    def _write(self) -> None:
        template = self._templates.get_template("page.html.jinja")
        seen = {name: count for name, count in self._counts.items() if count or name in self.class_names}
        pieces = template.generate(
            counts=seen,
            total=len(self._places),
            looked_for=self.looked_for,
            classes=[(name, text_cell(name)) for name in self.class_names],
            heats=self._heats,
            cards=self._sorted_parts(),
            file=f"{printable(self.path.stem)}_corrections.csv",
        )
        self._file.writelines(pieces)

    def _sorted_parts(self) -> Iterator[Markup]:
        for _, start, length in sorted(self._places, key=lambda place: (-place[0], place[1])):
            self._parts.seek(start)
            yield Markup(self._parts.read(length).decode())

    def _link(self, path: Path) -> str:
        """The address of a picture relative to the folder of the page, so that both can be moved together."""
        try:
            relative = Path(os.path.relpath(path, self.path.parent))
        except ValueError:  # on another Windows drive
            return path.absolute().as_uri()
        return quote(os.fsencode(relative.as_posix()))


def _path_cell(path: Path) -> str:
    """The path for the CSV file of corrections: absolute, because the browser may save that file anywhere."""
    return formula_free(str(path.absolute())).encode(errors="backslashreplace").decode()


def _heated(picture: Image.Image, heat: NDArray[np.uint8]) -> Image.Image:
    """The picture with the heat map blended over it."""
    hot = np.asarray(Image.fromarray(heat).resize(picture.size, Image.Resampling.BILINEAR), np.float32)[..., None]
    share = hot * (HEAT_OPACITY / 255)
    mixed = np.asarray(picture.convert("RGB"), np.float32) * (1 - share) + HEAT_COLOUR * share
    return Image.fromarray(mixed.round().astype(np.uint8))
