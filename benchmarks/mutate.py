"""Reads damaged pictures of every format in separate processes: python benchmarks/mutate.py [NUMBER] [SEED].

The result must be a grey picture or a PictureError. Prints the number of each, the longest time, the peak memory, and
all files with another result; exits with 1 if there are any.
"""

import io
import multiprocessing
import resource
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pillow_heif
import tifffile
from PIL import Image

from gel_lightning.data.images import PictureError, read_picture

NUMBER, SEED, PATIENCE = 20_000, 0, 120
"""Number of files, seed of the damage, and seconds after which reading a file counts as hanging."""

BORDERS = [0, 1, 2**7, 2**8 - 1, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1]


def sources() -> dict[str, bytes]:
    """One small picture in every kind of file."""
    grey = (np.add.outer(np.arange(48), np.arange(64)) * 2).astype(np.uint8)
    deep, colour = grey.astype(np.uint16) * 150, np.stack([grey, 255 - grey, grey // 2], -1)
    alpha = np.concatenate([colour, grey[..., None] | 1], -1)
    found: dict[str, bytes] = {}

    def pillow(name: str, file_format: str, mode: str = "L", **options: Any) -> None:
        file = io.BytesIO()
        Image.fromarray(grey).convert(mode).save(file, file_format, **options)
        found[name] = file.getvalue()

    def tiff(name: str, values: np.ndarray, **options: Any) -> None:
        file = io.BytesIO()
        tifffile.imwrite(file, values, **options)
        found[f"tiff {name}"] = file.getvalue()

    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        pillow(f"png {mode}", "PNG", mode)
    for mode in ("L", "RGB", "CMYK"):
        pillow(f"jpeg {mode}", "JPEG", mode)
    pillow("jpeg progressive", "JPEG", "RGB", progressive=True)
    for mode in ("1", "P", "RGB", "RGBA"):
        pillow(f"bmp {mode}", "BMP", mode)
    pillow("gif", "GIF")
    pillow("gif frames", "GIF", save_all=True, append_images=[Image.fromarray(255 - grey)])
    pillow("webp", "WEBP", "RGB")
    pillow("webp lossless", "WEBP", "RGBA", lossless=True)
    pillow("avif", "AVIF", "RGB")
    pillow("avif alpha", "AVIF", "RGBA")
    pillow("jp2", "JPEG2000", "RGB")
    pillow("j2k", "JPEG2000", "L", no_jp2=True)
    for mode in ("RGB", "RGBA", "L"):
        file = io.BytesIO()
        pillow_heif.from_pillow(Image.fromarray(grey).convert(mode)).save(file)
        found[f"heic {mode}"] = file.getvalue()
    for name, values in (("grey", deep), ("colour", np.stack([deep] * 3, -1)), ("alpha", np.stack([deep] * 4, -1))):
        found[f"png 16 {name}"] = imagecodecs.png_encode(values)
        found[f"jp2 16 {name}"] = imagecodecs.jpeg2k_encode(values)
    for compression in (None, "lzw", "deflate", "packbits", "lzma", "zstd"):
        for kind in ("uint8", "uint16", "int16", "float32", "float64"):
            for order in "<>":
                tiff(f"{compression} {kind} {order}", deep.astype(kind), compression=compression, byteorder=order)
        tiff(f"{compression} tiled", deep, compression=compression, tile=(16, 32))
        tiff(f"{compression} planar", np.stack([deep] * 3), photometric="rgb", planarconfig=2, compression=compression)
    for compression in ("lzw", "deflate", "zstd"):
        tiff(f"{compression} predictor", deep, compression=compression, predictor=2)
        tiff(f"{compression} float predictor", deep.astype("f4"), compression=compression, predictor=3)
    for compression in ("jpeg", "jpeg2000", "webp"):
        tiff(compression, colour, photometric="rgb", compression=compression)
        tiff(f"{compression} tiled", colour, photometric="rgb", compression=compression, tile=(16, 32))
    tiff("jpeg2000 16", deep, compression="jpeg2000")
    tiff("alpha", alpha, photometric="rgb", extrasamples=["unassalpha"])
    tiff("bigtiff", deep, bigtiff=True, byteorder=">")
    tiff("palette", grey, photometric="palette", colormap=np.stack([np.arange(256) * 257] * 3).astype(np.uint16))
    tiff("pages", np.stack([deep] * 3), photometric="minisblack")
    tiff("imagej", np.stack([deep] * 3), imagej=True)
    tiff("ome", np.stack([deep] * 3), ome=True, metadata={"axes": "CYX"})
    tiff("lab", colour, photometric="cielab")
    tiff("cmyk", alpha, photometric="separated")
    for bits in (2, 4, 10, 12, 14):
        tiff(f"{bits} bits", (deep % 2**bits).astype("u1" if bits < 8 else "u2"), bitspersample=bits)
    for compression in ("group3", "group4", "tiff_ccitt"):
        pillow(f"tiff {compression}", "TIFF", "1", compression=compression)
    return found


def damaged(content: bytes, random: np.random.Generator) -> bytes:
    """Changes bytes, sets a number to an extreme, or cuts, repeats or zeroes a part, often near the start or end."""
    data, size = bytearray(content), len(content)

    def place() -> int:
        near = int(random.integers(0, 200)) if random.random() < 0.7 else int(random.integers(0, size))
        return min(near if random.random() < 0.6 else size - 1 - near, size - 1) % size

    for _ in range(int(random.integers(1, 6))):
        at = place()
        match int(random.integers(0, 8)):
            case 0 | 1 | 2:
                data[at] = int(random.integers(0, 256))
            case 3:
                data[at] ^= 1 << int(random.integers(0, 8))
            case 4 | 5:
                width = random.choice(["B", "H", "L"])
                number = int(random.choice(BORDERS)) % 2 ** (8 * struct.calcsize("<" + width))
                packed = struct.pack(random.choice(["<", ">"]) + width, number)
                data[at : at + len(packed)] = packed
            case 6:
                length = int(random.integers(1, 64))
                data[at : at + length] = bytes(length)
            case _:
                if random.random() < 0.3:
                    del data[at:]
                else:
                    data[at:at] = data[at : at + int(random.integers(1, 64))]
        size = max(len(data), 1)
        data = data or bytearray(1)
    return bytes(data)


def mutations(number: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Damaged files, the same for the same seed."""
    whole = list(sources().items())
    for index in range(number):
        name, content = whole[index % len(whole)]
        yield name, damaged(content, np.random.default_rng([seed, index]))


def read_all(number: int, seed: int, begin: int, now: "Synchronized[int]", results: Any) -> None:
    """Reads the files from ``begin`` on; ``now`` is the index of the current one."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture"
        for index, (name, content) in enumerate(mutations(number, seed)):
            if index < begin:
                continue
            now.value = index
            path.write_bytes(content)
            start = time.perf_counter()
            try:
                read_picture(path)
                end = "read"
            except PictureError:
                end = "PictureError"
            except BaseException as error:
                end = f"ANOTHER ERROR: {type(error).__name__}: {error}"
            taken, memory = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            results.put((index, name, end, taken, memory))
    results.put(None)


def main(number: int = NUMBER, seed: int = SEED) -> int:
    spawn = multiprocessing.get_context("spawn")
    ends: Counter[str] = Counter()
    slowest, peak, bad, begin = (0.0, ""), (0, ""), list[str](), 0
    while begin < number:
        now, results = spawn.Value("l", begin), spawn.SimpleQueue()
        process = spawn.Process(target=read_all, args=(number, seed, begin, now, results))
        process.start()
        last = time.monotonic()
        while True:
            if not results.empty():
                if (result := results.get()) is None:
                    begin = number
                    break
                index, name, end, taken, memory = result
                last, begin = time.monotonic(), index + 1
                ends[end] += 1
                slowest = max(slowest, (taken, f"{index} {name}"))
                peak = max(peak, (memory, f"{index} {name}"), key=lambda both: both[0])  # the first of equals
                if end not in ("read", "PictureError"):
                    bad.append(f"{index} ({name}): {end}")
            elif not process.is_alive():
                bad.append(f"{now.value}: the process ended with {process.exitcode}")
                begin = now.value + 1
                break
            elif time.monotonic() - last > PATIENCE:
                process.kill()
                bad.append(f"{now.value}: more than {PATIENCE} seconds")
                begin = now.value + 1
                break
            else:
                time.sleep(0.001)
        process.join()
    print(f"{number} files of {len(sources())} kinds, seed {seed}: {dict(ends)}")
    print(f"longest {slowest[0]:.2f} s (file {slowest[1]}); peak memory {peak[0] / 1024:.0f} MiB (by file {peak[1]})")
    print(*bad, sep="\n")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
