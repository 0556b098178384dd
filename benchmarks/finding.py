"""`gel-fit find` against bare decoding and bare ONNX Runtime on the same pictures; its start and its memory."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from measuring import Figure, figure, ratio
from numpy.typing import NDArray
from PIL import Image

from gel_lightning.data.drawn.gels import draw_gel
from gel_lightning.inference.exported import ExportedModel
from gel_lightning.inference.find import Detector
from gel_lightning.inference.listing import list_pictures

SIZE, SMALL = (816, 612), (240, 200)  # half a megapixel; size of the many pictures
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
ROUNDS = 3
# Classifies the first N pictures of a folder, and prints the peak memory in MB.
PEAK = """
import re, sys
from pathlib import Path
from gel_lightning.inference.find import Detector
from gel_lightning.inference.listing import list_pictures
files = list_pictures([sys.argv[1]]).files[: int(sys.argv[2])]
assert sum(not found.row.error for found in Detector(cache_dir=sys.argv[3]).look(files)) == len(files)
# On Linux ru_maxrss is at least that of the parent process.
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 2**10)
"""


def draw(folder: Path, number: int, size: tuple[int, int]) -> list[Path]:
    """Draws pictures, four JPEGs per PNG, all files with different bytes."""
    rng, contents = np.random.default_rng(0), []
    folder.mkdir()
    for i in range(min(number, 25)):
        path = folder / f"first.{'jpg' if i % 5 else 'png'}"
        draw_gel(rng).convert("RGB").resize(size).save(path, quality=90)
        contents.append((path.suffix, path.read_bytes()))
        path.unlink()
    for i in range(number):
        suffix, content = contents[i % len(contents)]
        (folder / f"{i:05}{suffix}").write_bytes(content + str(i).encode())  # bytes after the picture are not read
    return sorted(folder.iterdir())


def in_threads(function: Callable[[Any], Any], items: list[Any]) -> tuple[float, list[Any]]:
    """Calls a function for each item on all cores; returns the seconds and the results."""
    with ThreadPoolExecutor(CORES) as pool:
        begun = time.perf_counter()
        results = list(pool.map(function, items))
        return time.perf_counter() - begun, results


def decoded(path: Path) -> NDArray[np.uint8]:
    """A picture decoded by Pillow alone."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("L"))


def one(model: ExportedModel, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The probabilities of a picture."""
    return model(picture[None, None])


def find(work: Path) -> Iterator[Figure]:
    """`gel-fit find` against bare decoding and bare ONNX Runtime."""
    number = 500
    paths = draw(work / "found", number, SIZE)
    files = list_pictures([work / "found"]).files
    times: dict[str, list[float]] = {"decoding": [], "network": [], "find": [], "again": [], "start": []}
    for _ in range(ROUNDS):  # interleaved, because the speed of the machine varies
        with tempfile.TemporaryDirectory() as cache:
            detector = Detector(cache_dir=cache)
            classify = partial(one, detector.model)
            seconds, pictures = in_threads(decoded, paths)
            times["decoding"].append(seconds)
            seconds, _ = in_threads(classify, pictures)
            times["network"].append(seconds)
            del pictures
            for what in ("find", "again"):
                begun = time.perf_counter()
                assert sum(not found.row.error for found in detector.look(files)) == number
                times[what].append(time.perf_counter() - begun)
            begun = time.perf_counter()
            command = [sys.executable, "-m", "gel_lightning", "find", str(paths[0])]
            subprocess.run(command, check=True, capture_output=True, env=os.environ | {"XDG_CACHE_HOME": cache})
            times["start"].append(time.perf_counter() - begun)
    best = {what: min(seconds) for what, seconds in times.items()}
    bare, ours = number / (best["decoding"] + best["network"]), number / best["find"]
    each = f"decoding {number / best['decoding']:.0f}, network {number / best['network']:.0f}"
    yield figure("find", "", ours / bare, ratio(ours, bare), f"{number} pictures: {each} a second")
    yield Figure("the same once more, answers kept", f"{number / best['again']:.0f}/s", "-", True)
    yield figure("find start", "", best["start"], f"{best['start']:.2f} s")
    draw(work / "many", 20_000, SMALL)
    few, many = (peak(work, count) for count in (500, 20_000))
    yield figure("find memory", "", many - few, f"{few:.0f} and {many:.0f} MB")


def peak(work: Path, count: int) -> float:
    """Peak memory in MB of a process that classifies pictures without stored answers."""
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, "-c", PEAK, str(work / "many"), str(count), cache]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
