"""Feature extraction on a CPU against the bare forward of the same layers, and on two ranks."""

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import pytorch as pl
from measuring import BATCH, GEL_FIT, Figure, figure, fit, ratio, seconds_of
from targets import TARGETS
from torch import nn

from gel_lightning import GelClassifier, GelDataModule
from gel_lightning.core.store import list_stores
from gel_lightning.data.duplicates import HASHES, hash_pictures, near_duplicate_groups
from gel_lightning.data.splits import stratified_split
from gel_lightning.features.runtime import Runtime
from gel_lightning.models.network import load_trunk


def extraction(work: Path) -> Iterator[Figure]:
    """Pictures per second of feature extraction, decoding included, against the bare forward on ready tensors."""
    many = work / "many"
    if not many.exists():
        copy_pictures(work / "pictures/dataset", many, 1000)
    for backbone in TARGETS["extraction"].bounds:
        trunk = load_trunk(backbone, "none")
        model = GelClassifier(backbone, weights="none", class_names=["gel", "not_gel"])
        model.network.trunk.eval()  # loads the weights before the timing
        for folder, number in ((work / "pictures/dataset", 92), (many, 1000)):
            if backbone == "vgg16" and number == 1000:
                continue  # takes minutes, and decoding matters even less
            bare, ours = [], []
            for _ in range(3 if number == 92 else 1):
                bare.append(forward_speed(trunk, number))
                ours.append(extract(model, folder, number))
            measured = ratio(max(ours), max(bare))
            yield figure("extraction", backbone, max(ours) / max(bare), measured, f"{number} pictures")


def runtime(_: Path) -> Iterator[Figure]:
    """Pictures per second of frozen trunks on ONNX Runtime against torch, in turns, and the seconds that it starts in.

    The start is the first call but the computing: imports, graph, session and comparison with torch.
    """
    for backbone in TARGETS["runtime"].bounds:
        trunk, onnx = load_trunk(backbone, "none"), Runtime("onnx")
        onnx.onnx = True
        batch = torch.rand(BATCH, 1, 224, 224)
        trunk(batch)  # the first call is slower
        start = seconds_of(partial(onnx, trunk, batch))
        seconds = [[seconds_of(partial(way, batch)) for way in (partial(onnx, trunk), trunk)] for _ in range(7)]
        theirs, torchs = (sorted(way)[3] for way in zip(*seconds, strict=True))
        more = f"medians of 7, started in {start - theirs:.1f} s"
        yield figure("runtime", backbone, torchs / theirs, ratio(BATCH / theirs, BATCH / torchs), more)


def forward_speed(trunk: nn.Module, number: int) -> float:
    """Pictures per second of a trunk on ready tensors."""
    batch = torch.rand(BATCH, 1, 224, 224)
    with torch.inference_mode():
        trunk(batch)  # the first call is slower
        begun = time.perf_counter()
        for start in range(0, number, BATCH):
            trunk(batch[: number - start])
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


def pictures_in(folder: Path) -> list[Path]:
    """All pictures in a folder of class folders."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def sharding(work: Path) -> Iterator[Figure]:
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
    for case, speed in (("that has both", whole), ("that has one", single)):
        yield figure("sharding", case, shared / speed, ratio(shared, speed))
    for many in (61_000, 1_000_000):
        hashes = np.random.default_rng(0).integers(2**64, size=(many, HASHES), dtype=np.uint64)
        compared = seconds_of(partial(near_duplicate_groups, hashes))
        hours = [(many * (1 / hashed + 1 / speed + split) + compared) / 3600 for speed in (whole, shared)]
        measured = (
            f"{hours[0]:.1f} h in one process, {hours[1]:.1f} h in two, {compared:.1f} s of them to compare hashes and "
            f"{many * split:.0f} s to split; {many * size / 1e9:.2f} GB"
        )
        what = f"extrapolated to {many:,} pictures: {size:.0f} bytes each, decoded and hashed at {hashed:.0f}/s"
        yield Figure(what, measured, "-", True)


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
