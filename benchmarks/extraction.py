"""Feature extraction against the bare forward of torchvision's networks, on a CPU, a GPU and two ranks."""

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import pytorch as pl
from measuring import BACKBONES, BATCH, GEL_FIT, IMPORT, Figure, drawn, fit, run, seconds_of, speed_ratio
from torch import nn
from torchvision import models

from gel_lightning import GelClassifier, GelDataModule
from gel_lightning.core.store import list_stores
from gel_lightning.data.datasets import PictureDataset
from gel_lightning.data.duplicates import HASHES, hash_pictures, near_duplicate_groups
from gel_lightning.data.folders import LabelledPictures
from gel_lightning.data.splits import stratified_split
from gel_lightning.features.extraction import GPU_BATCH
from gel_lightning.features.runtime import Runtime
from gel_lightning.models.network import load_trunk

TRUNKS = {
    "resnet18": 1.3,
    "mobilenet_v3_large": 2.0,
    "vgg16": 1.3,
    "resnet50": 1.0,
    "mobilenet_v2": 1.0,
    "efficientnet_lite0": 1.0,
}
"""How many times as fast as torch ONNX Runtime is to be."""


def extraction(work: Path) -> list[Figure]:
    """Pictures per second of feature extraction, decoding included, against the bare forward on ready tensors."""
    many = work / "many"
    if not many.exists():
        copy_pictures(work / "pictures/dataset", many, 1000)
    figures = []
    for backbone in BACKBONES:
        network = models.get_model(backbone, weights=None).eval().requires_grad_(False)
        model = GelClassifier(backbone, weights="none", class_names=["gel", "not_gel"])
        model.network.trunk.eval()  # loads the weights before the timing
        for folder, number in ((work / "pictures/dataset", 92), (many, 1000)):
            if backbone == "vgg16" and number == 1000:
                continue  # takes minutes, and decoding matters even less
            bare, ours = [], []
            for _ in range(3 if number == 92 else 1):
                bare.append(forward_speed(network, number))
                ours.append(extract(model, folder, number))
            what = f"extraction, {backbone}, {number} pictures, against the bare forward"
            figures.append(speed_ratio(what, max(ours), max(bare), 0.9 if backbone == "vgg16" else 1.0))
    return figures


def runtime(_: Path) -> list[Figure]:
    """Pictures per second of frozen trunks on ONNX Runtime against torch, in turns, and the seconds that it starts in.

    The start is the first call but the computing: imports, graph, session and comparison with torch.
    """
    figures = []
    for backbone in TRUNKS:
        trunk, onnx = load_trunk(backbone, "none"), Runtime("onnx")
        onnx.onnx = True
        batch = torch.rand(BATCH, 1, 224, 224)
        trunk(batch)  # the first call is slower
        start = seconds_of(partial(onnx, trunk, batch))
        seconds = [[seconds_of(partial(way, batch)) for way in (partial(onnx, trunk), trunk)] for _ in range(7)]
        theirs, torchs = (sorted(way) for way in zip(*seconds, strict=True))
        what = f"frozen {backbone} on ONNX Runtime, started in {start - theirs[3]:.1f} s, against torch, medians of 7"
        target = TRUNKS[backbone]
        figures.append(speed_ratio(what, BATCH / theirs[3], BATCH / torchs[3], target))
    return figures


def forward_speed(network: nn.Module, number: int, size: int = BATCH, device: str = "cpu", channels: int = 3) -> float:
    """Pictures per second of a network on tensors that are on its device already."""
    batch = torch.rand(size, channels, 224, 224, device=device)
    finish = torch.cuda.synchronize if device == "cuda" else lambda: None
    with torch.inference_mode():
        network(batch)  # the first call is slower
        finish()
        begun = time.perf_counter()
        for start in range(0, number, size):
            network(batch[: number - start])
        finish()
        return number / (time.perf_counter() - begun)


def extract(
    model: GelClassifier, folder: Path, number: int, accelerator: str = "cpu", precision: Any = "32-true"
) -> float:
    """Pictures per second from files to stored vectors."""
    with tempfile.TemporaryDirectory() as cache:
        data = GelDataModule(train_dir=folder, test_dir=folder, cache_dir=cache, batch_size=BATCH)
        quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = pl.Trainer(
            accelerator=accelerator, devices=1, precision=precision, deterministic=True, max_epochs=1, **quiet
        )
        trainer.test(model, data, verbose=False)
        assert data.cache is not None
        assert data.cache.computed == number
        return number / data.cache.seconds


def copy_pictures(source: Path, to: Path, number: int) -> None:
    """Makes many files of a few pictures, all with different bytes."""
    files = pictures_in(source)
    for i in range(number):
        file = files[i % len(files)]
        copy = to / file.parent.name / f"{i}{file.suffix}"
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes() + str(i).encode())  # bytes after the picture are not read


def gpu(work: Path, accelerator: str = "gpu", number: int = 4000) -> list[Figure]:
    """On a GPU: extraction against the bare forward with its best batch size, a breakdown, and the twelve models."""
    device = {"gpu": "cuda"}.get(accelerator, accelerator)
    folder, few = work / "for_gpu", work / "pictures/dataset"
    if not folder.exists():
        copy_pictures(few, folder, number)
    decoding = number / seconds_of(lambda: hash_pictures(pictures_in(folder)))
    ready = decode_all(folder)
    figures = []
    for backbone in BACKBONES:
        network = models.get_model(backbone, weights=None).eval().requires_grad_(False).to(device)
        speeds = {size: forward_speed(network, max(number, size), size, device) for size in (32, 64, 128, 256, 512)}
        best = max(speeds, key=lambda size: speeds[size])
        del network
        model = GelClassifier(backbone, weights="none", class_names=["gel", "not_gel"])
        model.network.trunk.eval()
        extract(model, few, 92, accelerator)  # the first run includes one-time costs
        whole, mixed = (extract(model, folder, number, accelerator, way) for way in ("32-true", "16-mixed"))
        with already_decoded(ready):
            alone, alone_mixed = (extract(model, folder, number, accelerator, way) for way in ("32-true", "16-mixed"))
        own = forward_speed(model.network.trunk.to(device), number, GPU_BATCH, device, channels=1)
        what = f"extraction, {backbone}, {number} decoded pictures, against the bare forward in batches of {best}"
        figures += [
            speed_ratio(what, alone, speeds[best], 0.9),
            Figure(
                f"where its time goes, {backbone}, pictures a second",
                f"decoding {decoding:.0f} in threads, forward {own:.0f}, extraction {whole:.0f}; "
                f"16-mixed {mixed:.0f}, of decoded pictures {alone_mixed:.0f}",
                "-",
                True,
            ),
        ]
    command = (*GEL_FIT, "compare", "--model.weights", "none", "--trainer.accelerator", accelerator, *drawn(work))
    with tempfile.TemporaryDirectory() as cache:
        imports = run(*IMPORT, cwd=work, cache=Path(cache)).seconds
        for what in ("nothing stored", "all vectors stored"):
            seconds = run(*command, cwd=work, cache=Path(cache)).seconds
            measured = f"{seconds:.1f} s, of which {imports:.1f} s imports"
            figures.append(Figure(f"gel-fit compare of twelve models, {what}", measured, "≤ 30 s", seconds <= 30))
    return figures


def pictures_in(folder: Path) -> list[Path]:
    """All pictures in a folder of class folders."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def decode_all(folder: Path) -> dict[Path, tuple[torch.Tensor, bytes]]:
    """Decodes all pictures in a folder, each with the digest of its file."""
    paths = pictures_in(folder)
    labelled = LabelledPictures(paths, [0] * len(paths), ["gel"])
    return dict(zip(paths, map(PictureDataset(labelled, 224).decode, range(len(paths))), strict=True))


@contextmanager
def already_decoded(ready: dict[Path, tuple[torch.Tensor, bytes]]) -> Iterator[None]:
    """Replaces decoding by a look-up of decoded pictures."""
    decode = PictureDataset.decode
    PictureDataset.decode = lambda self, index: ready[self.paths[index]]  # type: ignore[method-assign]
    try:
        yield
    finally:
        PictureDataset.decode = decode  # type: ignore[method-assign]


def sharding(work: Path) -> list[Figure]:
    """Feature extraction of one fit in one process and in two, and what that means for many pictures.

    One process uses all cores with threads, and two share them, so on a machine with few cores the ratio of two
    processes to one should be 1. The ratio to one process with one thread shows the gain if each process has a device
    of its own. The extrapolation to many pictures includes decoding, hashing and splitting, in proportion to their
    number, and comparing as many random hashes.
    """
    number = 400
    pictures = work / "sharded"
    if not pictures.exists():
        copy_pictures(work / "pictures/dataset", pictures, number)
    hashed = number / seconds_of(lambda: hash_pictures(pictures_in(pictures)))
    places = np.arange(20_000)
    split = seconds_of(lambda: stratified_split(places % 2, places, 0.2, 42)) / len(places)
    two, runs = ("--trainer.devices", "2", "--trainer.strategy", "ddp"), []
    for _ in range(2):  # interleaved, because the speed of the machine varies
        runs.append([sharded(work, pictures, number, OMP_NUM_THREADS="1"), sharded(work, pictures, number)])
        runs[-1].append(sharded(work, pictures, number, *two))
    single, whole, shared = (max(speed for speed, _ in way) for way in zip(*runs, strict=True))
    size = runs[0][0][1]
    figures = [
        speed_ratio(f"extraction, resnet18, {number} pictures, two processes against {what}", shared, speed, target)
        for what, speed, target in (("one with all cores", whole, 0.9), ("one of one thread", single, 1.3))
    ]
    for many in (61_000, 1_000_000):
        hashes = np.random.default_rng(0).integers(2**64, size=(many, HASHES), dtype=np.uint64)
        compared = seconds_of(partial(near_duplicate_groups, hashes))
        hours = [(many * (1 / hashed + 1 / speed + split) + compared) / 3600 for speed in (whole, shared)]
        measured = (
            f"{hours[0]:.1f} h in one process, {hours[1]:.1f} h in two, {compared:.1f} s of them to compare hashes and "
            f"{many * split:.0f} s to split; {many * size / 1e9:.2f} GB"
        )
        what = f"extrapolated to {many:,} pictures: {size:.0f} bytes each, decoded and hashed at {hashed:.0f}/s"
        figures.append(Figure(what, measured, "-", True))
    return figures


def sharded(work: Path, pictures: Path, number: int, *options: str, **environment: str) -> tuple[float, float]:
    """Feature vectors per second that a fit reports, and the bytes that it stores per picture."""
    own = ("--data.train_dir", pictures, "--trainer.max_epochs", "1", *options)
    with tempfile.TemporaryDirectory() as cache:
        command = [*GEL_FIT, *fit(work), *own, "--data.cache_dir", cache]
        settings = os.environ | {"PYTHONWARNINGS": "ignore"} | environment
        ran = subprocess.run(
            list(map(str, command)), cwd=work, env=settings, capture_output=True, text=True, check=False
        )
        said = re.search(rf"^{number} feature vectors computed in ([0-9.]+) seconds", ran.stdout, re.MULTILINE)
        if said is None:
            raise SystemExit(f"{command} failed:\n{ran.stderr}")
        kept = [store for store in list_stores(Path(cache)) if store.key["kind"] != "thumbnails"]  # of a few pictures
        return number / float(said[1]), sum(store.size / store.rows for store in kept)
