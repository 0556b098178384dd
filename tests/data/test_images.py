import hashlib
import io
import os
import pickle
import struct
import threading
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from gel_lightning.data import images
from gel_lightning.data.images import (
    IMAGE_SUFFIXES,
    PictureError,
    decode_content,
    describe_picture,
    picture_digest,
    read_picture,
    read_with_digest,
)

# 5 rows, 7 columns, with both ends of the range; no two rows or columns alike, so that a turn shows.
GREY = np.linspace(0, 255, 35).round().astype(np.uint8).reshape(5, 7)


def pixels(path: Path) -> np.ndarray:
    picture = read_picture(path)
    assert picture.mode == "L"
    return np.asarray(picture)


def saved(path: Path, values: np.ndarray, mode: str | None = None, **options: object) -> Path:
    picture = Image.fromarray(values)
    (picture.convert(mode) if mode else picture).save(path, **options)
    return path


def tiff(values: np.ndarray, photometric: int = 1, order: str = "<") -> bytes:
    """A grey TIFF of any number type, byte order and photometric interpretation, as TIFF 6.0 has it."""
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    height, width = values.shape
    entries = [
        (256, width),
        (257, height),
        (258, 8 * values.itemsize),
        (259, 1),
        (262, photometric),
        (273, 8),
        (277, 1),
        (278, height),
        (279, len(data)),
        (339, {"u": 1, "i": 2, "f": 3}[values.dtype.kind]),
    ]
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HL", 42, 8 + len(data))
    short = "".join(struct.pack(f"{order}HHLHH", tag, 3, 1, value, 0).hex() for tag, value in entries)
    return head + data + struct.pack(f"{order}H", len(entries)) + bytes.fromhex(short) + bytes(4)


def png_header(width: int, height: int) -> bytes:
    """A grey PNG up to where its pixels would begin."""
    header = struct.pack(">LLBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + struct.pack(">L", 1000) + b"IDAT"


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">L", len(body)) + name + body + struct.pack(">L", zlib.crc32(name + body))


def orientation_exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


class TestFormats:
    @pytest.mark.parametrize(
        ("name", "mode", "options"),
        [
            ("grey.png", "L", {}),
            ("colour.png", "RGB", {}),
            ("alpha.png", "RGBA", {}),
            ("grey_alpha.png", "LA", {}),
            ("palette.png", "P", {}),
            ("grey.bmp", "L", {}),
            ("colour.bmp", "RGB", {}),
            ("grey.gif", "L", {}),
            ("colour.webp", "RGB", {"lossless": True}),
            ("alpha.webp", "RGBA", {"lossless": True}),
            ("grey.tif", "L", {}),
            ("colour.tif", "RGB", {}),
            ("alpha.tif", "RGBA", {}),
            ("lzw.tiff", "L", {"compression": "tiff_lzw"}),
            ("deflate.tiff", "RGB", {"compression": "tiff_adobe_deflate"}),
            ("packbits.tiff", "L", {"compression": "packbits"}),
            ("cmyk.tif", "CMYK", {}),
        ],
    )
    def test_eight_bit_pictures_keep_their_values(self, tmp_path, name, mode, options):
        values = GREY // 2 + 10  # would show if it were stretched
        path = saved(tmp_path / name, values, mode, **options)
        np.testing.assert_array_equal(pixels(path), values)

    @pytest.mark.parametrize(
        ("name", "mode", "options"),
        [
            ("grey.jpg", "L", {}),
            ("colour.jpg", "RGB", {}),
            ("progressive.jpg", "RGB", {"progressive": True}),
            ("cmyk.jpg", "CMYK", {}),
            ("ycbcr.tif", "RGB", {"compression": "jpeg"}),
            ("lossy.webp", "RGB", {}),
        ],
    )
    def test_lossy_pictures_are_close(self, tmp_path, name, mode, options):
        values = np.tile(np.linspace(10, 240, 64).astype(np.uint8), (48, 1))
        found = pixels(saved(tmp_path / name, values, mode, **options))
        assert np.abs(found.astype(int) - values).max() <= 10

    def test_one_bit(self, tmp_path):
        values = GREY > 100
        for name in ("bits.png", "bits.tif"):
            np.testing.assert_array_equal(pixels(saved(tmp_path / name, values)), 255 * values)

    @pytest.mark.parametrize(("colour", "luma"), [("red", 76), ("lime", 150), ("blue", 29), ("white", 255)])
    def test_colour_becomes_luma(self, tmp_path, colour, luma):
        Image.new("RGB", (4, 3), colour).save(tmp_path / "colour.png")
        assert (pixels(tmp_path / "colour.png") == luma).all()

    def test_lab(self, tmp_path):
        Image.new("LAB", (4, 3), (255, 128, 128)).save(tmp_path / "white.tif")
        Image.new("LAB", (4, 3), (0, 128, 128)).save(tmp_path / "black.tif")
        assert pixels(tmp_path / "white.tif").min() > 250
        assert pixels(tmp_path / "black.tif").max() < 5

    def test_the_content_counts_and_not_the_suffix(self, tmp_path):
        path = tmp_path / "picture.jpg"
        Image.fromarray(GREY).save(path, "PNG")
        np.testing.assert_array_equal(pixels(path), GREY)

    @pytest.mark.parametrize("name", ["pages.tif", "frames.gif", "frames.png", "frames.webp"])
    def test_first_of_many_pages(self, tmp_path, name):
        first, second = Image.fromarray(GREY), Image.fromarray(255 - GREY)
        options = {"lossless": True} if name.endswith("webp") else {}
        first.save(tmp_path / name, save_all=True, append_images=[second, second], **options)
        np.testing.assert_array_equal(pixels(tmp_path / name), GREY)

    def test_the_picture_outlives_the_file(self, tmp_path):
        for name in ("raw.tif", "grey.bmp", "grey.png"):
            path = saved(tmp_path / name, GREY)
            picture = read_picture(path)
            path.write_bytes(b"")
            path.unlink()
            np.testing.assert_array_equal(np.asarray(picture), GREY)

    def test_suffixes_are_lower_case(self):
        assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in IMAGE_SUFFIXES)


class TestTransparency:
    def test_background_is_white(self, tmp_path):
        rgba = np.zeros((4, 4, 4), np.uint8)
        rgba[1:3, 1:3, 3] = 128  # black ink, half covering
        rgba[[0, -1], [0, -1], 3] = 255  # corners, so that nothing is cut off
        expected = np.full((4, 4), 255, np.uint8)
        expected[1:3, 1:3] = 127
        expected[[0, -1], [0, -1]] = 0
        np.testing.assert_array_equal(pixels(saved(tmp_path / "ink.png", rgba)), expected)

    def test_palette_with_transparency(self, tmp_path):
        picture = Image.new("P", (3, 2), 1)
        picture.putpalette([0, 0, 0, 40, 40, 40])
        picture.putpixel((1, 0), 0)
        picture.save(tmp_path / "single.png", transparency=0)
        picture.save(tmp_path / "bytes.png", transparency=b"\x00\xff")
        picture.save(tmp_path / "single.gif", transparency=0)
        for name in ("single.png", "bytes.png", "single.gif"):
            assert pixels(tmp_path / name).tolist() == [[40, 255, 40], [40, 40, 40]]

    def test_transparent_grey_value(self, tmp_path):
        values = np.array([[9, 9, 50], [50, 50, 9]], np.uint8)
        Image.fromarray(values).save(tmp_path / "grey.png", transparency=9)
        assert pixels(tmp_path / "grey.png").tolist() == [[255, 255, 50], [50, 50, 255]]

    @pytest.mark.parametrize("alpha", [0, 64, 191])
    def test_half_cut_edges_are_no_bright_line(self, tmp_path, alpha):
        rgba = np.full((6, 8, 4), 50, np.uint8)
        rgba[..., 3] = 255
        rgba[0, :, 3] = rgba[:, -1, 3] = alpha
        found = pixels(saved(tmp_path / "gel.png", rgba))
        assert found.shape == (5, 7)
        assert (found == 50).all()

    @pytest.mark.parametrize("name", ["alpha.png", "alpha.tif"])
    @pytest.mark.parametrize("alpha", [0, 100])
    def test_alpha_that_is_nowhere_opaque_is_ignored(self, tmp_path, name, alpha):
        rgba = np.dstack([GREY, GREY, GREY, np.full_like(GREY, alpha)])
        np.testing.assert_array_equal(pixels(saved(tmp_path / name, rgba)), GREY)

    @pytest.mark.parametrize("alpha", [0, 100])
    def test_wholly_transparent(self, tmp_path, alpha):
        rgba = np.full((1, 1, 4), alpha, np.uint8)
        assert pixels(saved(tmp_path / "dot.png", rgba)).shape == (1, 1)


class TestDeepPictures:
    """Grey of more than 8 bits fills the whole range of 8."""

    @pytest.mark.parametrize(
        ("kind", "order"),
        [(kind, order) for kind in ("uint16", "int16", "int32", "float32") for order in "<>"]
        + [("uint32", "<")],  # the other way round, Pillow cannot read it
    )
    def test_scaled_by_their_own_range(self, tmp_path, kind, order):
        values = GREY.astype(kind) * 15 + (100 if kind.startswith("u") else -1000)  # a 12-bit camera
        (tmp_path / "deep.tif").write_bytes(tiff(values.astype(kind), order=order))
        np.testing.assert_array_equal(pixels(tmp_path / "deep.tif"), GREY)

    def test_png(self, tmp_path):
        path = saved(tmp_path / "deep.png", GREY.astype(np.uint16) * 16)
        np.testing.assert_array_equal(pixels(path), GREY)

    def test_compressed_tiff(self, tmp_path):
        path = saved(tmp_path / "deep.tif", GREY.astype(np.uint16) * 16, compression="tiff_lzw")
        np.testing.assert_array_equal(pixels(path), GREY)

    def test_unsigned_values_beyond_the_signed_range(self, tmp_path):
        values = np.array([[0, 2**31 - 1], [2**31, 2**32 - 1]], np.uint32)
        (tmp_path / "deep.tif").write_bytes(tiff(values))
        assert pixels(tmp_path / "deep.tif").tolist() == [[0, 127], [128, 255]]

    @pytest.mark.parametrize("kind", ["uint16", "int32", "float32"])
    def test_a_constant_picture_is_black(self, tmp_path, kind):
        (tmp_path / "flat.tif").write_bytes(tiff(np.full((3, 4), 700, kind)))
        assert (pixels(tmp_path / "flat.tif") == 0).all()

    def test_the_widest_range_of_floats(self, tmp_path):
        largest = np.finfo(np.float32).max
        (tmp_path / "wide.tif").write_bytes(tiff(np.array([[-largest, 0, largest]], np.float32)))
        assert pixels(tmp_path / "wide.tif").tolist() == [[0, 128, 255]]

    def test_values_that_are_not_finite(self, tmp_path):
        values = np.array([[np.nan, np.inf, -np.inf], [1, 2, 3]], np.float32)
        (tmp_path / "holes.tif").write_bytes(tiff(values))
        assert pixels(tmp_path / "holes.tif").tolist() == [[0, 255, 0], [0, 128, 255]]
        (tmp_path / "none.tif").write_bytes(tiff(np.full((2, 2), np.nan, np.float32)))
        with pytest.raises(PictureError, match="no pixel has a finite value"):
            read_picture(tmp_path / "none.tif")

    @pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
    @pytest.mark.parametrize("order", ["<", ">"])
    def test_min_is_white(self, tmp_path, kind, order):
        (tmp_path / "white.tif").write_bytes(tiff(GREY.astype(kind), photometric=0, order=order))
        np.testing.assert_array_equal(pixels(tmp_path / "white.tif"), 255 - GREY)

    def test_sixteen_bit_colour(self, tmp_path):
        row = struct.pack(">6H", 65535, 65535, 65535, 0x8000, 0x8000, 0x8000)
        header = struct.pack(">LLBBBBB", 2, 1, 16, 2, 0, 0, 0)
        chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b"")]
        data = b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)
        (tmp_path / "colour.png").write_bytes(data)
        assert pixels(tmp_path / "colour.png").tolist() == [[255, 0]]  # scaled by its own range


class TestOrientation:
    TURNED = {  # noqa: RUF012
        1: GREY,
        2: GREY[:, ::-1],
        3: GREY[::-1, ::-1],
        4: GREY[::-1],
        5: GREY.T,
        6: GREY.T[:, ::-1],
        7: GREY[::-1, ::-1].T,
        8: GREY.T[::-1],
    }

    @pytest.mark.parametrize("orientation", TURNED)
    @pytest.mark.parametrize("name", ["turned.png", "turned.webp", "turned.tif", "lzw.tif", "pages.tif"])
    def test_exif_orientation_is_applied(self, tmp_path, name, orientation):
        options = {
            "turned.webp": {"lossless": True},
            "lzw.tif": {"compression": "tiff_lzw"},
            "pages.tif": {"save_all": True, "append_images": [Image.new("L", (3, 3))]},
        }
        exif = orientation_exif(orientation)
        path = saved(tmp_path / name, GREY, exif=exif, **options.get(name, {}))
        np.testing.assert_array_equal(pixels(path), self.TURNED[orientation])

    def test_jpeg(self, tmp_path):
        path = saved(tmp_path / "turned.jpg", GREY, exif=orientation_exif(6), quality=100)
        assert np.abs(pixels(path).astype(int) - self.TURNED[6]).max() < 5

    @pytest.mark.parametrize(
        "exif",
        [
            b"Exif\0\0",
            b"Exif\0\0nothing of the kind",
            b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01",  # cut off in its first entry
            b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\xff\xff\0\0\xff\xff\0\0\0\0\0\0",  # beyond its end
        ],
    )
    def test_damaged_exif_is_passed_over_in_silence(self, tmp_path, exif, capfd):
        path = saved(tmp_path / "odd.jpg", GREY, exif=exif, quality=100)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert pixels(path).shape == GREY.shape
        assert capfd.readouterr() == ("", "")


class TestErrors:
    @pytest.mark.parametrize(
        ("name", "content", "reason"),
        [
            ("missing.png", None, "No such file"),
            ("empty.png", b"", "empty"),
            ("text.png", b"this is a table, not a picture", "not a picture"),
            ("page.png", b"%PDF-1.7 not a picture", "is a PDF document, not a picture"),
            ("drawing.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
            ("huge.png", png_header(60_000, 60_000), "more than 89,478,485 pixels"),
            ("large.png", png_header(10_000, 9_000), "more than 89,478,485 pixels"),
            ("long.png", png_header(1, 50_000_000), "1 x 50000000 pixels, more than 65,535 on a side"),
            ("photo.psd", b"8BPS\0\1" + bytes(30), "is a Photoshop document, not a picture"),
            ("lossless.jpg", b"\xff\xd8\xff\xc3" + bytes(30), "is a JPEG of an unusual kind"),
        ],
    )
    @pytest.mark.parametrize("read", [read_picture, describe_picture])
    def test_reasons(self, tmp_path, name, content, reason, read):
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(PictureError, match=reason) as caught:
                read(path)
        assert caught.value.path == path
        assert str(caught.value) == f"{path}: {caught.value.reason}"
        assert "\n" not in str(caught.value)

    def test_a_header_without_pixels(self, tmp_path):
        (tmp_path / "cut.png").write_bytes(png_header(10, 10))
        with pytest.raises(PictureError, match="is cut off or damaged"):
            read_picture(tmp_path / "cut.png")

    def test_a_folder(self, tmp_path):
        with pytest.raises(PictureError, match="is a folder"):
            read_picture(tmp_path)

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
    def test_a_named_pipe_does_not_wait(self, tmp_path):
        os.mkfifo(tmp_path / "pipe.png")
        with pytest.raises(PictureError, match="device"):
            read_picture(tmp_path / "pipe.png")

    def test_no_permission(self, tmp_path, monkeypatch):
        def refuse(*_: object, **__: object) -> None:  # root may read anything, so chmod proves nothing
            raise PermissionError(13, "Permission denied")

        path = saved(tmp_path / "secret.png", GREY)
        monkeypatch.setattr(Image, "open", refuse)
        with pytest.raises(PictureError, match="Permission denied"):
            read_picture(path)

    @pytest.mark.parametrize("error", [MemoryError, SyntaxError, struct.error, OverflowError, zlib.error, KeyError])
    def test_whatever_pillow_raises(self, tmp_path, monkeypatch, error):
        def fail(*_: object) -> None:
            raise error("on\nhostile bytes")

        path = saved(tmp_path / "picture.png", GREY)
        monkeypatch.setattr(Image.Image, "convert", fail)
        with pytest.raises(PictureError) as caught:
            read_picture(path)
        assert "\n" not in str(caught.value)

    def test_survives_the_way_out_of_a_worker_process(self):
        error = pickle.loads(pickle.dumps(PictureError(Path("a.png"), "is odd")))
        assert (error.path, error.reason, str(error)) == (Path("a.png"), "is odd", "a.png: is odd")


class TestLimits:
    """A picture that would take too much memory is refused before it is read, and large ones take turns."""

    @pytest.mark.parametrize("read", [read_picture, describe_picture, picture_digest])
    def test_a_large_file_is_not_read(self, tmp_path, read):
        with (tmp_path / "sparse.tif").open("wb") as file:
            file.truncate(4 * 2**30)
        with pytest.raises(PictureError, match=r"is larger than 512 MiB; save it smaller"):
            read(tmp_path / "sparse.tif")

    def test_a_deep_picture_within_the_pixels(self, tmp_path, monkeypatch):
        path = tmp_path / "deep.tif"
        path.write_bytes(tiff(GREY.astype(np.float32)))
        monkeypatch.setattr(images, "MAX_BYTES", 135)
        monkeypatch.setattr(images, "_file_size", lambda _: 1)
        with pytest.raises(PictureError, match="takes more than 0 MiB decoded"):
            read_picture(path)

    @pytest.mark.parametrize(("large", "at_once"), [(0, 1), (2**26, 4)])
    def test_large_pictures_are_decoded_one_at_a_time(self, tmp_path, monkeypatch, large, at_once):
        path, now, most, lock = saved(tmp_path / "a.png", GREY), [0], [0], threading.Lock()
        opened = images.open_picture

        def counted(file, *args):
            with lock:
                now[0] += 1
                most[0] = max(most[0], now[0])
            time.sleep(0.2)
            with lock:
                now[0] -= 1
            return opened(file, *args)

        monkeypatch.setattr(images, "open_picture", counted)
        monkeypatch.setattr(images, "LARGE", large)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(read_picture, [path] * 4))
        assert most[0] == at_once


class TestProcess:
    """Reading leaves the process as it was, for other users of Pillow and of warnings."""

    def test_no_setting_is_changed(self, tmp_path, monkeypatch):
        path = saved(tmp_path / "picture.png", GREY)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)  # Pillow would warn of 35 pixels
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            before = list(warnings.filters)
            with ThreadPoolExecutor(8) as pool:
                assert len(list(pool.map(read_picture, [path] * 200))) == 200
            assert warnings.filters == before
            with pytest.raises(Image.DecompressionBombWarning):
                Image.open(path)

    def test_only_pillow_is_silenced(self, tmp_path, monkeypatch):
        def warn(*_: object) -> Image.Image:
            warnings.warn("of another's", stacklevel=1)
            return Image.fromarray(GREY)

        path = saved(tmp_path / "picture.png", GREY)
        monkeypatch.setattr("gel_lightning.data.formats.converted", warn)
        with pytest.warns(UserWarning, match="of another's"):
            read_picture(path)


def test_describe_picture(tmp_path):
    path = saved(tmp_path / "picture.tif", GREY.astype(np.uint16))
    assert describe_picture(path) == (7, 5, "16-bit grey", "TIFF", 1, 1)
    (tmp_path / "imagej.tif").write_bytes(tiff(GREY.astype(np.uint16), photometric=0, order=">"))
    assert describe_picture(tmp_path / "imagej.tif") == (7, 5, "16-bit grey", "TIFF", 1, 1)
    Image.fromarray(GREY).save(tmp_path / "frames.gif", save_all=True, append_images=[Image.fromarray(255 - GREY)])
    assert describe_picture(tmp_path / "frames.gif") == (7, 5, "palette", "GIF", 2, 1)
    assert describe_picture(saved(tmp_path / "colour.jpg", GREY, "RGB")) == (7, 5, "8-bit colour", "JPEG", 1, 1)


def encoded(file_format: str, mode: str = "L", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture = Image.fromarray(np.kron(GREY, np.ones((5, 5), np.uint8))).convert(mode)
    picture.save(buffer, file_format, **options)
    return buffer.getvalue()


SOURCES = [
    encoded("PNG"),
    encoded("PNG", "P", transparency=3),
    encoded("PNG", "RGBA", exif=orientation_exif(6)),
    encoded("JPEG", "RGB", exif=orientation_exif(6)),
    encoded("JPEG", "CMYK", progressive=True),
    encoded("BMP", "RGB"),
    encoded("GIF"),
    encoded("WEBP"),
    encoded("TIFF"),
    encoded("TIFF", "RGB", compression="tiff_lzw"),
    encoded("TIFF", "1", compression="group4"),
    encoded("TIFF", "F"),
    tiff(GREY.astype(np.uint16), photometric=0, order=">"),
]


class TestDigests:
    def test_digest_is_of_the_content_alone(self, tmp_path):
        saved(tmp_path / "a.png", GREY)
        content = (tmp_path / "a.png").read_bytes()
        (tmp_path / "b.tif").write_bytes(content)
        (tmp_path / "c.png").write_bytes(content + b"?")
        digests = [picture_digest(tmp_path / name) for name in ("a.png", "b.tif", "c.png")]
        assert digests[0] == digests[1] == hashlib.sha256(content).digest() != digests[2]
        (tmp_path / "text.png").write_text("no picture")
        assert picture_digest(tmp_path / "text.png") == hashlib.sha256(b"no picture").digest()

    def test_digest_comes_with_what_was_decoded(self, tmp_path, monkeypatch):
        path = tmp_path / "a.png"
        saved(path, GREY)
        expected, before = read_picture(path), picture_digest(path)
        opened = images.open_picture

        def replaced_meanwhile(file, *args):
            Image.new("L", (8, 8), 77).save(path)
            return opened(file, *args)

        monkeypatch.setattr(images, "open_picture", replaced_meanwhile)
        picture, digest = read_with_digest(path)
        assert digest == before != picture_digest(path)
        assert np.array_equal(np.asarray(picture), np.asarray(expected))

    def test_files_that_cannot_be_read(self, tmp_path):
        (tmp_path / "empty.png").touch()
        for path, words in (
            (tmp_path / "empty.png", "0 bytes"),
            (tmp_path, "folder"),
            (tmp_path / "gone.png", "cannot"),
        ):
            for read in (picture_digest, read_with_digest):
                with pytest.raises(PictureError, match=words) as caught:
                    read(path)
                assert caught.value.path == path


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("scratch") / "picture"


@pytest.fixture(scope="class")
def small_pictures():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "MAX_PIXELS", 100_000)  # damage to a width would make slow tests
        yield


@pytest.mark.usefixtures("small_pictures")
class TestHostileBytes:
    """Whatever the bytes, there is a grey picture or a PictureError, and no warning."""

    def attempt(self, path: Path, data: bytes) -> Image.Image | None:
        path.write_bytes(data)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                picture = read_picture(path)
            except PictureError:
                return None
        assert picture.mode == "L"
        assert min(picture.size) > 0
        return picture

    @settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        start=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"II*\0", b"MM\0*", b"GIF89a", b"BM"]),
        rest=st.binary(max_size=300),
    )
    def test_random(self, scratch, start, rest):
        self.attempt(scratch, start + rest)

    def test_lzw_codes_on_which_imagecodecs_ends_the_process(self, scratch):
        damaged = bytearray(encoded("TIFF", "RGB", compression="tiff_lzw"))
        for place, value in ((9, 101), (56, 11), (272, 32)):
            damaged[place] = value
        assert self.attempt(scratch, bytes(damaged)) is None

    @settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data(), source=st.sampled_from(SOURCES))
    def test_flipped(self, scratch, data, source):
        places = st.one_of(st.integers(0, 60), st.integers(0, len(source) - 1))
        damaged = bytearray(source)
        for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=8)):
            damaged[min(place, len(source) - 1)] = value
        self.attempt(scratch, bytes(damaged))

    @settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data(), source=st.sampled_from(SOURCES))
    def test_cut_off(self, scratch, data, source):
        whole = self.attempt(scratch, source)
        part = self.attempt(scratch, source[: data.draw(st.integers(0, len(source) - 1))])
        # Only what comes after the last pixel may be missing.
        assert part is None or part.tobytes() == whole.tobytes()


@pytest.mark.real
def test_every_real_picture_can_be_read(shared):
    paths = [path for path in (shared / "gel").rglob("*") if path.suffix in IMAGE_SUFFIXES]
    assert len(paths) >= 138
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in paths:
            low, high = read_picture(path).getextrema()
            assert high - low > 20, path


@pytest.mark.real
def test_what_instruments_office_programs_and_phones_write(shared):
    folder = shared / "cases" / "pictures"
    rows = [line.split("\t") for line in (folder / "expected.tsv").read_text().splitlines()[1:]]
    # In the first rows of some files values are missing.
    reference = pixels(folder / "reference.png")[3:].ravel()
    for name, expected in rows:
        likeness = np.corrcoef(pixels(folder / name)[3:].ravel(), reference)[0, 1]
        assert (-likeness if expected == "inverted" else likeness) > 0.98, name
    assert len(rows) == 35


@pytest.mark.real
def test_no_real_gel_has_a_bright_edge_of_transparency(shared):
    for number in (20, 37, 40, 41, 43):
        grey = pixels(shared / "gel" / "dataset" / "gel" / f"gel_{number}.png")
        inside = grey[3:-3, 3:-3].max()
        assert max(grey[0].max(), grey[-1].max(), grey[:, 0].max(), grey[:, -1].max()) <= inside


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
def test_a_large_picture_is_shortened_in_grey_and_in_colour(ending: str, colour: bool, tmp_path: Path) -> None:
    squares = np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype(np.uint8)
    path = tmp_path / f"a.{ending}"
    Image.fromarray(squares).resize((800, 600), Image.Resampling.NEAREST).save(path, quality=95)
    whole = read_picture(path, colour)
    same, _ = decode_content(path, path.read_bytes(), 0, colour)
    assert same == whole
    small, header = decode_content(path, path.read_bytes(), 150, colour)
    assert (small.mode, header.width) == (whole.mode, 800)
    assert small.size == ((200, 150) if ending == "jpg" else (160, 150))  # a JPEG is decoded at a quarter
    expected = np.asarray(whole.resize(small.size, Image.Resampling.BOX), np.float32)
    assert abs(np.asarray(small, np.float32) - expected).mean() < 4
