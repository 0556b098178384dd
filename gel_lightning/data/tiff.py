"""Reading TIFF files with tifffile: any byte order, number type and layout, and the usual compressions."""

import io
import logging
import struct
import zlib
from contextlib import suppress
from itertools import accumulate
from math import prod
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tifffile import COMPRESSION, EXTRASAMPLE, FILLORDER, PHOTOMETRIC, PLANARCONFIG, TiffFile, TiffPage

from gel_lightning.data.formats import MAX_BYTES, Opened, PictureHeader, RefusedError
from gel_lightning.data.grey import converted, grey_of_deep, upright

_FAX = {2, 3, 4}
_JPEG, _JPEG2000, _WEBP = 7, {33004, 33005, 34712}, {34927, 50001}
_PICTURES = {_JPEG, *_JPEG2000, *_WEBP}  # each strip or tile is a picture file with its own size
# None, LZW, deflate, PackBits, LZMA, Zstandard. Others are rare, and some codecs crash on damaged files.
_COMPRESSIONS = {1, 5, 8, 32946, 32773, 34925, 34926, 50000} | _FAX | _PICTURES
_COLOURS = {
    PHOTOMETRIC.MINISWHITE: (1, "grey"),
    PHOTOMETRIC.MINISBLACK: (1, "grey"),
    PHOTOMETRIC.RGB: (3, "colour"),
    PHOTOMETRIC.PALETTE: (1, "palette"),
    PHOTOMETRIC.SEPARATED: (4, "CMYK"),
    PHOTOMETRIC.YCBCR: (3, "YCbCr"),
    PHOTOMETRIC.CIELAB: (3, "Lab"),
    PHOTOMETRIC.ICCLAB: (3, "Lab"),
    PHOTOMETRIC.ITULAB: (3, "Lab"),
}
"""Channels and name of the supported colour spaces. Of Lab the lightness is used, of YCbCr the luma."""

_NUMBERS = {"u": "", "b": "", "i": " signed", "f": " float"}
_REDUCED_OR_MASK = 0b101
_NEEDED = (258, 273, 279, 320, 324, 325, 338, 339, 347)  # tags whose value may lie outside the header
_GDAL_NODATA, _ORIENTATION = 42113, 274

# tifffile logs oddities of a file. Without a handler Python would print them.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


def open_tiff(file: io.BytesIO) -> Opened:
    """Reads the header of the first page of a TIFF that is neither a thumbnail nor a mask.

    Args:
        file: the bytes of the file.

    Raises:
        RefusedError: the TIFF is of an unsupported kind.
        Exception: the file is damaged.
    """
    content, tiff = file.getvalue(), TiffFile(file)
    page = tiff.pages.first
    for other in tiff.pages:
        if isinstance(other, TiffPage) and not other.subfiletype & _REDUCED_OR_MASK:
            page = other
            break
    _check_header(page, content)
    kind = _checked_kind(page)
    _check_parts(page, content)
    pages = len(tiff.pages)
    with suppress(Exception):  # ImageJ writes only the header of the first page
        pages = max(pages, int((tiff.imagej_metadata or {}).get("images", 1)))
    header = PictureHeader(page.imagewidth, page.imagelength, kind, "TIFF", pages, page.index + 1)

    def decode(mode: str) -> Image.Image:
        orientation = page.tags.valueof(_ORIENTATION, 1)
        return upright(_pixels(page, content, mode), orientation)

    return Opened(header, page.nbytes, decode)


def _check_header(page: TiffPage, content: bytes) -> None:
    """Checks that tifffile skipped no tag whose value is beyond the end of the file, and that sizes are numbers."""
    tiff = page.parent.tiff
    (entries,) = struct.unpack_from(tiff.tagnoformat, content, page.offset)
    places = range(page.offset + tiff.tagnosize, len(content) - 1, tiff.tagsize)[:entries]
    written = {struct.unpack_from(f"{tiff.byteorder}H", content, place)[0] for place in places}
    if not all(isinstance(number, int) for number in (*page.shaped, *page.chunks, *page.chunked)):
        raise ValueError("a number in its header is damaged")
    if len(places) < entries or any(tag in written and tag not in page.tags for tag in _NEEDED):
        raise ValueError("parts of its header are missing")


def _checked_kind(page: TiffPage) -> str:
    """Checks that the pixels of a page can be read, and describes them."""
    if page.compression not in _COMPRESSIONS:
        raise _refused(f"{_name(COMPRESSION, page.compression)} compression")
    if page.photometric not in _COLOURS:
        raise _refused(f"{_name(PHOTOMETRIC, page.photometric)} pixels")
    if page.dtype is None or page.dtype.kind not in _NUMBERS or not isinstance(page.bitspersample, int):
        raise _refused(f"pixels of {page.bitspersample} bits and sample format {page.sampleformat}")
    _, colour = _COLOURS[PHOTOMETRIC(page.photometric)]
    alpha = " with alpha" if _alpha_channel(page) else ""
    return f"{page.bitspersample}-bit{_NUMBERS[page.dtype.kind]} {colour}{alpha}"


def _refused(what: str) -> RefusedError:
    return RefusedError(f"is a TIFF with {what}, which is not read; save it as PNG")


def _name(names: Any, value: int) -> str:
    try:
        return str(names(value).name)
    except ValueError:
        return f"unknown ({value})"


def _check_parts(page: TiffPage, content: bytes) -> None:
    """Checks that all strips or tiles are present, and that none decodes to more than it should."""
    offsets, counts = page.dataoffsets, page.databytecounts
    if len(offsets) < prod(page.chunked) or len(counts) < prod(page.chunked) or not all(offsets) or not all(counts):
        raise ValueError("parts of the pixels are missing")
    part = prod(page.chunks)
    if part * ((page.bitspersample + 7) // 8) > MAX_BYTES:
        raise RefusedError("has parts that do not fit into memory; save it as PNG")
    if page.compression == COMPRESSION.NONE:
        row = -(-page.imagewidth * page.samplesperpixel * page.bitspersample // 8)
        stored = sum(min(count, len(content) - offset) for offset, count in zip(offsets, counts, strict=True))
        if stored < row * page.imagelength * page.imagedepth:
            raise ValueError("parts of the pixels are missing")
    elif any(offset + count > len(content) for offset, count in zip(offsets, counts, strict=True)):
        raise ValueError("parts of the pixels are missing")
    if page.compression in _PICTURES:
        for offset, count in zip(offsets, counts, strict=True):
            if _picture_pixels(content[offset : offset + count]) > 2 * part + 2**16:
                raise ValueError("a part of the pixels is larger than the page")


def _picture_pixels(file: bytes) -> int:
    """Width times height of a strip or tile that is a picture file."""
    if file.startswith(b"\xff\xd8"):  # JPEG, of which Pillow supports fewer kinds
        place = 2
        while place + 9 <= len(file):
            marker, length, _, height, width = struct.unpack_from(">HHBHH", file, place)
            if 0xFFC0 <= marker <= 0xFFCF and marker not in (0xFFC4, 0xFFC8, 0xFFCC):  # a start of frame
                return int(height * width)
            place += 2 + length
        raise ValueError("a part has no JPEG header")
    with Image.open(io.BytesIO(file), formats=("JPEG2000", "WEBP")) as picture:
        return prod(picture.size)


def _alpha_channel(page: TiffPage) -> tuple[int, bool] | None:
    """The index of the alpha channel, and whether it is premultiplied."""
    channels, _ = _COLOURS[PHOTOMETRIC(page.photometric)]
    for place, kind in enumerate(page.extrasamples):
        if kind in (EXTRASAMPLE.ASSOCALPHA, EXTRASAMPLE.UNASSALPHA):
            return channels + place, kind == EXTRASAMPLE.ASSOCALPHA
    return None


def _pixels(page: TiffPage, content: bytes, mode: str) -> Image.Image:
    if _left_to_pillow(page):
        picture = Image.open(io.BytesIO(content), formats=("TIFF",))
        picture.seek(page.index)
        return converted(picture, mode)
    if page.compression == COMPRESSION.LZW:
        page = _without_lzw(page, content)
    planes = page.asarray(squeeze=False, maxworkers=1)[:, 0]  # [planes, height, width, channels] of the first slice
    samples = planes[0] if len(planes) == 1 else np.moveaxis(planes[..., 0], 0, -1)
    channels, name = _COLOURS[PHOTOMETRIC(page.photometric)]
    if samples.shape[-1] < channels:
        raise ValueError("channels are missing")
    if name == "palette":
        return converted(_looked_up(samples[..., 0], page.colormap), mode)
    samples = _full_range(samples, page.bitspersample)
    if name == "CMYK":
        inks = samples[..., :4] if samples.dtype == np.uint8 else samples[..., :4] >> 8 * (samples.dtype.itemsize - 1)
        return converted(_picture("CMYK", inks), mode)
    rgb = name == "colour" or (name == "YCbCr" and page.compression == _JPEG)  # tifffile converts it to RGB
    colour = samples[..., :3] if rgb else samples[..., :1]
    min_is_white = page.photometric == PHOTOMETRIC.MINISWHITE
    alpha_channel = _alpha_channel(page)
    if samples.dtype == np.uint8:
        if min_is_white:
            colour = 255 - colour
        own = "L" if colour.shape[-1] == 1 else "RGB"
        if alpha_channel:
            place, multiplied = alpha_channel
            colour = np.concatenate([colour, samples[..., place, None]], axis=-1)
            own += "a" if multiplied else "A"
        return converted(_picture(own, colour), mode)
    colour = colour[..., 0] if colour.shape[-1] == 1 else colour
    alpha = samples[..., alpha_channel[0]] if alpha_channel else None
    return grey_of_deep(colour, alpha, min_is_white, _no_data(page), bool(alpha_channel and alpha_channel[1]))


def _left_to_pillow(page: TiffPage) -> bool:
    """Whether a page is of a rare kind that tifffile cannot decode correctly."""
    if page.compression in _FAX:
        return not hasattr(imagecodecs, "ccittfax4_decode")  # imagecodecs before 2025.8, the last for Python 3.10
    if page.compression == _JPEG:
        return _COLOURS[PHOTOMETRIC(page.photometric)][1] == "Lab"
    return page.is_subsampled


def _without_lzw(page: TiffPage, content: bytes) -> TiffPage:
    """The same page with strips or tiles that libtiff has decoded, stored as deflate without compression.

    imagecodecs 2026.3.6, which tifffile uses, ends the process on damaged LZW codes.
    """
    width = page.tilewidth if page.is_tiled else page.imagewidth
    samples = width if page.planarconfig == PLANARCONFIG.SEPARATE else width * page.samplesperpixel
    row, rows = -(-samples * page.bitspersample // 8), prod(page.chunks) // samples
    strips = -(-page.imagelength // rows)
    file, counts = io.BytesIO(), []
    file.write(content)
    for index, (offset, count) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=True)):
        data = content[offset : offset + count]
        if page.fillorder == FILLORDER.LSB2MSB:
            data = bytes(imagecodecs.bitorder_decode(data))
        present = rows if page.is_tiled else min(rows, page.imagelength - index % strips * rows)
        decompressed = imagecodecs.tiff_decode(_lzw_tiff(data, row * present)).tobytes()
        counts.append(file.write(zlib.compress(decompressed, level=0)))
    file.seek(0)
    decoded = TiffFile(file).pages[page.index]
    assert isinstance(decoded, TiffPage)
    # Not NONE, with which tifffile would leave the predictor out.
    decoded.compression, decoded.fillorder = COMPRESSION.ADOBE_DEFLATE, FILLORDER.MSB2LSB
    decoded.dataoffsets = tuple(len(content) + end for end in accumulate(counts[:-1], initial=0))
    decoded.databytecounts = tuple(counts)
    return decoded


def _lzw_tiff(data: bytes, size: int) -> bytes:
    """A TIFF of one row of ``size`` bytes that LZW has packed into ``data``."""
    tags = {256: size, 257: 1, 258: 8, 259: COMPRESSION.LZW, 262: 1, 273: 8, 277: 1, 278: 1, 279: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    padded = data + b"\0" * (len(data) % 2)
    return struct.pack("<2sHI", b"II", 42, 8 + len(padded)) + padded + struct.pack("<H", len(tags)) + entries + bytes(4)


def _picture(mode: str, samples: NDArray[Any]) -> Image.Image:
    height, width, _ = samples.shape
    return Image.frombytes(mode, (width, height), samples.astype(np.uint8, copy=False).tobytes())


def _full_range(samples: NDArray[Any], bits: int) -> NDArray[Any]:
    """Scales unsigned samples of fewer bits than their type to its full range, exactly below 8 bits."""
    if samples.dtype.kind not in "ub" or bits >= 8 * samples.dtype.itemsize:
        return samples
    if bits < 8:
        table: NDArray[Any] = np.rint(np.arange(2**bits) * 255 / (2**bits - 1)).astype(np.uint8)
        return np.take(table, samples.astype(np.uint8))
    stretched: NDArray[Any] = samples << (8 * samples.dtype.itemsize - bits)
    return stretched


def _looked_up(indices: NDArray[Any], colours: NDArray[Any] | None) -> Image.Image:
    """Looks up the colours of a palette, [3, n], of 16 bits each."""
    if colours is None:
        raise ValueError("its palette is missing")
    if colours.max() > 255:  # some programs write 8-bit values
        colours = colours >> 8
    return _picture("RGB", colours.T.astype(np.uint8)[indices])


def _no_data(page: TiffPage) -> float | None:
    """The value of pixels without data, if any, which GDAL writes as text."""
    with suppress(TypeError, ValueError):
        return float(str(page.tags.valueof(_GDAL_NODATA)).strip("\0 "))
    return None
