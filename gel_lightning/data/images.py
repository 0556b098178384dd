"""Any picture file a lab has -> one 8-bit grey picture; the only place that decodes."""

import hashlib
import logging
import re
import stat
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from gel_lightning.core.errors import OUT_OF_FILES, GelError

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
"""Pillow's names of the formats that are read. Its others are left out: one runs Ghostscript."""

# A .gel file is the TIFF of a Typhoon or Storm scanner.
IMAGE_SUFFIXES = frozenset({".bmp", ".gel", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
"""Suffixes, in lower case, of the files in a folder that are taken as pictures."""

MAX_PIXELS = 1024**3 // 4 // 3
"""Width times height above which a picture is refused: 89,478,485, Pillow's own limit (256 MiB of RGB)."""

DECODING = f"1, Pillow {PIL.__version__}"
"""What the grey values depend on besides a file's content; the number is raised when decoding here changes."""

_PHOTOMETRIC_INTERPRETATION = 262
_SAMPLE_FORMAT = 339
_MIN_IS_WHITE, _MIN_IS_BLACK = 0, 1
_UNSIGNED = (1,)
_OPAQUE = [0] * 255 + [255]  # alpha to whether it is opaque, as a table for Image.point

# Pillow logs an error for some damaged TIFFs; with no handler at all Python would print it.
logging.getLogger("PIL").addHandler(logging.NullHandler())


class PictureError(GelError):
    """A file that cannot be read as a picture.

    Attributes:
        path: the file.
        reason: why, in plain words.
    """

    def __init__(self, path: Path, reason: str) -> None:
        # Both go to Exception, so that the error survives the way out of a DataLoader's worker process.
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class PictureHeader(NamedTuple):
    """What a picture file says of itself.

    Attributes:
        width: pixels a row, as stored.
        height: rows, as stored.
        mode: Pillow's name of the pixel type, for example ``"L"`` or ``"I;16"``.
        format: Pillow's name of the file format, for example ``"TIFF"``.
    """

    width: int
    height: int
    mode: str
    format: str


def read_picture(path: str | Path) -> Image.Image:
    """Reads a picture file of any kind in :data:`FORMATS` as 8-bit grey.

    - The format is found from the content; of several pages or frames the first is read.
    - EXIF orientation is applied.
    - Colour becomes ITU-R 601-2 luma, as :meth:`PIL.Image.Image.convert` has it.
    - What is transparent becomes white: the page that such figures and plots are drawn for. On black, dark
      lettering would vanish. An outermost row or column that is nowhere opaque is cut off: it is what is
      left of cropping in an office program, and would be a bright edge on a gel.
    - 8-bit pictures keep their values. Grey of 16 or 32 bits or of floats is scaled by its own least and
      greatest value to 0 .. 255, since a 12-bit camera leaves most of a 16-bit file's range empty; a
      constant picture becomes black, NaN black, and infinities black and white.
    - Of 16-bit colour, Pillow keeps the upper 8 bits.
    - TIFFs whose least value is white are turned the right way round.

    Args:
        path: the file.

    Returns:
        A picture of mode ``"L"`` that no longer needs the file.

    Raises:
        PictureError: the file cannot be opened, is cut off or damaged, is not a picture of a kind that can
            be read, or has more than :data:`MAX_PIXELS` pixels.
    """
    return read_with_digest(path)[0]


def read_with_digest(path: str | Path) -> tuple[Image.Image, bytes]:
    """Reads a picture as :func:`read_picture` does, with the digest of the very bytes that were decoded.

    Args:
        path: the file.

    Returns:
        The picture and its :func:`picture_digest`.

    Raises:
        PictureError: as for :func:`read_picture`.
    """
    content = _content(Path(path))
    with _opened(Path(path), BytesIO(content)) as picture:
        picture.load()
        grey = _to_grey(picture)
        _turn_upright(grey, _orientation(picture))
        return grey, hashlib.sha256(content).digest()


def picture_digest(path: str | Path) -> bytes:
    """Finds the SHA-256 of a file's content, 32 bytes, without decoding it.

    Args:
        path: the file.

    Raises:
        PictureError: the file cannot be opened.
    """
    return hashlib.sha256(_content(Path(path))).digest()


def describe_picture(path: str | Path) -> PictureHeader:
    """Reads what a picture file says of itself, without decoding the pixels.

    Args:
        path: the file.

    Raises:
        PictureError: as for :func:`read_picture`, as far as the header tells.
    """
    # Given a path, Pillow maps the file into memory, and garbles raw TIFFs that EXIF turns by 90 degrees.
    with _file(Path(path)) as file, _opened(Path(path), file) as picture:
        return PictureHeader(*picture.size, picture.mode, picture.format or "")


def _content(path: Path) -> bytes:
    with _file(path) as file:
        return file.read()


@contextmanager
def _file(path: Path) -> Iterator[BinaryIO]:
    """Opens a file; whatever goes wrong in the block is a PictureError."""
    with _errors_named(path):
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            # Opening a named pipe would wait for ever.
            raise PictureError(path, "is a folder or a device, not a picture file")
        if status.st_size == 0:
            raise PictureError(path, "is empty (0 bytes)")
        with path.open("rb") as file:
            yield file


@contextmanager
def _opened(path: Path, file: BinaryIO) -> Iterator[Image.Image]:
    """Opens a picture, its pixels not yet decoded; whatever goes wrong in the block is a PictureError."""
    with _errors_named(path), _pillow_warnings_hidden(), _open(file) as picture:
        if picture.width * picture.height > MAX_PIXELS:
            raise Image.DecompressionBombError
        yield picture


@contextmanager
def _errors_named(path: Path) -> Iterator[None]:
    try:
        yield
    except GelError:
        raise
    except Exception as error:  # damaged bytes make Pillow raise nearly anything
        if isinstance(error, OSError) and error.errno in OUT_OF_FILES:
            raise
        raise PictureError(path, _reason(error)) from error


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"is not a picture that can be read ({', '.join(FORMATS)}), or is damaged; save it as PNG"
    if isinstance(error, Image.DecompressionBombError):
        return f"has more than {MAX_PIXELS:,} pixels; save it smaller"
    if isinstance(error, MemoryError):
        return "does not fit into memory; save it smaller"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be opened ({error.strerror})"
    return f"is cut off or damaged ({' '.join(str(error).split()) or type(error).__name__})"


@contextmanager
def _pillow_warnings_hidden() -> Iterator[None]:
    """Hides what Pillow warns of, in every thread, while the block runs.

    The filters belong to the whole process, and :class:`warnings.catch_warnings` in two threads at once can
    leave them changed for good. Each reader here puts in and takes out one filter, of Pillow alone.
    """
    ignore_pillow = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
    warnings.filters.insert(0, ignore_pillow)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        # Gone if another thread has put its own list of filters in place meanwhile.
        with suppress(ValueError):
            warnings.filters.remove(ignore_pillow)  # type: ignore[attr-defined]


def _open(file: BinaryIO) -> Image.Image:
    try:
        return Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        # ImageJ saves a 16-bit picture with inverted LUT as big-endian min-is-white, which Pillow knows in
        # little-endian only. It is opened as min-is-black and turned round with the others.
        file.seek(0)
        if (start := file.read(4)) != b"MM\0*":
            raise
        picture = Image.open(BytesIO(_as_min_is_black(start + file.read())), formats=("TIFF",))
        picture.tag_v2[_PHOTOMETRIC_INTERPRETATION] = _MIN_IS_WHITE  # type: ignore[attr-defined]
        return picture


def _as_min_is_black(tiff: bytes) -> bytes:
    """Changes photometric interpretation 0 to 1 in the first page of a big-endian TIFF.

    The layout is that of TIFF 6.0, section 2: 8 bytes with the place of the first directory at their end;
    a directory is a count and that many entries of 12 bytes: tag, type (3 is SHORT), count, value.
    """
    (directory,) = struct.unpack_from(">4xL", tiff)
    (entries,) = struct.unpack_from(">H", tiff, directory)
    entry = struct.pack(">HHLH", _PHOTOMETRIC_INTERPRETATION, 3, 1, _MIN_IS_WHITE)
    for start in range(directory + 2, directory + 2 + 12 * entries, 12):
        if tiff.startswith(entry, start):
            return tiff[: start + 8] + struct.pack(">H", _MIN_IS_BLACK) + tiff[start + 10 :]
    return tiff


def _to_grey(picture: Image.Image) -> Image.Image:
    """Turns loaded pixels of any mode into mode ``"L"``."""
    if picture.mode.startswith(("I", "F")):
        return Image.fromarray(_scaled(*_deep_pixels(picture)))
    if picture.mode in ("LAB", "La"):  # these have no direct way to "L" and "RGBA"
        picture = picture.convert({"LAB": "RGB", "La": "LA"}[picture.mode])
    if picture.has_transparency_data:
        return _on_white(picture.convert("RGBA"))
    return picture.convert("L")


def _on_white(picture: Image.Image) -> Image.Image:
    """Lays an RGBA picture on a white page, less an outermost row or column that is nowhere opaque.

    Office programs leave such a line where a picture was cut between two pixels. On the page it would be a
    bright edge, and mark a dark gel that has been through a slide as surely as a label.
    """
    left, top, right, bottom = picture.getchannel("A").point(_OPAQUE).getbbox() or (0, 0, *picture.size)
    width, height = picture.size
    picture = picture.crop((min(left, 1), min(top, 1), max(right, width - 1), max(bottom, height - 1)))
    page = Image.new("L", picture.size, 255)
    page.paste(picture.convert("L"), mask=picture.getchannel("A"))
    return page


def _deep_pixels(picture: Image.Image) -> tuple[NDArray[np.generic], bool]:
    """Takes the pixels [height, width] of a deep grey picture, and whether the least of them is white.

    Pillow turns min-is-white round for 8 bits only, and reads unsigned 32-bit integers as signed ones.
    """
    pixels: NDArray[np.generic] = np.asarray(picture)
    tags = getattr(picture, "tag_v2", None)
    if tags is None:  # no TIFF
        return pixels, False
    if picture.mode == "I" and tags.get(_SAMPLE_FORMAT, _UNSIGNED) == _UNSIGNED:
        pixels = pixels.view(np.uint32)
    return pixels, tags.get(_PHOTOMETRIC_INTERPRETATION) == _MIN_IS_WHITE


def _scaled(pixels: NDArray[np.generic], min_is_white: bool) -> NDArray[np.uint8]:
    """Scales pixels by their own finite range to 0 .. 255."""
    with np.errstate(invalid="ignore"):  # a signalling NaN
        values = pixels.astype(np.float64)
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise ValueError("no pixel has a finite value")
    low, high = finite.min(), finite.max()
    np.nan_to_num(values, copy=False, nan=low, posinf=high, neginf=low)
    values -= low
    values *= 255 / (high - low) if high > low else 0
    grey = np.rint(values).astype(np.uint8)
    return 255 - grey if min_is_white else grey


def _orientation(picture: Image.Image) -> int:
    """Finds the EXIF orientation of a loaded picture; 1, upright, where there is none or it is damaged."""
    with suppress(Exception):  # damaged metadata do not make a picture unreadable
        return int(picture.getexif().get(ExifTags.Base.Orientation, 1))
    return 1


def _turn_upright(grey: Image.Image, orientation: int) -> None:
    # Pillow writes the file's own EXIF anew when it turns a picture, and fails where that is damaged.
    grey.info = {}
    grey.getexif()[ExifTags.Base.Orientation] = orientation
    ImageOps.exif_transpose(grey, in_place=True)
