"""Any picture file to one 8-bit picture, grey or RGB; the only module that opens pictures.

Decoding one picture takes at most 2 GiB of memory, and all threads of a process together at most 3 GiB. Files and
pictures beyond the limits below are refused by their size on disk and their header, before anything is decoded. Those
above :data:`LARGE` are decoded one at a time.
"""

import ctypes
import hashlib
import logging
import re
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import version
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gel_lightning.core.errors import OUT_OF_FILES, GelError
from gel_lightning.data.formats import MAX_BYTES, Opened, PictureHeader, RefusedError, is_picture_start, open_picture
from gel_lightning.data.packed import is_packed, read_packed
from gel_lightning.data.resizing import shortened

# A .gel file is the TIFF of a Typhoon or Storm scanner; .tf8 and .btf are BigTIFF.
IMAGE_SUFFIXES = frozenset(
    {
        *(".avif", ".bmp", ".btf", ".dib", ".gel", ".gif", ".heic", ".heif", ".hif", ".j2k", ".jfif", ".jp2", ".jpe"),
        *(".jpeg", ".jpg", ".jpx", ".jpf", ".png", ".tf8", ".tif", ".tiff", ".webp"),
    }
)
"""Suffixes, in lower case, of the files in a folder that are taken as pictures."""

MAX_PIXELS = 1024**3 // 4 // 3
"""Width times height above which a picture is refused: 89,478,485, Pillow's own limit (256 MiB of RGB)."""

MAX_SIDE = 2**16 - 1
"""Width or height above which a picture is refused."""

LARGE = 2**26
"""Bytes, on disk or decoded, above which pictures are decoded one at a time."""

_DECODERS = ("pillow", "tifffile", "imagecodecs", "pillow-heif")
DECODING = "2, " + ", ".join(f"{name} {version(name)}" for name in _DECODERS)
"""What grey values depend on besides the content of the file. The number is raised when decoding changes here."""

_LARGE_LOCK = threading.RLock()

# Pillow logs errors for some damaged TIFFs. Without a handler Python would print them.
logging.getLogger("PIL").addHandler(logging.NullHandler())


class PictureError(GelError):
    """A file that cannot be read as a picture.

    Attributes:
        path: the file.
        reason: why it cannot be read.
    """

    def __init__(self, path: Path, reason: str) -> None:
        # Exception needs both arguments to unpickle the error from a DataLoader worker.
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"

    def to_keep(self) -> "PictureError":
        """Removes the traceback, which would keep the content of the file in memory."""
        self.__cause__ = self.__context__ = self.__traceback__ = None
        return self


def read_picture(path: str | Path, colour: bool = False) -> Image.Image:
    """Reads a picture of any of :data:`~gel_lightning.data.formats.FORMATS`, or a packed one, as 8-bit grey or RGB.

    - The format is detected from the content. The first page or frame is read, in a TIFF the first that is not a
      thumbnail; :func:`describe_picture` tells which.
    - EXIF orientation is applied.
    - In grey, colour becomes ITU-R 601-2 luma, as in :meth:`PIL.Image.Image.convert`.
    - Transparent pixels become white, the page that such figures are made for; on black, dark text would vanish.
      An outermost row or column without any opaque pixel is cropped: office programs leave it when they crop, and
      it would be a bright edge on a gel. An alpha channel without any opaque pixel is ignored.
    - 8-bit pictures keep their values. Deeper, signed and float ones become grey, scaled to 0 .. 255 by
      :func:`~gel_lightning.data.grey.robust_range`, since a 12-bit camera uses little of the range of a 16-bit file.
      A constant picture becomes black, NaN black, and infinities black and white.
    - TIFFs whose smallest value is white are inverted.

    Args:
        path: the file, or the path of a packed picture (:mod:`~gel_lightning.data.packed`).
        colour: whether to read RGB.

    Returns:
        A picture of mode ``"L"``, or ``"RGB"`` in colour, that no longer needs the file.

    Raises:
        PictureError: the file cannot be opened, is truncated, damaged or of an unsupported kind, or exceeds
            :data:`MAX_PIXELS`, :data:`MAX_SIDE` or :data:`~gel_lightning.data.formats.MAX_BYTES`.
    """
    return read_with_digest(path, colour)[0]


def read_with_digest(path: str | Path, colour: bool = False) -> tuple[Image.Image, bytes]:
    """Reads a picture with :func:`read_picture`, and the digest of the same bytes.

    Args:
        path: the file.
        colour: whether to read RGB.

    Returns:
        The picture and its :func:`picture_digest`.

    Raises:
        PictureError: as for :func:`read_picture`.
    """
    path, mode = Path(path), "RGB" if colour else "L"
    if is_packed(path):
        pixels = _packed(path)
        return Image.fromarray(pixels).convert(mode), _digest_of(pixels)
    with _opened(path) as (picture, content):
        return picture.decode(mode).convert(mode), hashlib.sha256(content).digest()


def read_content(path: str | Path) -> bytes:
    """Reads a file for :func:`decode_content`.

    Args:
        path: the file.

    Raises:
        PictureError: the file cannot be opened, is empty, or is larger than
            :data:`~gel_lightning.data.formats.MAX_BYTES`.
    """
    path = Path(path)
    with _errors_named(path):
        _file_size(path)
        return path.read_bytes()


def decode_content(
    path: str | Path, content: bytes, at_least: int = 0, colour: bool = False
) -> tuple[Image.Image, PictureHeader]:
    """Decodes a picture like :func:`read_picture`, but smaller if it is much larger than needed.

    Args:
        path: of the file, for errors.
        content: of the whole file.
        at_least: pixels per side. A side at least twice as long is reduced by a whole factor, to no less than this.
            JPEGs are decoded at 1/2, 1/4 or 1/8 of their size; of colour JPEGs with sides of at least half this length
            only the luma is decoded where grey is wanted, which changes values by rounding. 0 keeps the size.
        colour: whether to read RGB.

    Returns:
        A picture of mode ``"L"``, or ``"RGB"`` in colour, and the header of the file.

    Raises:
        PictureError: as for :func:`read_picture`.
    """
    mode = "RGB" if colour else "L"
    with _opened(Path(path), content, at_least, mode) as (picture, _):
        decoded = picture.decode(mode).convert(mode)
        return shortened(decoded, at_least) if at_least else decoded, picture.header


def describe_picture(path: str | Path) -> PictureHeader:
    """Reads the header of a picture file, without decoding pixels.

    Args:
        path: the file.

    Raises:
        PictureError: as for :func:`read_picture`, as far as the header shows.
    """
    with _opened(Path(path)) as (picture, _):
        return picture.header


def picture_digest(path: str | Path) -> bytes:
    """Computes the SHA-256 of the content of a file, or of the pixels of a packed picture, 32 bytes.

    Args:
        path: the file.

    Raises:
        PictureError: the file cannot be opened, or is larger than :data:`~gel_lightning.data.formats.MAX_BYTES`.
    """
    path, digest = Path(path), hashlib.sha256()
    if is_packed(path):
        return _digest_of(_packed(path))
    with _errors_named(path):
        _file_size(path)
        with path.open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    return digest.digest()


def _packed(path: Path) -> NDArray[np.uint8]:
    with _errors_named(path):
        return read_packed(path)


def _digest_of(pixels: NDArray[np.uint8]) -> bytes:
    return hashlib.sha256(str(pixels.shape).encode() + pixels.tobytes()).digest()


def starts_as_picture(path: Path) -> bool:
    """Whether the first bytes of a file are those of a picture; False if it cannot be opened."""
    with suppress(OSError):
        if stat.S_ISREG(path.stat().st_mode):  # opening a named pipe would block
            with path.open("rb") as file:
                return is_picture_start(file.read(32))
    return False


@contextmanager
def _opened(
    path: Path, content: bytes | None = None, at_least: int = 0, mode: str = "L"
) -> Iterator[tuple[Opened, bytes]]:
    """Yields a picture that is not decoded yet, and the content of its file. All errors become PictureErrors."""
    with _errors_named(path), _warnings_hidden(), ExitStack() as held:
        if content is None:
            if _file_size(path) > LARGE:
                held.enter_context(_LARGE_LOCK)
            content = path.read_bytes()
        picture = open_picture(held.enter_context(BytesIO(content)), at_least, mode)
        width, height = picture.header[:2]
        if width * height > MAX_PIXELS:
            raise Image.DecompressionBombError
        if max(width, height) > MAX_SIDE:
            raise RefusedError(f"is {width} x {height} pixels, more than {MAX_SIDE:,} on a side; cut it")
        if picture.size > MAX_BYTES:
            raise RefusedError(f"takes more than {MAX_BYTES >> 20} MiB decoded; save it smaller, or with 16 bits")
        if picture.size > LARGE:
            held.enter_context(_LARGE_LOCK)
            held.callback(_return_memory)
        yield picture, content


def _return_memory() -> None:
    """Returns free memory to the system: otherwise glibc keeps that of one picture per thread."""
    with suppress(AttributeError, OSError, TypeError):  # other systems have no such function and do not need it
        ctypes.CDLL(None).malloc_trim(0)


def _file_size(path: Path) -> int:
    """Checks the size of a file, and returns it in bytes."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        # Opening a named pipe would block.
        raise PictureError(path, "is a folder or a device, not a picture file")
    if status.st_size == 0:
        raise PictureError(path, "is empty (0 bytes)")
    if status.st_size > MAX_BYTES:
        raise PictureError(path, f"is larger than {MAX_BYTES >> 20} MiB; save it smaller")
    return status.st_size


@contextmanager
def _errors_named(path: Path) -> Iterator[None]:
    try:
        yield
    except GelError:
        raise
    except Exception as error:  # decoders raise nearly anything for damaged files
        if isinstance(error, OSError) and error.errno in OUT_OF_FILES:
            raise
        raise PictureError(path, _reason(error)) from error


def _reason(error: Exception) -> str:
    if isinstance(error, RefusedError):
        return str(error)
    if isinstance(error, Image.DecompressionBombError):
        return f"has more than {MAX_PIXELS:,} pixels; save it smaller"
    if isinstance(error, MemoryError):
        return "does not fit into memory; save it smaller"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be opened ({error.strerror})"
    return f"is cut off or damaged ({_one_line(error)})"


def _one_line(error: Exception) -> str:
    text = "".join(char if char.isprintable() else " " for char in str(error))
    return " ".join(text.split())[:200] or type(error).__name__


@contextmanager
def _warnings_hidden() -> Iterator[None]:
    """Hides warnings of decoders, in all threads, while the block runs.

    Warning filters are global, and :class:`warnings.catch_warnings` in two threads at once can change them for good.
    So each block adds and removes one filter, for decoders only.
    """
    ignore = ("ignore", None, Warning, re.compile(r"(PIL|tifffile|imagecodecs|pillow_heif)\b"), 0)
    warnings.filters.insert(0, ignore)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        # Missing if another thread has replaced the list of filters meanwhile.
        with suppress(ValueError):
            warnings.filters.remove(ignore)  # type: ignore[attr-defined]
