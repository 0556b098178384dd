"""On a GPU: feature extraction, a CUDA graph, twelve models, the tests, a minute of CIFAR-10."""

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import torch
from extraction import copy_pictures, extract, pictures_in
from measuring import BACKBONES, GEL_FIT, IMPORT, ROOT, Figure, drawn, ratio, run, seconds_of
from torch import Tensor, nn
from torchvision import models

from gel_lightning import GelClassifier
from gel_lightning.comparison.grid import read_rows
from gel_lightning.data.datasets import PictureDataset
from gel_lightning.data.folders import LabelledPictures
from gel_lightning.features.extraction import GPU_BATCH
from gel_lightning.models.network import load_trunk

SHARE, GRID = 0.9, 30.0
"""Goals: extraction against the bare forward, and seconds of a comparison of twelve models."""
SIZES = (32, 64, 128, 256, 512)
PRECISIONS = {"32-true": nullcontext, "16-mixed": partial(torch.autocast, "cuda", torch.float16)}
GRAPHED = "mobilenet_v3_large"  # many small kernels, which is where a graph pays
TIMED = 0.5  # seconds of a measurement of the bare forward
TESTS = 100  # seconds that the tests may take
CIFAR10 = ROOT / "data/cifar10"


class Bench(NamedTuple):
    """Folder for files, Lightning's accelerator, torch's device, and the number of pictures."""

    work: Path
    accelerator: str
    device: str
    number: int


def gpu(work: Path, accelerator: str = "gpu", number: int = 2000) -> Iterator[Figure]:
    """The figures of a GPU, cheapest first; one that cannot be measured says why, and the others follow."""
    device = {"gpu": "cuda"}.get(accelerator, accelerator)
    bench = Bench(work, accelerator, device, number)
    card = torch.cuda.get_device_name() if device == "cuda" else device
    steps: list[Callable[[Bench], Iterator[Figure]]] = [partial(extraction_on, backbone) for backbone in BACKBONES]
    for step in (*steps, cuda_graph, twelve_models, tests, small_cnn):
        try:
            for figure in step(bench):
                yield figure._replace(what=f"{card}: {figure.what}")
        except (Exception, SystemExit) as error:  # SystemExit: a command that failed
            name = getattr(step, "__name__", f"extraction {getattr(step, 'args', '')}")
            yield Figure(f"{card}: {name}", f"not measured: {' '.join(str(error).split())[-300:]}", "-", False)


def extraction_on(backbone: str, bench: Bench) -> Iterator[Figure]:
    """Extraction from decoded pictures against the bare forward at its best batch, with decoding beside it."""
    folder = bench.work / "for_gpu"
    if not folder.exists():
        copy_pictures(bench.work / "pictures/dataset", folder, bench.number)
    ready, decoded_in = decode_all(folder)
    network = models.get_model(backbone, weights=None).eval().requires_grad_(False).to(bench.device)
    model = GelClassifier(backbone, weights="none", class_names=["gel", "not_gel"])
    model.network.trunk.eval()  # loads the weights before the timing
    measure = partial(extract, model, folder, bench.number, bench.accelerator)
    sizes = [size for size in SIZES if size <= bench.number] or [bench.number]
    for precision, context in PRECISIONS.items():
        if precision != "32-true" and bench.device != "cuda":
            continue  # takes minutes on a CPU
        with context():
            speeds = {
                size: forward_speed(network, torch.rand(size, 3, 224, 224, device=bench.device)) for size in sizes
            }
        best = max(speeds, key=lambda size: speeds[size])
        with already_decoded(ready):
            measure(precision)  # the first run includes one-time costs
            alone = measure(precision)
        what = (
            f"extraction, {backbone}, {precision}, {bench.number} decoded pictures, against the bare forward of {best}"
        )
        beside = f"{measure(precision):.0f}/s from files, decoding {bench.number / decoded_in:.0f}/s"
        reached = alone / speeds[best] >= SHARE
        yield Figure(what, f"{ratio(alone, speeds[best])}; {beside}", f"at least {SHARE}", reached)


def forward_speed(network: nn.Module | Callable[[Tensor], object], batch: Tensor) -> float:
    """Pictures per second of a network on one batch again and again."""
    finish = torch.cuda.synchronize if batch.is_cuda else lambda: None
    with torch.inference_mode():
        network(batch)  # the first calls are slower
        done, begun = 0, 0.0
        while not begun or time.perf_counter() - begun < TIMED:
            for _ in range(4):
                network(batch)
            finish()
            done, begun = (done + 4, begun) if begun else (0, time.perf_counter())
        return done * len(batch) / (time.perf_counter() - begun)


def cuda_graph(bench: Bench) -> Iterator[Figure]:
    """A frozen trunk as a CUDA graph against its plain calls, to see whether graphs would pay."""
    trunk = load_trunk(GRAPHED, "none").to(bench.device)
    batch = torch.rand(min(GPU_BATCH, bench.number), 1, 224, 224, device=bench.device)
    plain = forward_speed(trunk, batch)
    if bench.device != "cuda":
        yield Figure(f"frozen {GRAPHED}", f"{plain:.0f}/s; a CUDA graph needs a GPU", "-", True)
        return
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    with torch.inference_mode():
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):  # before it is captured
                trunk(batch)
        torch.cuda.current_stream().wait_stream(stream)
        with torch.cuda.graph(graph):
            trunk(batch)
    graphed = forward_speed(lambda _: graph.replay(), batch)
    yield Figure(f"frozen {GRAPHED} as a CUDA graph against its calls", ratio(graphed, plain), "-", True)


def twelve_models(bench: Bench) -> Iterator[Figure]:
    """The comparison of twelve models, imports included."""
    options = ("--model.weights", "none", "--trainer.accelerator", bench.accelerator, *drawn(bench.work))
    with tempfile.TemporaryDirectory() as cache:
        imports = run(*IMPORT, cwd=bench.work, cache=Path(cache)).seconds
        for what in ("nothing stored", "all vectors stored"):
            seconds = run(*GEL_FIT, "compare", *options, cwd=bench.work, cache=Path(cache)).seconds
            measured = f"{seconds:.1f} s, of which {imports:.1f} s imports"
            yield Figure(f"gel-fit compare, twelve models, {what}", measured, f"at most {GRID:g} s", seconds <= GRID)


def tests(_: Bench) -> Iterator[Figure]:
    """The tests that need a GPU."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu"]
    begun = time.perf_counter()
    try:
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TESTS, check=False)
        last = (ran.stdout.strip() or ran.stderr.strip() or "nothing").splitlines()[-1]
    except subprocess.TimeoutExpired:
        last = f"not finished after {TESTS} s"
    passed = re.search(r"\b(\d+) passed", last)
    what = f"pytest -m gpu, {time.perf_counter() - begun:.0f} s"
    yield Figure(what, last.strip("= "), "all passed", bool(passed) and "failed" not in last and "error" not in last)


def small_cnn(bench: Bench) -> Iterator[Figure]:
    """A minute of training on CIFAR-10, if it is there."""
    if not CIFAR10.exists():
        yield Figure("small_cnn on CIFAR-10", f"no {CIFAR10.relative_to(ROOT)}; see benchmarks/real_sets.py", "-", True)
        return
    table = bench.work / "cifar10.csv"
    options = ("--trainer.accelerator", bench.accelerator, "--trainer.max_time", "00:00:01:00", "--results_file", table)
    config = ROOT / "configs/cifar10_small_cnn.yaml"
    command = (*GEL_FIT, "fit", "--config", config, "--trainer.default_root_dir", bench.work, *options)
    with tempfile.TemporaryDirectory() as cache:
        seconds = run(*command, cwd=ROOT, cache=Path(cache)).seconds
    row = read_rows(table)[-1]
    measured = f"{row['epochs']} epochs, accuracy {float(row['accuracy']):.3f}, {seconds:.0f} s in all"
    yield Figure("small_cnn on CIFAR-10, a minute of training", measured, "-", True)


@cache
def decode_all(folder: Path) -> tuple[dict[Path, tuple[Tensor, bytes]], float]:
    """Decodes all pictures in a folder in threads, each with the digest of its file; and the seconds that it took."""
    paths = pictures_in(folder)
    pictures = PictureDataset(LabelledPictures(paths, [0] * len(paths), ["gel"]), 224)
    ready: list[tuple[Tensor, bytes]] = []
    with ThreadPoolExecutor() as pool:
        seconds = seconds_of(lambda: ready.extend(pool.map(pictures.decode, range(len(paths)))))
    return dict(zip(paths, ready, strict=True)), seconds


@contextmanager
def already_decoded(ready: dict[Path, tuple[Tensor, bytes]]) -> Iterator[None]:
    """Replaces decoding by a look-up of decoded pictures."""
    decode = PictureDataset.decode
    PictureDataset.decode = lambda self, index: ready[self.paths[index]]  # type: ignore[method-assign]
    try:
        yield
    finally:
        PictureDataset.decode = decode  # type: ignore[method-assign]
