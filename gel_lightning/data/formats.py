"""Picture formats: reading the header of a file, and how to decode it. TIFF has a module of its own."""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

from PIL import ExifTags, Image, UnidentifiedImageError

from gel_lightning.data.grey import converted, grey_of_samples, upright

PILLOW_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "WEBP")
"""The formats that Pillow reads here, by its names. Others are excluded: one runs Ghostscript."""

FORMATS = "JPEG, PNG, TIFF, BMP, GIF, WebP, JPEG 2000, HEIC, AVIF"
"""All formats that can be read, for messages."""

MAX_BYTES = 2**29
"""Bytes, on disk or decoded, above which a picture is refused: 512 MiB."""

PNG_START, TIFF_STARTS = b"\x89PNG\r\n\x1a\n", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_JPEG2000_STARTS = (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")
_STARTS = (PNG_START, *TIFF_STARTS, *_JPEG2000_STARTS, b"\xff\xd8\xff", b"GIF87a", b"GIF89a")

_REFUSED = {
    b"%PDF": "a PDF document",
    b"%!PS": "a PostScript drawing",
    b"8BPS": "a Photoshop document",
    b"\xff\xd8\xff\xf7": "a JPEG-LS picture",
    b"\xff\xd8\xff": "a JPEG of an unusual kind (12 bits or lossless) or damaged",
    b"\xff\x0a": "a JPEG XL picture",
    b"\0\0\0\x0cJXL ": "a JPEG XL picture",
    b"II\xbc\x01": "a JPEG XR picture",
    b"ZISRAWFILE": "a Zeiss CZI file",
    b"\xafGP": "a Bio-Rad 1sc file",
    b"\x89HDF": "an HDF5 file",
    b"<svg": "an SVG drawing",
    b"PK\x03\x04": "a zip archive or an office document",
}
_PNG_CRITICAL, _PNG_USED = (b"IHDR", b"PLTE", b"IDAT", b"IEND"), (b"tRNS", b"eXIf")
_PNG_COLOUR_OR_ALPHA = (2, 4, 6)
_MODES = {
    "1": "1-bit grey",
    "L": "8-bit grey",
    "LA": "8-bit grey with alpha",
    "P": "palette",
    "PA": "palette with alpha",
    "RGB": "8-bit colour",
    "RGBA": "8-bit colour with alpha",
    "RGBX": "8-bit colour",
    "CMYK": "8-bit CMYK",
    "YCbCr": "8-bit colour",
}


class RefusedError(ValueError):
    """A file of a kind or size that is not read. The message completes the sentence "FILE: ..."."""


class PictureHeader(NamedTuple):
    """The header of a picture file.

    Attributes:
        width: pixels, as stored.
        height: pixels, as stored.
        pixels: the kind of pixels, for example ``"8-bit colour"`` or ``"16-bit grey"``.
        format: the file format by Pillow's name, for example ``"TIFF"``.
        pages: number of pages or frames.
        page: the one that is read, from 1.
    """

    width: int
    height: int
    pixels: str
    format: str
    pages: int = 1
    page: int = 1


class Opened(NamedTuple):
    """A picture whose header was read, but not its pixels.

    Attributes:
        header: of the file.
        size: bytes of the decoded pixels.
        decode: decodes the pixels, upright. It is called with the mode, ``"L"`` or ``"RGB"``; deep pictures are ``"L"``
            in either case.
    """

    header: PictureHeader
    size: int
    decode: Callable[[str], Image.Image]


def open_picture(file: io.BytesIO, at_least: int = 0, mode: str = "L") -> Opened:
    """Reads the header of a picture, whose format is detected from the content.

    Args:
        file: the bytes of the file. Closing it frees them; cyclic references of tifffile would keep them otherwise.
        at_least: smallest side in pixels to which a JPEG may be reduced while it is decoded. If its sides have at least
            half of that, and the mode is ``"L"``, only the luma is decoded. 0 decodes all.
        mode: that ``decode`` will be called with.

    Raises:
        RefusedError: the file is of an unsupported kind.
        Exception: the file is damaged; Pillow, tifffile and imagecodecs raise nearly anything.
    """
    content = file.getvalue()
    if content.startswith(TIFF_STARTS):
        from gel_lightning.data.tiff import open_tiff  # loads tifffile

        return open_tiff(file)
    if _is_heif(content):
        from pillow_heif import open_heif

        heif = open_heif(file)
        width, height = heif.size
        kind, page = _MODES.get(heif.mode, heif.mode), heif.primary_index + 1
        header = PictureHeader(width, height, kind, "HEIF", len(heif), page)
        return Opened(header, 4 * width * height, lambda mode: converted(heif.to_pillow(), mode))
    if content.startswith(PNG_START):
        content = _essential_chunks(content)
    try:
        picture = Image.open(io.BytesIO(content), formats=PILLOW_FORMATS)
    except UnidentifiedImageError:
        kind = next((kind for start, kind in _REFUSED.items() if content.startswith(start)), None)
        what = f"is {kind}, not" if kind else "is not"
        reason = f"{what} a picture that can be read ({FORMATS})"
        raise RefusedError(reason if kind else f"{reason}, or is damaged; save it as PNG") from None
    return _opened(picture, content, at_least, mode)


def _opened(picture: Image.Image, content: bytes, at_least: int, mode: str) -> Opened:
    width, height = picture.size
    file_format = picture.format or ""
    pages = getattr(picture, "n_frames", 1) if file_format in ("GIF", "WEBP", "AVIF") else 1
    decode_deep = _deep_decoder(picture, content)
    if decode_deep is not None:
        channels = len(picture.getbands())
        kind, bytes_a_pixel = f"16-bit {'grey' if channels == 2 else 'colour'}", 2 * channels
    elif picture.mode.startswith("I;16"):
        kind, bytes_a_pixel = "16-bit grey", 2
    else:
        kind, bytes_a_pixel = _MODES.get(picture.mode, picture.mode), 1 if picture.mode in ("1", "L", "P") else 4

    if 0 < at_least <= 2 * min(width, height):
        picture.draft(mode, (at_least, at_least))  # affects JPEGs only

    def decode(mode: str) -> Image.Image:
        pixels = decode_deep() if decode_deep else converted(picture, mode)
        pixels = upright(pixels, _orientation(picture))
        picture.close()  # frees its pixels
        return pixels

    return Opened(PictureHeader(width, height, kind, file_format, pages), bytes_a_pixel * width * height, decode)


def _deep_decoder(picture: Image.Image, content: bytes) -> Callable[[], Image.Image] | None:
    """A decoder for 16-bit colour or alpha, of which Pillow keeps only 8 bits; None for other pictures."""
    if picture.format == "PNG":
        depth, colour_type = content[24:26]  # in IHDR, the first chunk
        deep, codec = depth == 16 and colour_type in _PNG_COLOUR_OR_ALPHA, "png_decode"
    elif picture.format == "JPEG2000":
        start = content.find(_JPEG2000_STARTS[1])
        depth = (content[start + 42] & 0x7F) + 1  # of the first component, in the codestream's SIZ marker
        deep, codec = depth > 8 and not picture.mode.startswith("I"), "jpeg2k_decode"
    else:
        return None
    if not deep:
        return None

    def decode() -> Image.Image:
        import imagecodecs

        if picture.format == "PNG" and not all(whole for _, _, whole in _chunks(content)):
            raise ValueError("a checksum is wrong")  # libpng would print a line to stderr
        samples = getattr(imagecodecs, codec)(content)
        if samples.shape[1::-1] != picture.size:
            raise ValueError("its parts differ in size")
        return grey_of_samples(samples)

    return decode


def _essential_chunks(png: bytes) -> bytes:
    """Removes the chunks of a PNG that its pixels do not need, such as long or damaged texts and profiles."""
    chunks = (chunk for name, chunk, whole in _chunks(png) if name in _PNG_CRITICAL or (name in _PNG_USED and whole))
    return b"".join([png[:8], *chunks])


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes, bool]]:
    """Yields the name of each chunk, the chunk, and whether its checksum is correct."""
    place = 8
    while place + 8 <= len(png):
        length, name = struct.unpack_from(">L4s", png, place)
        chunk = png[place : place + 12 + length]
        yield name, chunk, chunk[-4:] == struct.pack(">L", zlib.crc32(chunk[4:-4]))
        place += 12 + length


def _orientation(picture: Image.Image) -> int:
    """The EXIF orientation of a loaded picture; 1 (upright) if it is missing or damaged."""
    with suppress(Exception):  # damaged metadata are ignored
        return int(picture.getexif().get(ExifTags.Base.Orientation, 1))
    return 1


def _is_heif(start: bytes) -> bool:
    # AVIF files may have mif1 as their major brand, and avif among the compatible brands.
    return start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS and b"avif" not in start[16:32]


def is_picture_start(start: bytes) -> bool:
    """Whether the first bytes of a file, 16 or more, are those of a supported format."""
    return (
        start.startswith(_STARTS)
        or (start[:4] == b"RIFF" and start[8:12] == b"WEBP")
        or (start[4:8] == b"ftyp" and start[8:12] in (*_HEIF_BRANDS, b"avif", b"avis"))
        or (start[:2] == b"BM" and start[6:10] == bytes(4))
    )
