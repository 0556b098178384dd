"""Any picture file a lab has -> one 8-bit grey picture; the only place that opens pictures.

Memory: one picture takes at most 2 GiB while it is decoded, and those that all threads of a process decode at a time at
most 3 GiB. Files and pictures beyond the limits below are refused, by their size on disk and by their header, before
anything is decoded; those above :data:`LARGE` are decoded one at a time.
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

from PIL import Image

from gel_lightning.core.errors import OUT_OF_FILES, GelError
from gel_lightning.data.formats import MAX_BYTES, Opened, PictureHeader, RefusedError, is_picture_start, open_picture
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
"""What the grey values depend on besides a file's content; the number is raised when decoding here changes."""

_LARGE_LOCK = threading.RLock()

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

    def to_keep(self) -> "PictureError":
        """The error without its traceback, which would keep the file's content in memory."""
        self.__cause__ = self.__context__ = self.__traceback__ = None
        return self


def read_picture(path: str | Path) -> Image.Image:
    """Reads a picture file of any of :data:`~gel_lightning.data.formats.FORMATS` as 8-bit grey.

    - The format is found from the content. Of several pages or frames the first is read, and of a TIFF the first that
      is no thumbnail; :func:`describe_picture` tells which.
    - EXIF orientation is applied.
    - Colour becomes ITU-R 601-2 luma, as :meth:`PIL.Image.Image.convert` has it.
    - What is transparent becomes white: the page that such figures and plots are drawn for. On black, dark
      lettering would vanish. An outermost row or column that is nowhere opaque is cut off: it is what is
      left of cropping in an office program, and would be a bright edge on a gel. An alpha channel that is nowhere
      opaque is ignored.
    - 8-bit pictures keep their values. Deeper ones, signed ones and floats are scaled to 0 .. 255 by
      :func:`~gel_lightning.data.grey.robust_range`, since a 12-bit camera leaves most of a 16-bit file's range empty;
      a constant picture becomes black, NaN black, and infinities black and white.
    - TIFFs whose least value is white are turned the right way round.

    Args:
        path: the file.

    Returns:
        A picture of mode ``"L"`` that no longer needs the file.

    Raises:
        PictureError: the file cannot be opened, is cut off or damaged, is not a picture of a kind that can
            be read, or is beyond :data:`MAX_PIXELS`, :data:`MAX_SIDE` or
            :data:`~gel_lightning.data.formats.MAX_BYTES`.
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
    with _opened(Path(path)) as (picture, content):
        grey = picture.decode()
        return grey, hashlib.sha256(content).digest()


def read_content(path: str | Path) -> bytes:
    """Reads a file that is to be decoded by :func:`decode_content`.

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


def decode_content(path: str | Path, content: bytes, at_least: int = 0) -> tuple[Image.Image, PictureHeader]:
    """Decodes a picture as :func:`read_picture` does, or smaller where it is much larger than needed.

    Args:
        path: of the file, for errors.
        content: of the file, whole.
        at_least: pixels a side; each that is twice as long or more comes shorter by a whole factor, and no shorter than
            this. JPEGs are decoded at 1/2, 1/4 or 1/8 of their size, and of colour ones that are half as large the luma
            alone, which differs by rounding. 0 keeps all.

    Returns:
        A picture of mode ``"L"``, and what the file says of itself.

    Raises:
        PictureError: as for :func:`read_picture`.
    """
    with _opened(Path(path), content, at_least) as (picture, _):
        grey = picture.decode()
        return shortened(grey, at_least) if at_least else grey, picture.header


def describe_picture(path: str | Path) -> PictureHeader:
    """Reads what a picture file says of itself, without decoding the pixels.

    Args:
        path: the file.

    Raises:
        PictureError: as for :func:`read_picture`, as far as the header tells.
    """
    with _opened(Path(path)) as (picture, _):
        return picture.header


def picture_digest(path: str | Path) -> bytes:
    """Finds the SHA-256 of a file's content, 32 bytes, without decoding it.

    Args:
        path: the file.

    Raises:
        PictureError: the file cannot be opened, or is larger than :data:`~gel_lightning.data.formats.MAX_BYTES`.
    """
    path, digest = Path(path), hashlib.sha256()
    with _errors_named(path):
        _file_size(path)
        with path.open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    return digest.digest()


def starts_as_picture(path: Path) -> bool:
    """Tells by the first bytes of a file whether it is a picture; False if it cannot be opened."""
    with suppress(OSError):
        if stat.S_ISREG(path.stat().st_mode):  # opening a named pipe would wait for ever
            with path.open("rb") as file:
                return is_picture_start(file.read(32))
    return False


@contextmanager
def _opened(path: Path, content: bytes | None = None, at_least: int = 0) -> Iterator[tuple[Opened, bytes]]:
    """Yields a picture whose pixels are not yet decoded, with its file's content; all errors are PictureErrors."""
    with _errors_named(path), _warnings_hidden(), ExitStack() as held:
        if content is None:
            if _file_size(path) > LARGE:
                held.enter_context(_LARGE_LOCK)
            content = path.read_bytes()
        picture = open_picture(held.enter_context(BytesIO(content)), at_least)
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
    """Has the C library of Linux give back what is free: else it keeps the pixels of a picture for each thread."""
    with suppress(AttributeError, OSError, TypeError):  # other systems have no such function, and no need of it
        ctypes.CDLL(None).malloc_trim(0)


def _file_size(path: Path) -> int:
    """The size of a file in bytes, which is checked."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        # Opening a named pipe would wait for ever.
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
    except Exception as error:  # damaged bytes make decoders raise nearly anything
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
    """Hides what decoders warn of, in every thread, while the block runs.

    The filters belong to the whole process, and :class:`warnings.catch_warnings` in two threads at once can
    leave them changed for good. Each reader here puts in and takes out one filter, of decoders alone.
    """
    ignore = ("ignore", None, Warning, re.compile(r"(PIL|tifffile|imagecodecs|pillow_heif)\b"), 0)
    warnings.filters.insert(0, ignore)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        # Gone if another thread has put its own list of filters in place meanwhile.
        with suppress(ValueError):
            warnings.filters.remove(ignore)  # type: ignore[attr-defined]
