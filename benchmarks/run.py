"""The speed figures of the README, each measured together with what it is compared to.

    make bench                                  all of them, some ten minutes on two cores
    python benchmarks/run.py loop compare       some of them: extraction, find, process, loop, ...
    python benchmarks/run.py gpu                on a GPU

Pictures are drawn and weights are random, so that no network is needed; this does not change how long anything takes.
Every figure is a ratio, because the same code may take half or twice as long on another machine or an hour later.
"""

import argparse
import logging
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import finding
import numpy as np
import torch
import torchvision
from lightning import pytorch as pl
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, models
from torchvision.transforms import v2

from gel_lightning import GelClassifier, GelDataModule, MultiLayerHead
from gel_lightning.core.store import list_stores
from gel_lightning.data.datasets import PictureDataset
from gel_lightning.data.drawn.dataset import draw_data_set
from gel_lightning.data.duplicates import HASHES, hash_pictures, near_duplicate_groups
from gel_lightning.data.folders import LabelledPictures
from gel_lightning.data.splits import stratified_split
from gel_lightning.features.extraction import GPU_BATCH

ROOT = Path(__file__).resolve().parent.parent
BACKBONES = ("resnet18", "mobilenet_v3_large", "vgg16")
BATCH, EPOCHS, RUNS_PER_BACKBONE = 23, 20, 4
IMPORT = (sys.executable, "-c", "import torch, torchvision, lightning")
GEL_FIT = (sys.executable, "-m", "gel_lightning")
# Runs gel-fit and prints how long the fit loop took.
TIMED_FIT = """
import sys, time
from lightning.pytorch import Trainer
from gel_lightning.cli.main import main
FitLoop = type(Trainer(accelerator="cpu", logger=False).fit_loop)
run = FitLoop.run
def timed(self):
    begun = time.perf_counter()
    run(self)
    print("fit loop", time.perf_counter() - begun, file=sys.stderr)
FitLoop.run = timed
sys.exit(main())
"""

# Runs a command and prints its seconds and its peak memory. This takes a small process, because on Linux the peak
# memory of a process is at least that of its parent.
MEASURED = """
import os, subprocess, sys, time
begun = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
print(time.perf_counter() - begun, usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""


class Figure(NamedTuple):
    """A measurement: what, the value, the target, and whether it is reached."""

    what: str
    measured: str
    target: str
    reached: bool


class Ran(NamedTuple):
    """Seconds that a process took, its peak memory in MB, and what it printed to stderr."""

    seconds: float
    megabytes: float
    err: str


def run(*command: object, cwd: Path, cache: Path) -> Ran:
    """Runs a process to its end."""
    environment = os.environ | {"XDG_CACHE_HOME": str(cache), "PYTHONWARNINGS": "ignore"}
    arguments = [sys.executable, "-c", MEASURED, *map(str, command)]
    ran = subprocess.run(arguments, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise SystemExit(f"{command} failed:\n{ran.stderr}")
    seconds, memory = ran.stdout.splitlines()[-1].split()
    return Ran(float(seconds), float(memory) / (2**20 if sys.platform == "darwin" else 2**10), ran.stderr)


def fit(work: Path, backbone: str = "resnet18") -> tuple[object, ...]:
    """The command line of a fit on the drawn pictures."""
    config = ROOT / f"configs/{backbone}_multi_sgd_cpu.yaml"
    return ("fit", "--config", config, "--model.weights", "none", *drawn(work))


def drawn(work: Path) -> tuple[object, ...]:
    """The options that name the drawn pictures."""
    return ("--data.train_dir", work / "pictures/dataset", "--data.test_dir", work / "pictures/test_images")


def extraction(work: Path) -> list[Figure]:
    """Pictures per second of feature extraction, decoding included, against the bare forward on ready tensors."""
    many = work / "many"
    if not many.exists():
        copy_pictures(work / "pictures/dataset", many, 1000)
    figures = []
    for backbone in BACKBONES:
        network = models.get_model(backbone, weights=None).eval().requires_grad_(False)
        model = GelClassifier(backbone, weights="none", class_names=["gel", "not_gel"])
        model.backbone.eval()  # loads the weights before the timing
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


def speed_ratio(what: str, ours: float, other: float, target: float) -> Figure:
    """The ratio of two speeds, in pictures per second."""
    return Figure(what, f"{ours:.0f}/s : {other:.0f}/s = {ours / other:.2f}", f"{target}", ours / other >= target)


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
        model.backbone.eval()
        extract(model, few, 92, accelerator)  # the first run includes one-time costs
        whole, mixed = (extract(model, folder, number, accelerator, way) for way in ("32-true", "16-mixed"))
        with already_decoded(ready):
            alone, alone_mixed = (extract(model, folder, number, accelerator, way) for way in ("32-true", "16-mixed"))
        own = forward_speed(model.backbone.to(device), number, GPU_BATCH, device, channels=1)
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


def seconds_of(action: Callable[[], object]) -> float:
    """The seconds that a call takes."""
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


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


def process(work: Path) -> list[Figure]:
    """A whole fit on stored vectors, and the help, against importing the libraries."""
    cache = work / "cache"
    run(*GEL_FIT, *fit(work), cwd=work, cache=cache)
    times: dict[str, list[float]] = {"import": [], "fit": [], "help": []}
    for _ in range(5):
        times["import"].append(run(*IMPORT, cwd=work, cache=cache).seconds)
        times["fit"].append(run(*GEL_FIT, *fit(work), cwd=work, cache=cache).seconds)
        times["help"].append(run(*GEL_FIT, "--help", cwd=work, cache=cache).seconds)
    base = min(times["import"])
    figures = []
    for what, key, target in ((f"gel-fit fit, {EPOCHS} epochs on stored vectors", "fit", 1.8), ("--help", "help", 0.2)):
        ratio = min(times[key]) / base
        measured = f"{min(times[key]):.1f} s : {base:.1f} s = {ratio:.2f}"
        figures.append(Figure(f"{what}, against the imports", measured, f"≤ {target}", ratio <= target))
    return figures


def loop(work: Path) -> list[Figure]:
    """The fit loop on stored vectors, with TensorBoard and checkpoints."""
    cache = work / "cache"
    run(*GEL_FIT, *fit(work), cwd=work, cache=cache)
    errs = [run(sys.executable, "-c", TIMED_FIT, *fit(work), cwd=work, cache=cache).err for _ in range(5)]
    seconds = min(float(err.split("fit loop")[1].split()[0]) for err in errs)
    return [Figure(f"fit loop, {EPOCHS} epochs on stored vectors", f"{seconds:.2f} s", "≤ 1.5 s", seconds <= 1.5)]


def compare(work: Path) -> list[Figure]:
    """The twelve models on the CPU, against twelve runs of the original study's training."""
    epochs = {backbone: original_epoch(work, backbone) for backbone in BACKBONES}
    original = sum(epochs.values()) * EPOCHS * RUNS_PER_BACKBONE
    each = ", ".join(f"{backbone} {seconds:.1f} s" for backbone, seconds in epochs.items())
    figures = []
    command = (*GEL_FIT, "compare", "--model.weights", "none", "--trainer.accelerator", "cpu", *drawn(work))
    with tempfile.TemporaryDirectory() as cache:
        for what, target, runs in (("nothing stored", 80, 1), ("all vectors stored", 200, 3)):
            seconds = min(run(*command, cwd=work, cache=Path(cache)).seconds for _ in range(runs))
            figures.append(
                Figure(
                    f"gel-fit compare of twelve models, {what}, against the original's way (an epoch: {each})",
                    f"{seconds:.1f} s : {original:.0f} s = 1/{original / seconds:.0f}",
                    f"1/{target}",
                    original / seconds >= target,
                )
            )
    return figures


def original_epoch(work: Path, backbone: str) -> float:
    """Seconds of an epoch of the original study's training: forward and backward through the whole network.

    A new first convolution with one channel and the head are trained; everything between is frozen but in training
    mode.
    """
    transform = v2.Compose(
        [
            v2.Grayscale(),
            v2.Resize((224, 224)),
            v2.RandomResizedCrop(224),
            v2.RandomHorizontalFlip(),
            v2.RandomRotation(10),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.485], [0.229]),
        ]
    )
    pictures = datasets.ImageFolder(str(work / "pictures/dataset"), transform)
    train, val = torch.utils.data.random_split(pictures, [74, 18])
    network = models.get_model(backbone, weights=None).requires_grad_(False)
    name, first = next((name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d))
    fresh = nn.Conv2d(
        1, first.out_channels, first.kernel_size, first.stride, first.padding, bias=first.bias is not None
    )
    network.set_submodule(name, fresh)
    name, last = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Linear)][-1]
    network.set_submodule(name, MultiLayerHead(last.in_features, 2))
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.001, momentum=0.9)
    begun = time.perf_counter()
    network.train()
    for batch, labels in DataLoader(train, BATCH, shuffle=True):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(batch), labels).backward()
        optimizer.step()
    network.eval()
    with torch.no_grad():
        for batch, _ in DataLoader(val, BATCH):
            network(batch)
    return time.perf_counter() - begun


def memory(work: Path) -> list[Figure]:
    """Peak memory over that of importing torch."""
    figures = []
    with tempfile.TemporaryDirectory() as empty:
        cache = Path(empty)
        base = run(sys.executable, "-c", "import torch", cwd=work, cache=cache).megabytes
        network = sum(value.nbytes for value in models.vgg16().state_dict().values()) / 2**20
        for what, backbone, limit in (
            ("gel-fit fit, ResNet18", "resnet18", 1200.0),
            ("gel-fit fit, VGG16", "vgg16", network + 1500),
            ("gel-fit fit, ResNet18, vectors stored", "resnet18", 400.0),
        ):
            over = run(*GEL_FIT, *fit(work, backbone), cwd=work, cache=cache).megabytes - base
            figures.append(Figure(f"peak memory, {what}", f"{over:.0f} MB", f"≤ {limit:.0f} MB", over <= limit))
    return figures


def folds(work: Path) -> list[Figure]:
    """Cross-validation of eight models, with the report, all vectors stored."""
    models = ("--backbones", "resnet18", "mobilenet_v2", "--model.weights", "none", "--trainer.accelerator", "cpu")
    command, cache = (*GEL_FIT, "compare", *models, *drawn(work)), work / "cache"
    run(*command, "--heads", "single", "--optimizers", "sgd", cwd=work, cache=cache)
    seconds = run(*command, "--folds", "5", "--repeats", "10", cwd=work, cache=cache).seconds
    what = "gel-fit compare --folds 5 --repeats 10 of eight models, all vectors stored"
    return [Figure(what, f"{seconds:.0f} s", "≤ 240 s", seconds <= 240)]


def find(work: Path) -> list[Figure]:
    """`gel-fit find` against bare decoding and bare ONNX Runtime."""
    return [Figure(*figure) for figure in finding.find(work)]


BENCHMARKS: dict[str, Callable[[Path], list[Figure]]] = {
    "extraction": extraction,
    "gpu": gpu,
    "sharding": sharding,
    "process": process,
    "loop": loop,
    "compare": compare,
    "folds": folds,
    "memory": memory,
    "find": find,
}


def main() -> int:
    """Runs the benchmarks that are named, or all, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}")
    names = parser.parse_args().names or [name for name in BENCHMARKS if name != "gpu" or torch.cuda.is_available()]
    if unknown := [name for name in names if name not in BENCHMARKS]:
        parser.error(f"no benchmark {unknown[0]!r}; choose of {', '.join(BENCHMARKS)}")
    if "gpu" in names and not torch.cuda.is_available():
        parser.error("the benchmark gpu needs a CUDA GPU")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.simplefilter("ignore")
    table = Table("figure", "measured", "target", "", title=machine())
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        draw_data_set(work / "pictures")
        for name in names:
            for figure in BENCHMARKS[name](work):
                table.add_row(figure.what, figure.measured, figure.target, "✓" if figure.reached else "✗")
                Console(stderr=True, soft_wrap=True).print(*figure[:3], sep="  ")
    Console().print(table)
    return 0


def machine() -> str:
    """What this ran on."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    versions = f"torch {torch.__version__}, torchvision {torchvision.__version__}, lightning {pl.__version__}"
    return f"{model}, {os.cpu_count()} cores, {torch.get_num_threads()} threads; {versions}"


if __name__ == "__main__":
    sys.exit(main())
