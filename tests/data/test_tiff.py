"""TIFFs as instruments write them: of any byte order, number type, compression and layout."""

from contextlib import suppress
from itertools import product

import imagecodecs
import numpy as np
import pytest
import tifffile

from gel_lightning.data import formats, tiff
from gel_lightning.data.images import PictureError, describe_picture, read_picture

# A gel of a 12-bit camera: 60 rows, 80 columns, no two rows or columns alike.
GREY = (np.add.outer(np.arange(60) ** 2, np.arange(80) * 5) % 3500 + 300).astype(np.uint16)
BYTE = (GREY >> 4).astype(np.uint8)
KINDS = {
    "uint8": BYTE,
    "int8": (BYTE.astype(int) - 128).astype(np.int8),
    "uint16": GREY,
    "int16": (GREY.astype(int) - 2000).astype(np.int16),
    "uint32": GREY * np.uint32(10**6),
    "int32": GREY.astype(np.int32) - 2000,
    "uint64": GREY.astype(np.uint64),
    "float16": GREY.astype(np.float16),
    "float32": GREY / np.float32(4095),
    "float64": GREY.astype(np.float64),
}


def likeness(path, values=GREY):
    """The correlation of the grey picture with what it should be."""
    grey = np.asarray(read_picture(path))
    assert grey.shape == values.shape
    return np.corrcoef(grey.ravel(), values.ravel())[0, 1]


def write(path, values, **options):
    tifffile.imwrite(path, values, **options)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_number_types(tmp_path, kind):
    layouts = ({}, {"rowsperstrip": 7}, {"tile": (32, 48)}, {"bigtiff": True})
    for compression, order, layout in product((None, "lzw", "deflate", "zstd", "packbits", "lzma"), "<>", layouts):
        path = write(tmp_path / "a.tif", KINDS[kind], compression=compression, byteorder=order, **layout)
        assert likeness(path) > 0.999, (compression, order, layout)


@pytest.mark.parametrize("kind", ["uint8", "uint16", "uint32", "float32"])
def test_predictors(tmp_path, kind):
    predictor = 3 if kind == "float32" else 2
    for compression, order in product(("lzw", "deflate", "zstd"), "<>"):
        path = write(tmp_path / "a.tif", KINDS[kind], compression=compression, byteorder=order, predictor=predictor)
        assert likeness(path) > 0.999


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("planes", ["contig", "separate"])
def test_colour_and_alpha(tmp_path, kind, planes):
    grey = KINDS[kind]
    full = np.full_like(grey, 1 if kind == "float32" else np.iinfo(grey.dtype).max)
    axis = -1 if planes == "contig" else 0
    for order, alpha, extra in product("<>", (full, 0 * full), ("unassalpha", "assocalpha", "unspecified")):
        options = {"byteorder": order, "planarconfig": planes}
        path = write(tmp_path / "a.tif", np.stack([grey] * 3, axis), photometric="rgb", **options)
        assert likeness(path) > 0.999
        options["extrasamples"] = [extra]
        path = write(tmp_path / "a.tif", np.stack([grey] * 3 + [alpha], axis), photometric="rgb", **options)
        assert likeness(path) > 0.999
        path = write(tmp_path / "a.tif", np.stack([grey, alpha], axis), photometric="minisblack", **options)
        assert likeness(path) > 0.999


def test_deep_transparency_is_white(tmp_path):
    alpha = np.full_like(GREY, 65535)
    alpha[10:20, 10:20] = 0
    path = write(tmp_path / "a.tif", np.dstack([GREY, alpha]), photometric="minisblack", extrasamples=["unassalpha"])
    assert (np.asarray(read_picture(path))[10:20, 10:20] == 255).all()


def can_pack() -> bool:
    """Whether imagecodecs packs bits; version 2025.3.30 only unpacks them."""
    try:
        return bool(imagecodecs.packints_encode(np.zeros(8, np.uint8), 2))
    except NotImplementedError:
        return False


@pytest.mark.skipif(not can_pack(), reason="this imagecodecs cannot pack bits")
@pytest.mark.parametrize("bits", [1, 2, 4, 9, 10, 12, 14])
def test_packed_bits(tmp_path, bits):
    values = BYTE >> (8 - bits) if bits < 8 else GREY >> max(12 - bits, 0)
    values = values.astype(bool) if bits == 1 else values
    for photometric, sign in (("minisblack", 1), ("miniswhite", -1)):
        path = write(tmp_path / "a.tif", values, bitspersample=bits, photometric=photometric)
        assert sign * likeness(path, values) > 0.999
    assert describe_picture(path).pixels == f"{bits}-bit grey"


@pytest.mark.parametrize("kind", ["uint8", "uint16", "int16", "float32"])
def test_min_is_white(tmp_path, kind):
    for compression, order in product((None, "lzw"), "<>"):
        options = {"photometric": "miniswhite", "compression": compression, "byteorder": order}
        assert likeness(write(tmp_path / "a.tif", KINDS[kind], **options)) < -0.999


def test_palette(tmp_path):
    ramp = np.stack([np.arange(256) * 257] * 3).astype(np.uint16)
    for colours, sign in ((ramp, 1), (ramp[:, ::-1].copy(), -1), (ramp >> 8, 1)):
        assert sign * likeness(write(tmp_path / "a.tif", BYTE, photometric="palette", colormap=colours)) > 0.999


def test_inks_and_lightness(tmp_path):
    inks = np.stack([0 * GREY] * 3 + [65535 - 16 * GREY], -1)
    assert likeness(write(tmp_path / "a.tif", inks, photometric="separated")) > 0.999
    assert likeness(write(tmp_path / "a.tif", (inks >> 8).astype(np.uint8), photometric="separated")) > 0.999
    lab = np.stack([GREY, 0 * GREY, 0 * GREY], -1)
    assert likeness(write(tmp_path / "a.tif", lab, photometric="cielab")) > 0.999


@pytest.mark.parametrize("compression", ["jpeg", "jpeg2000", "webp"])
@pytest.mark.parametrize("options", [{}, {"tile": (32, 48)}])
def test_parts_that_are_pictures(tmp_path, compression, options):
    colour = np.stack([np.add.outer(np.arange(60), np.arange(80))] * 3, -1).astype(np.uint8)
    path = write(tmp_path / "a.tif", colour, photometric="rgb", compression=compression, **options)
    assert likeness(path, colour[..., 0]) > 0.99


def test_deep_jpeg2000(tmp_path):
    assert likeness(write(tmp_path / "a.tif", GREY, compression="jpeg2000")) > 0.999


@pytest.mark.parametrize("options", [{"photometric": "minisblack"}, {"imagej": True}, {"ome": True}])
def test_the_first_of_several_pages(tmp_path, options):
    path = write(tmp_path / "a.tif", np.stack([GREY, GREY[::-1], GREY[::-1]]), **options)
    assert likeness(path) > 0.999
    assert describe_picture(path)[-2:] == (3, 1)


def test_a_thumbnail_and_a_mask_before_the_picture_are_skipped(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(BYTE[::4, ::4], subfiletype=1)
        file.write(GREY > 1000, subfiletype=4)
        file.write(GREY)
        file.write(GREY[::2, ::2], subfiletype=1)
    assert likeness(tmp_path / "a.tif") > 0.999
    assert describe_picture(tmp_path / "a.tif") == (80, 60, "16-bit grey", "TIFF", 4, 3)
    assert likeness(write(tmp_path / "alone.tif", GREY, subfiletype=1)) > 0.999


def test_no_data_by_tag(tmp_path):
    values = GREY.astype(np.float32)
    values[:50] = -9999  # most of the picture
    values[50, 0] = np.nan
    path = write(tmp_path / "a.tif", values, extratags=[(tiff._GDAL_NODATA, 2, 0, "-9999", True)])
    assert np.asarray(read_picture(path))[51:].min() < 20
    assert np.corrcoef(np.asarray(read_picture(path))[51:].ravel(), GREY[51:].ravel())[0, 1] > 0.999


@pytest.mark.parametrize(
    ("values", "options", "reason"),
    [
        (BYTE, {"compression": "lerc"}, "is a TIFF with LERC compression, which is not read; save it as PNG"),
        (GREY, {"photometric": "cfa"}, "is a TIFF with CFA pixels, which is not read"),
        (GREY.astype(np.complex64), {}, "is a TIFF with pixels of 64 bits and sample format 6, which is not read"),
    ],
)
def test_other_kinds_are_refused_by_their_kind(tmp_path, values, options, reason):
    path = write(tmp_path / "a.tif", values, **options)
    for read in (read_picture, describe_picture):
        with pytest.raises(PictureError, match=reason):
            read(path)


def test_strips_that_do_not_cover_the_picture(tmp_path):
    path = write(tmp_path / "a.tif", GREY)
    content = path.read_bytes()
    with tifffile.TiffFile(path) as file:
        tags = file.pages.first.tags
        places = {name: tags[name].valueoffset for name in ("StripByteCounts", "ImageLength", "RowsPerStrip")}
    half = bytearray(content)
    half[places["StripByteCounts"] : places["StripByteCounts"] + 4] = (GREY.nbytes // 2).to_bytes(4, "little")
    tall = bytearray(content)
    for name in ("ImageLength", "RowsPerStrip"):
        tall[places[name] : places[name] + 4] = (60_000).to_bytes(4, "little")
    for damaged in (bytes(half), bytes(tall), content[:-100]):
        path.write_bytes(damaged)
        with pytest.raises(PictureError, match="parts of the pixels are missing"):
            read_picture(path)


def test_a_part_larger_than_the_page(tmp_path):
    path = write(tmp_path / "a.tif", np.stack([BYTE] * 3, -1), photometric="rgb", compression="jpeg")
    content = bytearray(path.read_bytes())
    frame = content.index(b"\xff\xc0")
    content[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    with pytest.raises(PictureError, match="a part of the pixels is larger than the page"):
        read_picture(path)


def test_tiles_that_do_not_fit_into_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(tiff, "MAX_BYTES", 1000)
    with pytest.raises(PictureError, match="has parts that do not fit into memory"):
        read_picture(write(tmp_path / "a.tif", GREY, tile=(32, 48)))


def test_nothing_is_printed(tmp_path, capfd):
    path = write(tmp_path / "a.tif", GREY, compression="deflate", description="x" * 50)
    content = path.read_bytes()
    for place in range(8, len(content), 97):
        path.write_bytes(content[:place] + b"\xff\xff" + content[place + 2 :])
        with suppress(PictureError):
            read_picture(path)
    assert capfd.readouterr() == ("", "")


def test_starts(tmp_path):
    for order, big in product("<>", (False, True)):
        content = write(tmp_path / "a.tif", BYTE, byteorder=order, bigtiff=big).read_bytes()
        assert formats.is_picture_start(content[:32])
