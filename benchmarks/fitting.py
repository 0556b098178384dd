"""Whole commands that train: fit, compare and folds, against imports and the original study's training."""

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from measuring import BACKBONES, BATCH, EPOCHS, GEL_FIT, IMPORT, RUNS_PER_BACKBONE, Figure, drawn, figure, fit, run
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, models
from torchvision.transforms import v2

from gel_lightning import MultiLayerHead

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


def process(work: Path) -> Iterator[Figure]:
    """A whole fit on stored vectors against importing the libraries, and what the command answers at once."""
    cache = work / "cache"
    run(*GEL_FIT, *fit(work), cwd=work, cache=cache)
    commands: dict[str, tuple[object, ...]] = {
        "import": IMPORT,
        "fit": (*GEL_FIT, *fit(work)),
        "help": (*GEL_FIT, "--help"),
        "version": (*GEL_FIT, "--version"),
    }
    times: dict[str, list[float]] = {what: [] for what in commands}
    for _ in range(5):  # interleaved, because the speed of the machine varies
        for what, command in commands.items():
            times[what].append(run(*command, cwd=work, cache=cache).seconds)
    base, ours = min(times["import"]), min(times["fit"])
    yield figure("fit", "", ours / base, f"{ours:.1f} s : {base:.1f} s = {ours / base:.2f}")
    for what in ("help", "version"):
        yield figure(what, "", min(times[what]), f"{min(times[what]):.2f} s")


def loop(work: Path) -> Iterator[Figure]:
    """The fit loop on stored vectors, with TensorBoard and checkpoints."""
    cache = work / "cache"
    run(*GEL_FIT, *fit(work), cwd=work, cache=cache)
    errs = [run(sys.executable, "-c", TIMED_FIT, *fit(work), cwd=work, cache=cache).err for _ in range(5)]
    seconds = min(float(err.split("fit loop")[1].split()[0]) for err in errs)
    yield figure("loop", "", seconds, f"{seconds:.2f} s")


def compare(work: Path) -> Iterator[Figure]:
    """The twelve models on the CPU, against twelve runs of the original study's training."""
    epochs = {backbone: original_epoch(work, backbone) for backbone in BACKBONES}
    original = sum(epochs.values()) * EPOCHS * RUNS_PER_BACKBONE
    each = ", ".join(f"{backbone} {seconds:.1f} s" for backbone, seconds in epochs.items())
    command = (*GEL_FIT, "compare", "--model.weights", "none", "--trainer.accelerator", "cpu", *drawn(work))
    with tempfile.TemporaryDirectory() as cache:
        for case, runs in (("nothing stored", 1), ("all vectors stored", 3)):
            seconds = min(run(*command, cwd=work, cache=Path(cache)).seconds for _ in range(runs))
            measured = f"{seconds:.1f} s : {original:.0f} s = 1/{original / seconds:.0f}"
            yield figure("compare", case, original / seconds, measured, f"an epoch there: {each}")


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


def memory(work: Path) -> Iterator[Figure]:
    """Peak memory over that of importing torch."""
    with tempfile.TemporaryDirectory() as empty:
        cache = Path(empty)
        base = run(sys.executable, "-c", "import torch", cwd=work, cache=cache).megabytes
        for case in ("resnet18", "vgg16", "resnet18 with vectors stored"):
            over = run(*GEL_FIT, *fit(work, case.split()[0]), cwd=work, cache=cache).megabytes - base
            yield figure("memory", case, over, f"{over:.0f} MB")


def folds(work: Path) -> Iterator[Figure]:
    """Cross-validation of eight models, with the report, all vectors stored."""
    models = ("--backbones", "resnet18", "mobilenet_v2", "--model.weights", "none", "--trainer.accelerator", "cpu")
    command, cache = (*GEL_FIT, "compare", *models, *drawn(work)), work / "cache"
    run(*command, "--heads", "single", "--optimizers", "sgd", cwd=work, cache=cache)
    seconds = run(*command, "--folds", "5", "--repeats", "10", cwd=work, cache=cache).seconds
    yield figure("folds", "", seconds, f"{seconds:.0f} s")
